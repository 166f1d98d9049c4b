//! Adding partitions to topics (`ReplicationControlManager.createPartitions`).

use std::collections::BTreeMap;

use millrace_wire::ErrorCode;
use millrace_wire::messages::CreatePartitionsRequest;
use millrace_wire::messages::create_partitions_request::CreatePartitionsTopic;

use super::{Controller, NEW_PARTITIONS_MAX, Refusal, refuse};
use crate::metadata::checkpoint::partition_record;
use crate::metadata::image::Topic;
use crate::metadata::record::MetadataRecord;

/// What was decided on one topic.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub struct AddedPartitions {
    pub name: String,
    pub outcome: Result<(), Refusal>,
}

impl Controller<'_> {
    /// Decides a CreatePartitions request, topic by topic.
    pub fn create_partitions(
        &mut self,
        request: &CreatePartitionsRequest<'_>,
    ) -> (Vec<MetadataRecord>, Vec<AddedPartitions>) {
        let mut records = Vec::new();
        let mut answers = Vec::new();
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for topic in request.topics.iter() {
            *counts.entry(topic.name).or_default() += 1;
        }
        let mut left = NEW_PARTITIONS_MAX;
        for topic in request.topics.iter() {
            let outcome = match counts.remove(topic.name) {
                // Answered where it stood first.
                None => continue,
                Some(1) => self.grow(&topic, &mut left),
                Some(_) => refuse(ErrorCode::INVALID_REQUEST, "Duplicate topic name."),
            };
            let outcome = outcome.map(|grown| {
                let present = self.image.topic(topic.name).map_or(0, |old| old.partitions.len());
                if !request.validate_only {
                    let new = present..grown.partitions.len();
                    records.extend(new.map(|index| partition_record(&grown, index)));
                }
            });
            answers.push(AddedPartitions { name: topic.name.to_owned(), outcome });
        }
        (records, answers)
    }

    /// The topic with its new partitions.
    fn grow(
        &mut self,
        asked: &CreatePartitionsTopic<'_>,
        left: &mut usize,
    ) -> Result<Topic, Refusal> {
        let Some(topic) = self.image.topic(asked.name) else {
            let message = "This server does not host this topic-partition.";
            return refuse(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, message);
        };
        if topic.is_internal() {
            // The number of partitions says where a group's offsets are.
            let message = format!("The partitions of internal topic {} are fixed.", topic.name);
            return refuse(ErrorCode::INVALID_REQUEST, message);
        }
        let (present, count) = (topic.partitions.len(), asked.count);
        if count == present as i32 {
            let message = format!("Topic already has {present} partition(s).");
            return refuse(ErrorCode::INVALID_PARTITIONS, message);
        }
        if count < present as i32 {
            let message = format!(
                "The topic {} currently has {present} partition(s); {count} would not be an \
                 increase.",
                topic.name
            );
            return refuse(ErrorCode::INVALID_PARTITIONS, message);
        }
        let more = count as usize - present;
        let Some(rest) = left.checked_sub(more) else {
            let message = "Excessively large number of partitions per request.";
            return refuse(ErrorCode::POLICY_VIOLATION, message);
        };
        if asked.assignments.is_none() {
            self.check_folders("")?;
        }
        let factor = topic.partitions.first().map_or(1, |partition| partition.replicas.len());
        let replicas = match &asked.assignments {
            None => vec![vec![self.config.node_id; 1]; more],
            Some(assignments) => {
                if assignments.len() != more {
                    let message = format!(
                        "Attempted to add {more} additional partition(s), but only {} \
                         assignment(s) were specified.",
                        assignments.len()
                    );
                    return refuse(ErrorCode::INVALID_REPLICA_ASSIGNMENT, message);
                }
                let lists = assignments.iter().map(|list| list.broker_ids.iter().collect());
                let lists: Vec<Vec<i32>> = lists.collect();
                for list in &lists {
                    self.check_replicas(list)?;
                    if list.len() != factor {
                        let message = format!(
                            "The manual partition assignment includes a partition with {} \
                             replica(s), but this is not consistent with previous partitions, \
                             which have {factor} replica(s).",
                            list.len()
                        );
                        return refuse(ErrorCode::INVALID_REPLICA_ASSIGNMENT, message);
                    }
                }
                lists
            }
        };
        *left = rest;
        let mut grown = (**topic).clone();
        grown.partitions.extend(replicas.iter().map(|replicas| self.new_partition(replicas)));
        Ok(grown)
    }
}
