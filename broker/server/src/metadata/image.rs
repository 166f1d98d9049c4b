//! The picture of the cluster at one offset of the metadata log. Only records change it, and every
//! record has the effect it has in Kafka (`MetadataDelta.replay`).

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_wire::Uuid;
use millrace_wire::batch::{BatchError, batches};
use millrace_wire::codec::{Array, DecodeError, Message, Reader};
use millrace_wire::stored::{
    AbortTransactionRecord, BeginTransactionRecord, BrokerRegistrationChangeRecord,
    ClientQuotaRecord, ConfigRecord, EndTransactionRecord, FeatureLevelRecord, FenceBrokerRecord,
    NoOpRecord, PartitionChangeRecord, PartitionRecord, ProducerIdsRecord, RegisterBrokerRecord,
    RemoveTopicRecord, TopicRecord, UnfenceBrokerRecord, UnregisterBrokerRecord,
    decode_metadata_prefix,
};

use super::record::{Content, MetadataRecord, QuotaEntity, ResourceType, content, quota_entity};
use crate::config::ConfigMap;

/// Why bytes of the metadata log or of a checkpoint cannot be applied.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum ImageError {
    #[error("the batch at offset {offset} is damaged: {error}")]
    Batch { offset: i64, error: BatchError },
    #[error("the record at offset {offset} is malformed: {error}")]
    Record { offset: i64, error: DecodeError },
    #[error("the record at offset {offset} contradicts those before it: {what}")]
    Contradiction { offset: i64, what: &'static str },
    #[error("the checkpoint is incomplete")]
    Incomplete,
}

/// One partition. Replicas are node ids; directories stand in the same order.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub struct Partition {
    pub replicas: Arc<[i32]>,
    pub isr: Arc<[i32]>,
    pub directories: Arc<[Uuid]>,
    /// -1: none.
    pub leader: i32,
    pub leader_epoch: i32,
    pub partition_epoch: i32,
}

/// One topic. The index of a partition is its number.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub struct Topic {
    pub id: Uuid,
    pub name: Arc<str>,
    pub partitions: Vec<Partition>,
    /// Only what was set for this topic.
    pub config: ConfigMap,
}

/// True of the topics that Kafka keeps for itself.
pub fn is_internal_topic(name: &str) -> bool {
    matches!(name, "__consumer_offsets" | "__transaction_state" | "__share_group_state")
}

impl Topic {
    /// True of the topics that Kafka keeps for itself.
    pub fn is_internal(&self) -> bool {
        is_internal_topic(&self.name)
    }

    /// The partition of this number.
    pub fn partition(&self, number: i32) -> Option<&Partition> {
        self.partitions.get(usize::try_from(number).ok()?)
    }
}

/// An address of a broker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub struct Endpoint {
    pub listener: String,
    pub host: String,
    pub port: u16,
    /// Number of Kafka's `SecurityProtocol`; 0 is PLAINTEXT.
    pub security_protocol: i16,
}

/// A registered broker.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub struct Broker {
    /// Offset of its registration.
    pub epoch: i64,
    /// New for every process.
    pub incarnation: Uuid,
    pub endpoints: Vec<Endpoint>,
    /// Name, lowest, highest version.
    pub features: Vec<(String, i16, i16)>,
    pub rack: Option<String>,
    pub fenced: bool,
    pub in_controlled_shutdown: bool,
    pub directories: Vec<Uuid>,
}

/// The picture. Cloning it shares all topics.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Image {
    /// Offset after the last record applied: the version of the picture.
    pub(super) end_offset: i64,
    /// Epoch of the metadata log's leader.
    pub(super) leader_epoch: i32,
    /// Time of the last batch applied.
    pub(super) timestamp_ms: i64,
    pub(super) names: BTreeMap<Arc<str>, Uuid>,
    pub(super) topics: BTreeMap<Uuid, Arc<Topic>>,
    pub(super) brokers: BTreeMap<i32, Broker>,
    pub(super) features: BTreeMap<String, i16>,
    /// Settings of everything but topics.
    pub(super) configs: BTreeMap<(ResourceType, String), ConfigMap>,
    pub(super) quotas: BTreeMap<QuotaEntity, BTreeMap<String, f64>>,
    pub(super) next_producer_id: i64,
    /// Records of kinds that nothing here reads (access rules), kept for checkpoints.
    pub(super) unread: Vec<MetadataRecord>,
    /// Records since a transaction's begin, not in force before its end.
    open_transaction: Option<Vec<MetadataRecord>>,
}

/// Why a single record cannot be applied.
enum Fault {
    Malformed(DecodeError),
    Contradiction(&'static str),
}

impl From<DecodeError> for Fault {
    fn from(error: DecodeError) -> Self {
        Self::Malformed(error)
    }
}

impl Image {
    /// The topic of this name.
    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(self.names.get(name)?)
    }

    /// The topic of this id.
    pub fn topic_by_id(&self, id: Uuid) -> Option<&Arc<Topic>> {
        self.topics.get(&id)
    }

    /// All topics by rising name.
    pub fn topics(&self) -> impl ExactSizeIterator<Item = &Arc<Topic>> {
        self.names.values().map(|id| &self.topics[id])
    }

    /// Registered brokers by rising id.
    pub fn brokers(&self) -> &BTreeMap<i32, Broker> {
        &self.brokers
    }

    /// Finalised feature levels; their epoch is [`Image::last_offset`].
    pub fn features(&self) -> &BTreeMap<String, i16> {
        &self.features
    }

    /// Settings of anything but a topic; the brokers' common ones have the name "".
    pub fn configs(&self, kind: ResourceType, name: &str) -> Option<&ConfigMap> {
        self.configs.get(&(kind, name.to_owned()))
    }

    /// Client quotas: key and value by whom they are for.
    pub fn quotas(&self) -> &BTreeMap<QuotaEntity, BTreeMap<String, f64>> {
        &self.quotas
    }

    /// The first producer id that no block has given out.
    pub fn next_producer_id(&self) -> i64 {
        self.next_producer_id
    }

    /// Offset after the last record applied.
    pub fn end_offset(&self) -> i64 {
        self.end_offset
    }

    /// Offset of the last record applied; -1 if there is none.
    pub fn last_offset(&self) -> i64 {
        self.end_offset - 1
    }

    /// Epoch of the metadata log's leader.
    pub fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }

    /// Applies records at the next offsets, as the controller has written them.
    ///
    /// # Errors
    /// A record does not fit; the picture is then unusable.
    pub fn apply(&mut self, records: &[MetadataRecord]) -> Result<(), ImageError> {
        for record in records {
            self.apply_value(record.bytes())?;
            self.end_offset += 1;
        }
        Ok(())
    }

    /// Notes that this node leads the metadata log from here on: one control record was written.
    pub fn lead(&mut self, epoch: i32) {
        assert!(epoch > self.leader_epoch, "epochs of the metadata log rise");
        self.leader_epoch = epoch;
        self.end_offset += 1;
    }

    /// Applies stored batches of the metadata log; those below the picture's own offset are
    /// skipped, because a checkpoint had them.
    ///
    /// # Errors
    /// A batch or record is damaged or does not fit.
    pub fn replay(&mut self, bytes: &[u8]) -> Result<(), ImageError> {
        for batch in batches(bytes) {
            let at = self.end_offset;
            let failed = |error| ImageError::Batch { offset: at, error };
            let batch = batch.map_err(failed)?;
            let header = batch.header();
            if header.last_offset() < self.end_offset {
                continue;
            }
            if header.base_offset != self.end_offset {
                let what = "offsets are missing before it";
                return Err(ImageError::Contradiction { offset: header.base_offset, what });
            }
            let mut scratch = Vec::new();
            if let Content::Records(values) = content(&batch, &mut scratch).map_err(failed)? {
                for value in values {
                    self.apply_value(value)?;
                    self.end_offset += 1;
                }
            }
            self.end_offset = header.last_offset() + 1;
            self.leader_epoch = self.leader_epoch.max(header.partition_leader_epoch);
            self.timestamp_ms = header.max_timestamp;
        }
        Ok(())
    }

    pub(super) fn apply_value(&mut self, value: &[u8]) -> Result<(), ImageError> {
        let offset = self.end_offset;
        self.apply_or_hold(value).map_err(|fault| match fault {
            Fault::Malformed(error) => ImageError::Record { offset, error },
            Fault::Contradiction(what) => ImageError::Contradiction { offset, what },
        })
    }

    fn apply_or_hold(&mut self, value: &[u8]) -> Result<(), Fault> {
        let mut reader = Reader::new(value);
        let (key, version) = decode_metadata_prefix(&mut reader)?;
        const BEGIN: i16 = <BeginTransactionRecord<'static> as Message<'static>>::API_KEY;
        const END: i16 = <EndTransactionRecord<'static> as Message<'static>>::API_KEY;
        const ABORT: i16 = <AbortTransactionRecord<'static> as Message<'static>>::API_KEY;
        match (key, &mut self.open_transaction) {
            (BEGIN, None) => self.open_transaction = Some(Vec::new()),
            (BEGIN, Some(_)) => return Err(Fault::Contradiction("a transaction is open")),
            (ABORT, _) => self.open_transaction = None,
            (END, Some(held)) => {
                let held = std::mem::take(held);
                self.open_transaction = None;
                for record in held {
                    self.apply_or_hold(record.bytes())?;
                }
            }
            (END, None) => return Err(Fault::Contradiction("no transaction is open")),
            (_, Some(held)) => held.push(MetadataRecord::from_bytes(value)),
            (_, None) => self.apply_body(key, version, &mut reader, value)?,
        }
        Ok(())
    }

    fn apply_body(
        &mut self,
        key: i16,
        version: i16,
        reader: &mut Reader<'_>,
        value: &[u8],
    ) -> Result<(), Fault> {
        macro_rules! dispatch {
            ($($record:ident => $apply:expr),* $(,)?) => {
                $(if key == $record::API_KEY {
                    let record = $record::decode(reader, version)?;
                    let apply: fn(&mut Self, $record<'_>) -> Result<(), Fault> = $apply;
                    return apply(self, record);
                })*
            };
        }
        dispatch! {
            TopicRecord => Self::add_topic,
            PartitionRecord => Self::add_partition,
            PartitionChangeRecord => Self::change_partition,
            RemoveTopicRecord => Self::remove_topic,
            ConfigRecord => Self::set_config,
            ClientQuotaRecord => Self::set_quota,
            RegisterBrokerRecord => Self::register_broker,
            BrokerRegistrationChangeRecord => Self::change_broker,
            FenceBrokerRecord => |image, record| image.fence(record.id, true),
            UnfenceBrokerRecord => |image, record| image.fence(record.id, false),
            UnregisterBrokerRecord => |image, record| {
                image.brokers.remove(&record.broker_id);
                Ok(())
            },
            FeatureLevelRecord => Self::set_feature,
            ProducerIdsRecord => |image, record| {
                image.next_producer_id = record.next_producer_id;
                Ok(())
            },
            NoOpRecord => |_, _| Ok(()),
        }
        self.unread.push(MetadataRecord::from_bytes(value));
        Ok(())
    }

    fn add_topic(&mut self, record: TopicRecord<'_>) -> Result<(), Fault> {
        if self.names.contains_key(record.name) || self.topics.contains_key(&record.topic_id) {
            return Err(Fault::Contradiction("the topic exists"));
        }
        let topic = Topic {
            id: record.topic_id,
            name: record.name.into(),
            partitions: Vec::new(),
            config: ConfigMap::new(),
        };
        self.names.insert(Arc::clone(&topic.name), topic.id);
        self.topics.insert(topic.id, Arc::new(topic));
        Ok(())
    }

    fn topic_mut(&mut self, id: Uuid) -> Result<&mut Topic, Fault> {
        let topic = self.topics.get_mut(&id);
        topic.map(Arc::make_mut).ok_or(Fault::Contradiction("the topic does not exist"))
    }

    fn add_partition(&mut self, record: PartitionRecord<'_>) -> Result<(), Fault> {
        let partitions = &mut self.topic_mut(record.topic_id)?.partitions;
        let partition = Partition {
            replicas: shared(&record.replicas, partitions.last().map(|last| &last.replicas)),
            isr: shared(&record.isr, partitions.last().map(|last| &last.isr)),
            directories: shared(
                &record.directories,
                partitions.last().map(|last| &last.directories),
            ),
            leader: record.leader,
            leader_epoch: record.leader_epoch,
            partition_epoch: record.partition_epoch,
        };
        let index = usize::try_from(record.partition_id).unwrap_or(usize::MAX);
        let count = partitions.len();
        match partitions.get_mut(index) {
            Some(present) => *present = partition,
            None if index == count => partitions.push(partition),
            None => return Err(Fault::Contradiction("partitions are missing before it")),
        }
        Ok(())
    }

    /// Any change raises the partition epoch; one that names a leader, the leader epoch too.
    fn change_partition(&mut self, record: PartitionChangeRecord<'_>) -> Result<(), Fault> {
        let partitions = &mut self.topic_mut(record.topic_id)?.partitions;
        let partition = usize::try_from(record.partition_id)
            .ok()
            .and_then(|index| partitions.get_mut(index))
            .ok_or(Fault::Contradiction("the partition does not exist"))?;
        let no_change = PartitionChangeRecord::default().leader;
        if record.leader != no_change {
            partition.leader = record.leader;
            partition.leader_epoch = next_epoch(partition.leader_epoch)?;
        }
        if let Some(isr) = &record.isr {
            partition.isr = shared(isr, Some(&partition.isr));
        }
        if let Some(replicas) = &record.replicas {
            partition.replicas = shared(replicas, Some(&partition.replicas));
        }
        if let Some(directories) = &record.directories {
            partition.directories = shared(directories, Some(&partition.directories));
        }
        partition.partition_epoch = next_epoch(partition.partition_epoch)?;
        Ok(())
    }

    fn remove_topic(&mut self, record: RemoveTopicRecord<'_>) -> Result<(), Fault> {
        let topic = self.topics.remove(&record.topic_id);
        let topic = topic.ok_or(Fault::Contradiction("the topic does not exist"))?;
        self.names.remove(&topic.name);
        Ok(())
    }

    fn set_config(&mut self, record: ConfigRecord<'_>) -> Result<(), Fault> {
        let kind = ResourceType::from_code(record.resource_type);
        let kind = kind.ok_or(Fault::Contradiction("its resource type is unknown"))?;
        let configs = match kind {
            ResourceType::Topic => {
                let id = self.names.get(record.resource_name).copied();
                let id = id.ok_or(Fault::Contradiction("the topic does not exist"))?;
                &mut self.topic_mut(id)?.config
            }
            _ => self.configs.entry((kind, record.resource_name.to_owned())).or_default(),
        };
        match record.value {
            Some(value) => drop(configs.insert(record.name.to_owned(), value.to_owned())),
            None => drop(configs.remove(record.name)),
        }
        self.configs.retain(|_, configs| !configs.is_empty());
        Ok(())
    }

    fn set_quota(&mut self, record: ClientQuotaRecord<'_>) -> Result<(), Fault> {
        let parts = record.entity.iter().map(|part| (part.entity_type, part.entity_name));
        let entity = quota_entity(parts);
        let values = self.quotas.entry(entity).or_default();
        match record.remove {
            true => drop(values.remove(record.key)),
            false => drop(values.insert(record.key.to_owned(), record.value)),
        }
        self.quotas.retain(|_, values| !values.is_empty());
        Ok(())
    }

    fn register_broker(&mut self, record: RegisterBrokerRecord<'_>) -> Result<(), Fault> {
        let endpoint =
            |point: millrace_wire::stored::register_broker_record::BrokerEndpoint<'_>| Endpoint {
                listener: point.name.to_owned(),
                host: point.host.to_owned(),
                port: point.port,
                security_protocol: point.security_protocol,
            };
        let features = record.features.iter().map(|feature| {
            let (low, high) = (feature.min_supported_version, feature.max_supported_version);
            (feature.name.to_owned(), low, high)
        });
        let broker = Broker {
            epoch: record.broker_epoch,
            incarnation: record.incarnation_id,
            endpoints: record.end_points.iter().map(endpoint).collect(),
            features: features.collect(),
            rack: record.rack.map(str::to_owned),
            fenced: record.fenced,
            in_controlled_shutdown: record.in_controlled_shutdown,
            directories: record.log_dirs.iter().collect(),
        };
        self.brokers.insert(record.broker_id, broker);
        Ok(())
    }

    fn broker_mut(&mut self, id: i32) -> Result<&mut Broker, Fault> {
        self.brokers.get_mut(&id).ok_or(Fault::Contradiction("the broker is not registered"))
    }

    fn change_broker(&mut self, record: BrokerRegistrationChangeRecord<'_>) -> Result<(), Fault> {
        let broker = self.broker_mut(record.broker_id)?;
        match record.fenced {
            0 => {}
            change => broker.fenced = change > 0,
        }
        broker.in_controlled_shutdown |= record.in_controlled_shutdown > 0;
        if !record.log_dirs.is_empty() {
            broker.directories = record.log_dirs.iter().collect();
        }
        Ok(())
    }

    fn fence(&mut self, id: i32, fenced: bool) -> Result<(), Fault> {
        self.broker_mut(id)?.fenced = fenced;
        Ok(())
    }

    fn set_feature(&mut self, record: FeatureLevelRecord<'_>) -> Result<(), Fault> {
        match record.feature_level {
            0 => drop(self.features.remove(record.name)),
            level => drop(self.features.insert(record.name.to_owned(), level)),
        }
        Ok(())
    }
}

fn next_epoch(epoch: i32) -> Result<i32, Fault> {
    epoch.checked_add(1).ok_or(Fault::Contradiction("its epoch is used up"))
}

/// The elements, as the neighbour's own slice where they are equal: most partitions are alike.
fn shared<'a, T>(elements: &Array<'a, T>, neighbour: Option<&Arc<[T]>>) -> Arc<[T]>
where
    T: millrace_wire::Wire<'a> + PartialEq,
{
    match neighbour {
        Some(same) if elements.len() == same.len() && elements.iter().eq(same.iter().cloned()) => {
            Arc::clone(same)
        }
        _ => elements.iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::record::leader_change_batch;
    use millrace_wire::batch::patch_base_offset;

    fn topic(name: &str) -> MetadataRecord {
        let topic_id = Uuid::from_halves(1, name.len() as u64);
        MetadataRecord::of(&TopicRecord { name, topic_id, ..Default::default() }, 0)
    }

    fn begin() -> MetadataRecord {
        MetadataRecord::of(&BeginTransactionRecord::default(), 0)
    }

    #[test]
    fn a_transaction_counts_when_it_ends() {
        let end = MetadataRecord::of(&EndTransactionRecord::default(), 0);
        let abort = MetadataRecord::of(&AbortTransactionRecord::default(), 0);
        let mut image = Image::default();
        image.apply(&[begin(), topic("a")]).expect("legal");
        assert!(image.topic("a").is_none());
        image.apply(&[end, begin(), topic("bb"), abort]).expect("legal");
        assert!(image.topic("a").is_some() && image.topic("bb").is_none());
        assert_eq!(image.end_offset(), 6);
    }

    #[test]
    fn replay_equals_apply_and_skips_what_it_has() {
        let records = [topic("a"), topic("bb")];
        let mut log = leader_change_batch(1, 5);
        let mut batch = MetadataRecord::batch(&records, 5);
        patch_base_offset(&mut batch, 1);
        log.extend(batch);
        let mut replayed = Image::default();
        replayed.replay(&log).expect("just written");
        assert_eq!((replayed.end_offset(), replayed.topics().len()), (3, 2));
        let once = replayed.clone();
        replayed.replay(&log).expect("all of it is skipped");
        assert_eq!(replayed, once);
        let gap = MetadataRecord::batch(&records, 5);
        let error = Image { end_offset: 1, ..Image::default() }.replay(&log[..0]);
        assert!(error.is_ok(), "nothing to replay");
        let mut late = gap;
        patch_base_offset(&mut late, 9);
        assert!(matches!(once.clone().replay(&late), Err(ImageError::Contradiction { .. })));
        let byte = log.len() - 2;
        log[byte] ^= 1;
        assert!(matches!(Image::default().replay(&log), Err(ImageError::Batch { .. })));
    }

    #[test]
    fn records_that_contradict_are_refused() {
        let change = PartitionChangeRecord { partition_id: 0, ..Default::default() };
        let skips = PartitionRecord {
            partition_id: 1,
            topic_id: Uuid::from_halves(1, 1),
            ..Default::default()
        };
        let rows = [
            vec![topic("a"), topic("a")],
            vec![MetadataRecord::of(&change, 0)],
            vec![topic("a"), MetadataRecord::of(&skips, 0)],
            vec![MetadataRecord::of(&RemoveTopicRecord::default(), 0)],
            vec![MetadataRecord::of(&EndTransactionRecord::default(), 0)],
            vec![MetadataRecord::of(&UnfenceBrokerRecord::default(), 0)],
            vec![begin(), begin()],
        ];
        for records in rows {
            let outcome = Image::default().apply(&records);
            assert!(matches!(outcome, Err(ImageError::Contradiction { .. })), "{records:?}");
        }
    }
}
