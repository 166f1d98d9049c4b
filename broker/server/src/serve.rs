//! A shard's connections: taking them in, receiving frames, starting requests, sending replies.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use millrace_io::{Io, ListenerId, SocketId};
use millrace_log::FileRange;

use crate::connection::{Connection, ConnectionId, NextFrame, Slot};
use crate::handlers;
use crate::landing::Landed;
use crate::limits;
use crate::request::{Outcome, Reply, Request, RequestHead, RequestId};
use crate::send_queue::Progress;
use crate::shard::{Cold, Message, Shard};
use crate::timers::Timer;
use crate::token;

impl<I: Io> Shard<I> {
    /// A client came in: the shard with the fewest connections gets it.
    pub(crate) fn on_accepted(
        &mut self,
        listener: ListenerId,
        stream: I::Stream,
        peer: SocketAddr,
    ) {
        if self.begun.is_none() {
            return self.early.push((listener, stream, peer));
        }
        let Some(listener) = self.listeners.get(&listener).copied() else { return };
        if let Err(reason) = self.shared.peers.enter(peer.ip(), &self.config.sockets) {
            crate::log_line!("refused the connection of {peer}: {reason}");
            return;
        }
        let counts = &self.shared.connections;
        let fewest = (0..counts.len())
            .min_by_key(|shard| counts[*shard].load(Ordering::Relaxed))
            .expect("there is at least one shard");
        if fewest == self.id {
            self.adopt(stream, peer, listener);
        } else {
            // Counted here at once, so that a burst is spread.
            counts[fewest].fetch_add(1, Ordering::Relaxed);
            self.mailbox.post(fewest, Message::Connection { stream, peer, listener });
        }
    }

    /// Takes a connection over.
    pub(crate) fn adopt(&mut self, stream: I::Stream, peer: SocketAddr, listener: usize) {
        let Ok(socket) = self.io.adopt(stream) else { return self.shared.peers.leave(peer.ip()) };
        let index = self.free_connections.pop().unwrap_or_else(|| {
            self.connections.push(None);
            u32::try_from(self.connections.len() - 1).expect("bounded by open files")
        });
        self.next_generation = self.next_generation.wrapping_add(1);
        let id = ConnectionId { index, generation: self.next_generation };
        let connection = Connection::new(id, socket, peer, listener, self.now);
        self.connections[index as usize] = Some(connection);
        self.by_socket.insert(socket, index);
        self.shared.connections[self.id].store(self.by_socket.len(), Ordering::Relaxed);
        self.look_at(id);
    }

    /// Closes connections that have asked nothing for too long and wait for nothing, and looks
    /// again when the next one's time is over, but not much more often than that time allows.
    pub(crate) fn close_idle(&mut self) {
        let Ok(idle_ms) = u64::try_from(self.config.sockets.idle_ms_max) else { return };
        let (mut idle, mut oldest) = (Vec::new(), self.now);
        for connection in self.connections.iter_mut().flatten() {
            if !connection.slots.is_empty() || connection.send.bytes() > 0 {
                connection.used_at = self.now;
            } else if self.now.ms_since(connection.used_at) >= idle_ms {
                idle.push(connection.id);
            }
            oldest = oldest.min(connection.used_at);
        }
        // As Kafka, without a word: clients take it as normal.
        idle.into_iter().for_each(|id| self.close(id, ""));
        let next = oldest.plus_ms(idle_ms).max(self.now.plus_ms(idle_ms / 16 + 1));
        self.timers.add(next, Timer::Idle);
    }

    /// Puts a connection on the list for this turn.
    pub(crate) fn look_at(&mut self, id: ConnectionId) {
        if let Some(connection) = self.connection(id)
            && !connection.queued
        {
            connection.queued = true;
            self.queue.push(id);
        }
    }

    pub(crate) fn connection(&mut self, id: ConnectionId) -> Option<&mut Connection<I>> {
        self.connections.get_mut(id.index as usize)?.as_mut().filter(|found| found.id == id)
    }

    pub(crate) fn connection_of(&mut self, socket: SocketId) -> Option<&mut Connection<I>> {
        let index = *self.by_socket.get(&socket)?;
        self.connections[index as usize].as_mut()
    }

    /// Receives and starts what has come in on the connections of this turn's list.
    pub(crate) fn serve_connections(&mut self) {
        for place in 0..self.queue.len() {
            let id = self.queue[place];
            if let Err(reason) = self.serve(id) {
                self.close(id, &reason);
            }
        }
    }

    /// Receives from one connection and starts its requests, within its share of a turn.
    fn serve(&mut self, id: ConnectionId) -> Result<(), String> {
        let frame_bytes_max =
            usize::try_from(self.shared.config.sockets.request_bytes_max).unwrap_or(0);
        let mut share = limits::RECEIVE_BYTES_PER_TURN;
        loop {
            let unwritten = self.unwritten_bytes;
            let Some(connection) = self.connection(id) else { return Ok(()) };
            connection.stalled = !connection.may_start();
            if connection.stalled {
                return Ok(());
            }
            if unwritten > limits::UNWRITTEN_BYTES {
                self.paused.push(id);
                return Ok(());
            }
            let missing = match connection.next_frame(frame_bytes_max) {
                NextFrame::Frame(frame) => {
                    self.start_request(id, frame)?;
                    continue;
                }
                NextFrame::Missing(missing) => missing,
                NextFrame::Invalid(bytes) => {
                    return Err(format!(
                        "frame of {bytes} bytes: socket.request.max.bytes is {frame_bytes_max}"
                    ));
                }
            };
            if !connection.may_receive || share == 0 {
                self.keep_or_spare_buffer(id);
                return Ok(());
            }
            match self.land(id, missing)? {
                Landed::Bytes(bytes) => {
                    share = share.saturating_sub(bytes);
                    continue;
                }
                Landed::Waiting => continue,
                Landed::No => {}
            }
            if missing > limits::RECEIVE_BYTES && !self.hold_frame(id, missing) {
                return Ok(());
            }
            match self.receive(id, missing) {
                Ok(0) => return Err(String::new()),
                Ok(bytes) => share = share.saturating_sub(bytes),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // The client is gone without a word: nothing to tell anybody.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(String::new());
                }
                Err(error) => return Err(error.to_string()),
            }
        }
    }

    fn receive(&mut self, id: ConnectionId, missing: usize) -> io::Result<usize> {
        let spare = self.spare_buffers.pop();
        let connection = self.connections[id.index as usize].as_mut().expect("looked up by serve");
        if connection.received.capacity() == 0 {
            connection.received = spare.unwrap_or_default();
        } else {
            self.spare_buffers.extend(spare);
        }
        let room = connection.make_room(missing);
        let received = self.io.recv(connection.socket, &mut connection.received, room);
        match &received {
            Ok(bytes) if *bytes < room => connection.may_receive = false,
            Err(_) => connection.may_receive = false,
            Ok(_) => {}
        }
        received
    }

    /// An empty receive buffer goes back to the shard: an idle connection holds none.
    fn keep_or_spare_buffer(&mut self, id: ConnectionId) {
        let spares = self.spare_buffers.len();
        let Some(connection) = self.connection(id) else { return };
        if !connection.received.is_empty() {
            return;
        }
        let buffer = std::mem::take(&mut connection.received);
        if spares < limits::SPARE_BUFFERS
            && (1..=limits::SPARE_BUFFER_BYTES).contains(&buffer.capacity())
        {
            self.spare_buffers.push(buffer);
        }
    }

    /// Starts the request in a frame.
    pub(crate) fn start_request(&mut self, id: ConnectionId, frame: Bytes) -> Result<(), String> {
        let (shard, now) = (self.id, self.now);
        let Some(connection) = self.connection(id) else { return Ok(()) };
        let held_bytes = std::mem::take(&mut connection.held_bytes);
        self.release_frame(held_bytes);
        let Some(connection) = self.connection(id) else { return Ok(()) };
        connection.used_at = now;
        let sequence = connection.next_sequence();
        let listener = connection.listener;
        let request_id = RequestId { shard, connection: id, sequence };
        let peer = connection.peer;
        let request =
            Request::parse(frame, request_id, listener, peer).map_err(|error| error.to_string())?;
        if !handlers::may_overlap(request.head.key) {
            if !connection.slots.is_empty() {
                connection.deferred = Some(request.frame);
                return Ok(());
            }
            connection.serial = true;
            connection.served_by = shard;
        }
        connection.slots.push_back(Slot::Waiting);
        match handlers::handle(self, &request) {
            Outcome::Reply(reply) => self.complete(request_id, reply),
            Outcome::NoReply => self.set_slot(request_id, Slot::Nothing),
            Outcome::Wait => {}
            Outcome::Forward(owner) => {
                debug_assert_ne!(owner, self.id, "a handler serves what its own shard owns");
                if let Some(connection) = self.connection(id) {
                    connection.served_by = owner;
                }
                self.mailbox.post(owner, Message::Forward(request));
            }
            Outcome::Close(reason) => return Err(reason),
        }
        Ok(())
    }

    /// Serves a request that another shard received.
    pub(crate) fn serve_forwarded(&mut self, request: Request) {
        match handlers::handle(self, &request) {
            Outcome::Reply(reply) => self.reply(request.head, reply),
            Outcome::Wait => {}
            Outcome::NoReply => unreachable!("only Produce owes no reply, and it is not forwarded"),
            Outcome::Forward(owner) => self.mailbox.post(owner, Message::Forward(request)),
            Outcome::Close(reason) => {
                let id = request.head.id;
                self.mailbox.post(id.shard, Message::Close(id, reason));
            }
        }
    }

    /// Answers a request of any shard's connection.
    pub(crate) fn reply(&mut self, head: RequestHead, reply: Reply<I>) {
        if head.id.shard == self.id {
            self.complete(head.id, reply);
        } else {
            self.mailbox.post(head.id.shard, Message::Reply(head.id, reply));
        }
    }

    /// Fills the slot of a request of this shard.
    pub(crate) fn complete(&mut self, id: RequestId, reply: Reply<I>) {
        self.set_slot(id, Slot::Ready(reply));
    }

    pub(crate) fn set_slot(&mut self, id: RequestId, to: Slot<I>) {
        let Some(connection) = self.connection(id.connection) else { return };
        if let Some(slot) = connection.slot(id.sequence) {
            *slot = to;
            self.look_at(id.connection);
        }
    }

    /// Closes a connection now. An empty reason means that the client closed it.
    pub(crate) fn close(&mut self, id: ConnectionId, reason: &str) {
        let Some(connection) = self.connection(id) else { return };
        let (socket, peer, held_bytes) =
            (connection.socket, connection.peer, connection.held_bytes);
        let waits_at = connection.serial.then_some(connection.served_by);
        if !reason.is_empty() {
            crate::log_line!("closed the connection of {peer}: {reason}");
        }
        self.connections[id.index as usize] = None;
        self.free_connections.push(id.index);
        self.by_socket.remove(&socket);
        self.io.close(socket);
        self.shared.peers.leave(peer.ip());
        self.release_frame(held_bytes);
        self.shared.connections[self.id].store(self.by_socket.len(), Ordering::Relaxed);
        let shard = self.id;
        if let Some(other) = waits_at {
            self.run_on(other, move |other| {
                other.cancel_fetches(shard, id);
                other.cancel_group_waits(shard, id);
            });
        }
    }

    /// Sends what is ready on the connections of this turn's list, and decides who stays on it.
    pub(crate) fn send_replies(&mut self) {
        let mut queue = std::mem::take(&mut self.queue);
        for id in queue.drain(..) {
            let Some(connection) = self.connection(id) else { continue };
            connection.queued = false;
            connection.release_replies();
            if let Err(error) = self.send(id) {
                self.close(id, &error.to_string());
                continue;
            }
            let Some(connection) = self.connection(id) else { continue };
            if connection.may_start() && (connection.may_receive || connection.stalled) {
                self.look_at(id);
            }
        }
        // Connections put on the list meanwhile come in the next turn.
        if self.queue.is_empty() {
            self.queue = queue;
        }
    }

    fn send(&mut self, id: ConnectionId) -> io::Result<()> {
        let connection = self.connections[id.index as usize].as_mut().expect("looked up before");
        if connection.send_blocked || connection.send.bytes() == 0 {
            return Ok(());
        }
        let socket = connection.socket;
        match connection.send.send(&mut self.io, socket)? {
            Progress::Empty => {}
            Progress::Blocked => {
                connection.send_blocked = true;
                self.io.want_writable(socket);
            }
            Progress::Share => self.look_at(id),
            Progress::Cold(range) => {
                connection.send_blocked = true;
                self.bring_in(&range, Cold::Send(id));
            }
        }
        Ok(())
    }

    /// Brings a range of a file into the page cache for somebody.
    pub(crate) fn bring_in(&mut self, range: &FileRange<I::File>, who: Cold) {
        self.next_cold += 1;
        self.cold.insert(self.next_cold, who);
        let token = token::cold_pages(self.next_cold);
        self.io.submit_fetch_pages(token, &range.file, range.position, range.bytes);
    }

    /// Pages that somebody waits for are in the page cache, or cannot be read.
    pub(crate) fn on_pages(&mut self, cold: u64, result: &io::Result<usize>) {
        match (self.cold.remove(&cold), result) {
            (None, _) => {}
            (Some(Cold::Read(task)), Ok(_)) => self.serve_read(task),
            (Some(Cold::Read(task)), Err(_)) => self.fail_read(task),
            (Some(Cold::Send(id)), Ok(_)) => {
                if let Some(connection) = self.connection(id) {
                    connection.send_blocked = false;
                    self.look_at(id);
                }
            }
            (Some(Cold::Send(id)), Err(error)) => {
                self.close(id, &format!("reading records failed: {error}"));
            }
        }
    }
}
