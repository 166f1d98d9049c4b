//! Batches of magic 2 from records, in buffers that are used again.

use crate::batch::{
    CONTROL, DELETE_HORIZON, HEADER_BYTES, LOG_APPEND_TIME, LOG_OVERHEAD, TRANSACTIONAL, patch_crc,
    position,
};
use crate::compression::{Compression, CompressionError};
use crate::writer::Writer;

/// What the header of a batch says besides its records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields of the format")]
pub struct BatchOptions {
    pub base_offset: i64,
    pub partition_leader_epoch: i32,
    pub compression: Compression,
    /// The level at which it compresses, if not the usual one.
    pub level: Option<i32>,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub transactional: bool,
    pub control: bool,
    /// The time of all records, instead of their own.
    pub log_append_time: Option<i64>,
    /// Instead of the last record's: compaction keeps it when that record goes.
    pub last_offset_delta: Option<i32>,
    /// The time given to [`BatchBuilder::begin`] is that from which tombstones may go.
    pub delete_horizon: bool,
}

impl Default for BatchOptions {
    fn default() -> Self {
        BatchOptions {
            base_offset: 0,
            partition_leader_epoch: -1,
            compression: Compression::None,
            level: None,
            producer_id: -1,
            producer_epoch: -1,
            base_sequence: -1,
            transactional: false,
            control: false,
            log_append_time: None,
            last_offset_delta: None,
            delete_horizon: false,
        }
    }
}

/// Collects records and makes a batch of them; then it is ready for the next.
#[derive(Debug, Default)]
pub struct BatchBuilder {
    /// Room for a header, and the records uncompressed.
    plain: Writer,
    /// The batch with its records compressed.
    compressed: Vec<u8>,
    record_count: i32,
    last_offset_delta: i32,
    /// Set by [`BatchBuilder::begin`] until the first record.
    given_timestamp: Option<i64>,
    base_timestamp: i64,
    max_timestamp: i64,
}

impl BatchBuilder {
    /// A builder without records.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many records were appended since the last batch.
    pub fn record_count(&self) -> i32 {
        self.record_count
    }

    /// The size of the batch so far, uncompressed.
    pub fn bytes(&self) -> usize {
        self.plain.bytes().len().max(HEADER_BYTES)
    }

    /// Has the next batch begin at this time instead of its first record's.
    pub fn begin(&mut self, base_timestamp: i64) {
        self.given_timestamp = Some(base_timestamp);
    }

    /// Forgets the records appended since the last batch.
    pub fn clear(&mut self) {
        self.plain.clear();
        self.record_count = 0;
    }

    /// Appends a record at the next offset.
    pub fn append(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
    ) {
        let headers = headers.iter().map(|(key, value)| (key.as_bytes(), *value));
        let delta = if self.record_count == 0 { 0 } else { self.last_offset_delta + 1 };
        self.append_at(delta, timestamp, key, value, headers);
    }

    /// Appends a record so far after the base offset, beyond all before it.
    pub fn append_at<'h>(
        &mut self,
        offset_delta: i32,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: impl ExactSizeIterator<Item = (&'h [u8], Option<&'h [u8]>)> + Clone,
    ) {
        if self.record_count == 0 {
            self.plain.clear();
            self.plain.raw(&[0; HEADER_BYTES]);
            let base_timestamp = self.given_timestamp.take().unwrap_or(timestamp);
            (self.base_timestamp, self.max_timestamp) = (base_timestamp, timestamp);
        }
        let timestamp_delta = timestamp.wrapping_sub(self.base_timestamp);
        let header_bytes: usize =
            headers.clone().map(|(key, value)| bytes_of(Some(key)) + bytes_of(value)).sum();
        let body = 1
            + varlong_bytes(timestamp_delta)
            + varlong_bytes(i64::from(offset_delta))
            + bytes_of(key)
            + bytes_of(value)
            + varlong_bytes(headers.len() as i64)
            + header_bytes;
        let w = &mut self.plain;
        w.varint(i32::try_from(body).expect("a record is smaller than a batch may be"));
        w.i8(0);
        w.varlong(timestamp_delta);
        w.varint(offset_delta);
        write_bytes(w, key);
        write_bytes(w, value);
        w.varint(headers.len() as i32);
        for (key, value) in headers {
            write_bytes(w, Some(key));
            write_bytes(w, value);
        }
        self.record_count += 1;
        self.last_offset_delta = offset_delta;
        self.max_timestamp = self.max_timestamp.max(timestamp);
    }

    /// The batch of all records appended, valid until the next one is begun.
    ///
    /// # Panics
    /// If no record was appended: a batch without records is only left by compaction.
    pub fn finish(&mut self, options: &BatchOptions) -> Result<&[u8], CompressionError> {
        assert!(self.record_count > 0, "a batch has records");
        let header = self.header(options);
        self.record_count = 0;
        let batch: &mut [u8] = match options.compression {
            Compression::None => self.plain.bytes_mut(),
            compression => {
                self.compressed.clear();
                self.compressed.resize(HEADER_BYTES, 0);
                let plain = &self.plain.bytes()[HEADER_BYTES..];
                compression.compress_at(options.level, plain, &mut self.compressed)?;
                &mut self.compressed
            }
        };
        batch[..HEADER_BYTES].copy_from_slice(&header);
        let length = i32::try_from(batch.len() - LOG_OVERHEAD);
        let length = length.expect("a batch is smaller than 2 GiB");
        batch[position::BATCH_LENGTH..][..4].copy_from_slice(&length.to_be_bytes());
        patch_crc(batch);
        Ok(batch)
    }

    /// The header, but for length and checksum.
    fn header(&self, options: &BatchOptions) -> [u8; HEADER_BYTES] {
        let flag = |set: bool, bit: i16| if set { bit } else { 0 };
        let attributes = options.compression as i16
            | flag(options.log_append_time.is_some(), LOG_APPEND_TIME)
            | flag(options.transactional, TRANSACTIONAL)
            | flag(options.control, CONTROL)
            | flag(options.delete_horizon, DELETE_HORIZON);
        let mut header = [0; HEADER_BYTES];
        let mut put = |position: usize, bytes: &[u8]| {
            header[position..position + bytes.len()].copy_from_slice(bytes);
        };
        put(position::BASE_OFFSET, &options.base_offset.to_be_bytes());
        put(position::PARTITION_LEADER_EPOCH, &options.partition_leader_epoch.to_be_bytes());
        put(position::MAGIC, &[2]);
        put(position::ATTRIBUTES, &attributes.to_be_bytes());
        let last_offset_delta = options.last_offset_delta.unwrap_or(self.last_offset_delta);
        put(position::LAST_OFFSET_DELTA, &last_offset_delta.to_be_bytes());
        put(position::BASE_TIMESTAMP, &self.base_timestamp.to_be_bytes());
        let max_timestamp = options.log_append_time.unwrap_or(self.max_timestamp);
        put(position::MAX_TIMESTAMP, &max_timestamp.to_be_bytes());
        put(position::PRODUCER_ID, &options.producer_id.to_be_bytes());
        put(position::PRODUCER_EPOCH, &options.producer_epoch.to_be_bytes());
        put(position::BASE_SEQUENCE, &options.base_sequence.to_be_bytes());
        put(position::RECORD_COUNT, &self.record_count.to_be_bytes());
        header
    }
}

fn write_bytes(w: &mut Writer, bytes: Option<&[u8]>) {
    w.varint(bytes.map_or(-1, |bytes| bytes.len() as i32));
    w.raw(bytes.unwrap_or(&[]));
}

fn bytes_of(bytes: Option<&[u8]>) -> usize {
    bytes.map_or(1, |bytes| varlong_bytes(bytes.len() as i64) + bytes.len())
}

fn varlong_bytes(value: i64) -> usize {
    let zigzag = ((value << 1) ^ (value >> 63)) as u64;
    (64 - (zigzag | 1).leading_zeros() as usize).div_ceil(7)
}
