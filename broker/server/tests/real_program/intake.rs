//! What comes in is bounded: connections, and memory for requests that are being received.

use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::landing::{answer, request};
use crate::process::Broker;
use crate::programs::Names;
use crate::raw::{self, Bytes, Connection, Outcome, with_length};

/// Much longer than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// More than is received of any request before there is memory for all of it.
const HELD: usize = 300_000;

#[test]
fn large_requests_wait_for_memory_that_slow_ones_hold() {
    let overrides = ["queued.max.request.bytes=1000000", "millrace.shards=1"];
    let broker = Broker::start(&overrides);
    let topic = Names::fresh().topic("large");
    let mut small = Connection::open(broker.bootstrap());
    assert_eq!(raw::create_topic(&mut small, &topic), 0);
    let frame = request(3, &topic, 1, &raw::batch(&vec![b'x'; 800_000]));

    for (round, ends_well) in [(0, true), (2, false)] {
        // The answer to a first, small request says that what follows it is being received.
        let api_versions = with_length(&Bytes::request(18, 0).0);
        let mut slow = Connection::open(broker.bootstrap());
        slow.write(&[&api_versions, &frame[..HELD]].concat());
        assert!(matches!(slow.outcome(), Outcome::Answer(_)));

        let (sender, receiver) = mpsc::channel();
        let (bootstrap, frame_of_quick) = (broker.bootstrap().to_owned(), frame.clone());
        let topic_of_quick = topic.clone();
        let quick = thread::spawn(move || {
            let mut quick = Connection::open(&bootstrap);
            quick.set_read_timeout(LONG);
            quick.write(&frame_of_quick);
            sender.send(answer(&mut quick, 3, &topic_of_quick)).expect("the test waits");
        });
        let early = receiver.recv_timeout(Duration::from_millis(500));
        assert!(early.is_err(), "round {round}: it did not wait");
        let offset = small_one(&mut small, &topic);

        let mut expected = offset + 1;
        if ends_well {
            slow.write(&frame[HELD..]);
            assert_eq!(answer(&mut slow, 3, &topic), (0, expected), "round {round}");
            expected += 1;
        } else {
            drop(slow);
        }
        let late = receiver.recv_timeout(LONG).expect("an answer");
        assert_eq!(late, (0, expected), "round {round}");
        quick.join().expect("it ended");
    }
}

/// Stores a small record meanwhile; its offset.
fn small_one(client: &mut Connection, topic: &str) -> i64 {
    let (error, offset) = raw::produce(client, topic, &raw::batch(b"small"));
    assert_eq!(error, 0);
    offset
}

#[test]
fn connections_of_one_address_are_limited() {
    let broker = Broker::start(&["max.connections.per.ip=2"]);
    let api_versions = Bytes::request(18, 0).0;
    // Connections that have just been closed may count for a moment longer.
    let open = || {
        for _ in 0..600 {
            let mut client = Connection::open(broker.bootstrap());
            if matches!(client.exchange(&api_versions), Outcome::Answer(_)) {
                return client;
            }
            thread::sleep(Duration::from_millis(50));
        }
        panic!("no connection was let in");
    };
    let (first, mut second) = (open(), open());
    let mut third = Connection::open(broker.bootstrap());
    assert_eq!(third.exchange(&api_versions), Outcome::Closed);
    drop(first);
    let mut next = open();
    for client in [&mut second, &mut next] {
        assert!(matches!(client.exchange(&api_versions), Outcome::Answer(_)));
    }
    assert!(broker.log().contains("max.connections.per.ip is 2 for it"), "{}", broker.log());
}
