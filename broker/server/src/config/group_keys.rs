//! Every key of Kafka 4.3 for the settings of one group. They are checked, kept and shown; nothing
//! here has a use for them, nor has Kafka in a classic group: they are for the kinds not built.

use super::broker_keys::{G848, SHARE, STREAMS};
use super::key::Kind::{self, Boolean, Int, String};
use super::key::Range::{self, Any, AtLeast, OneOfAnyCase};
use super::key::Treatment::Noted;
use super::key::{Dynamic, Key, Level};

/// What a group's setting inherits from.
type Inherited = &'static [(&'static str, i64)];

const fn key(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    range: Range,
    inherits: Inherited,
    doc: &'static str,
) -> Key {
    let treatment = Noted(match name.as_bytes()[1] {
        b'o' => G848,
        b'h' => SHARE,
        _ => STREAMS,
    });
    let (level, dynamic, default) = (Level::Medium, Dynamic::Yes, Some(default));
    Key { name, kind, default, range, level, dynamic, treatment, doc, inherits }
}

/// The table, sorted by name.
#[rustfmt::skip]
pub static GROUP_KEYS: &[Key] = &[
    key("consumer.assignment.interval.ms", Int, "1000", AtLeast(0),
        &[("group.consumer.assignment.interval.ms", 1)], "Least time between two assignments."),
    key("consumer.heartbeat.interval.ms", Int, "5000", AtLeast(1),
        &[("group.consumer.heartbeat.interval.ms", 1)], "Time between a member's heartbeats."),
    key("consumer.session.timeout.ms", Int, "45000", AtLeast(1),
        &[("group.consumer.session.timeout.ms", 1)], "Time after which a silent member is gone."),
    key("share.assignment.interval.ms", Int, "1000", AtLeast(0),
        &[("group.share.assignment.interval.ms", 1)], "Least time between two assignments."),
    key("share.auto.offset.reset", String, "latest", Any,
        &[], "Where reading begins: `latest`, `earliest` or `by_duration:` and an ISO duration."),
    key("share.delivery.count.limit", Int, "5", AtLeast(2),
        &[("group.share.delivery.count.limit", 1)], "How often a record is handed out at most."),
    key("share.heartbeat.interval.ms", Int, "5000", AtLeast(1),
        &[("group.share.heartbeat.interval.ms", 1)], "Time between a member's heartbeats."),
    key("share.isolation.level", String, "read_uncommitted",
        OneOfAnyCase(&["read_committed", "read_uncommitted"]),
        &[], "Whether records of open transactions are handed out."),
    key("share.partition.max.record.locks", Int, "2000", AtLeast(100),
        &[("group.share.partition.max.record.locks", 1)], "Records of a partition in hand."),
    key("share.record.lock.duration.ms", Int, "30000", AtLeast(1000),
        &[("group.share.record.lock.duration.ms", 1)], "Time to acknowledge a record."),
    key("share.renew.acknowledge.enable", Boolean, "true", Any,
        &[], "Whether that time may be prolonged."),
    key("share.session.timeout.ms", Int, "45000", AtLeast(1),
        &[("group.share.session.timeout.ms", 1)], "Time after which a silent member is gone."),
    key("streams.assignment.interval.ms", Int, "1000", AtLeast(0),
        &[("group.streams.assignment.interval.ms", 1)], "Least time between two assignments."),
    key("streams.heartbeat.interval.ms", Int, "5000", AtLeast(1),
        &[("group.streams.heartbeat.interval.ms", 1)], "Time between a member's heartbeats."),
    key("streams.initial.rebalance.delay.ms", Int, "3000", AtLeast(0),
        &[("group.streams.initial.rebalance.delay.ms", 1)], "Wait for more members at first."),
    key("streams.num.standby.replicas", Int, "0", AtLeast(0),
        &[("group.streams.num.standby.replicas", 1)], "Standby replicas of a task."),
    key("streams.session.timeout.ms", Int, "45000", AtLeast(1),
        &[("group.streams.session.timeout.ms", 1)], "Time after which a silent member is gone."),
];
