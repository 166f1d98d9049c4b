//! What a broker writes when it starts, and the blocks of producer ids it takes later.

use std::collections::BTreeMap;

use millrace_wire::Uuid;
use millrace_wire::stored::{
    BrokerRegistrationChangeRecord, FeatureLevelRecord, PartitionChangeRecord, ProducerIdsRecord,
};

use super::Controller;
use crate::metadata::checkpoint::registration;
use crate::metadata::image::{Broker, Endpoint};
use crate::metadata::record::MetadataRecord;

/// Producer ids in one block, as in Kafka.
pub const PRODUCER_ID_BLOCK: i64 = 1000;

/// `metadata.version` of Kafka 4.3 (4.3-IV0), whose record versions are written here. No other
/// feature is finalised: transactions of version 2 and KIP-848 groups are not built.
const FEATURES: &[(&str, i16)] = &[("metadata.version", 30)];

/// What a broker says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub struct Registration {
    /// New for every process.
    pub incarnation: Uuid,
    /// As advertised, with real ports.
    pub endpoints: Vec<Endpoint>,
    /// Ids of its data folders, that with the metadata log first.
    pub directories: Vec<Uuid>,
    /// Partitions that are in another folder than the picture says.
    pub found: Found,
}

/// The id of the data folder by topic and partition.
pub type Found = BTreeMap<(Uuid, i32), Uuid>;

impl Controller<'_> {
    /// Records of a start, to be written after the control record of the new epoch was
    /// ([`Image::lead`](crate::metadata::Image::lead)): features at the first start, this broker's
    /// registration, and for each partition it leads a new leader epoch, so that nothing is ever
    /// written at an old one.
    pub fn begin(&self, own: &Registration) -> Vec<MetadataRecord> {
        let mut records = Vec::new();
        for (name, level) in FEATURES {
            if !self.image.features().contains_key(*name) {
                let record =
                    FeatureLevelRecord { name, feature_level: *level, ..Default::default() };
                records.push(MetadataRecord::of(&record, 0));
            }
        }
        let node_id = self.config.node_id;
        // The broker epoch is the offset of this very record.
        let epoch = self.image.end_offset() + records.len() as i64;
        let broker = Broker {
            epoch,
            incarnation: own.incarnation,
            endpoints: own.endpoints.clone(),
            features: FEATURES.iter().map(|(name, l)| ((*name).to_owned(), *l, *l)).collect(),
            rack: self.config.rack.clone(),
            fenced: true,
            in_controlled_shutdown: false,
            directories: own.directories.clone(),
        };
        records.push(registration(node_id, &broker));
        for topic in self.image.topics() {
            for (partition, index) in topic.partitions.iter().zip(0..) {
                if partition.replicas.contains(&node_id) {
                    let found = own.found.get(&(topic.id, index));
                    let directories =
                        found.map(|id| partition.directories_with(node_id, *id).into());
                    let change = PartitionChangeRecord {
                        partition_id: index,
                        topic_id: topic.id,
                        isr: Some(vec![node_id].into()),
                        leader: node_id,
                        directories,
                        ..Default::default()
                    };
                    records.push(MetadataRecord::of(&change, 1));
                }
            }
        }
        let unfence = BrokerRegistrationChangeRecord {
            broker_id: node_id,
            broker_epoch: epoch,
            fenced: -1,
            ..Default::default()
        };
        records.push(MetadataRecord::of(&unfence, 0));
        records
    }

    /// The next block of producer ids: its first id, and the record that gives it out.
    pub fn allocate_producer_ids(&self) -> (i64, MetadataRecord) {
        let first = self.image.next_producer_id();
        let node_id = self.config.node_id;
        let record = ProducerIdsRecord {
            broker_id: node_id,
            broker_epoch: self.image.brokers().get(&node_id).map_or(-1, |broker| broker.epoch),
            next_producer_id: first + PRODUCER_ID_BLOCK,
            ..Default::default()
        };
        (first, MetadataRecord::of(&record, 0))
    }
}
