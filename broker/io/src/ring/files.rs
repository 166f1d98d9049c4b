//! Files of a ring: submitted operations, and what must stay alive until they complete.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use io_uring::{opcode, squeue, types};

use super::queue::{Completion, Purpose, Queue};
use super::slab::Slab;
use crate::{BLOCK_BYTES, ChunkBlocks, OpenMode, Token, WritePath};

/// An open file. For [`OpenMode::Direct`] it has two descriptors.
#[derive(Clone, Debug)]
pub struct RingFile(Arc<Descriptors>);

#[derive(Debug)]
struct Descriptors {
    /// Goes through the page cache.
    buffered: File,
    /// Bypasses it. Invariant: only ever written, in whole blocks.
    direct: Option<File>,
}

impl RingFile {
    pub(super) fn open(path: &Path, mode: OpenMode) -> io::Result<Self> {
        let writable = mode != OpenMode::Read;
        let buffered = File::options().read(true).write(writable).create(writable).open(path)?;
        advise_random(&buffered);
        let direct = match mode {
            OpenMode::Direct => {
                check_direct(&buffered)?;
                Some(File::options().write(true).custom_flags(libc::O_DIRECT).open(path)?)
            }
            OpenMode::Read | OpenMode::ReadWrite => None,
        };
        Ok(Self(Arc::new(Descriptors { buffered, direct })))
    }

    /// The descriptor that goes through the page cache.
    pub(super) fn buffered(&self) -> &File {
        &self.0.buffered
    }

    fn buffered_fd(&self) -> types::Fd {
        types::Fd(self.0.buffered.as_raw_fd())
    }

    fn direct_fd(&self) -> types::Fd {
        let direct = self.0.direct.as_ref().expect("the caller opened it for direct writes");
        types::Fd(direct.as_raw_fd())
    }

    /// Whether one byte can be read without the disk. Where the file system cannot tell, yes:
    /// otherwise the caller would fetch the page for ever.
    fn is_page_cached(&self, position: u64) -> bool {
        let mut byte = 0u8;
        let part = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
        let fd = self.0.buffered.as_raw_fd();
        let Ok(position) = i64::try_from(position) else { return false };
        // SAFETY: `part` describes `byte`, and both live across the call.
        let read = unsafe { libc::preadv2(fd, &raw const part, 1, position, libc::RWF_NOWAIT) };
        read == 1
            || (read < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EOPNOTSUPP))
    }

    pub(super) fn is_cached(&self, position: u64, bytes: usize) -> bool {
        let last = position + (bytes as u64).max(1) - 1;
        self.is_page_cached(position) && self.is_page_cached(last)
    }

    pub(super) fn read_at(&self, position: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut done = 0;
        while done < into.len() {
            match self.buffered().read_at(&mut into[done..], position + done as u64) {
                Ok(0) => break,
                Ok(count) => done += count,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }
}

/// The kernel reads no more of this file than is asked for. Its own readahead would make whoever
/// misses one page of the cache submit all of `read_ahead_kb`, and a shard must not wait for that.
fn advise_random(file: &File) {
    // SAFETY: the descriptor is open. It is advice: what comes of it changes no byte.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_RANDOM) };
}

/// Fails with `InvalidInput` where direct writes of our blocks are not what they seem: tmpfs takes
/// the flag and copies all the same, and a device may ask for larger blocks.
fn check_direct(file: &File) -> io::Result<()> {
    let facts = crate::probe::direct_io(file)?;
    if facts.is_usable() { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EINVAL)) }
}

/// What the kernel may touch until the operation completes, kept alive here.
#[derive(Debug)]
enum Held {
    Blocks(ChunkBlocks),
    Nothing,
    /// Fetching the pages between two positions, of which so many were asked for. What is read of
    /// them is this byte, which nobody looks at.
    Pages {
        byte: Box<u8>,
        ends: [u64; 2],
        asked: usize,
    },
}

#[derive(Debug)]
struct Operation {
    /// Whom the completion is reported to, if anybody.
    token: Option<Token>,
    file: RingFile,
    held: Held,
}

impl Operation {
    /// The submission. What it points to is owned by `self`: `held`'s bytes do not move with it.
    fn entry(&mut self, kind: Kind) -> squeue::Entry {
        let file = &self.file;
        match (kind, &mut self.held) {
            (Kind::Write { position, path }, Held::Blocks(blocks)) => {
                let bytes = u32::try_from(blocks.len()).expect("chunks are far below 4 GiB");
                let fd = match path {
                    WritePath::Direct => file.direct_fd(),
                    WritePath::Cached => file.buffered_fd(),
                };
                opcode::Write::new(fd, blocks.as_ptr(), bytes).offset(position).build()
            }
            (Kind::ReadAhead { position, bytes }, Held::Pages { .. } | Held::Nothing) => {
                // The kernel hands this to a thread of its own: it may wait for the disk's queue.
                let bytes = i64::try_from(bytes).expect("of a file");
                opcode::Fadvise::new(file.buffered_fd(), bytes, libc::POSIX_FADV_WILLNEED)
                    .offset(position)
                    .build()
            }
            (Kind::Touch { position }, Held::Pages { byte, .. }) => {
                opcode::Read::new(file.buffered_fd(), &raw mut **byte, 1).offset(position).build()
            }
            (Kind::Sync, Held::Nothing) => {
                opcode::Fsync::new(file.buffered_fd()).flags(types::FsyncFlags::DATASYNC).build()
            }
            (Kind::Allocate { position, bytes }, Held::Nothing) => {
                opcode::Fallocate::new(file.buffered_fd(), bytes).offset(position).build()
            }
            (kind, held) => panic!("{kind:?} does not hold {held:?}"),
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Write { position: u64, path: WritePath },
    ReadAhead { position: u64, bytes: usize },
    Touch { position: u64 },
    Sync,
    Allocate { position: u64, bytes: u64 },
}

/// Invariant: an operation leaves `operations` only after its completion was taken, so the kernel
/// never holds memory that is free.
pub(super) struct Files {
    operations: Slab<Operation>,
}

impl Files {
    pub(super) fn new() -> Self {
        Self { operations: Slab::new() }
    }

    /// Whether the kernel holds nothing of ours.
    pub(super) fn is_idle(&self) -> bool {
        self.operations.is_empty()
    }

    fn submit(&mut self, queue: &mut Queue, operation: Operation, kind: Kind) {
        let index = self.operations.insert(operation);
        let operation = self.operations.get_mut(index).expect("just inserted");
        let entry = operation.entry(kind);
        // SAFETY: the entry points to the bytes of a chunk or a box that `operations` owns until
        // `on_completed` has taken the completion (the invariant of `Files`), and to a descriptor
        // that it keeps open. The writer of the blocks fills at most
        // padding, and a torn read of that is harmless; the read buffer nobody else looks at.
        unsafe { queue.push(entry, Purpose::File { index }) };
    }

    pub(super) fn submit_write(
        &mut self,
        queue: &mut Queue,
        token: Token,
        file: &RingFile,
        position: u64,
        blocks: ChunkBlocks,
        path: WritePath,
    ) {
        assert!(position.is_multiple_of(BLOCK_BYTES as u64), "whole blocks");
        let operation =
            Operation { token: Some(token), file: file.clone(), held: Held::Blocks(blocks) };
        self.submit(queue, operation, Kind::Write { position, path });
    }

    pub(super) fn submit_sync(&mut self, queue: &mut Queue, token: Token, file: &RingFile) {
        let operation = Operation { token: Some(token), file: file.clone(), held: Held::Nothing };
        self.submit(queue, operation, Kind::Sync);
    }

    pub(super) fn submit_allocate(
        &mut self,
        queue: &mut Queue,
        token: Token,
        file: &RingFile,
        position: u64,
        bytes: u64,
    ) {
        let operation = Operation { token: Some(token), file: file.clone(), held: Held::Nothing };
        self.submit(queue, operation, Kind::Allocate { position, bytes });
    }

    pub(super) fn submit_fetch_pages(
        &mut self,
        queue: &mut Queue,
        token: Token,
        file: &RingFile,
        position: u64,
        bytes: usize,
    ) {
        let last = position + (bytes as u64).max(1) - 1;
        let held = Held::Pages { byte: Box::new(0), ends: [position, last], asked: 0 };
        let operation = Operation { token: Some(token), file: file.clone(), held };
        self.submit(queue, operation, Kind::ReadAhead { position, bytes });
    }

    pub(super) fn submit_read_ahead(
        &mut self,
        queue: &mut Queue,
        file: &RingFile,
        position: u64,
        bytes: usize,
    ) {
        let operation = Operation { token: None, file: file.clone(), held: Held::Nothing };
        self.submit(queue, operation, Kind::ReadAhead { position, bytes });
    }

    /// Ends the operation, or goes on with it: then there is nothing to report yet.
    pub(super) fn on_completed(
        &mut self,
        queue: &mut Queue,
        index: u32,
        done: Completion,
    ) -> Option<(Token, io::Result<usize>)> {
        let operation = self.operations.remove(index).expect("completes once");
        let Operation { token, file, held } = operation;
        let result = done.result.map(|count| count as usize);
        let result = match held {
            Held::Nothing => result,
            Held::Blocks(blocks) => result.and_then(|count| whole(count, blocks.len())),
            // Whether the pages can be read is told by reading their ends, not by the advice.
            Held::Pages { byte, ends, asked } if asked == 0 || (result.is_ok() && asked < 2) => {
                let held = Held::Pages { byte, ends, asked: asked + 1 };
                let touch = Kind::Touch { position: ends[asked] };
                self.submit(queue, Operation { token, file, held }, touch);
                return None;
            }
            Held::Pages { .. } => result.map(|_| 0),
        };
        token.map(|token| (token, result))
    }
}

fn whole(count: usize, bytes: usize) -> io::Result<usize> {
    if count == bytes { Ok(count) } else { Err(io::ErrorKind::WriteZero.into()) }
}
