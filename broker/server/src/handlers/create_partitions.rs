//! CreatePartitions (key 37), versions 0 to 3: decided by the controller on shard 0, answered once
//! every shard knows the partitions (KIP-195).

use millrace_io::Io;
use millrace_wire::messages::create_partitions_response::CreatePartitionsTopicResult;
use millrace_wire::messages::{CreatePartitionsRequest, CreatePartitionsResponse};

use super::{DECODED, change};
use crate::metadata::controller::{AddedPartitions, Controller};
use crate::request::{Outcome, Reply, Request};
use crate::shard::Shard;

pub(super) fn handle<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    if let Err(malformed) = request.decode::<CreatePartitionsRequest<'_>>() {
        return malformed.into();
    }
    let decide = |controller: &mut Controller<'_>, request: &Request| {
        controller.create_partitions(&request.decode().expect(DECODED))
    };
    change(shard, request, decide, answer)
}

fn answer<I: Io>(_: &Shard<I>, request: &Request, added: &[AddedPartitions]) -> Reply<I> {
    let results = added.iter().map(|topic| {
        let refusal = topic.outcome.as_ref().err();
        CreatePartitionsTopicResult {
            name: &topic.name,
            error_code: refusal.map_or(0, |refusal| refusal.error.code()),
            error_message: refusal.map(|refusal| &*refusal.message),
            ..Default::default()
        }
    });
    let results = results.collect();
    request.head.reply(&CreatePartitionsResponse { results, ..Default::default() })
}
