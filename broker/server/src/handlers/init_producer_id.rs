//! InitProducerId (key 22), versions 0 to 5: ids for idempotent producers (KIP-98, KIP-360).
//!
//! Every request gets a new id at epoch 0, also one that names an id it has, as Apache Kafka's
//! `TransactionCoordinator.handleInitProducerId` does without a transactional id. With one the
//! answer is UNSUPPORTED_VERSION: transactions are not built.

use millrace_io::Io;
use millrace_wire::ErrorCode;
use millrace_wire::messages::{InitProducerIdRequest, InitProducerIdResponse};

use crate::request::{Outcome, Request};
use crate::shard::Shard;

pub(super) fn handle<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    let asked: InitProducerIdRequest<'_> = match request.decode() {
        Ok(asked) => asked,
        Err(malformed) => return malformed.into(),
    };
    // An id and its epoch are named both or not at all.
    let is_odd = (asked.producer_id == -1) != (asked.producer_epoch == -1);
    let error = match asked.transactional_id {
        Some("") => Some(ErrorCode::INVALID_REQUEST),
        _ if is_odd => Some(ErrorCode::INVALID_REQUEST),
        Some(_) => Some(ErrorCode::UNSUPPORTED_VERSION),
        None => None,
    };
    if let Some(error) = error {
        let body = InitProducerIdResponse {
            error_code: error.code(),
            producer_epoch: -1,
            ..Default::default()
        };
        return Outcome::Reply(request.head.reply(&body));
    }
    let head = request.head;
    if shard.id != 0 {
        return Outcome::Forward(0);
    }
    shard.next_producer_id(move |shard, producer_id| {
        let body = match producer_id {
            Ok(producer_id) => {
                InitProducerIdResponse { producer_id, producer_epoch: 0, ..Default::default() }
            }
            Err(_) => InitProducerIdResponse {
                error_code: ErrorCode::COORDINATOR_NOT_AVAILABLE.code(),
                ..Default::default()
            },
        };
        let reply = head.reply(&body);
        shard.reply(head, reply);
    });
    Outcome::Wait
}
