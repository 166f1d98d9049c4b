//! Simulated connections: two bounded byte queues each, with the ends of stream and the resets that
//! TCP has.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::SocketAddr;

use crate::{ListenerId, SocketId};

/// Names a connection for as long as its world lives.
pub(super) type ConnectionId = u64;

#[derive(Debug)]
pub(super) struct Listener {
    /// Index of the `SimIo` that listens.
    pub(super) io: usize,
    pub(super) id: ListenerId,
}

/// Who owns the broker's end of a connection.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Owner {
    /// Accepted, on its way to a shard.
    Nobody,
    /// A socket of the `SimIo` with this index.
    Socket(usize, SocketId),
}

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) owner: Owner,
    pub(super) to_broker: VecDeque<u8>,
    pub(super) to_client: VecDeque<u8>,
    /// The client sends no more.
    pub(super) client_ended: bool,
    /// The client is gone: nobody will read.
    pub(super) client_closed: bool,
    /// The broker closed its end.
    pub(super) broker_closed: bool,
    pub(super) reset: bool,
    /// The broker asked for an event once there is room in `to_client`.
    pub(super) writable_wanted: bool,
}

impl Connection {
    fn new() -> Self {
        Self {
            owner: Owner::Nobody,
            to_broker: VecDeque::new(),
            to_client: VecDeque::new(),
            client_ended: false,
            client_closed: false,
            broker_closed: false,
            reset: false,
            writable_wanted: false,
        }
    }

    /// Whether a receive by the broker would return at once.
    pub(super) fn is_readable(&self) -> bool {
        !self.to_broker.is_empty() || self.client_ended || self.reset
    }
}

pub(super) fn reset_error() -> io::Error {
    io::Error::from_raw_os_error(libc::ECONNRESET)
}

/// Moves up to `bytes_max` bytes from the front of `queue` to `into`.
pub(super) fn take_front(queue: &mut VecDeque<u8>, bytes_max: usize, mut into: impl FnMut(&[u8])) {
    let count = queue.len().min(bytes_max);
    let (head, tail) = queue.as_slices();
    let from_head = head.len().min(count);
    into(&head[..from_head]);
    into(&tail[..count - from_head]);
    queue.drain(..count);
}

#[derive(Debug)]
pub(super) struct Network {
    pub(super) listeners: BTreeMap<SocketAddr, Listener>,
    connections: BTreeMap<ConnectionId, Connection>,
    connection_next: ConnectionId,
    port_next: u16,
    /// Invariant: no queue holds more, unless the limit was lowered later.
    pub(super) buffer_bytes_max: usize,
}

impl Network {
    pub(super) fn new() -> Self {
        Self {
            listeners: BTreeMap::new(),
            connections: BTreeMap::new(),
            connection_next: 0,
            port_next: 20_000,
            buffer_bytes_max: 64 * 1024,
        }
    }

    pub(super) fn listen(
        &mut self,
        mut address: SocketAddr,
        listener: Listener,
    ) -> io::Result<SocketAddr> {
        if address.port() == 0 {
            address.set_port(self.port_next);
            self.port_next += 1;
        }
        if self.listeners.contains_key(&address) {
            return Err(io::Error::from_raw_os_error(libc::EADDRINUSE));
        }
        self.listeners.insert(address, listener);
        Ok(address)
    }

    /// A new connection, not yet accepted, and the client's address.
    pub(super) fn connect(&mut self) -> (ConnectionId, SocketAddr) {
        let id = self.connection_next;
        self.connection_next += 1;
        self.connections.insert(id, Connection::new());
        (id, SocketAddr::from(([127, 0, 0, 1], 30_000 + (id % 30_000) as u16)))
    }

    pub(super) fn connection(&mut self, id: ConnectionId) -> &mut Connection {
        self.connections.get_mut(&id).expect("connections live as long as their world")
    }

    /// The broker's end goes away. Bytes it had not read turn the close into a reset, as in TCP.
    pub(super) fn close_broker_end(&mut self, id: ConnectionId) {
        let connection = self.connection(id);
        connection.owner = Owner::Nobody;
        connection.reset |= !connection.to_broker.is_empty();
        connection.broker_closed = true;
        connection.to_broker.clear();
    }

    /// All ends that belonged to the `SimIo` with this index.
    pub(super) fn owned_by(&self, io: usize) -> Vec<ConnectionId> {
        let owned = |(&id, connection): (&ConnectionId, &Connection)| match connection.owner {
            Owner::Socket(owner, _) if owner == io => Some(id),
            _ => None,
        };
        self.connections.iter().filter_map(owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_leave_a_queue_in_order_across_its_wrap() {
        let mut queue: VecDeque<u8> = VecDeque::with_capacity(4);
        queue.extend([0, 1, 2]);
        queue.drain(..2);
        queue.extend([3, 4, 5]);
        let mut got = Vec::new();
        take_front(&mut queue, 3, |part| got.extend_from_slice(part));
        assert_eq!(got, [2, 3, 4]);
        assert_eq!(queue, [5]);
    }
}
