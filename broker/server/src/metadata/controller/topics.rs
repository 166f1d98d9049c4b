//! Creating and deleting topics (`ReplicationControlManager`, `ControllerApis`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use millrace_wire::messages::create_topics_request::CreatableTopic;
use millrace_wire::messages::{CreateTopicsRequest, DeleteTopicsRequest};
use millrace_wire::stored::{RemoveTopicRecord, TopicRecord};
use millrace_wire::{ErrorCode, Uuid};

use super::{Controller, NEW_PARTITIONS_MAX, Refusal, check_name, refuse};
use crate::config::{ConfigMap, check_topic};
use crate::metadata::checkpoint::{config_records, partition_record};
use crate::metadata::image::{Partition, Topic, is_internal_topic};
use crate::metadata::record::{MetadataRecord, ResourceType};

const ONE_REPLICA: &str = "Unable to replicate the partition 1 time(s): ";

/// What was decided on one topic that someone wants created.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // the names say it
pub struct CreatedTopic {
    pub name: String,
    pub outcome: Result<Created, Refusal>,
}

/// A topic that will be.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // the names say it
pub struct Created {
    /// Zero if the request only validates.
    pub id: Uuid,
    pub partitions: i32,
    pub replication_factor: i16,
    /// Only what was set for the topic.
    pub configs: ConfigMap,
}

/// What was decided on one topic that someone wants deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub struct DeletedTopic {
    /// As asked for, or found by id.
    pub name: Option<String>,
    pub id: Uuid,
    pub outcome: Result<(), Refusal>,
}

/// What a topic is to be made of.
struct Wanted {
    replicas: Vec<Vec<i32>>,
    configs: ConfigMap,
}

impl Controller<'_> {
    /// Decides a CreateTopics request, topic by topic.
    pub fn create_topics(
        &mut self,
        request: &CreateTopicsRequest<'_>,
    ) -> (Vec<MetadataRecord>, Vec<CreatedTopic>) {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for topic in request.topics.iter() {
            *counts.entry(topic.name).or_default() += 1;
        }
        let mut records = Vec::new();
        let mut answers = Vec::new();
        let mut made = BTreeSet::new();
        let mut partitions_left = NEW_PARTITIONS_MAX;
        for topic in request.topics.iter() {
            let outcome = match counts.remove(topic.name) {
                // Answered where it stood first.
                None => continue,
                Some(1) => self.decide_topic(&topic, &made, &mut partitions_left),
                Some(_) => refuse(ErrorCode::INVALID_REQUEST, "Duplicate topic name."),
            };
            let name = topic.name.to_owned();
            let outcome = outcome.map(|wanted| {
                let (partitions, first) = (wanted.replicas.len(), wanted.replicas[0].len());
                made.insert(name.clone());
                let configs = wanted.configs.clone();
                // What is only validated is told an id as well, as by Kafka.
                let id = match request.validate_only {
                    true => self.new_id(),
                    false => self.make_topic(&name, wanted, &mut records),
                };
                let (partitions, replication_factor) = (partitions as i32, first as i16);
                Created { id, partitions, replication_factor, configs }
            });
            answers.push(CreatedTopic { name, outcome });
        }
        (records, answers)
    }

    /// Decides to create topics that someone asked for and that do not exist, with the broker's
    /// defaults; those that cannot be made are left out. Internal topics get what they need.
    pub fn auto_create_topics<'n>(
        &mut self,
        names: impl IntoIterator<Item = &'n str>,
    ) -> Vec<MetadataRecord> {
        let groups = &self.config.groups;
        let (offsets_partitions, segment) =
            (groups.offsets_topic_partitions, groups.offsets_topic_segment_bytes);
        let mut records = Vec::new();
        let mut made = BTreeSet::new();
        let mut partitions_left = NEW_PARTITIONS_MAX;
        for name in names {
            if made.contains(name) {
                continue;
            }
            let wanted = if name == "__consumer_offsets" {
                let configs = [
                    ("cleanup.policy", "compact".to_owned()),
                    ("compression.type", "producer".to_owned()),
                    ("segment.bytes", segment.to_string()),
                ];
                let checked =
                    self.check_new_name(name, &made).and_then(|()| self.check_folders(ONE_REPLICA));
                checked.map(|()| Wanted {
                    replicas: vec![vec![self.config.node_id]; offsets_partitions as usize],
                    configs: configs.map(|(key, value)| (key.to_owned(), value)).into(),
                })
            } else {
                let topic = CreatableTopic {
                    name,
                    num_partitions: -1,
                    replication_factor: -1,
                    ..Default::default()
                };
                self.decide_topic(&topic, &made, &mut partitions_left)
            };
            if let Ok(wanted) = wanted {
                made.insert(name.to_owned());
                self.make_topic(name, wanted, &mut records);
            }
        }
        records
    }

    fn check_new_name(&self, name: &str, made: &BTreeSet<String>) -> Result<(), Refusal> {
        if self.image.topic(name).is_some() {
            let message = format!("Topic '{name}' already exists.");
            return refuse(ErrorCode::TOPIC_ALREADY_EXISTS, message);
        }
        check_name(name)?;
        // Metric names have '_' for '.', so two such names would be one there.
        let plain = name.replace('.', "_");
        let is_near = |other: &&str| {
            other.len() == name.len()
                && other.contains(['.', '_'])
                && other.replace('.', "_") == plain
        };
        if !name.contains(['.', '_']) {
            return Ok(());
        }
        let others = self.image.topics().map(|topic| &*topic.name);
        match others.chain(made.iter().map(String::as_str)).find(is_near) {
            Some(other) => refuse(
                ErrorCode::INVALID_TOPIC_EXCEPTION,
                format!("Topic '{name}' collides with existing topic: {other}"),
            ),
            None => Ok(()),
        }
    }

    fn decide_topic(
        &self,
        topic: &CreatableTopic<'_>,
        made: &BTreeSet<String>,
        partitions_left: &mut usize,
    ) -> Result<Wanted, Refusal> {
        if topic.name == "__cluster_metadata" || is_internal_topic(topic.name) {
            let message = format!("Creation of internal topic {} is prohibited.", topic.name);
            return refuse(ErrorCode::INVALID_REQUEST, message);
        }
        self.check_new_name(topic.name, made)?;
        let given = topic.configs.iter().map(|config| (config.name, config.value));
        let configs = check_topic(self.config, given)
            .or_else(|message| refuse(ErrorCode::INVALID_CONFIG, message))?;
        let replicas = if topic.assignments.is_empty() {
            self.place_partitions(topic, partitions_left)?
        } else {
            self.check_assignments(topic)?
        };
        let Some(left) = partitions_left.checked_sub(replicas.len()) else {
            let message = "Excessively large number of partitions per request.";
            return refuse(ErrorCode::POLICY_VIOLATION, message);
        };
        *partitions_left = left;
        Ok(Wanted { replicas, configs })
    }

    /// Replicas by partition where only their numbers were given.
    fn place_partitions(
        &self,
        topic: &CreatableTopic<'_>,
        partitions_left: &usize,
    ) -> Result<Vec<Vec<i32>>, Refusal> {
        let factor = match topic.replication_factor {
            -1 => self.config.topics.replication_factor,
            factor => i32::from(factor),
        };
        if factor <= 0 {
            let message =
                "Replication factor must be larger than 0, or -1 to use the default value.";
            return refuse(ErrorCode::INVALID_REPLICATION_FACTOR, message);
        }
        let partitions = match topic.num_partitions {
            -1 => self.config.topics.partitions,
            partitions => partitions,
        };
        if partitions <= 0 {
            let message = "Number of partitions was set to an invalid non-positive value.";
            return refuse(ErrorCode::INVALID_PARTITIONS, message);
        }
        let registered = self.image.brokers().len();
        if factor as usize > 1 {
            let message = format!(
                "Unable to replicate the partition {factor} time(s): The target replication \
                 factor of {factor} cannot be reached because only {registered} broker(s) are \
                 registered or some brokers have all their log directories cordoned."
            );
            return refuse(ErrorCode::INVALID_REPLICATION_FACTOR, message);
        }
        self.check_folders(ONE_REPLICA)?;
        // More than are left is refused by the caller; no need to make that many.
        let count = (partitions as usize).min(partitions_left + 1);
        Ok(vec![vec![self.config.node_id]; count])
    }

    fn check_assignments(&self, topic: &CreatableTopic<'_>) -> Result<Vec<Vec<i32>>, Refusal> {
        if topic.replication_factor != -1 {
            let message = "A manual partition assignment was specified, but replication factor was \
                           not set to -1.";
            return refuse(ErrorCode::INVALID_REQUEST, message);
        }
        if topic.num_partitions != -1 {
            let message = "A manual partition assignment was specified, but numPartitions was not \
                           set to -1.";
            return refuse(ErrorCode::INVALID_REQUEST, message);
        }
        let mut by_partition = BTreeMap::new();
        for assignment in topic.assignments.iter() {
            let replicas: Vec<i32> = assignment.broker_ids.iter().collect();
            self.check_replicas(&replicas)?;
            let index = assignment.partition_index;
            if by_partition.insert(index, replicas).is_some() {
                let message =
                    format!("Found multiple manual partition assignments for partition {index}");
                return refuse(ErrorCode::INVALID_REPLICA_ASSIGNMENT, message);
            }
        }
        if !by_partition.keys().copied().eq(0..by_partition.len() as i32) {
            let message = "partitions should be a consecutive 0-based integer sequence";
            return refuse(ErrorCode::INVALID_REPLICA_ASSIGNMENT, message);
        }
        Ok(by_partition.into_values().collect())
    }

    fn make_topic(
        &mut self,
        name: &str,
        wanted: Wanted,
        records: &mut Vec<MetadataRecord>,
    ) -> Uuid {
        let id = self.new_id();
        let record = TopicRecord { name, topic_id: id, ..Default::default() };
        records.push(MetadataRecord::of(&record, 0));
        config_records(ResourceType::Topic, name, &wanted.configs, records);
        let partitions = wanted.replicas.iter().map(|replicas| self.new_partition(replicas));
        let topic = Topic {
            id,
            name: name.into(),
            partitions: partitions.collect(),
            config: ConfigMap::new(),
        };
        records.extend((0..topic.partitions.len()).map(|index| partition_record(&topic, index)));
        id
    }

    /// A partition as it is born: all replicas in sync, the first leads.
    pub(super) fn new_partition(&mut self, replicas: &[i32]) -> Partition {
        let directory = self.spread.next(self.image, self.config.node_id);
        Partition {
            replicas: replicas.into(),
            isr: replicas.into(),
            directories: vec![directory; replicas.len()].into(),
            leader: replicas[0],
            leader_epoch: 0,
            partition_epoch: 0,
        }
    }

    /// Decides a DeleteTopics request: by names, or from version 6 on by names and ids.
    pub fn delete_topics(
        &self,
        request: &DeleteTopicsRequest<'_>,
        version: i16,
    ) -> (Vec<MetadataRecord>, Vec<DeletedTopic>) {
        let by_name = request.topic_names.iter().map(|name| (Some(name), Uuid::ZERO));
        let by_both = request.topics.iter().map(|topic| (topic.name, topic.topic_id));
        let asked = by_name.chain(by_both);
        let of =
            |name: Option<&'_ str>, id: Uuid| match name.and_then(|name| self.image.topic(name)) {
                Some(topic) if id.is_zero() => (None, topic.id),
                _ => (name.map(str::to_owned), id),
            };
        let mut counts: BTreeMap<_, usize> = BTreeMap::new();
        for (name, id) in asked.clone() {
            *counts.entry(of(name, id)).or_default() += 1;
        }
        let mut records = Vec::new();
        let mut answers = Vec::new();
        for (name, mut id) in asked {
            let key = of(name, id);
            let found = match counts.remove(&key) {
                // Answered where it stood first: nothing is deleted on a doubtful wish.
                None => continue,
                Some(count) if count > 1 && (name.is_some() || !id.is_zero()) => {
                    id = key.1;
                    refuse(ErrorCode::INVALID_REQUEST, "Duplicate topic name or id.")
                }
                Some(_) => self.find_to_delete(name, id, version),
            };
            let answer = match found {
                Ok(topic) => {
                    let record = RemoveTopicRecord { topic_id: topic.id, ..Default::default() };
                    records.push(MetadataRecord::of(&record, 0));
                    let name = Some(topic.name.to_string());
                    DeletedTopic { name, id: topic.id, outcome: Ok(()) }
                }
                Err(refusal) => {
                    let name = name.map(str::to_owned);
                    DeletedTopic { name, id, outcome: Err(refusal) }
                }
            };
            answers.push(answer);
        }
        (records, answers)
    }

    fn find_to_delete(
        &self,
        name: Option<&str>,
        id: Uuid,
        version: i16,
    ) -> Result<Arc<Topic>, Refusal> {
        if !self.config.topics.delete_enabled {
            let error = match version {
                ..=2 => ErrorCode::INVALID_REQUEST,
                _ => ErrorCode::TOPIC_DELETION_DISABLED,
            };
            return refuse(error, "Topic deletion is disabled.");
        }
        let found = match (name, id) {
            (Some(_), id) if !id.is_zero() => {
                let message = "You may not specify both topic name and topic id.";
                return refuse(ErrorCode::INVALID_REQUEST, message);
            }
            (Some(name), _) => {
                let message = "This server does not host this topic-partition.";
                let unknown = refuse(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, message);
                self.image.topic(name).map_or(unknown, Ok)?
            }
            (None, id) if id.is_zero() => {
                let message = "Neither topic name nor id were specified.";
                return refuse(ErrorCode::INVALID_REQUEST, message);
            }
            (None, id) => {
                let message = "This server does not host this topic ID.";
                let unknown = refuse(ErrorCode::UNKNOWN_TOPIC_ID, message);
                self.image.topic_by_id(id).map_or(unknown, Ok)?
            }
        };
        if found.is_internal() {
            let message = format!("Deletion of internal topic {} is prohibited.", found.name);
            return refuse(ErrorCode::INVALID_REQUEST, message);
        }
        Ok(Arc::clone(found))
    }
}
