//! Changes of settings and what comes of them.

use millrace_wire::messages::alter_configs_request::{AlterConfigsResource, AlterableConfig};
use millrace_wire::messages::incremental_alter_configs_request as incremental;
use millrace_wire::messages::{AlterConfigsRequest, IncrementalAlterConfigsRequest};

use super::{World, shown, topic};
use crate::metadata::ResourceType;

const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

impl World {
    fn alter(&mut self, kind: i8, name: &str, changes: &[(&str, i8, Option<&str>)]) -> String {
        let configs: Vec<_> = changes
            .iter()
            .map(|(name, operation, value)| incremental::AlterableConfig {
                name,
                config_operation: *operation,
                value: *value,
                ..Default::default()
            })
            .collect();
        let resource = incremental::AlterConfigsResource {
            resource_type: kind,
            resource_name: name,
            configs: configs.into(),
            ..Default::default()
        };
        let resources = vec![resource].into();
        let request = IncrementalAlterConfigsRequest { resources, ..Default::default() };
        let (records, answers) =
            self.with(|controller| controller.incremental_alter_configs(&request));
        self.apply(&records);
        shown(&answers[0].outcome)
    }

    fn topic_config(&self, topic: &str) -> String {
        let configs = &self.image.topic(topic).expect("created").config;
        configs.iter().map(|(key, value)| format!("{key}={value} ")).collect()
    }
}

/// Topic, key, operation and value; the answer, and what the topic `t` has then.
type TopicChange =
    (&'static str, &'static str, i8, Option<&'static str>, &'static str, &'static str);

const TOPIC_CHANGES: &[TopicChange] = &[
    ("t", "retention.ms", SET, Some("10"), "ok", "retention.ms=10 "),
    (
        "t",
        "retention.ms",
        SET,
        Some("x"),
        "40 Invalid value x for configuration retention.ms: Not a number of type LONG",
        "retention.ms=10 ",
    ),
    ("t", "foo", SET, Some("x"), "40 Unknown topic config name: foo", "retention.ms=10 "),
    (
        "nope",
        "retention.ms",
        SET,
        Some("1"),
        "3 The topic 'nope' does not exist.",
        "retention.ms=10 ",
    ),
    (
        "",
        "retention.ms",
        SET,
        Some("1"),
        "42 Default topic resources are not allowed.",
        "retention.ms=10 ",
    ),
    (
        "t",
        "retention.ms",
        APPEND,
        Some("1"),
        "40 Can't APPEND to key retention.ms because its type is not LIST.",
        "retention.ms=10 ",
    ),
    (
        "t",
        "retention.ms",
        SUBTRACT,
        Some("1"),
        "40 Can't SUBTRACT to key retention.ms because its type is not LIST.",
        "retention.ms=10 ",
    ),
    (
        "t",
        "retention.ms",
        SET,
        None,
        "42 Null value not supported for : retention.ms",
        "retention.ms=10 ",
    ),
    ("t", "retention.ms", DELETE, Some(""), "ok", ""),
    ("t", "foo", DELETE, Some(""), "ok", ""),
    ("t", "cleanup.policy", APPEND, Some("compact"), "ok", "cleanup.policy=delete,compact "),
    ("t", "cleanup.policy", APPEND, Some("compact"), "ok", "cleanup.policy=delete,compact "),
    ("t", "cleanup.policy", SUBTRACT, Some("compact,zzz"), "ok", "cleanup.policy=delete "),
    ("t", "cleanup.policy", SUBTRACT, Some("delete"), "ok", "cleanup.policy= "),
    ("t", "cleanup.policy", DELETE, None, "ok", ""),
];

#[test]
fn settings_of_topics_change_all_or_not_at_all() {
    let mut world = World::new(&[]);
    world.create(vec![topic("t", 1, 1)]);
    for (name, key, operation, value, expected, left) in TOPIC_CHANGES {
        let found = world.alter(2, name, &[(key, *operation, *value)]);
        assert_eq!((&*found, &*world.topic_config("t")), (*expected, *left), "{key} {value:?}");
    }
    let twice = [("retention.ms", SET, Some("1")), ("retention.ms", SET, Some("2"))];
    assert_eq!(world.alter(2, "t", &twice), "42 Error due to duplicate config keys");
    let half = [("retention.ms", SET, Some("77")), ("foo", SET, Some("2"))];
    assert_eq!(world.alter(2, "t", &half), "40 Unknown topic config name: foo");
    assert_eq!(world.topic_config("t"), "");
}

#[test]
fn settings_of_brokers_are_those_that_may_change() {
    let mut world = World::new(&[]);
    for (name, key, value, expected) in [
        ("1", "log.retention.ms", "5", "ok"),
        ("", "message.max.bytes", "2000000", "ok"),
        ("1", "leader.replication.throttled.rate", "5", "ok"),
        ("1", "sasl.kerberos.min.time.before.relogin", "58000", "ok"),
        (
            "1",
            "log.retention.ms",
            "x",
            "42 Invalid value x for configuration log.retention.ms: Not a number of type LONG",
        ),
        (
            "1",
            "num.partitions",
            "2",
            "42 Cannot update these configs dynamically: [num.partitions]",
        ),
        (
            "",
            "min.insync.replicas",
            "0",
            "42 Invalid value 0 for configuration min.insync.replicas: Value must be at least 1",
        ),
        ("1", "foo", "1", "42 Unknown broker config name: foo"),
        (
            "2",
            "log.retention.ms",
            "5",
            "42 Unexpected broker id, expected 1 or empty string, but received 2",
        ),
    ] {
        assert_eq!(world.alter(4, name, &[(key, 0, Some(value))]), expected, "{name} {key}");
    }
    assert_eq!(world.alter(8, "1", &[("x.Y", 0, Some("INFO"))]), "40 Logger x.Y does not exist!");
    let own = world.image.configs(ResourceType::Broker, "1").expect("set");
    assert_eq!(own.len(), 3);
    let all = world.image.configs(ResourceType::Broker, "").expect("set");
    let config = world.config.with_dynamic(all, own).expect("checked before");
    let topic = config.topic(&Default::default());
    assert_eq!((topic.retention_ms, topic.max_message_bytes), (5, 2_000_000));
}

#[test]
fn settings_of_groups_are_kept_within_the_bounds_of_the_broker() {
    let mut world = World::new(&[("group.consumer.max.session.timeout.ms", "50000")]);
    let key = "consumer.session.timeout.ms";
    for (name, key, value, expected) in [
        ("g", key, "46000", "ok"),
        (
            "g",
            key,
            "44999",
            "40 consumer.session.timeout.ms must be greater than or equal to group.consumer.min.session.timeout.ms",
        ),
        (
            "g",
            key,
            "50001",
            "40 consumer.session.timeout.ms must be less than or equal to group.consumer.max.session.timeout.ms",
        ),
        ("g", "retention.ms", "1", "40 Unknown group config name: retention.ms"),
        ("", key, "46000", "42 Default group resources are not allowed."),
    ] {
        assert_eq!(world.alter(32, name, &[(key, 0, Some(value))]), expected, "{name} {key}");
    }
    let own = world.image.configs(ResourceType::Group, "g").expect("set");
    let rows = world.config.describe_group(own);
    let told = |name| {
        let row = rows.iter().find(|row| row.key.name == name).expect("every key is listed");
        (row.value.as_deref(), row.source as i8)
    };
    assert_eq!(told(key), (Some("46000"), 8));
    assert_eq!(told("consumer.heartbeat.interval.ms"), (Some("5000"), 5));
}

#[test]
fn the_older_alter_configs_replaces_all() {
    let mut world = World::new(&[]);
    world.create(vec![topic("t", 1, 1)]);
    world.alter(2, "t", &[("retention.ms", 0, Some("1")), ("flush.ms", 0, Some("2"))]);
    let config = AlterableConfig { name: "flush.ms", value: Some("3"), ..Default::default() };
    let resource = AlterConfigsResource {
        resource_type: 2,
        resource_name: "t",
        configs: vec![config].into(),
        ..Default::default()
    };
    let request = AlterConfigsRequest { resources: vec![resource].into(), ..Default::default() };
    let (records, _) = world.with(|controller| controller.alter_configs(&request));
    world.apply(&records);
    assert_eq!(world.topic_config("t"), "flush.ms=3 ");
}
