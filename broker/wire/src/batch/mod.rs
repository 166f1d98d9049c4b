//! Record batches of magic 2 as they lie in requests, responses and logs: the header, a borrowed
//! view, checks, and the few bytes a broker changes in place.
//!
//! ```text
//!  0 baseOffset i64    8 batchLength i32 (bytes after it)   12 partitionLeaderEpoch i32
//! 16 magic i8 = 2     17 crc u32 (CRC-32C from 21 on)       21 attributes i16
//! 23 lastOffsetDelta i32   27 baseTimestamp i64   35 maxTimestamp i64   43 producerId i64
//! 51 producerEpoch i16     53 baseSequence i32    57 recordCount i32    61 records
//! ```
//! Base offset and leader epoch are outside the checksum, so that a broker may set them.

mod builder;
mod record;

use thiserror::Error;

pub use builder::{BatchBuilder, BatchOptions};
pub use record::{Headers, Record, RecordsIter, Summary};

use record::Summing;

use crate::compression::{Compression, CompressionError};
use crate::reader::{DecodeError, Reader};

/// Bytes before the records.
pub const HEADER_BYTES: usize = 61;
/// Bytes of base offset and length, which `batchLength` does not count.
pub const LOG_OVERHEAD: usize = 12;
/// Positions of header fields.
pub mod position {
    #![allow(missing_docs, reason = "named as the fields of the header")]
    pub const BASE_OFFSET: usize = 0;
    pub const BATCH_LENGTH: usize = 8;
    pub const PARTITION_LEADER_EPOCH: usize = 12;
    pub const MAGIC: usize = 16;
    pub const CRC: usize = 17;
    pub const ATTRIBUTES: usize = 21;
    pub const LAST_OFFSET_DELTA: usize = 23;
    pub const BASE_TIMESTAMP: usize = 27;
    pub const MAX_TIMESTAMP: usize = 35;
    pub const PRODUCER_ID: usize = 43;
    pub const PRODUCER_EPOCH: usize = 51;
    pub const BASE_SEQUENCE: usize = 53;
    pub const RECORD_COUNT: usize = 57;
}

/// Attribute bit: timestamps are those of the append, and stand in `max_timestamp`.
pub const LOG_APPEND_TIME: i16 = 1 << 3;
/// Attribute bit: part of a transaction.
pub const TRANSACTIONAL: i16 = 1 << 4;
/// Attribute bit: holds a control record, such as a transaction's marker.
pub const CONTROL: i16 = 1 << 5;
/// Attribute bit: `base_timestamp` is the time from which tombstones may go.
pub const DELETE_HORIZON: i16 = 1 << 6;

/// Why bytes are not a batch of magic 2, or not one that a client may produce.
#[derive(Debug, Error)]
pub enum BatchError {
    /// Fewer bytes than the batch says it has.
    #[error("a batch of {needed} bytes, {left} there")]
    Truncated {
        /// The size of the batch, or of a header.
        needed: usize,
        /// How many bytes there are.
        left: usize,
    },
    /// Another format.
    #[error("magic {0}")]
    Magic(i8),
    /// A length shorter than a header.
    #[error("a length of {0}")]
    Length(i32),
    /// Damaged: the checksum differs.
    #[error("checksum {computed:08x}, {stored:08x} in the header")]
    Crc {
        /// As in the header.
        stored: u32,
        /// As computed.
        computed: u32,
    },
    /// More bytes after a batch that has to be alone.
    #[error("{0} bytes after the batch")]
    Trailing(usize),
    /// The number of records is not positive, or not the number of offsets.
    #[error("{records} records with a last offset delta of {last_offset_delta}")]
    Count {
        /// `recordCount` of the header.
        records: i32,
        /// `lastOffsetDelta` of the header.
        last_offset_delta: i32,
    },
    /// A control batch, which only brokers write.
    #[error("a control batch")]
    Control,
    /// A producer id without a sequence.
    #[error("producer {producer_id} with epoch {producer_epoch} and sequence {base_sequence}")]
    Sequence {
        /// As in the header.
        producer_id: i64,
        /// As in the header.
        producer_epoch: i16,
        /// As in the header.
        base_sequence: i32,
    },
    /// Something is wrong with a record.
    #[error("a record: {0}")]
    Record(&'static str),
    /// A record ends before its fields do.
    #[error("a record: {0}")]
    Field(#[from] DecodeError),
    /// The records cannot be decompressed.
    #[error(transparent)]
    Compression(#[from] CompressionError),
}

/// The 61 bytes before the records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields of the format, in its order")]
pub struct BatchHeader {
    pub base_offset: i64,
    pub batch_length: i32,
    pub partition_leader_epoch: i32,
    pub magic: i8,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub record_count: i32,
}

impl BatchHeader {
    /// The header at the front of `bytes`, whatever follows; magic and length are checked.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let truncated = BatchError::Truncated { needed: HEADER_BYTES, left: bytes.len() };
        // The magic comes first: another format is not a short batch of this one.
        if let Some(&magic) = bytes.get(position::MAGIC)
            && magic != 2
        {
            return Err(BatchError::Magic(magic as i8));
        }
        let Some(bytes) = bytes.first_chunk::<HEADER_BYTES>() else { return Err(truncated) };
        let header = Self::read(&mut Reader::new(bytes))?;
        match header.batch_length < (HEADER_BYTES - LOG_OVERHEAD) as i32 {
            true => Err(BatchError::Length(header.batch_length)),
            false => Ok(header),
        }
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(BatchHeader {
            base_offset: r.i64()?,
            batch_length: r.i32()?,
            partition_leader_epoch: r.i32()?,
            magic: r.i8()?,
            crc: r.u32()?,
            attributes: r.i16()?,
            last_offset_delta: r.i32()?,
            base_timestamp: r.i64()?,
            max_timestamp: r.i64()?,
            producer_id: r.i64()?,
            producer_epoch: r.i16()?,
            base_sequence: r.i32()?,
            record_count: r.i32()?,
        })
    }

    /// The size of the whole batch.
    pub fn bytes(&self) -> usize {
        LOG_OVERHEAD + self.batch_length as usize
    }

    /// The offset of the last record, kept by compaction even when that record is gone.
    pub fn last_offset(&self) -> i64 {
        self.base_offset.wrapping_add(i64::from(self.last_offset_delta))
    }

    /// The sequence of the last record, wrapped to 0 after `i32::MAX`; -1 without a producer.
    pub fn last_sequence(&self) -> i32 {
        match self.base_sequence {
            -1 => -1,
            base => base.wrapping_add(self.last_offset_delta) & i32::MAX,
        }
    }

    /// How the records are compressed.
    pub fn compression(&self) -> Result<Compression, CompressionError> {
        Compression::from_attributes(self.attributes)
    }

    /// What [`validate`] checks of the fields.
    fn check(&self) -> Result<(), BatchError> {
        let Self { record_count: records, last_offset_delta, .. } = *self;
        if records <= 0 || records - 1 != last_offset_delta {
            return Err(BatchError::Count { records, last_offset_delta });
        }
        if self.is_control() {
            return Err(BatchError::Control);
        }
        let Self { producer_id, producer_epoch, base_sequence, .. } = *self;
        if self.has_producer() && (producer_epoch < 0 || base_sequence < 0) {
            return Err(BatchError::Sequence { producer_id, producer_epoch, base_sequence });
        }
        Ok(())
    }

    /// The timestamp of every record, where it is that of the append.
    fn append_time(&self) -> Option<i64> {
        self.is_log_append_time().then_some(self.max_timestamp)
    }

    /// Whether timestamps are those of the append.
    pub fn is_log_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME != 0
    }

    /// Whether the batch is part of a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Whether it holds a control record.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// The time from which tombstones may go, once compaction has set it.
    pub fn delete_horizon(&self) -> Option<i64> {
        (self.attributes & DELETE_HORIZON != 0).then_some(self.base_timestamp)
    }

    /// Whether it is from an idempotent or transactional producer.
    pub fn has_producer(&self) -> bool {
        self.producer_id >= 0
    }
}

/// A whole batch, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct Batch<'a> {
    header: BatchHeader,
    /// Invariant: `header.bytes()` long.
    bytes: &'a [u8],
}

impl<'a> Batch<'a> {
    /// The batch at the front of `bytes`, and the bytes after it. The checksum is not checked.
    pub fn parse(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), BatchError> {
        let header = BatchHeader::parse(bytes)?;
        let truncated = BatchError::Truncated { needed: header.bytes(), left: bytes.len() };
        let (bytes, rest) = bytes.split_at_checked(header.bytes()).ok_or(truncated)?;
        Ok((Batch { header, bytes }, rest))
    }

    /// The header.
    pub fn header(&self) -> &BatchHeader {
        &self.header
    }

    /// All its bytes, header included.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The records as they are stored, perhaps compressed.
    pub fn body(&self) -> &'a [u8] {
        &self.bytes[HEADER_BYTES..]
    }

    /// Compares the checksum.
    pub fn verify_crc(&self) -> Result<(), BatchError> {
        let computed = crc32c(&self.bytes[position::ATTRIBUTES..]);
        match computed == self.header.crc {
            true => Ok(()),
            false => Err(BatchError::Crc { stored: self.header.crc, computed }),
        }
    }

    /// The bytes of the records, decompressed into `scratch` if need be.
    fn plain<'s>(&self, scratch: &'s mut Vec<u8>, bytes_max: usize) -> Result<&'s [u8], BatchError>
    where
        'a: 's,
    {
        match self.header.compression()? {
            Compression::None => Ok(self.body()),
            compression => {
                scratch.clear();
                compression.decompress(self.body(), bytes_max, scratch)?;
                Ok(scratch)
            }
        }
    }

    /// The records, decompressed into `scratch` where they are compressed: `bytes_max` at most.
    pub fn records<'s>(
        &self,
        scratch: &'s mut Vec<u8>,
        bytes_max: usize,
    ) -> Result<RecordsIter<'s>, BatchError>
    where
        'a: 's,
    {
        let header = &self.header;
        let bytes = self.plain(scratch, bytes_max)?;
        let count = u32::try_from(header.record_count).unwrap_or(0);
        let (base_offset, base_timestamp) = (header.base_offset, header.base_timestamp);
        Ok(RecordsIter::new(bytes, count, base_offset, base_timestamp, header.append_time()))
    }

    /// Reads every record and checks that their offsets are consecutive: what the header's checks
    /// and the checksum cannot see. `scratch` and `bytes_max` are as for [`Batch::records`].
    pub fn summary(&self, scratch: &mut Vec<u8>, bytes_max: usize) -> Result<Summary, BatchError> {
        let bytes = self.plain(scratch, bytes_max)?;
        let mut summing = Summing::new(&self.header);
        let taken = summing.take(bytes)?;
        summing.finish(bytes.len() - taken)
    }
}

/// As [`validate`] and [`Batch::summary`] together, for an uncompressed batch whose bytes lie in
/// several pieces, the first of which holds the header at least. `scratch` takes records that lie
/// across the end of a piece.
pub fn validate_pieces(
    pieces: &[&[u8]],
    scratch: &mut Vec<u8>,
) -> Result<(BatchHeader, Summary), BatchError> {
    let header = BatchHeader::parse(pieces.first().copied().unwrap_or_default())?;
    let left: usize = pieces.iter().map(|piece| piece.len()).sum();
    match left.checked_sub(header.bytes()) {
        Some(0) => {}
        Some(over) => return Err(BatchError::Trailing(over)),
        None => return Err(BatchError::Truncated { needed: header.bytes(), left }),
    }
    let mut crc = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    let mut skip = position::ATTRIBUTES;
    for piece in pieces {
        crc.update(&piece[skip..]);
        skip = 0;
    }
    let (stored, computed) = (header.crc, crc.finalize() as u32);
    if computed != stored {
        return Err(BatchError::Crc { stored, computed });
    }
    header.check()?;
    if header.compression()? != Compression::None {
        return Err(BatchError::Record("compressed, and in pieces"));
    }
    let mut summing = Summing::new(&header);
    scratch.clear();
    let mut skip = HEADER_BYTES;
    for piece in pieces {
        let mut rest = &piece[skip..];
        skip = 0;
        while !summing.is_done() && !scratch.is_empty() && !rest.is_empty() {
            let whole = record::record_bytes(scratch)?.unwrap_or(scratch.len() + 1);
            let (more, after) = rest.split_at(rest.len().min(whole - scratch.len()));
            scratch.extend_from_slice(more);
            rest = after;
            if summing.take(scratch)? > 0 {
                scratch.clear();
            }
        }
        let taken = summing.take(rest)?;
        scratch.extend_from_slice(&rest[taken..]);
    }
    Ok((header, summing.finish(scratch.len())?))
}

/// The batches that lie back to back in `bytes`; an error ends them.
pub fn batches(bytes: &[u8]) -> impl Iterator<Item = Result<Batch<'_>, BatchError>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let parsed = Batch::parse(rest);
        rest = parsed.as_ref().map_or(&[][..], |(_, rest)| *rest);
        Some(parsed.map(|(batch, _)| batch))
    })
}

/// Checks what a client may produce: one batch of magic 2, whole, of a known compression, with a
/// right checksum, as many offsets as records, no control records, and a sequence if it has a
/// producer (Kafka: `LogValidator.validateBatch`). The records themselves are not read.
pub fn validate(bytes: &[u8]) -> Result<Batch<'_>, BatchError> {
    let (batch, rest) = Batch::parse(bytes)?;
    let header = batch.header;
    if !rest.is_empty() {
        return Err(BatchError::Trailing(rest.len()));
    }
    header.compression()?;
    batch.verify_crc()?;
    header.check()?;
    Ok(batch)
}

/// What compaction leaves of a batch whose records are all gone, but not its offsets and sequence
/// (Kafka: `DefaultRecordBatch.writeEmptyHeader`).
///
/// # Panics
/// If `batch` is shorter than a header.
pub fn without_records(batch: &[u8]) -> [u8; HEADER_BYTES] {
    let mut empty: [u8; HEADER_BYTES] = *batch.first_chunk().expect("a batch has a header");
    patch(&mut empty, position::BATCH_LENGTH, ((HEADER_BYTES - LOG_OVERHEAD) as i32).to_be_bytes());
    // No codec and no delete horizon.
    let kept = (LOG_APPEND_TIME | TRANSACTIONAL | CONTROL) as u8;
    patch(&mut empty, position::ATTRIBUTES, [0, batch[position::ATTRIBUTES + 1] & kept]);
    patch(&mut empty, position::BASE_TIMESTAMP, (-1_i64).to_be_bytes());
    patch(&mut empty, position::RECORD_COUNT, [0; 4]);
    patch_crc(&mut empty);
    empty
}

/// Sets the offset of the first record. The checksum does not cover it.
///
/// # Panics
/// Like its relatives below, if `batch` is shorter than a header.
pub fn patch_base_offset(batch: &mut [u8], offset: i64) {
    patch(batch, position::BASE_OFFSET, offset.to_be_bytes());
}

/// Sets the leader epoch. The checksum does not cover it.
pub fn patch_leader_epoch(batch: &mut [u8], epoch: i32) {
    patch(batch, position::PARTITION_LEADER_EPOCH, epoch.to_be_bytes());
}

/// Makes the batch one of log append time, and renews its checksum.
pub fn patch_log_append_time(batch: &mut [u8], append_time_ms: i64) {
    batch[position::ATTRIBUTES + 1] |= LOG_APPEND_TIME as u8;
    patch(batch, position::MAX_TIMESTAMP, append_time_ms.to_be_bytes());
    patch_crc(batch);
}

/// Makes the batch one of its producer's timestamps, and renews its checksum.
pub fn patch_create_time(batch: &mut [u8], max_timestamp_ms: i64) {
    batch[position::ATTRIBUTES + 1] &= !(LOG_APPEND_TIME as u8);
    patch(batch, position::MAX_TIMESTAMP, max_timestamp_ms.to_be_bytes());
    patch_crc(batch);
}

/// Computes the checksum anew; `batch` must end with its last byte.
pub fn patch_crc(batch: &mut [u8]) {
    let crc = crc32c(&batch[position::ATTRIBUTES..]);
    patch(batch, position::CRC, crc.to_be_bytes());
}

fn patch<const N: usize>(batch: &mut [u8], position: usize, bytes: [u8; N]) {
    batch[position..position + N].copy_from_slice(&bytes);
}

/// CRC-32C (Castagnoli), of batches of magic 2.
pub fn crc32c(bytes: &[u8]) -> u32 {
    crc_fast::crc32_iscsi(bytes)
}
