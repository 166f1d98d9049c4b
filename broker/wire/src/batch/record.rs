//! Single records: borrowed from the records of a batch, or from a message of the old formats.

use crate::batch::{BatchError, BatchHeader};
use crate::reader::Reader;

const MAX_VARINT_BYTES: usize = 5;

/// One record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Record<'a> {
    /// Its place in the partition.
    pub offset: i64,
    /// Milliseconds since 1970, of the kind the batch says; -1 in messages of magic 0.
    pub timestamp: i64,
    /// The key.
    pub key: Option<&'a [u8]>,
    /// The value; none is a tombstone in a compacted topic.
    pub value: Option<&'a [u8]>,
    /// The headers.
    pub headers: Headers<'a>,
}

/// The headers of a record, read from the batch while they are iterated.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Headers<'a> {
    /// Invariant: `count` headers, checked when the record was read.
    bytes: &'a [u8],
    count: u32,
}

const CHECKED: &str = "headers are checked when their record is read";

impl<'a> Headers<'a> {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Key (UTF-8 by the specification, unchecked) and value of each.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let mut reader = Reader::new(self.bytes);
        (0..self.count).map(move |_| read_header(&mut reader).expect(CHECKED))
    }

    fn read(reader: &mut Reader<'a>) -> Result<Self, BatchError> {
        let count = reader.varint()?;
        // A header has at least two length bytes.
        if count < 0 || count as usize > reader.remaining() / 2 {
            return Err(BatchError::Record("a count of headers that cannot be"));
        }
        let start = reader.rest();
        for _ in 0..count {
            read_header(reader)?;
        }
        let bytes = &start[..start.len() - reader.remaining()];
        Ok(Headers { bytes, count: count as u32 })
    }
}

fn read_header<'a>(reader: &mut Reader<'a>) -> Result<(&'a [u8], Option<&'a [u8]>), BatchError> {
    let key = read_bytes(reader)?.ok_or(BatchError::Record("null as a header's key"))?;
    Ok((key, read_bytes(reader)?))
}

/// Bytes after a varint length; -1 is null.
#[inline]
fn read_bytes<'a>(reader: &mut Reader<'a>) -> Result<Option<&'a [u8]>, BatchError> {
    match reader.varint()? {
        -1 => Ok(None),
        length => {
            let length =
                usize::try_from(length).map_err(|_| BatchError::Record("a negative length"))?;
            Ok(Some(reader.take(length)?))
        }
    }
}

/// What all records of a batch have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The earliest timestamp, milliseconds since 1970.
    pub timestamp_min: i64,
    /// The latest, -1 when no record has one.
    pub timestamp_max: i64,
    /// Whether every record has a key.
    pub is_keyed: bool,
}

/// The records of a batch of magic 2, uncompressed. After an error it ends.
#[derive(Clone, Debug)]
pub struct RecordsIter<'a> {
    reader: Reader<'a>,
    left: u32,
    base_offset: i64,
    base_timestamp: i64,
    append_time: Option<i64>,
}

impl<'a> RecordsIter<'a> {
    /// Records in `bytes`; `append_time` replaces their own timestamps.
    pub(crate) fn new(
        bytes: &'a [u8],
        count: u32,
        base_offset: i64,
        base_timestamp: i64,
        append_time: Option<i64>,
    ) -> Self {
        RecordsIter {
            reader: Reader::new(bytes),
            left: count,
            base_offset,
            base_timestamp,
            append_time,
        }
    }

    fn read(&mut self) -> Result<Record<'a>, BatchError> {
        let length = self.reader.varint()?;
        let length =
            usize::try_from(length).map_err(|_| BatchError::Record("a negative length"))?;
        let mut reader = Reader::new(self.reader.take(length)?);
        let _attributes = reader.i8()?;
        let timestamp = self.base_timestamp.wrapping_add(reader.varlong()?);
        let offset = self.base_offset.wrapping_add(i64::from(reader.varint()?));
        let key = read_bytes(&mut reader)?;
        let value = read_bytes(&mut reader)?;
        let headers = Headers::read(&mut reader)?;
        if reader.remaining() > 0 {
            return Err(BatchError::Record("bytes after the last header"));
        }
        let timestamp = self.append_time.unwrap_or(timestamp);
        Ok(Record { offset, timestamp, key, value, headers })
    }
}

/// Reads every record of a batch for its [`Summary`], and checks that their offsets follow on one
/// by one. The records may come in several pieces.
#[derive(Debug)]
pub(crate) struct Summing {
    left: u32,
    delta: i32,
    base_timestamp: i64,
    append_time: Option<i64>,
    summary: Summary,
}

impl Summing {
    /// For a batch with this header.
    pub(crate) fn new(header: &BatchHeader) -> Self {
        Self {
            left: u32::try_from(header.record_count).unwrap_or(0),
            delta: 0,
            base_timestamp: header.base_timestamp,
            append_time: header.append_time(),
            summary: Summary { timestamp_min: i64::MAX, timestamp_max: -1, is_keyed: true },
        }
    }

    /// Whether no record is left to take.
    pub(crate) fn is_done(&self) -> bool {
        self.left == 0
    }

    /// Takes the whole records at the front of `bytes`; returns how many bytes they are.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Result<usize, BatchError> {
        let mut rest = bytes;
        while self.left > 0 {
            let (length, timestamp, has_key) = match skim(rest, self.delta) {
                Some((length, timestamp, has_key)) => {
                    (length, self.base_timestamp.wrapping_add(timestamp), has_key)
                }
                None => {
                    let Some(length) = record_bytes(rest)?.filter(|bytes| *bytes <= rest.len())
                    else {
                        break;
                    };
                    let one = RecordsIter::new(&rest[..length], 1, 0, self.base_timestamp, None);
                    let record = one.last().expect("one is left")?;
                    if record.offset != i64::from(self.delta) {
                        return Err(BatchError::Record("its offset is not the next"));
                    }
                    (length, record.timestamp, record.key.is_some())
                }
            };
            let timestamp = self.append_time.unwrap_or(timestamp);
            let summary = &mut self.summary;
            summary.timestamp_min = summary.timestamp_min.min(timestamp);
            summary.timestamp_max = summary.timestamp_max.max(timestamp);
            summary.is_keyed &= has_key;
            rest = &rest[length..];
            self.left -= 1;
            self.delta += 1;
        }
        Ok(bytes.len() - rest.len())
    }

    /// The summary, when all records were taken; `over` bytes were not.
    pub(crate) fn finish(self, over: usize) -> Result<Summary, BatchError> {
        match (self.left, over) {
            (0, 0) => Ok(self.summary),
            (0, _) => Err(BatchError::Record("bytes after the last record")),
            _ => Err(BatchError::Record("it is longer than the batch")),
        }
    }
}

/// Bytes of the record at the front of `bytes`, its length field included; `None` when that field
/// is not whole.
pub(crate) fn record_bytes(bytes: &[u8]) -> Result<Option<usize>, BatchError> {
    let mut reader = Reader::new(bytes);
    let length = match reader.varint() {
        Err(_) if bytes.len() < MAX_VARINT_BYTES => return Ok(None),
        length => length?,
    };
    let length = usize::try_from(length).map_err(|_| BatchError::Record("a negative length"))?;
    Ok(Some(bytes.len() - reader.remaining() + length))
}

/// Length (its own field included), timestamp beyond the first and whether there is a key of the
/// record at the front of `bytes`, when its fields are those of one without headers whose offset is
/// `delta` beyond the first: what nearly all records are. `None` says nothing about the record.
#[inline]
fn skim(bytes: &[u8], delta: i32) -> Option<(usize, i64, bool)> {
    let (length, start) = varint(bytes)?;
    let end = start.checked_add(usize::try_from(length).ok()?)?;
    let record = bytes.get(start..end)?;
    let (timestamp, width) = varint(record.get(1..)?)?;
    let mut at = 1 + width;
    let (offset, width) = varint(record.get(at..)?)?;
    at += width;
    let mut has = [false; 2];
    for has in &mut has {
        let (length, width) = varint(record.get(at..)?)?;
        at += width;
        if length != -1 {
            *has = true;
            at = at.checked_add(usize::try_from(length).ok()?)?;
        }
    }
    let is_common = offset == i64::from(delta) && record.get(at..)? == [0];
    is_common.then_some((end, timestamp, has[0]))
}

/// A zigzag varint of at most three bytes, and its width.
#[inline]
fn varint(bytes: &[u8]) -> Option<(i64, usize)> {
    let raw = match bytes {
        [low @ 0..=0x7f, ..] => (u64::from(*low), 1),
        [low, high @ 0..=0x7f, ..] => (u64::from(low & 0x7f) | u64::from(*high) << 7, 2),
        [a, b, c @ 0..=0x7f, ..] => {
            (u64::from(a & 0x7f) | u64::from(b & 0x7f) << 7 | u64::from(*c) << 14, 3)
        }
        _ => return None,
    };
    Some(((raw.0 >> 1) as i64 ^ -((raw.0 & 1) as i64), raw.1))
}

impl<'a> Iterator for RecordsIter<'a> {
    type Item = Result<Record<'a>, BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.left == 0 {
            let trailing = self.reader.remaining();
            self.reader = Reader::new(&[]);
            return (trailing > 0)
                .then_some(Err(BatchError::Record("bytes after the last record")));
        }
        self.left -= 1;
        let record = self.read();
        if record.is_err() {
            (self.left, self.reader) = (0, Reader::new(&[]));
        }
        Some(record)
    }
}
