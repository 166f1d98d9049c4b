//! FindCoordinator (key 10), versions 0 to 6 (KIP-699): this broker coordinates every group.
//!
//! The first one who asks for a group's coordinator has the offsets topic made, and waits for it.
//! Transactional ids and share groups get COORDINATOR_NOT_AVAILABLE: neither is built.

use millrace_io::Io;
use millrace_wire::ErrorCode;
use millrace_wire::messages::find_coordinator_response::Coordinator;
use millrace_wire::messages::{FindCoordinatorRequest, FindCoordinatorResponse};

use super::{DECODED, create_first};
use crate::groups::OFFSETS_TOPIC;
use crate::request::{Outcome, Reply, Request};
use crate::shard::Shard;

const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
const SHARE: i8 = 2;

pub(super) fn handle<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    let asked: FindCoordinatorRequest<'_> = match request.decode() {
        Ok(asked) => asked,
        Err(malformed) => return malformed.into(),
    };
    if asked.key_type != GROUP || shard.image.topic(OFFSETS_TOPIC).is_some() {
        return Outcome::Reply(answer(shard, request));
    }
    create_first(shard, request, vec![OFFSETS_TOPIC.to_owned()], answer)
}

fn answer<I: Io>(shard: &Shard<I>, request: &Request) -> Reply<I> {
    let asked: FindCoordinatorRequest<'_> = request.decode().expect(DECODED);
    let has_groups = shard.image.topic(OFFSETS_TOPIC).is_some();
    let endpoint = shard.shared.endpoint(request.head.listener);
    let error = check(asked.key_type, has_groups);
    let (node_id, host, port) = match error {
        ErrorCode::NONE => (shard.shared.node_id, &*endpoint.host, i32::from(endpoint.port)),
        _ => (-1, "", -1),
    };
    let message = |error: ErrorCode| (error != ErrorCode::NONE).then(|| error.name());
    let body = if request.head.version >= 4 {
        let coordinators: Vec<Coordinator<'_>> = asked
            .coordinator_keys
            .iter()
            .map(|key| Coordinator {
                key,
                node_id,
                host,
                port,
                error_code: error.code(),
                error_message: message(error),
                ..Default::default()
            })
            .collect();
        FindCoordinatorResponse { coordinators: coordinators.into(), ..Default::default() }
    } else {
        FindCoordinatorResponse {
            error_code: error.code(),
            error_message: message(error),
            node_id,
            host,
            port,
            ..Default::default()
        }
    };
    request.head.reply(&body)
}

/// The empty group id has a coordinator too, which then refuses it.
fn check(key_type: i8, has_groups: bool) -> ErrorCode {
    match key_type {
        GROUP if has_groups => ErrorCode::NONE,
        GROUP | TRANSACTION | SHARE => ErrorCode::COORDINATOR_NOT_AVAILABLE,
        _ => ErrorCode::INVALID_REQUEST,
    }
}
