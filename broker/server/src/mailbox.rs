//! Bounded queues between shards, and between them and the background thread: ownership of a
//! message crosses, and a sleeping peer is woken once.
//!
//! Every ordered pair of shards has its own single-producer single-consumer ring, so that no lock
//! and no atomic read-modify-write is needed. Messages of a turn are collected and delivered at its
//! end, because the wake-up is what costs, not the queue.

use std::collections::VecDeque;
use std::sync::{Arc, OnceLock};

use millrace_io::Waker;

/// Where a shard's waker is found once the shard has started.
pub(crate) type WakerSlot = Arc<OnceLock<Arc<dyn Waker>>>;

/// The sending end towards one peer.
pub(crate) struct Outbox<M> {
    waiting: VecDeque<M>,
    ring: rtrb::Producer<M>,
    peer: WakerSlot,
}

impl<M> Outbox<M> {
    /// Queues a message for [`Outbox::deliver`].
    pub(crate) fn post(&mut self, message: M) {
        self.waiting.push_back(message);
    }

    /// Moves what fits into the peer's ring and wakes it. Returns whether something is left.
    pub(crate) fn deliver(&mut self) -> bool {
        let mut moved = false;
        while let Some(message) = self.waiting.pop_front() {
            if let Err(rtrb::PushError::Full(message)) = self.ring.push(message) {
                self.waiting.push_front(message);
                break;
            }
            moved = true;
        }
        if moved && let Some(waker) = self.peer.get() {
            waker.wake();
        }
        !self.waiting.is_empty()
    }
}

/// One shard's ends of all its queues.
pub(crate) struct Mailbox<M> {
    /// By shard number; the own entry is a queue that nobody reads.
    outboxes: Vec<Outbox<M>>,
    inboxes: Vec<rtrb::Consumer<M>>,
}

impl<M> Mailbox<M> {
    /// How many shards there are, this one included. The peer after them is the background thread.
    pub(crate) fn shards(&self) -> usize {
        self.outboxes.len() - 1
    }

    /// Queues a message for the background thread.
    pub(crate) fn post_to_background(&mut self, message: M) {
        self.outboxes.last_mut().expect("the background thread is the last").post(message);
    }

    /// Queues a message for a peer.
    pub(crate) fn post(&mut self, to: usize, message: M) {
        self.outboxes[to].post(message);
    }

    /// Delivers all that was posted. Returns whether a full queue kept something back.
    pub(crate) fn deliver(&mut self) -> bool {
        let mut left = false;
        for outbox in &mut self.outboxes {
            if !outbox.waiting.is_empty() {
                left |= outbox.deliver();
            }
        }
        left
    }

    /// The next message from any peer.
    pub(crate) fn next(&mut self) -> Option<M> {
        self.inboxes.iter_mut().find_map(|inbox| inbox.pop().ok())
    }
}

/// A mailbox for each of `wakers.len()` peers, each connected with every other.
pub(crate) fn mesh<M>(wakers: &[WakerSlot], messages_max: usize) -> Vec<Mailbox<M>> {
    let count = wakers.len();
    let mut mailboxes: Vec<Mailbox<M>> = (0..count)
        .map(|_| Mailbox {
            outboxes: Vec::with_capacity(count),
            inboxes: Vec::with_capacity(count),
        })
        .collect();
    for from in 0..count {
        for (to, waker) in wakers.iter().enumerate() {
            let (ring, inbox) = rtrb::RingBuffer::new(messages_max);
            let peer = Arc::clone(waker);
            mailboxes[from].outboxes.push(Outbox { waiting: VecDeque::new(), ring, peer });
            mailboxes[to].inboxes.push(inbox);
        }
    }
    mailboxes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_keeps_the_rest_in_order() {
        let wakers = vec![WakerSlot::default(), WakerSlot::default()];
        let mut mailboxes = mesh::<u32>(&wakers, 2);
        for message in 0..5 {
            mailboxes[0].post(1, message);
        }
        let mut received = Vec::new();
        while mailboxes[0].deliver() {
            received.extend(std::iter::from_fn(|| mailboxes[1].next()));
        }
        received.extend(std::iter::from_fn(|| mailboxes[1].next()));
        assert_eq!(received, [0, 1, 2, 3, 4]);
    }
}
