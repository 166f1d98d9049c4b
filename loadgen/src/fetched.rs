//! Record batches as a consumer gets them: borrowed, cut into records without allocating.
//!
//! Written apart from the broker's codec on purpose: an error made in both would hide itself.

use crate::batch::BATCH_HEADER_BYTES;
use crc_fast::crc32_iscsi as crc32c;
use millrace_wire::compression::Compression;
use std::borrow::Cow;

/// Bytes before those that the length counts.
const LENGTH_END: usize = 12;
/// As large as a request may be.
const PLAIN_BYTES_MAX: usize = 1 << 30;

/// One batch, magic 2.
#[derive(Clone, Copy, Debug)]
pub struct Fetched<'a> {
    bytes: &'a [u8],
}

/// What is wrong with fetched bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Not magic 2, or a length that cannot be.
    #[error("not a record batch of magic 2")]
    Layout,
    /// The CRC of the batch.
    #[error("the batch's CRC does not match")]
    Crc,
    /// The records cannot be decompressed.
    #[error("the batch cannot be decompressed")]
    Codec,
    /// A record reaches beyond its batch.
    #[error("a record does not fit its batch")]
    Record,
}

impl<'a> Fetched<'a> {
    /// Takes the first batch of `bytes`; `None` at the end and at a batch that is cut off, as
    /// brokers may send.
    pub fn first(bytes: &'a [u8]) -> Result<Option<(Self, &'a [u8])>, Broken> {
        let Some(head) = bytes.first_chunk::<BATCH_HEADER_BYTES>() else { return Ok(None) };
        let length = i32::from_be_bytes([head[8], head[9], head[10], head[11]]);
        let length = usize::try_from(length).map_err(|_| Broken::Layout)?;
        if head[16] != 2 || length < BATCH_HEADER_BYTES - LENGTH_END {
            return Err(Broken::Layout);
        }
        let Some((batch, rest)) = bytes.split_at_checked(LENGTH_END + length) else {
            return Ok(None);
        };
        Ok(Some((Self { bytes: batch }, rest)))
    }

    fn i32_at(&self, at: usize) -> i32 {
        let field = self.bytes[at..at + 4].try_into().expect("the header is longer");
        i32::from_be_bytes(field)
    }

    /// Offset of the first record.
    pub fn base_offset(&self) -> i64 {
        i64::from_be_bytes(self.bytes[..8].try_into().expect("8 bytes"))
    }

    /// One after the offset of the last record.
    pub fn end_offset(&self) -> i64 {
        self.base_offset() + i64::from(self.i32_at(23)) + 1
    }

    /// Number of records.
    pub fn count(&self) -> u64 {
        u64::try_from(self.i32_at(57)).unwrap_or(0)
    }

    /// All bytes of it.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// A batch always has its header.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Whether it is a marker of a transaction, which holds no records of ours.
    pub fn is_control(&self) -> bool {
        self.bytes[22] & 0x20 != 0
    }

    /// The records, compressed if there is a codec.
    pub fn body(&self) -> &'a [u8] {
        &self.bytes[BATCH_HEADER_BYTES..]
    }

    /// The records, decompressed if there is a codec.
    pub fn plain_body(&self) -> Result<Cow<'a, [u8]>, Broken> {
        let attributes = i16::from_be_bytes([self.bytes[21], self.bytes[22]]);
        let compression = Compression::from_attributes(attributes).map_err(|_| Broken::Codec)?;
        if compression == Compression::None {
            return Ok(Cow::Borrowed(self.body()));
        }
        let mut plain = Vec::new();
        let decompressed = compression.decompress(self.body(), PLAIN_BYTES_MAX, &mut plain);
        decompressed.map(|()| Cow::Owned(plain)).map_err(|_| Broken::Codec)
    }

    /// Checks the CRC.
    pub fn check_crc(&self) -> Result<(), Broken> {
        let is_right = crc32c(&self.bytes[21..]) == self.i32_at(17) as u32;
        if is_right { Ok(()) } else { Err(Broken::Crc) }
    }
}

/// Calls `take` with offset delta and value of each record of an uncompressed body; a null value is
/// an empty one.
pub fn for_each_record(mut body: &[u8], mut take: impl FnMut(i64, &[u8])) -> Result<(), Broken> {
    while !body.is_empty() {
        let record_bytes = length(&mut body)?;
        let (mut record, rest) = body.split_at_checked(record_bytes).ok_or(Broken::Record)?;
        body = rest;
        // Attributes.
        record = record.get(1..).ok_or(Broken::Record)?;
        varint(&mut record)?;
        let offset_delta = varint(&mut record)?;
        nullable(&mut record)?;
        take(offset_delta, nullable(&mut record)?.unwrap_or_default());
    }
    Ok(())
}

fn length(bytes: &mut &[u8]) -> Result<usize, Broken> {
    usize::try_from(varint(bytes)?).map_err(|_| Broken::Record)
}

fn nullable<'a>(bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>, Broken> {
    let length = varint(bytes)?;
    if length < 0 {
        return Ok(None);
    }
    let length = usize::try_from(length).map_err(|_| Broken::Record)?;
    let (field, rest) = bytes.split_at_checked(length).ok_or(Broken::Record)?;
    *bytes = rest;
    Ok(Some(field))
}

fn varint(bytes: &mut &[u8]) -> Result<i64, Broken> {
    let mut value = 0_u64;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().ok_or(Broken::Record)?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    Err(Broken::Record)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{self, Fill, RecordShape, Template};
    use crate::keys::{KeySpread, Keys};
    use crate::payload::{self, Stamp};

    fn shape(records_max: usize, keyed: bool) -> RecordShape {
        RecordShape {
            value_bytes: 100,
            value_bytes_max: if keyed { 400 } else { 100 },
            header_bytes: if keyed { 20 } else { 0 },
            records_max,
            keyed,
            constant_percent: 0,
        }
    }

    fn batch(records_max: usize, count: usize, keyed: bool) -> Vec<u8> {
        // Records with keys also have headers, and values of many sizes.
        let template = Template::new(shape(records_max, keyed), 9);
        let keys = Keys::new(1000, 8, KeySpread::Uniform);
        let mut bytes = template.batch(count).to_vec();
        let intended_ns: Vec<u64> = (0..count as u64).map(|index| 1_000 + index).collect();
        let fill = Fill {
            first: Stamp { run: 1, producer: 2, partition: 3, sequence: 40, intended_ns: 0 },
            intended_ns: &intended_ns,
            timestamp_ms: 1_700_000_000_000,
            producer: (-1, -1, -1),
            keys: keyed.then_some(&keys),
        };
        template.patch(&mut bytes, count, &fill, &mut fastrand::Rng::with_seed(1));
        batch::seal(&mut bytes);
        bytes
    }

    #[test]
    fn a_built_batch_is_read_back_record_by_record() {
        for (records_max, count, keyed) in
            [(1, 1, false), (10, 10, true), (300, 1, false), (300, 299, true)]
        {
            let bytes = batch(records_max, count, keyed);
            let (fetched, rest) = Fetched::first(&bytes).expect("sound").expect("whole");
            assert!(rest.is_empty());
            assert_eq!(fetched.check_crc(), Ok(()));
            assert_eq!((fetched.count(), fetched.end_offset()), (count as u64, count as i64));
            let mut seen = 0;
            for_each_record(fetched.body(), |offset_delta, value| {
                let stamp = payload::read(value).expect("sound");
                assert_eq!(offset_delta, seen);
                assert_eq!((stamp.sequence, stamp.partition), (40 + seen as u64, 3));
                assert_eq!(stamp.intended_ns, 1_000 + seen as u64);
                seen += 1;
            })
            .expect("sound");
            assert_eq!(seen, count as i64);
        }
    }

    #[test]
    fn the_brokers_codec_reads_the_same_batch() {
        let bytes = batch(5, 5, true);
        let parsed = millrace_wire::batch::validate(&bytes).expect("sound");
        let mut scratch = Vec::new();
        let records = parsed.records(&mut scratch, 1 << 20).expect("sound");
        let mut values_bytes = 0;
        for record in records.map(|record| record.expect("sound")) {
            let value = record.value.expect("there is a value").len();
            assert!((100..=400).contains(&value), "{value}");
            values_bytes += value as u64;
            assert_eq!(record.key.map(<[u8]>::len), Some(8));
        }
        let template = Template::new(shape(5, true), 9);
        assert_eq!((values_bytes, values_bytes > 500), (template.values_bytes(5), true));
    }

    #[test]
    fn damage_is_an_error_and_a_cut_is_an_end() {
        let good = batch(3, 3, false);
        assert!(Fetched::first(&good[..good.len() - 1]).expect("cut").is_none());
        assert!(Fetched::first(&good[..30]).expect("cut").is_none());
        let broken = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            bytes
        };
        assert_eq!(Fetched::first(&broken(16, 1)).err(), Some(Broken::Layout));
        assert_eq!(Fetched::first(&broken(8, 0xff)).err(), Some(Broken::Layout));
        let altered = broken(100, 0x55);
        let (fetched, _) = Fetched::first(&altered).expect("laid out").expect("whole");
        assert_eq!(fetched.check_crc(), Err(Broken::Crc));
        for end in 1..40 {
            let body = &good[BATCH_HEADER_BYTES..BATCH_HEADER_BYTES + end];
            assert_eq!(for_each_record(body, |_, _| ()), Err(Broken::Record));
        }
    }
}
