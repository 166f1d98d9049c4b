//! Requests and what comes of them. Texts are those that Kafka 4.3.1 gave for the same requests.

use millrace_wire::messages::create_partitions_request::{
    CreatePartitionsAssignment, CreatePartitionsTopic,
};
use millrace_wire::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use millrace_wire::messages::delete_topics_request::DeleteTopicState;
use millrace_wire::messages::{CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest};

use super::*;
use crate::metadata::image::Endpoint;
use crate::metadata::{Change, MetadataRecord, changes};

mod configs;

/// A cluster of one, changed by decisions as the broker does it.
struct World {
    image: Image,
    config: Config,
    next: u64,
    found: Found,
    cordoned: Vec<Uuid>,
}

const FOLDERS: [Uuid; 2] = [Uuid::from_bytes([5; 16]), Uuid::from_bytes([6; 16])];

impl World {
    fn new(set: &[(&str, &str)]) -> Self {
        let config = Config::of(set.iter().copied()).expect("legal values");
        let mut world = Self {
            image: Image::default(),
            config,
            next: 1000,
            found: Found::new(),
            cordoned: Vec::new(),
        };
        world.start();
        world
    }

    fn start(&mut self) {
        self.image.lead(self.image.leader_epoch() + 1);
        let endpoint = Endpoint {
            listener: "PLAINTEXT".into(),
            host: "h".into(),
            port: 9092,
            security_protocol: 0,
        };
        let own = Registration {
            incarnation: Uuid::from_halves(7, 7),
            endpoints: vec![endpoint],
            directories: FOLDERS.to_vec(),
            found: std::mem::take(&mut self.found),
        };
        let records = self.with(|controller| controller.begin(&own));
        self.apply(&records);
    }

    fn with<T>(&mut self, decide: impl FnOnce(&mut Controller<'_>) -> T) -> T {
        let next = &mut self.next;
        let mut random = || {
            *next += 1;
            *next
        };
        let (image, config) = (&self.image, &self.config);
        let spread = Spread::new(FOLDERS.map(|id| (id, self.cordoned.contains(&id))));
        decide(&mut Controller { image, config, spread, random: &mut random })
    }

    fn apply(&mut self, records: &[MetadataRecord]) {
        self.image.apply(records).expect("decided against this image");
    }

    fn create(&mut self, topics: Vec<CreatableTopic<'_>>) -> Vec<String> {
        let request = CreateTopicsRequest { topics: topics.into(), ..Default::default() };
        let (records, answers) = self.with(|controller| controller.create_topics(&request));
        self.apply(&records);
        answers.iter().map(|answer| shown(&answer.outcome)).collect()
    }

    fn grow(&mut self, topic: CreatePartitionsTopic<'_>) -> String {
        let request = CreatePartitionsRequest { topics: vec![topic].into(), ..Default::default() };
        let (records, answers) = self.with(|controller| controller.create_partitions(&request));
        self.apply(&records);
        shown(&answers[0].outcome)
    }
}

fn shown<T>(outcome: &Result<T, Refusal>) -> String {
    match outcome {
        Ok(_) => "ok".into(),
        Err(refusal) => format!("{} {}", refusal.error.code(), refusal.message),
    }
}

fn topic(name: &str, partitions: i32, factor: i16) -> CreatableTopic<'_> {
    let (num_partitions, replication_factor) = (partitions, factor);
    CreatableTopic { name, num_partitions, replication_factor, ..Default::default() }
}

fn assigned<'a>(name: &'a str, lists: &[(i32, &[i32])]) -> CreatableTopic<'a> {
    let assignments: Vec<_> = lists
        .iter()
        .map(|(partition_index, ids)| CreatableReplicaAssignment {
            partition_index: *partition_index,
            broker_ids: ids.to_vec().into(),
            ..Default::default()
        })
        .collect();
    CreatableTopic { assignments: assignments.into(), ..topic(name, -1, -1) }
}

#[test]
fn creates_topics_by_kafkas_rules() {
    let mut world = World::new(&[("num.partitions", "3")]);
    let (long, longer) = ("x".repeat(249), "x".repeat(250));
    let longer_text = format!(
        "17 Topic name is invalid: the length of '{longer}' is longer than the max allowed \
         length 249"
    );
    let bad = "contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'";
    let factor = "38 Replication factor must be larger than 0, or -1 to use the default value.";
    let count = "37 Number of partitions was set to an invalid non-positive value.";
    let rows = [
        (topic("a.b", 2, 1), "ok".to_owned()),
        (topic("a.b", 2, 1), "36 Topic 'a.b' already exists.".into()),
        (topic("a_b", 2, 1), "17 Topic 'a_b' collides with existing topic: a.b".into()),
        (topic("", 1, 1), "17 Topic name is invalid: the empty string is not allowed".into()),
        (topic(".", 1, 1), "17 Topic name is invalid: '.' is not allowed".into()),
        (topic("..", 1, 1), "17 Topic name is invalid: '..' is not allowed".into()),
        (topic("a b", 1, 1), format!("17 Topic name is invalid: 'a b' {bad}")),
        (topic("ü", 1, 1), format!("17 Topic name is invalid: 'ü' {bad}")),
        (topic(&long, 1, 1), "ok".into()),
        (topic(&longer, 1, 1), longer_text),
        (
            topic("__cluster_metadata", 1, 1),
            "42 Creation of internal topic __cluster_metadata is prohibited.".into(),
        ),
        (
            topic("rf2", 1, 2),
            "38 Unable to replicate the partition 2 time(s): The target replication factor of 2 \
             cannot be reached because only 1 broker(s) are registered or some brokers have all \
             their log directories cordoned."
                .into(),
        ),
        (topic("rf0", 1, 0), factor.into()),
        (topic("rfm2", 1, -2), factor.into()),
        (topic("p0", 0, 1), count.into()),
        (topic("pm2", -2, 1), count.into()),
        (topic("defaults", -1, -1), "ok".into()),
        (topic("big", 10_001, 1), "44 Excessively large number of partitions per request.".into()),
        (assigned("m1", &[(0, &[1]), (1, &[1])]), "ok".into()),
        (
            assigned("m2", &[(0, &[2])]),
            "39 The manual partition assignment includes broker 2, but no such broker is \
             registered."
                .into(),
        ),
        (
            assigned("m3", &[(0, &[1, 1])]),
            "39 The manual partition assignment includes the broker 1 more than once.".into(),
        ),
        (
            assigned("m4", &[(0, &[1]), (2, &[1])]),
            "39 partitions should be a consecutive 0-based integer sequence".into(),
        ),
        (
            assigned("m5", &[(0, &[])]),
            "39 The manual partition assignment includes an empty replica list.".into(),
        ),
    ];
    for (topic, expected) in rows {
        let name = topic.name.to_owned();
        assert_eq!(world.create(vec![topic]), [expected], "{name}");
    }
    assert_eq!(world.image.topic("defaults").expect("created").partitions.len(), 3);
    let twice = vec![topic("new", 1, 1), topic("once", 1, 1), topic("new", 1, 1)];
    assert_eq!(world.create(twice), ["42 Duplicate topic name.", "ok"]);
}

#[test]
fn creates_topics_with_their_settings_or_only_validates() {
    let mut world = World::new(&[]);
    for (name, value, expected) in [
        ("retention.ms", Some("5"), "ok"),
        (
            "retention.ms",
            Some("x"),
            "40 Invalid value x for configuration retention.ms: Not a number of type LONG",
        ),
        ("foo", Some("x"), "40 Unknown topic config name: foo"),
        ("retention.ms", None, "40 Null value not supported for topic configs: retention.ms"),
        (
            "remote.storage.enable",
            Some("true"),
            "40 Tiered Storage functionality is disabled in the broker. Topic cannot be \
             configured with remote log storage.",
        ),
    ] {
        let config = CreatableTopicConfig { name, value, ..Default::default() };
        let wanted = CreatableTopic { configs: vec![config].into(), ..topic("t", 1, 1) };
        let request = CreateTopicsRequest {
            topics: vec![wanted].into(),
            validate_only: true,
            ..Default::default()
        };
        let (records, answers) = world.with(|controller| controller.create_topics(&request));
        assert_eq!((records.len(), &*shown(&answers[0].outcome)), (0, expected));
        let request = CreateTopicsRequest { validate_only: false, ..request };
        let (records, _) = world.with(|controller| controller.create_topics(&request));
        assert_eq!(records.len(), if expected == "ok" { 3 } else { 0 });
    }
}

#[test]
fn deletes_by_name_and_by_id() {
    let mut world = World::new(&[]);
    world.create(vec![topic("a", 2, 1), topic("b", 1, 1)]);
    let id = world.image.topic("b").expect("created").id;
    let by_name = DeleteTopicsRequest {
        topic_names: vec!["b", "a", "nope", "b"].into(),
        ..Default::default()
    };
    let state = |name, topic_id| DeleteTopicState { name, topic_id, ..Default::default() };
    let by_id = DeleteTopicsRequest {
        topics: vec![
            state(None, id),
            state(None, Uuid::from_halves(9, 9)),
            state(Some("a"), id),
            state(None, Uuid::ZERO),
        ]
        .into(),
        ..Default::default()
    };
    let twice = vec![state(Some("b"), Uuid::ZERO), state(None, id)];
    let by_both = DeleteTopicsRequest { topics: twice.into(), ..Default::default() };
    let (_, answers) = world.with(|controller| controller.delete_topics(&by_both, 6));
    assert_eq!((answers.len(), answers[0].id), (1, id), "refused once, and told which");
    for (request, version, expected) in [
        (
            by_name,
            5,
            &[
                "42 Duplicate topic name or id.",
                "ok",
                "3 This server does not host this topic-partition.",
            ][..],
        ),
        (
            by_id,
            6,
            &[
                "ok",
                "100 This server does not host this topic ID.",
                "42 You may not specify both topic name and topic id.",
                "42 Neither topic name nor id were specified.",
            ],
        ),
    ] {
        let (records, answers) =
            world.with(|controller| controller.delete_topics(&request, version));
        let outcomes: Vec<_> = answers.iter().map(|answer| shown(&answer.outcome)).collect();
        assert_eq!(outcomes, expected);
        world.apply(&records);
    }
    assert_eq!(world.image.topics().len(), 0);
    world.create(vec![topic("b", 1, 1)]);
    assert_ne!(world.image.topic("b").expect("made again").id, id, "another topic");
}

#[test]
fn partitions_only_grow() {
    let mut world = World::new(&[]);
    world.create(vec![topic("t", 2, 1)]);
    let to = |name, count| CreatePartitionsTopic {
        name,
        count,
        assignments: None,
        ..Default::default()
    };
    let with = |count, lists: &[&[i32]]| {
        let lists = lists.iter().map(|ids| CreatePartitionsAssignment {
            broker_ids: ids.to_vec().into(),
            ..Default::default()
        });
        let lists: Vec<_> = lists.collect();
        CreatePartitionsTopic { assignments: Some(lists.into()), ..to("t", count) }
    };
    let includes = "39 The manual partition assignment includes";
    let rows = [
        (to("t", 2), "37 Topic already has 2 partition(s).".to_owned()),
        (
            to("t", 1),
            "37 The topic t currently has 2 partition(s); 1 would not be an increase.".into(),
        ),
        (
            to("t", -1),
            "37 The topic t currently has 2 partition(s); -1 would not be an increase.".into(),
        ),
        (to("t", 3), "ok".into()),
        (to("nope", 3), "3 This server does not host this topic-partition.".into()),
        (
            with(5, &[&[1]]),
            "39 Attempted to add 2 additional partition(s), but only 1 assignment(s) were \
             specified."
                .into(),
        ),
        (with(4, &[&[7]]), format!("{includes} broker 7, but no such broker is registered.")),
        (with(4, &[&[1, 1]]), format!("{includes} the broker 1 more than once.")),
        (with(4, &[&[]]), format!("{includes} an empty replica list.")),
        (with(4, &[&[1]]), "ok".into()),
        (to("t", 20_000), "44 Excessively large number of partitions per request.".into()),
    ];
    for (topic, expected) in rows {
        assert_eq!(world.grow(topic), expected);
    }
    assert_eq!(world.image.topic("t").expect("created").partitions.len(), 4);
}

#[test]
fn every_start_raises_the_epochs() {
    let mut world = World::new(&[]);
    world.create(vec![topic("t", 2, 1)]);
    for start in 1..4 {
        let before = world.image.clone();
        world.start();
        let broker = &world.image.brokers()[&1];
        assert!(!broker.fenced && broker.epoch > before.last_offset());
        assert_eq!(world.image.leader_epoch(), start + 1);
        for partition in &world.image.topic("t").expect("created").partitions {
            assert_eq!((partition.leader_epoch, partition.partition_epoch), (start, start));
            assert_eq!((partition.leader, &*partition.isr), (1, &[1][..]));
        }
        assert_eq!(changes(&before, &world.image).len(), 3, "two partitions and the broker");
    }
    let (first, record) = world.with(|controller| controller.allocate_producer_ids());
    world.apply(&[record]);
    assert_eq!((first, world.image.next_producer_id()), (0, 1000));
}

#[test]
fn automatic_creation_skips_what_cannot_be() {
    let mut world = World::new(&[("offsets.topic.num.partitions", "5")]);
    let names = ["a", "b c", "__consumer_offsets", "a"];
    let records = world.with(|controller| controller.auto_create_topics(names));
    let before = world.image.clone();
    world.apply(&records);
    let added: Vec<(String, usize)> = changes(&before, &world.image)
        .into_iter()
        .filter_map(|change| match change {
            Change::TopicAdded(topic) => Some((topic.name.to_string(), topic.partitions.len())),
            _ => None,
        })
        .collect();
    assert_eq!(added, [("a".to_owned(), 1), ("__consumer_offsets".to_owned(), 5)]);
    let offsets = world.image.topic("__consumer_offsets").expect("created");
    assert!(offsets.is_internal() && world.config.topic(&offsets.config).cleanup_policy.compact);
}

#[test]
fn the_folder_with_the_fewest_partitions_gets_the_next() {
    let mut world = World::new(&[]);
    let folders = |world: &World, name: &str| -> Vec<usize> {
        let topic = world.image.topic(name).expect("made");
        let of = |id| FOLDERS.iter().position(|folder| *folder == id).expect("one of ours");
        topic.partitions.iter().map(|partition| of(partition.directory_of(1))).collect()
    };
    assert_eq!(world.create(vec![topic("a", 3, 1), topic("b", 2, 1)]), ["ok", "ok"]);
    assert_eq!((folders(&world, "a"), folders(&world, "b")), (vec![0, 1, 0], vec![1, 0]));
    assert_eq!(world.create(vec![topic("c", 1, 1)]), ["ok"]);
    assert_eq!(folders(&world, "c"), [1]);
    // Found in the second folder at the next start: the first has two partitions less.
    let id = world.image.topic("a").expect("made").id;
    world.found = [((id, 0), FOLDERS[1])].into();
    world.start();
    assert_eq!(folders(&world, "a"), [1, 1, 0]);
    let more =
        CreatePartitionsTopic { name: "c", count: 4, assignments: None, ..Default::default() };
    assert_eq!(world.grow(more.clone()), "ok");
    assert_eq!(folders(&world, "c"), [1, 0, 0, 0]);
    world.cordoned = vec![FOLDERS[1]];
    assert_eq!(world.create(vec![topic("d", 3, 1)]), ["ok"]);
    assert_eq!(folders(&world, "d"), [0, 0, 0]);
    world.cordoned = FOLDERS.to_vec();
    let closed = format!("38 Unable to replicate the partition 1 time(s): {CORDONED}");
    let both = world.create(vec![topic("e", 1, 1), assigned("f", &[(0, &[1])])]);
    assert_eq!(both, [&*closed, "ok"]);
    let more = CreatePartitionsTopic { name: "c", count: 5, ..more };
    assert_eq!(world.grow(more), format!("38 {CORDONED}"));
    let names = ["g", "__consumer_offsets"];
    assert_eq!(world.with(|controller| controller.auto_create_topics(names)).len(), 0);
}
