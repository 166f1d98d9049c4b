//! DeleteTopics (key 20), versions 0 to 6: decided by the controller on shard 0, answered once no
//! shard serves the topics (KIP-4, KIP-516).

use millrace_io::Io;
use millrace_wire::messages::delete_topics_response::DeletableTopicResult;
use millrace_wire::messages::{DeleteTopicsRequest, DeleteTopicsResponse};

use super::{DECODED, change};
use crate::metadata::controller::{Controller, DeletedTopic};
use crate::request::{Outcome, Reply, Request};
use crate::shard::Shard;

pub(super) fn handle<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    if let Err(malformed) = request.decode::<DeleteTopicsRequest<'_>>() {
        return malformed.into();
    }
    let decide = |controller: &mut Controller<'_>, request: &Request| {
        controller.delete_topics(&request.decode().expect(DECODED), request.head.version)
    };
    change(shard, request, decide, answer)
}

fn answer<I: Io>(_: &Shard<I>, request: &Request, deleted: &[DeletedTopic]) -> Reply<I> {
    let responses = deleted.iter().map(|topic| {
        let refusal = topic.outcome.as_ref().err();
        DeletableTopicResult {
            name: topic.name.as_deref(),
            topic_id: topic.id,
            error_code: refusal.map_or(0, |refusal| refusal.error.code()),
            error_message: refusal.map(|refusal| &*refusal.message),
            ..Default::default()
        }
    });
    let responses = responses.collect();
    request.head.reply(&DeleteTopicsResponse { responses, ..Default::default() })
}
