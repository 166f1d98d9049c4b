//! Metadata (key 3), versions 0 to 13: the broker, the topics, their partitions.
//!
//! Unknown topics asked for by name are created when both the broker
//! (`auto.create.topics.enable`) and the request (from version 4 on; always below) allow it; the
//! request then waits until they are there. Sources: KIP-4, KIP-516,
//! `KafkaApis.handleTopicMetadataRequest`.

use std::collections::BTreeSet;

use millrace_io::Io;
use millrace_wire::messages::metadata_request::MetadataRequestTopic;
use millrace_wire::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use millrace_wire::messages::{MetadataRequest, MetadataResponse};
use millrace_wire::{ErrorCode, Uuid};

use super::{DECODED, create_first};
use crate::metadata::{Topic, controller};
use crate::request::{Outcome, Reply, Request};
use crate::shard::Shard;

/// Every operation on a topic (`AclOperation` codes 3 to 8, 10, 11) as a bit field.
pub(super) const TOPIC_OPERATIONS: i32 =
    1 << 3 | 1 << 4 | 1 << 5 | 1 << 6 | 1 << 7 | 1 << 8 | 1 << 10 | 1 << 11;
/// Every operation on a cluster (`AclOperation` codes 5, 7 to 12) as a bit field.
const CLUSTER_OPERATIONS: i32 = 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;

pub(super) fn handle<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    let asked: MetadataRequest<'_> = match request.decode() {
        Ok(asked) => asked,
        Err(malformed) => return malformed.into(),
    };
    // Before version 12 topics are asked for by name alone (KIP-516).
    let named = |topic: &MetadataRequestTopic<'_>| topic.topic_id.is_zero() && topic.name.is_some();
    let mut topics = asked.topics.iter().flat_map(|topics| topics.iter());
    if request.head.version < 12 && !topics.all(|topic| named(&topic)) {
        return Outcome::Reply(request.head.reply(&refused(&asked)));
    }
    let missing = missing_topics(shard, &asked);
    if missing.is_empty() {
        return Outcome::Reply(answer(shard, request));
    }
    create_first(shard, request, missing, answer)
}

/// Topics to be made before the answer.
fn missing_topics<I: Io>(shard: &Shard<I>, asked: &MetadataRequest<'_>) -> Vec<String> {
    if !asked.allow_auto_topic_creation || !shard.shared.config.topics.auto_create {
        return Vec::new();
    }
    let Some(topics) = &asked.topics else { return Vec::new() };
    topics
        .iter()
        .filter(|topic| topic.topic_id.is_zero())
        .filter_map(|topic| topic.name)
        .filter(|name| shard.image.topic(name).is_none() && controller::check_name(name).is_ok())
        .map(str::to_owned)
        .collect()
}

fn answer<I: Io>(shard: &Shard<I>, request: &Request) -> Reply<I> {
    let asked: MetadataRequest<'_> = request.decode().expect(DECODED);
    let version = request.head.version;
    let endpoint = shard.shared.endpoint(request.head.listener);
    let node_id = shard.shared.node_id;
    let image = &*shard.image;
    let all = asked.topics.is_none()
        || (version == 0 && asked.topics.as_ref().is_some_and(|topics| topics.is_empty()));
    let operations = asked.include_topic_authorized_operations;
    // What is named twice is told once.
    let mut seen = BTreeSet::new();
    let topics: Vec<MetadataResponseTopic<'_>> = if all {
        image.topics().map(|topic| known_topic(topic, node_id, operations)).collect()
    } else {
        asked
            .topics
            .iter()
            .flat_map(|topics| topics.iter())
            .map(|topic| match (topic.name, topic.topic_id) {
                (Some(name), id) if id.is_zero() => match image.topic(name) {
                    Some(topic) => known_topic(topic, node_id, operations),
                    None => unknown_topic(Some(name), Uuid::ZERO, operations),
                },
                (_, id) => match image.topic_by_id(id) {
                    Some(topic) => known_topic(topic, node_id, operations),
                    None => unknown_topic(None, id, false),
                },
            })
            .filter(|topic| seen.insert((topic.topic_id, topic.name)))
            .collect()
    };
    let broker = MetadataResponseBroker {
        node_id,
        host: &endpoint.host,
        port: i32::from(endpoint.port),
        ..Default::default()
    };
    let body = MetadataResponse {
        brokers: vec![broker].into(),
        cluster_id: Some(&shard.shared.cluster_id),
        controller_id: node_id,
        topics: topics.into(),
        cluster_authorized_operations: if asked.include_cluster_authorized_operations {
            CLUSTER_OPERATIONS
        } else {
            i32::MIN
        },
        ..Default::default()
    };
    request.head.reply(&body)
}

fn known_topic(topic: &Topic, node_id: i32, operations: bool) -> MetadataResponseTopic<'_> {
    let partitions: Vec<MetadataResponsePartition<'_>> = topic
        .partitions
        .iter()
        .zip(0..)
        .map(|(partition, index)| MetadataResponsePartition {
            partition_index: index,
            leader_id: node_id,
            leader_epoch: partition.leader_epoch,
            replica_nodes: vec![node_id].into(),
            isr_nodes: vec![node_id].into(),
            ..Default::default()
        })
        .collect();
    MetadataResponseTopic {
        name: Some(&topic.name),
        topic_id: topic.id,
        is_internal: topic.is_internal(),
        partitions: partitions.into(),
        topic_authorized_operations: if operations { TOPIC_OPERATIONS } else { i32::MIN },
        ..Default::default()
    }
}

/// The answer to topic ids where the version has none.
fn refused<'a>(asked: &MetadataRequest<'a>) -> MetadataResponse<'a> {
    let topics = asked.topics.iter().flat_map(|topics| topics.iter());
    let topics = topics.map(|topic| MetadataResponseTopic {
        error_code: ErrorCode::INVALID_REQUEST.code(),
        name: Some(topic.name.unwrap_or("")),
        topic_id: topic.topic_id,
        topic_authorized_operations: i32::MIN,
        ..Default::default()
    });
    MetadataResponse {
        controller_id: -1,
        topics: topics.collect(),
        cluster_authorized_operations: i32::MIN,
        ..Default::default()
    }
}

fn unknown_topic(name: Option<&str>, id: Uuid, operations: bool) -> MetadataResponseTopic<'_> {
    let error = match name {
        None => ErrorCode::UNKNOWN_TOPIC_ID,
        Some(name) if controller::check_name(name).is_err() => ErrorCode::INVALID_TOPIC_EXCEPTION,
        Some(_) => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
    };
    MetadataResponseTopic {
        error_code: error.code(),
        name,
        topic_id: id,
        topic_authorized_operations: if operations { TOPIC_OPERATIONS } else { i32::MIN },
        ..Default::default()
    }
}
