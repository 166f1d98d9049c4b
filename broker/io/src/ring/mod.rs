//! [`RingIo`]: the [`Io`] of one shard on Linux, over one io_uring.
//!
//! Sockets use readiness: a poll in the ring, armed once per connection, says that bytes wait, and
//! a plain system call takes them into the caller's buffer. Files use completion: the slab in
//! `files` owns what the kernel holds. The reasons, with figures, are in
//! `docs/decisions/runtime.md`. Nothing here runs by itself: an idle ring costs no CPU.
//!
//! | file | what it holds |
//! |---|---|
//! | `queue` | the io_uring, and what a completion is for |
//! | `sockets` | listeners and connections |
//! | `files` | open files and their submitted operations |
//! | `folders` | blocking work on names |
//! | `sync_all` | the thread for `syncfs` |
//! | `waker` | waking a sleeping ring from other threads |

mod files;
mod folders;
mod queue;
mod slab;
mod sockets;
mod sync_all;
mod waker;

use std::collections::VecDeque;
use std::io;
use std::marker::PhantomData;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use io_uring::{opcode, types::Fd};

use crate::interface::{Event, Instant, Io, ListenerId, OpenMode, SocketId, Token, Waker};
use crate::probe::RingProblem;
use crate::{ChunkBlocks, WritePath};
use files::Files;
pub use files::RingFile;
use queue::{Completion, Purpose, Queue, Sleep};
use sockets::Sockets;
use sync_all::SyncAll;
use waker::RingWaker;

/// How long a dropped ring waits for the kernel to give its memory back, before it leaks it.
const DROP_WAIT_MS: u64 = 5_000;

/// Makes a ring as [`RingIo::new`] does, and says which optional features it has.
pub(crate) fn features() -> io::Result<Vec<&'static str>> {
    Ok(Queue::new()?.features())
}

/// An accepted connection that no shard owns yet. May be sent to any thread.
#[derive(Debug)]
pub struct RingStream(TcpStream);

impl AsRawFd for RingStream {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

/// An event on its way to the caller. Those of sockets closed meanwhile are dropped.
enum Ready {
    Readable { socket: u32, generation: u32 },
    Writable { socket: u32, generation: u32 },
    Other(Event<RingStream>),
}

/// Sockets, files, time and chance of one shard, on the thread that made it.
pub struct RingIo {
    queue: Queue,
    sockets: Sockets,
    files: Files,
    ready: VecDeque<Ready>,
    waker: Arc<RingWaker>,
    sync_all: Option<SyncAll>,
    /// The kernel takes submissions from one thread only.
    not_send: PhantomData<*const ()>,
}

impl RingIo {
    /// A ring for the calling thread. The error says which limit or setting is in the way: it holds
    /// a [`RingProblem`].
    pub fn new() -> io::Result<Self> {
        let in_words = |e: io::Error| io::Error::new(e.kind(), RingProblem::from(e));
        let mut ring = Self {
            queue: Queue::new().map_err(in_words)?,
            sockets: Sockets::new(),
            files: Files::new(),
            ready: VecDeque::new(),
            waker: Arc::new(RingWaker::new()?),
            sync_all: None,
            not_send: PhantomData,
        };
        ring.poll_waker();
        Ok(ring)
    }

    fn poll_waker(&mut self) {
        let poll = opcode::PollAdd::new(Fd(self.waker.raw_fd()), libc::POLLIN as u32).multi(true);
        // SAFETY: a poll points to no memory.
        unsafe { self.queue.push(poll.build(), Purpose::Wake) };
    }

    /// How long to sleep: not at all while there is something to do.
    fn sleep_until(&self, deadline: Option<Instant>) -> Sleep {
        if !self.ready.is_empty() {
            return Sleep::No;
        }
        let Some(deadline) = deadline.into_iter().chain(self.sockets.retry_at()).min() else {
            return Sleep::Forever;
        };
        match deadline.ns().saturating_sub(self.now().ns()) {
            0 => Sleep::No,
            ns => Sleep::For(Duration::from_nanos(ns)),
        }
    }

    fn collect(&mut self) {
        while let Some(done) = self.queue.next_completion() {
            if let Some(ready) = self.on_completion(done) {
                self.ready.push_back(ready);
            }
        }
    }

    fn on_completion(&mut self, done: Completion) -> Option<Ready> {
        match done.purpose {
            Purpose::Nothing => None,
            Purpose::Wake => {
                if !done.more {
                    self.poll_waker();
                }
                None
            }
            Purpose::Accept { listener } => {
                let now = self.now();
                let event = self.sockets.on_accepted(&mut self.queue, listener, done, now);
                event.map(Ready::Other)
            }
            Purpose::Readable { socket, generation } => {
                self.sockets.on_readable(&mut self.queue, socket, generation, &done)
            }
            Purpose::Writable { socket, generation } => {
                self.sockets.on_writable(socket, generation)
            }
            Purpose::File { index } => {
                let (token, result) = self.files.on_completed(&mut self.queue, index, done)?;
                Some(Ready::Other(Event::Completed { token, result }))
            }
        }
    }

    fn collect_sync_all(&mut self) {
        let results = self.sync_all.as_ref().map(SyncAll::take_results).unwrap_or_default();
        for (token, result) in results {
            let result = result.map(|()| 0);
            self.ready.push_back(Ready::Other(Event::Completed { token, result }));
        }
    }
}

impl Drop for RingIo {
    fn drop(&mut self) {
        let deadline = self.now().plus_ms(DROP_WAIT_MS);
        while !self.files.is_idle() && self.now() < deadline {
            let step = Sleep::For(Duration::from_millis(100));
            if self.queue.enter(step).is_err() {
                break;
            }
            self.collect();
        }
        if !self.files.is_idle() {
            // The kernel may still write to it: memory lost is better than memory shared.
            std::mem::forget(std::mem::replace(&mut self.files, Files::new()));
        }
    }
}

impl Io for RingIo {
    type File = RingFile;
    type Stream = RingStream;

    fn now(&self) -> Instant {
        let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        // SAFETY: `time` lives across the call.
        let got = unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &raw mut time) };
        assert!(got == 0, "every Linux has a monotonic clock");
        Instant::from_ns(time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64)
    }

    fn wall_clock_ms(&self) -> i64 {
        match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => since.as_millis() as i64,
            Err(before) => -(before.duration().as_millis() as i64),
        }
    }

    fn random_u64(&mut self) -> u64 {
        let mut random = [0u8; 8];
        // SAFETY: `random` is 8 bytes long and lives across the call.
        let got = unsafe { libc::getrandom(random.as_mut_ptr().cast(), random.len(), 0) };
        assert!(got == 8, "requests of up to 256 bytes are never cut short");
        u64::from_ne_bytes(random)
    }

    fn wait(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        let mut sleep = self.sleep_until(deadline);
        if sleep != Sleep::No && !self.waker.fall_asleep() {
            sleep = Sleep::No;
        }
        let entered = self.queue.enter(sleep);
        if self.waker.rise() {
            self.collect_sync_all();
            self.ready.push_back(Ready::Other(Event::Woken));
        }
        entered?;
        self.collect();
        if self.sockets.retry_at().is_some() {
            let now = self.now();
            self.sockets.retry_accepts(&mut self.queue, now);
        }
        Ok(())
    }

    fn next_event(&mut self) -> Option<Event<RingStream>> {
        loop {
            let (event, socket, generation) = match self.ready.pop_front()? {
                Ready::Other(event) => return Some(event),
                Ready::Readable { socket, generation } => {
                    (Event::Readable(SocketId(socket)), socket, generation)
                }
                Ready::Writable { socket, generation } => {
                    (Event::Writable(SocketId(socket)), socket, generation)
                }
            };
            if self.sockets.is_current(socket, generation) {
                return Some(event);
            }
        }
    }

    fn waker(&self) -> Arc<dyn Waker> {
        Arc::clone(&self.waker) as Arc<dyn Waker>
    }

    fn listen(&mut self, address: SocketAddr) -> io::Result<(ListenerId, SocketAddr)> {
        self.sockets.listen(&mut self.queue, address)
    }

    fn close_listener(&mut self, listener: ListenerId) {
        self.sockets.close_listener(&mut self.queue, listener);
    }

    fn adopt(&mut self, stream: RingStream) -> io::Result<SocketId> {
        self.sockets.adopt(&mut self.queue, stream)
    }

    fn recv(
        &mut self,
        socket: SocketId,
        buffer: &mut BytesMut,
        bytes_max: usize,
    ) -> io::Result<usize> {
        self.sockets.recv(&mut self.ready, socket, buffer, bytes_max)
    }

    fn recv_whole(&mut self, socket: SocketId, into: &mut [io::IoSliceMut<'_>]) -> io::Result<()> {
        self.sockets.recv_whole(socket, into)
    }

    fn send(&mut self, socket: SocketId, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.sockets.send(socket, slices)
    }

    fn send_file(
        &mut self,
        socket: SocketId,
        file: &RingFile,
        position: u64,
        bytes: usize,
    ) -> io::Result<usize> {
        self.sockets.send_file(socket, file.buffered(), position, bytes)
    }

    fn want_writable(&mut self, socket: SocketId) {
        self.sockets.want_writable(&mut self.queue, socket);
    }

    fn close(&mut self, socket: SocketId) {
        self.sockets.close(&mut self.queue, socket);
    }

    fn submit_write(
        &mut self,
        token: Token,
        file: &RingFile,
        position: u64,
        blocks: ChunkBlocks,
        path: WritePath,
    ) {
        self.files.submit_write(&mut self.queue, token, file, position, blocks, path);
    }

    fn submit_sync(&mut self, token: Token, file: &RingFile) {
        self.files.submit_sync(&mut self.queue, token, file);
    }

    fn submit_sync_all(&mut self, token: Token, file: &RingFile) {
        if self.sync_all.is_none() {
            match SyncAll::start(Arc::clone(&self.waker)) {
                Ok(started) => self.sync_all = Some(started),
                Err(e) => {
                    let failed = Event::Completed { token, result: Err(e) };
                    self.ready.push_back(Ready::Other(failed));
                    return;
                }
            }
        }
        let sync_all = self.sync_all.as_ref().expect("just started");
        sync_all.submit(token, file.clone());
    }

    fn submit_allocate(&mut self, token: Token, file: &RingFile, position: u64, bytes: u64) {
        self.files.submit_allocate(&mut self.queue, token, file, position, bytes);
    }

    fn submit_fetch_pages(&mut self, token: Token, file: &RingFile, position: u64, bytes: usize) {
        self.files.submit_fetch_pages(&mut self.queue, token, file, position, bytes);
    }

    fn submit_read_ahead(&mut self, file: &RingFile, position: u64, bytes: usize) {
        self.files.submit_read_ahead(&mut self.queue, file, position, bytes);
    }

    fn is_cached(&mut self, file: &RingFile, position: u64, bytes: usize) -> bool {
        file.is_cached(position, bytes)
    }

    fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<RingFile> {
        RingFile::open(path, mode)
    }

    fn file_bytes(&mut self, file: &RingFile) -> io::Result<u64> {
        Ok(file.buffered().metadata()?.len())
    }

    fn read_at(&mut self, file: &RingFile, position: u64, into: &mut [u8]) -> io::Result<usize> {
        file.read_at(position, into)
    }

    fn write_at(&mut self, file: &RingFile, position: u64, bytes: &[u8]) -> io::Result<()> {
        file.buffered().write_all_at(bytes, position)
    }

    fn set_file_bytes(&mut self, file: &RingFile, bytes: u64) -> io::Result<()> {
        file.buffered().set_len(bytes)
    }

    fn sync(&mut self, file: &RingFile) -> io::Result<()> {
        file.buffered().sync_all()
    }

    fn replace_file(&mut self, path: &Path, content: &[u8]) -> io::Result<()> {
        folders::replace_file(path, content)
    }

    fn read_file(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        std::fs::read(path)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        std::fs::rename(from, to)
    }

    fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        std::fs::remove_file(path)
    }

    fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        folders::create_dir(path)
    }

    fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        std::fs::remove_dir_all(path)
    }

    fn read_dir(&mut self, path: &Path) -> io::Result<Vec<PathBuf>> {
        folders::read_dir(path)
    }

    fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        folders::sync_dir(path)
    }
}
