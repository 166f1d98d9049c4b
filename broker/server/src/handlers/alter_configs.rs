//! IncrementalAlterConfigs (key 44, versions 0 and 1; KIP-339) and AlterConfigs (33, versions 0 to
//! 2; KIP-133): decided by the controller on shard 0, answered once every shard has the settings.

use std::sync::Arc;

use millrace_io::Io;
use millrace_wire::messages::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, alter_configs_response, incremental_alter_configs_response,
};

use crate::controller::Decision;
use crate::metadata::controller::AlteredConfig;
use crate::request::{Outcome, Reply, Request, RequestHead};
use crate::shard::Shard;

pub(super) fn incremental<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    if let Err(malformed) = request.decode::<IncrementalAlterConfigsRequest<'_>>() {
        return malformed.into();
    }
    if shard.id != 0 {
        return Outcome::Forward(0);
    }
    let request = request.detach();
    shard.change_metadata(move |shard| {
        let image = Arc::clone(&shard.image);
        let body: IncrementalAlterConfigsRequest<'_> = request.decode().expect("decoded before");
        let (records, altered) =
            shard.with_controller(&image, |controller| controller.incremental_alter_configs(&body));
        let done = Box::new(move |shard: &mut Shard<I>| {
            let reply = incremental_answer(&request.head, &altered);
            shard.reply(request.head, reply);
        });
        Decision { records, done }
    });
    Outcome::Wait
}

pub(super) fn replace<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    if let Err(malformed) = request.decode::<AlterConfigsRequest<'_>>() {
        return malformed.into();
    }
    if shard.id != 0 {
        return Outcome::Forward(0);
    }
    let request = request.detach();
    shard.change_metadata(move |shard| {
        let image = Arc::clone(&shard.image);
        let body: AlterConfigsRequest<'_> = request.decode().expect("decoded before");
        let (records, altered) =
            shard.with_controller(&image, |controller| controller.alter_configs(&body));
        let done = Box::new(move |shard: &mut Shard<I>| {
            let reply = replace_answer(&request.head, &altered);
            shard.reply(request.head, reply);
        });
        Decision { records, done }
    });
    Outcome::Wait
}

fn incremental_answer<I: Io>(head: &RequestHead, altered: &[AlteredConfig]) -> Reply<I> {
    let responses = altered.iter().map(|altered| {
        let refusal = altered.outcome.as_ref().err();
        incremental_alter_configs_response::AlterConfigsResourceResponse {
            error_code: refusal.map_or(0, |refusal| refusal.error.code()),
            error_message: refusal.map(|refusal| &*refusal.message),
            resource_type: altered.resource_type,
            resource_name: &altered.resource_name,
            ..Default::default()
        }
    });
    let responses = responses.collect();
    head.reply(&IncrementalAlterConfigsResponse { responses, ..Default::default() })
}

fn replace_answer<I: Io>(head: &RequestHead, altered: &[AlteredConfig]) -> Reply<I> {
    let responses = altered.iter().map(|altered| {
        let refusal = altered.outcome.as_ref().err();
        alter_configs_response::AlterConfigsResourceResponse {
            error_code: refusal.map_or(0, |refusal| refusal.error.code()),
            error_message: refusal.map(|refusal| &*refusal.message),
            resource_type: altered.resource_type,
            resource_name: &altered.resource_name,
            ..Default::default()
        }
    });
    head.reply(&AlterConfigsResponse { responses: responses.collect(), ..Default::default() })
}
