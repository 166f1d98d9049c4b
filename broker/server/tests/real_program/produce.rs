//! Produce requests over the wire.

use crate::process::Broker;
use crate::programs::Names;
use crate::raw::{Bytes, Connection, Outcome, batch, fetch, with_length};

/// No byte is owed for acks=0, and the connection stays, whichever shard has the partition.
#[test]
fn acks_0_keeps_the_connection_whatever_shard_appends() {
    let broker = Broker::start(&["millrace.shards=2", "num.partitions=1"]);
    let mut client = Connection::open(broker.bootstrap());
    let names = Names::fresh();
    // Topics of one partition are spread over the shards by their random ids.
    let topics: Vec<String> = (0..8).map(|number| names.topic(&number.to_string())).collect();
    for topic in &topics {
        assert_eq!(crate::raw::create_topic(&mut client, topic), 0);
    }
    let record = batch(b"value");
    for topic in &topics {
        let request = Bytes::request(0, 3).i16(-1).i16(0).i32(10_000).i32(1).string(topic).i32(1);
        let bytes = i32::try_from(record.len()).expect("small");
        let request = request.i32(0).i32(bytes).raw(&record);
        assert!(client.write(&with_length(&request.0)), "{topic}");
    }
    let Outcome::Answer(answer) = client.exchange(&Bytes::request(18, 0).0) else {
        panic!("the connection was closed");
    };
    assert_eq!(answer[..6], [0, 0, 0, 7, 0, 0], "the next answer is that of ApiVersions");
    for topic in &topics {
        assert_eq!(fetch(&mut client, topic, 0).1.len(), record.len(), "{topic}");
    }
}
