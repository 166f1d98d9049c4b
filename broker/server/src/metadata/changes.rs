//! The difference of two pictures as a list of typed changes: what a shard must do to follow.

use std::sync::Arc;

use super::image::{Image, Topic};
use super::record::ResourceType;

/// One thing that differs between two pictures.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // the names say it
pub enum Change {
    TopicRemoved(Arc<Topic>),
    TopicAdded(Arc<Topic>),
    /// Partitions from this number on are new.
    PartitionsAdded {
        topic: Arc<Topic>,
        first: usize,
    },
    /// Leader, epoch or replicas of this partition changed.
    PartitionChanged {
        topic: Arc<Topic>,
        partition: usize,
    },
    TopicConfigChanged(Arc<Topic>),
    /// Settings of the broker of this name; "" is all brokers.
    BrokerConfigChanged(String),
    FeaturesChanged,
    BrokersChanged,
}

/// What changed from `old` to `new`, removals first: a topic that was deleted and made again is
/// another topic. Both orders of magnitude of topics and of changes are walked once.
pub fn changes(old: &Image, new: &Image) -> Vec<Change> {
    let mut changes = Vec::new();
    let gone = old.topics.values().filter(|topic| !new.topics.contains_key(&topic.id));
    changes.extend(gone.cloned().map(Change::TopicRemoved));
    for topic in new.topics.values() {
        match old.topics.get(&topic.id) {
            None => changes.push(Change::TopicAdded(Arc::clone(topic))),
            Some(before) if Arc::ptr_eq(before, topic) => {}
            Some(before) => topic_changes(before, topic, &mut changes),
        }
    }
    let broker_configs = |image: &Image| {
        let of_brokers =
            image.configs.iter().filter(|((kind, _), _)| *kind == ResourceType::Broker);
        of_brokers.map(|((_, name), map)| (name.clone(), map.clone())).collect::<Vec<_>>()
    };
    let (before, after) = (broker_configs(old), broker_configs(new));
    let mut names: Vec<String> = before
        .iter()
        .filter(|entry| !after.contains(entry))
        .chain(after.iter().filter(|entry| !before.contains(entry)))
        .map(|(name, _)| name.clone())
        .collect();
    names.sort_unstable();
    names.dedup();
    changes.extend(names.into_iter().map(Change::BrokerConfigChanged));
    if old.features != new.features {
        changes.push(Change::FeaturesChanged);
    }
    if old.brokers != new.brokers {
        changes.push(Change::BrokersChanged);
    }
    changes
}

fn topic_changes(before: &Topic, topic: &Arc<Topic>, changes: &mut Vec<Change>) {
    let (first, count) = (before.partitions.len(), topic.partitions.len());
    for partition in 0..first.min(count) {
        if before.partitions[partition] != topic.partitions[partition] {
            changes.push(Change::PartitionChanged { topic: Arc::clone(topic), partition });
        }
    }
    if count > first {
        changes.push(Change::PartitionsAdded { topic: Arc::clone(topic), first });
    }
    if before.config != topic.config {
        changes.push(Change::TopicConfigChanged(Arc::clone(topic)));
    }
}
