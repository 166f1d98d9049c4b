//! Limits on what comes in: connections, in all and of one address, and memory for requests that
//! are still being received.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};

use millrace_io::Io;

use crate::config::Sockets;
use crate::connection::ConnectionId;
use crate::limits;
use crate::shard::Shard;

/// Open connections of all shards. Touched when one opens or closes.
#[derive(Default)]
pub(crate) struct Peers {
    open: Mutex<(usize, HashMap<IpAddr, usize>)>,
}

impl Peers {
    /// Counts a connection, or says why it is one too many.
    pub(crate) fn enter(&self, peer: IpAddr, sockets: &Sockets) -> Result<(), String> {
        let peer = peer.to_canonical();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, by_peer) = &mut *open;
        let of_peer = by_peer.get(&peer).copied().unwrap_or(0);
        let own = sockets.connections_per_ip_overrides.0.iter().find(|(ip, _)| *ip == peer);
        let peer_max = own.map_or(sockets.connections_per_ip_max, |(_, most)| *most);
        let is_full =
            |count: usize, most: i32| usize::try_from(most).is_ok_and(|most| count >= most);
        if is_full(*all, sockets.connections_max) {
            return Err(format!("max.connections is {}", sockets.connections_max));
        }
        if is_full(of_peer, peer_max) {
            return Err(format!("max.connections.per.ip is {peer_max} for it"));
        }
        *all += 1;
        by_peer.insert(peer, of_peer + 1);
        Ok(())
    }

    /// A connection that was counted is gone.
    pub(crate) fn leave(&self, peer: IpAddr) {
        let peer = peer.to_canonical();
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, by_peer) = &mut *open;
        *all -= 1;
        let of_peer = by_peer.get_mut(&peer).expect("counted when it came");
        *of_peer -= 1;
        if *of_peer == 0 {
            by_peer.remove(&peer);
        }
    }
}

/// Memory for large requests that one shard is receiving.
pub(crate) struct LargeFrames {
    /// This shard's part of `queued.max.request.bytes`.
    bytes_max: usize,
    held_bytes: usize,
    /// Whose frames wait for memory, in order.
    waiting: VecDeque<ConnectionId>,
}

impl LargeFrames {
    /// For one of so many shards.
    pub(crate) fn new(sockets: &Sockets, shards: usize) -> Self {
        let all_bytes_max = usize::try_from(sockets.queued_bytes_max);
        let bytes_max = all_bytes_max.unwrap_or(limits::LARGE_FRAME_BYTES) / shards;
        Self { bytes_max, held_bytes: 0, waiting: VecDeque::new() }
    }
}

impl<I: Io> Shard<I> {
    /// Whether the frame of this size at the front of a connection may be received now. If not,
    /// its connection is served again when there is memory.
    pub(crate) fn hold_frame(&mut self, id: ConnectionId, bytes: usize) -> bool {
        let LargeFrames { held_bytes: held, bytes_max, .. } = self.large_frames;
        let Some(connection) = self.connection(id) else { return false };
        if connection.held_bytes > 0 {
            return true;
        }
        // One is always let in: it may be larger than the limit, and waits for nobody.
        if held > 0 && held + bytes > bytes_max {
            connection.may_receive = false;
            if !std::mem::replace(&mut connection.awaits_memory, true) {
                self.large_frames.waiting.push_back(id);
            }
            return false;
        }
        connection.held_bytes = bytes;
        self.large_frames.held_bytes += bytes;
        true
    }

    /// Something arrived while a request of the connection waits: its client may be gone, and who
    /// is gone is waited for no longer.
    pub(crate) fn receive_ahead(&mut self, id: ConnectionId) {
        const BYTES: usize = limits::RECEIVE_AHEAD_BYTES;
        let Self { connections, io, .. } = self;
        let connection = connections.get_mut(id.index as usize).and_then(Option::as_mut);
        let Some(connection) = connection.filter(|found| found.received.len() < BYTES) else {
            return;
        };
        match io.recv(connection.socket, &mut connection.received, BYTES) {
            Ok(bytes @ 1..) => connection.may_receive = bytes == BYTES,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                connection.may_receive = false;
            }
            Ok(0) | Err(_) => self.close(id, ""),
        }
    }

    /// A frame is whole, or will never be: who waits for its memory tries again.
    pub(crate) fn release_frame(&mut self, bytes: usize) {
        if bytes == 0 {
            return;
        }
        self.large_frames.held_bytes -= bytes;
        for id in std::mem::take(&mut self.large_frames.waiting) {
            if let Some(connection) = self.connection(id) {
                connection.awaits_memory = false;
                connection.may_receive = true;
                self.look_at(id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn connections_are_limited_in_all_and_by_address() {
        let config = Config::of([
            ("max.connections", "4"),
            ("max.connections.per.ip", "1"),
            ("max.connections.per.ip.overrides", "10.0.0.2:2,10.0.0.3:0"),
        ]);
        let sockets = config.expect("good values").sockets;
        let peers = Peers::default();
        let enter = |peer: &str| peers.enter(peer.parse().expect("an address"), &sockets);
        assert_eq!(enter("10.0.0.1"), Ok(()));
        let full = Err("max.connections.per.ip is 1 for it".to_owned());
        assert_eq!(enter("10.0.0.1"), full);
        assert_eq!(enter("::ffff:10.0.0.1"), full);
        assert_eq!((enter("10.0.0.2"), enter("10.0.0.2")), (Ok(()), Ok(())));
        assert_eq!(enter("10.0.0.2"), Err("max.connections.per.ip is 2 for it".into()));
        assert_eq!(enter("10.0.0.3"), Err("max.connections.per.ip is 0 for it".into()));
        peers.leave("10.0.0.1".parse().expect("an address"));
        assert_eq!((enter("10.0.0.1"), enter("10.0.0.4")), (Ok(()), Ok(())));
        assert_eq!(enter("10.0.0.5"), Err("max.connections is 4".into()));
    }
}
