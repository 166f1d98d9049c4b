//! Record batches that are laid out once and only patched for each send.
//!
//! A template holds the largest batch of a run. The first n records of it are the same bytes
//! whatever n is, so one template serves every count; what changes per send is the header (counts,
//! timestamps, producer, CRC), each value's stamp and, with keys, each key. Layout: Kafka's record
//! batch, magic 2.

use crate::keys::{self, KEY_BYTES, Keys};
use crate::payload::{self, HEADER_BYTES, Stamp};
use crc_fast::crc32_iscsi as crc32c;

/// Bytes before the first record.
pub const BATCH_HEADER_BYTES: usize = 61;

const BATCH_LENGTH: usize = 8;
const CRC: usize = 17;
const ATTRIBUTES: usize = 21;
const LAST_OFFSET_DELTA: usize = 23;
const BASE_TIMESTAMP: usize = 27;
const MAX_TIMESTAMP: usize = 35;
const PRODUCER_ID: usize = 43;
const PRODUCER_EPOCH: usize = 51;
const BASE_SEQUENCE: usize = 53;
const RECORD_COUNT: usize = 57;

/// What the records of a template look like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordShape {
    /// Bytes of the smallest value, at least [`HEADER_BYTES`].
    pub value_bytes: usize,
    /// Bytes of the largest.
    pub value_bytes_max: usize,
    /// Bytes of a record's one header; 0 for none.
    pub header_bytes: usize,
    /// The largest number of records in a batch.
    pub records_max: usize,
    /// Whether each record has a key.
    pub keyed: bool,
    /// The share of each body that is zeros, in percent.
    pub constant_percent: u8,
}

/// The largest batch of a run, uncompressed, with the places to patch.
#[derive(Debug)]
pub struct Template {
    bytes: Vec<u8>,
    slots: Vec<Slot>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    key: Option<usize>,
    value: usize,
    end: usize,
    body_crc: u32,
    /// Bytes of its value and of all before it.
    values_bytes: u64,
}

/// What one send writes into a batch.
#[derive(Debug)]
pub struct Fill<'a> {
    /// Stamp of the first record; the others follow in sequence.
    pub first: Stamp,
    /// Intended time of each record; the last one holds for all that follow.
    pub intended_ns: &'a [u64],
    /// Wall clock of all records, milliseconds.
    pub timestamp_ms: i64,
    /// Producer id, epoch and base sequence; -1, -1, -1 without idempotence.
    pub producer: (i64, i16, i32),
    /// The keys, when records have some.
    pub keys: Option<&'a Keys>,
}

impl Template {
    /// Lays out the largest batch.
    pub fn new(shape: RecordShape, seed: u64) -> Self {
        assert!(shape.value_bytes >= HEADER_BYTES, "a value has room for its stamp");
        assert!(shape.records_max >= 1, "a batch has a record");
        let mut random = fastrand::Rng::with_seed(seed);
        let mut bytes = vec![0; BATCH_HEADER_BYTES];
        bytes[12..16].copy_from_slice(&(-1_i32).to_be_bytes());
        bytes[16] = 2;
        let mut slots = Vec::with_capacity(shape.records_max);
        let mut record = Vec::new();
        let mut values_bytes = 0;
        for index in 0..shape.records_max {
            let value_bytes = random.usize(shape.value_bytes..=shape.value_bytes_max);
            values_bytes += value_bytes as u64;
            record.clear();
            // Attributes and timestamp delta, both zero.
            record.extend_from_slice(&[0, 0]);
            push_varint(&mut record, index as i64);
            let key = if shape.keyed {
                push_varint(&mut record, KEY_BYTES as i64);
                let at = record.len();
                record.extend_from_slice(&[b'0'; KEY_BYTES]);
                Some(at)
            } else {
                push_varint(&mut record, -1);
                None
            };
            push_varint(&mut record, value_bytes as i64);
            let value = record.len();
            record.resize(value + value_bytes, 0);
            let body = &mut record[value + HEADER_BYTES..];
            payload::fill_body(body, &mut random, shape.constant_percent);
            let body_crc = payload::body_crc(body);
            push_header(&mut record, shape.header_bytes);
            push_varint(&mut bytes, record.len() as i64);
            let start = bytes.len();
            bytes.extend_from_slice(&record);
            slots.push(Slot {
                key: key.map(|at| start + at),
                value: start + value,
                end: bytes.len(),
                body_crc,
                values_bytes,
            });
        }
        Self { bytes, slots }
    }

    /// The batch of the first `count` records, not yet patched.
    pub fn batch(&self, count: usize) -> &[u8] {
        &self.bytes[..self.batch_bytes(count)]
    }

    /// Bytes of a batch of `count` records.
    pub fn batch_bytes(&self, count: usize) -> usize {
        self.slots[count - 1].end
    }

    /// Bytes of the values of a batch of `count` records.
    pub fn values_bytes(&self, count: usize) -> u64 {
        self.slots[count - 1].values_bytes
    }

    /// The largest count this template was made for.
    pub fn records_max(&self) -> usize {
        self.slots.len()
    }

    /// Patches `batch`, a copy of `self.batch(count)`, for one send, all but the CRC.
    pub fn patch(
        &self,
        batch: &mut [u8],
        count: usize,
        fill: &Fill<'_>,
        random: &mut fastrand::Rng,
    ) {
        assert_eq!(batch.len(), self.batch_bytes(count), "the copy has the size of its count");
        put_header(batch, count, 0, fill);
        let mut stamp = fill.first;
        let last = fill.intended_ns.len() - 1;
        for (index, slot) in self.slots[..count].iter().enumerate() {
            stamp.intended_ns = fill.intended_ns[index.min(last)];
            payload::write(&mut batch[slot.value..], &stamp, slot.body_crc);
            if let (Some(at), Some(keys)) = (slot.key, fill.keys) {
                let key = keys.pick(stamp.partition, stamp.sequence, random);
                batch[at..at + KEY_BYTES].copy_from_slice(&keys::text(key));
            }
            stamp.sequence += 1;
        }
    }
}

/// Writes the header fields of a send, except the CRC.
pub fn put_header(batch: &mut [u8], count: usize, attributes: i16, fill: &Fill<'_>) {
    let length = i32::try_from(batch.len() - 12).expect("a batch is smaller than 2 GiB");
    let count = i32::try_from(count).expect("a batch has fewer records than bytes");
    let (producer_id, producer_epoch, base_sequence) = fill.producer;
    let mut put = |at: usize, field: &[u8]| batch[at..at + field.len()].copy_from_slice(field);
    put(BATCH_LENGTH, &length.to_be_bytes());
    put(ATTRIBUTES, &attributes.to_be_bytes());
    put(LAST_OFFSET_DELTA, &(count - 1).to_be_bytes());
    put(BASE_TIMESTAMP, &fill.timestamp_ms.to_be_bytes());
    put(MAX_TIMESTAMP, &fill.timestamp_ms.to_be_bytes());
    put(PRODUCER_ID, &producer_id.to_be_bytes());
    put(PRODUCER_EPOCH, &producer_epoch.to_be_bytes());
    put(BASE_SEQUENCE, &base_sequence.to_be_bytes());
    put(RECORD_COUNT, &count.to_be_bytes());
}

/// Computes and writes the CRC: the last thing done to a batch.
pub fn seal(batch: &mut [u8]) {
    let crc = crc32c(&batch[ATTRIBUTES..]);
    batch[CRC..ATTRIBUTES].copy_from_slice(&crc.to_be_bytes());
}

/// The record's headers: none, or one named `h` of so many zeros.
fn push_header(record: &mut Vec<u8>, bytes: usize) {
    if bytes == 0 {
        return record.push(0);
    }
    push_varint(record, 1);
    push_varint(record, 1);
    record.push(b'h');
    push_varint(record, bytes as i64);
    record.resize(record.len() + bytes, 0);
}

fn push_varint(out: &mut Vec<u8>, value: i64) {
    let mut rest = ((value << 1) ^ (value >> 63)) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
