//! Upper bounds of what clients can make the coordinator keep, with their reasons.
//!
//! Kafka bounds none of this: every group id, member and committed partition costs it heap until it
//! expires. Here one budget covers them all, because any of the three can be the one that grows: a
//! client may use a new group id per process, a Connect cluster sends megabytes of member metadata,
//! and a consumer may commit thousands of partitions. What a request would add beyond the budget is
//! refused; nothing that is kept already is ever dropped for it.

/// Default of [`crate::GroupsConfig::bytes_max`]: room for 1,000 groups of 100 members with 1 KiB
/// of metadata each, or for about two million committed offsets.
pub(crate) const BYTES_MAX_DEFAULT: usize = 256 << 20;

/// Charged for a group beside its id: its struct, its map and timer entries, rounded up.
pub(crate) const GROUP_BYTES: usize = 1_024;

/// Charged for a member beside its strings and bytes: struct, map entries, protocol list.
pub(crate) const MEMBER_BYTES: usize = 512;

/// Charged for a member id that was handed out and has not come back yet, beside the id.
pub(crate) const PENDING_MEMBER_BYTES: usize = 128;

/// Charged for a committed offset beside its metadata.
pub(crate) const OFFSET_BYTES: usize = 128;

/// Charged for a topic with committed offsets beside its name.
pub(crate) const TOPIC_BYTES: usize = 128;

/// How long a member without a known id may stay parked in JoinGroup (Kafka:
/// `NewMemberJoinTimeout`, 5 minutes): it cannot send heartbeats yet, and if it is gone, nothing
/// else would remove it.
pub(crate) const NEW_MEMBER_JOIN_TIMEOUT_MS: u64 = 300_000;
