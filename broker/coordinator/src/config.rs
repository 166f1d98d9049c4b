//! The settings of group coordination, under Kafka's names and defaults.

use crate::limits;

/// Settings of [`crate::Groups`]; durations are in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupsConfig {
    /// `group.min.session.timeout.ms`.
    pub session_timeout_min_ms: i32,
    /// `group.max.session.timeout.ms`.
    pub session_timeout_max_ms: i32,
    /// `group.initial.rebalance.delay.ms`: how long a group that was empty waits for more members.
    pub initial_rebalance_delay_ms: u64,
    /// `group.max.size`: members one group may have.
    pub members_max: usize,
    /// `offset.metadata.max.bytes`: longest metadata of one commit. Kafka counts UTF-16 units.
    pub offset_metadata_max: usize,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`.
    pub retention_check_interval_ms: u64,
    /// Memory that groups, members and offsets may take together; see [`crate::limits`].
    pub bytes_max: usize,
}

impl Default for GroupsConfig {
    fn default() -> Self {
        Self {
            session_timeout_min_ms: 6_000,
            session_timeout_max_ms: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            members_max: i32::MAX as usize,
            offset_metadata_max: 4_096,
            offsets_retention_ms: 7 * 24 * 60 * 60 * 1_000,
            retention_check_interval_ms: 600_000,
            bytes_max: limits::BYTES_MAX_DEFAULT,
        }
    }
}
