//! Message sets of magic 0 and 1, the formats before batches: read, written, converted.
//!
//! ```text
//! 0 offset i64   8 size i32 (bytes after it)   12 crc u32 (CRC-32 from 16 on)
//! 16 magic i8   17 attributes i8   18 timestamp i64 (magic 1)   key, value: i32 length, bytes
//! ```
//! A compressed message is a wrapper: its value is a compressed message set. In magic 1 offsets
//! within it are relative, and the wrapper has that of its last message (KIP-31).

use crate::batch::{Batch, BatchBuilder, BatchError, Headers, Record};
use crate::compression::{Compression, CompressionError, compress_magic_0, decompress_magic_0};
use crate::reader::Reader;
use crate::writer::Writer;

/// Bytes of offset and size, which the size does not count.
const LOG_OVERHEAD: usize = 12;
/// Checksum, magic, attributes and two lengths.
const SIZE_MIN: usize = 14;
const LOG_APPEND_TIME: i8 = 1 << 3;

/// One message of a set, borrowed; perhaps a wrapper.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LegacyMessage<'a> {
    /// Its offset; in a wrapper that of the last message inside.
    pub offset: i64,
    /// 0 or 1.
    pub magic: i8,
    /// Bits 0 to 2 name the compression, bit 3 says log append time.
    pub attributes: i8,
    /// Milliseconds since 1970; -1 in magic 0.
    pub timestamp: i64,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value, or the compressed message set.
    pub value: Option<&'a [u8]>,
    bytes: &'a [u8],
}

impl<'a> LegacyMessage<'a> {
    /// The message at the front of `bytes`, and the bytes after it. The checksum is not checked.
    pub fn parse(bytes: &'a [u8]) -> Result<(Self, &'a [u8]), BatchError> {
        let truncated = |needed| BatchError::Truncated { needed, left: bytes.len() };
        let mut r = Reader::new(bytes);
        let (offset, size) = match (r.i64(), r.i32()) {
            (Ok(offset), Ok(size)) => (offset, size),
            _ => return Err(truncated(LOG_OVERHEAD)),
        };
        let needed = usize::try_from(size).ok().filter(|size| *size >= SIZE_MIN);
        let needed = LOG_OVERHEAD + needed.ok_or(BatchError::Length(size))?;
        let (bytes, rest) = bytes.split_at_checked(needed).ok_or(truncated(needed))?;
        let message = Self::read(&mut Reader::new(&bytes[LOG_OVERHEAD..]), offset, bytes)?;
        Ok((message, rest))
    }

    fn read(r: &mut Reader<'a>, offset: i64, bytes: &'a [u8]) -> Result<Self, BatchError> {
        let _crc = r.u32()?;
        let magic = r.i8()?;
        let attributes = r.i8()?;
        let timestamp = match magic {
            0 => -1,
            1 => r.i64()?,
            other => return Err(BatchError::Magic(other)),
        };
        // The classic form of nullable bytes is that of these formats.
        let (key, value) = (r.read_classic()?, r.read_classic()?);
        match r.remaining() {
            0 => Ok(LegacyMessage { offset, magic, attributes, timestamp, key, value, bytes }),
            _ => Err(BatchError::Record("bytes after the value")),
        }
    }

    /// All its bytes, offset and size included.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// How the value is compressed.
    pub fn compression(&self) -> Result<Compression, CompressionError> {
        match Compression::from_attributes(i16::from(self.attributes))? {
            Compression::Zstd => Err(CompressionError::Unknown(Compression::Zstd as i8)),
            compression => Ok(compression),
        }
    }

    /// Whether the timestamp is that of the append.
    pub fn is_log_append_time(&self) -> bool {
        self.magic > 0 && self.attributes & LOG_APPEND_TIME != 0
    }

    /// Compares the checksum.
    pub fn verify_crc(&self) -> Result<(), BatchError> {
        let (stored, computed) = (Reader::new(&self.bytes[12..]).u32()?, crc32(&self.bytes[16..]));
        match stored == computed {
            true => Ok(()),
            false => Err(BatchError::Crc { stored, computed }),
        }
    }

    /// The message as a record, or those of a wrapper, decompressed into `scratch`: `bytes_max` at
    /// most. Inner messages are checked, checksums included.
    pub fn records<'s>(
        &self,
        scratch: &'s mut Vec<u8>,
        bytes_max: usize,
    ) -> Result<MessageRecords<'s>, BatchError>
    where
        'a: 's,
    {
        let compression = self.compression()?;
        if compression == Compression::None {
            return Ok(MessageRecords { rest: self.bytes, base_offset: 0, append_time: None });
        }
        let value = self.value.ok_or(BatchError::Record("a wrapper without a value"))?;
        scratch.clear();
        match self.magic {
            0 => decompress_magic_0(compression, value, bytes_max, scratch)?,
            _ => compression.decompress(value, bytes_max, scratch)?,
        }
        let mut last = None;
        for message in messages(scratch) {
            let message = message?;
            message.verify_crc()?;
            if message.magic != self.magic || message.compression()? != Compression::None {
                return Err(BatchError::Record("a wrapper in a wrapper, or of another magic"));
            }
            last = Some(message.offset);
        }
        let last = last.ok_or(BatchError::Record("a wrapper without messages"))?;
        Ok(MessageRecords {
            rest: scratch,
            base_offset: if self.magic == 0 { 0 } else { self.offset.wrapping_sub(last) },
            append_time: self.is_log_append_time().then_some(self.timestamp),
        })
    }
}

/// The records of one message; see [`LegacyMessage::records`].
#[derive(Clone, Debug)]
pub struct MessageRecords<'a> {
    /// Invariant: whole messages, checked.
    rest: &'a [u8],
    base_offset: i64,
    append_time: Option<i64>,
}

impl<'a> Iterator for MessageRecords<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        if self.rest.is_empty() {
            return None;
        }
        let (message, rest) = LegacyMessage::parse(self.rest).expect("checked when it was opened");
        self.rest = rest;
        Some(Record {
            offset: self.base_offset.wrapping_add(message.offset),
            timestamp: self.append_time.unwrap_or(message.timestamp),
            key: message.key,
            value: message.value,
            headers: Headers::default(),
        })
    }
}

/// The messages that lie back to back in `bytes`, wrappers unopened; an error ends them.
pub fn messages(bytes: &[u8]) -> impl Iterator<Item = Result<LegacyMessage<'_>, BatchError>> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let parsed = LegacyMessage::parse(rest);
        rest = parsed.as_ref().map_or(&[][..], |(_, rest)| *rest);
        Some(parsed.map(|(message, _)| message))
    })
}

/// The magic of the messages or batches in `bytes`: it stands at the same place in every format.
pub fn magic(bytes: &[u8]) -> Option<i8> {
    bytes.get(crate::batch::position::MAGIC).map(|magic| *magic as i8)
}

/// How [`write()`] writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetOptions {
    /// 0 or 1.
    pub magic: i8,
    /// Not zstd, which these formats do not have.
    pub compression: Compression,
    /// Whether the timestamps are those of the append (magic 1).
    pub log_append_time: bool,
}

/// Appends `records` to `out` as messages, or as one wrapper when they are compressed. Headers
/// have no place in these formats and are dropped; so are timestamps in magic 0.
pub fn write<'r>(
    records: impl Iterator<Item = Record<'r>>,
    options: SetOptions,
    out: &mut Vec<u8>,
) -> Result<(), CompressionError> {
    let SetOptions { magic, compression, log_append_time } = options;
    if compression == Compression::Zstd {
        return Err(CompressionError::Unknown(compression as i8));
    }
    let time_bit = if magic > 0 && log_append_time { LOG_APPEND_TIME } else { 0 };
    let wrapped = compression != Compression::None;
    let mut w = Writer::over(if wrapped { Vec::new() } else { std::mem::take(out) });
    let mut ends = None;
    let mut max_timestamp = -1;
    for mut record in records {
        let (first, _) = *ends.get_or_insert((record.offset, 0));
        ends = Some((first, record.offset));
        max_timestamp = max_timestamp.max(record.timestamp);
        if wrapped && magic > 0 {
            record.offset = record.offset.wrapping_sub(first);
        }
        write_message(&mut w, magic, time_bit, &record);
    }
    let (Some((_, last)), true) = (ends, wrapped) else {
        if !wrapped {
            *out = w.into_vec();
        }
        return Ok(());
    };
    let mut value = Vec::new();
    match magic {
        0 => compress_magic_0(compression, w.bytes(), &mut value)?,
        _ => compression.compress(w.bytes(), &mut value)?,
    }
    let wrapper = Record {
        offset: last,
        timestamp: max_timestamp,
        key: None,
        value: Some(&value),
        headers: Headers::default(),
    };
    let mut w = Writer::over(std::mem::take(out));
    write_message(&mut w, magic, time_bit | compression as i8, &wrapper);
    *out = w.into_vec();
    Ok(())
}

fn write_message(w: &mut Writer, magic: i8, attributes: i8, record: &Record<'_>) {
    let start = w.bytes().len();
    w.i64(record.offset);
    w.raw(&[0; 8]);
    w.i8(magic);
    w.i8(attributes);
    if magic > 0 {
        w.i64(record.timestamp);
    }
    for bytes in [record.key, record.value] {
        w.i32(bytes.map_or(-1, |bytes| bytes.len() as i32));
        w.raw(bytes.unwrap_or(&[]));
    }
    let size = w.bytes().len() - start - LOG_OVERHEAD;
    let crc = crc32(&w.bytes()[start + 16..]);
    w.patch_i32(start + 8, i32::try_from(size).expect("a message is smaller than 2 GiB"));
    w.patch_i32(start + 12, crc as i32);
}

/// Up-conversion: appends the records of all messages in `set` to `builder`, at consecutive
/// offsets, and returns the compression of the first. Checksums are checked. All compressed
/// messages together may grow to `bytes_max`.
pub fn append_to_builder(
    set: &[u8],
    builder: &mut BatchBuilder,
    scratch: &mut Vec<u8>,
    bytes_max: usize,
) -> Result<Compression, BatchError> {
    let mut compression = None;
    for message in messages(set) {
        let message = message?;
        message.verify_crc()?;
        compression.get_or_insert(message.compression()?);
        let left = bytes_max.saturating_sub(builder.bytes());
        for record in message.records(scratch, left)? {
            builder.append(record.timestamp, record.key, record.value, &[]);
        }
    }
    Ok(compression.unwrap_or_default())
}

/// Down-conversion: appends the records of `batch` to `out` as messages of `magic`, compressed as
/// they were; one that is not compressed without those before the offset `from`, as by Kafka.
/// Control batches have no counterpart and give nothing.
pub fn write_batch(
    batch: &Batch<'_>,
    magic: i8,
    from: i64,
    scratch: &mut Vec<u8>,
    bytes_max: usize,
    out: &mut Vec<u8>,
) -> Result<(), BatchError> {
    let header = batch.header();
    if header.is_control() {
        return Ok(());
    }
    let (compression, log_append_time) = (header.compression()?, header.is_log_append_time());
    let options = SetOptions { magic, compression, log_append_time };
    let records = batch.records(scratch, bytes_max)?;
    if let Some(error) = records.clone().find_map(Result::err) {
        return Err(error);
    }
    let is_asked = |record: &Record<'_>| compression != Compression::None || record.offset >= from;
    Ok(write(records.filter_map(Result::ok).filter(is_asked), options, out)?)
}

/// CRC-32 (IEEE), of messages of magic 0 and 1.
pub fn crc32(bytes: &[u8]) -> u32 {
    crc32fast::hash(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::BatchOptions;

    #[test]
    fn all_wrappers_of_a_set_share_the_limit() {
        let value = [0; 50_000];
        let record = Record {
            offset: 0,
            timestamp: -1,
            key: None,
            value: Some(&value[..]),
            headers: Headers::default(),
        };
        let options =
            SetOptions { magic: 0, compression: Compression::Gzip, log_append_time: false };
        let mut set = Vec::new();
        for (wrappers, is_taken) in [(1, true), (2, true), (3, false)] {
            write(std::iter::once(record), options, &mut set).expect("it compresses");
            let taken = append_to_builder(&set, &mut BatchBuilder::new(), &mut Vec::new(), 120_000);
            assert_eq!(taken.is_ok(), is_taken, "{wrappers} of 50 kB");
        }
    }

    #[test]
    fn records_before_the_offset_asked_for_stay_in_compressed_sets_only() {
        for (compression, expected) in
            [(Compression::None, &[2, 3][..]), (Compression::Gzip, &[0, 1, 2, 3])]
        {
            let mut builder = BatchBuilder::new();
            (0..4).for_each(|time| builder.append(time, None, Some(b"value"), &[]));
            let options = BatchOptions { compression, ..BatchOptions::default() };
            let bytes = builder.finish(&options).expect("it compresses");
            let (batch, _) = Batch::parse(bytes).expect("just built");
            let (mut scratch, mut set) = (Vec::new(), Vec::new());
            write_batch(&batch, 1, 2, &mut scratch, 1 << 20, &mut set).expect("it is whole");
            let mut offsets = Vec::new();
            for message in messages(&set) {
                let message = message.expect("just written");
                let records = message.records(&mut scratch, 1 << 20).expect("as above");
                offsets.extend(records.map(|record| record.offset));
            }
            assert_eq!(offsets, expected, "{compression:?}");
        }
    }
}
