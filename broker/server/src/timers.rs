//! What a shard does at a later time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use millrace_io::Instant;

use crate::fetch::FetchId;
use crate::partitions::PartitionId;

/// Something due at a time. A timer is never removed: whoever finds it without purpose drops it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Timer {
    /// A fetch has waited as long as it may.
    Fetch(FetchId),
    /// A consumer group has something due.
    Groups,
    /// Flushes, checkpoints, idle partitions.
    Housekeeping,
    /// Old segments may have to go.
    Retention,
    /// The partition may be ready for the next step of its move.
    Move(PartitionId),
    /// Compacted partitions may have to be cleaned.
    Cleaning,
    /// The metadata is to be saved if it has changed. On shard 0.
    MetadataCheckpoint,
    /// Connections may have been silent for too long.
    Idle,
    /// A peer's queue was full.
    Retry,
}

#[derive(PartialEq, Eq)]
struct Due {
    at: Instant,
    order: u64,
    timer: Timer,
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Timers sorted by time, and by the order of their making where times are equal.
#[derive(Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<Due>>,
    made: u64,
}

impl Timers {
    pub(crate) fn add(&mut self, at: Instant, timer: Timer) {
        self.made += 1;
        self.heap.push(Reverse(Due { at, order: self.made, timer }));
    }

    /// When the next one is due.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|due| due.0.at)
    }

    /// Takes out the next one that is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        if self.next_at()? > now {
            return None;
        }
        self.heap.pop().map(|due| due.0.timer)
    }
}
