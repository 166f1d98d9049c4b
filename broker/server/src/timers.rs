//! What a shard does at a later time.

use std::collections::BTreeMap;

use millrace_io::Instant;

use crate::fetch::FetchId;
use crate::partitions::PartitionId;

/// Something due at a time. One without purpose is dropped by whoever finds it; those that clients
/// can make without end are taken out.
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

/// Names a timer: its time, and its place among those made.
pub(crate) type TimerKey = (Instant, u64);

/// Timers sorted by time, and by the order of their making where times are equal.
#[derive(Default)]
pub(crate) struct Timers {
    due: BTreeMap<TimerKey, Timer>,
    made: u64,
}

impl Timers {
    pub(crate) fn add(&mut self, at: Instant, timer: Timer) -> TimerKey {
        self.made += 1;
        let key = (at, self.made);
        self.due.insert(key, timer);
        key
    }

    /// Takes a timer out, if it was made and has not come.
    pub(crate) fn cancel(&mut self, key: Option<TimerKey>) {
        key.and_then(|key| self.due.remove(&key));
    }

    /// When the next one is due.
    pub(crate) fn next_at(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((at, _), _)| *at)
    }

    /// Takes out the next one that is due.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<Timer> {
        let first = self.due.first_entry().filter(|first| first.key().0 <= now)?;
        Some(first.remove())
    }

    /// How many are still to come.
    #[cfg(test)]
    pub(crate) fn count(&self, is_meant: impl Fn(&Timer) -> bool) -> usize {
        self.due.values().filter(|timer| is_meant(timer)).count()
    }
}
