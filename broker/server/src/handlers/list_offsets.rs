//! ListOffsets (key 2), versions 0 to 11.
//!
//! -1 the end (high watermark), -2 the log start, -3 the record with the largest timestamp, -4 the
//! earliest local offset (the log start: nothing is tiered), -5 the latest tiered and -6 the
//! earliest not yet tiered (none); 0 and above: the first record with at least this timestamp
//! (KIP-79, KIP-734, KIP-405, KIP-1005, KIP-1023). Version 0 asks for offsets before a time and
//! gets a list: here the one offset that the same question gets in version 1, or the log start.

use std::collections::{BTreeMap, BTreeSet};

use millrace_io::Io;
use millrace_wire::messages::list_offsets_request::ListOffsetsTopic;
use millrace_wire::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use millrace_wire::messages::{ListOffsetsRequest, ListOffsetsResponse};
use millrace_wire::{Array, ErrorCode};

use crate::fetch::check_epoch;
use crate::partitions::PartitionId;
use crate::request::{Outcome, Request};
use crate::shard::Shard;

/// One partition asked for. `place` is its place in the request.
#[derive(Clone)]
struct Asked {
    place: usize,
    id: PartitionId,
    epoch: i32,
    timestamp: i64,
}

/// What is known of it.
#[derive(Clone, Copy)]
struct Found {
    error: ErrorCode,
    timestamp: i64,
    offset: i64,
    epoch: i32,
}

impl Found {
    const fn error(error: ErrorCode) -> Self {
        Self { error, timestamp: -1, offset: -1, epoch: -1 }
    }
}

pub(super) fn handle<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    let body: ListOffsetsRequest<'_> = match request.decode() {
        Ok(body) => body,
        Err(malformed) => return malformed.into(),
    };
    let mut asked = Vec::new();
    let mut found = Vec::new();
    let mut twice = named_twice(&body, request.head.version);
    for topic in body.topics.iter() {
        let known = shard.image.topic(topic.name);
        for part in topic.partitions.iter() {
            let place = found.len();
            if let Some(told) = twice.get_mut(&(topic.name, part.partition_index)) {
                let first = !std::mem::replace(told, true);
                found.push(first.then_some(Found::error(ErrorCode::INVALID_REQUEST)));
                continue;
            }
            if part.timestamp < lowest_timestamp(request.head.version) {
                found.push(Some(Found::error(ErrorCode::UNSUPPORTED_VERSION)));
                continue;
            }
            found.push(Some(Found::error(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)));
            if let Some(known) = known
                && known.partition(part.partition_index).is_some()
            {
                let id = PartitionId { topic_id: known.id, partition: part.partition_index };
                let epoch = part.current_leader_epoch;
                asked.push(Asked { place, id, epoch, timestamp: part.timestamp });
            }
        }
    }
    let request = request.detach();
    shard.gather(
        asked,
        |asked| asked.id,
        |shard, asked| (asked.place, look_up(shard, &asked)),
        move |shard, answers| {
            for (place, answer) in answers {
                found[place] = Some(answer);
            }
            let reply = request.head.reply(&response(&request, &found));
            shard.reply(request.head, reply);
        },
    );
    Outcome::Wait
}

/// The lowest of the numbers that stand for no time, in a version.
fn lowest_timestamp(version: i16) -> i64 {
    match version {
        ..=6 => -2,
        7 => -3,
        8 => -4,
        9..=10 => -5,
        _ => -6,
    }
}

/// Partitions named more than once, none of which is told yet: each is refused, once. Version 0
/// answers all of them.
fn named_twice<'a>(body: &ListOffsetsRequest<'a>, version: i16) -> BTreeMap<(&'a str, i32), bool> {
    let parts = |topic: ListOffsetsTopic<'a>| {
        let name = topic.name;
        topic.partitions.iter().map(move |part| (name, part.partition_index)).collect::<Vec<_>>()
    };
    let mut seen = BTreeSet::new();
    let named = body.topics.iter().flat_map(parts);
    let again = named.filter(|part| version > 0 && !seen.insert(*part));
    again.map(|part| (part, false)).collect()
}

fn look_up<I: Io>(shard: &mut Shard<I>, asked: &Asked) -> Found {
    let index = match shard.open_partition(asked.id) {
        Ok(index) => index,
        Err(error) => return Found::error(error),
    };
    let Shard { partitions, io, .. } = shard;
    let partition = partitions.get_mut(index).expect("opened just now");
    let leader_epoch = partition.leader_epoch;
    if let Some(error) = check_epoch(asked.epoch, leader_epoch) {
        return Found::error(error);
    }
    let log = partition.log.as_mut().expect("opened just now");
    let at = |offset, epoch| Found { error: ErrorCode::NONE, timestamp: -1, offset, epoch };
    let record = match asked.timestamp {
        -1 => return at(log.high_watermark(), leader_epoch),
        -2 | -4 => {
            let start = log.log_start();
            return at(start, log.epoch_at(start).unwrap_or(leader_epoch));
        }
        -3 => log.max_timestamp(io),
        -5 | -6 => return at(-1, -1),
        timestamp => {
            let upper_bound = log.high_watermark();
            log.offset_for_timestamp(io, timestamp, upper_bound)
        }
    };
    match record {
        Ok(Some(record)) => Found {
            error: ErrorCode::NONE,
            timestamp: record.timestamp,
            offset: record.offset,
            epoch: record.leader_epoch,
        },
        Ok(None) => at(-1, -1),
        Err(_) => Found::error(ErrorCode::KAFKA_STORAGE_ERROR),
    }
}

fn old_style<'a>(version: i16, found: &Found) -> Array<'a, i64> {
    let has = version == 0 && found.error == ErrorCode::NONE && found.offset >= 0;
    has.then_some(found.offset).into_iter().collect()
}

/// None stands for a partition that was told before.
fn response<'a>(request: &'a Request, found: &[Option<Found>]) -> ListOffsetsResponse<'a> {
    let body: ListOffsetsRequest<'a> = request.decode().expect("decoded before");
    let mut found = found.iter();
    let topics: Vec<ListOffsetsTopicResponse<'a>> = body
        .topics
        .iter()
        .map(|topic| ListOffsetsTopicResponse {
            name: topic.name,
            partitions: topic
                .partitions
                .iter()
                .zip(&mut found)
                .filter_map(|(part, found)| Some((part, found.as_ref()?)))
                .map(|(part, found)| ListOffsetsPartitionResponse {
                    partition_index: part.partition_index,
                    error_code: found.error.code(),
                    old_style_offsets: old_style(request.head.version, found),
                    timestamp: if request.head.version >= 1 { found.timestamp } else { -1 },
                    offset: if request.head.version >= 1 { found.offset } else { -1 },
                    leader_epoch: if request.head.version >= 4 { found.epoch } else { -1 },
                    ..Default::default()
                })
                .collect(),
            ..Default::default()
        })
        .collect();
    ListOffsetsResponse { topics: topics.into(), ..Default::default() }
}
