//! AlterPartitionReassignments (key 45, versions 0 and 1) and ListPartitionReassignments (46,
//! version 0), KIP-455: with one broker no partition ever moves, so none is ever under way.

use millrace_io::Io;
use millrace_wire::ErrorCode;
use millrace_wire::messages::alter_partition_reassignments_request::ReassignablePartition;
use millrace_wire::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use millrace_wire::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse,
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse,
};

use crate::metadata::Topic;
use crate::request::{Outcome, Request};
use crate::shard::Shard;

pub(super) fn list<I: Io>(request: &Request) -> Outcome<I> {
    if let Err(malformed) = request.decode::<ListPartitionReassignmentsRequest<'_>>() {
        return malformed.into();
    }
    Outcome::Reply(request.head.reply(&ListPartitionReassignmentsResponse::default()))
}

pub(super) fn alter<I: Io>(shard: &Shard<I>, request: &Request) -> Outcome<I> {
    let body: AlterPartitionReassignmentsRequest<'_> = match request.decode() {
        Ok(body) => body,
        Err(malformed) => return malformed.into(),
    };
    let node = shard.shared.node_id;
    let responses = body
        .topics
        .iter()
        .map(|topic| {
            let known = shard.image.topic(topic.name);
            let partitions = topic.partitions.iter().map(|part| {
                let refusal = check(node, known.map(|known| &**known), &part);
                ReassignablePartitionResponse {
                    partition_index: part.partition_index,
                    error_code: refusal.map_or(0, |(error, _)| error.code()),
                    error_message: refusal.map(|(_, message)| message),
                    ..Default::default()
                }
            });
            let partitions = partitions.collect();
            ReassignableTopicResponse { name: topic.name, partitions, ..Default::default() }
        })
        .collect();
    Outcome::Reply(request.head.reply(&AlterPartitionReassignmentsResponse {
        allow_replication_factor_change: body.allow_replication_factor_change,
        responses,
        ..Default::default()
    }))
}

/// Why this cannot be done; where the partition is already, it may stay.
fn check(
    node: i32,
    topic: Option<&Topic>,
    part: &ReassignablePartition<'_>,
) -> Option<(ErrorCode, &'static str)> {
    if topic.and_then(|topic| topic.partition(part.partition_index)).is_none() {
        let message = "This server does not host this topic-partition.";
        return Some((ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, message));
    }
    let invalid = |message| Some((ErrorCode::INVALID_REPLICA_ASSIGNMENT, message));
    match &part.replicas {
        None => {
            Some((ErrorCode::NO_REASSIGNMENT_IN_PROGRESS, "No partition reassignment in progress."))
        }
        Some(replicas) if replicas.is_empty() => invalid("The replica list is empty."),
        Some(replicas) if replicas.iter().any(|replica| replica != node) => {
            invalid("The replica list names a broker that is not registered.")
        }
        Some(replicas) if replicas.len() > 1 => invalid("The replica list names a broker twice."),
        Some(_) => None,
    }
}
