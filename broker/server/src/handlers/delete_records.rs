//! DeleteRecords (key 21), versions 0 to 2 (KIP-107): moves the log start up. Answered when the new
//! start is in its checkpoint; then the files below it are removed.

use std::path::PathBuf;
use std::sync::Arc;

use millrace_io::Io;
use millrace_log::DeleteError;
use millrace_wire::ErrorCode;
use millrace_wire::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use millrace_wire::messages::{DeleteRecordsRequest, DeleteRecordsResponse};

use crate::background::remove_files;
use crate::partitions::PartitionId;
use crate::request::{Outcome, Request};
use crate::shard::Shard;

/// Everything below the high watermark.
const HIGH_WATERMARK: i64 = -1;

/// Where a log starts now.
type Deleted = Result<i64, ErrorCode>;
/// Where it is to start, and the files that go then.
type Moved = Result<(i64, Vec<PathBuf>), ErrorCode>;

pub(super) fn handle<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    let body: DeleteRecordsRequest<'_> = match request.decode() {
        Ok(body) => body,
        Err(malformed) => return malformed.into(),
    };
    let mut asked = Vec::new();
    let mut deleted: Vec<Deleted> = Vec::new();
    for topic in body.topics.iter() {
        let known = shard.image.topic(topic.name);
        for part in topic.partitions.iter() {
            if let Some(known) = known
                && known.partition(part.partition_index).is_some()
            {
                let id = PartitionId { topic_id: known.id, partition: part.partition_index };
                asked.push((deleted.len(), id, part.offset));
            }
            deleted.push(Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION));
        }
    }
    let request = request.detach();
    shard.gather(
        asked,
        |(_, id, _)| *id,
        |shard, (place, id, offset)| (place, delete(shard, id, offset)),
        move |shard, answers| {
            let mut gone = Vec::new();
            for (place, answer) in answers {
                deleted[place] = answer.map(|(start, paths): (i64, Vec<PathBuf>)| {
                    gone.extend(paths);
                    start
                });
            }
            let shared = Arc::clone(&shard.shared);
            shard.in_background(move |io| {
                match shared.save_hints(io) {
                    Ok(()) => remove_files(io, &gone),
                    Err(error) => {
                        crate::log_line!("cannot write the checkpoints: {error}");
                        let moved = deleted.iter_mut().filter(|deleted| deleted.is_ok());
                        moved.for_each(|deleted| *deleted = Err(ErrorCode::KAFKA_STORAGE_ERROR));
                    }
                }
                Some(Box::new(move |shard: &mut Shard<I>| {
                    let reply = request.head.reply(&response(&request, &deleted));
                    shard.reply(request.head, reply);
                }))
            });
        },
    );
    Outcome::Wait
}

fn delete<I: Io>(shard: &mut Shard<I>, id: PartitionId, offset: i64) -> Moved {
    let index = shard.open_partition(id)?;
    let partitions = &mut shard.partitions;
    let partition = partitions.get_mut(index).expect("opened just now");
    if !partition.config.cleanup_policy.delete {
        return Err(ErrorCode::POLICY_VIOLATION);
    }
    let name = partition.name();
    let log = partition.log.as_mut().expect("opened just now");
    let offset = if offset == HIGH_WATERMARK { log.high_watermark() } else { offset };
    if offset < 0 {
        return Err(ErrorCode::OFFSET_OUT_OF_RANGE);
    }
    shard.start_log_at(index, offset).map_err(|error| match error {
        DeleteError::AboveHighWatermark { .. } => ErrorCode::OFFSET_OUT_OF_RANGE,
        DeleteError::Log(error) => {
            crate::log_line!("{name}: cannot delete records: {error}");
            ErrorCode::KAFKA_STORAGE_ERROR
        }
    })
}

fn response<'a>(request: &'a Request, deleted: &[Deleted]) -> DeleteRecordsResponse<'a> {
    let body: DeleteRecordsRequest<'a> = request.decode().expect("decoded before");
    let mut deleted = deleted.iter();
    let topics = body.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().zip(&mut deleted).map(|(part, deleted)| {
            DeleteRecordsPartitionResult {
                partition_index: part.partition_index,
                low_watermark: deleted.unwrap_or(-1),
                error_code: deleted.err().map_or(0, ErrorCode::code),
                ..Default::default()
            }
        });
        let partitions = partitions.collect();
        DeleteRecordsTopicResult { name: topic.name, partitions, ..Default::default() }
    });
    DeleteRecordsResponse { topics: topics.collect(), ..Default::default() }
}
