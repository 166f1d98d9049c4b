//! One record of the metadata log, and the record batches it is kept in.
//!
//! A record is the unsigned varints 1, key and version, then its body; it is the value of an
//! ordinary record without key. Control records (a new leader, a checkpoint's first and last) have
//! a key of version and type. Batches are not compressed and have no producer.

use millrace_wire::batch::{Batch, BatchBuilder, BatchError, BatchOptions};
use millrace_wire::codec::{Message, Reader, Writer};
use millrace_wire::stored::leader_change_message::Voter;
use millrace_wire::stored::{
    LeaderChangeMessage, SnapshotFooterRecord, SnapshotHeaderRecord, encode_metadata,
};

/// Whose settings a [`ConfigRecord`](millrace_wire::stored::ConfigRecord) holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // the names say it
pub enum ResourceType {
    Topic = 2,
    Broker = 4,
    BrokerLogger = 8,
    ClientMetrics = 16,
    Group = 32,
}

impl ResourceType {
    /// The resource type of this number, if it is one.
    pub fn from_code(code: i8) -> Option<Self> {
        [Self::Topic, Self::Broker, Self::BrokerLogger, Self::ClientMetrics, Self::Group]
            .into_iter()
            .find(|kind| *kind as i8 == code)
    }
}

/// Whom a quota is for: types with names, sorted; no name stands for all that have no quota of
/// their own.
pub type QuotaEntity = Vec<(String, Option<String>)>;

pub(super) fn quota_entity<'a>(
    parts: impl Iterator<Item = (&'a str, Option<&'a str>)>,
) -> QuotaEntity {
    let owned = parts.map(|(kind, name)| (kind.to_owned(), name.map(str::to_owned)));
    let mut entity: QuotaEntity = owned.collect();
    entity.sort();
    entity
}

/// An encoded metadata record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MetadataRecord(Vec<u8>);

/// Bytes of records in a batch beyond which the next batch begins.
const BATCH_BYTES_MAX: usize = 1 << 20;

const LEADER_CHANGE: i16 = 2;
const SNAPSHOT_HEADER: i16 = 3;
const SNAPSHOT_FOOTER: i16 = 4;

impl MetadataRecord {
    /// Encodes a record of `millrace_wire::stored`.
    ///
    /// # Panics
    /// If a field is set that `version` lacks, or a text is longer than its length can say: the
    /// controller has checked lengths before.
    pub fn of<'a, M: Message<'a>>(message: &M, version: i16) -> Self {
        let mut writer = Writer::new();
        encode_metadata(message, version, &mut writer)
            .expect("fields exist in the version, and texts were checked to be short");
        Self(writer.into_vec())
    }

    /// A record as it was read.
    pub(super) fn from_bytes(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// The record's bytes: frame version, key, version, body.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// One batch with all the records, base offset 0 and leader epoch 0: the log patches both.
    pub fn batch(records: &[Self], now_ms: i64) -> Vec<u8> {
        batch(BatchOptions::default(), now_ms, records.iter().map(|record| (None, record.bytes())))
    }

    /// The records cut so that each part makes a batch of ordinary size.
    pub fn parts(records: &[Self]) -> impl Iterator<Item = &[Self]> {
        let mut rest = records;
        std::iter::from_fn(move || {
            let mut bytes = 0;
            let fits = rest.iter().take_while(|record| {
                bytes += record.bytes().len() + 16;
                bytes <= BATCH_BYTES_MAX
            });
            let (part, after) = rest.split_at(fits.count().max(1).min(rest.len()));
            rest = after;
            (!part.is_empty()).then_some(part)
        })
    }
}

/// The batch that opens a leader's epoch: a control record which says that this node, its own
/// and only voter, leads.
pub fn leader_change_batch(node_id: i32, now_ms: i64) -> Vec<u8> {
    let voter = Voter { voter_id: node_id, ..Default::default() };
    let message = LeaderChangeMessage {
        leader_id: node_id,
        voters: vec![voter.clone()].into(),
        granting_voters: vec![voter].into(),
        ..Default::default()
    };
    control_batch(LEADER_CHANGE, &message, BatchOptions::default(), now_ms)
}

/// A checkpoint's bytes: header, records, footer, at offsets from 0 and the given epoch.
pub(super) fn checkpoint_batches(
    records: &[MetadataRecord],
    epoch: i32,
    log_timestamp_ms: i64,
    now_ms: i64,
) -> Vec<u8> {
    let at = |base_offset| BatchOptions {
        base_offset,
        partition_leader_epoch: epoch,
        ..BatchOptions::default()
    };
    let header = SnapshotHeaderRecord {
        last_contained_log_timestamp: log_timestamp_ms,
        ..Default::default()
    };
    let mut bytes = control_batch(SNAPSHOT_HEADER, &header, at(0), now_ms);
    let mut offset = 1;
    for part in MetadataRecord::parts(records) {
        let values = part.iter().map(|record| (None, record.bytes()));
        bytes.extend(batch(at(offset), now_ms, values));
        offset += part.len() as i64;
    }
    let footer = SnapshotFooterRecord::default();
    bytes.extend(control_batch(SNAPSHOT_FOOTER, &footer, at(offset), now_ms));
    bytes
}

fn control_batch<'a, M: Message<'a>>(
    kind: i16,
    message: &M,
    options: BatchOptions,
    now_ms: i64,
) -> Vec<u8> {
    let mut key = Writer::new();
    key.i16(0);
    key.i16(kind);
    let mut value = Writer::new();
    message.encode(&mut value, 0).expect("version 0 has every field that is set");
    let record = [(Some(key.bytes()), value.bytes())];
    batch(BatchOptions { control: true, ..options }, now_ms, record.into_iter())
}

/// One batch of records of equal time.
fn batch<'a>(
    options: BatchOptions,
    now_ms: i64,
    records: impl Iterator<Item = (Option<&'a [u8]>, &'a [u8])>,
) -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    for (key, value) in records {
        builder.append(now_ms, key, Some(value), &[]);
    }
    builder.finish(&options).expect("nothing is compressed, so nothing can fail").to_vec()
}

/// What a stored batch holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Content<'a> {
    /// Values of ordinary records.
    Records(Vec<&'a [u8]>),
    LeaderChange,
    /// With the time of the last record of the log that the checkpoint stands for.
    SnapshotHeader(i64),
    SnapshotFooter,
    /// A control record that changes nothing here.
    OtherControl,
}

/// Reads what a batch holds, after checking its checksum.
pub(super) fn content<'a>(
    batch: &Batch<'a>,
    scratch: &'a mut Vec<u8>,
) -> Result<Content<'a>, BatchError> {
    batch.verify_crc()?;
    let is_control = batch.header().is_control();
    let records = batch.records(scratch, BATCH_BYTES_MAX * 16)?;
    if !is_control {
        let values = records.map(|record| Ok(record?.value.unwrap_or_default()));
        return values.collect::<Result<_, _>>().map(Content::Records);
    }
    let mut found = Content::OtherControl;
    for record in records {
        let record = record?;
        let mut key = Reader::new(record.key.unwrap_or_default());
        let _version = key.i16()?;
        found = match key.i16()? {
            LEADER_CHANGE => Content::LeaderChange,
            SNAPSHOT_HEADER => {
                let mut value = Reader::new(record.value.unwrap_or_default());
                let header = SnapshotHeaderRecord::decode(&mut value, 0)?;
                Content::SnapshotHeader(header.last_contained_log_timestamp)
            }
            SNAPSHOT_FOOTER => Content::SnapshotFooter,
            _ => Content::OtherControl,
        };
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use millrace_wire::stored::{FeatureLevelRecord, NoOpRecord};

    use super::*;

    #[test]
    fn the_leader_change_is_what_kafka_writes() {
        // The first batch of a metadata log of Kafka 4.3.1 (node 1) from its attributes on, with
        // another time.
        let expected = "002000000000\
            00000000000000050000000000000005\
            ffffffffffffffffffffffffffff00000001\
            3a0000000800000002260000000000010200000001000200000001000000";
        let bytes = leader_change_batch(1, 5);
        let hex: String = bytes[21..].iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, expected);
    }

    #[test]
    fn batches_are_read_back() {
        let feature = FeatureLevelRecord { name: "f", feature_level: 30, ..Default::default() };
        let records =
            [MetadataRecord::of(&feature, 0), MetadataRecord::of(&NoOpRecord::default(), 0)];
        let bytes = MetadataRecord::batch(&records, 7);
        let (batch, rest) = Batch::parse(&bytes).expect("just written");
        assert!(rest.is_empty());
        let values = records.iter().map(MetadataRecord::bytes).collect();
        let mut scratch = Vec::new();
        let read = content(&batch, &mut scratch).expect("just written");
        assert_eq!(read, Content::Records(values));
    }

    #[test]
    fn many_records_are_cut_into_parts() {
        let records = vec![MetadataRecord(vec![0; 1000]); 2500];
        let parts: Vec<usize> = MetadataRecord::parts(&records).map(<[_]>::len).collect();
        assert_eq!(parts, [1032, 1032, 436]);
        assert_eq!(MetadataRecord::parts(&[]).count(), 0);
        let large = [MetadataRecord(vec![0; BATCH_BYTES_MAX + 1])];
        assert_eq!(MetadataRecord::parts(&large).count(), 1);
    }
}
