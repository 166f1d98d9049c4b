//! Changes of metadata, one after the other, on shard 0.
//!
//! A change is decided against the present image, its records are appended to the metadata log and
//! flushed, then applied to a new image, which every shard takes over before the change is
//! answered: whoever got the answer sees the change on any connection. Nothing else changes the
//! image.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use millrace_io::Io;
use millrace_wire::ErrorCode;

use crate::background::remove_files;
use crate::metadata::controller::{Controller, PRODUCER_ID_BLOCK, Spread};
use crate::metadata::{Image, MetadataRecord, checkpoint};
use crate::partitions::{AppendAnswer, Durability, PartitionId, Then};
use crate::produce::{Appending, Incoming};
use crate::shard::Shard;
use crate::timers::Timer;

/// The newest, and one to fall back on.
const CHECKPOINTS_KEPT: usize = 2;

/// Decides a change: the records to write, and what to do once they are in force.
type Decide<I> = Box<dyn FnOnce(&mut Shard<I>) -> Decision<I> + Send>;
type Done<I> = Box<dyn FnOnce(&mut Shard<I>, Result<(), ErrorCode>) + Send>;

/// A decided change. No records means that nothing changes. `done` is told whether it is in force;
/// where it is not, nothing of it is.
pub(crate) struct Decision<I: Io> {
    pub(crate) records: Vec<MetadataRecord>,
    pub(crate) done: Done<I>,
}

/// State of the controller. Invariant: at most one change is between its decision and its answer.
pub(crate) struct ControllerState<I: Io> {
    pub(crate) log: PartitionId,
    waiting: VecDeque<Decide<I>>,
    busy: bool,
    /// What is left of the block of producer ids that this process took.
    producer_ids: Range<i64>,
    /// Bytes of records that the newest checkpoint does not have.
    pub(crate) unsaved_bytes: usize,
}

impl<I: Io> ControllerState<I> {
    pub(crate) fn new(log: PartitionId) -> Self {
        Self { log, waiting: VecDeque::new(), busy: false, producer_ids: 0..0, unsaved_bytes: 0 }
    }
}

impl<I: Io> Shard<I> {
    /// Queues a change. On shard 0 only.
    pub(crate) fn change_metadata(
        &mut self,
        decide: impl FnOnce(&mut Self) -> Decision<I> + Send + 'static,
    ) {
        let controller = self.controller.as_mut().expect("the controller is on shard 0");
        controller.waiting.push_back(Box::new(decide));
        self.next_change();
    }

    fn next_change(&mut self) {
        loop {
            let controller = self.controller.as_mut().expect("the controller is on shard 0");
            if controller.busy {
                return;
            }
            let Some(decide) = controller.waiting.pop_front() else { return };
            let log = controller.log;
            let Decision { records, done } = decide(self);
            if records.is_empty() {
                done(self, Ok(()));
                continue;
            }
            self.controller.as_mut().expect("still here").busy = true;
            self.write_change(log, records, done);
        }
    }

    fn write_change(&mut self, log: PartitionId, records: Vec<MetadataRecord>, done: Done<I>) {
        let wall_ms = self.io.wall_clock_ms();
        let batches: Vec<Vec<u8>> = MetadataRecord::parts(&records)
            .map(|part| MetadataRecord::batch(part, wall_ms))
            .collect();
        self.controller.as_mut().expect("still here").unsaved_bytes +=
            batches.iter().map(Vec::len).sum::<usize>();
        let before = self.metadata_end(log);
        let then = Then::Run(Box::new(move |shard: &mut Self, result| {
            if let Err(error) = result {
                return shard.refuse_change(log, before, error, done);
            }
            let mut image = (*shard.image).clone();
            if let Err(reason) = image.apply(&records) {
                // What is on disk and what is in force would differ from here on.
                panic!("a change of the metadata failed: {reason}");
            }
            shard.publish(Arc::new(image), |shard| shard.finish_change(done, Ok(())));
        }));
        self.append_metadata(log, &batches, then);
    }

    /// Appends batches to the metadata log; `then` hears when all are durable, or one is refused.
    pub(crate) fn append_metadata(&mut self, log: PartitionId, batches: &[Vec<u8>], then: Then<I>) {
        let (last, first) = batches.split_last().expect("a change has records");
        for batch in first {
            let appended = self
                .append(log, Incoming::Whole(batch), None, |_| unreachable!("nobody waits for it"));
            if let Appending::Done(AppendAnswer { error, .. }) = appended
                && error != ErrorCode::NONE
            {
                return self.go_on(then, Err(error));
            }
        }
        self.append_own(log, last, Durability::Flushed, then);
    }

    fn metadata_end(&mut self, log: PartitionId) -> i64 {
        let index = self.partitions.index(log).expect("the metadata log is added at start");
        let partition = self.partitions.get_mut(index).expect("an index from the table");
        partition.log.as_ref().expect("opened at start").appended_end()
    }

    /// The disk is full: the log is as before the change, or the broker ends, because what is on
    /// disk and what is in force would differ from here on.
    fn refuse_change(&mut self, log: PartitionId, before: i64, error: ErrorCode, done: Done<I>) {
        let index = self.partitions.index(log).expect("the metadata log is added at start");
        let Self { partitions, io, chunks, .. } = self;
        let partition = partitions.get_mut(index).expect("an index from the table");
        let log = partition.log.as_mut().expect("opened at start");
        let undone = log.poison().is_none() && log.truncate_to(io, chunks, before).is_ok();
        assert!(undone, "a change of the metadata failed half-way: {}", error.name());
        self.finish_change(done, Err(error));
    }

    /// Has every shard take over the image, this one last.
    pub(crate) fn publish(
        &mut self,
        image: Arc<Image>,
        then: impl FnOnce(&mut Self) + Send + 'static,
    ) {
        let last = self.mailbox.shards() - 1;
        visit_with_image(self, last, image, then);
    }

    fn finish_change(&mut self, done: Done<I>, result: Result<(), ErrorCode>) {
        self.controller.as_mut().expect("the controller is on shard 0").busy = false;
        done(self, result);
        self.save_metadata(false);
        self.next_change();
    }

    /// Writes a checkpoint of the metadata once its log has grown enough, or at the end of an
    /// interval in which it has. Two are kept, and the log since the older: a damaged checkpoint
    /// costs nothing but the replay.
    pub(crate) fn save_metadata(&mut self, interval_is_over: bool) {
        let controller = self.controller.as_mut().expect("the controller is on shard 0");
        let bytes_max = usize::try_from(self.config.metadata_log.snapshot_bytes).unwrap_or(1);
        let unsaved_bytes = controller.unsaved_bytes;
        if unsaved_bytes == 0 || (unsaved_bytes < bytes_max && !interval_is_over) {
            return;
        }
        controller.unsaved_bytes = 0;
        let log = controller.log;
        let (image, folder) = (Arc::clone(&self.image), self.metadata_folder());
        self.in_background(move |io| {
            let saved = checkpoint::write(io, &folder, &image)
                .and_then(|_| checkpoint::remove_old(io, &folder, CHECKPOINTS_KEPT));
            match saved {
                Ok(oldest) => Some(Box::new(move |shard: &mut Self| {
                    shard.start_metadata_at(log, oldest.unwrap_or(0));
                })),
                Err(error) => {
                    crate::log_line!("the metadata cannot be saved in a checkpoint: {error}");
                    None
                }
            }
        });
    }

    /// Gives up what the checkpoints make unnecessary of the metadata log.
    fn start_metadata_at(&mut self, log: PartitionId, offset: i64) {
        let Some(index) = self.partitions.index(log) else { return };
        match self.start_log_at(index, offset) {
            Err(error) => crate::log_line!("the metadata log cannot be cut: {error}"),
            Ok((_, gone)) => {
                let shared = Arc::clone(&self.shared);
                self.in_background(move |io| {
                    match shared.save_hints_of(io, shared.metadata_folder) {
                        Ok(()) => remove_files(io, &gone),
                        Err(error) => crate::log_line!("cannot write the checkpoints: {error}"),
                    }
                    None
                });
            }
        }
    }

    /// Saves what is unsaved every `metadata.log.max.snapshot.interval.ms`, unless that is 0.
    pub(crate) fn schedule_metadata_checkpoint(&mut self) {
        let interval_ms = self.config.metadata_log.snapshot_interval_ms;
        if let (Some(_), Ok(ms @ 1..)) = (&self.controller, u64::try_from(interval_ms)) {
            self.timers.add(self.now.plus_ms(ms), Timer::MetadataCheckpoint);
        }
    }

    /// Lets the controller decide something on a picture.
    pub(crate) fn with_controller<T>(
        &mut self,
        image: &Image,
        decide: impl FnOnce(&mut Controller<'_>) -> T,
    ) -> T {
        let Self { shared, config, io, .. } = self;
        let mut random = || io.random_u64();
        let folders = shared.folders.iter();
        let spread =
            Spread::new(folders.map(|folder| (folder.id, config.is_cordoned(&folder.path))));
        decide(&mut Controller { image, config, spread, random: &mut random })
    }

    /// Gives out the next producer id, from the block this broker holds or a new one.
    pub(crate) fn next_producer_id(
        &mut self,
        then: impl FnOnce(&mut Self, Result<i64, ErrorCode>) + Send + 'static,
    ) {
        let controller = self.controller.as_mut().expect("the controller is on shard 0");
        if let Some(id) = controller.producer_ids.next() {
            return then(self, Ok(id));
        }
        self.change_metadata(move |shard| {
            let controller = shard.controller.as_mut().expect("the controller is on shard 0");
            if let Some(id) = controller.producer_ids.next() {
                // A request before this one has fetched a block meanwhile.
                let done = Box::new(move |shard: &mut Self, _| then(shard, Ok(id)));
                return Decision { records: Vec::new(), done };
            }
            let image = Arc::clone(&shard.image);
            let (first, record) =
                shard.with_controller(&image, |controller| controller.allocate_producer_ids());
            let done = Box::new(move |shard: &mut Self, result: Result<(), ErrorCode>| {
                if result.is_ok() {
                    let controller = shard.controller.as_mut().expect("it is on shard 0");
                    controller.producer_ids = first + 1..first + PRODUCER_ID_BLOCK;
                }
                then(shard, result.map(|()| first));
            });
            Decision { records: vec![record], done }
        });
    }
}

fn visit_with_image<I: Io>(
    shard: &mut Shard<I>,
    number: usize,
    image: Arc<Image>,
    then: impl FnOnce(&mut Shard<I>) + Send + 'static,
) {
    shard.run_on(number, move |shard| {
        shard.take_over(&image);
        if number == 0 {
            then(shard);
        } else {
            visit_with_image(shard, number - 1, image, then);
        }
    });
}
