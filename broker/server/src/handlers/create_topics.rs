//! CreateTopics (key 19), versions 0 to 7: decided by the controller on shard 0, answered once
//! every shard knows the topics (KIP-4, KIP-464, KIP-525, KIP-516).

use millrace_io::Io;
use millrace_wire::messages::create_topics_response::{
    CreatableTopicConfigs, CreatableTopicResult,
};
use millrace_wire::messages::{CreateTopicsRequest, CreateTopicsResponse};

use super::{DECODED, change};
use crate::metadata::controller::{Controller, CreatedTopic};
use crate::request::{Outcome, Reply, Request};
use crate::shard::Shard;

pub(super) fn handle<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    if let Err(malformed) = request.decode::<CreateTopicsRequest<'_>>() {
        return malformed.into();
    }
    let decide = |controller: &mut Controller<'_>, request: &Request| {
        controller.create_topics(&request.decode().expect(DECODED))
    };
    change(shard, request, decide, answer)
}

fn answer<I: Io>(shard: &Shard<I>, request: &Request, created: &[CreatedTopic]) -> Reply<I> {
    let config = &shard.config;
    let described: Vec<_> = created
        .iter()
        .map(|topic| match &topic.outcome {
            Ok(made) => config.describe_topic(&made.configs),
            Err(_) => Vec::new(),
        })
        .collect();
    let topics: Vec<CreatableTopicResult<'_>> = created
        .iter()
        .zip(&described)
        .map(|(topic, described)| match &topic.outcome {
            Ok(made) => CreatableTopicResult {
                name: &topic.name,
                topic_id: made.id,
                num_partitions: made.partitions,
                replication_factor: made.replication_factor,
                configs: Some(
                    described
                        .iter()
                        .map(|entry| CreatableTopicConfigs {
                            name: entry.key.name,
                            value: entry.value.as_deref(),
                            read_only: entry.is_read_only,
                            config_source: entry.source as i8,
                            is_sensitive: entry.is_sensitive,
                            ..Default::default()
                        })
                        .collect(),
                ),
                ..Default::default()
            },
            Err(refusal) => CreatableTopicResult {
                name: &topic.name,
                error_code: refusal.error.code(),
                error_message: Some(&refusal.message),
                configs: Some(Vec::new().into()),
                ..Default::default()
            },
        })
        .collect();
    request.head.reply(&CreateTopicsResponse { topics: topics.into(), ..Default::default() })
}
