//! OffsetCommit (key 8, versions 2 to 9) and OffsetFetch (key 9, versions 1 to 9).
//!
//! A commit is answered once its record is as durable as acks=all asks. Nothing is ever unstable:
//! there are no transactions.

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
use crate::request::{Outcome, Reply, Request, RequestHead};
use crate::shard::Shard;

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
            let known = image.topic(topic.name);
            let partitions = topic
                .partitions
                .iter()
                .map(|part| CommitPartition {
                    index: part.partition_index,
                    refused: match known.and_then(|known| known.partition(part.partition_index)) {
                        Some(_) => ErrorCode::NONE,
                        None => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                    },
                    offset: part.committed_offset,
                    leader_epoch: part.committed_leader_epoch,
                    metadata: part.committed_metadata.unwrap_or(""),
                    timestamp_ms: Some(part.commit_timestamp).filter(|at| *at >= 0),
                })
                .collect();
            let topic_id = known.map_or(Uuid::ZERO, |known| known.id);
            CommitTopic { name: topic.name, topic_id, partitions }
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
    topics: Option<Vec<(String, Vec<i32>)>>,
}

/// The offsets found for one group.
#[derive(Default)]
struct Found {
    error: Option<ErrorCode>,
    topics: Vec<(String, Vec<(i32, FoundOffset)>)>,
}

/// One committed offset; -1 when there is none, which is no error.
struct FoundOffset {
    offset: i64,
    leader_epoch: i32,
    metadata: String,
}

pub(super) fn fetch<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    let body: OffsetFetchRequest<'_> = match request.decode() {
        Ok(body) => body,
        Err(malformed) => return malformed.into(),
    };
    let all_asked = asked(request.head.version, &body);
    let mut found: Vec<Found> = all_asked.iter().map(|_| Found::default()).collect();
    let mut here = Vec::new();
    for asked in all_asked {
        match shard.group_partition(&asked.group_id) {
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

fn asked(version: i16, body: &OffsetFetchRequest<'_>) -> Vec<Asked> {
    if version < 8 {
        let topics = body.topics.as_ref().map(|topics| {
            topics
                .iter()
                .map(|topic| (topic.name.to_owned(), topic.partition_indexes.iter().collect()))
                .collect()
        });
        return vec![Asked { place: 0, group_id: body.group_id.to_owned(), topics }];
    }
    body.groups
        .iter()
        .enumerate()
        .map(|(place, group)| {
            let topics = group.topics.as_ref().map(|topics| {
                topics
                    .iter()
                    .map(|topic| (topic.name.to_owned(), topic.partition_indexes.iter().collect()))
                    .collect()
            });
            Asked { place, group_id: group.group_id.to_owned(), topics }
        })
        .collect()
}

fn look_up<I: Io>(shard: &mut Shard<I>, asked: &Asked) -> Found {
    if let Err(elsewhere) = shard.coordinate(&asked.group_id) {
        let error = match elsewhere {
            Elsewhere::Shard(_) => ErrorCode::NOT_COORDINATOR,
            Elsewhere::Error(error) => error,
        };
        return Found { error: Some(error), topics: Vec::new() };
    }
    let offsets = shard.groups.groups.fetch(&asked.group_id);
    let topics = match &asked.topics {
        Some(topics) => topics
            .iter()
            .map(|(name, parts)| {
                let found = parts.iter().map(|part| (*part, find(offsets, name, *part))).collect();
                (name.clone(), found)
            })
            .collect(),
        None => offsets
            .iter()
            .flat_map(|offsets| offsets.topics())
            .map(|(name, parts)| {
                let found = parts.keys().map(|part| (*part, find(offsets, name, *part))).collect();
                (name.to_string(), found)
            })
            .collect(),
    };
    Found { error: None, topics }
}

fn find(offsets: Option<&Offsets>, topic: &str, partition: i32) -> FoundOffset {
    match offsets.and_then(|offsets| offsets.get(topic, partition)) {
        Some(committed) => FoundOffset {
            offset: committed.offset,
            leader_epoch: committed.leader_epoch,
            metadata: committed.metadata.to_string(),
        },
        None => FoundOffset { offset: -1, leader_epoch: -1, metadata: String::new() },
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
                .map(|(name, parts)| OffsetFetchResponseTopics {
                    name,
                    partitions: parts
                        .iter()
                        .map(|(index, found)| OffsetFetchResponsePartitions {
                            partition_index: *index,
                            committed_offset: found.offset,
                            committed_leader_epoch: found.leader_epoch,
                            metadata: Some(&found.metadata),
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
    for (name, parts) in &found.topics {
        let partitions = parts
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
