//! What comes out of the state machine: replies to release and records to write.

use std::sync::Arc;

use bytes::Bytes;
use millrace_wire::{ErrorCode, Uuid};

/// The two clocks, read once per turn by the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Milliseconds of a clock that never goes back: timeouts are measured on it.
    pub monotonic_ms: u64,
    /// Milliseconds since 1970: commits and states are stamped with it, retention is measured on
    /// it.
    pub wall_ms: i64,
}

/// Names a parked request. Chosen by the caller, unique among the requests that are parked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WaiterId(pub u64);

/// Names one [`Effect::Persist`]; handed back with [`crate::Groups::persisted`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PersistId(pub u64);

/// Key and value of one record for `__consumer_offsets`; no value is a tombstone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// The record's key, version first.
    pub key: Vec<u8>,
    /// The record's value, version first.
    pub value: Option<Vec<u8>>,
}

/// One thing the caller must do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Answer the request that came with `waiter`.
    Reply {
        /// Whose request this answers.
        waiter: WaiterId,
        /// The answer.
        answer: Answer,
    },
    /// Append `records` as one batch to the group's partition, then call
    /// [`crate::Groups::persisted`] with `on_done`: for one group in the order of these effects.
    Persist {
        /// The group that places the batch, see [`crate::partition_for`].
        group: Arc<str>,
        /// The batch, in order.
        records: Vec<Record>,
        /// To be handed back with the result.
        on_done: PersistId,
    },
}

/// The answer to a parked or an at once answered request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To `join`.
    Join(JoinAnswer),
    /// To `sync`.
    Sync(SyncAnswer),
    /// To `commit`.
    Commit(CommitAnswer),
    /// To `delete`.
    Delete(ErrorCode),
    /// To `delete_offsets`.
    DeleteOffsets(DeleteOffsetsAnswer),
}

/// Answer to JoinGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinAnswer {
    /// NONE, or why the member is not in the new generation.
    pub error: ErrorCode,
    /// The generation joined; -1 with an error.
    pub generation: i32,
    /// The group's protocol type; none with an error.
    pub protocol_type: Option<Arc<str>>,
    /// The protocol chosen for the generation; none with an error.
    pub protocol_name: Option<Arc<str>>,
    /// Member id of the leader; empty with an error.
    pub leader: Arc<str>,
    /// The leader is not to compute an assignment: the old one still stands (v9).
    pub skip_assignment: bool,
    /// The id the member must use from now on.
    pub member_id: Arc<str>,
    /// For the leader: all members; empty for everyone else.
    pub members: Vec<JoinedMember>,
}

impl JoinAnswer {
    /// An answer that only carries `error` and the member's id.
    pub(crate) fn refused(member_id: &str, error: ErrorCode) -> Answer {
        Answer::Join(Self {
            error,
            generation: -1,
            protocol_type: None,
            protocol_name: None,
            leader: Arc::from(""),
            skip_assignment: false,
            member_id: Arc::from(member_id),
            members: Vec::new(),
        })
    }
}

/// A member as its leader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JoinedMember {
    /// The member's id.
    pub member_id: Arc<str>,
    /// Its `group.instance.id`, for a static member.
    pub instance_id: Option<Arc<str>>,
    /// What it sent for the chosen protocol: opaque.
    pub metadata: Bytes,
}

/// Answer to SyncGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncAnswer {
    /// NONE, or why there is no assignment.
    pub error: ErrorCode,
    /// The group's protocol type; none with an error.
    pub protocol_type: Option<Arc<str>>,
    /// The generation's protocol; none with an error.
    pub protocol_name: Option<Arc<str>>,
    /// The member's assignment: opaque, empty with an error.
    pub assignment: Bytes,
}

impl SyncAnswer {
    /// An answer that only carries `error`.
    pub(crate) fn refused(error: ErrorCode) -> Answer {
        Answer::Sync(Self {
            error,
            protocol_type: None,
            protocol_name: None,
            assignment: Bytes::new(),
        })
    }
}

/// Answer to OffsetCommit: every partition of the request, in its order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommitAnswer {
    /// The request's topics.
    pub topics: Vec<CommittedTopic>,
}

/// One topic of a [`CommitAnswer`] or a [`DeleteOffsetsAnswer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommittedTopic {
    /// The topic's name.
    pub name: Arc<str>,
    /// The topic's id, as the request gave it.
    pub topic_id: Uuid,
    /// Partition and result.
    pub partitions: Vec<(i32, ErrorCode)>,
}

/// Answer to OffsetDelete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteOffsetsAnswer {
    /// Refuses the whole request.
    pub error: ErrorCode,
    /// Every partition of the request, in its order; empty with an `error`.
    pub topics: Vec<CommittedTopic>,
}
