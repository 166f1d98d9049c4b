//! IncrementalAlterConfigs (key 44, versions 0 and 1; KIP-339) and AlterConfigs (33, versions 0 to
//! 2; KIP-133): decided by the controller on shard 0, answered once every shard has the settings.

use millrace_io::Io;
use millrace_wire::messages::{
    AlterConfigsRequest, AlterConfigsResponse, IncrementalAlterConfigsRequest,
    IncrementalAlterConfigsResponse, alter_configs_response, incremental_alter_configs_response,
};

use super::{DECODED, change};
use crate::metadata::controller::{AlteredConfig, Controller};
use crate::request::{Outcome, Reply, Request};
use crate::shard::Shard;

pub(super) fn incremental<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    if let Err(malformed) = request.decode::<IncrementalAlterConfigsRequest<'_>>() {
        return malformed.into();
    }
    let decide = |controller: &mut Controller<'_>, request: &Request| {
        controller.incremental_alter_configs(&request.decode().expect(DECODED))
    };
    change(shard, request, decide, incremental_answer)
}

pub(super) fn replace<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    if let Err(malformed) = request.decode::<AlterConfigsRequest<'_>>() {
        return malformed.into();
    }
    let decide = |controller: &mut Controller<'_>, request: &Request| {
        controller.alter_configs(&request.decode().expect(DECODED))
    };
    change(shard, request, decide, replace_answer)
}

fn incremental_answer<I: Io>(
    _: &Shard<I>,
    request: &Request,
    altered: &[AlteredConfig],
) -> Reply<I> {
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
    request.head.reply(&IncrementalAlterConfigsResponse { responses, ..Default::default() })
}

fn replace_answer<I: Io>(_: &Shard<I>, request: &Request, altered: &[AlteredConfig]) -> Reply<I> {
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
    request
        .head
        .reply(&AlterConfigsResponse { responses: responses.collect(), ..Default::default() })
}
