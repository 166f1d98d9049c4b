//! What is in the data folder, and what becomes of it when the broker is started again.

use std::fs;

use crate::process::Broker;
use crate::programs::Names;
use crate::raw::{
    Bytes, Connection, Outcome, batch, create_topic, fetch, i16_at, produce, produce_when_ready,
};

/// The broker's end and start again, as a name and what does it.
type Restart = (&'static str, fn(&mut Broker));
const RESTARTS: [Restart; 2] =
    [("a kill", Broker::restart_after_kill), ("a clean stop", Broker::restart_cleanly)];

/// A request about one topic; its error code, at this place of the answer.
fn exchange(connection: &mut Connection, request: Bytes, at: usize) -> i16 {
    let Outcome::Answer(answer) = connection.exchange(&request.0) else {
        panic!("the broker closed the connection");
    };
    i16_at(&answer, at)
}

fn delete_topic(connection: &mut Connection, topic: &str) -> i16 {
    let request = Bytes::request(20, 1).i32(1).string(topic).i32(10_000);
    exchange(connection, request, 4 + 4 + 4 + 2 + topic.len())
}

fn delete_records(connection: &mut Connection, topic: &str, before: i64) -> i16 {
    let request = Bytes::request(21, 0).i32(1).string(topic).i32(1).i32(0).i64(before).i32(10_000);
    exchange(connection, request, 4 + 4 + 4 + 2 + topic.len() + 4 + 4 + 8)
}

#[test]
fn a_topic_made_again_keeps_its_records_over_restarts() {
    let mut broker = Broker::start(&[]);
    if !broker.is_own() {
        return;
    }
    let topic = Names::fresh().topic("again");
    let record = batch(b"value");
    let mut client = Connection::open(broker.bootstrap());
    assert_eq!(create_topic(&mut client, &topic), 0);
    for offset in 0..5 {
        assert_eq!(produce_when_ready(&mut client, &topic, &record), (0, offset));
    }
    assert_eq!(delete_records(&mut client, &topic, 3), 0);
    assert_eq!(delete_topic(&mut client, &topic), 0);
    assert_eq!(create_topic(&mut client, &topic), 0);
    for offset in 0..2 {
        assert_eq!(produce(&mut client, &topic, &record), (0, offset));
    }
    for (what, restart) in RESTARTS {
        restart(&mut broker);
        let mut client = Connection::open(broker.bootstrap());
        let (error, records) = fetch(&mut client, &topic, 0);
        assert_eq!((error, records.len()), (0, 2 * record.len()), "after {what}");
    }
}

#[test]
fn the_metadata_is_saved_in_checkpoints_and_read_from_them() {
    let mut broker = Broker::start(&["metadata.log.max.record.bytes.between.snapshots=2000"]);
    if !broker.is_own() {
        return;
    }
    let names = Names::fresh();
    let topics: Vec<String> = (0..60).map(|number| names.topic(&number.to_string())).collect();
    let mut client = Connection::open(broker.bootstrap());
    for topic in &topics {
        assert_eq!(create_topic(&mut client, topic), 0);
    }
    assert_eq!(delete_topic(&mut client, &topics[0]), 0);
    for (what, restart) in RESTARTS {
        let folder = broker.data_folder();
        let files = fs::read_dir(folder.join("__cluster_metadata-0")).expect("it is there");
        let names = files.map(|file| file.expect("readable").file_name());
        let checkpoints = names.filter(|name| name.to_string_lossy().ends_with(".checkpoint"));
        assert_eq!(checkpoints.count(), 2, "the newest, and one to fall back on");
        // What lies below the log's start can only come from a checkpoint.
        let starts = fs::read_to_string(folder.join("log-start-offset-checkpoint"));
        let starts = starts.expect("checkpoints move the start");
        assert!(starts.contains("__cluster_metadata 0 "), "{starts}");
        restart(&mut broker);
        let mut client = Connection::open(broker.bootstrap());
        let errors = topics.iter().map(|topic| produce(&mut client, topic, &batch(b"v")).0);
        let expected: Vec<i16> =
            topics.iter().map(|topic| 3 * i16::from(*topic == topics[0])).collect();
        assert_eq!(errors.collect::<Vec<_>>(), expected, "after {what}");
    }
}
