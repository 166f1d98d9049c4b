//! What goes into the state machine: requests without their wire form, and answers given at once.

use std::sync::Arc;

use bytes::Bytes;
use millrace_wire::{ErrorCode, Uuid};

use crate::State;

/// JoinGroup.
#[derive(Clone, Debug)]
pub struct JoinRequest<'a> {
    /// The request's version: 4 demands a known member id, 9 may skip the assignment.
    pub version: i16,
    /// The group.
    pub group_id: &'a str,
    /// Empty when the member has none yet.
    pub member_id: &'a str,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<&'a str>,
    /// The header's client id, empty when null.
    pub client_id: &'a str,
    /// The peer's address as Kafka prints it, such as `/127.0.0.1`.
    pub client_host: &'a str,
    /// Such as `consumer`, `connect`, `sr`.
    pub protocol_type: &'a str,
    /// Names with opaque metadata, best first.
    pub protocols: &'a [(&'a str, &'a [u8])],
    /// Silence after which the member counts as dead.
    pub session_timeout_ms: i32,
    /// How long the member may take to rejoin; the session timeout in version 0, which lacks it.
    pub rebalance_timeout_ms: i32,
    /// 128 random bits: become the UUID of a new member's id.
    pub random: u128,
}

/// SyncGroup.
#[derive(Clone, Debug)]
pub struct SyncRequest<'a> {
    /// Who asks.
    pub member: MemberRequest<'a>,
    /// Must be the group's when given (v5).
    pub protocol_type: Option<&'a str>,
    /// Must be the generation's when given (v5).
    pub protocol_name: Option<&'a str>,
    /// From the leader: member id and assignment.
    pub assignments: &'a [(&'a str, &'a [u8])],
}

/// A member of a generation, as Heartbeat, SyncGroup and OffsetCommit name it.
#[derive(Clone, Copy, Debug)]
pub struct MemberRequest<'a> {
    /// The group.
    pub group_id: &'a str,
    /// The member, empty in a simple commit.
    pub member_id: &'a str,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<&'a str>,
    /// The generation it believes in, -1 in a simple commit.
    pub generation: i32,
}

/// One member that leaves, or is made to leave.
#[derive(Clone, Copy, Debug)]
pub struct LeavingMember<'a> {
    /// Empty when an administrator removes a static member by its instance id.
    pub member_id: &'a str,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<&'a str>,
}

/// Answer to LeaveGroup.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaveAnswer {
    /// Refuses the whole request. In versions 0 to 2, which have no list, a NONE here is replaced
    /// by the only member's error.
    pub error: ErrorCode,
    /// The members, in the request's order.
    pub members: Vec<LeftMember>,
}

/// One member of a [`LeaveAnswer`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftMember {
    /// As in the request.
    pub member_id: Arc<str>,
    /// As in the request.
    pub instance_id: Option<Arc<str>>,
    /// Whether it left.
    pub error: ErrorCode,
}

/// OffsetCommit.
#[derive(Clone, Debug)]
pub struct CommitRequest<'a> {
    /// The request's version: from 9 an unknown group is told as such.
    pub version: i16,
    /// Who commits.
    pub member: MemberRequest<'a>,
    /// `retention_time_ms` of versions 2 to 4; none when absent or -1.
    pub retention_ms: Option<i64>,
    /// What is committed.
    pub topics: Vec<CommitTopic<'a>>,
}

/// One topic of a [`CommitRequest`], or of a request to delete offsets.
#[derive(Clone, Debug)]
pub struct CommitTopic<'a> {
    /// The topic's name.
    pub name: &'a str,
    /// The topic's id when known, else zero; kept with the offset.
    pub topic_id: Uuid,
    /// The partitions.
    pub partitions: Vec<CommitPartition<'a>>,
}

/// One partition of a [`CommitTopic`].
#[derive(Clone, Debug)]
pub struct CommitPartition<'a> {
    /// The partition.
    pub index: i32,
    /// What the caller found wrong with it before (topic unknown, not allowed), else NONE; a
    /// refused partition is not committed and keeps its place in the answer.
    pub refused: ErrorCode,
    /// The next offset to read.
    pub offset: i64,
    /// Leader epoch of the last record read, -1 when unknown.
    pub leader_epoch: i32,
    /// The client's own words, empty when null.
    pub metadata: &'a str,
    /// Commit time given by version 1; none when absent or -1.
    pub timestamp_ms: Option<i64>,
}

/// One group of DescribeGroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedGroup {
    /// The group's state.
    pub state: State,
    /// Empty for a simple group.
    pub protocol_type: Arc<str>,
    /// The protocol chosen, empty unless the group is Stable.
    pub protocol_name: Arc<str>,
    /// The members.
    pub members: Vec<DescribedMember>,
}

/// One member of a [`DescribedGroup`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedMember {
    /// The member's id.
    pub member_id: Arc<str>,
    /// `group.instance.id` of a static member.
    pub instance_id: Option<Arc<str>>,
    /// The client id it joined with.
    pub client_id: Arc<str>,
    /// The address it joined from.
    pub client_host: Arc<str>,
    /// Its metadata for the chosen protocol; empty unless the group is Stable.
    pub metadata: Bytes,
    /// Its assignment; empty unless the group is Stable.
    pub assignment: Bytes,
}

/// One group of ListGroups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListedGroup {
    /// The group.
    pub group_id: Arc<str>,
    /// Empty for a simple group.
    pub protocol_type: Arc<str>,
    /// The group's state.
    pub state: State,
}
