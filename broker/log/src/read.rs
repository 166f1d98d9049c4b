//! What a fetch gets: slices of memory, a range of a file, or a range that runs over from one into
//! the other. Always whole batches, beginning with the one that holds the asked offset.

use std::io;

use millrace_io::{ChunkPool, ChunkSlice, Io};
use smallvec::SmallVec;

use crate::LogError;
use crate::config::READ_AHEAD_BYTES;
use crate::header::{self, BatchHeader, HEADER_BYTES};
use crate::index::OffsetEntry;
use crate::partition::PartitionLog;

/// What is asked of [`PartitionLog::read`].
#[derive(Clone, Copy, Debug)]
pub struct ReadRequest {
    /// The first offset wanted.
    pub offset: i64,
    /// At most this many bytes.
    pub bytes_max: usize,
    /// The first batch is returned even when it alone is larger than `bytes_max`.
    pub at_least_one: bool,
    /// Exclusive: nothing at or above it is returned; the high watermark or the like.
    pub upper_bound: i64,
    /// Whether batch headers may be read from the disk, which blocks; else [`ReadPlan::Cold`] is
    /// returned when they are not in the page cache.
    pub may_block: bool,
}

/// A range of a segment's file that is never written again.
#[derive(Clone, Debug)]
pub struct FileRange<F> {
    /// The file.
    pub file: F,
    /// Where the range begins.
    pub position: u64,
    /// How long it is.
    pub bytes: usize,
}

impl<F> FileRange<F> {
    /// Has the kernel read the file ahead, in steps: from this range, or from where it was `asked`
    /// up to before, `until` there, but not beyond `limit`. Returns up to where it was asked.
    pub fn read_ahead<I: Io<File = F>>(
        &self,
        io: &mut I,
        asked: u64,
        until: u64,
        limit: u64,
    ) -> u64 {
        let (from, until) = (asked.max(self.position), until.min(limit));
        let bytes = until.saturating_sub(from) as usize;
        if bytes == 0 || (bytes < READ_AHEAD_BYTES / 2 && until < limit) {
            return asked;
        }
        if !io.is_cached(&self.file, from, bytes) {
            io.submit_read_ahead(&self.file, from, bytes);
        }
        until
    }
}

/// Batches found by a read: the bytes in `file`, then those in `memory`.
#[derive(Clone, Debug)]
pub struct ReadData<F> {
    /// Length of both.
    pub bytes: usize,
    /// The older part.
    pub file: Option<FileRange<F>>,
    /// The newer part.
    pub memory: SmallVec<[ChunkSlice; 2]>,
}

/// The outcome of a read.
#[derive(Clone, Debug)]
pub enum ReadPlan<F> {
    /// Nothing between the offset and the upper bound, or (without `at_least_one`) no batch as
    /// small as `bytes_max`.
    Nothing,
    /// The offset is below the log start or beyond the end of the log.
    OutOfRange,
    /// These bytes.
    Data(ReadData<F>),
    /// Bring these pages into the cache ([`Io::submit_fetch_pages`]) and ask again.
    Cold(FileRange<F>),
}

/// Where recent reads ended, so that a reader who goes on there needs no search.
#[derive(Debug, Default)]
pub(crate) struct Cursors {
    recent: [Option<Cursor>; 8],
    next: usize,
}

#[derive(Clone, Copy, Debug)]
struct Cursor {
    offset: i64,
    segment: i64,
    position: u64,
    /// Up to here the kernel was asked to read ahead.
    asked: u64,
}

impl Cursors {
    fn find(&self, offset: i64, segment: i64) -> Option<Cursor> {
        let mut known = self.recent.iter().flatten();
        known.find(|at| at.offset == offset && at.segment == segment).copied()
    }

    fn note(&mut self, cursor: Cursor, was: i64) {
        // A reader moves its own entry on, so that eight readers do not push each other out.
        let own = self.recent.iter().position(|at| at.is_some_and(|at| at.offset == was));
        let slot = own.unwrap_or(self.next);
        if own.is_none() {
            self.next = (self.next + 1) % self.recent.len();
        }
        self.recent[slot] = Some(cursor);
    }
}

/// Why a walk over batches stopped early.
pub(crate) enum WalkError<F> {
    Io(io::Error),
    Cold(FileRange<F>),
}

pub(crate) type Walked<T, I> = Result<T, WalkError<<I as Io>::File>>;

impl<F> From<io::Error> for WalkError<F> {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The outcome of a walk that may block.
pub(crate) fn unwalked<T, F>(walked: Result<T, WalkError<F>>) -> io::Result<T> {
    walked.map_err(|error| match error {
        WalkError::Io(error) => error,
        WalkError::Cold(_) => unreachable!("who may block is told of no cold pages"),
    })
}

/// Steps over the batches of one segment from a known boundary, header by header.
pub(crate) struct Walk {
    pub(crate) segment: usize,
    pub(crate) position: u64,
    limit: u64,
    may_block: bool,
    block: [u8; 2048],
    block_start: u64,
    block_bytes: usize,
}

impl Walk {
    pub(crate) fn new(segment: usize, position: u64, limit: u64, may_block: bool) -> Self {
        let block = [0; 2048];
        Self { segment, position, limit, may_block, block, block_start: 0, block_bytes: 0 }
    }

    /// The header at the current position, without stepping over it; `None` at the limit.
    pub(crate) fn peek<I: Io>(
        &mut self,
        log: &mut PartitionLog<I>,
        io: &mut I,
    ) -> Walked<Option<BatchHeader>, I> {
        if self.position >= self.limit {
            return Ok(None);
        }
        let known = self.block_start..self.block_start + self.block_bytes as u64;
        if !known.contains(&self.position) || self.position + HEADER_BYTES as u64 > known.end {
            let wanted = (self.limit - self.position).min(self.block.len() as u64) as usize;
            let block = &mut self.block[..wanted];
            self.block_bytes =
                log.read_log(io, self.segment, self.position, block, self.may_block)?;
            self.block_start = self.position;
        }
        let at = (self.position - self.block_start) as usize;
        let header = header::parse(&self.block[at..self.block_bytes]);
        let header = header.ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, "no batch where one should begin")
        })?;
        Ok(Some(header))
    }

    /// Goes on behind the batch with this header.
    pub(crate) fn step(&mut self, header: &BatchHeader) {
        self.position += header.bytes() as u64;
    }
}

impl<I: Io> PartitionLog<I> {
    /// Finds batches from `request.offset` on. Nothing is copied: what is returned stays valid for
    /// as long as it lives, whatever happens to the log.
    pub fn read(
        &mut self,
        io: &mut I,
        pool: &mut ChunkPool,
        request: ReadRequest,
    ) -> Result<ReadPlan<I::File>, LogError> {
        let ReadRequest { offset, .. } = request;
        if offset < self.ends.log_start() || offset > self.ends.appended_end() {
            return Ok(ReadPlan::OutOfRange);
        }
        let upper = request.upper_bound.min(self.ends.written_end());
        if offset >= upper {
            return Ok(ReadPlan::Nothing);
        }
        let base = self.segments[self.segment_of(offset)].base;
        match self.plan(io, pool, request, upper) {
            Ok(plan) => Ok(plan),
            Err(WalkError::Cold(range)) => Ok(ReadPlan::Cold(range)),
            Err(WalkError::Io(error)) => Err(self.failed(base, error)),
        }
    }

    fn plan(
        &mut self,
        io: &mut I,
        pool: &mut ChunkPool,
        request: ReadRequest,
        upper: i64,
    ) -> Walked<ReadPlan<I::File>, I> {
        let mut offset = request.offset;
        let mut segment = self.segment_of(offset);
        if segment + 1 == self.segments.len() && self.writer.unwritten_bytes == 0 {
            self.restore_tail(io, pool)?;
        }
        let (start, limit) = loop {
            let limit = self.limit_of(io, segment, upper, request.may_block)?;
            match self.find_data(io, segment, offset, limit, request.may_block)? {
                Some(start) => break (start, limit),
                // The end of a segment whose successor begins at a higher offset.
                None if segment + 1 < self.segments.len() => {
                    segment += 1;
                    offset = self.segments[segment].base;
                    if offset >= upper {
                        return Ok(ReadPlan::Nothing);
                    }
                }
                None => return Ok(ReadPlan::Nothing),
            }
        };
        let Some((end, next)) = self.end_of_read(io, segment, start, limit, &request)? else {
            return Ok(ReadPlan::Nothing);
        };
        let base = self.segments[segment].base;
        let data = self.data(io, segment, start, end)?;
        let asked = match (&data.file, self.cursors.find(request.offset, base)) {
            // A reader who goes on where it was: this range, and what follows it when that is near.
            (Some(range), Some(cursor)) => {
                let until = range.position + range.bytes.min(READ_AHEAD_BYTES) as u64;
                let limit = self.tail.start(base).unwrap_or(limit).min(limit);
                range.read_ahead(io, cursor.asked, until + READ_AHEAD_BYTES as u64, limit)
            }
            _ => 0,
        };
        if let Some(next) = next {
            let cursor = Cursor { offset: next, segment: base, position: end, asked };
            self.cursors.note(cursor, request.offset);
        }
        Ok(ReadPlan::Data(data))
    }

    /// As [`PartitionLog::find`], but passes over batches that compaction left without records: an
    /// old client that gets nothing else would ask for them for ever.
    fn find_data(
        &mut self,
        io: &mut I,
        segment: usize,
        offset: i64,
        limit: u64,
        may_block: bool,
    ) -> Walked<Option<u64>, I> {
        let found = self.find(io, segment, offset, limit, may_block)?;
        let (Some(start), Some(_)) = (found, self.config.compaction) else { return Ok(found) };
        let mut walk = Walk::new(segment, start, limit, may_block);
        while let Some(header) = walk.peek(self, io)? {
            if header.record_count > 0 {
                return Ok(Some(walk.position));
            }
            walk.step(&header);
        }
        Ok(None)
    }

    /// The index of the segment that holds `offset`, if any does.
    pub(crate) fn segment_of(&self, offset: i64) -> usize {
        self.segments.partition_point(|segment| segment.base <= offset).saturating_sub(1)
    }

    /// The position in the segment up to which batches lie below the offset `upper`.
    fn limit_of(
        &mut self,
        io: &mut I,
        segment: usize,
        upper: i64,
        may_block: bool,
    ) -> Walked<u64, I> {
        if self.segments.get(segment + 1).is_some_and(|next| next.base <= upper) {
            return Ok(self.segments[segment].bytes);
        }
        let base = self.segments[segment].base;
        let written = if base < self.writer.segment {
            self.segments[segment].bytes
        } else {
            self.writer.written_position
        };
        if upper == self.ends.written_end() {
            return Ok(written);
        }
        Ok(self.find(io, segment, upper, written, may_block)?.unwrap_or(written))
    }

    /// The position of the first batch of the segment whose last offset is at or above `offset`;
    /// `None` when there is none below `limit`.
    pub(crate) fn find(
        &mut self,
        io: &mut I,
        segment: usize,
        offset: i64,
        limit: u64,
        may_block: bool,
    ) -> Walked<Option<u64>, I> {
        let base = self.segments[segment].base;
        if let Some(cursor) = self.cursors.find(offset, base)
            && cursor.position < limit
        {
            return Ok(Some(cursor.position));
        }
        if let Some(position) = self.tail.batch_before(base, offset)
            && position < limit
        {
            let mut walk = Walk::new(segment, position, limit, may_block);
            return self.walk_to(io, &mut walk, offset);
        }
        let entry = self.segments[segment].position_before(io, &self.dir, offset)?;
        let position = entry.map_or(0, |entry| u64::from(entry.position));
        let mut walk = Walk::new(segment, position.min(limit), limit, may_block);
        if let Some(entry) = entry
            && position < limit
            && !self.agrees(io, &mut walk, entry)?
        {
            self.rebuild_index(io, segment)?;
            return self.find(io, segment, offset, limit, may_block);
        }
        self.walk_to(io, &mut walk, offset)
    }

    /// Steps to the first batch whose last offset is at or above `offset`.
    fn walk_to(&mut self, io: &mut I, walk: &mut Walk, offset: i64) -> Walked<Option<u64>, I> {
        while let Some(header) = walk.peek(self, io)? {
            if header.last_offset() >= offset {
                return Ok(Some(walk.position));
            }
            walk.step(&header);
        }
        Ok(None)
    }

    /// Whether an index entry points at the batch that it names; the walk stands there.
    fn agrees(&mut self, io: &mut I, walk: &mut Walk, entry: OffsetEntry) -> Walked<bool, I> {
        let last_offset = self.segments[walk.segment].base + i64::from(entry.offset);
        match walk.peek(self, io) {
            Ok(header) => Ok(header.is_some_and(|header| header.last_offset() == last_offset)),
            Err(WalkError::Io(error)) if error.kind() == io::ErrorKind::InvalidData => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Where a read that begins at `start` ends, and the offset there when it is known.
    fn end_of_read(
        &mut self,
        io: &mut I,
        segment: usize,
        start: u64,
        limit: u64,
        request: &ReadRequest,
    ) -> Walked<Option<(u64, Option<i64>)>, I> {
        let wanted = start.saturating_add(request.bytes_max as u64);
        if limit <= wanted {
            let is_written_end = self.segments[segment].base == self.writer.segment
                && limit == self.writer.written_position;
            return Ok(Some((limit, is_written_end.then(|| self.ends.written_end()))));
        }
        let boundary = self.segments[segment].boundary_below(io, &self.dir, wanted)?;
        let boundary = boundary.filter(|entry| u64::from(entry.position) > start);
        let from = boundary.map_or(start, |entry| u64::from(entry.position));
        let mut walk = Walk::new(segment, from, limit, request.may_block);
        if let Some(entry) = boundary
            && !self.agrees(io, &mut walk, entry)?
        {
            self.rebuild_index(io, segment)?;
            walk = Walk::new(segment, start, limit, request.may_block);
        }
        let mut next = None;
        while let Some(header) = walk.peek(self, io)? {
            let end = walk.position + header.bytes() as u64;
            if end > wanted && (walk.position > start || !request.at_least_one) {
                next = Some(header.base_offset);
                break;
            }
            walk.step(&header);
            if end > wanted {
                break;
            }
        }
        Ok((walk.position > start).then_some((walk.position, next)))
    }

    /// The bytes of a range of a segment, as far as possible from memory.
    fn data(
        &mut self,
        io: &mut I,
        segment: usize,
        start: u64,
        end: u64,
    ) -> io::Result<ReadData<I::File>> {
        assert!(start < end, "a read holds at least one batch");
        let base = self.segments[segment].base;
        let in_memory = self.tail.start(base).unwrap_or(end).clamp(start, end);
        let mut data =
            ReadData { bytes: (end - start) as usize, file: None, memory: SmallVec::new() };
        if start < in_memory {
            let file = self.segments[segment].file(io, &self.dir)?;
            let bytes = (in_memory - start) as usize;
            data.file = Some(FileRange { file, position: start, bytes });
        }
        if in_memory < end {
            self.tail.note_reader(io.now());
            self.tail.slices(base, in_memory, end, |slice| data.memory.push(slice));
        }
        Ok(data)
    }

    /// Copies bytes of a segment from memory or from its file; returns how many were there.
    pub(crate) fn read_log(
        &mut self,
        io: &mut I,
        segment: usize,
        position: u64,
        into: &mut [u8],
        may_block: bool,
    ) -> Walked<usize, I> {
        let base = self.segments[segment].base;
        let end = position + into.len() as u64;
        let in_memory = self.tail.start(base).unwrap_or(end).clamp(position, end);
        let (old, new) = into.split_at_mut((in_memory - position) as usize);
        if !old.is_empty() {
            let file = self.segments[segment].file(io, &self.dir)?;
            if !may_block && !io.is_cached(&file, position, old.len()) {
                return Err(WalkError::Cold(FileRange { file, position, bytes: old.len() }));
            }
            let bytes = io.read_at(&file, position, old)?;
            if bytes < old.len() {
                return Ok(bytes);
            }
        }
        let in_file = old.len();
        if new.is_empty() {
            return Ok(in_file);
        }
        Ok(in_file + self.tail.copy(base, in_memory, new))
    }
}
