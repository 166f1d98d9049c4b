//! DeleteTopics (key 20), versions 0 to 6: decided by the controller on shard 0, answered once no
//! shard serves the topics (KIP-4, KIP-516).

use std::sync::Arc;

use millrace_io::Io;
use millrace_wire::messages::delete_topics_response::DeletableTopicResult;
use millrace_wire::messages::{DeleteTopicsRequest, DeleteTopicsResponse};

use crate::controller::Decision;
use crate::request::{Outcome, Request};
use crate::shard::Shard;

pub(super) fn handle<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    if let Err(malformed) = request.decode::<DeleteTopicsRequest<'_>>() {
        return malformed.into();
    }
    if shard.id != 0 {
        return Outcome::Forward(0);
    }
    let request = request.detach();
    shard.change_metadata(move |shard| {
        let image = Arc::clone(&shard.image);
        let body: DeleteTopicsRequest<'_> = request.decode().expect("decoded before");
        let (records, deleted) = shard.with_controller(&image, |controller| {
            controller.delete_topics(&body, request.head.version)
        });
        let done = Box::new(move |shard: &mut Shard<I>| {
            let responses: Vec<DeletableTopicResult<'_>> = deleted
                .iter()
                .map(|topic| {
                    let refusal = topic.outcome.as_ref().err();
                    DeletableTopicResult {
                        name: topic.name.as_deref(),
                        topic_id: topic.id,
                        error_code: refusal.map_or(0, |refusal| refusal.error.code()),
                        error_message: refusal.map(|refusal| &*refusal.message),
                        ..Default::default()
                    }
                })
                .collect();
            let body = DeleteTopicsResponse { responses: responses.into(), ..Default::default() };
            let reply = request.head.reply(&body);
            shard.reply(request.head, reply);
        });
        Decision { records, done }
    });
    Outcome::Wait
}
