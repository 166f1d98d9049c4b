//! The two doors through which batches come in: for clients and for replicas.

use std::io;

use millrace_io::{ChunkPool, Io, OpenMode};

use crate::config::{REFUSAL_MS, WriteMode};
use millrace_wire::batch::{
    BatchHeader, HEADER_BYTES, patch_base_offset, patch_leader_epoch, patch_log_append_time,
};

use crate::header::{self, next_offset};
use crate::partition::{PartitionLog, Poison};
use crate::segment::{self, Segment};
use crate::writer::is_full;

/// Who brings a batch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AppendAs {
    /// A client, to the leader: offsets are assigned and the epoch is stamped.
    Leader {
        /// The leader's epoch.
        epoch: i32,
        /// The time to stamp, where the topic wants the time of the append.
        log_append_time: Option<i64>,
    },
    /// The leader, to a replica: taken as it is, gaps allowed.
    Replica,
}

/// Where a batch went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Appended {
    /// Offset of its first record.
    pub base_offset: i64,
    /// Offset of its last record.
    pub last_offset: i64,
}

/// Why a batch was not taken. Nothing changed.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// A write or a flush failed before.
    #[error("the log stopped: {0}")]
    Poisoned(Poison),
    /// The disk is full. Readers are served, and appends again when there is room.
    #[error("no space for new records")]
    NoSpace,
    /// Not a batch of format 2, or not exactly one: the caller validates first.
    #[error("not one whole batch")]
    Malformed,
    /// A replica's batch begins below the end of the log, or a leader ran out of offsets.
    #[error("a batch at offset {offset} does not follow on {end}")]
    OutOfOrder {
        /// Offset of the batch.
        offset: i64,
        /// The end of the log.
        end: i64,
    },
    /// A file could not be opened or made.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

impl<I: Io> PartitionLog<I> {
    /// Takes one whole batch, already validated, into memory. It is ordered from here on; it is
    /// written by [`PartitionLog::submit_writes`] at the end of the turn.
    pub fn append(
        &mut self,
        io: &mut I,
        pool: &mut ChunkPool,
        batch: &[u8],
        door: AppendAs,
    ) -> Result<Appended, AppendError> {
        let mut header = header::parse(batch).ok_or(AppendError::Malformed)?;
        if header.bytes() != batch.len() || u32::try_from(batch.len()).is_err() {
            return Err(AppendError::Malformed);
        }
        let (base, position) = self.begin(io, pool, &mut header, door)?;
        let log_append_time = match door {
            AppendAs::Leader { log_append_time, .. } => log_append_time,
            AppendAs::Replica => None,
        };
        let now = io.now();
        if let Some(ms) = log_append_time {
            header.max_timestamp = ms;
            let scratch = self.writer.scratch(batch);
            patch_log_append_time(scratch, ms);
            stamp(&header, scratch);
            self.tail.append(pool, now, base, position, scratch);
        } else {
            let mut start: [u8; HEADER_BYTES] = *batch.first_chunk().expect("parsed above");
            stamp(&header, &mut start);
            self.tail.append(pool, now, base, position, &start);
            let position = position + HEADER_BYTES as u64;
            self.tail.append(pool, now, base, position, &batch[HEADER_BYTES..]);
        }
        Ok(self.conclude(position, &header))
    }

    /// The memory in which a batch of a client will lie, in pieces, so that it can be received
    /// there; `start` is the beginning of the batch, its header at least. Nothing is appended
    /// before [`PartitionLog::append_reserved`]; if that is not what follows,
    /// [`PartitionLog::forget_reserved`] must.
    pub fn reserve(
        &mut self,
        io: &mut I,
        pool: &mut ChunkPool,
        start: &[u8],
        epoch: i32,
    ) -> Result<Vec<&mut [u8]>, AppendError> {
        let mut header = header::parse(start).ok_or(AppendError::Malformed)?;
        let door = AppendAs::Leader { epoch, log_append_time: None };
        let (base, position) = self.begin(io, pool, &mut header, door)?;
        Ok(self.tail.reserve(pool, io.now(), base, position, header.bytes()))
    }

    /// Appends the batch, already validated, that was laid into the memory reserved for it, all but
    /// its `start`.
    pub fn append_reserved(
        &mut self,
        io: &mut I,
        pool: &mut ChunkPool,
        start: &[u8],
        epoch: i32,
    ) -> Result<Appended, AppendError> {
        let mut header = header::parse(start).ok_or(AppendError::Malformed)?;
        let door = AppendAs::Leader { epoch, log_append_time: None };
        let (base, position) = self.begin(io, pool, &mut header, door)?;
        let scratch = self.writer.scratch(start);
        stamp(&header, scratch);
        self.tail.commit(base, position, scratch, header.bytes());
        Ok(self.conclude(position, &header))
    }

    /// What was reserved will not be appended.
    pub fn forget_reserved(&mut self, pool: &mut ChunkPool) {
        self.tail.forget_reserved(pool);
    }

    /// Gives a batch its place: offset, epoch, segment and position.
    fn begin(
        &mut self,
        io: &mut I,
        pool: &mut ChunkPool,
        header: &mut BatchHeader,
        door: AppendAs,
    ) -> Result<(i64, u64), AppendError> {
        if let Some(poison) = &self.poison {
            return Err(AppendError::Poisoned(poison.clone()));
        }
        self.place(header, door)?;
        self.make_room(io, pool, header)?;
        let epoch = header.partition_leader_epoch;
        let assigned = self.epochs.assign(io, &self.dir, epoch, header.base_offset);
        assigned.map_err(refusal("leader epochs"))?;
        let segment = self.segments.back().expect("never empty");
        Ok((segment.base, segment.bytes))
    }

    /// Takes note of a batch that was laid at `position`.
    fn conclude(&mut self, position: u64, header: &BatchHeader) -> Appended {
        let segment = self.segments.back_mut().expect("never empty");
        self.tail.note_batch(position, header.base_offset);
        segment.append(header, self.config.index_interval_bytes);
        let (base, end) = (segment.base, segment.bytes);
        self.writer.note_append(base, end, next_offset(header), header.bytes() as u64);
        self.producers.note(header);
        self.ends.append_to(next_offset(header));
        Appended { base_offset: header.base_offset, last_offset: header.last_offset() }
    }

    /// Decides the offsets and the epoch of a batch.
    fn place(&self, header: &mut BatchHeader, door: AppendAs) -> Result<(), AppendError> {
        let end = self.ends.appended_end();
        if let AppendAs::Leader { epoch, .. } = door {
            header.base_offset = end;
            header.partition_leader_epoch = epoch;
        }
        let fits = header.base_offset.checked_add(i64::from(header.last_offset_delta) + 1);
        if header.base_offset < end || fits.is_none() {
            return Err(AppendError::OutOfOrder { offset: header.base_offset, end });
        }
        Ok(())
    }

    /// Makes sure that the active segment may take the batch, that its file is open, and that the
    /// disk is not known to be full.
    fn make_room(
        &mut self,
        io: &mut I,
        pool: &mut ChunkPool,
        header: &BatchHeader,
    ) -> Result<(), AppendError> {
        if self.writer.refused_at.is_some() && !self.ask_for_space(io, header.bytes() as u64) {
            return Err(AppendError::NoSpace);
        }
        if !self.writer.is_open {
            self.begin_writing(io, pool).map_err(refusal("open segment"))?;
        }
        let active = self.segments.back_mut().expect("never empty");
        if !active.takes(header, &self.config) {
            self.roll(io, header.base_offset).map_err(refusal("new segment"))?;
        }
        Ok(())
    }

    /// Begins a segment. The one before it is finished by [`PartitionLog::submit_writes`] once it
    /// is written.
    pub(crate) fn roll(&mut self, io: &mut I, base: i64) -> io::Result<()> {
        assert!(self.writer.is_open, "who writes the segment before it can finish it");
        self.segments.back_mut().expect("never empty").push_time();
        let file = self.open_for_writing(io, base, true)?;
        let mut segment = Segment::new(base);
        segment.set_file(file);
        self.segments.push_back(segment);
        self.snapshot_producers(io, base)
    }

    /// Whether the batch fits into space that is there; else asks for some, once in a while.
    fn ask_for_space(&mut self, io: &mut I, bytes: u64) -> bool {
        let end = self.segments.back().expect("never empty").bytes + bytes;
        let active = self.segments.back().expect("never empty").base == self.writer.segment;
        if active && end <= self.writer.prepared {
            return true;
        }
        let waited = self.writer.refused_at.map_or(0, |at| io.now().ms_since(at));
        if waited >= REFUSAL_MS && !self.writer.is_busy() {
            self.writer.refused_at = Some(io.now());
            if active && self.writer.is_open {
                self.submit_allocate(io, end);
            } else {
                // The next write tries: it needs a file first.
                self.writer.refused_at = None;
                return true;
            }
        }
        false
    }

    /// Opens the file of the segment being written, learns how much space it has, and takes its
    /// partial last block into memory.
    pub(crate) fn begin_writing(&mut self, io: &mut I, pool: &mut ChunkPool) -> io::Result<()> {
        let index = self.segment_at(self.writer.segment);
        let (base, bytes) = (self.segments[index].base, self.segments[index].bytes);
        let file = self.open_for_writing(io, base, false)?;
        self.writer.prepared = io.file_bytes(&file)?;
        self.segments[index].set_file(file);
        self.restore_tail(io, pool)?;
        assert!(self.writer.position <= bytes, "nothing is written beyond the segment's end");
        self.writer.is_open = true;
        Ok(())
    }

    /// Takes the partial last block of the file into memory when it is not there.
    pub(crate) fn restore_tail(&mut self, io: &mut I, pool: &mut ChunkPool) -> io::Result<()> {
        let active = self.segments.back_mut().expect("never empty");
        let partial = active.bytes % millrace_io::BLOCK_BYTES as u64;
        if partial == 0 || self.tail.start(active.base).is_some() {
            return Ok(());
        }
        let file = active.file(io, &self.dir)?;
        let mut block = [0; millrace_io::BLOCK_BYTES];
        let block = &mut block[..partial as usize];
        if io.read_at(&file, active.bytes - partial, block)? != block.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.tail.restore(pool, active.base, active.bytes, block);
        Ok(())
    }

    /// Opens or makes a segment's file in the way the file system allows.
    pub(crate) fn open_for_writing(
        &mut self,
        io: &mut I,
        base: i64,
        is_new: bool,
    ) -> io::Result<I::File> {
        let path = segment::path(&self.dir, base, ".log");
        let mut direct = self.config.write_mode == WriteMode::Auto && !self.writer.is_buffered;
        let file = match direct.then(|| io.open(&path, OpenMode::Direct)) {
            Some(Err(error)) if error.kind() == io::ErrorKind::InvalidInput => {
                direct = false;
                io.open(&path, OpenMode::ReadWrite)?
            }
            Some(opened) => opened?,
            None => io.open(&path, OpenMode::ReadWrite)?,
        };
        self.writer.is_buffered = !direct;
        if is_new {
            // A name left by a crash may hold bytes; and the name must be durable before the first
            // acknowledged flush of what it holds.
            if io.file_bytes(&file)? > 0 {
                io.set_file_bytes(&file, 0)?;
            }
            io.sync_dir(&self.dir)?;
        }
        Ok(file)
    }
}

/// Puts the offset and the epoch into the start of a batch.
fn stamp(header: &BatchHeader, batch: &mut [u8]) {
    patch_base_offset(batch, header.base_offset);
    patch_leader_epoch(batch, header.partition_leader_epoch);
}

/// A failure before anything changed: full is full, the rest is an error of its own.
fn refusal(what: &'static str) -> impl FnOnce(io::Error) -> AppendError {
    move |source| {
        if is_full(&source) { AppendError::NoSpace } else { AppendError::Io { what, source } }
    }
}
