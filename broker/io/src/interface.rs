//! [`Io`]: everything the broker asks of the outside world.
//!
//! Sockets are driven by readiness: an event says that a socket may be read or written, and the
//! caller then receives or sends without blocking, so no buffer of a connection is ever owned by
//! the kernel. Files are driven by completion: a submitted operation owns its buffer until the
//! event with its [`Token`] comes back. The methods under "blocking" are for start, recovery and
//! administration only; nothing of a produce or a fetch calls them.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::BytesMut;

use crate::chunk::ChunkBlocks;

/// A point on the monotonic clock, in nanoseconds from an arbitrary start.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The point `ns` nanoseconds after the clock's arbitrary start.
    pub const fn from_ns(ns: u64) -> Self {
        Self(ns)
    }

    /// Nanoseconds since the clock's arbitrary start.
    pub const fn ns(self) -> u64 {
        self.0
    }

    /// This point moved `ms` milliseconds into the future; the end of time when that overflows.
    pub const fn plus_ms(self, ms: u64) -> Self {
        Self(self.0.saturating_add(ms.saturating_mul(1_000_000)))
    }

    /// Whole milliseconds from `earlier` to this point; 0 when `earlier` is not earlier.
    pub const fn ms_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0) / 1_000_000
    }
}

/// Names one submitted file operation. The caller chooses it; it comes back with the completion.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct Token(pub u64);

/// A connected socket of this `Io`. Ids are reused only after `close`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub struct SocketId(pub u32);

/// A listening socket of this `Io`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub struct ListenerId(pub u32);

/// How a file is opened by [`Io::open`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum OpenMode {
    /// Read through the page cache; fails when the file is missing.
    Read,
    /// Read and write through the page cache; created when missing.
    ReadWrite,
    /// Writes bypass the page cache (O_DIRECT) and reads go through a second, buffered descriptor;
    /// created when missing. Fails with `InvalidInput` where the file system refuses direct I/O:
    /// the caller then opens `ReadWrite`.
    Direct,
}

/// Which way a submitted write takes to its file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WritePath {
    /// Past the page cache, for files opened as [`OpenMode::Direct`].
    Direct,
    /// Through the page cache, for any file. A direct write over blocks that the kernel has not yet
    /// brought to the disk waits until it has.
    Cached,
}

/// What happened outside. `S` is an accepted connection not yet owned by a shard, see
/// [`Io::Stream`].
#[derive(Debug)]
pub enum Event<S> {
    /// A client connected to the listener. Hand the stream to [`Io::adopt`] of the shard that is to
    /// own it; dropping it closes the connection.
    Accepted {
        /// The listener it came in on.
        listener: ListenerId,
        /// The connection.
        stream: S,
        /// The client's address.
        peer: SocketAddr,
    },
    /// New bytes, an end of stream or an error wait on the socket. Comes once per arrival, seldom
    /// more often: receive until a short read or `WouldBlock`, or remember that there may be more.
    Readable(SocketId),
    /// After [`Io::want_writable`]: the socket takes bytes again. Comes once per request.
    Writable(SocketId),
    /// A write, flush or allocation completed. `result` is the count of bytes for a write (a short
    /// write is an error `WriteZero`), 0 for the others.
    Completed {
        /// The operation.
        token: Token,
        /// Its outcome.
        result: io::Result<usize>,
    },
    /// Another thread called [`Waker::wake`] since the last time this event was seen.
    Woken,
}

/// Wakes an `Io` that sleeps in [`Io::wait`], from any thread.
pub trait Waker: Send + Sync {
    /// Makes the current or the next [`Io::wait`] return, with [`Event::Woken`].
    fn wake(&self);
}

/// Whether descriptors or memory were short: a moment later the same may go well.
pub fn is_shortage(error: &io::Error) -> bool {
    let shortages = [libc::EMFILE, libc::ENFILE, libc::ENOBUFS, libc::ENOMEM];
    error.raw_os_error().is_some_and(|number| shortages.contains(&number))
}

/// Sockets, files, time and chance of one shard. One thread owns it; see the module's head for the
/// two ways in which it is driven.
pub trait Io: Sized + 'static {
    /// An open file. Clones share it; the last one dropped closes it. It may be sent to another
    /// shard of the same kind, which may read, send and probe it there.
    type File: Clone + Send + 'static;
    /// An accepted connection on its way to the shard that will own it.
    type Stream: Send + 'static;

    // -- time and chance --------------------------------------------------------------------

    /// The monotonic clock, as of now.
    fn now(&self) -> Instant;
    /// Milliseconds since the Unix epoch, as of now. May jump.
    fn wall_clock_ms(&self) -> i64;
    /// 64 random bits.
    fn random_u64(&mut self) -> u64;

    // -- the loop ---------------------------------------------------------------------------

    /// Submits what is queued and waits until an event is there or the deadline has passed. With a
    /// deadline that has passed already it only submits and collects. `None` waits for ever.
    fn wait(&mut self, deadline: Option<Instant>) -> io::Result<()>;
    /// The next event collected by `wait`, or `None` when it is time to wait again.
    fn next_event(&mut self) -> Option<Event<Self::Stream>>;
    /// A handle with which other threads wake this `Io`.
    fn waker(&self) -> Arc<dyn Waker>;

    // -- sockets ----------------------------------------------------------------------------

    /// Listens, and accepts until closed. Port 0 takes any free port: the address returned is the
    /// real one. Retries for a moment when the port is still held by a process just killed.
    fn listen(&mut self, address: SocketAddr) -> io::Result<(ListenerId, SocketAddr)>;
    /// Stops listening.
    fn close_listener(&mut self, listener: ListenerId);
    /// Takes a connection over: `TCP_NODELAY` set, readiness reported from now on.
    fn adopt(&mut self, stream: Self::Stream) -> io::Result<SocketId>;
    /// Receives up to `bytes_max` bytes onto the end of `buffer`, without blocking. `Ok(0)` is the
    /// end of the stream; `WouldBlock` means that [`Event::Readable`] will come.
    fn recv(
        &mut self,
        socket: SocketId,
        buffer: &mut BytesMut,
        bytes_max: usize,
    ) -> io::Result<usize>;
    /// Receives exactly what fills `into`, or nothing. `WouldBlock` means that [`Event::Readable`]
    /// comes once all of it has arrived, or no more can before something is received; `OutOfMemory`
    /// that so much never fits into the kernel's buffer; `UnexpectedEof` that the stream ends
    /// before.
    fn recv_whole(&mut self, socket: SocketId, into: &mut [io::IoSliceMut<'_>]) -> io::Result<()>;
    /// Sends the slices in order, without blocking; returns how many bytes were taken.
    fn send(&mut self, socket: SocketId, slices: &[io::IoSlice<'_>]) -> io::Result<usize>;
    /// Sends bytes of a file from the page cache without copying (`sendfile`), without blocking on
    /// the socket; returns how many bytes were taken. Only for ranges that are never written again.
    /// A range that is not in the page cache blocks on the disk: see [`Io::is_cached`].
    fn send_file(
        &mut self,
        socket: SocketId,
        file: &Self::File,
        position: u64,
        bytes: usize,
    ) -> io::Result<usize>;
    /// Asks for one [`Event::Writable`].
    fn want_writable(&mut self, socket: SocketId);
    /// Closes the connection. No event of this id follows.
    fn close(&mut self, socket: SocketId);

    // -- files, by completion ---------------------------------------------------------------

    /// Writes whole blocks at `position` (a multiple of the block size). The chunk is kept alive
    /// until the completion.
    fn submit_write(
        &mut self,
        token: Token,
        file: &Self::File,
        position: u64,
        blocks: ChunkBlocks,
        path: WritePath,
    );
    /// Makes the file's completed writes durable (`fdatasync`).
    fn submit_sync(&mut self, token: Token, file: &Self::File);
    /// Makes all completed writes of the file system that holds `file` durable (`syncfs`).
    fn submit_sync_all(&mut self, token: Token, file: &Self::File);
    /// Allocates the range, zero-filled when read, and extends the file to its end
    /// (`fallocate` mode 0).
    fn submit_allocate(&mut self, token: Token, file: &Self::File, position: u64, bytes: u64);
    /// Brings the range into the page cache, so that `send_file` does not block on it.
    fn submit_fetch_pages(&mut self, token: Token, file: &Self::File, position: u64, bytes: usize);
    /// Has the kernel begin to bring the range into the page cache, for who reads on there. Nothing
    /// is reported.
    fn submit_read_ahead(&mut self, file: &Self::File, position: u64, bytes: usize);
    /// Whether the page cache holds the first and the last byte of the range now.
    fn is_cached(&mut self, file: &Self::File, position: u64, bytes: usize) -> bool;

    // -- files, blocking --------------------------------------------------------------------

    /// Opens a file.
    fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<Self::File>;
    /// The file's length in bytes.
    fn file_bytes(&mut self, file: &Self::File) -> io::Result<u64>;
    /// Reads from `position` into `into` until it is full or the file ends; returns the count.
    fn read_at(&mut self, file: &Self::File, position: u64, into: &mut [u8]) -> io::Result<usize>;
    /// Writes all of `bytes` at `position` through the page cache.
    fn write_at(&mut self, file: &Self::File, position: u64, bytes: &[u8]) -> io::Result<()>;
    /// Sets the file's length.
    fn set_file_bytes(&mut self, file: &Self::File, bytes: u64) -> io::Result<()>;
    /// Makes the file's data and metadata durable (`fsync`).
    fn sync(&mut self, file: &Self::File) -> io::Result<()>;
    /// Replaces the file at `path` by one with this content: written beside it, flushed, renamed,
    /// and the folder flushed, so that a crash leaves the old content or the new.
    fn replace_file(&mut self, path: &Path, content: &[u8]) -> io::Result<()>;
    /// The whole content of a file.
    fn read_file(&mut self, path: &Path) -> io::Result<Vec<u8>>;
    /// Renames a file or folder; lasting once the folder it is in is flushed.
    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&mut self, path: &Path) -> io::Result<()>;
    /// Makes a folder and those above it, durable.
    fn create_dir(&mut self, path: &Path) -> io::Result<()>;
    /// Removes a folder with all that is in it.
    fn remove_dir(&mut self, path: &Path) -> io::Result<()>;
    /// The paths of the folder's entries, sorted.
    fn read_dir(&mut self, path: &Path) -> io::Result<Vec<PathBuf>>;
    /// Makes the folder's entries (names made, renamed, removed) durable.
    fn sync_dir(&mut self, path: &Path) -> io::Result<()>;
}
