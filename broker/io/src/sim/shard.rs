//! [`SimIo`]: the [`Io`] of one shard in a simulated world.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bytes::BytesMut;

use super::chance::Chance;
use super::disk::NodeId;
use super::network::{Connection, ConnectionId, Listener, Owner, reset_error, take_front};
use super::world::{FileOperation, Ready, Shard, World};
use super::{Operation, SharedWorld};
use crate::interface::{Event, Instant, Io, ListenerId, OpenMode, SocketId, Token, Waker};
use crate::{BLOCK_BYTES, ChunkBlocks, WritePath};

/// A file of a simulated world.
#[derive(Clone, Debug)]
pub struct SimFile {
    node: NodeId,
    direct: bool,
    writable: bool,
}

/// An accepted connection that no shard owns yet.
#[derive(Debug)]
pub struct SimStream {
    world: SharedWorld,
    connection: ConnectionId,
}

impl Drop for SimStream {
    fn drop(&mut self) {
        let mut world = self.world.lock();
        if world.network.connection(self.connection).owner == Owner::Nobody {
            world.network.close_broker_end(self.connection);
        }
    }
}

#[derive(Debug)]
struct SimWaker {
    world: SharedWorld,
    shard: usize,
}

impl Waker for SimWaker {
    fn wake(&self) {
        let mut world = self.world.lock();
        let Some(shard) = &mut world.shards[self.shard] else { return };
        if !shard.ready.iter().any(|event| matches!(event, Ready::Woken)) {
            shard.ready.push_back(Ready::Woken);
        }
    }
}

/// Sockets, files, time and chance of one shard in a [`super::SimWorld`]. Stays on one thread.
#[derive(Debug)]
pub struct SimIo {
    world: SharedWorld,
    shard: usize,
    chance: Chance,
    sockets: BTreeMap<SocketId, ConnectionId>,
    listener_next: u32,
    not_send: PhantomData<*const ()>,
}

impl SimIo {
    pub(super) fn new(world: SharedWorld) -> Self {
        let (shard, chance) = {
            let mut locked = world.lock();
            locked.shards.push(Some(Shard::default()));
            (locked.shards.len() - 1, Chance::new(locked.chance.next()))
        };
        let sockets = BTreeMap::new();
        Self { world, shard, chance, sockets, listener_next: 0, not_send: PhantomData }
    }

    fn with_connection<R>(
        &self,
        socket: SocketId,
        body: impl FnOnce(&mut World, ConnectionId) -> R,
    ) -> R {
        let id = self.sockets[&socket];
        body(&mut self.world.lock(), id)
    }

    fn submit(&self, token: Token, operation: FileOperation) {
        self.world.lock().submit(self.shard, token, operation);
    }
}

impl Drop for SimIo {
    fn drop(&mut self) {
        let mut world = self.world.lock();
        for connection in world.network.owned_by(self.shard) {
            world.network.close_broker_end(connection);
        }
        let shard = self.shard;
        world.network.listeners.retain(|_, listener| listener.io != shard);
        world.shards[shard] = None;
    }
}

/// What a send may take now: an error, nothing for the moment, or so many bytes.
fn room(world: &mut World, id: ConnectionId) -> io::Result<usize> {
    if world.chance.hits(world.faults.reset_ppm) {
        world.reset(id);
    }
    let bytes_max = world.network.buffer_bytes_max;
    let connection = world.network.connection(id);
    if connection.reset {
        return Err(reset_error());
    }
    if connection.client_closed {
        return Err(io::Error::from_raw_os_error(libc::EPIPE));
    }
    match bytes_max.saturating_sub(connection.to_client.len()) {
        0 => Err(io::ErrorKind::WouldBlock.into()),
        room if world.chance.hits(world.faults.short_send_ppm) => {
            Ok(1 + world.chance.below(room as u64) as usize)
        }
        room => Ok(room),
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().unwrap_or(Path::new("/"))
}

fn parents_first(path: &Path) -> Vec<&Path> {
    let mut folders: Vec<&Path> = path.ancestors().collect();
    folders.reverse();
    folders
}

impl Io for SimIo {
    type File = SimFile;
    type Stream = SimStream;

    fn now(&self) -> Instant {
        Instant::from_ns(self.world.lock().now_ns)
    }

    fn wall_clock_ms(&self) -> i64 {
        let world = self.world.lock();
        world.wall_start_ms + (world.now_ns / 1_000_000) as i64
    }

    fn random_u64(&mut self) -> u64 {
        self.chance.next()
    }

    fn wait(&mut self, deadline: Option<Instant>) -> io::Result<()> {
        let mut world = self.world.lock();
        let now = world.now_ns;
        world.run_until(now);
        let shard = world.shards[self.shard].as_mut().expect("lives as long as its SimIo");
        shard.deadline_ns = None;
        if !shard.ready.is_empty() || deadline.is_some_and(|deadline| deadline.ns() <= now) {
            return Ok(());
        }
        shard.deadline_ns = deadline.map(Instant::ns);
        if let Some(next) = world.next_ns() {
            world.run_until(next);
        }
        Ok(())
    }

    fn next_event(&mut self) -> Option<Event<SimStream>> {
        let mut world = self.world.lock();
        let shard = world.shards[self.shard].as_mut().expect("lives as long as its SimIo");
        Some(match shard.ready.pop_front()? {
            Ready::Accepted { listener, connection, peer } => {
                let stream = SimStream { world: self.world.clone(), connection };
                Event::Accepted { listener, stream, peer }
            }
            Ready::Readable(socket) => Event::Readable(socket),
            Ready::Writable(socket) => Event::Writable(socket),
            Ready::Completed { token, result } => Event::Completed { token, result },
            Ready::Woken => Event::Woken,
        })
    }

    fn waker(&self) -> Arc<dyn Waker> {
        Arc::new(SimWaker { world: self.world.clone(), shard: self.shard })
    }

    fn listen(&mut self, address: SocketAddr) -> io::Result<(ListenerId, SocketAddr)> {
        let id = ListenerId(self.listener_next);
        let listener = Listener { io: self.shard, id };
        let address = self.world.lock().network.listen(address, listener)?;
        self.listener_next += 1;
        Ok((id, address))
    }

    fn close_listener(&mut self, listener: ListenerId) {
        let shard = self.shard;
        let mut world = self.world.lock();
        world.network.listeners.retain(|_, other| (other.io, other.id) != (shard, listener));
    }

    fn adopt(&mut self, stream: SimStream) -> io::Result<SocketId> {
        let used = |id: &u32| !self.sockets.contains_key(&SocketId(*id));
        let socket = SocketId((0..).find(used).expect("fewer connections than ids"));
        self.sockets.insert(socket, stream.connection);
        let mut world = self.world.lock();
        let connection = world.network.connection(stream.connection);
        connection.owner = Owner::Socket(self.shard, socket);
        if connection.is_readable() {
            world.notice_readable(stream.connection);
        }
        drop(world);
        Ok(socket)
    }

    fn recv(
        &mut self,
        socket: SocketId,
        buffer: &mut BytesMut,
        bytes_max: usize,
    ) -> io::Result<usize> {
        self.with_connection(socket, |world, id| {
            if world.chance.hits(world.faults.reset_ppm) {
                world.reset(id);
            }
            let connection = world.network.connection(id);
            if connection.reset {
                return Err(reset_error());
            }
            let count = connection.to_broker.len().min(bytes_max);
            if count == 0 {
                let ended = connection.client_ended || bytes_max == 0;
                return if ended { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
            }
            take_front(&mut connection.to_broker, count, |part| buffer.extend_from_slice(part));
            if count < bytes_max && connection.client_ended {
                // The caller stops at a short read: the end of the stream needs its own event.
                world.notice_readable(id);
            }
            Ok(count)
        })
    }

    fn recv_whole(&mut self, socket: SocketId, into: &mut [io::IoSliceMut<'_>]) -> io::Result<()> {
        self.with_connection(socket, |world, id| {
            let connection = world.network.connection(id);
            let bytes: usize = into.iter().map(|slice| slice.len()).sum();
            if connection.reset {
                return Err(reset_error());
            }
            if connection.to_broker.len() < bytes {
                let ended = connection.client_ended;
                let kind =
                    if ended { io::ErrorKind::UnexpectedEof } else { io::ErrorKind::WouldBlock };
                return Err(kind.into());
            }
            into.iter_mut().try_for_each(|slice| connection.to_broker.read_exact(slice))
        })
    }

    fn send(&mut self, socket: SocketId, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.with_connection(socket, |world, id| {
            let room = room(world, id)?;
            let Connection { to_client, .. } = world.network.connection(id);
            let mut taken = 0;
            for slice in slices {
                let part = slice.len().min(room - taken);
                to_client.extend(&slice[..part]);
                taken += part;
            }
            Ok(taken)
        })
    }

    fn send_file(
        &mut self,
        socket: SocketId,
        file: &SimFile,
        position: u64,
        bytes: usize,
    ) -> io::Result<usize> {
        self.with_connection(socket, |world, id| {
            let room = room(world, id)?;
            let bytes = bytes.min(room);
            world.cold_sends += u64::from(!world.disk.is_cached(file.node, position, bytes));
            world.read_fault(file.node)?;
            let mut content = vec![0; bytes];
            let count = world.disk.read(file.node, position, &mut content);
            world.network.connection(id).to_client.extend(&content[..count]);
            Ok(count)
        })
    }

    fn want_writable(&mut self, socket: SocketId) {
        self.with_connection(socket, |world, id| {
            world.network.connection(id).writable_wanted = true;
            world.notice_writable(id);
        });
    }

    fn close(&mut self, socket: SocketId) {
        let id = self.sockets.remove(&socket).expect("only open sockets are closed");
        let mut world = self.world.lock();
        world.network.close_broker_end(id);
        let shard = world.shards[self.shard].as_mut().expect("lives as long as its SimIo");
        shard.ready.retain(
            |event| !matches!(event, Ready::Readable(id) | Ready::Writable(id) if *id == socket),
        );
    }

    fn submit_write(
        &mut self,
        token: Token,
        file: &SimFile,
        position: u64,
        blocks: ChunkBlocks,
        path: WritePath,
    ) {
        assert!(position.is_multiple_of(BLOCK_BYTES as u64) && file.writable, "an aligned write");
        let direct = path == WritePath::Direct;
        assert!(file.direct || !direct, "a file opened for direct writes");
        // SAFETY: nobody writes to the chunk meanwhile: its writer is the shard that calls this, on
        // this thread, and all of a simulated world runs on one thread (`SimIo` is not `Send`).
        let bytes = unsafe { blocks.to_vec() };
        self.submit(token, FileOperation::Write { node: file.node, position, bytes, direct });
    }

    fn submit_sync(&mut self, token: Token, file: &SimFile) {
        let end = self.world.lock().disk.change_next();
        self.submit(token, FileOperation::Sync { node: Some(file.node), end });
    }

    fn submit_sync_all(&mut self, token: Token, _file: &SimFile) {
        let end = self.world.lock().disk.change_next();
        self.submit(token, FileOperation::Sync { node: None, end });
    }

    fn submit_allocate(&mut self, token: Token, file: &SimFile, position: u64, bytes: u64) {
        self.submit(token, FileOperation::Allocate { node: file.node, position, bytes });
    }

    fn submit_fetch_pages(&mut self, token: Token, file: &SimFile, position: u64, bytes: usize) {
        self.submit(token, FileOperation::FetchPages { node: file.node, position, bytes });
    }

    fn submit_read_ahead(&mut self, file: &SimFile, position: u64, bytes: usize) {
        self.world.lock().disk.fetch_pages(file.node, position, bytes);
    }

    fn is_cached(&mut self, file: &SimFile, position: u64, bytes: usize) -> bool {
        let world = &mut *self.world.lock();
        if world.chance.hits(world.faults.cache_miss_ppm) {
            world.disk.evict(file.node, position);
        }
        world.disk.is_cached(file.node, position, bytes)
    }

    fn open(&mut self, path: &Path, mode: OpenMode) -> io::Result<SimFile> {
        let mut world = self.world.lock();
        if mode == OpenMode::Direct && world.direct_io_refused {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let node = match world.disk.open(path, false) {
            Err(e) if e.kind() == io::ErrorKind::NotFound && mode != OpenMode::Read => {
                world.effect()?;
                world.disk.open(path, true)?
            }
            other => other?,
        };
        Ok(SimFile { node, direct: mode == OpenMode::Direct, writable: mode != OpenMode::Read })
    }

    fn file_bytes(&mut self, file: &SimFile) -> io::Result<u64> {
        Ok(self.world.lock().disk.file_bytes(file.node))
    }

    fn read_at(&mut self, file: &SimFile, position: u64, into: &mut [u8]) -> io::Result<usize> {
        let mut world = self.world.lock();
        world.read_fault(file.node)?;
        Ok(world.disk.read(file.node, position, into))
    }

    fn write_at(&mut self, file: &SimFile, position: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(file.writable, "a file opened for writing");
        let mut world = self.world.lock();
        world.effect()?;
        world.write(file.node, position, bytes, false).map(|_| ())
    }

    fn set_file_bytes(&mut self, file: &SimFile, bytes: u64) -> io::Result<()> {
        let mut world = self.world.lock();
        world.effect()?;
        world.disk.set_file_bytes(file.node, bytes)
    }

    fn sync(&mut self, file: &SimFile) -> io::Result<()> {
        let mut world = self.world.lock();
        world.effect()?;
        let end = world.disk.change_next();
        world.sync(Some(file.node), end)
    }

    fn replace_file(&mut self, path: &Path, content: &[u8]) -> io::Result<()> {
        let beside = path.with_added_extension("tmp");
        let file = self.open(&beside, OpenMode::ReadWrite)?;
        self.set_file_bytes(&file, 0)?;
        self.write_at(&file, 0, content)?;
        self.sync(&file)?;
        self.rename(&beside, path)?;
        self.sync_dir(folder_of(path))
    }

    fn read_file(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        let mut world = self.world.lock();
        let node = world.disk.open(path, false)?;
        world.read_fault(node)?;
        world.content(path)
    }

    fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let mut world = self.world.lock();
        world.effect()?;
        world.disk.rename(from, to)
    }

    fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        let mut world = self.world.lock();
        world.effect()?;
        world.disk.remove_file(path)
    }

    fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        for folder in parents_first(path) {
            let mut world = self.world.lock();
            if world.disk.is_dir(folder) {
                continue;
            }
            world.effect()?;
            world.disk.create_dir(folder)?;
            drop(world);
            self.sync_dir(folder_of(folder))?;
        }
        Ok(())
    }

    fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        for entry in self.read_dir(path)? {
            let is_dir = self.world.lock().disk.is_dir(&entry);
            if is_dir { self.remove_dir(&entry)? } else { self.remove_file(&entry)? }
        }
        let mut world = self.world.lock();
        world.effect()?;
        world.disk.remove_empty_dir(path)
    }

    fn read_dir(&mut self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.world.lock().disk.read_dir(path)
    }

    fn sync_dir(&mut self, path: &Path) -> io::Result<()> {
        let mut world = self.world.lock();
        world.effect()?;
        let node = world.disk.find(path);
        world.planned_fault(Operation::Sync, node)?;
        world.disk.sync_dir(path)
    }
}
