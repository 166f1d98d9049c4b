//! What waits for its record to be written, and the surroundings of one step of a group.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use millrace_wire::ErrorCode;

use crate::config::GroupsConfig;
use crate::effect::{
    Answer, CommitAnswer, CommittedTopic, DeleteOffsetsAnswer, Effect, JoinAnswer, Now, PersistId,
    Record, WaiterId,
};
use crate::offsets::CommittedOffset;

/// What happens when a batch is written.
#[derive(Debug)]
pub(crate) enum Pending {
    /// Nothing: the group went on already (it became empty).
    Nothing,
    /// The offsets become visible and the commit is answered.
    Commit {
        waiter: WaiterId,
        topics: Vec<CommittedTopic>,
        writes: Vec<(Arc<str>, i32, CommittedOffset)>,
    },
    /// The leader's assignment is handed out, if the generation still waits for it.
    Assignment { generation: i32, assignments: BTreeMap<Arc<str>, Bytes> },
    /// A static member came back under a new id; its join is answered without a rebalance.
    StaticMember(Box<ReplacedMember>),
    /// Tombstones: the offsets go, and the group too when `forget` is set; it is the group's
    /// `metadata_writes` of that time.
    Remove { reply: Option<(WaiterId, Answer)>, removed: Vec<(Arc<str>, i32)>, forget: Option<u64> },
}

/// A static member's return, and what it takes to undo it.
#[derive(Debug)]
pub(crate) struct ReplacedMember {
    pub(crate) waiter: WaiterId,
    pub(crate) generation: i32,
    pub(crate) old_id: Arc<str>,
    pub(crate) new_id: Arc<str>,
    /// Before the return, so that a member of an old version does not think that it leads.
    pub(crate) old_leader: Option<Arc<str>>,
    pub(crate) may_skip_assignment: bool,
    pub(crate) old_protocols: Vec<(Arc<str>, Bytes)>,
    pub(crate) old_rebalance_timeout_ms: i32,
    pub(crate) old_session_timeout_ms: i32,
}

impl Pending {
    /// The reply when the batch was not, or may not have been, written.
    pub(crate) fn refusal(&self, error: ErrorCode) -> Option<(WaiterId, Answer)> {
        match self {
            Self::Nothing | Self::Assignment { .. } => None,
            Self::Commit { waiter, topics, .. } => {
                let mut topics = topics.clone();
                for (_, code) in topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
                    if *code == ErrorCode::NONE {
                        *code = commit_error(error);
                    }
                }
                Some((*waiter, Answer::Commit(CommitAnswer { topics })))
            }
            Self::StaticMember(member) => {
                Some((member.waiter, JoinAnswer::refused("", write_error(error))))
            }
            Self::Remove { reply, .. } => {
                let error = write_error(error);
                reply.as_ref().map(|(waiter, answer)| match answer {
                    Answer::DeleteOffsets(_) => {
                        let answer = DeleteOffsetsAnswer { error, topics: Vec::new() };
                        (*waiter, Answer::DeleteOffsets(answer))
                    }
                    _ => (*waiter, Answer::Delete(error)),
                })
            }
        }
    }
}

/// What a client is told when writing failed with `error` (Kafka:
/// `appendGroupMetadataErrorToResponseError`).
pub(crate) fn write_error(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
        | ErrorCode::NOT_ENOUGH_REPLICAS
        | ErrorCode::NOT_ENOUGH_REPLICAS_AFTER_APPEND
        | ErrorCode::REQUEST_TIMED_OUT => ErrorCode::COORDINATOR_NOT_AVAILABLE,
        ErrorCode::NOT_LEADER_OR_FOLLOWER | ErrorCode::KAFKA_STORAGE_ERROR => {
            ErrorCode::NOT_COORDINATOR
        }
        ErrorCode::MESSAGE_TOO_LARGE
        | ErrorCode::RECORD_LIST_TOO_LARGE
        | ErrorCode::INVALID_FETCH_SIZE => ErrorCode::UNKNOWN_SERVER_ERROR,
        other => other,
    }
}

/// The same for commits, which have a code of their own for what is too large.
fn commit_error(error: ErrorCode) -> ErrorCode {
    match error {
        ErrorCode::MESSAGE_TOO_LARGE
        | ErrorCode::RECORD_LIST_TOO_LARGE
        | ErrorCode::INVALID_FETCH_SIZE => ErrorCode::INVALID_COMMIT_OFFSET_SIZE,
        other => write_error(other),
    }
}

/// The batches that are being written.
#[derive(Debug, Default)]
pub(crate) struct PendingWrites {
    next_id: u64,
    writes: BTreeMap<PersistId, (Arc<str>, Pending)>,
}

impl PendingWrites {
    pub(crate) fn take(&mut self, id: PersistId) -> Option<(Arc<str>, Pending)> {
        self.writes.remove(&id)
    }

    /// All batches of the groups chosen, in the order they were given out.
    pub(crate) fn take_of(&mut self, chosen: impl Fn(&str) -> bool) -> Vec<Pending> {
        let taken = self.writes.extract_if(.., |_, (group, _)| chosen(group));
        taken.map(|(_, (_, pending))| pending).collect()
    }

    /// Partitions with commits of `group` that are being written.
    pub(crate) fn commits_of(&self, group: &str) -> impl Iterator<Item = (Arc<str>, i32)> {
        let of_group = self.writes.values().filter(move |(id, _)| **id == *group);
        of_group.flat_map(|(_, pending)| {
            let writes = match pending {
                Pending::Commit { writes, .. } => writes.as_slice(),
                _ => &[],
            };
            writes.iter().map(|(topic, partition, _)| (topic.clone(), *partition))
        })
    }
}

/// What one step of a group may use: the time, the settings, and ways to act on the outside.
pub(crate) struct Step<'a> {
    pub(crate) now: Now,
    pub(crate) config: &'a GroupsConfig,
    /// What the memory budget still allows.
    pub(crate) bytes_left: usize,
    pub(crate) effects: Vec<Effect>,
    /// Earliest deadline set in this step.
    pub(crate) wake_at_ms: Option<u64>,
    pub(crate) pending: &'a mut PendingWrites,
    pub(crate) parked: &'a mut HashMap<WaiterId, Arc<str>>,
}

impl Step<'_> {
    /// Answers `waiter`, unless it was answered or cancelled before.
    pub(crate) fn reply(&mut self, waiter: WaiterId, answer: Answer) {
        if self.parked.remove(&waiter).is_some() {
            self.effects.push(Effect::Reply { waiter, answer });
        }
    }

    /// Has `records` written, and `then` done.
    pub(crate) fn persist(&mut self, group: &Arc<str>, records: Vec<Record>, then: Pending) {
        let on_done = PersistId(self.pending.next_id);
        self.pending.next_id += 1;
        self.pending.writes.insert(on_done, (group.clone(), then));
        self.effects.push(Effect::Persist { group: group.clone(), records, on_done });
    }

    /// The moment in `ms` from now, at least one millisecond away: a timer that is set while timers
    /// run never runs in the same turn.
    pub(crate) fn deadline_ms(&mut self, ms: u64) -> u64 {
        let at_ms = self.now.monotonic_ms.saturating_add(ms.max(1));
        self.wake_at_ms = Some(self.wake_at_ms.map_or(at_ms, |earliest| earliest.min(at_ms)));
        at_ms
    }

    /// The end of a session of `timeout_ms`.
    pub(crate) fn session_end_ms(&mut self, timeout_ms: i32) -> u64 {
        self.deadline_ms(u64::try_from(timeout_ms).unwrap_or(0))
    }
}
