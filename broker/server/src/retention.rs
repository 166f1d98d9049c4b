//! Old records go by the settings of their topic: `retention.ms`, `retention.bytes`, where its
//! `cleanup.policy` has `delete`. Whole segments, oldest first.

use millrace_io::Io;

use crate::config::CleanupPolicy;
use crate::lifecycle::METADATA_TOPIC;
use crate::partitions::{Partition, PartitionId};
use crate::shard::Shard;
use crate::timers::Timer;

/// Opening one takes the disk some milliseconds.
pub(crate) const PARTITIONS_PER_TURN: usize = 8;

impl<I: Io> Shard<I> {
    /// Sets the next check, `log.retention.check.interval.ms` from now.
    pub(crate) fn schedule_retention(&mut self) {
        let interval_ms = u64::try_from(self.config.logs.retention_check_ms).unwrap_or(300_000);
        self.timers.add(self.now.plus_ms(interval_ms), Timer::Retention);
    }

    /// Deletes segments of this shard that have expired: some partitions in a turn, until all have
    /// been looked at.
    pub(crate) fn delete_expired(&mut self) {
        if self.expiring.is_empty() {
            self.expiring = self.partitions_with_data(|policy| policy.delete);
        }
        for _ in 0..PARTITIONS_PER_TURN {
            match self.expiring.pop() {
                Some(id) => self.delete_expired_of(id),
                None => return self.schedule_retention(),
            }
        }
        self.timers.add(self.now.plus_ms(1), Timer::Retention);
    }

    fn delete_expired_of(&mut self, id: PartitionId) {
        let Ok(index) = self.open_partition(id) else { return };
        let Self { partitions, io, chunks, dirty, .. } = self;
        let Some(partition) = partitions.get_mut(index) else { return };
        let Some(log) = &mut partition.log else { return };
        let wall_ms = io.wall_clock_ms();
        let retired = match log.enforce_retention(io, chunks, wall_ms) {
            Ok(retired) => retired,
            Err(error) => {
                return crate::log_line!(
                    "{}: cannot delete old segments: {error}",
                    partition.name()
                );
            }
        };
        // A segment that was finished is sealed with the writes of this turn.
        if !partition.dirty {
            partition.dirty = true;
            dirty.push(index);
        }
        if retired.segments > 0 {
            let (name, bytes) = (partition.name(), retired.bytes);
            crate::log_line!("{name}: {} old segments deleted, {bytes} bytes", retired.segments);
            self.note_use(index);
            // Not every segment has every index; a file that stays is found at the next start.
            self.remove_files(retired.paths);
        }
    }

    /// Partitions of some policy that hold something: opened in this run, or known from the last.
    /// The metadata log is not among them: what it says is in force for ever.
    pub(crate) fn partitions_with_data(
        &mut self,
        is_meant: impl Fn(CleanupPolicy) -> bool,
    ) -> Vec<PartitionId> {
        let shared = &self.shared;
        let has_records = |partition: &Partition<I>| {
            shared.hints(partition.folder).recovery_points.contains_key(&partition.key())
        };
        let with_data = self.partitions.iter_mut().filter(|(_, partition)| {
            &*partition.topic != METADATA_TOPIC
                && is_meant(partition.config.cleanup_policy)
                && (partition.log.is_some() || has_records(partition))
        });
        with_data.map(|(_, partition)| partition.id).collect()
    }
}
