//! One segment: a `.log` file of batches back to back, its two sparse indexes, what is known of it.

use std::io;
use std::path::{Path, PathBuf};

use millrace_io::{Io, OpenMode};

use crate::index::{OffsetEntry, SparseIndex, TimeEntry};
use millrace_wire::batch::BatchHeader;

/// The largest timestamp of some batches and the last offset of the first batch that holds it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct MaxTimestamp {
    pub(crate) timestamp: i64,
    pub(crate) offset: i64,
}

/// Invariant: `bytes` is the exact length of the log in this segment; the file may be longer (space
/// prepared) and, while the segment is active, shorter (bytes still in memory).
pub(crate) struct Segment<I: Io> {
    pub(crate) base: i64,
    pub(crate) bytes: u64,
    /// Open for reading, or for writing when it is the segment being written.
    file: Option<I::File>,
    pub(crate) offsets: SparseIndex<I, OffsetEntry>,
    pub(crate) times: SparseIndex<I, TimeEntry>,
    /// `None` when not looked at yet, or when the segment is empty.
    pub(crate) max_timestamp: Option<MaxTimestamp>,
    /// Timestamp that `segment.ms` counts from; `None` when empty or found on disk.
    pub(crate) first_timestamp: Option<i64>,
    /// When retention first saw it as it is, by the wall clock.
    pub(crate) seen_at: Option<i64>,
    bytes_since_entry: u64,
}

/// The path of a segment's file: the base offset with 20 digits, and a suffix with its dot.
pub(crate) fn path(dir: &Path, base: i64, suffix: &str) -> PathBuf {
    dir.join(format!("{base:020}{suffix}"))
}

impl<I: Io> Segment<I> {
    /// A segment without bytes and without files.
    pub(crate) fn new(base: i64) -> Self {
        Self {
            base,
            bytes: 0,
            file: None,
            offsets: SparseIndex::new(),
            times: SparseIndex::new(),
            max_timestamp: None,
            first_timestamp: None,
            seen_at: None,
            bytes_since_entry: 0,
        }
    }

    /// A segment whose files are there, with this many bytes of log.
    pub(crate) fn found(base: i64, bytes: u64) -> Self {
        Self {
            bytes,
            offsets: SparseIndex::on_disk(),
            times: SparseIndex::on_disk(),
            ..Self::new(base)
        }
    }

    /// Notes a batch appended at the end. `header` carries the offsets it has in the log.
    pub(crate) fn append(&mut self, header: &BatchHeader, index_interval_bytes: u64) {
        let at = MaxTimestamp { timestamp: header.max_timestamp, offset: header.last_offset() };
        // What compaction left without records has no time.
        if header.record_count > 0 {
            if self.max_timestamp.is_none_or(|max| max.timestamp < at.timestamp) {
                self.max_timestamp = Some(at);
            }
            if header.max_timestamp >= 0 {
                self.first_timestamp.get_or_insert(header.max_timestamp);
            }
        }
        self.seen_at = None;
        if self.bytes_since_entry > index_interval_bytes {
            let position = u32::try_from(self.bytes).expect("segments are smaller than 4 GiB");
            self.offsets
                .push(OffsetEntry { offset: self.relative(header.last_offset()), position });
            self.push_time();
            self.bytes_since_entry = 0;
        }
        self.bytes_since_entry += header.bytes() as u64;
        self.bytes += header.bytes() as u64;
    }

    /// Adds the largest timestamp so far to the time index, when it grew since the last entry.
    pub(crate) fn push_time(&mut self) {
        let Some(max) = self.max_timestamp else { return };
        if self.times.last().is_none_or(|last| last.timestamp < max.timestamp) {
            let offset = self.relative(max.offset);
            self.times.push(TimeEntry { timestamp: max.timestamp, offset });
        }
    }

    /// Whether the batch may follow in this segment: Kafka's rule of `LogSegment.shouldRoll`.
    pub(crate) fn takes(&self, header: &BatchHeader, config: &crate::LogConfig) -> bool {
        if self.bytes == 0 {
            return true;
        }
        let bytes = self.bytes + header.bytes() as u64;
        let age = self.first_timestamp.map(|first| header.max_timestamp.saturating_sub(first));
        bytes <= config.segment_bytes
            && age.is_none_or(|age| age <= config.segment_ms)
            && header.last_offset() - self.base <= i64::from(i32::MAX)
            && self.offsets.bytes() + 8 <= config.segment_index_bytes
            && self.times.bytes() + 12 <= config.segment_index_bytes
    }

    fn relative(&self, offset: i64) -> u32 {
        u32::try_from(offset - self.base).expect("a segment spans less than 2^31 offsets")
    }

    /// The file for reading.
    pub(crate) fn file(&mut self, io: &mut I, dir: &Path) -> io::Result<I::File> {
        if self.file.is_none() {
            self.file = Some(io.open(&path(dir, self.base, ".log"), OpenMode::Read)?);
        }
        Ok(self.file.clone().expect("opened above"))
    }

    /// The file if it is open.
    pub(crate) fn open_file(&self) -> Option<&I::File> {
        self.file.as_ref()
    }

    /// Takes the file that this segment is written through.
    pub(crate) fn set_file(&mut self, file: I::File) {
        self.file = Some(file);
    }

    /// Closes all files.
    pub(crate) fn release(&mut self) {
        self.file = None;
        self.offsets.release();
        self.times.release();
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.offsets.memory_bytes() + self.times.memory_bytes()
    }

    pub(crate) fn open_files(&self) -> usize {
        usize::from(self.file.is_some())
            + usize::from(self.offsets.is_open())
            + usize::from(self.times.is_open())
    }

    /// The position from which a walk over the batches finds the one that holds `offset`.
    pub(crate) fn position_before(
        &mut self,
        io: &mut I,
        dir: &Path,
        offset: i64,
    ) -> io::Result<Option<OffsetEntry>> {
        let base = self.base;
        let path = path(dir, base, ".index");
        self.offsets.find_last(io, &path, |entry| base + i64::from(entry.offset) <= offset)
    }

    /// The last indexed batch boundary at or below `position`.
    pub(crate) fn boundary_below(
        &mut self,
        io: &mut I,
        dir: &Path,
        position: u64,
    ) -> io::Result<Option<OffsetEntry>> {
        let path = path(dir, self.base, ".index");
        self.offsets.find_last(io, &path, |entry| u64::from(entry.position) <= position)
    }

    /// Takes the indexes, and what was learnt with them, from a segment made for the purpose.
    pub(crate) fn take_indexes(&mut self, rebuilt: Self) {
        assert!(self.base == rebuilt.base && self.bytes == rebuilt.bytes, "of the same batches");
        *self = Self { file: self.file.take(), seen_at: self.seen_at, ..rebuilt };
    }

    /// Puts index entries of offsets below `durable_end` into the files.
    pub(crate) fn persist_indexes(
        &mut self,
        io: &mut I,
        dir: &Path,
        durable_end: i64,
    ) -> io::Result<()> {
        let base = self.base;
        let durable = |offset: u32| base + i64::from(offset) < durable_end;
        self.offsets.persist(io, &path(dir, base, ".index"), |entry| durable(entry.offset))?;
        self.times.persist(io, &path(dir, base, ".timeindex"), |entry| durable(entry.offset))
    }

    /// Cuts what is known of the segment down to the offsets below `end` and `bytes` bytes of log.
    /// What was only in memory is forgotten, to be learnt anew from the batches.
    pub(crate) fn truncate(
        &mut self,
        io: &mut I,
        dir: &Path,
        end: i64,
        bytes: u64,
    ) -> io::Result<()> {
        let base = self.base;
        let kept = |offset: u32| base + i64::from(offset) < end;
        self.offsets.truncate(io, &path(dir, base, ".index"), |entry| kept(entry.offset))?;
        self.times.truncate(io, &path(dir, base, ".timeindex"), |entry| kept(entry.offset))?;
        self.bytes = bytes;
        self.bytes_since_entry = 0;
        self.max_timestamp = None;
        Ok(())
    }
}
