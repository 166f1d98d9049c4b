//! Committed offsets of a group: who may commit, what is kept, what expires.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_wire::{ErrorCode, Uuid};

use crate::effect::{Answer, CommitAnswer, CommittedTopic, WaiterId};
use crate::group::{Group, State};
use crate::limits::{OFFSET_BYTES, TOPIC_BYTES};
use crate::pending::{Pending, Step};
use crate::record;
use crate::request::{CommitPartition, CommitRequest, CommitTopic, MemberRequest};

/// A committed offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedOffset {
    /// The next offset to read.
    pub offset: i64,
    /// Leader epoch of the last record read, -1 when unknown.
    pub leader_epoch: i32,
    /// The client's own words.
    pub metadata: Box<str>,
    /// Wall time of the commit.
    pub committed_at_ms: i64,
    /// End of its own retention, which old clients may set.
    pub expires_at_ms: Option<i64>,
    /// The topic's id, zero when the commit had none.
    pub topic_id: Uuid,
}

/// The committed offsets of one group, as written to the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Offsets {
    /// Invariant: no topic without partitions.
    topics: BTreeMap<Arc<str>, BTreeMap<i32, CommittedOffset>>,
    bytes: usize,
}

impl Offsets {
    /// The offset of one partition. A partition without one is answered with offset -1, epoch -1,
    /// empty metadata and no error.
    pub fn get(&self, topic: &str, partition: i32) -> Option<&CommittedOffset> {
        self.topics.get(topic)?.get(&partition)
    }

    /// All of them, by topic.
    pub fn topics(&self) -> impl Iterator<Item = (&Arc<str>, &BTreeMap<i32, CommittedOffset>)> {
        self.topics.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The partitions that have one.
    pub(crate) fn keys(&self) -> impl Iterator<Item = (Arc<str>, i32)> {
        let keys = |(topic, partitions): (&Arc<str>, &BTreeMap<i32, CommittedOffset>)| {
            partitions.keys().map(|partition| (topic.clone(), *partition)).collect::<Vec<_>>()
        };
        self.topics.iter().flat_map(keys)
    }

    pub(crate) fn put(&mut self, topic: &Arc<str>, partition: i32, committed: CommittedOffset) {
        self.remove(topic, partition);
        if !self.topics.contains_key(topic) {
            self.bytes += TOPIC_BYTES + topic.len();
        }
        self.bytes += OFFSET_BYTES + committed.metadata.len();
        self.topics.entry(topic.clone()).or_default().insert(partition, committed);
    }

    pub(crate) fn remove(&mut self, topic: &str, partition: i32) {
        let Some(partitions) = self.topics.get_mut(topic) else { return };
        if let Some(committed) = partitions.remove(&partition) {
            self.bytes -= OFFSET_BYTES + committed.metadata.len();
        }
        if partitions.is_empty() {
            self.topics.remove(topic);
            self.bytes -= TOPIC_BYTES + topic.len();
        }
    }

    /// What a commit would add to [`Offsets::bytes`].
    fn growth(&self, topic: &str, partition: &CommitPartition<'_>) -> usize {
        let known = self.topics.get(topic);
        let topic_bytes = if known.is_some() { 0 } else { TOPIC_BYTES + topic.len() };
        match known.and_then(|partitions| partitions.get(&partition.index)) {
            Some(before) => partition.metadata.len().saturating_sub(before.metadata.len()),
            None => topic_bytes + OFFSET_BYTES + partition.metadata.len(),
        }
    }

    /// The shared name of `topic`, made anew for a topic without offsets.
    fn name_of(&self, topic: &str) -> Arc<str> {
        match self.topics.get_key_value(topic) {
            Some((name, _)) => name.clone(),
            None => Arc::from(topic),
        }
    }
}

impl Group {
    /// OffsetCommit, for a group that exists.
    pub(crate) fn commit(
        &mut self,
        step: &mut Step<'_>,
        waiter: WaiterId,
        request: &CommitRequest<'_>,
    ) {
        if let Err(error) = self.check_commit(&request.member) {
            return step.reply(waiter, refused_commit(&request.topics, error));
        }
        let counts_as_heartbeat = matches!(self.state, State::Stable | State::PreparingRebalance);
        if counts_as_heartbeat && self.members.contains_key(request.member.member_id) {
            self.keep_alive(step, request.member.member_id);
        }
        let now_ms = step.now.wall_ms;
        let expires_at_ms = request.retention_ms.map(|ms| now_ms.saturating_add(ms));
        let mut bytes_left = step.bytes_left;
        let mut writes = Vec::new();
        let mut topics = Vec::with_capacity(request.topics.len());
        for topic in &request.topics {
            let name = self.offsets.name_of(topic.name);
            let mut check = |partition: &CommitPartition<'_>| {
                let growth = self.offsets.growth(topic.name, partition);
                let error = check_partition(step, partition, growth, bytes_left);
                if error == ErrorCode::NONE {
                    bytes_left -= growth;
                    let committed = CommittedOffset {
                        offset: partition.offset,
                        leader_epoch: partition.leader_epoch,
                        metadata: Box::from(partition.metadata),
                        committed_at_ms: partition.timestamp_ms.unwrap_or(now_ms),
                        expires_at_ms,
                        topic_id: topic.topic_id,
                    };
                    writes.push((name.clone(), partition.index, committed));
                }
                (partition.index, error)
            };
            let partitions = topic.partitions.iter().map(&mut check).collect();
            topics.push(CommittedTopic { name, topic_id: topic.topic_id, partitions });
        }
        if writes.is_empty() {
            return step.reply(waiter, Answer::Commit(CommitAnswer { topics }));
        }
        let record = |(topic, partition, committed): &(Arc<str>, i32, CommittedOffset)| {
            record::offset(&self.id, topic, *partition, committed)
        };
        let records = writes.iter().map(record).collect();
        self.persist(step, records, Pending::Commit { waiter, topics, writes });
    }

    /// Who may commit: anyone while the group is empty and no generation is claimed; else members
    /// of the current generation, except while its assignment is awaited.
    fn check_commit(&self, member: &MemberRequest<'_>) -> Result<(), ErrorCode> {
        if member.generation < 0 && self.state == State::Empty {
            return Ok(());
        }
        let claims_membership =
            member.generation >= 0 || !member.member_id.is_empty() || member.instance_id.is_some();
        if !claims_membership {
            return Err(ErrorCode::UNKNOWN_MEMBER_ID);
        }
        self.check_member(member.member_id, member.instance_id)?;
        if member.generation != self.generation {
            return Err(ErrorCode::ILLEGAL_GENERATION);
        }
        if self.state == State::CompletingRebalance {
            return Err(ErrorCode::REBALANCE_IN_PROGRESS);
        }
        Ok(())
    }

    /// The partitions whose offsets have outlived `retention_ms`. It runs from the commit for
    /// groups that only store offsets, from the moment the last member left for all others, and for
    /// a stable consumer group from the commit of a partition whose topic nobody reads any more.
    pub(crate) fn expired(&self, now_ms: i64, retention_ms: i64) -> Vec<(Arc<str>, i32)> {
        let since = match (&self.protocol_type, self.state) {
            (None, _) => None,
            (Some(_), State::Empty) => self.state_since_ms,
            (Some(_), State::Stable) if self.is_consumer() && self.subscribed.is_some() => None,
            (Some(_), _) => return Vec::new(),
        };
        let is_due = |committed: &CommittedOffset| match committed.expires_at_ms {
            Some(at_ms) => now_ms >= at_ms,
            None => {
                now_ms.saturating_sub(since.unwrap_or(committed.committed_at_ms)) >= retention_ms
            }
        };
        let mut due = Vec::new();
        for (topic, partitions) in self.offsets.topics() {
            if self.is_subscribed_to(topic) {
                continue;
            }
            let of_topic = partitions.iter().filter(|(_, committed)| is_due(committed));
            due.extend(of_topic.map(|(partition, _)| (topic.clone(), *partition)));
        }
        due
    }
}

fn check_partition(
    step: &Step<'_>,
    partition: &CommitPartition<'_>,
    growth: usize,
    bytes_left: usize,
) -> ErrorCode {
    let metadata_max = step.config.offset_metadata_max;
    // UTF-8 is never shorter than UTF-16 counted in units: most metadata need not be counted.
    let too_long = partition.metadata.len() > metadata_max
        && partition.metadata.encode_utf16().count() > metadata_max;
    if partition.refused != ErrorCode::NONE {
        partition.refused
    } else if too_long {
        ErrorCode::OFFSET_METADATA_TOO_LARGE
    } else if growth > bytes_left {
        ErrorCode::INVALID_COMMIT_OFFSET_SIZE
    } else {
        ErrorCode::NONE
    }
}

/// A commit refused as a whole; what the caller had refused keeps its code.
pub(crate) fn refused_commit(topics: &[CommitTopic<'_>], error: ErrorCode) -> Answer {
    let topic = |topic: &CommitTopic<'_>| {
        let code = |partition: &CommitPartition<'_>| match partition.refused {
            ErrorCode::NONE => (partition.index, error),
            refused => (partition.index, refused),
        };
        CommittedTopic {
            name: Arc::from(topic.name),
            topic_id: topic.topic_id,
            partitions: topic.partitions.iter().map(code).collect(),
        }
    };
    Answer::Commit(CommitAnswer { topics: topics.iter().map(topic).collect() })
}
