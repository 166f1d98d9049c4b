//! FindCoordinator (key 10), versions 0 to 6 (KIP-699): this broker coordinates every group.
//!
//! The first one who asks for a group's coordinator has the offsets topic made, and waits for it.
//! Transactional ids and share groups get COORDINATOR_NOT_AVAILABLE: neither is built.

use std::sync::Arc;

use millrace_io::Io;
use millrace_wire::ErrorCode;
use millrace_wire::messages::find_coordinator_response::Coordinator;
use millrace_wire::messages::{FindCoordinatorRequest, FindCoordinatorResponse};

use crate::controller::Decision;
use crate::groups::OFFSETS_TOPIC;
use crate::request::{Outcome, Request};
use crate::shard::Shard;

const GROUP: i8 = 0;

pub(super) fn handle<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    let asked: FindCoordinatorRequest<'_> = match request.decode() {
        Ok(asked) => asked,
        Err(malformed) => return malformed.into(),
    };
    let is_missing = shard.image.topic(OFFSETS_TOPIC).is_none();
    if asked.key_type != GROUP || !is_missing {
        return answer(shard, request, &asked);
    }
    if shard.id != 0 {
        return Outcome::Forward(0);
    }
    let request = request.detach();
    shard.change_metadata(move |shard| {
        let image = Arc::clone(&shard.image);
        let records = shard
            .with_controller(&image, |controller| controller.auto_create_topics([OFFSETS_TOPIC]));
        let done = Box::new(move |shard: &mut Shard<I>| {
            let asked = request.decode().expect("decoded before");
            if let Outcome::Reply(reply) = answer(shard, &request, &asked) {
                shard.reply(request.head, reply);
            }
        });
        Decision { records, done }
    });
    Outcome::Wait
}

fn answer<I: Io>(
    shard: &Shard<I>,
    request: &Request,
    asked: &FindCoordinatorRequest<'_>,
) -> Outcome<I> {
    let endpoint = shard.shared.endpoint(request.head.listener);
    let find = |key: &str| {
        let error = check(asked.key_type, key);
        if error == ErrorCode::NONE {
            (error, shard.shared.node_id, &*endpoint.host, i32::from(endpoint.port))
        } else {
            (error, -1, "", -1)
        }
    };
    let message = |error: ErrorCode| (error != ErrorCode::NONE).then(|| error.name());
    let body = if request.head.version >= 4 {
        let coordinators: Vec<Coordinator<'_>> = asked
            .coordinator_keys
            .iter()
            .map(|key| {
                let (error, node_id, host, port) = find(key);
                Coordinator {
                    key,
                    node_id,
                    host,
                    port,
                    error_code: error.code(),
                    error_message: message(error),
                    ..Default::default()
                }
            })
            .collect();
        FindCoordinatorResponse { coordinators: coordinators.into(), ..Default::default() }
    } else {
        let (error, node_id, host, port) = find(asked.key);
        FindCoordinatorResponse {
            error_code: error.code(),
            error_message: message(error),
            node_id,
            host,
            port,
            ..Default::default()
        }
    };
    Outcome::Reply(request.head.reply(&body))
}

fn check(key_type: i8, key: &str) -> ErrorCode {
    match key_type {
        GROUP if key.is_empty() => ErrorCode::INVALID_GROUP_ID,
        GROUP => ErrorCode::NONE,
        _ => ErrorCode::COORDINATOR_NOT_AVAILABLE,
    }
}
