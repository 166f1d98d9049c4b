//! JoinGroup (key 11, versions 0 to 9), SyncGroup (14, 0 to 5), Heartbeat (12, 0 to 4), LeaveGroup
//! (13, 0 to 5): classic consumer groups. The rules are in the coordinator crate.

use millrace_coordinator::{
    JoinAnswer, JoinRequest, LeavingMember, MemberRequest, SyncAnswer, SyncRequest,
};
use millrace_io::Io;
use millrace_wire::ErrorCode;
use millrace_wire::messages::join_group_response::JoinGroupResponseMember;
use millrace_wire::messages::leave_group_response::MemberResponse;
use millrace_wire::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, SyncGroupRequest, SyncGroupResponse,
};

use crate::groups::Elsewhere;
use crate::request::{Outcome, Reply, Request, RequestHead};
use crate::shard::Shard;

pub(super) fn join<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    let body: JoinGroupRequest<'_> = match request.decode() {
        Ok(body) => body,
        Err(malformed) => return malformed.into(),
    };
    if let Err(elsewhere) = shard.coordinate(body.group_id) {
        return elsewhere.outcome(|error| {
            request.head.reply(&JoinGroupResponse {
                error_code: error.code(),
                protocol_name: Some(""),
                member_id: body.member_id,
                ..Default::default()
            })
        });
    }
    let protocols: Vec<(&str, &[u8])> =
        body.protocols.iter().map(|protocol| (protocol.name, protocol.metadata)).collect();
    let random = u128::from(shard.io.random_u64()) << 64 | u128::from(shard.io.random_u64());
    let client_host = format!("/{}", request.head.peer.ip().to_canonical());
    let has_rebalance_timeout = request.head.version >= 1;
    let join = JoinRequest {
        version: request.head.version,
        group_id: body.group_id,
        member_id: body.member_id,
        instance_id: body.group_instance_id,
        client_id: request.client_id(),
        client_host: &client_host,
        protocol_type: body.protocol_type,
        protocols: &protocols,
        session_timeout_ms: body.session_timeout_ms,
        rebalance_timeout_ms: if has_rebalance_timeout {
            body.rebalance_timeout_ms
        } else {
            body.session_timeout_ms
        },
        random,
    };
    shard.feed_groups(request, |groups, now, waiter| groups.join(now, waiter, &join))
}

pub(super) fn join_answer<I: Io>(head: &RequestHead, answer: &JoinAnswer) -> Reply<I> {
    let members: Vec<JoinGroupResponseMember<'_>> = answer
        .members
        .iter()
        .map(|member| JoinGroupResponseMember {
            member_id: &member.member_id,
            group_instance_id: member.instance_id.as_deref(),
            metadata: &member.metadata,
            ..Default::default()
        })
        .collect();
    // Null only exists from version 7 on.
    let protocol_name = match answer.protocol_name.as_deref() {
        None if head.version < 7 => Some(""),
        name => name,
    };
    head.reply(&JoinGroupResponse {
        error_code: answer.error.code(),
        generation_id: answer.generation,
        protocol_type: answer.protocol_type.as_deref(),
        protocol_name,
        leader: &answer.leader,
        skip_assignment: answer.skip_assignment,
        member_id: &answer.member_id,
        members: members.into(),
        ..Default::default()
    })
}

pub(super) fn sync<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    let body: SyncGroupRequest<'_> = match request.decode() {
        Ok(body) => body,
        Err(malformed) => return malformed.into(),
    };
    let is_unnamed = body.protocol_type.is_none() || body.protocol_name.is_none();
    let coordinated = match request.head.version {
        5.. if is_unnamed => Err(Elsewhere::Error(ErrorCode::INCONSISTENT_GROUP_PROTOCOL)),
        _ => shard.coordinate(body.group_id),
    };
    if let Err(elsewhere) = coordinated {
        return elsewhere.outcome(|error| {
            let error_code = error.code();
            request.head.reply(&SyncGroupResponse { error_code, ..Default::default() })
        });
    }
    let assignments: Vec<(&str, &[u8])> =
        body.assignments.iter().map(|given| (given.member_id, given.assignment)).collect();
    let sync = SyncRequest {
        member: MemberRequest {
            group_id: body.group_id,
            member_id: body.member_id,
            instance_id: body.group_instance_id,
            generation: body.generation_id,
        },
        protocol_type: body.protocol_type,
        protocol_name: body.protocol_name,
        assignments: &assignments,
    };
    shard.feed_groups(request, |groups, now, waiter| groups.sync(now, waiter, &sync))
}

pub(super) fn sync_answer<I: Io>(head: &RequestHead, answer: &SyncAnswer) -> Reply<I> {
    head.reply(&SyncGroupResponse {
        error_code: answer.error.code(),
        protocol_type: answer.protocol_type.as_deref(),
        protocol_name: answer.protocol_name.as_deref(),
        assignment: &answer.assignment,
        ..Default::default()
    })
}

pub(super) fn heartbeat<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    let body: HeartbeatRequest<'_> = match request.decode() {
        Ok(body) => body,
        Err(malformed) => return malformed.into(),
    };
    let answer = |error: ErrorCode| {
        request.head.reply(&HeartbeatResponse { error_code: error.code(), ..Default::default() })
    };
    if let Err(elsewhere) = shard.coordinate(body.group_id) {
        return elsewhere.outcome(answer);
    }
    let now = shard.group_now();
    let member = MemberRequest {
        group_id: body.group_id,
        member_id: body.member_id,
        instance_id: body.group_instance_id,
        generation: body.generation_id,
    };
    let error = shard.groups.groups.heartbeat(now, &member);
    shard.run_effects(Vec::new());
    Outcome::Reply(answer(error))
}

pub(super) fn leave<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    let body: LeaveGroupRequest<'_> = match request.decode() {
        Ok(body) => body,
        Err(malformed) => return malformed.into(),
    };
    if let Err(elsewhere) = shard.coordinate(body.group_id) {
        return elsewhere.outcome(|error| {
            let error_code = error.code();
            request.head.reply(&LeaveGroupResponse { error_code, ..Default::default() })
        });
    }
    let listed = request.head.version >= 3;
    let leaving: Vec<LeavingMember<'_>> = if listed {
        body.members
            .iter()
            .map(|member| LeavingMember {
                member_id: member.member_id,
                instance_id: member.group_instance_id,
            })
            .collect()
    } else {
        vec![LeavingMember { member_id: body.member_id, instance_id: None }]
    };
    let now = shard.group_now();
    let (answer, effects) = shard.groups.groups.leave(now, body.group_id, &leaving);
    let only = answer.members.first().map_or(ErrorCode::NONE, |member| member.error);
    let error = if answer.error == ErrorCode::NONE && !listed { only } else { answer.error };
    let members: Vec<MemberResponse<'_>> = answer
        .members
        .iter()
        .filter(|_| listed)
        .map(|member| MemberResponse {
            member_id: &member.member_id,
            group_instance_id: member.instance_id.as_deref(),
            error_code: member.error.code(),
            ..Default::default()
        })
        .collect();
    let reply = request.head.reply(&LeaveGroupResponse {
        error_code: error.code(),
        members: members.into(),
        ..Default::default()
    });
    shard.run_effects(effects);
    Outcome::Reply(reply)
}
