//! A client of few lines, written from the protocol's description and not with our codec, so that
//! it is neither helped nor fooled by it.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const ANSWER_WITHIN: Duration = Duration::from_secs(20);
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// What became of a connection that was written to.
#[derive(Debug, PartialEq)]
pub(crate) enum Outcome {
    /// A frame without its length: correlation id and what follows.
    Answer(Vec<u8>),
    /// The broker ended the connection.
    Closed,
}

pub(crate) struct Connection {
    stream: TcpStream,
}

impl Connection {
    pub(crate) fn open(bootstrap: &str) -> Self {
        let stream = TcpStream::connect(bootstrap).expect("the broker accepts connections");
        stream.set_read_timeout(Some(ANSWER_WITHIN)).expect("not zero");
        stream.set_write_timeout(Some(ANSWER_WITHIN)).expect("not zero");
        stream.set_nodelay(true).expect("a TCP socket");
        Self { stream }
    }

    /// Writes bytes as they are. Whether the broker still reads is told by what comes back.
    pub(crate) fn write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    pub(crate) fn set_read_timeout(&self, within: Duration) {
        self.stream.set_read_timeout(Some(within)).expect("not zero");
    }

    /// The next answer; panics when nothing happens in time.
    pub(crate) fn outcome(&mut self) -> Outcome {
        self.try_outcome().expect("an answer or an end within the time")
    }

    /// The next answer, or None when nothing happens in time.
    pub(crate) fn try_outcome(&mut self) -> Option<Outcome> {
        let mut size = [0_u8; 4];
        match self.stream.read_exact(&mut size) {
            Ok(()) => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                return None;
            }
            Err(_) => return Some(Outcome::Closed),
        }
        let bytes =
            usize::try_from(i32::from_be_bytes(size)).expect("an answer's length is not < 0");
        assert!(bytes <= ANSWER_BYTES_MAX, "an answer of {bytes} bytes");
        let mut answer = vec![0; bytes];
        match self.stream.read_exact(&mut answer) {
            Ok(()) => Some(Outcome::Answer(answer)),
            Err(_) => Some(Outcome::Closed),
        }
    }

    /// Sends a frame and returns what came of it.
    pub(crate) fn exchange(&mut self, frame: &[u8]) -> Outcome {
        self.write(&with_length(frame));
        self.outcome()
    }
}

/// A frame with its length before it.
pub(crate) fn with_length(frame: &[u8]) -> Vec<u8> {
    let length = i32::try_from(frame.len()).expect("test frames are small");
    [&length.to_be_bytes(), frame].concat()
}

/// Bytes of a request or a batch, put together field by field.
#[derive(Default, Clone)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Bytes {
    /// A request's header, version 1: correlation id 7, client id "raw".
    pub(crate) fn request(key: i16, version: i16) -> Self {
        Self::default().i16(key).i16(version).i32(7).string("raw")
    }

    pub(crate) fn i8(self, value: i8) -> Self {
        self.raw(&value.to_be_bytes())
    }

    pub(crate) fn i16(self, value: i16) -> Self {
        self.raw(&value.to_be_bytes())
    }

    pub(crate) fn i32(self, value: i32) -> Self {
        self.raw(&value.to_be_bytes())
    }

    pub(crate) fn i64(self, value: i64) -> Self {
        self.raw(&value.to_be_bytes())
    }

    pub(crate) fn string(self, value: &str) -> Self {
        self.i16(i16::try_from(value.len()).expect("short")).raw(value.as_bytes())
    }

    pub(crate) fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }
}

/// A record batch of format 2 with one record, whose fields a test may then spoil.
pub(crate) fn batch(value: &[u8]) -> Vec<u8> {
    let mut record = vec![0, 0, 0, 1]; // attributes, time delta, offset delta, null key
    put_varint(&mut record, value.len());
    record.extend_from_slice(value);
    record.push(0); // no headers
    let mut records = Vec::new();
    put_varint(&mut records, record.len());
    records.extend_from_slice(&record);
    // One reading: the broker corrects a largest time that is none of the records'.
    let time = now_ms();
    let after_crc = Bytes::default().i16(0).i32(0).i64(time).i64(time);
    let after_crc = after_crc.i64(-1).i16(-1).i32(-1).i32(1).raw(&records);
    seal(after_crc.0, 2)
}

/// Puts the head before the part of a batch that its CRC covers.
pub(crate) fn seal(after_crc: Vec<u8>, magic: i8) -> Vec<u8> {
    let length = i32::try_from(after_crc.len() + 9).expect("test batches are small");
    let crc = crc32c(&after_crc);
    let head = Bytes::default().i64(0).i32(length).i32(-1).i8(magic);
    head.raw(&crc.to_be_bytes()).raw(&after_crc).0
}

/// As [`produce`]; Apache Kafka answers UNKNOWN_TOPIC_OR_PARTITION or NOT_LEADER_OR_FOLLOWER for a
/// moment after it has created a topic.
pub(crate) fn produce_when_ready(good: &mut Connection, topic: &str, batch: &[u8]) -> (i16, i64) {
    let end = Instant::now() + Duration::from_secs(10);
    loop {
        let answer = produce(good, topic, batch);
        if !matches!(answer.0, 3 | 6) || Instant::now() > end {
            return answer;
        }
    }
}

/// `batch` with one field replaced; the CRC is made right again unless the field lies before it.
pub(crate) fn spoilt(position: usize, bytes: &[u8]) -> Vec<u8> {
    let mut batch = batch(b"value");
    batch[position..position + bytes.len()].copy_from_slice(bytes);
    if position < 21 {
        return batch;
    }
    let magic = batch[16] as i8;
    seal(batch.split_off(21), magic)
}

/// The error code and base offset of a Produce v3 of `records` to partition 0, acks=all.
pub(crate) fn produce(connection: &mut Connection, topic: &str, records: &[u8]) -> (i16, i64) {
    produce_to(connection, topic, 0, records)
}

/// As [`produce`], to any partition.
pub(crate) fn produce_to(
    connection: &mut Connection,
    topic: &str,
    partition: i32,
    records: &[u8],
) -> (i16, i64) {
    let request = Bytes::request(0, 3).i16(-1).i16(-1).i32(10_000).i32(1).string(topic).i32(1);
    let bytes = i32::try_from(records.len()).expect("test batches are small");
    let request = request.i32(partition).i32(bytes).raw(records);
    let Outcome::Answer(answer) = connection.exchange(&request.0) else {
        panic!("the broker closed the connection of a Produce request");
    };
    // correlation, topics, name, partitions, index, then error and offset
    let at = 4 + 4 + 2 + topic.len() + 4 + 4;
    (i16_at(&answer, at), i64_at(&answer, at + 2))
}

/// What a Fetch v4 of partition 0 from `offset` answers: error code and record bytes.
pub(crate) fn fetch(connection: &mut Connection, topic: &str, offset: i64) -> (i16, Vec<u8>) {
    fetch_from(connection, topic, 0, offset)
}

/// As [`fetch`], from any partition.
pub(crate) fn fetch_from(
    connection: &mut Connection,
    topic: &str,
    partition: i32,
    offset: i64,
) -> (i16, Vec<u8>) {
    let request = Bytes::request(1, 4).i32(-1).i32(1000).i32(1).i32(1 << 20).i8(0);
    let request = request.i32(1).string(topic).i32(1).i32(partition).i64(offset).i32(1 << 20);
    let Outcome::Answer(answer) = connection.exchange(&request.0) else {
        panic!("the broker closed the connection of a Fetch request");
    };
    // correlation, throttle, topics, name, partitions, index, then error, two offsets, aborted
    let at = 4 + 4 + 4 + 2 + topic.len() + 4 + 4;
    let aborted = usize::try_from(i32_at(&answer, at + 18)).unwrap_or(0);
    assert_eq!(aborted, 0, "nothing was aborted");
    (i16_at(&answer, at), answer[at + 26..].to_vec())
}

/// Creates a topic of one partition by CreateTopics v2; the error code.
pub(crate) fn create_topic(connection: &mut Connection, topic: &str) -> i16 {
    create_topic_with(connection, topic, &[])
}

/// As [`create_topic`], with settings.
pub(crate) fn create_topic_with(
    connection: &mut Connection,
    topic: &str,
    settings: &[(&str, &str)],
) -> i16 {
    create(connection, topic, 1, settings)
}

/// As [`create_topic_with`], of several partitions.
pub(crate) fn create(
    connection: &mut Connection,
    topic: &str,
    partitions: i32,
    settings: &[(&str, &str)],
) -> i16 {
    let request = Bytes::request(19, 2).i32(1).string(topic).i32(partitions).i16(1).i32(0);
    let request = request.i32(i32::try_from(settings.len()).expect("few"));
    let request =
        settings.iter().fold(request, |request, (key, value)| request.string(key).string(value));
    let Outcome::Answer(answer) = connection.exchange(&request.i32(10_000).i8(0).0) else {
        panic!("the broker closed the connection of a CreateTopics request");
    };
    i16_at(&answer, 4 + 4 + 4 + 2 + topic.len())
}

pub(crate) fn i16_at(bytes: &[u8], at: usize) -> i16 {
    i16::from_be_bytes(bytes[at..at + 2].try_into().expect("two bytes"))
}

pub(crate) fn i32_at(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

pub(crate) fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(now.expect("the clock is past 1970").as_millis()).expect("until year 292 million")
}

/// A signed varint in zigzag form, of a value that is not negative.
fn put_varint(bytes: &mut Vec<u8>, value: usize) {
    let mut rest = value * 2;
    while rest >= 0x80 {
        bytes.push((rest & 0x7f) as u8 | 0x80);
        rest >>= 7;
    }
    bytes.push(rest as u8);
}

/// CRC-32C bit by bit: slow, and obviously right.
fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0_u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    })
}
