//! What a client may store in a topic, and as what: Kafka's rules for produced records
//! (`UnifiedLog.analyzeAndValidateRecords`, `LogValidator`), and the batch as the topic wants it.
//! Pure.

use millrace_wire::batch::{
    self, Batch, BatchBuilder, BatchError, BatchHeader, BatchOptions, Summary, patch_create_time,
};
use millrace_wire::compression::{Compression, CompressionError};
use millrace_wire::{ErrorCode, message_set};

use crate::config::{TimestampType, TopicConfig};
use crate::limits;

/// Timestamp of a record that has none.
const NO_TIMESTAMP: i64 = -1;

/// What records are held against.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rules<'a> {
    pub(crate) topic: &'a TopicConfig,
    pub(crate) now_ms: i64,
    /// Of the produce request.
    pub(crate) version: i16,
}

/// Why records are refused, as the response says it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) error: ErrorCode,
    pub(crate) message: Option<&'static str>,
    /// Index and fault of the records that are to blame, where single ones are (KIP-467).
    pub(crate) records: Vec<(i32, &'static str)>,
}

impl From<ErrorCode> for Refusal {
    fn from(error: ErrorCode) -> Self {
        Self { error, message: None, records: Vec::new() }
    }
}

impl Rules<'_> {
    /// Checks records as they came; returns the batch to store if it is not what came.
    pub(crate) fn admit(
        &self,
        records: &[u8],
        scratch: &mut Vec<u8>,
    ) -> Result<Option<Vec<u8>>, Refusal> {
        if self.version < 3 && message_set::magic(records).is_some_and(|magic| magic < 2) {
            let batch = self.convert(records, scratch)?;
            // A batch of our own may be of any compression, whoever sent its records.
            let rules = Rules { version: i16::MAX, ..*self };
            return Ok(rules.admit_batch(&batch, scratch)?.or(Some(batch)));
        }
        self.admit_batch(records, scratch)
    }

    /// A message set of versions 0 to 2 as one batch, compressed as its first message was.
    fn convert(&self, set: &[u8], scratch: &mut Vec<u8>) -> Result<Vec<u8>, Refusal> {
        let mut builder = BatchBuilder::new();
        let bytes_max = limits::DECOMPRESSED_BYTES;
        let source = message_set::append_to_builder(set, &mut builder, scratch, bytes_max)?;
        if builder.record_count() == 0 {
            return Err(ErrorCode::INVALID_RECORD.into());
        }
        let (compression, level) = self.topic.stored_compression(source);
        let options = BatchOptions { compression, level, ..BatchOptions::default() };
        Ok(builder.finish(&options).map_err(BatchError::from)?.to_vec())
    }

    fn admit_batch(
        &self,
        records: &[u8],
        scratch: &mut Vec<u8>,
    ) -> Result<Option<Vec<u8>>, Refusal> {
        let batch = batch::validate(records)?;
        let header = batch.header();
        if header.base_offset != 0 {
            let message = Some("the base offset of a batch sent must be 0");
            return Err(Refusal { message, ..ErrorCode::INVALID_RECORD.into() });
        }
        if header.is_transactional() {
            return Err(ErrorCode::INVALID_TXN_STATE.into());
        }
        let source = header.compression().map_err(BatchError::from)?;
        if self.version < 7 && source == Compression::Zstd {
            return Err(ErrorCode::UNSUPPORTED_COMPRESSION_TYPE.into());
        }
        self.check_size(records.len())?;
        let max_timestamp = self.check_records(&batch, scratch)?;
        if self.topic.stored_compression(source).0 != source {
            let encoded = self.encode(&batch, scratch)?;
            self.check_size(encoded.len())?;
            return Ok(Some(encoded));
        }
        let is_right = header.max_timestamp == max_timestamp && !header.is_log_append_time();
        if is_right || self.topic.timestamp_type == TimestampType::LogAppendTime {
            return Ok(None);
        }
        let mut corrected = records.to_vec();
        patch_create_time(&mut corrected, max_timestamp);
        Ok(Some(corrected))
    }

    pub(crate) fn check_size(&self, bytes: usize) -> Result<(), Refusal> {
        let exceeds = |max| usize::try_from(max).is_ok_and(|max| bytes > max);
        if exceeds(self.topic.max_message_bytes) {
            return Err(ErrorCode::MESSAGE_TOO_LARGE.into());
        }
        if exceeds(self.topic.segment_bytes) {
            return Err(ErrorCode::RECORD_LIST_TOO_LARGE.into());
        }
        Ok(())
    }

    /// Reads every record; returns the largest timestamp.
    fn check_records(&self, batch: &Batch<'_>, scratch: &mut Vec<u8>) -> Result<i64, Refusal> {
        let summary = batch.summary(scratch, limits::DECOMPRESSED_BYTES)?;
        if !self.has_no_faults(&summary) || batch.header().is_log_append_time() {
            self.find_faults(batch, scratch)?;
        }
        Ok(summary.timestamp_max)
    }

    /// Whether a plain batch for a topic with the producers' times is stored as it came.
    pub(crate) fn takes_unchanged(&self, header: &BatchHeader, summary: &Summary) -> bool {
        self.has_no_faults(summary) && header.max_timestamp == summary.timestamp_max
    }

    fn has_no_faults(&self, summary: &Summary) -> bool {
        summary.timestamp_min != NO_TIMESTAMP
            && !self.has_bad_time(summary.timestamp_min)
            && !self.has_bad_time(summary.timestamp_max)
            && (summary.is_keyed || !self.topic.cleanup_policy.compact)
    }

    /// Looks at sound records one by one for what the topic refuses.
    fn find_faults(&self, batch: &Batch<'_>, scratch: &mut Vec<u8>) -> Result<(), Refusal> {
        let needs_key = self.topic.cleanup_policy.compact;
        let claims_append_time = batch.header().is_log_append_time();
        let (mut error, mut faults) = (None, Vec::new());
        for (index, record) in (0..).zip(batch.records(scratch, limits::DECOMPRESSED_BYTES)?) {
            let record = record?;
            let fault = if needs_key && record.key.is_none() {
                (ErrorCode::INVALID_RECORD, "Compacted topic cannot accept message without key")
            } else if self.has_bad_time(record.timestamp) {
                (ErrorCode::INVALID_TIMESTAMP, "Timestamp is out of the range the topic allows")
            } else if claims_append_time
                && self.topic.timestamp_type == TimestampType::LogAppendTime
            {
                let fault = "Producer should not set timestamp type to LogAppendTime";
                (ErrorCode::INVALID_TIMESTAMP, fault)
            } else {
                continue;
            };
            // A wrong time outranks a missing key.
            error = Some(error.map_or(fault.0, |error: ErrorCode| error.min(fault.0)));
            if faults.len() < limits::RECORD_ERRORS {
                faults.push((index, fault.1));
            }
        }
        match error {
            None => Ok(()),
            Some(error) => {
                Err(Refusal { error, message: faults.first().map(|f| f.1), records: faults })
            }
        }
    }

    fn has_bad_time(&self, timestamp: i64) -> bool {
        let age = self.now_ms.saturating_sub(timestamp);
        self.topic.timestamp_type == TimestampType::CreateTime
            && timestamp != NO_TIMESTAMP
            && (age > self.topic.timestamp_before_max_ms
                || age.saturating_neg() > self.topic.timestamp_after_max_ms)
    }

    /// The same records in the topic's compression.
    fn encode(&self, batch: &Batch<'_>, scratch: &mut Vec<u8>) -> Result<Vec<u8>, BatchError> {
        let header = batch.header();
        let mut builder = BatchBuilder::new();
        for (delta, record) in (0..).zip(batch.records(scratch, limits::DECOMPRESSED_BYTES)?) {
            let record = record?;
            let headers: Vec<_> = record.headers.iter().collect();
            let headers = headers.iter().copied();
            builder.append_at(delta, record.timestamp, record.key, record.value, headers);
        }
        let (compression, level) = self.topic.stored_compression(header.compression()?);
        let options = BatchOptions {
            compression,
            level,
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
            ..BatchOptions::default()
        };
        Ok(builder.finish(&options)?.to_vec())
    }
}

impl From<BatchError> for Refusal {
    fn from(error: BatchError) -> Self {
        let (error, message) = match error {
            BatchError::Crc { .. } | BatchError::Length(_) => (ErrorCode::CORRUPT_MESSAGE, None),
            BatchError::Magic(magic) if !(0..=1).contains(&magic) => {
                (ErrorCode::CORRUPT_MESSAGE, None)
            }
            BatchError::Truncated { .. } => {
                (ErrorCode::INVALID_RECORD, Some("the batch is longer than the records sent"))
            }
            BatchError::Compression(CompressionError::Unknown(_)) => {
                (ErrorCode::UNSUPPORTED_COMPRESSION_TYPE, None)
            }
            BatchError::Magic(_) => (ErrorCode::INVALID_RECORD, Some("only magic 2 is taken here")),
            BatchError::Trailing(_) => {
                (ErrorCode::INVALID_RECORD, Some("a partition takes one batch of a request"))
            }
            BatchError::Control => {
                (ErrorCode::INVALID_RECORD, Some("clients must not write control records"))
            }
            BatchError::Count { .. } => {
                (ErrorCode::INVALID_RECORD, Some("the count of records contradicts their offsets"))
            }
            BatchError::Sequence { .. } => {
                (ErrorCode::INVALID_RECORD, Some("an idempotent producer's batch needs a sequence"))
            }
            BatchError::Record(_) | BatchError::Field(_) | BatchError::Compression(_) => {
                (ErrorCode::INVALID_RECORD, Some("the records are not what the batch says"))
            }
        };
        Self { message, ..error.into() }
    }
}

#[cfg(test)]
mod tests {
    use millrace_wire::batch::{
        LOG_APPEND_TIME, patch_base_offset, patch_log_append_time, position,
    };

    use super::*;
    use crate::config::Config;

    const NOW: i64 = 1_000_000_000;

    /// Records as `(timestamp, key)`.
    type Records<'a> = &'a [(i64, Option<&'a str>)];

    fn topic(settings: &[(&str, &str)]) -> TopicConfig {
        let own = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Config::default().topic(&own.collect())
    }

    fn batch(compression: Compression, records: Records<'_>) -> Vec<u8> {
        let mut builder = BatchBuilder::new();
        for (timestamp, key) in records {
            let headers = [("header", Some(&b"1"[..])), ("none", None)];
            builder.append(*timestamp, key.map(str::as_bytes), Some(&[b'v'; 200]), &headers);
        }
        let options = BatchOptions {
            compression,
            producer_id: 5,
            producer_epoch: 1,
            base_sequence: 9,
            ..BatchOptions::default()
        };
        builder.finish(&options).expect("compresses").to_vec()
    }

    fn admit(
        settings: &[(&str, &str)],
        version: i16,
        records: &[u8],
    ) -> Result<Option<Vec<u8>>, Refusal> {
        let rules = Rules { topic: &topic(settings), now_ms: NOW, version };
        rules.admit(records, &mut Vec::new())
    }

    #[test]
    fn a_batch_is_stored_in_the_topics_compression() {
        use Compression::{Gzip, Lz4, None as Plain, Snappy, Zstd};
        let all = [Plain, Gzip, Snappy, Lz4, Zstd];
        let records = [(NOW, Some("k")), (NOW - 5, None), (NOW + 5, Some(""))];
        for source in all {
            let sent = batch(source, &records);
            let kept = admit(&[("compression.type", "producer")], 7, &sent).expect("admitted");
            assert_eq!(kept, None, "{source:?} stays as it is");
            for target in all {
                let name = if target == Plain { "uncompressed" } else { target.name() };
                let stored = admit(&[("compression.type", name)], 7, &sent).expect("admitted");
                assert_eq!(stored.is_none(), source == target, "{source:?} as {target:?}");
                let Some(stored) = stored else { continue };
                let (old, new) = (parsed(&sent), parsed(&stored));
                assert_eq!(new.header().compression().expect("known"), target);
                let ids = |batch: &Batch<'_>| {
                    let header = batch.header();
                    let producer = (header.producer_id, header.producer_epoch);
                    (producer, header.base_sequence, header.max_timestamp, header.record_count)
                };
                assert_eq!(ids(&new), ids(&old));
                let (mut left, mut right) = (Vec::new(), Vec::new());
                let old = old.records(&mut left, 10_000).expect("readable");
                let new = new.records(&mut right, 10_000).expect("readable");
                let old: Vec<_> = old.map(|record| record.expect("readable")).collect();
                assert_eq!(new.map(|record| record.expect("readable")).collect::<Vec<_>>(), old);
            }
        }
    }

    fn parsed(bytes: &[u8]) -> Batch<'_> {
        batch::validate(bytes).expect("a batch as a producer sends it")
    }

    #[test]
    fn levels_of_gzip_and_zstd_are_heeded() {
        let words: String = (0..2_000).map(|n: u32| format!("{} ", n.wrapping_mul(7919))).collect();
        let sent = batch(Compression::None, &[(NOW, Some(&words))]);
        for (codec, low, high) in [("gzip", "1", "9"), ("zstd", "-50", "19")] {
            let key = format!("compression.{codec}.level");
            let bytes = |level| {
                let settings = [("compression.type", codec), (&key, level)];
                admit(&settings, 7, &sent).expect("admitted").expect("compressed").len()
            };
            assert!(bytes(low) > bytes(high), "{codec}");
        }
    }

    #[test]
    fn refuses_as_kafka_does() {
        const LAT: (&str, &str) = ("message.timestamp.type", "LogAppendTime");
        const BEFORE: (&str, &str) = ("message.timestamp.before.max.ms", "100");
        const AFTER: (&str, &str) = ("message.timestamp.after.max.ms", "100");
        const COMPACT: (&str, &str) = ("cleanup.policy", "compact");
        const UNPACKED: (&str, &str) = ("compression.type", "uncompressed");
        let plain = |records| batch(Compression::None, records);
        let gzip = |records| batch(Compression::Gzip, records);
        let one = plain(&[(NOW, None)]);
        let changed = |change: fn(&mut [u8])| {
            let mut batch = one.clone();
            change(&mut batch);
            batch::patch_crc(&mut batch);
            batch
        };
        let from_7 = changed(|batch| patch_base_offset(batch, 7));
        let of_transaction = changed(|batch| batch[position::ATTRIBUTES + 1] |= 1 << 4);
        let append_time = changed(|batch| patch_log_append_time(batch, NOW));
        let half_old = [(NOW, None), (NOW - 101, None), (NOW - 200, Some("k"))];
        let room = |bytes: usize| bytes.to_string();
        let (exact, short) = (room(one.len()), room(one.len() - 1));
        let packed = gzip(&[(NOW, Some("k")), (NOW, Some("k"))]);
        let packed_size = room(packed.len());
        let zstd = batch(Compression::Zstd, &[(NOW, None)]);
        type Row<'a> = (&'a [(&'a str, &'a str)], i16, &'a [u8], Result<(), (i16, &'a [i32])>);
        let rows: &[Row<'_>] = &[
            (&[], 7, &one, Ok(())),
            (&[], 7, &from_7, Err((87, &[]))),
            (&[], 7, &of_transaction, Err((48, &[]))),
            (&[], 6, &zstd, Err((76, &[]))),
            (&[], 7, &zstd, Ok(())),
            (&[("max.message.bytes", &exact)], 7, &one, Ok(())),
            (&[("max.message.bytes", &short)], 7, &one, Err((10, &[]))),
            (&[("internal.segment.bytes", &short)], 7, &one, Err((18, &[]))),
            (&[("max.message.bytes", &packed_size)], 7, &packed, Ok(())),
            (&[("max.message.bytes", &packed_size), UNPACKED], 7, &packed, Err((10, &[]))),
            (&[COMPACT], 7, &plain(&[(NOW, Some("k")), (NOW, None)]), Err((87, &[1]))),
            (&[COMPACT], 7, &gzip(&[(NOW, Some("k"))]), Ok(())),
            (&[BEFORE], 7, &gzip(&half_old), Err((32, &[1, 2]))),
            (&[BEFORE, COMPACT], 7, &plain(&half_old), Err((32, &[0, 1, 2]))),
            (&[BEFORE, LAT], 7, &plain(&half_old), Ok(())),
            (&[BEFORE], 7, &plain(&[(NOW - 100, None), (NO_TIMESTAMP, None)]), Ok(())),
            (&[AFTER], 7, &plain(&[(NOW + 101, None), (NOW + 100, None)]), Err((32, &[0]))),
            (&[LAT], 7, &append_time, Err((32, &[0]))),
        ];
        for (settings, version, records, expected) in rows {
            let found = admit(settings, *version, records);
            let blamed = |refusal: Refusal| {
                let records: Vec<i32> = refusal.records.iter().map(|record| record.0).collect();
                (refusal.error.code(), records)
            };
            let expected = expected.map_err(|(error, records)| (error, records.to_vec()));
            assert_eq!(found.map(drop).map_err(blamed), expected, "{settings:?} {version}");
        }
    }

    #[test]
    fn what_a_producer_says_of_its_times_is_made_true() {
        let sent = batch(Compression::None, &[(NOW, None), (NOW - 1, None)]);
        let mut wrong = sent.clone();
        wrong[position::MAX_TIMESTAMP..][..8].copy_from_slice(&(NOW + 9).to_be_bytes());
        batch::patch_crc(&mut wrong);
        assert_eq!(admit(&[], 7, &wrong), Ok(Some(sent.clone())));
        let mut append_time = sent.clone();
        patch_log_append_time(&mut append_time, NOW);
        let stored = admit(&[], 7, &append_time).expect("admitted").expect("corrected");
        assert_eq!(parsed(&stored).header().attributes & LOG_APPEND_TIME, 0);
    }

    #[test]
    fn old_message_sets_are_stored_as_batches_in_the_topics_compression() {
        // Offset 0, size, CRC, magic 1, no compression, time, null key, value "v".
        let after_crc = [&[1, 0][..], &NOW.to_be_bytes(), &[0xff; 4], &[0, 0, 0, 1], b"v"].concat();
        let crc = message_set::crc32(&after_crc).to_be_bytes();
        let set = [&[0; 11][..], &[(after_crc.len() + 4) as u8], &crc, &after_crc].concat();
        let rows = [("producer", Compression::None), ("zstd", Compression::Zstd)];
        for (name, compression) in rows {
            let stored = admit(&[("compression.type", name)], 2, &set).expect("admitted");
            let stored = stored.expect("never stored as it came");
            assert_eq!(parsed(&stored).header().compression().expect("known"), compression);
        }
        assert_eq!(admit(&[], 3, &set).map_err(|refusal| refusal.error.code()), Err(87));
    }
}
