//! Aligned, append-only memory that readers and the kernel may share.
//!
//! A [`Chunk`] has one writer, which appends; bytes below its length never change again. So
//! [`ChunkSlice`]s of them can be read on any thread while the writer goes on, and [`ChunkBlocks`]
//! can be written to disk while the writer fills the rest of the last block. A [`ChunkPool`] takes
//! chunks back once nobody refers to them, because fresh pages cost 0.4 to 0.8 s of CPU per GB.

use std::io;
use std::ops::{Deref, Range};
use std::ptr::{self, NonNull};
use std::sync::Arc;

use crate::BLOCK_BYTES;

/// Large chunks are cut from slabs of this size, which the kernel backs with one huge page where it
/// may (`madvise(2)`, `MADV_HUGEPAGE`): handing memory to the disk then costs a look-up a chunk
/// instead of one a page.
const LARGE_SLAB_BYTES: usize = 2 << 20;
/// Small chunks, those of quiet partitions, are cut from slabs of ordinary pages.
const SMALL_SLAB_BYTES: usize = 256 << 10;
/// The smallest chunk that is cut from a large slab.
const LARGE_BYTES: usize = 128 << 10;

/// Zeroed pages of their own. Invariant: `start` is the result of an `mmap` of `bytes` bytes, which
/// only `drop` unmaps.
#[derive(Debug)]
struct Pages {
    start: NonNull<u8>,
    bytes: usize,
}

// SAFETY: `Pages` is a mapping without thread affinity. Who may touch which bytes is decided by
// `Chunk` (above its length), `ChunkSlice` and `ChunkBlocks`, never by `Pages` itself.
unsafe impl Send for Pages {}
// SAFETY: as for Send; sharing a `&Pages` gives access to no byte.
unsafe impl Sync for Pages {}

impl Pages {
    fn new(bytes: usize) -> Self {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice touches nothing.
        let start = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0) };
        assert!(start != libc::MAP_FAILED, "out of memory: {}", io::Error::last_os_error());
        if bytes >= LARGE_SLAB_BYTES {
            // SAFETY: the range is the mapping just made. Advice changes no byte, and where it is
            // refused (no huge pages in this kernel) small pages do.
            unsafe { libc::madvise(start, bytes, libc::MADV_HUGEPAGE) };
        }
        Self { start: NonNull::new(start.cast()).expect("mmap never maps address 0"), bytes }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: the mapping made in `new`, unmapped once; who holds a part of it holds `self`.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

/// The memory of a chunk. Invariant: `capacity` zeroed bytes from `start`, on a block boundary, lie
/// in `_pages`, and no other `Memory` shares them.
#[derive(Debug)]
struct Memory {
    start: NonNull<u8>,
    capacity: usize,
    /// Kept mapped.
    _pages: Arc<Pages>,
}

// SAFETY: as for `Pages`, a part of which this is.
unsafe impl Send for Memory {}
// SAFETY: as for `Pages`.
unsafe impl Sync for Memory {}

impl Memory {
    /// `capacity` bytes of `pages`, from `position` on, that were given to nobody else.
    fn part(pages: &Arc<Pages>, position: usize, capacity: usize) -> Self {
        assert!(capacity > 0 && capacity.is_multiple_of(BLOCK_BYTES), "whole blocks only");
        assert!(position.is_multiple_of(BLOCK_BYTES) && position + capacity <= pages.bytes);
        // SAFETY: `position` lies within the mapping, asserted above.
        let start = unsafe { pages.start.add(position) };
        Self { start, capacity, _pages: Arc::clone(pages) }
    }
}

/// The writing end of a chunk. Dropping it does not end the slices made from it.
///
/// Invariant: `bytes <= memory.capacity`; no reference covers bytes at or above `bytes`.
#[derive(Debug)]
pub struct Chunk {
    memory: Arc<Memory>,
    bytes: usize,
}

impl Chunk {
    /// Bytes appended so far.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Whether nothing was appended yet.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Bytes that still fit.
    pub fn remaining(&self) -> usize {
        self.memory.capacity - self.bytes
    }

    /// Bytes that fit in all.
    pub fn capacity(&self) -> usize {
        self.memory.capacity
    }

    /// Appends a copy of `bytes`, lets `patch` change that copy, and returns where it lies. Panics
    /// when it does not fit: check [`Chunk::remaining`] first.
    pub fn append(&mut self, bytes: &[u8], patch: impl FnOnce(&mut [u8])) -> Range<usize> {
        assert!(bytes.len() <= self.remaining(), "the caller checks that the bytes fit");
        let start = self.bytes;
        // SAFETY: `start + bytes.len() <= capacity` (asserted), and bytes at or above `self.bytes`
        // are covered by no reference (invariant of `Chunk`), so this `&mut` is the only one. The
        // memory was zeroed when allocated, so it is initialised.
        let target = unsafe {
            std::slice::from_raw_parts_mut(self.memory.start.as_ptr().add(start), bytes.len())
        };
        target.copy_from_slice(bytes);
        patch(target);
        self.bytes += bytes.len();
        start..self.bytes
    }

    /// The memory behind the appended bytes, to be filled with what [`Chunk::grow`] then appends.
    /// What it holds is of no meaning.
    pub fn spare(&mut self) -> &mut [u8] {
        // SAFETY: up to the capacity, all of it zeroed when allocated; bytes at or above
        // `self.bytes` are covered by no reference (invariant of `Chunk`), and `self` is borrowed
        // for as long as this one lives.
        unsafe {
            let start = self.memory.start.as_ptr().add(self.bytes);
            std::slice::from_raw_parts_mut(start, self.remaining())
        }
    }

    /// Appends the first `bytes` of [`Chunk::spare`] as they are.
    pub fn grow(&mut self, bytes: usize) {
        assert!(bytes <= self.remaining(), "the caller checks that the bytes fit");
        self.bytes += bytes;
    }

    /// The appended bytes, for the writer itself; nothing can be appended while they are borrowed.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: bytes below `self.bytes` are initialised (zeroed when allocated, then written by
        // `append`), never change again, and stay allocated while `self` is borrowed.
        unsafe { std::slice::from_raw_parts(self.memory.start.as_ptr(), self.bytes) }
    }

    /// A view of appended bytes, readable on any thread for as long as it lives.
    pub fn slice(&self, range: Range<usize>) -> ChunkSlice {
        assert!(range.start <= range.end && range.end <= self.bytes, "only what was appended");
        ChunkSlice { memory: Arc::clone(&self.memory), range }
    }

    /// The blocks that hold the appended bytes from `from` (a multiple of the block size) to the
    /// end, the last one padded with zeros, for a direct write.
    pub fn blocks(&mut self, from: usize) -> ChunkBlocks {
        let end = self.bytes.next_multiple_of(BLOCK_BYTES);
        assert!(from.is_multiple_of(BLOCK_BYTES) && from < end, "a range of whole blocks");
        // SAFETY: `bytes <= end <= capacity`, because capacity is a multiple of the block size;
        // bytes at or above `self.bytes` are covered by no reference.
        unsafe {
            let tail = self.memory.start.as_ptr().add(self.bytes);
            tail.write_bytes(0, end - self.bytes);
        }
        ChunkBlocks { memory: Arc::clone(&self.memory), range: from..end }
    }
}

/// Immutable bytes of a chunk. Clones share them.
#[derive(Clone, Debug)]
pub struct ChunkSlice {
    memory: Arc<Memory>,
    range: Range<usize>,
}

impl ChunkSlice {
    /// A part of this slice, in positions relative to its start.
    pub fn slice(&self, range: Range<usize>) -> Self {
        assert!(range.start <= range.end && range.end <= self.range.len(), "within the slice");
        let start = self.range.start;
        Self { memory: Arc::clone(&self.memory), range: start + range.start..start + range.end }
    }
}

impl Deref for ChunkSlice {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `range` lies below the chunk's length when the slice was made, where bytes are
        // initialised and never change again; the `Arc` keeps them allocated.
        unsafe {
            std::slice::from_raw_parts(
                self.memory.start.as_ptr().add(self.range.start),
                self.range.len(),
            )
        }
    }
}

/// Whole blocks of a chunk on their way to the disk. They cannot be read in this process: the
/// writer may be filling the end of the last one.
#[derive(Debug)]
pub struct ChunkBlocks {
    memory: Arc<Memory>,
    range: Range<usize>,
}

impl ChunkBlocks {
    /// Length in bytes, a multiple of the block size.
    pub fn len(&self) -> usize {
        self.range.len()
    }

    /// Never: a range of blocks holds at least one.
    pub fn is_empty(&self) -> bool {
        self.range.is_empty()
    }

    /// A copy of the bytes, padding included.
    ///
    /// # Safety
    /// Nobody may append to the chunk meanwhile.
    pub(crate) unsafe fn to_vec(&self) -> Vec<u8> {
        // SAFETY: `range` lies within the allocation, all of it initialised when it was zeroed; the
        // caller keeps the writer away for as long as this reference lives.
        unsafe { std::slice::from_raw_parts(self.as_ptr(), self.len()) }.to_vec()
    }

    /// The first `bytes` (whole blocks, not all) and the rest, to be written separately.
    pub fn split_at(self, bytes: usize) -> (Self, Self) {
        assert!(bytes.is_multiple_of(BLOCK_BYTES) && 0 < bytes && bytes < self.len(), "two parts");
        let middle = self.range.start + bytes;
        let first = Self { memory: Arc::clone(&self.memory), range: self.range.start..middle };
        (first, Self { memory: self.memory, range: middle..self.range.end })
    }

    /// Address of the first byte, for the kernel. Valid while `self` lives.
    pub fn as_ptr(&self) -> *const u8 {
        // SAFETY: `range.start < capacity`, so the result stays within the allocation.
        unsafe { self.memory.start.as_ptr().add(self.range.start) }
    }
}

/// Hands out chunks and takes their memory back when the last reference is gone.
///
/// One pool per shard. Invariants: the memory it keeps for reuse is at most `idle_bytes_max`; of a
/// slab the bytes from the position on were never handed out.
#[derive(Debug)]
pub struct ChunkPool {
    retired: Vec<Arc<Memory>>,
    idle_bytes_max: usize,
    small: Option<(Arc<Pages>, usize)>,
    large: Option<(Arc<Pages>, usize)>,
}

impl ChunkPool {
    /// A pool that keeps at most `idle_bytes_max` bytes of unused memory.
    pub fn new(idle_bytes_max: usize) -> Self {
        Self { retired: Vec::new(), idle_bytes_max, small: None, large: None }
    }

    /// An empty chunk of exactly `capacity` bytes (a multiple of the block size): the one retired
    /// last to which nobody refers any more, because the CPU's cache may still hold it, or a new
    /// one.
    pub fn take(&mut self, capacity: usize) -> Chunk {
        let free = self
            .retired
            .iter_mut()
            .rposition(|memory| memory.capacity == capacity && Arc::get_mut(memory).is_some());
        let memory = match free {
            Some(index) => self.retired.remove(index),
            None => Arc::new(self.new_memory(capacity)),
        };
        Chunk { memory, bytes: 0 }
    }

    fn new_memory(&mut self, capacity: usize) -> Memory {
        let (slab, slab_bytes) = match capacity < LARGE_BYTES {
            true => (&mut self.small, SMALL_SLAB_BYTES),
            false => (&mut self.large, LARGE_SLAB_BYTES),
        };
        let (pages, position) = match slab.take() {
            Some((pages, position)) if position + capacity <= pages.bytes => (pages, position),
            _ => (Arc::new(Pages::new(slab_bytes.max(capacity))), 0),
        };
        let memory = Memory::part(&pages, position, capacity);
        *slab = Some((pages, position + capacity));
        memory
    }

    /// Gives a chunk back. Slices of it stay valid; its memory is reused once they are gone.
    pub fn give(&mut self, chunk: Chunk) {
        self.retired.push(chunk.memory);
        let mut idle_bytes: usize = self.retired.iter().map(|memory| memory.capacity).sum();
        while idle_bytes > self.idle_bytes_max {
            // The oldest goes: the newest is the one still in the CPU's cache.
            idle_bytes -= self.retired.remove(0).capacity;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_keeps_its_bytes_while_the_writer_goes_on() {
        let mut pool = ChunkPool::new(1 << 20);
        let mut chunk = pool.take(2 * BLOCK_BYTES);
        let range = chunk.append(b"first", |copy| copy[0] = b'F');
        let slice = chunk.slice(range);
        let blocks = chunk.blocks(0);
        chunk.append(b"second", |_| {});
        assert_eq!(&*slice, b"First");
        assert_eq!(&*slice.slice(1..3), b"ir");
        assert_eq!(blocks.len(), BLOCK_BYTES);
    }

    #[test]
    fn memory_is_reused_only_when_nobody_refers_to_it() {
        let mut pool = ChunkPool::new(1 << 20);
        let mut chunk = pool.take(BLOCK_BYTES);
        chunk.append(b"kept", |_| {});
        let address = chunk.blocks(0).as_ptr();
        let slice = chunk.slice(0..4);
        pool.give(chunk);
        let mut other = pool.take(BLOCK_BYTES);
        other.append(b"x", |_| {});
        assert_ne!(other.blocks(0).as_ptr(), address);
        assert_eq!(&*slice, b"kept");
        drop(slice);
        let mut again = pool.take(BLOCK_BYTES);
        again.append(b"y", |_| {});
        assert_eq!(again.blocks(0).as_ptr(), address);
    }

    #[test]
    fn the_pool_keeps_no_more_than_it_may() {
        let mut pool = ChunkPool::new(2 * BLOCK_BYTES);
        let chunks: Vec<Chunk> = (0..5).map(|_| pool.take(BLOCK_BYTES)).collect();
        for chunk in chunks {
            pool.give(chunk);
        }
        assert_eq!(pool.retired.len(), 2);
    }
}
