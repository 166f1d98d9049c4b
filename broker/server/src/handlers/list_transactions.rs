//! ListTransactions (key 66), versions 0 to 2 (KIP-664): there are none, transactions are not
//! built.

use millrace_io::Io;
use millrace_wire::messages::{ListTransactionsRequest, ListTransactionsResponse};

use crate::request::{Outcome, Request};
use crate::shard::Shard;

pub(super) fn handle<I: Io>(_: &mut Shard<I>, request: &Request) -> Outcome<I> {
    match request.decode::<ListTransactionsRequest<'_>>() {
        Ok(_) => Outcome::Reply(request.head.reply(&ListTransactionsResponse::default())),
        Err(malformed) => malformed.into(),
    }
}
