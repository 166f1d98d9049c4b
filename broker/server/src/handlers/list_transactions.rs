//! ListTransactions (key 66), versions 0 to 2 (KIP-664): there are none, transactions are not
//! built.

use millrace_io::Io;
use millrace_wire::messages::{ListTransactionsRequest, ListTransactionsResponse};

use crate::request::{Outcome, Request};
use crate::shard::Shard;

/// What Kafka calls the states of a transaction.
const STATES: &[&str] = &[
    "Empty",
    "Ongoing",
    "PrepareCommit",
    "PrepareAbort",
    "CompleteCommit",
    "CompleteAbort",
    "Dead",
    "PrepareEpochFence",
];

pub(super) fn handle<I: Io>(_: &mut Shard<I>, request: &Request) -> Outcome<I> {
    let body: ListTransactionsRequest<'_> = match request.decode() {
        Ok(body) => body,
        Err(malformed) => return malformed.into(),
    };
    let unknown = body.state_filters.iter().filter(|state| !STATES.contains(state));
    let unknown_state_filters = unknown.collect();
    let body = ListTransactionsResponse { unknown_state_filters, ..Default::default() };
    Outcome::Reply(request.head.reply(&body))
}
