//! Consumer groups on the shard that owns their partition of `__consumer_offsets`: the state
//! machine of the coordinator crate, fed with requests and time, its records written to that
//! partition.

use std::collections::{BTreeSet, HashMap};

use millrace_coordinator::{
    Answer, Effect, Groups, GroupsConfig, Now, PersistId, Record, WaiterId, partition_for,
};
use millrace_io::{Instant, Io};
use millrace_wire::ErrorCode;
use millrace_wire::batch::{self, BatchBuilder, BatchOptions};

use crate::config::Config;
use crate::connection::ConnectionId;
use crate::limits;
use crate::partitions::{PartitionId, Then};
use crate::request::{Outcome, Reply, Request, RequestHead};
use crate::shard::Shard;
use crate::timers::{Timer, TimerKey};

/// The topic that keeps groups and committed offsets, in Kafka's record format.
pub(crate) const OFFSETS_TOPIC: &str = "__consumer_offsets";

/// The groups of one shard.
pub(crate) struct GroupState<I: Io> {
    pub(crate) groups: Groups,
    /// Partitions of the offsets topic that were replayed.
    loaded: BTreeSet<i32>,
    waiters: HashMap<WaiterId, Waiter<I>>,
    next_waiter: u64,
    timer: Option<TimerKey>,
    /// What this turn's steps want written, by partition of the offsets topic.
    writes: HashMap<PartitionId, Vec<(Vec<Record>, PersistId)>>,
    builder: BatchBuilder,
}

/// How a shard goes on with an answer that is not a reply by itself.
type Continue<I> = Box<dyn FnOnce(&mut Shard<I>, &Answer) + Send>;

/// Who waits for an answer of the state machine.
enum Waiter<I: Io> {
    /// A client: the answer is the reply.
    Client(RequestHead),
    /// A request about several groups.
    Continue(Continue<I>),
}

/// Why this shard does not serve a group.
pub(crate) enum Elsewhere {
    /// Another shard owns the group's partition.
    Shard(usize),
    /// The client is told.
    Error(ErrorCode),
}

impl Elsewhere {
    /// Has the other shard serve the request, or refuses it.
    pub(crate) fn outcome<I: Io>(self, refuse: impl FnOnce(ErrorCode) -> Reply<I>) -> Outcome<I> {
        match self {
            Self::Shard(owner) => Outcome::Forward(owner),
            Self::Error(error) => Outcome::Reply(refuse(error)),
        }
    }

    /// The error for a request that cannot be forwarded, being about several groups.
    pub(crate) fn error(self) -> ErrorCode {
        match self {
            Self::Shard(_) => ErrorCode::NOT_COORDINATOR,
            Self::Error(error) => error,
        }
    }
}

impl<I: Io> GroupState<I> {
    pub(crate) fn new(config: &Config, now: Now) -> Self {
        Self {
            groups: Groups::new(groups_config(config), now),
            loaded: BTreeSet::new(),
            waiters: HashMap::new(),
            next_waiter: 0,
            timer: None,
            writes: HashMap::new(),
            builder: BatchBuilder::new(),
        }
    }

    /// Other settings, from now on.
    pub(crate) fn configure(&mut self, config: &Config) {
        self.groups.set_config(groups_config(config));
    }
}

impl<I: Io> Shard<I> {
    /// The clocks, as the state machine wants them.
    pub(crate) fn group_now(&self) -> Now {
        Now { monotonic_ms: self.now.ns() / 1_000_000, wall_ms: self.io.wall_clock_ms() }
    }

    /// Makes sure that this shard coordinates the group and has its state.
    pub(crate) fn coordinate(&mut self, group_id: &str) -> Result<(), Elsewhere> {
        let id =
            self.group_partition(group_id).ok_or(Elsewhere::Error(ErrorCode::NOT_COORDINATOR))?;
        let owner = id.owner(self.mailbox.shards());
        if owner != self.id {
            return Err(Elsewhere::Shard(owner));
        }
        if !self.groups.loaded.contains(&id.partition) {
            self.load_groups(id).map_err(Elsewhere::Error)?;
        }
        Ok(())
    }

    /// Makes sure that this shard has the state of every group that it coordinates.
    pub(crate) fn load_all_groups(&mut self) -> Result<(), ErrorCode> {
        let Some(topic) = self.image.topic(OFFSETS_TOPIC) else { return Ok(()) };
        let shards = self.mailbox.shards();
        let missing: Vec<PartitionId> = (0..)
            .take(topic.partitions.len())
            .map(|partition| PartitionId { topic_id: topic.id, partition })
            .filter(|id| id.owner(shards) == self.id && !self.groups.loaded.contains(&id.partition))
            .collect();
        missing.into_iter().try_for_each(|id| self.load_groups(id))
    }

    /// The partition of the offsets topic that keeps the group; `None` before the topic is made.
    pub(crate) fn group_partition(&self, group_id: &str) -> Option<PartitionId> {
        let topic = self.image.topic(OFFSETS_TOPIC)?;
        let count = i32::try_from(topic.partitions.len()).ok()?;
        Some(PartitionId { topic_id: topic.id, partition: partition_for(group_id, count) })
    }

    /// Replays a partition of the offsets topic.
    fn load_groups(&mut self, id: PartitionId) -> Result<(), ErrorCode> {
        let index = self.open_partition(id).map_err(of_coordinator)?;
        let failed = |_| ErrorCode::KAFKA_STORAGE_ERROR;
        let Self { partitions, io, chunks, groups, .. } = self;
        let partition = partitions.get_mut(index).expect("opened just now");
        let log = partition.log.as_mut().expect("opened just now");
        let mut offset = log.log_start();
        let end = log.written_end();
        let mut scratch = Vec::new();
        while offset < end {
            let bytes = crate::storage::read_blocking(log, io, chunks, offset, limits::LOAD_BYTES)
                .map_err(failed)?;
            if bytes.is_empty() {
                // What is left are batches that compaction took the records of.
                break;
            }
            let mut next = offset;
            for batch in batch::batches(&bytes) {
                let Ok(batch) = batch else { break };
                next = batch.header().last_offset() + 1;
                let Ok(records) = batch.records(&mut scratch, limits::DECOMPRESSED_BYTES) else {
                    continue;
                };
                if batch.header().is_control() {
                    continue;
                }
                for record in records.flatten() {
                    if let Some(key) = record.key
                        && let Err(error) = groups.groups.load(key, record.value)
                    {
                        let offset = record.offset;
                        crate::log_line!(
                            "{OFFSETS_TOPIC}: skipped the record at {offset}: {error}"
                        );
                    }
                }
            }
            if next == offset {
                return Err(ErrorCode::KAFKA_STORAGE_ERROR);
            }
            offset = next;
        }
        self.groups.loaded.insert(id.partition);
        let now = self.group_now();
        let effects = self.groups.groups.loaded(now);
        self.run_effects(effects);
        Ok(())
    }

    /// Feeds a request to the state machine; the answer goes out when an effect says so.
    pub(crate) fn feed_groups(
        &mut self,
        request: &Request,
        feed: impl FnOnce(&mut Groups, Now, WaiterId) -> Vec<Effect>,
    ) -> Outcome<I> {
        self.feed(Waiter::Client(request.head), feed);
        Outcome::Wait
    }

    /// As [`Shard::feed_groups`], and goes on with `then` once there is an answer.
    pub(crate) fn feed_groups_then(
        &mut self,
        feed: impl FnOnce(&mut Groups, Now, WaiterId) -> Vec<Effect>,
        then: impl FnOnce(&mut Self, &Answer) + Send + 'static,
    ) {
        self.feed(Waiter::Continue(Box::new(then)), feed);
    }

    fn feed(
        &mut self,
        who: Waiter<I>,
        feed: impl FnOnce(&mut Groups, Now, WaiterId) -> Vec<Effect>,
    ) {
        let now = self.group_now();
        self.groups.next_waiter += 1;
        let waiter = WaiterId(self.groups.next_waiter);
        self.groups.waiters.insert(waiter, who);
        let effects = feed(&mut self.groups.groups, now, waiter);
        self.run_effects(effects);
    }

    /// Does what the state machine asks for, and sets the timer to its next deadline.
    pub(crate) fn run_effects(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Reply { waiter, answer } => self.reply_to_waiter(waiter, &answer),
                Effect::Persist { group, records, on_done } => match self.group_partition(&group) {
                    Some(id) => self.groups.writes.entry(id).or_default().push((records, on_done)),
                    None => self.on_persisted(on_done, Err(ErrorCode::NOT_COORDINATOR)),
                },
            }
        }
        let due = Instant::from_ns(self.groups.groups.next_deadline().saturating_mul(1_000_000));
        if self.groups.timer.is_none_or(|(at, _)| due < at) {
            self.timers.cancel(self.groups.timer);
            self.groups.timer = Some(self.timers.add(due, Timer::Groups));
        }
    }

    /// A deadline of the groups may have come.
    pub(crate) fn on_groups_due(&mut self) {
        self.groups.timer = None;
        let now = self.group_now();
        let effects = self.groups.groups.on_time(now);
        self.run_effects(effects);
    }

    fn reply_to_waiter(&mut self, waiter: WaiterId, answer: &Answer) {
        match self.groups.waiters.remove(&waiter) {
            None => {}
            Some(Waiter::Continue(then)) => then(self, answer),
            Some(Waiter::Client(head)) => {
                let reply = crate::handlers::group_answer(&head, answer);
                self.reply(head, reply);
            }
        }
    }

    /// Appends what the groups of this turn want written, the records of one partition together;
    /// the state machine hears when they are.
    pub(crate) fn write_group_records(&mut self) {
        let wall_ms = self.io.wall_clock_ms();
        let durability = self.shared.acks_all(OFFSETS_TOPIC);
        while !self.groups.writes.is_empty() {
            for (id, writes) in std::mem::take(&mut self.groups.writes) {
                let mut writes = writes.into_iter().peekable();
                let mut builder = std::mem::take(&mut self.groups.builder);
                while writes.peek().is_some() {
                    let (mut bytes, mut done) = (0, Vec::new());
                    while bytes < limits::GROUP_BATCH_BYTES
                        && let Some((records, on_done)) = writes.next()
                    {
                        done.push(on_done);
                        for Record { key, value } in &records {
                            bytes += key.len() + value.as_ref().map_or(0, |value| value.len());
                            builder.append(wall_ms, Some(key), value.as_deref(), &[]);
                        }
                    }
                    let options = BatchOptions::default();
                    let batch = builder.finish(&options).expect("plain records need no codec");
                    let then = Then::Run(Box::new(move |shard: &mut Self, result| {
                        done.into_iter().for_each(|on_done| shard.on_persisted(on_done, result));
                    }));
                    self.append_own(id, batch, durability, then);
                }
                self.groups.builder = builder;
            }
        }
    }

    fn on_persisted(&mut self, on_done: PersistId, result: Result<(), ErrorCode>) {
        let now = self.group_now();
        let effects = self.groups.groups.persisted(now, on_done, result.map_err(of_coordinator));
        self.run_effects(effects);
    }

    /// A connection is gone: nobody waits for the answers to its requests.
    pub(crate) fn cancel_group_waits(&mut self, shard: usize, connection: ConnectionId) {
        let gone: Vec<WaiterId> = self
            .groups
            .waiters
            .iter()
            .filter(|(_, who)| match who {
                Waiter::Client(head) => head.id.shard == shard && head.id.connection == connection,
                Waiter::Continue(_) => false,
            })
            .map(|(waiter, _)| *waiter)
            .collect();
        let now = self.group_now();
        for waiter in gone {
            self.groups.waiters.remove(&waiter);
            self.groups.groups.cancel(now, waiter);
            self.run_effects(Vec::new());
        }
    }
}

/// What members are told when the partition with their group is not served at the moment: they look
/// for the coordinator again.
fn of_coordinator(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::NOT_LEADER_OR_FOLLOWER => ErrorCode::NOT_COORDINATOR,
        error => error,
    }
}

fn groups_config(config: &Config) -> GroupsConfig {
    let ms = |value: i32| u64::try_from(value).unwrap_or(0);
    GroupsConfig {
        session_timeout_min_ms: config.groups.session_timeout_ms_min,
        session_timeout_max_ms: config.groups.session_timeout_ms_max,
        initial_rebalance_delay_ms: ms(config.groups.initial_rebalance_delay_ms),
        members_max: usize::try_from(config.groups.members_max).unwrap_or(usize::MAX),
        offset_metadata_max: usize::try_from(config.groups.offset_metadata_bytes_max).unwrap_or(0),
        offsets_retention_ms: i64::from(config.groups.offsets_retention_minutes) * 60_000,
        retention_check_interval_ms: u64::try_from(config.groups.offsets_retention_check_ms)
            .unwrap_or(600_000),
        ..GroupsConfig::default()
    }
}
