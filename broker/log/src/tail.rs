//! The newest bytes of a partition in memory: staging for writes and cache for readers at once.
//!
//! Chunk follows chunk without a gap. A chunk begins on a block boundary of its segment's file, and
//! batches run over from one chunk into the next, so a chunk is written as it lies.

use std::collections::VecDeque;

use millrace_io::{BLOCK_BYTES, Chunk, ChunkPool, ChunkSlice, Instant};

use crate::config::{
    BUSY_CHUNK_MS, CHUNK_BYTES_MAX, CHUNK_BYTES_MIN, QUIET_CHUNK_MS, TAIL_READER_MS,
};

/// A chunk and its place: `position` in the file of the segment with this base.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) segment: i64,
    pub(crate) position: u64,
    pub(crate) chunk: Chunk,
    /// When it was begun, which is when the one before it was full.
    begun: Instant,
    /// Offset and position of the first batch that begins here.
    first_batch: Option<(i64, u64)>,
}

impl Part {
    pub(crate) fn end(&self) -> u64 {
        self.position + self.chunk.len() as u64
    }

    fn capacity_end(&self) -> u64 {
        self.position + self.chunk.capacity() as u64
    }
}

/// Invariant: within one segment the parts are contiguous, and their positions are block
/// boundaries. Parts of older segments come first.
#[derive(Debug)]
pub(crate) struct Tail {
    parts: VecDeque<Part>,
    chunk_bytes: usize,
    chunk_taken: Instant,
    last_read: Option<Instant>,
}

impl Tail {
    pub(crate) fn new() -> Self {
        Self {
            parts: VecDeque::new(),
            chunk_bytes: CHUNK_BYTES_MIN,
            chunk_taken: Instant::from_ns(0),
            last_read: None,
        }
    }

    /// Lays bytes at `position` of the segment, right after what is there.
    pub(crate) fn append(
        &mut self,
        pool: &mut ChunkPool,
        now: Instant,
        segment: i64,
        mut position: u64,
        mut bytes: &[u8],
    ) {
        while !bytes.is_empty() {
            let fits = self.parts.back().is_some_and(|part| {
                part.segment == segment && part.chunk.remaining() > 0 && part.end() == position
            });
            if !fits {
                self.begin(pool, now, segment, position);
            }
            let part = self.parts.back_mut().expect("a part was begun");
            let (now_fits, rest) = bytes.split_at(bytes.len().min(part.chunk.remaining()));
            part.chunk.append(now_fits, |_| {});
            position += now_fits.len() as u64;
            bytes = rest;
        }
    }

    /// Memory for `bytes` that are to be laid at `position`, in pieces. They are the tail's after
    /// [`Tail::commit`]; before anything else happens it is that or [`Tail::forget_reserved`].
    pub(crate) fn reserve(
        &mut self,
        pool: &mut ChunkPool,
        now: Instant,
        segment: i64,
        position: u64,
        bytes: usize,
    ) -> Vec<&mut [u8]> {
        let end = position + bytes as u64;
        loop {
            let last = self.parts.back().filter(|part| part.segment == segment);
            let reached = last.map_or(position, |part| part.capacity_end().max(position));
            if reached >= end {
                break;
            }
            self.begin(pool, now, segment, reached);
        }
        let mut left = bytes;
        let parts = self.parts.iter_mut().filter(|part| part.segment == segment);
        let spares = parts.filter(|part| part.capacity_end() > position).map(|part| {
            let spare = part.chunk.spare();
            let count = spare.len().min(left);
            left -= count;
            &mut spare[..count]
        });
        spares.collect()
    }

    /// Makes the `bytes` reserved at `position` part of the tail; the first are those of `start`.
    pub(crate) fn commit(&mut self, segment: i64, position: u64, start: &[u8], mut bytes: usize) {
        let mut start = start;
        let parts = self.parts.iter_mut().filter(|part| part.segment == segment);
        for part in parts.filter(|part| part.capacity_end() > position) {
            let spare = part.chunk.spare();
            let (now, rest) = start.split_at(start.len().min(spare.len()));
            spare[..now.len()].copy_from_slice(now);
            let count = spare.len().min(bytes);
            part.chunk.grow(count);
            (start, bytes) = (rest, bytes - count);
        }
        assert!(start.is_empty() && bytes == 0, "as many bytes as were reserved");
    }

    /// Gives back what was reserved and not committed.
    pub(crate) fn forget_reserved(&mut self, pool: &mut ChunkPool) {
        while let Some(part) = self.parts.pop_back_if(|part| part.chunk.is_empty()) {
            pool.give(part.chunk);
        }
    }

    /// Begins a chunk at a block boundary, larger or smaller than the last as the rate asks.
    fn begin(&mut self, pool: &mut ChunkPool, now: Instant, segment: i64, position: u64) {
        assert!(position.is_multiple_of(BLOCK_BYTES as u64), "parts begin on block boundaries");
        if let Some(last) = self.parts.back() {
            let follows = last.segment != segment || last.capacity_end() == position;
            assert!(follows, "parts leave no gap");
            let ms = now.ms_since(self.chunk_taken);
            if ms >= QUIET_CHUNK_MS {
                self.chunk_bytes = CHUNK_BYTES_MIN;
            } else if ms <= BUSY_CHUNK_MS && last.chunk.capacity() >= self.chunk_bytes {
                self.chunk_bytes = (self.chunk_bytes * 2).min(CHUNK_BYTES_MAX);
            }
        }
        self.chunk_taken = now;
        let chunk = pool.take(self.chunk_bytes);
        self.parts.push_back(Part { segment, position, chunk, begun: now, first_batch: None });
    }

    /// Notes that the batch at `offset` was laid at `position`.
    pub(crate) fn note_batch(&mut self, position: u64, offset: i64) {
        // Most batches begin in the last part, few in the one before.
        let part = self.parts.iter_mut().rev().find(|part| part.position <= position);
        let part = part.expect("the batch was appended");
        part.first_batch.get_or_insert((offset, position));
    }

    /// The position of a batch in memory that begins at or before `offset`.
    pub(crate) fn batch_before(&self, segment: i64, offset: i64) -> Option<u64> {
        let parts = self.parts.iter().rev().filter(|part| part.segment == segment);
        let mut firsts = parts.filter_map(|part| part.first_batch);
        firsts.find(|(first, _)| *first <= offset).map(|(_, position)| position)
    }

    /// Puts the partial last block of a file into memory, so that it can be written again.
    pub(crate) fn restore(&mut self, pool: &mut ChunkPool, segment: i64, end: u64, block: &[u8]) {
        assert!(block.len() < BLOCK_BYTES && self.start(segment).is_none(), "one partial block");
        let mut chunk = pool.take(BLOCK_BYTES);
        chunk.append(block, |_| {});
        let position = end - block.len() as u64;
        let begun = self.chunk_taken;
        self.parts.push_back(Part { segment, position, chunk, begun, first_batch: None });
    }

    /// The position from which on the segment's bytes are in memory; `None` when none are.
    pub(crate) fn start(&self, segment: i64) -> Option<u64> {
        self.parts.iter().find(|part| part.segment == segment).map(|part| part.position)
    }

    /// The parts of a segment that hold bytes at or above `position`, with the bytes they share.
    pub(crate) fn parts_from(
        &mut self,
        segment: i64,
        position: u64,
    ) -> impl Iterator<Item = &mut Part> {
        let skip = self.parts.partition_point(|part| {
            part.segment < segment || (part.segment == segment && part.end() <= position)
        });
        self.parts.range_mut(skip..).take_while(move |part| part.segment == segment)
    }

    /// Copies bytes of a segment that are in memory; returns how many there were.
    pub(crate) fn copy(&mut self, segment: i64, mut position: u64, into: &mut [u8]) -> usize {
        let mut copied = 0;
        for part in self.parts_from(segment, position) {
            let from = (position - part.position) as usize;
            let source = &part.chunk.bytes()[from..];
            let count = source.len().min(into.len() - copied);
            into[copied..copied + count].copy_from_slice(&source[..count]);
            copied += count;
            position += count as u64;
            if copied == into.len() {
                break;
            }
        }
        copied
    }

    /// Shares a range of a segment's bytes, all of it in memory.
    pub(crate) fn slices(
        &mut self,
        segment: i64,
        mut position: u64,
        end: u64,
        mut take: impl FnMut(ChunkSlice),
    ) {
        for part in self.parts_from(segment, position) {
            if position >= end {
                break;
            }
            let range_end = end.min(part.end());
            take(
                part.chunk.slice(
                    (position - part.position) as usize..(range_end - part.position) as usize,
                ),
            );
            position = range_end;
        }
        assert!(position >= end, "the range is in memory");
    }

    /// Notes that somebody reads from memory.
    pub(crate) fn note_reader(&mut self, now: Instant) {
        self.last_read = Some(now);
    }

    /// Gives back what is written and not needed: everything but the block that will be written
    /// again and, while somebody reads the tail, up to `cache_bytes_max` of the last second's.
    pub(crate) fn release_written(
        &mut self,
        pool: &mut ChunkPool,
        now: Instant,
        written: (i64, u64),
        cache_bytes_max: usize,
    ) {
        let read = self.last_read.is_some_and(|at| now.ms_since(at) <= TAIL_READER_MS);
        let keep_bytes = if read { cache_bytes_max } else { 0 };
        let mut bytes: usize = self.parts.iter().map(|part| part.chunk.capacity()).sum();
        while let (Some(first), next) = (self.parts.front(), self.parts.get(1)) {
            let is_old = next.is_some_and(|next| now.ms_since(next.begun) > TAIL_READER_MS);
            if bytes <= keep_bytes && !is_old {
                break;
            }
            let full = first.chunk.remaining() == 0 || first.segment != written.0;
            let is_written = (first.segment, first.end()) <= written;
            if !(full && is_written) {
                break;
            }
            bytes -= first.chunk.capacity();
            pool.give(self.parts.pop_front().expect("looked at above").chunk);
        }
    }

    /// Forgets segments below this one, all of which are written.
    pub(crate) fn forget_below(&mut self, pool: &mut ChunkPool, segment: i64) {
        let old = self.parts.partition_point(|part| part.segment < segment);
        self.parts.drain(..old).for_each(|part| pool.give(part.chunk));
    }

    /// When everything is written: keeps only the partial last block.
    pub(crate) fn shrink(&mut self, pool: &mut ChunkPool) {
        let Some(last) = self.parts.pop_back() else { return };
        self.parts.drain(..).for_each(|part| pool.give(part.chunk));
        let from = last.chunk.len() / BLOCK_BYTES * BLOCK_BYTES;
        let block = &last.chunk.bytes()[from..];
        if last.chunk.capacity() == BLOCK_BYTES && !block.is_empty() {
            self.parts.push_back(last);
        } else {
            if !block.is_empty() {
                self.restore(pool, last.segment, last.end(), block);
            }
            pool.give(last.chunk);
        }
        self.parts.shrink_to(1);
        self.chunk_bytes = CHUNK_BYTES_MIN;
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.parts.iter().map(|part| part.chunk.capacity()).sum()
    }

    /// Forgets everything in memory.
    pub(crate) fn clear(&mut self, pool: &mut ChunkPool) {
        self.parts.drain(..).for_each(|part| pool.give(part.chunk));
    }
}
