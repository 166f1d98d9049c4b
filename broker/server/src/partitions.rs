//! The partitions of one shard: their logs, opened when first used, and who waits for them.

use std::collections::{HashMap, VecDeque};
use std::ops::RangeBounds;
use std::path::PathBuf;
use std::sync::Arc;

use millrace_io::Io;
use millrace_log::PartitionLog;
use millrace_wire::{ErrorCode, Uuid};

use crate::config::TopicConfig;
use crate::fetch::FetchId;
use crate::metadata::data_dir::Folder;
use crate::moving::Moving;
use crate::request::RequestId;
use crate::shard::Shard;

/// Names a partition for as long as its topic lives: a topic made again has another id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct PartitionId {
    pub(crate) topic_id: Uuid,
    pub(crate) partition: i32,
}

impl PartitionId {
    /// The shard that owns this partition: neighbours go to different shards, and topics of one
    /// partition are spread by their random id.
    pub(crate) fn owner(self, shards: usize) -> usize {
        let bytes = self.topic_id.to_bytes();
        let topic = usize::from(bytes[14]) << 8 | usize::from(bytes[15]);
        (topic + usize::try_from(self.partition).unwrap_or(0)) % shards
    }
}

/// Where the outcome of an append is reported: a place in a produce reply.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ticket {
    pub(crate) request: RequestId,
    /// Position of the partition's error code in the encoded reply.
    pub(crate) position: usize,
}

/// What a produce reply says of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AppendAnswer {
    pub(crate) error: ErrorCode,
    pub(crate) base_offset: i64,
    /// Milliseconds; -1 when records keep the time of their creation.
    pub(crate) log_append_time_ms: i64,
    pub(crate) log_start: i64,
}

impl AppendAnswer {
    pub(crate) fn failed(error: ErrorCode) -> Self {
        Self { error, base_offset: -1, log_append_time_ms: -1, log_start: -1 }
    }
}

/// How the broker itself goes on once an append has succeeded or failed.
pub(crate) type Continue<I> = Box<dyn FnOnce(&mut Shard<I>, Result<(), ErrorCode>) + Send>;

/// What happens once an append has reached the durability it was promised.
pub(crate) enum Then<I: Io> {
    /// A client's produce request is answered.
    Answer(Ticket, AppendAnswer),
    /// The broker itself goes on: metadata applied, offsets committed.
    Run(Continue<I>),
}

/// Somebody waits until the offset `end` is reached.
struct Waiter<I: Io> {
    end: i64,
    then: Then<I>,
}

/// How far an append must have come before it is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Durability {
    /// The write has completed: survives the end of the process.
    Written,
    /// A flush covers the write: survives a power cut.
    Flushed,
}

/// Those who wait, sorted by `end`.
struct Waiters<I: Io>(VecDeque<Waiter<I>>);

impl<I: Io> Waiters<I> {
    fn add(&mut self, end: i64, then: Then<I>) {
        let place = match self.0.back() {
            // A batch that came again waits for its first coming, which later ones are behind.
            Some(last) if last.end > end => self.reached(end),
            _ => self.0.len(),
        };
        self.0.insert(place, Waiter { end, then });
    }

    /// How many wait for no more than `end`.
    fn reached(&self, end: i64) -> usize {
        self.0.partition_point(|waiter| waiter.end <= end)
    }

    fn take(&mut self, range: impl RangeBounds<usize>) -> impl Iterator<Item = Then<I>> {
        self.0.drain(range).map(|waiter| waiter.then)
    }
}

/// One partition of this shard.
pub(crate) struct Partition<I: Io> {
    pub(crate) id: PartitionId,
    pub(crate) topic: Arc<str>,
    pub(crate) config: Arc<TopicConfig>,
    pub(crate) leader_epoch: i32,
    /// Index of the data folder that it is in.
    pub(crate) folder: usize,
    /// `None` until first used.
    pub(crate) log: Option<PartitionLog<I>>,
    /// On its way to another data folder.
    pub(crate) moving: Option<Moving>,
    /// Opening failed: every request gets KAFKA_STORAGE_ERROR until the broker is started again.
    pub(crate) failed: bool,
    /// What the shard has counted of the log's unwritten bytes.
    pub(crate) unwritten_bytes: u64,
    written: Waiters<I>,
    flushed: Waiters<I>,
    watches: Vec<FetchId>,
    /// In the shard's list of partitions with unsubmitted appends.
    pub(crate) dirty: bool,
    /// In the shard's list of partitions to flush.
    pub(crate) in_flush_list: bool,
    /// In the shard's list of partitions used since the last housekeeping.
    pub(crate) used: bool,
    /// Housekeepings since it was used.
    pub(crate) idle_rounds: u32,
    /// The durable end that the checkpoint file has.
    pub(crate) checkpointed: Option<i64>,
}

impl<I: Io> Partition<I> {
    /// Name of its folder, which is also how people call it.
    pub(crate) fn name(&self) -> String {
        format!("{}-{}", self.topic, self.id.partition)
    }

    /// The folder with its files.
    pub(crate) fn dir(&self, folders: &[Folder]) -> PathBuf {
        folders[self.folder].path.join(self.name())
    }

    /// Its name in checkpoints.
    pub(crate) fn key(&self) -> (String, i32) {
        (self.topic.to_string(), self.id.partition)
    }

    /// Registers `then` for the moment when everything below `end` has the durability.
    pub(crate) fn wait_for(&mut self, end: i64, durability: Durability, then: Then<I>) {
        match durability {
            Durability::Written => self.written.add(end, then),
            Durability::Flushed => self.flushed.add(end, then),
        }
    }

    /// Whether somebody waits for a flush.
    pub(crate) fn wants_flush(&self) -> bool {
        !self.flushed.0.is_empty()
    }

    /// Takes out those whose offset has been reached.
    pub(crate) fn take_reached(&mut self, reached: &mut Vec<Then<I>>) {
        let Some(log) = &self.log else { return };
        for (queue, end) in
            [(&mut self.written, log.written_end()), (&mut self.flushed, log.durable_end())]
        {
            reached.extend(queue.take(..queue.reached(end)));
        }
    }

    /// Takes out those who wait for an offset above `end`.
    pub(crate) fn take_beyond(&mut self, end: i64) -> Vec<Then<I>> {
        let queues = [&mut self.written, &mut self.flushed];
        queues.into_iter().flat_map(|queue| queue.take(queue.reached(end)..)).collect()
    }

    /// Takes out everybody, because the partition has failed or is gone.
    pub(crate) fn take_all(&mut self) -> Vec<Then<I>> {
        self.written.take(..).chain(self.flushed.take(..)).collect()
    }

    /// Tells `fetch` when the high watermark moves.
    pub(crate) fn watch(&mut self, fetch: FetchId) {
        if !self.watches.contains(&fetch) {
            self.watches.push(fetch);
        }
    }

    /// The fetch does not wait any more.
    pub(crate) fn unwatch(&mut self, fetch: FetchId) {
        self.watches.retain(|watch| *watch != fetch);
    }

    /// Takes out the fetches that wait for the high watermark to move.
    pub(crate) fn take_watches(&mut self) -> Vec<FetchId> {
        std::mem::take(&mut self.watches)
    }
}

/// The table of a shard's partitions. An index is never reused, so a completion that comes after
/// the end of its partition finds nobody.
pub(crate) struct Partitions<I: Io> {
    /// What is gone leaves a null pointer.
    slots: Vec<Option<Box<Partition<I>>>>,
    by_id: HashMap<PartitionId, u32>,
}

impl<I: Io> Partitions<I> {
    pub(crate) fn new() -> Self {
        Self { slots: Vec::new(), by_id: HashMap::new() }
    }

    /// Adds a partition that is not there yet; returns its index.
    pub(crate) fn add(
        &mut self,
        id: PartitionId,
        topic: Arc<str>,
        config: Arc<TopicConfig>,
        leader_epoch: i32,
        folder: usize,
    ) -> u32 {
        let index = u32::try_from(self.slots.len()).expect("fewer than 2^32 partitions ever");
        self.slots.push(Some(Box::new(Partition {
            id,
            topic,
            config,
            leader_epoch,
            folder,
            log: None,
            moving: None,
            failed: false,
            unwritten_bytes: 0,
            written: Waiters(VecDeque::new()),
            flushed: Waiters(VecDeque::new()),
            watches: Vec::new(),
            dirty: false,
            in_flush_list: false,
            used: false,
            idle_rounds: 0,
            checkpointed: None,
        })));
        let before = self.by_id.insert(id, index);
        assert!(before.is_none(), "a partition is added once");
        index
    }

    pub(crate) fn index(&self, id: PartitionId) -> Option<u32> {
        self.by_id.get(&id).copied()
    }

    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut Partition<I>> {
        self.slots.get_mut(index as usize)?.as_deref_mut()
    }

    pub(crate) fn remove(&mut self, id: PartitionId) -> Option<Partition<I>> {
        let index = self.by_id.remove(&id)?;
        self.slots[index as usize].take().map(|partition| *partition)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = (u32, &mut Partition<I>)> {
        (0..).zip(&mut self.slots).filter_map(|(index, slot)| Some((index, slot.as_deref_mut()?)))
    }
}

#[cfg(test)]
mod tests {
    use millrace_io::sim::SimIo;

    use super::*;

    #[test]
    fn nobody_is_let_go_before_the_end_that_he_waits_for() {
        let mut waiters: Waiters<SimIo> = Waiters(VecDeque::new());
        for end in [10, 20, 30, 10, 10, 10, 10, 20] {
            waiters.add(end, Then::Run(Box::new(|_, _| {})));
        }
        for (end, let_go) in [(9, 0), (10, 5), (29, 2), (30, 1)] {
            assert_eq!(waiters.take(..waiters.reached(end)).count(), let_go, "up to {end}");
        }
    }
}
