//! ListGroups (key 16, versions 0 to 5), DescribeGroups (15, 0 to 6), DeleteGroups (42, 0 to 2) and
//! OffsetDelete (47, version 0). Groups are spread over the shards: each tells of its own.

use std::collections::BTreeSet;
use std::sync::Arc;

use millrace_coordinator::{
    Answer, CommitPartition, CommitTopic, DeleteOffsetsAnswer, DescribedGroup, ListedGroup,
};
use millrace_io::Io;
use millrace_wire::messages::delete_groups_response::DeletableGroupResult;
use millrace_wire::messages::describe_groups_response::{self, DescribedGroupMember};
use millrace_wire::messages::list_groups_response;
use millrace_wire::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use millrace_wire::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    ListGroupsRequest, ListGroupsResponse, OffsetDeleteRequest, OffsetDeleteResponse,
};
use millrace_wire::{ErrorCode, Uuid};

use crate::groups::Elsewhere;
use crate::request::{Outcome, Reply, Request, RequestHead};
use crate::shard::Shard;

pub(super) fn list<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    if let Err(malformed) = request.decode::<ListGroupsRequest<'_>>() {
        return malformed.into();
    }
    let request = request.detach();
    shard.gather_everywhere(request.clone(), list_own, move |shard, answers| {
        let answers: Result<Vec<_>, ErrorCode> = answers.into_iter().collect();
        let error_code = answers.as_ref().err().map_or(0, |error| error.code());
        let answers = answers.unwrap_or_default();
        let groups = answers.iter().flatten().map(|group| list_groups_response::ListedGroup {
            group_id: &group.group_id,
            protocol_type: &group.protocol_type,
            group_state: group.state.name(),
            group_type: "classic",
            ..Default::default()
        });
        let groups = groups.collect();
        let body = ListGroupsResponse { error_code, groups, ..Default::default() };
        let reply = request.head.reply(&body);
        shard.reply(request.head, reply);
    });
    Outcome::Wait
}

fn list_own<I: Io>(shard: &mut Shard<I>, request: Request) -> Result<Vec<ListedGroup>, ErrorCode> {
    shard.load_all_groups()?;
    let body: ListGroupsRequest<'_> = request.decode().expect("decoded before");
    let states: Vec<&str> = body.states_filter.iter().collect();
    let types: Vec<&str> = body.types_filter.iter().collect();
    Ok(shard.groups.groups.list(&states, &types))
}

/// Every operation on a group (`AclOperation` codes 3, 6, 8, 10, 11) as a bit field.
const GROUP_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8 | 1 << 10 | 1 << 11;

/// A group's description, none when it is unknown.
type Described = Result<Option<DescribedGroup>, ErrorCode>;

pub(super) fn describe<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    let body: DescribeGroupsRequest<'_> = match request.decode() {
        Ok(body) => body,
        Err(malformed) => return malformed.into(),
    };
    let mut described: Vec<Described> = Vec::new();
    let mut asked = Vec::new();
    // A group may be large: one that is named again and again is described once.
    let mut seen = BTreeSet::new();
    for group in body.groups.iter() {
        let is_new = seen.insert(group);
        if is_new && let Some(id) = shard.group_partition(group) {
            asked.push((described.len(), id, group.to_owned()));
        }
        described.push(Err(match is_new {
            true => ErrorCode::NOT_COORDINATOR,
            false => ErrorCode::INVALID_REQUEST,
        }));
    }
    let request = request.detach();
    shard.gather(
        asked,
        |(_, id, _)| *id,
        |shard, (place, _, group)| match shard.coordinate(&group) {
            Ok(()) => (place, Ok(shard.groups.groups.describe(&group))),
            Err(elsewhere) => (place, Err(elsewhere.error())),
        },
        move |shard, answers| {
            for (place, answer) in answers {
                described[place] = answer;
            }
            let body: DescribeGroupsRequest<'_> = request.decode().expect("decoded before");
            let version = request.head.version;
            let groups = body.groups.iter().zip(&described);
            let wants_operations = body.include_authorized_operations;
            let groups = groups.map(|(group, described)| {
                let row = describe_row(version, group, described);
                let authorized_operations = match wants_operations {
                    true if row.error_code == 0 => GROUP_OPERATIONS,
                    _ => i32::MIN,
                };
                describe_groups_response::DescribedGroup { authorized_operations, ..row }
            });
            let groups = groups.collect();
            let reply =
                request.head.reply(&DescribeGroupsResponse { groups, ..Default::default() });
            shard.reply(request.head, reply);
        },
    );
    Outcome::Wait
}

fn describe_row<'a>(
    version: i16,
    group_id: &'a str,
    described: &'a Described,
) -> describe_groups_response::DescribedGroup<'a> {
    let row = describe_groups_response::DescribedGroup { group_id, ..Default::default() };
    match described {
        Ok(Some(group)) => describe_groups_response::DescribedGroup {
            group_state: group.state.name(),
            protocol_type: &group.protocol_type,
            protocol_data: &group.protocol_name,
            members: group
                .members
                .iter()
                .map(|member| DescribedGroupMember {
                    member_id: &member.member_id,
                    group_instance_id: member.instance_id.as_deref(),
                    client_id: &member.client_id,
                    client_host: &member.client_host,
                    member_metadata: &member.metadata,
                    member_assignment: &member.assignment,
                    ..Default::default()
                })
                .collect(),
            ..row
        },
        Ok(None) => {
            let is_error = version >= 6;
            describe_groups_response::DescribedGroup {
                error_code: if is_error { ErrorCode::GROUP_ID_NOT_FOUND.code() } else { 0 },
                error_message: is_error.then_some("The group does not exist."),
                group_state: "Dead",
                ..row
            }
        }
        Err(error) => describe_groups_response::DescribedGroup { error_code: error.code(), ..row },
    }
}

pub(super) fn delete<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    let body: DeleteGroupsRequest<'_> = match request.decode() {
        Ok(body) => body,
        Err(malformed) => return malformed.into(),
    };
    // A group named twice is deleted, and answered, once.
    let mut seen = BTreeSet::new();
    let groups = body.groups_names.iter().filter(|group| seen.insert(*group));
    let groups = groups.map(str::to_owned).collect();
    let (origin, request) = (shard.id, request.detach());
    delete_next(shard, Deleting { origin, request, groups, results: Vec::new() });
    Outcome::Wait
}

/// A DeleteGroups under way: one group after the other. Those at and behind `results.len()` remain.
struct Deleting {
    origin: usize,
    request: Request,
    groups: Arc<[String]>,
    results: Vec<ErrorCode>,
}

fn delete_next<I: Io>(shard: &mut Shard<I>, mut deleting: Deleting) {
    let groups = Arc::clone(&deleting.groups);
    let Some(group) = groups.get(deleting.results.len()) else {
        return shard.run_on(deleting.origin, move |shard| {
            let results = deleting.groups.iter().zip(&deleting.results);
            let results = results.map(|(group_id, error)| DeletableGroupResult {
                group_id,
                error_code: error.code(),
                ..Default::default()
            });
            let body = DeleteGroupsResponse { results: results.collect(), ..Default::default() };
            let head = deleting.request.head;
            let reply = head.reply(&body);
            shard.reply(head, reply);
        });
    };
    match shard.coordinate(group) {
        Err(Elsewhere::Shard(owner)) => {
            shard.run_on(owner, move |shard| delete_next(shard, deleting));
        }
        Err(Elsewhere::Error(error)) => {
            deleting.results.push(error);
            delete_next(shard, deleting);
        }
        Ok(()) => shard.feed_groups_then(
            |state, now, waiter| state.delete(now, waiter, group),
            move |shard, answer| {
                let Answer::Delete(error) = answer else {
                    unreachable!("a group that is deleted is answered so")
                };
                deleting.results.push(*error);
                delete_next(shard, deleting);
            },
        ),
    }
}

pub(super) fn delete_offsets<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    let body: OffsetDeleteRequest<'_> = match request.decode() {
        Ok(body) => body,
        Err(malformed) => return malformed.into(),
    };
    let coordinated = match body.group_id {
        "" => Err(Elsewhere::Error(ErrorCode::INVALID_GROUP_ID)),
        group => shard.coordinate(group),
    };
    if let Err(elsewhere) = coordinated {
        return elsewhere.outcome(|error| {
            let error_code = error.code();
            request.head.reply(&OffsetDeleteResponse { error_code, ..Default::default() })
        });
    }
    let image = Arc::clone(&shard.image);
    let topics: Vec<CommitTopic<'_>> = body
        .topics
        .iter()
        .map(|topic| {
            let known = image.topic(topic.name);
            let partitions = topic.partitions.iter().map(|part| CommitPartition {
                index: part.partition_index,
                refused: match known.and_then(|known| known.partition(part.partition_index)) {
                    Some(_) => ErrorCode::NONE,
                    None => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                },
                offset: -1,
                leader_epoch: -1,
                metadata: "",
                timestamp_ms: None,
            });
            let partitions = partitions.collect();
            CommitTopic { name: topic.name, topic_id: Uuid::ZERO, partitions }
        })
        .collect();
    shard.feed_groups(request, |groups, now, waiter| {
        groups.delete_offsets(now, waiter, body.group_id, &topics)
    })
}

pub(super) fn delete_offsets_answer<I: Io>(
    head: &RequestHead,
    answer: &DeleteOffsetsAnswer,
) -> Reply<I> {
    let topics = answer.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|(index, error)| {
            OffsetDeleteResponsePartition { partition_index: *index, error_code: error.code() }
        });
        let partitions = partitions.collect();
        OffsetDeleteResponseTopic { name: &topic.name, partitions }
    });
    head.reply(&OffsetDeleteResponse {
        error_code: answer.error.code(),
        topics: topics.collect(),
        ..Default::default()
    })
}
