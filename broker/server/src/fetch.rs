//! Fetch requests in progress: one engine that spreads a request over the shards that own its
//! partitions, gathers what they have, and waits for bytes or time.
//!
//! Sources of the rules: KIP-74 (limits), Kafka's `ReplicaManager.fetchMessages` and
//! `DelayedFetch`.

use std::sync::Arc;

use millrace_io::{Instant, Io};
use millrace_log::{FileRange, ReadPlan, ReadRequest};
use millrace_wire::messages::FetchRequest;
use millrace_wire::{ErrorCode, Uuid};
use smallvec::SmallVec;

use crate::connection::ConnectionId;
use crate::fetch_session::{News, Session};
use crate::old_format;
use crate::partitions::PartitionId;
use crate::request::{Payload, RequestHead};
use crate::shard::{Cold, Message, Shard};
use crate::timers::{Timer, TimerKey};

/// Names a fetch in progress; unique for the life of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FetchId {
    pub(crate) shard: usize,
    key: usize,
    unique: u64,
}

/// A topic as the request named it, and as the reply must.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FetchTopic {
    pub(crate) name: String,
    pub(crate) id: Uuid,
}

/// One partition of a fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FetchPart {
    pub(crate) topic: Arc<FetchTopic>,
    pub(crate) read: PartToRead,
    /// Decided before any log was asked.
    pub(crate) error: Option<ErrorCode>,
}

/// What its owner must know to read a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PartToRead {
    pub(crate) id: PartitionId,
    pub(crate) offset: i64,
    pub(crate) bytes_max: usize,
    pub(crate) current_leader_epoch: i32,
    pub(crate) last_fetched_epoch: i32,
}

/// What one partition answered.
pub(crate) struct PartRead<I: Io> {
    pub(crate) error: ErrorCode,
    pub(crate) high_watermark: i64,
    pub(crate) log_start: i64,
    /// Epoch and end offset at which the reader's log left ours (KIP-595).
    pub(crate) diverging: Option<(i32, i64)>,
    pub(crate) payloads: SmallVec<[Payload<I>; 2]>,
}

impl<I: Io> PartRead<I> {
    pub(crate) fn failed(error: ErrorCode) -> Self {
        Self {
            error,
            high_watermark: -1,
            log_start: -1,
            diverging: None,
            payloads: SmallVec::new(),
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.payloads.iter().map(Payload::len).sum()
    }

    fn news(&self) -> News {
        News {
            has_records: !self.payloads.is_empty(),
            is_urgent: self.error != ErrorCode::NONE || self.diverging.is_some(),
            high_watermark: self.high_watermark,
            log_start: self.log_start,
        }
    }
}

/// A read sent to the shard that owns the partitions. `usize` is the place in the request.
pub(crate) struct ReadTask {
    fetch: FetchId,
    bytes_max: usize,
    parts: Vec<(usize, PartToRead)>,
}

/// A fetch in progress. Invariant: `reads` has one entry a part; `outstanding` counts the shards
/// whose answer to the present round is missing.
pub(crate) struct Fetch<I: Io> {
    unique: u64,
    pub(crate) head: RequestHead,
    /// The reader wants committed records only.
    pub(crate) is_committed: bool,
    session: Session,
    pub(crate) parts: Vec<FetchPart>,
    /// Once the session has been looked at: `None` for what the reply leaves out.
    pub(crate) reads: Vec<Option<PartRead<I>>>,
    bytes_min: usize,
    bytes_max: usize,
    deadline: Instant,
    timer: Option<TimerKey>,
    outstanding: usize,
    /// An answer must leave with the present round, whatever it brings.
    last_round: bool,
    /// A watched partition moved while a round was under way.
    moved: bool,
}

/// The fetches of one shard's connections.
pub(crate) struct Fetches<I: Io> {
    slab: slab::Slab<Fetch<I>>,
    next_unique: u64,
}

impl<I: Io> Fetches<I> {
    pub(crate) fn new() -> Self {
        Self { slab: slab::Slab::new(), next_unique: 0 }
    }

    fn get_mut(&mut self, id: FetchId) -> Option<&mut Fetch<I>> {
        self.slab.get_mut(id.key).filter(|fetch| fetch.unique == id.unique)
    }
}

impl<I: Io> Shard<I> {
    /// Begins to serve a fetch; the reply goes out through [`Shard::reply`].
    pub(crate) fn start_fetch(
        &mut self,
        head: RequestHead,
        body: &FetchRequest<'_>,
        session: Session,
        parts: Vec<FetchPart>,
    ) {
        let wait_ms = u64::try_from(body.max_wait_ms).unwrap_or(0);
        let deadline = self.now.plus_ms(wait_ms);
        // Versions 0 to 2 have no limit of the whole answer.
        let bytes_max = body.max_bytes.min(self.config.topics.fetch_bytes_max);
        let unique = self.fetches.next_unique;
        self.fetches.next_unique += 1;
        let reads = parts.iter().map(|_| None).collect();
        let key = self.fetches.slab.insert(Fetch {
            unique,
            head,
            is_committed: body.isolation_level == 1,
            session,
            parts,
            reads,
            bytes_min: usize::try_from(body.min_bytes).unwrap_or(0),
            bytes_max: usize::try_from(bytes_max).unwrap_or(0),
            deadline,
            timer: None,
            outstanding: 0,
            last_round: wait_ms == 0,
            moved: false,
        });
        self.read_round(FetchId { shard: self.id, key, unique });
    }

    /// Asks every owner for what it has now.
    fn read_round(&mut self, id: FetchId) {
        let shards = self.mailbox.shards();
        let Some(fetch) = self.fetches.get_mut(id) else { return };
        fetch.moved = false;
        let bytes_max = fetch.bytes_max;
        let mut by_owner: Vec<Vec<(usize, PartToRead)>> = vec![Vec::new(); shards];
        for (place, part) in fetch.parts.iter().enumerate() {
            match part.error {
                Some(error) => fetch.reads[place] = Some(PartRead::failed(error)),
                None => by_owner[part.read.id.owner(shards)].push((place, part.read)),
            }
        }
        fetch.outstanding = by_owner.iter().filter(|parts| !parts.is_empty()).count();
        if fetch.outstanding == 0 {
            return self.finish_round(id);
        }
        for (owner, parts) in by_owner.into_iter().enumerate() {
            if parts.is_empty() {
                continue;
            }
            let task = ReadTask { fetch: id, bytes_max, parts };
            if owner == self.id {
                self.serve_read(task);
            } else {
                self.mailbox.post(owner, Message::Read(task));
            }
        }
    }

    /// Reads partitions of this shard for a fetch of any shard, and answers once all is found.
    pub(crate) fn serve_read(&mut self, task: ReadTask) {
        let mut left = task.bytes_max;
        let mut is_first = true;
        let mut reads = Vec::with_capacity(task.parts.len());
        for (place, part) in &task.parts {
            match self.read_part(part, left, is_first) {
                Ok(read) => {
                    left = left.saturating_sub(read.bytes());
                    is_first &= read.payloads.is_empty();
                    reads.push((*place, read));
                }
                Err(cold) => {
                    // Batch headers are needed to find where the answer ends.
                    return self.bring_in(&cold, Cold::Read(task));
                }
            }
        }
        let fetch = task.fetch;
        if fetch.shard == self.id {
            self.on_read(fetch, reads);
        } else {
            self.mailbox.post(fetch.shard, Message::ReadDone(fetch, reads));
        }
    }

    /// What one partition has, or the pages to bring in before that can be said.
    fn read_part(
        &mut self,
        part: &PartToRead,
        bytes_left: usize,
        is_first: bool,
    ) -> Result<PartRead<I>, FileRange<I::File>> {
        let index = match self.open_partition(part.id) {
            Ok(index) => index,
            Err(error) => return Ok(PartRead::failed(error)),
        };
        self.note_use(index);
        let Self { partitions, io, chunks, .. } = self;
        let partition = partitions.get_mut(index).expect("opened just now");
        let leader_epoch = partition.leader_epoch;
        if let Some(error) = check_epoch(part.current_leader_epoch, leader_epoch) {
            return Ok(PartRead::failed(error));
        }
        let log = partition.log.as_mut().expect("opened just now");
        let (high_watermark, log_start) = (log.high_watermark(), log.log_start());
        let mut read = PartRead {
            error: ErrorCode::NONE,
            high_watermark,
            log_start,
            diverging: None,
            payloads: SmallVec::new(),
        };
        if part.last_fetched_epoch >= 0 {
            match log.end_offset_for_epoch(part.last_fetched_epoch) {
                Some((epoch, end)) if epoch < part.last_fetched_epoch || end < part.offset => {
                    read.diverging = Some((epoch, end));
                    return Ok(read);
                }
                // An epoch that is still to come: what was read then is not of this log.
                None if part.last_fetched_epoch > leader_epoch => {
                    return Ok(PartRead::failed(ErrorCode::OFFSET_OUT_OF_RANGE));
                }
                _ => {}
            }
        }
        let request = ReadRequest {
            offset: part.offset,
            bytes_max: part.bytes_max.min(bytes_left),
            // The first batch comes whole while nothing was read (KIP-74); the connection's shard
            // drops what is too much when several shards did so.
            at_least_one: is_first,
            upper_bound: high_watermark,
            may_block: false,
        };
        match log.read(io, chunks, request) {
            Ok(ReadPlan::Nothing) => {}
            Ok(ReadPlan::OutOfRange) => {
                return Ok(PartRead::failed(ErrorCode::OFFSET_OUT_OF_RANGE));
            }
            Ok(ReadPlan::Data(data)) => {
                read.payloads.extend(data.file.map(Payload::File));
                read.payloads.extend(data.memory.into_iter().map(Payload::Memory));
            }
            Ok(ReadPlan::Cold(cold)) => return Err(cold),
            Err(_) => return Ok(PartRead::failed(ErrorCode::KAFKA_STORAGE_ERROR)),
        }
        Ok(read)
    }

    /// The pages that a read needed could not be read.
    pub(crate) fn fail_read(&mut self, task: ReadTask) {
        let failed = |place| (place, PartRead::failed(ErrorCode::KAFKA_STORAGE_ERROR));
        let reads = task.parts.iter().map(|(place, _)| failed(*place)).collect();
        if task.fetch.shard == self.id {
            self.on_read(task.fetch, reads);
        } else {
            self.mailbox.post(task.fetch.shard, Message::ReadDone(task.fetch, reads));
        }
    }

    /// One owner's answer to the present round.
    pub(crate) fn on_read(&mut self, id: FetchId, reads: Vec<(usize, PartRead<I>)>) {
        let Some(fetch) = self.fetches.get_mut(id) else { return };
        for (place, read) in reads {
            fetch.reads[place] = Some(read);
        }
        fetch.outstanding -= 1;
        if fetch.outstanding == 0 {
            self.finish_round(id);
        }
    }

    /// All owners have answered: reply, or wait for a partition to move.
    fn finish_round(&mut self, id: FetchId) {
        let now = self.now;
        let Some(fetch) = self.fetches.get_mut(id) else { return };
        fetch.limit_bytes();
        let enough = fetch.last_round || fetch.deadline <= now || fetch.is_complete();
        if enough {
            let mut fetch = self.fetches.slab.remove(id.key);
            self.timers.cancel(fetch.timer);
            let head = fetch.head;
            let old = (head.version < 4).then(|| old_format::convert(self, &fetch));
            let outcome = self.settle_session(&mut fetch);
            let reply = fetch.into_reply(outcome, old.as_deref());
            return self.reply(head, reply);
        }
        if fetch.moved {
            return self.read_round(id);
        }
        fetch.timer.get_or_insert_with(|| self.timers.add(fetch.deadline, Timer::Fetch(id)));
        let parts: Vec<(PartitionId, i64)> = fetch
            .parts
            .iter()
            .zip(&fetch.reads)
            .filter_map(|(part, read)| Some((part.read.id, read.as_ref()?.high_watermark)))
            .collect();
        for (owner, parts) in self.by_owner(parts, |(part, _)| *part) {
            if owner == self.id {
                self.watch_parts(id, &parts);
            } else {
                self.mailbox.post(owner, Message::Watch(id, parts));
            }
        }
    }

    /// The session id that the answer carries; what the session's client knows already leaves it.
    fn settle_session(&mut self, fetch: &mut Fetch<I>) -> Result<i32, (i32, ErrorCode)> {
        let Self { sessions, io, now, .. } = self;
        let Fetch { session, parts, reads, .. } = fetch;
        let news = reads.iter().flatten().map(PartRead::news);
        match *session {
            Session::None => Ok(0),
            Session::Wanted { by_topic_id } => {
                let news: Vec<News> = news.collect();
                let answered = parts.iter().zip(news.iter().copied());
                Ok(sessions.open(*now, || io.random_u64(), by_topic_id, answered))
            }
            Session::Continued { id, epoch } => {
                let news: Vec<News> = news.collect();
                let told = sessions.settle(id, epoch, &news).map_err(|error| (id, error))?;
                let reads = reads.iter_mut().zip(told);
                reads.filter(|(_, told)| !told).for_each(|(read, _)| *read = None);
                Ok(id)
            }
        }
    }

    /// Tells the fetch once any of these partitions of this shard is beyond the given offset.
    pub(crate) fn watch_parts(&mut self, id: FetchId, parts: &[(PartitionId, i64)]) {
        let mut moved = false;
        for (part, seen) in parts {
            let Some(index) = self.partitions.index(*part) else {
                moved = true;
                continue;
            };
            let partition = self.partitions.get_mut(index).expect("an index from the table");
            moved |= partition.log.as_ref().is_none_or(|log| log.high_watermark() > *seen);
            partition.watch(id);
        }
        if moved {
            self.notify_fetch(id);
        }
    }

    /// The fetch does not wait for these partitions of this shard any more.
    pub(crate) fn unwatch_parts(&mut self, id: FetchId, parts: &[PartitionId]) {
        for part in parts {
            if let Some(index) = self.partitions.index(*part)
                && let Some(partition) = self.partitions.get_mut(index)
            {
                partition.unwatch(id);
            }
        }
    }

    /// A watched partition of this shard moved or went away.
    pub(crate) fn notify_fetch(&mut self, id: FetchId) {
        if id.shard == self.id {
            self.moved_fetches.push(id);
        } else {
            self.mailbox.post(id.shard, Message::Moved(id));
        }
    }

    /// A partition that a fetch of this shard waits for moved.
    pub(crate) fn on_moved(&mut self, id: FetchId) {
        let Some(fetch) = self.fetches.get_mut(id) else { return };
        fetch.moved = true;
        if fetch.outstanding == 0 {
            self.unwatch(id);
            self.read_round(id);
        }
    }

    /// The time a fetch may wait is over.
    pub(crate) fn on_fetch_deadline(&mut self, id: FetchId) {
        let Some(fetch) = self.fetches.get_mut(id) else { return };
        fetch.last_round = true;
        if fetch.outstanding == 0 {
            self.unwatch(id);
            self.read_round(id);
        }
    }

    /// A connection of a shard is gone: nobody waits for the answers to its fetches.
    pub(crate) fn cancel_fetches(&mut self, shard: usize, connection: ConnectionId) {
        let of = (shard, connection);
        let ids: Vec<FetchId> = self
            .fetches
            .slab
            .iter()
            .filter(|(_, fetch)| (fetch.head.id.shard, fetch.head.id.connection) == of)
            .map(|(key, fetch)| FetchId { shard: self.id, key, unique: fetch.unique })
            .collect();
        for id in ids {
            self.unwatch(id);
            let fetch = self.fetches.slab.remove(id.key);
            self.timers.cancel(fetch.timer);
        }
    }

    fn unwatch(&mut self, id: FetchId) {
        let Some(fetch) = self.fetches.get_mut(id) else { return };
        let parts: Vec<PartitionId> = fetch.parts.iter().map(|part| part.read.id).collect();
        for (owner, parts) in self.by_owner(parts, |part| *part) {
            if owner == self.id {
                self.unwatch_parts(id, &parts);
            } else {
                self.mailbox.post(owner, Message::Unwatch(id, parts));
            }
        }
    }
}

/// Fencing of a request made for another epoch of the leader (KIP-320).
pub(crate) fn check_epoch(asked: i32, ours: i32) -> Option<ErrorCode> {
    match asked {
        -1 => None,
        asked if asked < ours => Some(ErrorCode::FENCED_LEADER_EPOCH),
        asked if asked > ours => Some(ErrorCode::UNKNOWN_LEADER_EPOCH),
        _ => None,
    }
}

impl<I: Io> Fetch<I> {
    /// Keeps to the limit of the whole answer: later partitions give way, but for the first batch.
    fn limit_bytes(&mut self) {
        let mut left = self.bytes_max;
        let mut is_first = true;
        for (part, read) in self.parts.iter().zip(&mut self.reads) {
            let Some(read) = read else { continue };
            let bytes = read.bytes();
            if bytes == 0 {
                continue;
            }
            if bytes > left.min(part.read.bytes_max) && !is_first {
                read.payloads.clear();
                continue;
            }
            is_first = false;
            left = left.saturating_sub(bytes);
        }
    }

    /// Enough bytes, or something that the client must hear at once.
    fn is_complete(&self) -> bool {
        let reads = || self.reads.iter().flatten();
        self.parts.is_empty()
            || reads().any(|read| read.error != ErrorCode::NONE || read.diverging.is_some())
            || reads().map(PartRead::bytes).sum::<usize>() >= self.bytes_min
    }
}
