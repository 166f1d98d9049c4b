//! Large produce requests, which the broker receives straight into its log from the second of a
//! connection on, where their batches are what they should be.

use std::time::Duration;

use crate::process::Broker;
use crate::programs::Names;
use crate::raw::{self, Bytes, Connection, Outcome, fetch, i16_at, i64_at, seal, with_length};

/// Larger than any chunk of memory, and than what is received at once.
const LARGE: usize = 600_000;

fn large(fill: u8) -> Vec<u8> {
    raw::batch(&vec![fill; LARGE])
}

/// A request of Produce v3 or v9 to partition 0, with its length.
pub(crate) fn request(version: i16, topic: &str, acks: i16, batch: &[u8]) -> Vec<u8> {
    let frame = if version == 3 {
        let bytes = i32::try_from(batch.len()).expect("below 2 GiB");
        let frame = Bytes::request(0, version).i16(-1).i16(acks).i32(10_000).i32(1).string(topic);
        frame.i32(1).i32(0).i32(bytes).raw(batch)
    } else {
        let (name, records) = (compact(topic.len()), compact(batch.len()));
        let frame = Bytes::request(0, version).raw(&[0, 0]).i16(acks).i32(10_000).raw(&[2]);
        let frame = frame.raw(&name).raw(topic.as_bytes()).raw(&[2]).i32(0).raw(&records);
        frame.raw(batch).raw(&[0, 0, 0])
    };
    with_length(&frame.0)
}

/// A compact length.
fn compact(length: usize) -> Vec<u8> {
    let (mut rest, mut bytes) = (length + 1, Vec::new());
    while rest >= 0x80 {
        bytes.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
    bytes
}

/// Error code and base offset of the answer that comes next.
pub(crate) fn answer(client: &mut Connection, version: i16, topic: &str) -> (i16, i64) {
    let Outcome::Answer(answer) = client.outcome() else { panic!("the connection was closed") };
    let at = match version {
        3 => 4 + 4 + 2 + topic.len() + 4 + 4,
        _ => 4 + 1 + 1 + 1 + topic.len() + 1 + 4,
    };
    (i16_at(&answer, at), i64_at(&answer, at + 2))
}

fn stored(client: &mut Connection, topic: &str, offset: i64) -> Vec<u8> {
    let (error, records) = fetch(client, topic, offset);
    assert_eq!(error, 0, "fetch at {offset}");
    records
}

/// Where bytes first and last differ from those expected; more may follow them.
fn difference(found: &[u8], expected: &[u8]) -> Option<(usize, usize)> {
    assert!(found.len() >= expected.len(), "{} bytes of {}", found.len(), expected.len());
    let differs = |at: &usize| found[*at] != expected[*at];
    let first = (0..expected.len()).find(differs)?;
    Some((first, (0..expected.len()).rfind(differs)?))
}

fn start() -> (Broker, Connection, String) {
    let broker = Broker::start(&["millrace.shards=1"]);
    let mut client = Connection::open(broker.bootstrap());
    let topic = Names::fresh().topic("large");
    assert_eq!(raw::create_topic(&mut client, &topic), 0);
    (broker, client, topic)
}

#[test]
fn large_batches_are_stored_as_they_were_sent() {
    let (_broker, mut client, topic) = start();
    let mut offset = 0;
    for (version, acks) in [(3, 1), (3, -1), (9, 1), (9, -1)] {
        let batches: Vec<Vec<u8>> = (b'a'..b'f').map(large).collect();
        for batch in &batches {
            client.write(&request(version, &topic, acks, batch));
        }
        for number in 0..5 {
            assert_eq!(answer(&mut client, version, &topic), (0, offset + number), "v{version}");
        }
        for batch in &batches {
            // The broker sets the first 16 bytes: offset, length, leader epoch.
            let found = stored(&mut client, &topic, offset);
            let different = difference(&found[16..], &batch[16..]);
            assert_eq!(different, None, "v{version} offset {offset}");
            offset += 1;
        }
    }
}

#[test]
fn large_batches_that_nobody_waits_for_are_stored_as_they_were_sent() {
    let (_broker, mut client, topic) = start();
    let batches = [large(b'a'), large(b'b'), large(b'c')];
    let sent = || batches.iter().cycle().take(30);
    for batch in sent() {
        client.write(&request(3, &topic, 0, batch));
    }
    for (offset, batch) in sent().enumerate() {
        // The fetch goes the way of the batches: it is answered after they were stored.
        let found = stored(&mut client, &topic, offset as i64);
        assert_eq!(difference(&found[16..], &batch[16..]), None, "offset {offset}");
    }
    // One that cannot be stored is told by closing the connection.
    let mut damaged = large(b'x');
    *damaged.last_mut().expect("not empty") ^= 1;
    client.write(&request(3, &topic, 0, &damaged));
    assert_eq!(client.outcome(), Outcome::Closed);
}

#[test]
fn a_large_batch_may_come_bit_by_bit() {
    let (_broker, mut client, topic) = start();
    let batch = large(b'x');
    for offset in 0..4 {
        let frame = request(3, &topic, 1, &batch);
        let (head, rest) = frame.split_at(300 + 100_000 * offset);
        for part in [head, &rest[..7], &rest[7..]] {
            client.write(part);
            std::thread::sleep(Duration::from_millis(50));
        }
        assert_eq!(answer(&mut client, 3, &topic), (0, offset as i64));
        let found = stored(&mut client, &topic, offset as i64);
        assert_eq!(difference(&found[16..], &batch[16..]), None, "offset {offset}");
    }
}

#[test]
fn a_large_batch_that_is_refused_leaves_no_trace() {
    let (_broker, mut client, topic) = start();
    let good = large(b'x');
    client.write(&request(3, &topic, 1, &good));
    assert_eq!(answer(&mut client, 3, &topic), (0, 0));

    let mut damaged = good.clone();
    *damaged.last_mut().expect("not empty") ^= 1;
    let mut old = good.clone().split_off(21);
    old[6..14].copy_from_slice(&i64::MAX.to_be_bytes());
    let mut short = good.clone().split_off(21);
    short[36..40].copy_from_slice(&2_i32.to_be_bytes());
    let rows = [
        ("its checksum", damaged, 2),
        ("its time", seal(old, 2), 32),
        ("its count", seal(short, 2), 87),
    ];
    for (number, (what, bad, code)) in (1..).zip(rows) {
        client.write(&request(3, &topic, 1, &bad));
        assert_eq!(answer(&mut client, 3, &topic), (code, -1), "{what}");
        client.write(&request(3, &topic, 1, &good));
        assert_eq!(answer(&mut client, 3, &topic), (0, number), "after {what}");
    }
    // Small batches follow on what is left of the memory.
    let small = raw::batch(b"small");
    assert_eq!(raw::produce(&mut client, &topic, &small), (0, 4));
    assert!(stored(&mut client, &topic, 3)[good.len() + 16..] == small[16..]);
}

#[test]
fn a_large_batch_that_is_stored_with_a_change_is_stored_whole() {
    let (_broker, mut client, topic) = start();
    let good = large(b'x');
    // Without a time; with a largest time that is none of its records'.
    let times = [(6..22, [(-1_i64).to_be_bytes(); 2].concat()), (14..22, vec![0; 8])];
    // So many that the kernel's buffer may have grown to take one whole.
    for _ in 0..40 {
        client.write(&request(3, &topic, 1, &good));
    }
    for number in 0..40 {
        assert_eq!(answer(&mut client, 3, &topic), (0, number));
    }
    let mut offset = 40;
    for (place, bytes) in times {
        let mut odd = good.clone().split_off(21);
        odd[place].copy_from_slice(&bytes);
        for batch in [&good, &seal(odd, 2), &good] {
            client.write(&request(3, &topic, 1, batch));
            assert_eq!(answer(&mut client, 3, &topic), (0, offset));
            let found = stored(&mut client, &topic, offset);
            assert!(found[61..batch.len()] == batch[61..], "offset {offset}");
            offset += 1;
        }
    }
}

#[test]
fn a_large_batch_that_ends_half_way_leaves_no_trace() {
    let (_broker, mut client, topic) = start();
    let good = large(b'x');
    let mut gone = Connection::open(_broker.bootstrap());
    gone.write(&request(3, &topic, 1, &good));
    assert_eq!(answer(&mut gone, 3, &topic), (0, 0));
    let frame = request(3, &topic, 1, &good);
    gone.write(&frame[..frame.len() / 2]);
    drop(gone);
    assert_eq!(raw::produce(&mut client, &topic, &raw::batch(b"next")), (0, 1));
}

#[test]
fn a_large_batch_sent_again_by_its_producer_is_stored_once() {
    let (_broker, mut client, topic) = start();
    let with_sequence = |sequence: i32| {
        let mut after_crc = large(b'x').split_off(21);
        after_crc[22..30].copy_from_slice(&77_i64.to_be_bytes());
        after_crc[30..32].copy_from_slice(&0_i16.to_be_bytes());
        after_crc[32..36].copy_from_slice(&sequence.to_be_bytes());
        seal(after_crc, 2)
    };
    for (sequence, expected) in [(0, (0, 0)), (1, (0, 1)), (1, (0, 1)), (3, (45, -1)), (2, (0, 2))]
    {
        client.write(&request(3, &topic, -1, &with_sequence(sequence)));
        assert_eq!(answer(&mut client, 3, &topic), expected, "sequence {sequence}");
    }
}
