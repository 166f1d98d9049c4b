//! OffsetCommit (key 8) and OffsetFetch (key 9), versions 0 to 10; from 10 on topics go by id.
//!
//! Version 0 stored offsets in ZooKeeper once; here it is served like version 1.
//!
//! A commit is answered once its record is as durable as acks=all asks. Nothing is ever unstable:
//! there are no transactions.

use std::collections::BTreeSet;

use millrace_coordinator::{
    CommitAnswer, CommitPartition, CommitRequest, CommitTopic, MemberRequest, Offsets,
};
use millrace_io::Io;
use millrace_wire::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use millrace_wire::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use millrace_wire::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse,
};
use millrace_wire::{ErrorCode, Uuid};

use crate::groups::Elsewhere;
use crate::metadata::Image;
use crate::request::{Outcome, Reply, Request, RequestHead};
use crate::shard::Shard;

/// From this version on, of both, topics go by id.
const BY_TOPIC_ID: i16 = 10;

pub(super) fn commit<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    let body: OffsetCommitRequest<'_> = match request.decode() {
        Ok(body) => body,
        Err(malformed) => return malformed.into(),
    };
    let refused = match shard.coordinate(body.group_id) {
        Ok(()) => None,
        Err(Elsewhere::Shard(owner)) => return Outcome::Forward(owner),
        Err(Elsewhere::Error(error)) => Some(error),
    };
    let image = std::sync::Arc::clone(&shard.image);
    let topics: Vec<CommitTopic<'_>> = body
        .topics
        .iter()
        .map(|topic| {
            let (known, unknown) = if request.head.version >= BY_TOPIC_ID {
                (image.topic_by_id(topic.topic_id), ErrorCode::UNKNOWN_TOPIC_ID)
            } else {
                (image.topic(topic.name), ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
            };
            let missing = known.map_or(unknown, |_| ErrorCode::UNKNOWN_TOPIC_OR_PARTITION);
            let partitions = topic
                .partitions
                .iter()
                .map(|part| CommitPartition {
                    index: part.partition_index,
                    refused: match known.and_then(|known| known.partition(part.partition_index)) {
                        Some(_) => ErrorCode::NONE,
                        None => missing,
                    },
                    offset: part.committed_offset,
                    leader_epoch: part.committed_leader_epoch,
                    metadata: part.committed_metadata.unwrap_or(""),
                    timestamp_ms: Some(part.commit_timestamp).filter(|at| *at >= 0),
                })
                .collect();
            let topic_id = known.map_or(topic.topic_id, |known| known.id);
            let name = known.map_or(topic.name, |known| &*known.name);
            CommitTopic { name, topic_id, partitions }
        })
        .collect();
    if let Some(error) = refused {
        return Outcome::Reply(refused_commit(&request.head, &topics, error));
    }
    let commit = CommitRequest {
        version: request.head.version,
        member: MemberRequest {
            group_id: body.group_id,
            member_id: body.member_id,
            instance_id: body.group_instance_id,
            generation: body.generation_id_or_member_epoch,
        },
        retention_ms: Some(body.retention_time_ms).filter(|ms| *ms >= 0),
        topics,
    };
    shard.feed_groups(request, |groups, now, waiter| groups.commit(now, waiter, &commit))
}

pub(super) fn commit_answer<I: Io>(head: &RequestHead, answer: &CommitAnswer) -> Reply<I> {
    let topics: Vec<OffsetCommitResponseTopic<'_>> = answer
        .topics
        .iter()
        .map(|topic| OffsetCommitResponseTopic {
            name: &topic.name,
            topic_id: topic.topic_id,
            partitions: topic.partitions.iter().map(|part| partition(part.0, part.1)).collect(),
            ..Default::default()
        })
        .collect();
    head.reply(&OffsetCommitResponse { topics: topics.into(), ..Default::default() })
}

fn refused_commit<I: Io>(
    head: &RequestHead,
    topics: &[CommitTopic<'_>],
    error: ErrorCode,
) -> Reply<I> {
    let topics: Vec<OffsetCommitResponseTopic<'_>> = topics
        .iter()
        .map(|topic| OffsetCommitResponseTopic {
            name: topic.name,
            topic_id: topic.topic_id,
            partitions: topic.partitions.iter().map(|part| partition(part.index, error)).collect(),
            ..Default::default()
        })
        .collect();
    head.reply(&OffsetCommitResponse { topics: topics.into(), ..Default::default() })
}

fn partition<'a>(index: i32, error: ErrorCode) -> OffsetCommitResponsePartition<'a> {
    OffsetCommitResponsePartition {
        partition_index: index,
        error_code: error.code(),
        ..Default::default()
    }
}

/// What a request asks of one group. `place` is its place in the request; no topics: all.
struct Asked {
    place: usize,
    group_id: String,
    topics: Option<Vec<AskedTopic>>,
}

/// No name: no topic has the id.
struct AskedTopic {
    name: Option<String>,
    id: Uuid,
    partitions: Vec<i32>,
}

/// The offsets found for one topic.
struct FoundTopic {
    name: String,
    id: Uuid,
    partitions: Vec<(i32, FoundOffset)>,
}

/// The offsets found for one group.
#[derive(Default)]
struct Found {
    error: Option<ErrorCode>,
    topics: Vec<FoundTopic>,
}

/// One committed offset; -1 when there is none, which is no error.
struct FoundOffset {
    error: ErrorCode,
    offset: i64,
    leader_epoch: i32,
    metadata: String,
}

pub(super) fn fetch<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    let body: OffsetFetchRequest<'_> = match request.decode() {
        Ok(body) => body,
        Err(malformed) => return malformed.into(),
    };
    let all_asked = asked(&shard.image, request.head.version, &body);
    let mut found: Vec<Found> = all_asked.iter().map(|_| Found::default()).collect();
    let mut here = Vec::new();
    // What is told of a group may be much: of one that is named again and again, once.
    let mut seen = BTreeSet::new();
    for asked in all_asked {
        match shard.group_partition(&asked.group_id) {
            _ if !seen.insert(asked.group_id.clone()) => {
                found[asked.place].error = Some(ErrorCode::INVALID_REQUEST);
            }
            None => found[asked.place].error = Some(ErrorCode::NOT_COORDINATOR),
            Some(id) => here.push((id, asked)),
        }
    }
    let request = request.detach();
    shard.gather(
        here,
        |(id, _)| *id,
        |shard, (_, asked)| (asked.place, look_up(shard, &asked)),
        move |shard, answers| {
            for (place, answer) in answers {
                found[place] = answer;
            }
            let reply = fetch_reply(&request, &found);
            shard.reply(request.head, reply);
        },
    );
    Outcome::Wait
}

fn asked(image: &Image, version: i16, body: &OffsetFetchRequest<'_>) -> Vec<Asked> {
    if version < 8 {
        let topics = body.topics.as_ref().map(|topics| {
            let asked = topics.iter().map(|topic| AskedTopic {
                name: Some(topic.name.to_owned()),
                id: Uuid::ZERO,
                partitions: topic.partition_indexes.iter().collect(),
            });
            asked.collect()
        });
        return vec![Asked { place: 0, group_id: body.group_id.to_owned(), topics }];
    }
    let groups = body.groups.iter().enumerate().map(|(place, group)| {
        let topics = group.topics.as_ref().map(|topics| {
            let asked = topics.iter().map(|topic| AskedTopic {
                name: if version < BY_TOPIC_ID {
                    Some(topic.name.to_owned())
                } else {
                    image.topic_by_id(topic.topic_id).map(|known| known.name.to_string())
                },
                id: topic.topic_id,
                partitions: topic.partition_indexes.iter().collect(),
            });
            asked.collect()
        });
        Asked { place, group_id: group.group_id.to_owned(), topics }
    });
    groups.collect()
}

fn look_up<I: Io>(shard: &mut Shard<I>, asked: &Asked) -> Found {
    if let Err(elsewhere) = shard.coordinate(&asked.group_id) {
        return Found { error: Some(elsewhere.error()), topics: Vec::new() };
    }
    let offsets = shard.groups.groups.fetch(&asked.group_id);
    let all = |offsets: &Offsets| {
        let topics = offsets.topics().map(|(name, partitions)| AskedTopic {
            name: Some(name.to_string()),
            id: shard.image.topic(name).map_or(Uuid::ZERO, |known| known.id),
            partitions: partitions.keys().copied().collect(),
        });
        topics.collect()
    };
    let every: Vec<AskedTopic>;
    let topics = match &asked.topics {
        Some(topics) => topics,
        None => {
            every = offsets.map(all).unwrap_or_default();
            &every
        }
    };
    let topics = topics.iter().map(|topic| FoundTopic {
        name: topic.name.clone().unwrap_or_default(),
        id: topic.id,
        partitions: topic
            .partitions
            .iter()
            .map(|partition| match &topic.name {
                Some(name) => (*partition, find(offsets, name, *partition)),
                None => (*partition, FoundOffset::none(ErrorCode::UNKNOWN_TOPIC_ID)),
            })
            .collect(),
    });
    Found { error: None, topics: topics.collect() }
}

impl FoundOffset {
    fn none(error: ErrorCode) -> Self {
        Self { error, offset: -1, leader_epoch: -1, metadata: String::new() }
    }
}

fn find(offsets: Option<&Offsets>, topic: &str, partition: i32) -> FoundOffset {
    match offsets.and_then(|offsets| offsets.get(topic, partition)) {
        Some(committed) => FoundOffset {
            error: ErrorCode::NONE,
            offset: committed.offset,
            leader_epoch: committed.leader_epoch,
            metadata: committed.metadata.to_string(),
        },
        None => FoundOffset::none(ErrorCode::NONE),
    }
}

fn fetch_reply<I: Io>(request: &Request, found: &[Found]) -> Reply<I> {
    if request.head.version < 8 {
        return fetch_reply_of_one(&request.head, request, &found[0]);
    }
    let body: OffsetFetchRequest<'_> = request.decode().expect("decoded before");
    let groups: Vec<OffsetFetchResponseGroup<'_>> = body
        .groups
        .iter()
        .zip(found)
        .map(|(asked, found)| OffsetFetchResponseGroup {
            group_id: asked.group_id,
            topics: found
                .topics
                .iter()
                .map(|topic| OffsetFetchResponseTopics {
                    name: &topic.name,
                    topic_id: topic.id,
                    partitions: topic
                        .partitions
                        .iter()
                        .map(|(index, found)| OffsetFetchResponsePartitions {
                            partition_index: *index,
                            committed_offset: found.offset,
                            committed_leader_epoch: found.leader_epoch,
                            metadata: Some(&found.metadata),
                            error_code: found.error.code(),
                            ..Default::default()
                        })
                        .collect(),
                    ..Default::default()
                })
                .collect(),
            error_code: found.error.map_or(0, ErrorCode::code),
            ..Default::default()
        })
        .collect();
    request.head.reply(&OffsetFetchResponse { groups: groups.into(), ..Default::default() })
}

/// Versions 0 and 1 have no error of the whole answer: each partition carries it.
fn fetch_reply_of_one<I: Io>(head: &RequestHead, request: &Request, found: &Found) -> Reply<I> {
    let error = found.error.map_or(0, ErrorCode::code);
    let partition = |index, found: Option<&FoundOffset>| OffsetFetchResponsePartition {
        partition_index: index,
        committed_offset: found.map_or(-1, |found| found.offset),
        committed_leader_epoch: found.map_or(-1, |found| found.leader_epoch),
        metadata: Some(""),
        error_code: error,
        ..Default::default()
    };
    let mut topics: Vec<OffsetFetchResponseTopic<'_>> = Vec::new();
    if found.error.is_some() && head.version < 2 {
        let body: OffsetFetchRequest<'_> = request.decode().expect("decoded before");
        for topic in body.topics.iter().flat_map(|topics| topics.iter()) {
            let parts =
                topic.partition_indexes.iter().map(|index| partition(index, None)).collect();
            let name = topic.name;
            topics.push(OffsetFetchResponseTopic { name, partitions: parts, ..Default::default() });
        }
    }
    for FoundTopic { name, partitions, .. } in &found.topics {
        let partitions = partitions
            .iter()
            .map(|(index, found)| OffsetFetchResponsePartition {
                metadata: Some(&found.metadata),
                ..partition(*index, Some(found))
            })
            .collect();
        topics.push(OffsetFetchResponseTopic { name, partitions, ..Default::default() });
    }
    head.reply(&OffsetFetchResponse {
        topics: topics.into(),
        error_code: if head.version >= 2 { error } else { 0 },
        ..Default::default()
    })
}
