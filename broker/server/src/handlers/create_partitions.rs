//! CreatePartitions (key 37), versions 0 to 3: decided by the controller on shard 0, answered once
//! every shard knows the partitions (KIP-195).

use std::sync::Arc;

use millrace_io::Io;
use millrace_wire::messages::create_partitions_response::CreatePartitionsTopicResult;
use millrace_wire::messages::{CreatePartitionsRequest, CreatePartitionsResponse};

use crate::controller::Decision;
use crate::request::{Outcome, Request};
use crate::shard::Shard;

pub(super) fn handle<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    if let Err(malformed) = request.decode::<CreatePartitionsRequest<'_>>() {
        return malformed.into();
    }
    if shard.id != 0 {
        return Outcome::Forward(0);
    }
    let request = request.detach();
    shard.change_metadata(move |shard| {
        let image = Arc::clone(&shard.image);
        let body: CreatePartitionsRequest<'_> = request.decode().expect("decoded before");
        let (records, added) =
            shard.with_controller(&image, |controller| controller.create_partitions(&body));
        let done = Box::new(move |shard: &mut Shard<I>| {
            let results: Vec<CreatePartitionsTopicResult<'_>> = added
                .iter()
                .map(|topic| {
                    let refusal = topic.outcome.as_ref().err();
                    CreatePartitionsTopicResult {
                        name: &topic.name,
                        error_code: refusal.map_or(0, |refusal| refusal.error.code()),
                        error_message: refusal.map(|refusal| &*refusal.message),
                        ..Default::default()
                    }
                })
                .collect();
            let body = CreatePartitionsResponse { results: results.into(), ..Default::default() };
            let reply = request.head.reply(&body);
            shard.reply(request.head, reply);
        });
        Decision { records, done }
    });
    Outcome::Wait
}
