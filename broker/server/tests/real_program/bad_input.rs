//! Whatever bytes arrive, the broker answers with a protocol error or closes that connection, and
//! serves everyone else as before in bounded memory.

use std::time::Duration;

use crate::process::Broker;
use crate::programs::Names;
use crate::raw::{self, Bytes, Connection, Outcome, produce_when_ready, spoilt};

const MEMORY_MAX: u64 = 256 << 20;
/// Frames of real clients, kept by clients/python/capture.py.
const CAPTURED: &str = include_str!("../captured/requests.txt");

/// The broker still serves a client that behaves, and has not grown without bound.
fn assert_well(broker: &mut Broker) {
    let topic = Names::fresh().topic("well");
    let mut good = Connection::open(broker.bootstrap());
    assert_eq!(raw::create_topic(&mut good, &topic), 0, "create");
    let batch = raw::batch(b"still here");
    assert_eq!(produce_when_ready(&mut good, &topic, &batch), (0, 0), "produce");
    let (error, records) = raw::fetch(&mut good, &topic, 0);
    assert_eq!((error, records.len()), (0, batch.len()), "fetch");
    // The broker sets the first 16 bytes: offset, length, leader epoch.
    assert_eq!(records[16..], batch[16..], "the bytes fetched are the bytes sent");
    if broker.is_own() {
        assert!(broker.is_running(), "the broker ended; log:\n{}", broker.log());
        let resident = broker.resident_bytes();
        assert!(resident < MEMORY_MAX, "{resident} bytes resident");
    }
}

#[test]
fn frames_of_impossible_length_close_the_connection() {
    let mut broker = Broker::start(&[]);
    for length in [-1, i32::MIN, 0, 1, 7, i32::MAX, 104_857_601] {
        let mut bad = Connection::open(broker.bootstrap());
        bad.write(&length.to_be_bytes());
        bad.write(&[0; 64]);
        assert_eq!(bad.outcome(), Outcome::Closed, "length {length}");
    }
    assert_well(&mut broker);
}

#[test]
fn requests_that_cannot_be_read_close_the_connection() {
    let metadata = Bytes::request(3, 1);
    let rows = [
        ("an unknown key", Bytes::request(999, 0)),
        ("a negative key", Bytes::request(-1, 0)),
        ("a version above the highest", Bytes::request(3, 99)),
        ("a negative version", Bytes::request(3, -1)),
        ("an array longer than the frame", metadata.clone().i32(i32::MAX).string("topic")),
        ("an array one element too long", metadata.clone().i32(2).string("topic")),
        ("a string longer than the frame", metadata.clone().i32(1).i16(i16::MAX).raw(b"topic")),
        ("a negative length of a string that is not nullable", metadata.i32(1).i16(-1)),
        ("a client id longer than the frame", Bytes::default().i16(3).i16(1).i32(7).i16(300)),
        ("a compact array longer than the frame", flexible_metadata(&[0xff, 0xff, 0xff, 0xff, 7])),
        ("a varint without an end", flexible_metadata(&[0xff; 12])),
        ("half a header", Bytes::default().i16(3).i16(1).i16(0)),
    ];
    let mut broker = Broker::start(&[]);
    for (what, frame) in rows {
        let mut bad = Connection::open(broker.bootstrap());
        assert_eq!(bad.exchange(&frame.0), Outcome::Closed, "{what}");
    }
    assert_well(&mut broker);
}

fn flexible_metadata(body: &[u8]) -> Bytes {
    Bytes::request(3, 12).i8(0).raw(body)
}

#[test]
fn any_version_of_api_versions_is_answered() {
    let broker = Broker::start(&[]);
    for version in [5, 99, i16::MAX] {
        let mut client = Connection::open(broker.bootstrap());
        let frame = Bytes::request(18, version).raw(&[0, 1, 1, 0]);
        let Outcome::Answer(answer) = client.exchange(&frame.0) else {
            panic!("version {version} closes the connection");
        };
        assert_eq!(raw::i16_at(&answer, 4), 35, "UNSUPPORTED_VERSION for version {version}");
        // The same connection goes on with a version that is known.
        let Outcome::Answer(answer) = client.exchange(&Bytes::request(18, 0).0) else {
            panic!("the connection is closed after version {version}");
        };
        assert_eq!(raw::i16_at(&answer, 4), 0, "version 0 after version {version}");
    }
}

#[test]
fn bad_batches_get_an_error_and_store_nothing() {
    const CORRUPT_MESSAGE: i16 = 2;
    const INVALID_RECORD: i16 = 87;
    let two = [raw::batch(b"one"), raw::batch(b"two")].concat();
    let cut = raw::batch(b"value")[..70].to_vec();
    let rows: Vec<(&str, Vec<u8>, i16)> = vec![
        ("a wrong CRC", spoilt(17, &[1, 2, 3, 4]), CORRUPT_MESSAGE),
        ("magic 9", spoilt(16, &[9]), CORRUPT_MESSAGE),
        ("a batch length beyond the records", spoilt(8, &[0, 0, 9, 0]), INVALID_RECORD),
        ("a negative batch length", spoilt(8, &[0xff; 4]), CORRUPT_MESSAGE),
        ("a batch shorter than its header", spoilt(8, &[0, 0, 0, 20]), CORRUPT_MESSAGE),
        ("a batch cut short", cut, INVALID_RECORD),
        ("a count of 2 with one record", spoilt(57, &[0, 0, 0, 2]), INVALID_RECORD),
        ("a count of 0 with one record", spoilt(57, &[0, 0, 0, 0]), INVALID_RECORD),
        ("a negative count", spoilt(57, &[0xff; 4]), INVALID_RECORD),
        ("a last offset that is no sum of the count", spoilt(23, &[0, 0, 0, 7]), INVALID_RECORD),
        ("a base offset of 7", spoilt(0, &[0, 0, 0, 0, 0, 0, 0, 7]), INVALID_RECORD),
        ("two batches in one partition", two, INVALID_RECORD),
    ];
    let mut broker = Broker::start(&[]);
    let topic = Names::fresh().topic("bad");
    let mut client = Connection::open(broker.bootstrap());
    assert_eq!(raw::create_topic(&mut client, &topic), 0, "create");
    assert_eq!(produce_when_ready(&mut client, &topic, &raw::batch(b"first")), (0, 0), "first");
    let mut wrong = Vec::new();
    for (what, records, error) in &rows {
        let found = raw::produce(&mut client, &topic, records).0;
        if found != *error {
            wrong.push(format!("{what}: error {found}, should be {error}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(raw::produce(&mut client, &topic, &raw::batch(b"second")), (0, 1), "second");
    assert_well(&mut broker);
}

#[test]
fn slow_senders_hold_up_nobody() {
    let mut broker = Broker::start(&[]);
    let frame = raw::with_length(&Bytes::request(3, 1).i32(-1).0);
    let mut slow: Vec<Connection> = (0..20).map(|_| Connection::open(broker.bootstrap())).collect();
    for byte in frame.chunks(1) {
        for client in &mut slow {
            assert!(client.write(byte), "a slow sender is not cut off");
        }
        let mut quick = Connection::open(broker.bootstrap());
        let answer = quick.exchange(&Bytes::request(18, 0).0);
        assert!(matches!(answer, Outcome::Answer(_)), "a quick client is served meanwhile");
    }
    for client in &mut slow {
        assert!(matches!(client.outcome(), Outcome::Answer(_)), "a slow sender is served");
    }
    assert_well(&mut broker);
}

#[test]
fn silent_connections_cost_little_and_hold_up_nobody() {
    /// An idle connection may cost this much.
    const IDLE_BYTES_MAX: u64 = 16 << 10;
    let mut broker = Broker::start(&["max.connections=20000"]);
    let before = if broker.is_own() { broker.resident_bytes() } else { 0 };
    let count = silent_count();
    let mut silent = Vec::with_capacity(count);
    for index in 0..count {
        let mut connection = Connection::open(broker.bootstrap());
        // Half of them have said the beginning of something.
        if index % 2 == 0 {
            assert!(connection.write(&[0, 0]), "half a length is accepted");
        }
        silent.push(connection);
    }
    // It accepted all of them when the last one is served.
    let mut last = Connection::open(broker.bootstrap());
    assert!(matches!(last.exchange(&Bytes::request(18, 0).0), Outcome::Answer(_)));
    if broker.is_own() {
        let each = broker.resident_bytes().saturating_sub(before) / count as u64;
        assert!(each <= IDLE_BYTES_MAX, "{each} bytes for each of {count} idle connections");
        println!("{each} bytes for each of {count} idle connections");
    }
    assert_well(&mut broker);
    drop(silent);
    assert_well(&mut broker);
}

/// Ten thousand, or what this process may open.
fn silent_count() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").expect("Linux has it");
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3)).expect("it has the line");
    let limit = soft.parse::<usize>().unwrap_or(usize::MAX);
    let count = limit.saturating_sub(500).min(10_000);
    if count < 10_000 {
        println!("only {count} silent connections: the limit of open files is {limit}");
    }
    count
}

/// A generator of the xorshift family: the same numbers in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % end as u64) as usize
    }
}

/// One to four changes, each of a kind that parsers get wrong.
fn mutated(frame: &[u8], numbers: &mut Numbers) -> Vec<u8> {
    const EXTREMES: [[u8; 4]; 6] = [
        [0xff, 0xff, 0xff, 0xff],
        [0x7f, 0xff, 0xff, 0xff],
        [0x80, 0, 0, 0],
        [0, 0, 0, 0],
        [0, 0xff, 0xff, 0xff],
        [0xff, 0xff, 0xff, 0x0f],
    ];
    let mut frame = frame.to_vec();
    for _ in 0..=numbers.below(4) {
        // The key stays in most of them, so that the mutant reaches that API's code.
        let at = 2 + numbers.below(frame.len().saturating_sub(2).max(1));
        let at = at.min(frame.len() - 1);
        match numbers.below(6) {
            0 => frame[at] ^= 1 << numbers.below(8),
            1 => frame[at] = numbers.below(256) as u8,
            2 => frame.truncate(at.max(1)),
            3 => {
                let end = (at + 4).min(frame.len());
                frame[at..end].copy_from_slice(&EXTREMES[numbers.below(6)][..end - at]);
            }
            4 => {
                let piece = frame[at..].to_vec();
                frame.extend_from_slice(&piece);
            }
            _ => {
                frame.remove(at);
            }
        }
        if frame.len() < 4 {
            break;
        }
    }
    frame
}

#[test]
fn mutated_requests_of_real_clients_harm_nobody() {
    const MUTANTS_EACH: usize = 40;
    let mut broker = Broker::start(&[]);
    let captured: Vec<Vec<u8>> = CAPTURED
        .lines()
        .map(|line| from_hex(line.split(' ').nth(2).expect("key, version, frame")))
        .collect();
    assert!(captured.len() > 300, "only {} captured requests", captured.len());
    let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15);
    let mut sent = 0;
    for frame in &captured {
        let mut connection = Connection::open(broker.bootstrap());
        for _ in 0..MUTANTS_EACH {
            // A mutant may ask to wait, or for no answer: then a new connection goes on.
            connection.set_read_timeout(Duration::from_millis(20));
            let alive = connection.write(&raw::with_length(&mutated(frame, &mut numbers)));
            sent += 1;
            if !alive || !matches!(connection.try_outcome(), Some(Outcome::Answer(_))) {
                connection = Connection::open(broker.bootstrap());
            }
        }
        if broker.is_own() {
            let key = raw::i16_at(frame, 0);
            assert!(broker.is_running(), "ended at key {key}; log:\n{}", broker.log());
        }
    }
    println!("{sent} mutants of {} requests", captured.len());
    assert_well(&mut broker);
}

fn from_hex(text: &str) -> Vec<u8> {
    let digits = text.as_bytes().chunks(2);
    let pair = |pair| std::str::from_utf8(pair).expect("the file is ASCII");
    digits.map(|two| u8::from_str_radix(pair(two), 16).expect("hex digits")).collect()
}
