//! DescribeTopicPartitions (key 75), version 0 (KIP-966): topics by name in pages of partitions; a
//! cursor says where the next page begins.

use std::collections::BTreeSet;

use millrace_io::Io;
use millrace_wire::ErrorCode;
use millrace_wire::messages::describe_topic_partitions_request::Cursor as CursorAsked;
use millrace_wire::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use millrace_wire::messages::{DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse};

use super::metadata::TOPIC_OPERATIONS;
use crate::metadata::{Image, Topic, controller};
use crate::request::{Outcome, Request};
use crate::shard::Shard;

/// The most partitions of a page, as in Kafka (`max.request.partition.size.limit`).
const PAGE_MAX: usize = 2_000;

pub(super) fn handle<I: Io>(shard: &Shard<I>, request: &Request) -> Outcome<I> {
    let body: DescribeTopicPartitionsRequest<'_> = match request.decode() {
        Ok(body) => body,
        Err(malformed) => return malformed.into(),
    };
    let image = &*shard.image;
    let limit = usize::try_from(body.response_partition_limit).unwrap_or(0).clamp(1, PAGE_MAX);
    // A page begins in a topic that is asked for.
    let is_astray = |at: &CursorAsked<'_>| {
        let named = body.topics.is_empty() || body.topics.iter().any(|t| t.name == at.topic_name);
        at.partition_index < 0 || !named
    };
    if body.cursor.as_ref().is_some_and(is_astray) {
        return Outcome::Reply(request.head.reply(&refused(&body)));
    }
    let begin = body.cursor.as_ref().map_or(("", 0), |at| (at.topic_name, at.partition_index));
    let (topics, next) = page(image, shard.shared.node_id, names(&body, image), begin, limit);
    let next_cursor = next.map(|(topic_name, partition_index)| Cursor {
        topic_name,
        partition_index,
        ..Default::default()
    });
    let topics = topics.into();
    let body = DescribeTopicPartitionsResponse { topics, next_cursor, ..Default::default() };
    Outcome::Reply(request.head.reply(&body))
}

/// What is asked for, sorted; no names ask for all.
fn names<'a>(body: &DescribeTopicPartitionsRequest<'a>, image: &'a Image) -> BTreeSet<&'a str> {
    if body.topics.is_empty() {
        image.topics().map(|topic| &*topic.name).collect()
    } else {
        body.topics.iter().map(|topic| topic.name).collect()
    }
}

type Page<'a> = (Vec<DescribeTopicPartitionsResponseTopic<'a>>, Option<(&'a str, i32)>);

fn page<'a>(
    image: &'a Image,
    node_id: i32,
    names: BTreeSet<&'a str>,
    begin: (&str, i32),
    limit: usize,
) -> Page<'a> {
    let mut topics = Vec::new();
    let mut left = limit;
    for name in names.into_iter().filter(|name| *name >= begin.0) {
        let Some(topic) = image.topic(name) else {
            topics.push(unknown(name));
            continue;
        };
        let first = if name == begin.0 { begin.1.max(0) } else { 0 };
        if left == 0 {
            return (topics, Some((name, first)));
        }
        let from = usize::try_from(first).unwrap_or(0).min(topic.partitions.len());
        let count = left.min(topic.partitions.len() - from);
        topics.push(known(topic, node_id, from, count));
        left -= count;
        if from + count < topic.partitions.len() {
            let next = i32::try_from(from + count).unwrap_or(i32::MAX);
            return (topics, Some((name, next)));
        }
    }
    (topics, None)
}

fn known(
    topic: &Topic,
    node_id: i32,
    from: usize,
    count: usize,
) -> DescribeTopicPartitionsResponseTopic<'_> {
    let partitions = (0..).zip(&topic.partitions).skip(from).take(count);
    let partitions =
        partitions.map(|(partition_index, partition)| DescribeTopicPartitionsResponsePartition {
            partition_index,
            leader_id: node_id,
            leader_epoch: partition.leader_epoch,
            replica_nodes: vec![node_id].into(),
            isr_nodes: vec![node_id].into(),
            eligible_leader_replicas: Some(Vec::new().into()),
            last_known_elr: Some(Vec::new().into()),
            ..Default::default()
        });
    DescribeTopicPartitionsResponseTopic {
        name: Some(&topic.name),
        topic_id: topic.id,
        is_internal: topic.is_internal(),
        partitions: partitions.collect(),
        topic_authorized_operations: TOPIC_OPERATIONS,
        ..Default::default()
    }
}

fn refused<'a>(body: &DescribeTopicPartitionsRequest<'a>) -> DescribeTopicPartitionsResponse<'a> {
    let topics = body.topics.iter().map(|topic| DescribeTopicPartitionsResponseTopic {
        error_code: ErrorCode::INVALID_REQUEST.code(),
        name: Some(topic.name),
        topic_authorized_operations: i32::MIN,
        ..Default::default()
    });
    DescribeTopicPartitionsResponse { topics: topics.collect(), ..Default::default() }
}

fn unknown(name: &str) -> DescribeTopicPartitionsResponseTopic<'_> {
    let error = if controller::check_name(name).is_err() {
        ErrorCode::INVALID_TOPIC_EXCEPTION
    } else {
        ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
    };
    let (error_code, name) = (error.code(), Some(name));
    let topic_authorized_operations = TOPIC_OPERATIONS;
    let found = DescribeTopicPartitionsResponseTopic { error_code, name, ..Default::default() };
    DescribeTopicPartitionsResponseTopic { topic_authorized_operations, ..found }
}
