//! A picture as a file: KRaft's checkpoint `<end offset>-<epoch>.checkpoint`, which replaces the
//! metadata log below its offset.
//!
//! A control batch (header), batches of the records that would make the picture, a control batch
//! (footer). A file without footer is incomplete and is not used.

use std::path::{Path, PathBuf};

use millrace_io::Io;
use millrace_wire::batch::batches;
use millrace_wire::stored::client_quota_record::EntityData;
use millrace_wire::stored::register_broker_record::{BrokerEndpoint, BrokerFeature};
use millrace_wire::stored::{
    ClientQuotaRecord, ConfigRecord, FeatureLevelRecord, PartitionRecord, ProducerIdsRecord,
    RegisterBrokerRecord, TopicRecord,
};

use super::image::{Broker, Image, ImageError, Topic};
use super::record::{
    Content, MetadataRecord, QuotaEntity, ResourceType, checkpoint_batches, content,
};
use crate::config::ConfigMap;

impl Image {
    /// The records that make this picture out of nothing.
    pub fn records(&self) -> Vec<MetadataRecord> {
        let mut records = Vec::new();
        // Kafka reads metadata.version before anything else.
        let mut features: Vec<_> = self.features.iter().collect();
        features.sort_by_key(|(name, _)| (*name != "metadata.version", *name));
        for (name, level) in features {
            let record = FeatureLevelRecord { name, feature_level: *level, ..Default::default() };
            records.push(MetadataRecord::of(&record, 0));
        }
        records.extend(self.brokers.iter().map(|(id, broker)| registration(*id, broker)));
        for topic in self.topics() {
            topic_records(topic, &mut records);
        }
        for ((kind, name), configs) in &self.configs {
            config_records(*kind, name, configs, &mut records);
        }
        for (entity, values) in &self.quotas {
            let of_one = values.iter().map(|(key, value)| quota_record(entity, key, Some(*value)));
            records.extend(of_one);
        }
        if self.next_producer_id > 0 {
            let next_producer_id = self.next_producer_id;
            let record = ProducerIdsRecord { next_producer_id, ..Default::default() };
            records.push(MetadataRecord::of(&record, 0));
        }
        records.extend(self.unread.iter().cloned());
        records
    }

    /// The bytes of its checkpoint.
    pub fn checkpoint(&self, now_ms: i64) -> Vec<u8> {
        checkpoint_batches(&self.records(), self.leader_epoch, self.timestamp_ms, now_ms)
    }

    /// Reads a checkpoint of the picture at this end offset and epoch.
    ///
    /// # Errors
    /// It is damaged or incomplete.
    pub fn from_checkpoint(
        bytes: &[u8],
        end_offset: i64,
        leader_epoch: i32,
    ) -> Result<Self, ImageError> {
        let mut image = Self::default();
        let mut last = Content::OtherControl;
        let mut scratch = Vec::new();
        for batch in batches(bytes) {
            let failed = |error| ImageError::Batch { offset: end_offset, error };
            let batch = batch.map_err(failed)?;
            last = Content::OtherControl;
            match content(&batch, &mut scratch).map_err(failed)? {
                Content::Records(values) => {
                    for value in values {
                        image.apply_value(value)?;
                    }
                }
                Content::SnapshotHeader(time_ms) => image.timestamp_ms = time_ms,
                Content::SnapshotFooter => last = Content::SnapshotFooter,
                _ => {}
            }
        }
        if last != Content::SnapshotFooter {
            return Err(ImageError::Incomplete);
        }
        (image.end_offset, image.leader_epoch) = (end_offset, leader_epoch);
        Ok(image)
    }

    /// Name of its checkpoint file.
    pub fn checkpoint_name(&self) -> String {
        format!("{:020}-{:010}.checkpoint", self.end_offset, self.leader_epoch)
    }
}

/// Writes the picture's checkpoint into the metadata log's folder, whole or not at all.
///
/// # Errors
/// Those of the file system.
pub fn write<I: Io>(io: &mut I, folder: &Path, image: &Image) -> std::io::Result<PathBuf> {
    let path = folder.join(image.checkpoint_name());
    let now_ms = io.wall_clock_ms();
    io.replace_file(&path, &image.checkpoint(now_ms))?;
    Ok(path)
}

/// Reads the newest checkpoint that is whole; without one, the empty picture.
///
/// # Errors
/// The folder cannot be read. Checkpoints that cannot be are skipped: the log still has their
/// records, or its replay says what is missing.
pub fn read_newest<I: Io>(io: &mut I, folder: &Path) -> std::io::Result<Image> {
    let mut found = list(io, folder)?;
    found.sort_unstable();
    for (end_offset, epoch, path) in found.into_iter().rev() {
        let bytes = io.read_file(&path)?;
        if let Ok(image) = Image::from_checkpoint(&bytes, end_offset, epoch) {
            return Ok(image);
        }
    }
    Ok(Image::default())
}

/// Removes all checkpoints but the newest `keep`; returns the end offset of the oldest that stays.
///
/// # Errors
/// Those of the file system.
pub fn remove_old<I: Io>(io: &mut I, folder: &Path, keep: usize) -> std::io::Result<Option<i64>> {
    let mut found = list(io, folder)?;
    found.sort_unstable();
    let kept = found.split_off(found.len().saturating_sub(keep));
    found.into_iter().try_for_each(|(_, _, path)| io.remove_file(&path))?;
    Ok(kept.first().map(|(end_offset, _, _)| *end_offset))
}

/// End offset, epoch and path of each checkpoint.
fn list<I: Io>(io: &mut I, folder: &Path) -> std::io::Result<Vec<(i64, i32, PathBuf)>> {
    let named = |path: PathBuf| {
        let (end_offset, epoch) = parse_name(path.file_name()?.to_str()?)?;
        Some((end_offset, epoch, path))
    };
    Ok(io.read_dir(folder)?.into_iter().filter_map(named).collect())
}

fn parse_name(name: &str) -> Option<(i64, i32)> {
    let (end_offset, epoch) = name.strip_suffix(".checkpoint")?.split_once('-')?;
    Some((end_offset.parse().ok()?, epoch.parse().ok()?))
}

/// The registration of a broker as a record.
pub(super) fn registration(broker_id: i32, broker: &Broker) -> MetadataRecord {
    let end_points: Vec<BrokerEndpoint<'_>> = broker
        .endpoints
        .iter()
        .map(|point| BrokerEndpoint {
            name: &point.listener,
            host: &point.host,
            port: point.port,
            security_protocol: point.security_protocol,
            ..Default::default()
        })
        .collect();
    let features: Vec<BrokerFeature<'_>> = broker
        .features
        .iter()
        .map(|(name, low, high)| BrokerFeature {
            name,
            min_supported_version: *low,
            max_supported_version: *high,
            ..Default::default()
        })
        .collect();
    let record = RegisterBrokerRecord {
        broker_id,
        incarnation_id: broker.incarnation,
        broker_epoch: broker.epoch,
        end_points: end_points.into(),
        features: features.into(),
        rack: broker.rack.as_deref(),
        fenced: broker.fenced,
        in_controlled_shutdown: broker.in_controlled_shutdown,
        log_dirs: broker.directories.clone().into(),
        ..Default::default()
    };
    MetadataRecord::of(&record, 3)
}

fn topic_records(topic: &Topic, records: &mut Vec<MetadataRecord>) {
    let record = TopicRecord { name: &topic.name, topic_id: topic.id, ..Default::default() };
    records.push(MetadataRecord::of(&record, 0));
    records.extend((0..topic.partitions.len()).map(|index| partition_record(topic, index)));
    config_records(ResourceType::Topic, &topic.name, &topic.config, records);
}

/// A partition as a record.
pub(super) fn partition_record(topic: &Topic, index: usize) -> MetadataRecord {
    let partition = &topic.partitions[index];
    let record = PartitionRecord {
        partition_id: index as i32,
        topic_id: topic.id,
        replicas: partition.replicas.to_vec().into(),
        isr: partition.isr.to_vec().into(),
        leader: partition.leader,
        leader_epoch: partition.leader_epoch,
        partition_epoch: partition.partition_epoch,
        directories: partition.directories.to_vec().into(),
        ..Default::default()
    };
    MetadataRecord::of(&record, 1)
}

/// Settings as records.
pub(super) fn config_records(
    kind: ResourceType,
    resource_name: &str,
    configs: &ConfigMap,
    records: &mut Vec<MetadataRecord>,
) {
    for (name, value) in configs {
        records.push(config_record(kind, resource_name, name, Some(value)));
    }
}

/// One setting, or its removal, as a record.
pub(super) fn config_record(
    kind: ResourceType,
    resource_name: &str,
    name: &str,
    value: Option<&str>,
) -> MetadataRecord {
    let resource_type = kind as i8;
    let record = ConfigRecord { resource_type, resource_name, name, value, ..Default::default() };
    MetadataRecord::of(&record, 0)
}

/// One quota, or its removal, as a record.
pub(super) fn quota_record(entity: &QuotaEntity, key: &str, value: Option<f64>) -> MetadataRecord {
    let parts = entity.iter().map(|(entity_type, name)| EntityData {
        entity_type,
        entity_name: name.as_deref(),
        ..Default::default()
    });
    let record = ClientQuotaRecord {
        entity: parts.collect(),
        key,
        value: value.unwrap_or_default(),
        remove: value.is_none(),
        ..Default::default()
    };
    MetadataRecord::of(&record, 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_io::sim::SimWorld;

    fn full() -> Image {
        let config = |kind, name: &str| config_record(kind, name, "k", Some("v"));
        let partition = crate::metadata::Partition {
            replicas: [1][..].into(),
            isr: [1][..].into(),
            directories: [millrace_wire::Uuid::from_halves(3, 3)][..].into(),
            leader: 1,
            leader_epoch: 4,
            partition_epoch: 9,
        };
        let topic = Topic {
            id: millrace_wire::Uuid::from_halves(1, 1),
            name: "t".into(),
            partitions: vec![partition.clone(), partition],
            config: [("k".to_owned(), "v".to_owned())].into(),
        };
        let broker = Broker {
            epoch: 5,
            incarnation: millrace_wire::Uuid::from_halves(2, 2),
            endpoints: Vec::new(),
            features: vec![("metadata.version".into(), 30, 30)],
            rack: Some("r".into()),
            fenced: false,
            in_controlled_shutdown: false,
            directories: vec![millrace_wire::Uuid::from_halves(3, 3)],
        };
        let feature = FeatureLevelRecord { name: "f", feature_level: 2, ..Default::default() };
        let ids = ProducerIdsRecord { next_producer_id: 2000, ..Default::default() };
        let mut records = vec![registration(1, &broker), config(ResourceType::Broker, "1")];
        topic_records(&topic, &mut records);
        records.push(MetadataRecord::of(&feature, 0));
        records.push(MetadataRecord::of(&ids, 0));
        records.push(MetadataRecord::of(&ClientQuotaRecord::default(), 0));
        let mut image = Image::default();
        image.lead(3);
        image.apply(&records).expect("legal");
        image
    }

    #[test]
    fn a_picture_survives_its_checkpoint() {
        let image = full();
        let bytes = image.checkpoint(0);
        let read = Image::from_checkpoint(&bytes, image.end_offset(), image.leader_epoch());
        assert_eq!(read.expect("just written"), image);
        for end in 0..bytes.len() {
            assert!(Image::from_checkpoint(&bytes[..end], 1, 1).is_err(), "{end}");
        }
    }

    #[test]
    fn damaged_records_are_refused_or_harmless() {
        let records = full().records();
        for (index, record) in records.iter().enumerate() {
            for position in 0..record.bytes().len() {
                for flip in [1, 0x40, 0x80, 0xff] {
                    let mut bytes = record.bytes().to_vec();
                    bytes[position] ^= flip;
                    let mut image = Image::default();
                    image.apply(&records[..index]).expect("legal");
                    // Either outcome is right; what may not happen is a panic, or a picture
                    // that cannot be written down again.
                    if image.apply(&[MetadataRecord::from_bytes(&bytes)]).is_ok() {
                        image.checkpoint(0);
                    }
                }
            }
        }
    }

    #[test]
    fn the_newest_whole_checkpoint_is_read() {
        let mut io = SimWorld::new(1).make_io();
        let folder = Path::new("/meta");
        io.create_dir(folder).expect("an empty disk");
        let old = full();
        let mut new = old.clone();
        new.lead(4);
        assert_eq!(read_newest(&mut io, folder).expect("readable"), Image::default());
        write(&mut io, folder, &old).expect("a healthy disk");
        write(&mut io, folder, &new).expect("a healthy disk");
        assert_eq!(read_newest(&mut io, folder).expect("readable"), new);
        let path = folder.join(new.checkpoint_name());
        io.replace_file(&path, b"damaged").expect("a healthy disk");
        assert_eq!(read_newest(&mut io, folder).expect("readable"), old);
        remove_old(&mut io, folder, 1).expect("a healthy disk");
        assert_eq!(io.read_dir(folder).expect("readable"), [path]);
    }
}
