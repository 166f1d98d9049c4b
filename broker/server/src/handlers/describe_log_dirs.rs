//! DescribeLogDirs (key 35), versions 0 to 5 (KIP-113, KIP-827): the data folder and what each
//! partition takes in it. Sizes of the disk are not told (-1): clients take that as unknown.

use std::collections::BTreeMap;

use millrace_io::Io;
use millrace_wire::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use millrace_wire::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};

use crate::partitions::PartitionId;
use crate::request::{Outcome, Request};
use crate::shard::Shard;

/// A partition, and its bytes on disk and in memory; none when its log cannot be opened.
type Sized = (String, i32, Option<u64>);

pub(super) fn handle<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    let body: DescribeLogDirsRequest<'_> = match request.decode() {
        Ok(body) => body,
        Err(malformed) => return malformed.into(),
    };
    let mut asked: Vec<(String, PartitionId)> = Vec::new();
    match &body.topics {
        None => {
            for topic in shard.image.topics() {
                for partition in (0..).take(topic.partitions.len()) {
                    let id = PartitionId { topic_id: topic.id, partition };
                    asked.push((topic.name.to_string(), id));
                }
            }
        }
        Some(topics) => {
            for topic in topics.iter() {
                let Some(known) = shard.image.topic(topic.topic) else { continue };
                for partition in topic.partitions.iter() {
                    if known.partition(partition).is_some() {
                        let id = PartitionId { topic_id: known.id, partition };
                        asked.push((topic.topic.to_owned(), id));
                    }
                }
            }
        }
    }
    let request = request.detach();
    shard.gather(
        asked,
        |(_, id)| *id,
        |shard, (name, id)| (name, id.partition, bytes(shard, id)),
        move |shard, answers: Vec<Sized>| {
            let mut topics: BTreeMap<&str, Vec<DescribeLogDirsPartition<'_>>> = BTreeMap::new();
            for (name, partition_index, bytes) in &answers {
                let Some(bytes) = bytes else { continue };
                topics.entry(name).or_default().push(DescribeLogDirsPartition {
                    partition_index: *partition_index,
                    partition_size: i64::try_from(*bytes).unwrap_or(i64::MAX),
                    ..Default::default()
                });
            }
            let topics = topics.into_iter().map(|(name, mut partitions)| {
                partitions.sort_by_key(|partition| partition.partition_index);
                DescribeLogDirsTopic { name, partitions: partitions.into(), ..Default::default() }
            });
            let dir = shard.shared.data_dir.to_string_lossy().into_owned();
            let result = DescribeLogDirsResult {
                log_dir: &dir,
                topics: topics.collect(),
                ..Default::default()
            };
            let results = vec![result].into();
            let body = DescribeLogDirsResponse { results, ..Default::default() };
            let reply = request.head.reply(&body);
            shard.reply(request.head, reply);
        },
    );
    Outcome::Wait
}

fn bytes<I: Io>(shard: &mut Shard<I>, id: PartitionId) -> Option<u64> {
    let index = shard.open_partition(id).ok()?;
    shard.note_use(index);
    Some(shard.partitions.get_mut(index)?.log.as_ref()?.bytes())
}
