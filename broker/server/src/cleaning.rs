//! Compaction of topics whose `cleanup.policy` has `compact`: which partition of the shard is
//! cleaned next, and what becomes of it. The work itself is done by the background thread.
//!
//! Every `log.cleaner.backoff.ms` the shard looks at its compacted partitions, some in a turn, and
//! has the dirtiest cleaned; after that it looks again at once, until none is worth it.

use std::collections::HashSet;
use std::io;

use millrace_io::Io;
use millrace_log::{CleanLimits, CleanStep, Cleaned, CleanedSegment, Dirt};

use crate::background::{Step, Work};
use crate::partitions::PartitionId;
use crate::retention::PARTITIONS_PER_TURN;
use crate::shard::Shard;
use crate::timers::Timer;

/// A round of cleaning.
#[derive(Default)]
pub(crate) struct Cleaning {
    /// Partitions that this round has still to look at.
    unseen: Vec<PartitionId>,
    dirtiest: Option<(PartitionId, Dirt)>,
    /// Partitions with damaged segments: left alone until the broker is started again.
    damaged: HashSet<PartitionId>,
}

impl<I: Io> Shard<I> {
    /// Sets the next round, `log.cleaner.backoff.ms` from now.
    pub(crate) fn schedule_cleaning(&mut self) {
        if self.config.logs.cleaner_enabled {
            let ms = u64::try_from(self.config.logs.cleaner_backoff_ms).unwrap_or(15_000);
            self.begin_round(ms);
        }
    }

    fn begin_round(&mut self, in_ms: u64) {
        self.cleaning.unseen = Vec::new();
        self.cleaning.dirtiest = None;
        self.timers.add(self.now.plus_ms(in_ms.max(1)), Timer::Cleaning);
    }

    /// Looks at some partitions; at the end of the round has the dirtiest cleaned.
    pub(crate) fn look_for_dirt(&mut self) {
        if self.cleaning.unseen.is_empty() {
            self.cleaning.unseen = self.partitions_with_data(|policy| policy.compact);
        }
        for _ in 0..PARTITIONS_PER_TURN {
            let Some(id) = self.cleaning.unseen.pop() else { return self.clean_dirtiest() };
            let Some(dirt) = self.dirt_of(id) else { continue };
            let dirtiest = self.cleaning.dirtiest.as_ref();
            if dirtiest.is_none_or(|(_, known)| known.ratio < dirt.ratio) {
                self.cleaning.dirtiest = Some((id, dirt));
            }
        }
        self.timers.add(self.now.plus_ms(1), Timer::Cleaning);
    }

    fn dirt_of(&mut self, id: PartitionId) -> Option<Dirt> {
        if self.cleaning.damaged.contains(&id) {
            return None;
        }
        let index = self.open_partition(id).ok()?;
        let Self { partitions, io, shared, .. } = self;
        let partition = partitions.get_mut(index)?;
        let first_dirty = shared.hints(partition.folder).cleaned.get(&partition.key()).copied();
        let wall_ms = io.wall_clock_ms();
        match partition.log.as_mut()?.dirt(io, first_dirty, wall_ms) {
            Ok(dirt) => dirt,
            Err(error) => {
                crate::log_line!("{}: cannot be cleaned: {error}", partition.name());
                None
            }
        }
    }

    fn clean_dirtiest(&mut self) {
        let Some((id, dirt)) = self.cleaning.dirtiest.take() else {
            return self.schedule_cleaning();
        };
        let Some(log) = self.log_of(id) else { return self.schedule_cleaning() };
        let logs = &self.config.logs;
        let limits = CleanLimits {
            map_bytes: usize::try_from(logs.cleaner_map_bytes).unwrap_or(0),
            map_load: logs.cleaner_map_load,
            buffer_bytes: usize::try_from(logs.cleaner_buffer_bytes).unwrap_or(0),
        };
        let bytes_per_ms = logs.cleaner_bytes_per_second_max / 1000.0;
        let wall_ms = self.io.wall_clock_ms();
        let log = self.partitions.get_mut(log).and_then(|partition| partition.log.as_mut());
        let begun = log.and_then(|log| log.begin_cleaning(dirt, limits, wall_ms));
        let Some(mut cleaner) = begun else { return self.schedule_cleaning() };
        self.hand_over(Work::Long(Box::new(move |io| match cleaner.step(io) {
            Ok(CleanStep::More(bytes)) => Step::Later((bytes as f64 / bytes_per_ms) as u64),
            Ok(CleanStep::Segment(segment)) => {
                Step::More(Box::new(move |shard| shard.swap_in(id, segment)))
            }
            Ok(CleanStep::Done(cleaned)) => {
                Step::Done(Box::new(move |shard| shard.on_cleaned(id, Ok(cleaned))))
            }
            Err(error) => Step::Done(Box::new(move |shard| shard.on_cleaned(id, Err(error)))),
        })));
    }

    /// The index of a partition whose log is open.
    fn log_of(&mut self, id: PartitionId) -> Option<u32> {
        let index = self.partitions.index(id)?;
        self.partitions.get_mut(index)?.log.is_some().then_some(index)
    }

    fn swap_in(&mut self, id: PartitionId, segment: CleanedSegment<I>) {
        let Some(index) = self.log_of(id) else { return };
        let Self { partitions, io, chunks, .. } = self;
        let log = partitions.get_mut(index).and_then(|partition| partition.log.as_mut());
        match log.expect("it is open").swap_in(io, chunks, segment) {
            Ok(gone) => self.remove_files(gone),
            Err(error) => crate::log_line!("a cleaned segment is not in place: {error}"),
        }
    }

    fn on_cleaned(&mut self, id: PartitionId, result: io::Result<Cleaned>) {
        let Some(index) = self.log_of(id) else { return self.begin_round(1) };
        let partition = self.partitions.get_mut(index).expect("its log is open");
        partition.log.as_mut().expect("it is open").end_cleaning();
        let name = partition.name();
        match result {
            Ok(Cleaned { end, segments, bytes }) => {
                let (key, folder) = (partition.key(), partition.folder);
                self.shared.hints(folder).cleaned.insert(key, end);
                self.write_checkpoints();
                crate::log_line!(
                    "{name}: compacted {} segments of {} bytes to {} of {}",
                    segments.0,
                    bytes.0,
                    segments.1,
                    bytes.1
                );
                self.begin_round(1);
            }
            Err(error) => {
                crate::log_line!("{name}: compaction failed: {error}");
                if error.kind() == io::ErrorKind::InvalidData {
                    self.cleaning.damaged.insert(id);
                }
                self.schedule_cleaning();
            }
        }
    }
}
