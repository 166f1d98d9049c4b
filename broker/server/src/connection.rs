//! One client: bytes received, requests in progress, and replies in the order of the requests.

use std::collections::VecDeque;
use std::net::SocketAddr;

use bytes::{Bytes, BytesMut};
use millrace_io::{Instant, Io, SocketId};

use crate::limits;
use crate::request::Reply;
use crate::send_queue::SendQueue;

/// A connection of one shard. Never reused, so that late answers find nobody instead of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct ConnectionId {
    /// Place in the shard's table.
    pub(crate) index: u32,
    /// Which of the connections that had this place.
    pub(crate) generation: u32,
}

/// A reply that is owed.
pub(crate) enum Slot<I: Io> {
    /// Somebody will call `Shard::reply`.
    Waiting,
    /// A produce reply, complete but for the partitions that still wait for the disk.
    Produce { reply: Reply<I>, outstanding: u32, version: i16 },
    /// acks=0 whose records are on their way to other shards.
    Unacknowledged { outstanding: u32 },
    /// To be sent when its turn comes.
    Ready(Reply<I>),
    /// No byte is owed (acks=0).
    Nothing,
}

/// What the receive buffer holds next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NextFrame {
    /// A whole frame, taken out of the buffer, without its length.
    Frame(Bytes),
    /// At least so many bytes are missing.
    Missing(usize),
    /// A length that no request has.
    Invalid(i32),
}

/// State of one connection. Invariant: `slots[i]` belongs to the request with the sequence
/// `first_sequence + i`.
pub(crate) struct Connection<I: Io> {
    pub(crate) id: ConnectionId,
    pub(crate) socket: SocketId,
    pub(crate) peer: SocketAddr,
    pub(crate) listener: usize,
    /// When its last request began.
    pub(crate) used_at: Instant,
    /// Bytes received and not yet taken as frames; without capacity while there are none.
    pub(crate) received: BytesMut,
    /// The last frame was large, and who sends large frames sends them alike.
    pub(crate) expects_large: bool,
    /// `Readable` comes when all of a large frame is there.
    pub(crate) awaits_whole: bool,
    /// Counted in `LargeFrames` for the frame that is being received.
    pub(crate) held_bytes: usize,
    /// In the queue of `LargeFrames`.
    pub(crate) awaits_memory: bool,
    /// How many frames come before the next that may land.
    pub(crate) landing_pause: u8,
    /// The socket may hold more: no `Readable` comes before it has been drained.
    pub(crate) may_receive: bool,
    /// In the shard's list of connections to look at in this turn.
    pub(crate) queued: bool,
    pub(crate) slots: VecDeque<Slot<I>>,
    pub(crate) first_sequence: u64,
    /// A request other than Produce is in progress: nothing further starts until it is answered.
    pub(crate) serial: bool,
    /// The shard that serves it.
    pub(crate) served_by: usize,
    /// The frame of such a request, which starts once everything before it is answered.
    pub(crate) deferred: Option<Bytes>,
    /// Frames may be waiting in `received` although the socket is empty.
    pub(crate) stalled: bool,
    pub(crate) send: SendQueue<I>,
    /// The socket is full, or file pages are on their way: an event resumes sending.
    pub(crate) send_blocked: bool,
}

impl<I: Io> Connection<I> {
    pub(crate) fn new(
        id: ConnectionId,
        socket: SocketId,
        peer: SocketAddr,
        listener: usize,
        used_at: Instant,
    ) -> Self {
        Self {
            id,
            socket,
            peer,
            listener,
            used_at,
            received: BytesMut::new(),
            expects_large: false,
            awaits_whole: false,
            held_bytes: 0,
            awaits_memory: false,
            landing_pause: 0,
            may_receive: true,
            queued: false,
            slots: VecDeque::new(),
            first_sequence: 0,
            serial: false,
            served_by: 0,
            deferred: None,
            stalled: false,
            send: SendQueue::new(),
            send_blocked: false,
        }
    }

    /// The sequence of the next request.
    pub(crate) fn next_sequence(&self) -> u64 {
        self.first_sequence + self.slots.len() as u64
    }

    /// Whether a further request may start now.
    pub(crate) fn may_start(&self) -> bool {
        !self.serial
            && (self.deferred.is_none() || self.slots.is_empty())
            && self.slots.len() < limits::REQUESTS_IN_FLIGHT
            && self.send.bytes() < limits::QUEUED_REPLY_BYTES
    }

    /// Takes the next whole frame: the deferred one, or one out of the receive buffer.
    pub(crate) fn next_frame(&mut self, frame_bytes_max: usize) -> NextFrame {
        if let Some(frame) = self.deferred.take() {
            return NextFrame::Frame(frame);
        }
        let Some(length) = self.received.first_chunk::<4>() else {
            return NextFrame::Missing(4 - self.received.len());
        };
        let length = i32::from_be_bytes(*length);
        let Some(bytes) = usize::try_from(length).ok().filter(|bytes| *bytes <= frame_bytes_max)
        else {
            return NextFrame::Invalid(length);
        };
        let whole = bytes + 4;
        if self.received.len() < whole {
            return NextFrame::Missing(whole - self.received.len());
        }
        let may_land = self.landing_pause == 0;
        self.expects_large = may_land && whole >= *limits::LANDING_BYTES.start();
        self.landing_pause = self.landing_pause.saturating_sub(1);
        let mut frame = self.received.split_to(whole).freeze();
        bytes::Buf::advance(&mut frame, 4);
        NextFrame::Frame(frame)
    }

    /// Makes room for the next receive and says how many bytes it may bring. `missing` is what the
    /// frame begun still lacks: memory grows with what has arrived, never with what was announced.
    pub(crate) fn make_room(&mut self, missing: usize) -> usize {
        let room = if missing > limits::RECEIVE_BYTES {
            // Exactly to the frame's end, so that the next frame starts in a buffer of its own.
            missing.min(self.received.len().max(limits::RECEIVE_BYTES))
        } else if self.expects_large && self.received.is_empty() {
            limits::LANDING_START_BYTES
        } else {
            limits::RECEIVE_BYTES
        };
        self.received.reserve(room);
        room
    }

    /// The slot of a request still owed, or `None` when it is answered already.
    pub(crate) fn slot(&mut self, sequence: u64) -> Option<&mut Slot<I>> {
        let place = sequence.checked_sub(self.first_sequence)?;
        self.slots.get_mut(usize::try_from(place).ok()?)
    }

    /// Moves replies whose turn has come into the send queue.
    pub(crate) fn release_replies(&mut self) {
        while let Some(Slot::Ready(_) | Slot::Nothing) = self.slots.front() {
            if let Some(Slot::Ready(reply)) = self.slots.pop_front() {
                self.send.push(reply);
            }
            self.first_sequence += 1;
        }
        if self.slots.is_empty() {
            self.serial = false;
        }
    }
}
