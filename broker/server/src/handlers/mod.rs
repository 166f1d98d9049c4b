//! What the broker answers: one file an API, and the table of the versions that work.
//!
//! A handler decodes the body, decides, and returns an [`Outcome`]; it never blocks. Only what is in
//! [`versions`] is advertised, and only that is decoded.

mod api_versions;
mod create_partitions;
mod create_topics;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod fetch;
mod find_coordinator;
mod group_offsets;
mod groups;
mod init_producer_id;
mod list_offsets;
mod metadata;
mod produce;

use std::ops::RangeInclusive;

use millrace_io::Io;
use millrace_wire::api::ApiKey;

use millrace_coordinator::Answer;

use crate::request::{Outcome, Reply, Request, RequestHead};
use crate::shard::Shard;

/// No version.
#[expect(clippy::reversed_empty_ranges, reason = "a range that contains nothing")]
const NONE: RangeInclusive<i16> = 0..=-1;

/// The versions of an API that are served; empty when it is not built.
pub(crate) fn versions(key: ApiKey) -> RangeInclusive<i16> {
    match key {
        ApiKey::Produce => 3..=13,
        ApiKey::Fetch => 4..=18,
        ApiKey::ListOffsets => 1..=11,
        ApiKey::Metadata => 0..=13,
        ApiKey::OffsetCommit => 2..=9,
        ApiKey::OffsetFetch => 1..=9,
        ApiKey::FindCoordinator => 0..=6,
        ApiKey::JoinGroup => 0..=9,
        ApiKey::Heartbeat => 0..=4,
        ApiKey::LeaveGroup => 0..=5,
        ApiKey::SyncGroup => 0..=5,
        ApiKey::ApiVersions => 0..=4,
        ApiKey::CreateTopics => 2..=7,
        ApiKey::DeleteTopics => 1..=6,
        ApiKey::InitProducerId => 0..=5,
        ApiKey::DescribeConfigs => 1..=4,
        ApiKey::CreatePartitions => 0..=3,
        ApiKey::DescribeCluster => 0..=2,
        _ => NONE,
    }
}

/// Whether a request may start before those ahead of it on its connection are answered. Only
/// Produce: its order is fixed by the log, and waiting for the disk must not empty the pipe.
pub(crate) fn may_overlap(key: ApiKey) -> bool {
    key == ApiKey::Produce
}

/// Serves a request whose key and version are in the table (or an ApiVersions of any version).
pub(crate) fn handle<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    match request.head.key {
        ApiKey::Produce => produce::handle(shard, request),
        ApiKey::Fetch => fetch::handle(shard, request),
        ApiKey::ListOffsets => list_offsets::handle(shard, request),
        ApiKey::Metadata => metadata::handle(shard, request),
        ApiKey::OffsetCommit => group_offsets::commit(shard, request),
        ApiKey::OffsetFetch => group_offsets::fetch(shard, request),
        ApiKey::FindCoordinator => find_coordinator::handle(shard, request),
        ApiKey::JoinGroup => groups::join(shard, request),
        ApiKey::Heartbeat => groups::heartbeat(shard, request),
        ApiKey::LeaveGroup => groups::leave(shard, request),
        ApiKey::SyncGroup => groups::sync(shard, request),
        ApiKey::ApiVersions => api_versions::handle(shard, request),
        ApiKey::CreateTopics => create_topics::handle(shard, request),
        ApiKey::DeleteTopics => delete_topics::handle(shard, request),
        ApiKey::InitProducerId => init_producer_id::handle(shard, request),
        ApiKey::DescribeConfigs => describe_configs::handle(shard, request),
        ApiKey::CreatePartitions => create_partitions::handle(shard, request),
        ApiKey::DescribeCluster => describe_cluster::handle(shard, request),
        key => Outcome::Close(format!("{} is not served", key.name())),
    }
}

/// The reply to a group request whose answer has been decided.
pub(crate) fn group_answer<I: Io>(head: &RequestHead, answer: &Answer) -> Reply<I> {
    match answer {
        Answer::Join(answer) => groups::join_answer(head, answer),
        Answer::Sync(answer) => groups::sync_answer(head, answer),
        Answer::Commit(answer) => group_offsets::commit_answer(head, answer),
        Answer::Delete(_) | Answer::DeleteOffsets(_) => {
            unreachable!("DeleteGroups and OffsetDelete are not served yet")
        }
    }
}
