//! Writes and shared flushes of a shard: what is submitted at the end of a turn, and what a
//! completion releases.
//!
//! A flush covers only writes that had completed when it began. So it begins once the writes have
//! completed that others wait for, too, at the moment when the first partition is ready; it takes
//! all along that are ready then, and while it runs, later writes gather for the next. Batching
//! under load needs no timer. Each file system with data folders has flushes of its own.

use std::io;

use millrace_io::{Io, Token};
use millrace_log::{
    FlushDue, FlushPlan, FlushTicket, LogProgress, PartitionLog, flush_plan, token as log_token,
};
use millrace_wire::ErrorCode;

use crate::limits;
use crate::partitions::{AppendAnswer, Durability, PartitionId, Partitions, Then};
use crate::produce::{Appending, Incoming};
use crate::shard::Shard;
use crate::token::{self, Owner};

/// State of a shard's flushes.
pub(crate) struct Flushes {
    /// By file system (`Folder::disk`).
    disks: Vec<DiskFlushes>,
    /// Bytes written since all partitions were last asked to flush.
    unflushed_bytes: u64,
    /// Flush operations begun since the start: the figure to judge batching by.
    pub(crate) begun: u64,
}

/// Flushes of one file system.
#[derive(Default)]
struct DiskFlushes {
    /// Partitions that somebody waits for, or whose settings ask for a flush.
    wanted: Vec<u32>,
    /// Writes to wait for before the next flush: partition, and the end it must have written.
    barrier: Vec<(u32, i64)>,
    /// The barrier was taken for the partitions that are ready now.
    gathering: bool,
    /// The partitions with a flush of a single file under way. Few: see `flush_plan`.
    files_in_flight: Vec<u32>,
    /// What the present flush of the whole file system covers.
    shared: Vec<(u32, FlushTicket)>,
}

impl Flushes {
    /// For so many file systems at most.
    pub(crate) fn new(disks: usize) -> Self {
        let disks = std::iter::repeat_with(DiskFlushes::default).take(disks).collect();
        Self { disks, unflushed_bytes: 0, begun: 0 }
    }

    /// A flush of a file of this partition has ended, which may be gone by now.
    fn on_file_flushed(&mut self, partition: u32) {
        for DiskFlushes { files_in_flight, .. } in &mut self.disks {
            if let Some(at) = files_in_flight.iter().position(|index| *index == partition) {
                files_in_flight.swap_remove(at);
                return;
            }
        }
    }
}

impl DiskFlushes {
    fn in_flight(&self) -> usize {
        self.files_in_flight.len() + usize::from(!self.shared.is_empty())
    }
}

impl<I: Io> Shard<I> {
    /// Submits what was appended in this turn.
    pub(crate) fn submit_writes(&mut self) {
        let Self { partitions, io, dirty, .. } = self;
        for index in dirty.drain(..) {
            let Some(partition) = partitions.get_mut(index) else { continue };
            partition.dirty = false;
            if let Some(log) = &mut partition.log {
                log.submit_writes(io);
            }
        }
    }

    /// A file operation has completed.
    pub(crate) fn on_completed(&mut self, token: Token, result: io::Result<usize>) {
        match token::owner(token) {
            Owner::ColdPages(cold) => self.on_pages(cold, &result),
            Owner::SyncAll(disk) => self.on_synced_all(disk, &result),
            Owner::Log { partition } => {
                if log_token::kind(token) == log_token::Operation::Flush as u8 {
                    self.flushes.on_file_flushed(partition);
                }
                self.on_log_completed(partition, token, result);
            }
        }
    }

    fn on_log_completed(&mut self, index: u32, token: Token, result: io::Result<usize>) {
        let Self { partitions, io, chunks, .. } = self;
        let Some(partition) = partitions.get_mut(index) else { return };
        let Some(log) = &mut partition.log else { return };
        let progress = log.on_completed(io, chunks, token, result);
        self.on_progress(index, progress);
    }

    /// Counts anew what a partition has appended and not written. What a log that stopped still
    /// holds is not written any more.
    fn recount_unwritten(&mut self, index: u32) {
        let Some(partition) = self.partitions.get_mut(index) else { return };
        let log = partition.log.as_ref().filter(|log| log.poison().is_none());
        let left = log.map_or(0, PartitionLog::unwritten_bytes);
        let before = std::mem::replace(&mut partition.unwritten_bytes, left);
        self.unwritten_bytes += left;
        self.forget_unwritten(before);
        self.bound_unflushed(before.saturating_sub(left));
    }

    /// So many bytes are not unwritten any more: who waits for that goes on.
    pub(crate) fn forget_unwritten(&mut self, bytes: u64) {
        self.unwritten_bytes -= bytes;
        if self.unwritten_bytes <= limits::UNWRITTEN_BYTES {
            for id in std::mem::take(&mut self.paused) {
                self.look_at(id);
            }
        }
    }

    /// Has everything flushed once so much is written that recovery would take long to scan it.
    fn bound_unflushed(&mut self, written: u64) {
        self.flushes.unflushed_bytes += written;
        if self.flushes.unflushed_bytes < limits::UNFLUSHED_BYTES {
            return;
        }
        self.flushes.unflushed_bytes = 0;
        for at in 0..self.used.len() {
            self.want_flush(self.used[at]);
        }
    }

    fn on_synced_all(&mut self, disk: usize, result: &io::Result<usize>) {
        for (index, ticket) in std::mem::take(&mut self.flushes.disks[disk].shared) {
            let Self { partitions, io, .. } = self;
            let Some(partition) = partitions.get_mut(index) else { continue };
            let Some(log) = &mut partition.log else { continue };
            let progress = log.on_flushed(io, ticket, result.as_ref().map(|_| ()));
            self.on_progress(index, progress);
        }
    }

    /// Releases who waited for what a completion brought.
    fn on_progress(&mut self, index: u32, progress: LogProgress) {
        let now = self.now;
        self.recount_unwritten(index);
        let Some(partition) = self.partitions.get_mut(index) else { return };
        let mut reached = Vec::new();
        let mut failed = Vec::new();
        if progress.is_poisoned {
            if let Some(poison) = partition.log.as_ref().and_then(|log| log.poison()) {
                crate::log_line!(
                    "{}-{} stopped: {} failed: {}; it is not served until the broker is restarted",
                    partition.topic,
                    partition.id.partition,
                    poison.what,
                    poison.error
                );
            }
            failed = partition.take_all();
        } else if let Some(from) = progress.refused_from {
            failed = partition.take_beyond(from);
        }
        partition.take_reached(&mut reached);
        if progress.is_written
            && let Some(log) = &partition.log
            && log.flush_due(now) == FlushDue::Now
        {
            self.want_flush(index);
        }
        if progress.is_written || progress.is_poisoned {
            let Some(partition) = self.partitions.get_mut(index) else { return };
            for fetch in partition.take_watches() {
                self.notify_fetch(fetch);
            }
        }
        for then in reached {
            self.go_on(then, Ok(()));
        }
        for then in failed {
            self.go_on(then, Err(ErrorCode::KAFKA_STORAGE_ERROR));
        }
    }

    /// Appends a batch of the broker's own; `then` hears once it is durable, or refused.
    pub(crate) fn append_own(
        &mut self,
        id: PartitionId,
        batch: &[u8],
        durability: Durability,
        then: Then<I>,
    ) {
        let mut then = Some(then);
        let take = |_| then.take().expect("taken once");
        if let Appending::Done(answer) =
            self.append(id, Incoming::Whole(batch), Some(durability), take)
        {
            let failed = answer.error != ErrorCode::NONE;
            let then = then.expect("taken only by an append that waits");
            self.go_on(then, if failed { Err(answer.error) } else { Ok(()) });
        }
    }

    /// Does what waited for an append.
    pub(crate) fn go_on(&mut self, then: Then<I>, result: Result<(), ErrorCode>) {
        match (then, result) {
            (Then::Answer(ticket, answer), Ok(())) => self.answer(ticket, answer),
            (Then::Answer(ticket, _), Err(error)) => {
                self.answer(ticket, AppendAnswer::failed(error));
            }
            (Then::Run(task), result) => task(self, result),
        }
    }

    /// Puts a partition on the list for the next flush.
    pub(crate) fn want_flush(&mut self, index: u32) {
        if let Some(partition) = self.partitions.get_mut(index)
            && !partition.in_flush_list
        {
            partition.in_flush_list = true;
            let disk = self.shared.folders[partition.folder].disk;
            self.flushes.disks[disk].wanted.push(index);
        }
    }

    /// Takes a partition off the lists: its log is closed.
    pub(crate) fn forget_flush(&mut self, index: u32) {
        self.flushes
            .disks
            .iter_mut()
            .for_each(|disk| disk.wanted.retain(|wanted| *wanted != index));
        if let Some(partition) = self.partitions.get_mut(index) {
            partition.in_flush_list = false;
        }
    }

    /// Begins the flushes that are due.
    pub(crate) fn start_due_flushes(&mut self) {
        for disk in 0..self.flushes.disks.len() {
            self.start_due_flush(disk);
        }
    }

    fn start_due_flush(&mut self, disk: usize) {
        let Self { flushes, partitions, .. } = self;
        let own = &mut flushes.disks[disk];
        if own.wanted.is_empty() || !own.shared.is_empty() {
            return;
        }
        let ready = own.ready(partitions);
        if ready.is_empty() {
            return;
        }
        own.barrier.retain(|(index, end)| {
            let log = partitions.get_mut(*index).and_then(|partition| partition.log.as_ref());
            log.is_some_and(|log| log.poison().is_none() && log.written_end() < *end)
        });
        if !own.barrier.is_empty() {
            return;
        }
        match flush_plan(ready.len(), own.in_flight()) {
            FlushPlan::Nothing => return,
            FlushPlan::EachFile => self.flush_each(disk, ready),
            FlushPlan::FileSystem => self.flush_all(disk, &ready),
        }
        self.flushes.disks[disk].gathering = false;
    }

    fn flush_each(&mut self, disk: usize, ready: Vec<u32>) {
        for index in ready {
            let Self { partitions, io, flushes, .. } = self;
            let Some(partition) = partitions.get_mut(index) else { continue };
            let Some(log) = &mut partition.log else { continue };
            match log.submit_flush(io) {
                Ok(true) => {
                    flushes.disks[disk].files_in_flight.push(index);
                    flushes.begun += 1;
                }
                Ok(false) => {}
                Err(error) => crate::log_line!("cannot flush: {error}"),
            }
        }
    }

    fn flush_all(&mut self, disk: usize, ready: &[u32]) {
        let mut any = None;
        for index in ready {
            let Self { partitions, io, flushes, .. } = self;
            let Some(partition) = partitions.get_mut(*index) else { continue };
            let Some(log) = &mut partition.log else { continue };
            match log.begin_flush(io) {
                Ok(Some((file, ticket))) => {
                    flushes.disks[disk].shared.push((*index, ticket));
                    any = Some(file);
                }
                Ok(None) => {}
                Err(error) => crate::log_line!("cannot flush: {error}"),
            }
        }
        if let Some(file) = any {
            self.flushes.begun += 1;
            self.io.submit_sync_all(token::sync_all(disk), &file);
        }
    }
}

impl DiskFlushes {
    /// The partitions with something to flush. When the first of a round appear, the writes that
    /// others of the list wait for become the barrier.
    fn ready<I: Io>(&mut self, partitions: &mut Partitions<I>) -> Vec<u32> {
        let mut ready = Vec::new();
        let mut unwritten = Vec::new();
        self.wanted.retain(|index| {
            let Some(partition) = partitions.get_mut(*index) else { return false };
            let Some(log) = &partition.log else { return false };
            if log.poison().is_some() || !(partition.wants_flush() || log.is_dirty()) {
                partition.in_flush_list = false;
                return false;
            }
            if log.is_dirty() {
                ready.push(*index);
            }
            if log.written_end() < log.appended_end() {
                unwritten.push((*index, log.appended_end()));
            }
            true
        });
        if !ready.is_empty() && !self.gathering {
            self.gathering = true;
            self.barrier = unwritten;
        }
        ready
    }
}
