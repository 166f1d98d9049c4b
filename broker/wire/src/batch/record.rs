//! Single records: borrowed from the records of a batch, or from a message of the old formats.

use crate::batch::BatchError;
use crate::reader::Reader;

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
