//! DescribeQuorum (key 55), versions 0 to 2 (KIP-595, KIP-836, KIP-853): the metadata log has one
//! voter, this node, which leads it.

use millrace_io::Io;
use millrace_wire::ErrorCode;
use millrace_wire::messages::describe_quorum_response::{
    Listener, Node, PartitionData, ReplicaState, TopicData,
};
use millrace_wire::messages::{DescribeQuorumRequest, DescribeQuorumResponse};

use crate::lifecycle::METADATA_TOPIC;
use crate::request::{Outcome, Request};
use crate::shard::Shard;

pub(super) fn handle<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    let asked: DescribeQuorumRequest<'_> = match request.decode() {
        Ok(asked) => asked,
        Err(malformed) => return malformed.into(),
    };
    let now_ms = shard.io.wall_clock_ms();
    let node_id = shard.shared.node_id;
    let voter = ReplicaState {
        replica_id: node_id,
        log_end_offset: shard.image.end_offset(),
        last_fetch_timestamp: now_ms,
        last_caught_up_timestamp: now_ms,
        ..Default::default()
    };
    let topics = asked.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let partition_index = partition.partition_index;
            if topic.topic_name != METADATA_TOPIC || partition_index != 0 {
                let error_code = ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.code();
                return PartitionData { partition_index, error_code, ..Default::default() };
            }
            PartitionData {
                partition_index,
                leader_id: node_id,
                leader_epoch: shard.image.leader_epoch(),
                high_watermark: shard.image.end_offset(),
                current_voters: vec![voter.clone()].into(),
                ..Default::default()
            }
        });
        let partitions = partitions.collect();
        TopicData { topic_name: topic.topic_name, partitions, ..Default::default() }
    });
    let topics: Vec<TopicData<'_>> = topics.collect();
    let endpoints = shard.shared.endpoints().iter().map(|endpoint| Listener {
        name: &endpoint.listener,
        host: &endpoint.host,
        port: endpoint.port,
        ..Default::default()
    });
    let node = Node { node_id, listeners: endpoints.collect(), ..Default::default() };
    let is_found = topics.iter().any(|topic| topic.partitions.iter().any(|p| p.error_code == 0));
    let nodes = if is_found && request.head.version >= 2 { vec![node] } else { Vec::new() };
    let body =
        DescribeQuorumResponse { topics: topics.into(), nodes: nodes.into(), ..Default::default() };
    Outcome::Reply(request.head.reply(&body))
}
