//! What the broker answers: one file an API, and the table of the versions that work.
//!
//! A handler decodes the body, decides, and returns an [`Outcome`]; it never blocks. Only what is
//! in [`versions`] is advertised, and only that is decoded.

mod acls;
mod alter_configs;
mod alter_replica_log_dirs;
mod api_versions;
mod client_quotas;
mod create_partitions;
mod create_topics;
mod delete_records;
mod delete_topics;
mod describe_cluster;
mod describe_configs;
mod describe_log_dirs;
mod describe_producers;
mod describe_quorum;
mod describe_scram_users;
mod describe_topic_partitions;
mod elect_leaders;
mod fetch;
mod find_coordinator;
mod group_admin;
mod group_offsets;
mod groups;
mod init_producer_id;
mod list_config_resources;
mod list_offsets;
mod list_transactions;
mod metadata;
mod offset_for_leader_epoch;
mod produce;
mod reassignments;
mod update_features;

use std::ops::RangeInclusive;
use std::sync::Arc;

use millrace_coordinator::Answer;
use millrace_io::Io;
use millrace_wire::ErrorCode;
use millrace_wire::api::ApiKey;

use crate::controller::Decision;
use crate::metadata::MetadataRecord;
use crate::metadata::controller::{Controller, Refusal, Wanted};
use crate::request::{Outcome, Reply, Request, RequestHead};
use crate::shard::Shard;

/// Why a body can be decoded again without a check.
const DECODED: &str = "decoded when the request came in";

/// No version.
#[expect(clippy::reversed_empty_ranges, reason = "a range that contains nothing")]
const NONE: RangeInclusive<i16> = 0..=-1;

/// The versions of an API that are served; empty when it is not built.
pub(crate) fn versions(key: ApiKey) -> RangeInclusive<i16> {
    match key {
        ApiKey::Produce => 0..=13,
        ApiKey::Fetch => 0..=18,
        ApiKey::ListOffsets => 0..=11,
        ApiKey::Metadata => 0..=13,
        ApiKey::OffsetCommit => 0..=10,
        ApiKey::OffsetFetch => 0..=10,
        ApiKey::FindCoordinator => 0..=6,
        ApiKey::JoinGroup => 0..=9,
        ApiKey::Heartbeat => 0..=4,
        ApiKey::LeaveGroup => 0..=5,
        ApiKey::SyncGroup => 0..=5,
        ApiKey::ApiVersions => 0..=4,
        ApiKey::CreateTopics => 0..=7,
        ApiKey::DeleteTopics => 0..=6,
        ApiKey::InitProducerId => 0..=5,
        ApiKey::DescribeConfigs => 0..=4,
        ApiKey::CreatePartitions => 0..=3,
        ApiKey::DescribeCluster => 0..=2,
        ApiKey::DescribeGroups => 0..=6,
        ApiKey::ListGroups => 0..=5,
        ApiKey::DeleteRecords => 0..=2,
        ApiKey::OffsetForLeaderEpoch => 0..=4,
        ApiKey::DescribeAcls => 0..=3,
        ApiKey::CreateAcls => 0..=3,
        ApiKey::DeleteAcls => 0..=3,
        ApiKey::AlterConfigs => 0..=2,
        ApiKey::AlterReplicaLogDirs => 0..=2,
        ApiKey::DescribeLogDirs => 0..=5,
        ApiKey::DeleteGroups => 0..=2,
        ApiKey::ElectLeaders => 0..=2,
        ApiKey::IncrementalAlterConfigs => 0..=1,
        ApiKey::AlterPartitionReassignments => 0..=1,
        ApiKey::ListPartitionReassignments => 0..=0,
        ApiKey::OffsetDelete => 0..=0,
        ApiKey::DescribeClientQuotas => 0..=1,
        ApiKey::AlterClientQuotas => 0..=1,
        ApiKey::DescribeQuorum => 0..=2,
        ApiKey::UpdateFeatures => 0..=2,
        ApiKey::ListConfigResources => 0..=1,
        ApiKey::DescribeProducers => 0..=0,
        ApiKey::DescribeTopicPartitions => 0..=0,
        ApiKey::DescribeUserScramCredentials => 0..=0,
        ApiKey::ListTransactions => 0..=2,
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
        ApiKey::DescribeGroups => group_admin::describe(shard, request),
        ApiKey::ListGroups => group_admin::list(shard, request),
        ApiKey::DeleteRecords => delete_records::handle(shard, request),
        ApiKey::OffsetForLeaderEpoch => offset_for_leader_epoch::handle(shard, request),
        ApiKey::DescribeAcls => acls::describe(request),
        ApiKey::CreateAcls => acls::create(request),
        ApiKey::DeleteAcls => acls::delete(request),
        ApiKey::AlterConfigs => alter_configs::replace(shard, request),
        ApiKey::AlterReplicaLogDirs => alter_replica_log_dirs::handle(shard, request),
        ApiKey::DescribeLogDirs => describe_log_dirs::handle(shard, request),
        ApiKey::DeleteGroups => group_admin::delete(shard, request),
        ApiKey::ElectLeaders => elect_leaders::handle(shard, request),
        ApiKey::IncrementalAlterConfigs => alter_configs::incremental(shard, request),
        ApiKey::AlterPartitionReassignments => reassignments::alter(shard, request),
        ApiKey::ListPartitionReassignments => reassignments::list(request),
        ApiKey::OffsetDelete => group_admin::delete_offsets(shard, request),
        ApiKey::DescribeClientQuotas => client_quotas::describe(shard, request),
        ApiKey::AlterClientQuotas => client_quotas::alter(shard, request),
        ApiKey::DescribeQuorum => describe_quorum::handle(shard, request),
        ApiKey::UpdateFeatures => update_features::handle(shard, request),
        ApiKey::ListConfigResources => list_config_resources::handle(shard, request),
        ApiKey::DescribeProducers => describe_producers::handle(shard, request),
        ApiKey::DescribeTopicPartitions => describe_topic_partitions::handle(shard, request),
        ApiKey::DescribeUserScramCredentials => describe_scram_users::handle(shard, request),
        ApiKey::ListTransactions => list_transactions::handle(shard, request),
        key => Outcome::Close(format!("{} is not served", key.name())),
    }
}

/// The records of a change, and what was decided about each thing wanted.
type Decided<T> = (Vec<MetadataRecord>, Vec<T>);

/// Serves a request that changes metadata, whose body was decoded: decided on shard 0, answered
/// once the changes are in force on every shard, or refused because they cannot be stored.
fn change<I: Io, T: Wanted + Send + 'static>(
    shard: &mut Shard<I>,
    request: &Request,
    decide: fn(&mut Controller<'_>, &Request) -> Decided<T>,
    answer: fn(&Shard<I>, &Request, &[T]) -> Reply<I>,
) -> Outcome<I> {
    if shard.id != 0 {
        return Outcome::Forward(0);
    }
    let request = request.detach();
    shard.change_metadata(move |shard| {
        let image = Arc::clone(&shard.image);
        let decided = shard.with_controller(&image, |controller| decide(controller, &request));
        let (records, mut wanted) = decided;
        let done = Box::new(move |shard: &mut Shard<I>, result: Result<(), ErrorCode>| {
            if let Err(error) = result {
                let message = "the metadata log has no room".to_owned();
                let refusal = Refusal { error, message };
                wanted.iter_mut().for_each(|wanted| wanted.refuse(refusal.clone()));
            }
            let reply = answer(shard, &request, &wanted);
            shard.reply(request.head, reply);
        });
        Decision { records, done }
    });
    Outcome::Wait
}

/// Makes topics that are missing, on shard 0, and answers then, whether they could be made or not.
fn create_first<I: Io>(
    shard: &mut Shard<I>,
    request: &Request,
    names: Vec<String>,
    answer: fn(&Shard<I>, &Request) -> Reply<I>,
) -> Outcome<I> {
    if shard.id != 0 {
        return Outcome::Forward(0);
    }
    let request = request.detach();
    shard.change_metadata(move |shard| {
        let image = Arc::clone(&shard.image);
        let names = names.iter().map(String::as_str);
        let records =
            shard.with_controller(&image, |controller| controller.auto_create_topics(names));
        let done = Box::new(move |shard: &mut Shard<I>, _| {
            let reply = answer(shard, &request);
            shard.reply(request.head, reply);
        });
        Decision { records, done }
    });
    Outcome::Wait
}

/// The reply to a group request whose answer has been decided.
pub(crate) fn group_answer<I: Io>(head: &RequestHead, answer: &Answer) -> Reply<I> {
    match answer {
        Answer::Join(answer) => groups::join_answer(head, answer),
        Answer::Sync(answer) => groups::sync_answer(head, answer),
        Answer::Commit(answer) => group_offsets::commit_answer(head, answer),
        Answer::Delete(_) => unreachable!("DeleteGroups goes on with the next group instead"),
        Answer::DeleteOffsets(answer) => group_admin::delete_offsets_answer(head, answer),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_on_the_protocol_tells_the_versions_served() {
        let page = include_str!("../../../../docs/protocol.md");
        let page = page.split("\n## ").next().expect("the table of APIs comes first");
        let served = |key| {
            let versions = versions(key);
            match (versions.start(), versions.end()) {
                (first, last) if first > last => "–".to_owned(),
                (first, last) if first == last => first.to_string(),
                (first, last) => format!("{first}-{last}"),
            }
        };
        let is_row = |line: &&str| line.starts_with("| ") && !line.starts_with("| key");
        let mut rows = page.lines().filter(is_row);
        for key in ApiKey::all() {
            let start = format!("| {} | {key} | {} | ", key as i16, served(key));
            let row = rows.next().expect("a row for each API, by rising key");
            assert!(row.starts_with(&start), "the page has `{row}`, the table `{start}`");
        }
        assert_eq!(rows.next(), None);
    }
}
