//! DescribeLogDirs (key 35), versions 0 to 5 (KIP-113, KIP-827): the data folders, what each
//! partition takes in its own, and the size of the file systems.

use std::collections::BTreeMap;
use std::path::Path;

use millrace_io::Io;
use millrace_wire::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use millrace_wire::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse};

use crate::partitions::PartitionId;
use crate::request::{Outcome, Request};
use crate::shard::Shard;

/// What a folder has of a partition.
struct Place {
    folder: usize,
    /// On disk and in memory.
    bytes: u64,
    /// Records that a copy to be does not have; `None` for what is served.
    lag: Option<i64>,
}

/// A partition and where it is; nowhere when its log cannot be opened, twice when it is moving.
type Sized = (String, i32, Option<[Option<Place>; 2]>);

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
        |shard, (name, id)| (name, id.partition, places(shard, id)),
        move |shard, answers: Vec<Sized>| {
            let folders = &shard.shared.folders;
            let paths: Vec<_> =
                folders.iter().map(|folder| folder.path.to_string_lossy()).collect();
            let results = paths.iter().enumerate();
            let results = results.map(|(index, path)| {
                let is_cordoned = shard.config.is_cordoned(Path::new(&**path));
                DescribeLogDirsResult { is_cordoned, ..result(path, index, &answers) }
            });
            let results = results.collect();
            let body = DescribeLogDirsResponse { results, ..Default::default() };
            let reply = request.head.reply(&body);
            shard.reply(request.head, reply);
        },
    );
    Outcome::Wait
}

/// What is in the folder with this path and index.
fn result<'a>(log_dir: &'a str, index: usize, answers: &'a [Sized]) -> DescribeLogDirsResult<'a> {
    let mut topics: BTreeMap<&str, Vec<DescribeLogDirsPartition<'_>>> = BTreeMap::new();
    for (name, partition_index, places) in answers {
        for place in places.iter().flatten().flatten().filter(|place| place.folder == index) {
            topics.entry(name).or_default().push(DescribeLogDirsPartition {
                partition_index: *partition_index,
                partition_size: i64::try_from(place.bytes).unwrap_or(i64::MAX),
                offset_lag: place.lag.unwrap_or(0),
                is_future_key: place.lag.is_some(),
                ..Default::default()
            });
        }
    }
    let topics = topics.into_iter().map(|(name, mut partitions)| {
        partitions.sort_by_key(|partition| partition.partition_index);
        DescribeLogDirsTopic { name, partitions: partitions.into(), ..Default::default() }
    });
    let space = millrace_doctor::space(Path::new(log_dir));
    let bytes = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
    DescribeLogDirsResult {
        log_dir,
        topics: topics.collect(),
        total_bytes: space.map_or(-1, |(_, total)| bytes(total)),
        usable_bytes: space.map_or(-1, |(usable, _)| bytes(usable)),
        ..Default::default()
    }
}

fn places<I: Io>(shard: &mut Shard<I>, id: PartitionId) -> Option<[Option<Place>; 2]> {
    let opened = shard.open_partition(id);
    let index = shard.partitions.index(id)?;
    if opened.is_ok() {
        shard.note_use(index);
    }
    let partition = shard.partitions.get_mut(index)?;
    let open = partition.log.as_ref().map(|log| (log.bytes(), log.appended_end()));
    let moving = partition.moving.as_ref();
    let (bytes, end) = open.or_else(|| moving?.paused_at)?;
    let served = Place { folder: partition.folder, bytes, lag: None };
    let copy = moving.map(|moving| Place {
        folder: moving.to,
        bytes: moving.copied_bytes,
        lag: Some(end - moving.copied_end),
    });
    Some([Some(served), copy])
}
