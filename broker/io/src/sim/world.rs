//! The state behind all handles of one simulated world, and what happens when in it.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use super::Operation;
use super::chance::{Chance, Faults};
use super::disk::{Disk, Kept, NodeId};
use super::network::{ConnectionId, Network, Owner};
use crate::{ListenerId, SocketId, Token};

/// An event as kept by the world; the stream of an accepted connection is made when it is taken.
#[derive(Debug)]
pub(super) enum Ready {
    Accepted { listener: ListenerId, connection: ConnectionId, peer: SocketAddr },
    Readable(SocketId),
    Writable(SocketId),
    Completed { token: Token, result: io::Result<usize> },
    Woken,
}

/// One `SimIo`.
#[derive(Debug, Default)]
pub(super) struct Shard {
    pub(super) ready: VecDeque<Ready>,
    /// Until when it sleeps, while it does.
    pub(super) deadline_ns: Option<u64>,
}

/// A file operation on its way.
#[derive(Clone, Debug)]
pub(super) enum FileOperation {
    Write {
        node: NodeId,
        position: u64,
        bytes: Vec<u8>,
        direct: bool,
    },
    /// `None` is all files. Covers the changes below `end`.
    Sync {
        node: Option<NodeId>,
        end: u64,
    },
    Allocate {
        node: NodeId,
        position: u64,
        bytes: u64,
    },
    FetchPages {
        node: NodeId,
        position: u64,
        bytes: usize,
    },
}

#[derive(Debug)]
enum Due {
    File { shard: usize, token: Token, operation: FileOperation },
    Accept { connection: ConnectionId, listener: SocketAddr, peer: SocketAddr },
    Readable(ConnectionId),
    Writable(ConnectionId),
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) now_ns: u64,
    pub(super) wall_start_ms: i64,
    pub(super) chance: Chance,
    pub(super) faults: Faults,
    pub(super) planned: Vec<(Operation, String, i32)>,
    pub(super) disk: Disk,
    pub(super) network: Network,
    /// `None` once the `SimIo` was dropped.
    pub(super) shards: Vec<Option<Shard>>,
    /// What will happen, by time and then by the order in which it was caused.
    due: BTreeMap<(u64, u64), Due>,
    due_next: u64,
    pub(super) effects: u64,
    pub(super) effects_left: Option<u64>,
    pub(super) direct_io_refused: bool,
    pub(super) cold_sends: u64,
    pub(super) flushes: u64,
}

fn io_error() -> io::Error {
    io::Error::from_raw_os_error(libc::EIO)
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            now_ns: 1_000_000_000,
            wall_start_ms: 1_767_225_600_000,
            chance: Chance::new(seed),
            faults: Faults::default(),
            planned: Vec::new(),
            disk: Disk::new(),
            network: Network::new(),
            shards: Vec::new(),
            due: BTreeMap::new(),
            due_next: 0,
            effects: 0,
            effects_left: None,
            direct_io_refused: false,
            cold_sends: 0,
            flushes: 0,
        }
    }

    fn next_life(&self, seed: u64, disk: Disk) -> Self {
        Self {
            now_ns: self.now_ns,
            wall_start_ms: self.wall_start_ms,
            faults: self.faults.clone(),
            direct_io_refused: self.direct_io_refused,
            disk,
            ..Self::new(seed)
        }
    }

    pub(super) fn after_power_cut(&self, seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let mut disk = self.disk.clone();
        for operation in self.writes_in_flight(&mut chance) {
            let FileOperation::Write { node, position, bytes, direct } = operation else {
                continue;
            };
            // Without space it leaves nothing, as it would have.
            drop(disk.write(node, position, &bytes, direct, &Kept::Some, &mut chance));
        }
        let disk = disk.after_power_cut(&mut chance, self.faults.torn_blocks);
        self.next_life(chance.next(), disk)
    }

    pub(super) fn after_kill(&self, seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let mut disk = self.disk.clone();
        for operation in self.writes_in_flight(&mut chance) {
            let FileOperation::Write { node, position, bytes, direct } = operation else {
                continue;
            };
            if chance.below(2) == 0 {
                drop(disk.write(node, position, &bytes, direct, &Kept::All, &mut chance));
            }
        }
        self.next_life(chance.next(), disk)
    }

    /// In any order.
    fn writes_in_flight(&self, chance: &mut Chance) -> Vec<FileOperation> {
        if self.effects_left == Some(0) {
            return Vec::new();
        }
        let mut writes: Vec<FileOperation> = Vec::new();
        for due in self.due.values() {
            if let Due::File { operation: operation @ FileOperation::Write { .. }, .. } = due {
                let at = chance.below(writes.len() as u64 + 1) as usize;
                writes.insert(at, operation.clone());
            }
        }
        writes
    }

    // -- time -------------------------------------------------------------------------------

    fn push_due(&mut self, delay_ns: u64, due: Due) {
        self.due.insert((self.now_ns + delay_ns, self.due_next), due);
        self.due_next += 1;
    }

    fn network_delay_ns(&mut self) -> u64 {
        self.chance.within(&self.faults.network_latency_us.clone()) * 1_000
    }

    /// When something happens next; now, when an event waits. `None`: never by itself.
    pub(super) fn next_ns(&self) -> Option<u64> {
        let shards = || self.shards.iter().flatten();
        if shards().any(|shard| !shard.ready.is_empty()) {
            return Some(self.now_ns);
        }
        let due = self.due.keys().next().map(|(at, _)| *at);
        let deadline = shards().filter_map(|shard| shard.deadline_ns).min();
        due.into_iter().chain(deadline).min()
    }

    /// Lets all that is due until `end_ns` happen, and moves the clock there.
    pub(super) fn run_until(&mut self, end_ns: u64) {
        while let Some(entry) = self.due.first_entry() {
            let at = entry.key().0;
            if at > end_ns {
                break;
            }
            let due = entry.remove();
            self.now_ns = self.now_ns.max(at);
            self.happen(due);
        }
        self.now_ns = self.now_ns.max(end_ns);
    }

    fn happen(&mut self, due: Due) {
        match due {
            Due::File { shard, token, operation } => {
                if let Some(result) = self.complete(operation) {
                    self.push_ready(shard, Ready::Completed { token, result });
                }
            }
            Due::Accept { connection, listener, peer } => {
                match self.network.listeners.get(&listener) {
                    Some(found) => {
                        let (shard, listener) = (found.io, found.id);
                        self.push_ready(shard, Ready::Accepted { listener, connection, peer });
                    }
                    None => self.reset(connection),
                }
            }
            Due::Readable(id) => {
                let connection = self.network.connection(id);
                if let Owner::Socket(shard, socket) = connection.owner
                    && connection.is_readable()
                {
                    self.push_ready(shard, Ready::Readable(socket));
                }
            }
            Due::Writable(id) => {
                let bytes_max = self.network.buffer_bytes_max;
                let connection = self.network.connection(id);
                let room = connection.to_client.len() < bytes_max || connection.reset;
                if let Owner::Socket(shard, socket) = connection.owner
                    && connection.writable_wanted
                    && room
                {
                    connection.writable_wanted = false;
                    self.push_ready(shard, Ready::Writable(socket));
                }
            }
        }
    }

    pub(super) fn push_ready(&mut self, shard: usize, event: Ready) {
        if let Some(shard) = &mut self.shards[shard] {
            shard.ready.push_back(event);
        }
    }

    // -- network ----------------------------------------------------------------------------

    pub(super) fn connect(&mut self, address: SocketAddr) -> io::Result<ConnectionId> {
        if !self.network.listeners.contains_key(&address) {
            return Err(io::Error::from_raw_os_error(libc::ECONNREFUSED));
        }
        let (connection, peer) = self.network.connect();
        let delay = self.network_delay_ns();
        self.push_due(delay, Due::Accept { connection, listener: address, peer });
        Ok(connection)
    }

    pub(super) fn notice_readable(&mut self, id: ConnectionId) {
        let delay = self.network_delay_ns();
        self.push_due(delay, Due::Readable(id));
    }

    pub(super) fn notice_writable(&mut self, id: ConnectionId) {
        let delay = self.network_delay_ns();
        self.push_due(delay, Due::Writable(id));
    }

    pub(super) fn reset(&mut self, id: ConnectionId) {
        let connection = self.network.connection(id);
        connection.reset = true;
        connection.to_broker.clear();
        connection.to_client.clear();
        self.notice_readable(id);
        self.notice_writable(id);
    }

    // -- disk -------------------------------------------------------------------------------

    /// Counts one change of the disk; fails when the power is off.
    pub(super) fn effect(&mut self) -> io::Result<()> {
        match &mut self.effects_left {
            Some(0) => return Err(io::Error::other("the power is off")),
            Some(left) => *left -= 1,
            None => {}
        }
        self.effects += 1;
        Ok(())
    }

    /// The error of the first planned fault that hits, if one does. Without a node, any does.
    pub(super) fn planned_fault(
        &mut self,
        operation: Operation,
        node: Option<NodeId>,
    ) -> io::Result<()> {
        if self.planned.is_empty() {
            return Ok(());
        }
        let path = node.and_then(|node| self.disk.path_of(node));
        let path = path.map(|path| path.to_string_lossy().into_owned());
        let hit = self.planned.iter().position(|(planned, part, _)| {
            *planned == operation && path.as_ref().is_none_or(|path| path.contains(part))
        });
        match hit {
            Some(index) => Err(io::Error::from_raw_os_error(self.planned.remove(index).2)),
            None => Ok(()),
        }
    }

    pub(super) fn submit(&mut self, shard: usize, token: Token, operation: FileOperation) {
        let mut delay = self.chance.within(&self.faults.file_latency_us.clone()) * 1_000;
        if self.chance.hits(self.faults.slow_ppm) {
            delay += self.chance.below(1_000_000_000);
        }
        self.push_due(delay, Due::File { shard, token, operation });
    }

    /// `None` when the power is off: nobody is told.
    fn complete(&mut self, operation: FileOperation) -> Option<io::Result<usize>> {
        match operation {
            FileOperation::Write { node, position, bytes, direct } => {
                self.effect().ok()?;
                Some(self.write(node, position, &bytes, direct))
            }
            FileOperation::Sync { node, end } => {
                self.effect().ok()?;
                self.flushes += 1;
                Some(self.sync(node, end).map(|()| 0))
            }
            FileOperation::Allocate { node, position, bytes } => {
                self.effect().ok()?;
                Some(self.allocate(node, position, bytes).map(|()| 0))
            }
            FileOperation::FetchPages { node, position, bytes } => {
                if self.effects_left == Some(0) {
                    return None;
                }
                let result = self.read_fault(node);
                if result.is_ok() {
                    self.disk.fetch_pages(node, position, bytes);
                }
                Some(result.map(|()| 0))
            }
        }
    }

    pub(super) fn write(
        &mut self,
        node: NodeId,
        position: u64,
        bytes: &[u8],
        direct: bool,
    ) -> io::Result<usize> {
        self.planned_fault(Operation::Write, Some(node))?;
        let blocks = bytes.len().div_ceil(crate::BLOCK_BYTES);
        let (kept, result) = if self.chance.hits(self.faults.write_error_ppm) {
            (Kept::Some, Err(io_error()))
        } else if self.chance.hits(self.faults.write_short_ppm) {
            let first = self.chance.below(blocks as u64) as usize;
            (Kept::First(first), Err(io::ErrorKind::WriteZero.into()))
        } else if self.chance.hits(self.faults.write_no_space_ppm) {
            (Kept::First(0), Err(io::Error::from_raw_os_error(libc::ENOSPC)))
        } else if self.chance.hits(self.faults.write_lost_ppm) {
            (Kept::Some, Ok(bytes.len()))
        } else {
            (Kept::All, Ok(bytes.len()))
        };
        self.disk.write(node, position, bytes, direct, &kept, &mut self.chance)?;
        result
    }

    pub(super) fn sync(&mut self, node: Option<NodeId>, end: u64) -> io::Result<()> {
        let planned = self.planned_fault(Operation::Sync, node);
        if planned.is_err() || self.chance.hits(self.faults.sync_error_ppm) {
            self.disk.fail_flush(node, end, &mut self.chance);
            return planned.and(Err(io_error()));
        }
        match node {
            Some(node) => self.disk.flush(node, end),
            None => self.disk.flush_all(end),
        }
        Ok(())
    }

    fn allocate(&mut self, node: NodeId, position: u64, bytes: u64) -> io::Result<()> {
        self.planned_fault(Operation::Allocate, Some(node))?;
        if self.chance.hits(self.faults.allocate_no_space_ppm) {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        self.disk.allocate(node, position, bytes)
    }

    pub(super) fn read_fault(&mut self, node: NodeId) -> io::Result<()> {
        if self.effects_left == Some(0) {
            return Err(io::Error::other("the power is off"));
        }
        self.planned_fault(Operation::Read, Some(node))?;
        if self.chance.hits(self.faults.read_error_ppm) { Err(io_error()) } else { Ok(()) }
    }

    pub(super) fn content(&mut self, path: &Path) -> io::Result<Vec<u8>> {
        let node = self.disk.open(path, false)?;
        let mut content = vec![0; self.disk.file_bytes(node) as usize];
        self.disk.read(node, 0, &mut content);
        Ok(content)
    }
}
