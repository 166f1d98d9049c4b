//! AlterReplicaLogDirs (key 34), versions 0 to 2 (KIP-113): moves partitions to other data folders.
//! It answers when the moves have begun; DescribeLogDirs tells of those under way.

use std::path::Path;

use millrace_io::Io;
use millrace_wire::ErrorCode;
use millrace_wire::messages::alter_replica_log_dirs_response::{
    AlterReplicaLogDirPartitionResult, AlterReplicaLogDirTopicResult,
};
use millrace_wire::messages::{AlterReplicaLogDirsRequest, AlterReplicaLogDirsResponse};

use crate::partitions::PartitionId;
use crate::request::{Outcome, Request};
use crate::shard::Shard;

pub(super) fn handle<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    let body: AlterReplicaLogDirsRequest<'_> = match request.decode() {
        Ok(body) => body,
        Err(malformed) => return malformed.into(),
    };
    let mut asked = Vec::new();
    let mut errors = Vec::new();
    for dir in body.dirs.iter() {
        let folders = &shard.shared.folders;
        let to = folders.iter().position(|folder| folder.path.as_os_str() == dir.path);
        let is_cordoned = shard.config.is_cordoned(Path::new(dir.path));
        for topic in dir.topics.iter() {
            let known = shard.image.topic(topic.name);
            for partition in topic.partitions.iter() {
                let known = known.filter(|known| known.partition(partition).is_some());
                errors.push(match (to, known) {
                    (None, _) => ErrorCode::LOG_DIR_NOT_FOUND,
                    (_, None) => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                    (Some(_), Some(_)) if is_cordoned => ErrorCode::INVALID_REPLICA_ASSIGNMENT,
                    (Some(to), Some(known)) => {
                        let id = PartitionId { topic_id: known.id, partition };
                        asked.push((errors.len(), id, to));
                        ErrorCode::NONE
                    }
                });
            }
        }
    }
    let request = request.detach();
    shard.gather(
        asked,
        |(_, id, _)| *id,
        |shard, (place, id, to)| (place, shard.begin_move(id, to)),
        move |shard, answers| {
            for (place, error) in answers {
                errors[place] = error;
            }
            let reply = request.head.reply(&response(&request, &errors));
            shard.reply(request.head, reply);
        },
    );
    Outcome::Wait
}

fn response<'a>(request: &'a Request, errors: &[ErrorCode]) -> AlterReplicaLogDirsResponse<'a> {
    let body: AlterReplicaLogDirsRequest<'a> = request.decode().expect("decoded before");
    let mut errors = errors.iter();
    let mut results = Vec::new();
    for dir in body.dirs.iter() {
        for topic in dir.topics.iter() {
            let partitions = topic.partitions.iter().zip(&mut errors);
            let partitions =
                partitions.map(|(partition_index, error)| AlterReplicaLogDirPartitionResult {
                    partition_index,
                    error_code: error.code(),
                    ..Default::default()
                });
            results.push(AlterReplicaLogDirTopicResult {
                topic_name: topic.name,
                partitions: partitions.collect(),
                ..Default::default()
            });
        }
    }
    AlterReplicaLogDirsResponse { results: results.into(), ..Default::default() }
}
