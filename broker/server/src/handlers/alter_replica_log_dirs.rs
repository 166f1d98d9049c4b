//! AlterReplicaLogDirs (key 34), versions 0 to 2 (KIP-113): a partition may only go to the folder
//! where it is. The others of `log.dirs` hold nothing, and DescribeLogDirs does not tell of them.

use millrace_io::Io;
use millrace_wire::ErrorCode;
use millrace_wire::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use millrace_wire::messages::{AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse};

use crate::request::{Outcome, Request};
use crate::shard::Shard;

pub(super) fn handle<I: Io>(shard: &Shard<I>, request: &Request) -> Outcome<I> {
    let body: AlterReplicaLogDirsRequest<'_> = match request.decode() {
        Ok(body) => body,
        Err(malformed) => return malformed.into(),
    };
    let own = shard.shared.data_dir.to_string_lossy();
    let asked = body
        .dirs
        .iter()
        .flat_map(|dir| dir.topics.iter().map(move |topic| (dir.path, topic)).collect::<Vec<_>>());
    let results = asked.map(|(path, topic)| {
        let known = shard.image.topic(topic.name);
        let partitions = topic.partitions.iter().map(|partition_index| {
            let error = if path != own {
                ErrorCode::LOG_DIR_NOT_FOUND
            } else if known.is_none_or(|known| known.partition(partition_index).is_none()) {
                ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
            } else {
                ErrorCode::NONE
            };
            let error_code = error.code();
            AlterReplicaLogDirPartitionResult { partition_index, error_code, ..Default::default() }
        });
        let partitions = partitions.collect();
        AlterReplicaLogDirTopicResult { topic_name: topic.name, partitions, ..Default::default() }
    });
    let results = results.collect();
    let body = AlterReplicaLogDirsResponse { results, ..Default::default() };
    Outcome::Reply(request.head.reply(&body))
}
