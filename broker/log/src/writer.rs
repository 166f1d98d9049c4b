//! From memory to the file: rounds of writes, space prepared ahead, and the change of segments.
//!
//! At most one round is in flight, so no two writes ever cover the same block; what is appended
//! meanwhile gathers for the next. A segment is written only when the one before it is finished and
//! flushed: recovery never has to look further back than the last segment that holds anything.

use std::collections::VecDeque;
use std::io;

use millrace_io::{BLOCK_BYTES, ChunkPool, Instant, Io, Token, WritePath};

use crate::config::{
    CACHED_ROUND_BYTES_MAX, PREPARE_BYTES_MAX, PREPARE_BYTES_MIN, ROUND_BYTES_MAX,
    SMALL_ROUND_BYTES_MAX, SMALL_ROUNDS, SPLIT_BYTES_MIN,
};
use crate::partition::PartitionLog;
use crate::token::{self, Operation};

/// What a completion changed.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LogProgress {
    /// `written_end`, and with it the high watermark, moved.
    pub is_written: bool,
    /// `durable_end` moved.
    pub is_durable: bool,
    /// The disk is full: appends from this offset on were taken back.
    pub refused_from: Option<i64>,
    /// The log stopped; [`PartitionLog::poison`] says why.
    pub is_poisoned: bool,
}

/// The end of an append that is not written yet.
#[derive(Clone, Copy, Debug)]
struct Mark {
    segment: i64,
    position: u64,
    offset: i64,
}

/// What stands between a submission and the next.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Gate {
    /// Nothing: writes may go.
    Open,
    /// What recovery cut off must be durably gone before something else is written in its place.
    Unsettled,
    /// That flush is in flight.
    Settling,
    /// A finished segment is being flushed.
    Sealing,
}

/// Invariant: `position` is how much of the file of `segment` was written; segments before it are
/// finished and durable, segments after it exist in memory only.
#[derive(Debug)]
pub(crate) struct Writer {
    pub(crate) segment: i64,
    pub(crate) position: u64,
    /// Where the last batch that is written whole ends.
    pub(crate) written_position: u64,
    /// Length of the file: blocks below it exist.
    pub(crate) prepared: u64,
    pub(crate) is_open: bool,
    pub(crate) is_buffered: bool,
    pub(crate) gate: Gate,
    /// Set while the disk is known to be full: when space was asked for last.
    pub(crate) refused_at: Option<Instant>,
    pub(crate) unwritten_bytes: u64,
    prepare_bytes: u64,
    allocating: Option<u64>,
    outstanding: u32,
    round_end: u64,
    is_full: bool,
    /// Rounds that were small since the last that was not or the last flush, no further than
    /// [`SMALL_ROUNDS`].
    small_rounds: u32,
    marks: VecDeque<Mark>,
    scratch: Vec<u8>,
}

impl Writer {
    /// A writer for the segment with this base, of which this much is written.
    pub(crate) fn at(segment: i64, position: u64) -> Self {
        Self {
            segment,
            position,
            written_position: position,
            prepared: 0,
            is_open: false,
            is_buffered: false,
            gate: Gate::Open,
            refused_at: None,
            unwritten_bytes: 0,
            prepare_bytes: PREPARE_BYTES_MIN,
            allocating: None,
            outstanding: 0,
            round_end: position,
            is_full: false,
            small_rounds: 0,
            marks: VecDeque::new(),
            scratch: Vec::new(),
        }
    }

    /// Whether the kernel works on the file: writes, space or a flush between segments.
    pub(crate) fn is_busy(&self) -> bool {
        self.outstanding > 0
            || self.allocating.is_some()
            || matches!(self.gate, Gate::Settling | Gate::Sealing)
    }

    pub(crate) fn note_append(&mut self, segment: i64, position: u64, offset: i64, bytes: u64) {
        self.marks.push_back(Mark { segment, position, offset });
        self.unwritten_bytes += bytes;
    }

    /// A copy of the batch that may be changed, in memory that is used again.
    pub(crate) fn scratch(&mut self, batch: &[u8]) -> &mut [u8] {
        self.scratch.clear();
        self.scratch.extend_from_slice(batch);
        &mut self.scratch
    }

    pub(crate) fn release(&mut self) {
        self.is_open = false;
        self.prepare_bytes = PREPARE_BYTES_MIN;
        self.marks = VecDeque::new();
        self.scratch = Vec::new();
    }

    /// Which way the next round goes, which has so many bytes. After many small ones through the
    /// page cache, and only a large one leads back.
    fn path(&mut self, bytes: u64) -> WritePath {
        let is_cached = self.small_rounds >= SMALL_ROUNDS;
        let small_max = if is_cached { CACHED_ROUND_BYTES_MAX } else { SMALL_ROUND_BYTES_MAX };
        self.small_rounds =
            if bytes > small_max { 0 } else { self.small_rounds + 1 }.min(SMALL_ROUNDS);
        match self.is_buffered || self.small_rounds == SMALL_ROUNDS {
            true => WritePath::Cached,
            false => WritePath::Direct,
        }
    }

    /// Whoever flushes waits for the device: what it has already need not be brought to it then.
    pub(crate) fn note_flush(&mut self) {
        self.small_rounds = 0;
    }

    /// Forgets appends that are not written.
    pub(crate) fn forget_unwritten(&mut self) {
        assert!(!self.is_busy(), "the file is quiet");
        self.marks.clear();
        self.unwritten_bytes = 0;
    }
}

/// Whether an error says that there is no room, rather than that something broke.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge
    )
}

impl<I: Io> PartitionLog<I> {
    /// Submits what was appended. Call it at the end of a turn; nothing happens while earlier
    /// writes are in flight, their completion goes on by itself.
    pub fn submit_writes(&mut self, io: &mut I) {
        if self.poison.is_some() || self.writer.outstanding > 0 || !self.writer.is_open {
            return;
        }
        let index = self.segment_at(self.writer.segment);
        match self.writer.gate {
            Gate::Open => {}
            Gate::Settling | Gate::Sealing => return,
            Gate::Unsettled => {
                self.writer.gate = Gate::Settling;
                self.submit_segment_sync(io, index);
                return;
            }
        }
        let bytes = self.segments[index].bytes;
        if self.writer.position < bytes {
            if self.has_space(io, bytes) {
                self.submit_round(io, index);
            }
        } else if index + 1 < self.segments.len() && self.writer.allocating.is_none() {
            self.seal(io, index);
        }
    }

    /// Whether the file is long enough for its bytes. Asks for more in time for the next write.
    fn has_space(&mut self, io: &mut I, bytes: u64) -> bool {
        let end = bytes.next_multiple_of(BLOCK_BYTES as u64);
        let is_enough = end <= self.writer.prepared;
        let target = self.config.segment_bytes.next_multiple_of(BLOCK_BYTES as u64);
        let is_short = self.writer.prepared.saturating_sub(end) < self.writer.prepare_bytes / 2
            && self.writer.prepared < target;
        if (!is_enough || is_short) && self.writer.allocating.is_none() {
            let ahead = (self.writer.prepared.max(end) + self.writer.prepare_bytes).min(target);
            self.submit_allocate(io, ahead.max(end));
        }
        is_enough
    }

    pub(crate) fn submit_allocate(&mut self, io: &mut I, end: u64) {
        let end = end.next_multiple_of(BLOCK_BYTES as u64);
        let start = self.writer.prepared;
        assert!(end > start && self.writer.allocating.is_none(), "one request for more at a time");
        let index = self.segment_at(self.writer.segment);
        let file = self.segments[index].open_file().expect("open for writing");
        let token = token::pack(Operation::Allocate, self.generation, self.partition_index);
        io.submit_allocate(token, file, start, end - start);
        self.writer.allocating = Some(end);
    }

    fn submit_round(&mut self, io: &mut I, index: usize) {
        let segment = &self.segments[index];
        let path = self.writer.path(segment.bytes - self.writer.position);
        let file = segment.open_file().expect("open for writing");
        let token = token::pack(Operation::Write, self.generation, self.partition_index);
        let block = BLOCK_BYTES as u64;
        let mut bytes = 0;
        for part in self.tail.parts_from(segment.base, self.writer.position) {
            if bytes + part.chunk.len() > ROUND_BYTES_MAX && bytes > 0 {
                break;
            }
            let from = self.writer.position.saturating_sub(part.position);
            let start = from / block * block;
            let mut blocks = part.chunk.blocks(start as usize);
            let mut position = part.position + start;
            if path == WritePath::Direct && start < from && blocks.len() > SPLIT_BYTES_MIN {
                // A write over a block that was written and blocks that were only prepared is
                // handed to a kernel thread, under the file's exclusive lock.
                let (again, rest) = blocks.split_at(BLOCK_BYTES);
                io.submit_write(token, file, position, again, path);
                self.writer.outstanding += 1;
                (blocks, position) = (rest, position + block);
            }
            io.submit_write(token, file, position, blocks, path);
            bytes += part.chunk.len();
            self.writer.outstanding += 1;
            self.writer.round_end = part.end();
        }
        assert!(self.writer.outstanding > 0, "unwritten bytes are in memory");
    }

    /// Finishes a segment that has a successor: exact length, then a flush.
    fn seal(&mut self, io: &mut I, index: usize) {
        let file = self.segments[index].open_file().expect("open for writing");
        if let Err(error) = io.set_file_bytes(file, self.segments[index].bytes) {
            self.stop("cutting a segment to its length", &error);
            return;
        }
        self.writer.gate = Gate::Sealing;
        self.submit_segment_sync(io, index);
    }

    fn submit_segment_sync(&mut self, io: &mut I, index: usize) {
        let file = self.segments[index].open_file().expect("open for writing");
        let token = token::pack(Operation::Seal, self.generation, self.partition_index);
        io.submit_sync(token, file);
    }

    /// Takes the completion of an operation that this log submitted, and submits what follows.
    pub fn on_completed(
        &mut self,
        io: &mut I,
        pool: &mut ChunkPool,
        token: Token,
        result: io::Result<usize>,
    ) -> LogProgress {
        let operation = token::operation(token).expect("the shard dispatches by kind");
        let mut progress = match operation {
            Operation::Write => self.on_written(io, pool, result),
            Operation::Allocate => self.on_allocated(io, result),
            Operation::Seal => self.on_segment_synced(io, result),
            Operation::Flush => self.on_own_flush(io, result),
        };
        if self.poison.is_none() && self.writer.is_full && !self.writer.is_busy() {
            progress.refused_from = self.take_back_unwritten(io, pool);
        }
        self.submit_writes(io);
        progress.is_poisoned = self.poison.is_some();
        progress
    }

    fn on_written(
        &mut self,
        io: &mut I,
        pool: &mut ChunkPool,
        result: io::Result<usize>,
    ) -> LogProgress {
        assert!(self.writer.outstanding > 0, "a write of this log completed");
        self.writer.outstanding -= 1;
        match result {
            Ok(_) => {}
            Err(error) if is_full(&error) => self.writer.is_full = true,
            Err(error) => self.stop("a write", &error),
        }
        if self.writer.outstanding > 0 || self.writer.is_full || self.poison.is_some() {
            return LogProgress::default();
        }
        let writer = &mut self.writer;
        writer.position = writer.round_end;
        writer.prepared = writer.prepared.max(writer.position);
        let mut written = None;
        while let Some(mark) = writer.marks.front()
            && (mark.segment, mark.position) <= (writer.segment, writer.position)
        {
            let bytes = mark.position - writer.written_position;
            writer.unwritten_bytes -= bytes;
            writer.written_position = mark.position;
            self.flush.written_bytes += bytes;
            written = Some(mark.offset);
            writer.marks.pop_front();
        }
        let now = io.now();
        if let Some(end) = written {
            self.ends.write_to(end);
            self.flush.dirty_since.get_or_insert(now);
        }
        let reached = (self.writer.segment, self.writer.position);
        self.tail.release_written(pool, now, reached, self.config.cache_bytes_max);
        LogProgress { is_written: written.is_some(), ..LogProgress::default() }
    }

    fn on_allocated(&mut self, io: &mut I, result: io::Result<usize>) -> LogProgress {
        let end = self.writer.allocating.take().expect("space was asked for");
        let index = self.segment_at(self.writer.segment);
        let needed = self.segments[index].bytes.next_multiple_of(BLOCK_BYTES as u64);
        match result {
            Ok(_) => {
                self.writer.prepared = end;
                self.writer.refused_at = None;
                self.writer.prepare_bytes = (self.writer.prepare_bytes * 2).min(PREPARE_BYTES_MAX);
            }
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                // The file system cannot prepare space: writes extend the file.
                self.writer.prepared = u64::MAX;
            }
            Err(error) if is_full(&error) => {
                self.writer.prepare_bytes = PREPARE_BYTES_MIN;
                self.writer.refused_at = Some(io.now());
                if needed > self.writer.prepared && end > needed {
                    self.submit_allocate(io, needed);
                } else {
                    self.writer.is_full = needed > self.writer.prepared;
                }
            }
            Err(error) => self.stop("preparing space", &error),
        }
        LogProgress::default()
    }

    fn on_segment_synced(&mut self, io: &mut I, result: io::Result<usize>) -> LogProgress {
        if let Err(error) = result {
            self.stop("a flush", &error);
            return LogProgress::default();
        }
        let was = std::mem::replace(&mut self.writer.gate, Gate::Open);
        let is_durable = self.note_durable(self.ends.written_end(), self.flush.written_bytes);
        if was == Gate::Sealing {
            let index = self.segment_at(self.writer.segment);
            // Indexes are hints: a segment without them is still whole.
            let end = self.ends.durable_end();
            let _ = self.segments[index].persist_indexes(io, &self.dir, end);
            self.segments[index].release();
            let next = &self.segments[index + 1];
            self.writer.segment = next.base;
            self.writer.position = 0;
            self.writer.written_position = 0;
            self.writer.prepared = 0;
        }
        LogProgress { is_durable, ..LogProgress::default() }
    }

    /// The disk is full: what is not written is forgotten, in memory and on disk.
    fn take_back_unwritten(&mut self, io: &mut I, pool: &mut ChunkPool) -> Option<i64> {
        self.writer.is_full = false;
        self.writer.refused_at.get_or_insert(io.now());
        let end = self.ends.written_end();
        if end == self.ends.appended_end() {
            return None;
        }
        if let Err(error) = self.cut(io, pool, end) {
            self.stop("taking back what does not fit", &io::Error::other(error.to_string()));
        }
        Some(end)
    }
}
