//! The only door to Linux: sockets, files, time and chance, behind one trait.
//!
//! | module | what it holds |
//! |---|---|
//! | [`interface`] | [`Io`], the trait that the broker is written against, and its events |
//! | [`chunk`] | aligned, append-only memory that readers and the kernel may share |
//! | `priority` | making a thread give way |
//! | [`probe`] | what this machine offers, and what is in the way |
//! | [`ring`] | [`ring::RingIo`], the world through io_uring |
//! | [`sim`] | [`sim::SimIo`], a world in memory with faults, from one seed |
//!
//! This is the one crate of the workspace that may use `unsafe`.

pub mod chunk;
pub mod interface;
mod priority;
pub mod probe;
pub mod ring;
pub mod sim;

pub use chunk::{Chunk, ChunkBlocks, ChunkPool, ChunkSlice};
pub use interface::{
    Event, Instant, Io, ListenerId, OpenMode, SocketId, Token, Waker, WritePath, is_shortage,
};
pub use priority::lower_priority;
pub use ring::RingIo;

/// Direct I/O addresses memory, files and lengths in units of this many bytes. 4 KiB covers every
/// device with 512-byte or 4 KiB logical blocks.
pub const BLOCK_BYTES: usize = 4096;
