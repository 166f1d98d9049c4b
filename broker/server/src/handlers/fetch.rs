//! Fetch (key 1), versions 0 to 18; batches are turned into message sets for 0 to 3. Sessions are
//! not kept: id 0 is answered, which is always legal (KIP-227), and clients then send full
//! requests.
//!
//! Waits until `min_bytes` are there, a partition has an error, or `max_wait_ms` is over. See
//! `crate::fetch` for the engine.

use millrace_io::Io;
use millrace_wire::messages::fetch_request::FetchTopic as AskedTopic;
use millrace_wire::messages::{FetchRequest, FetchResponse};
use millrace_wire::{ErrorCode, Uuid};

use crate::config::StoredCodec;
use crate::fetch::{FetchPart, FetchTopic};
use crate::metadata::Topic;
use crate::partitions::PartitionId;
use crate::request::{Outcome, Request};
use crate::shard::Shard;

pub(super) fn handle<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    let body: FetchRequest<'_> = match request.decode() {
        Ok(body) => body,
        Err(malformed) => return malformed.into(),
    };
    if let Some(error) = session_error(&body) {
        let answer = FetchResponse { error_code: error.code(), ..Default::default() };
        return Outcome::Reply(request.head.reply(&answer));
    }
    let mut topics = Vec::with_capacity(body.topics.len());
    let mut parts = Vec::new();
    for (index, asked) in body.topics.iter().enumerate() {
        let topic = find(shard, request.head.version, &asked);
        let unknown = if request.head.version >= 13 {
            ErrorCode::UNKNOWN_TOPIC_ID
        } else {
            ErrorCode::UNKNOWN_TOPIC_OR_PARTITION
        };
        topics.push(FetchTopic { name: asked.topic.to_owned(), id: asked.topic_id });
        for part in asked.partitions.iter() {
            let error = match topic {
                None => Some(unknown),
                // Before version 10 a client need not know zstd (KIP-110).
                Some(topic) if request.head.version < 10 && is_zstd(shard, topic) => {
                    Some(ErrorCode::UNSUPPORTED_COMPRESSION_TYPE)
                }
                Some(topic) => topic
                    .partition(part.partition)
                    .is_none()
                    .then_some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
            };
            let topic_id = topic.map_or(Uuid::ZERO, |topic| topic.id);
            parts.push(FetchPart {
                topic: index,
                partition: part.partition,
                id: PartitionId { topic_id, partition: part.partition },
                offset: part.fetch_offset,
                bytes_max: usize::try_from(part.partition_max_bytes).unwrap_or(0),
                current_leader_epoch: part.current_leader_epoch,
                last_fetched_epoch: part.last_fetched_epoch,
                error,
            });
        }
    }
    shard.start_fetch(request.head, &body, topics, parts);
    Outcome::Wait
}

/// Epoch -1 and 0 ask for a full fetch; anything else continues a session, and none exists.
fn session_error(body: &FetchRequest<'_>) -> Option<ErrorCode> {
    match (body.session_id, body.session_epoch) {
        (_, -1 | 0) => None,
        (0, _) => Some(ErrorCode::INVALID_FETCH_SESSION_EPOCH),
        _ => Some(ErrorCode::FETCH_SESSION_ID_NOT_FOUND),
    }
}

fn is_zstd<I: Io>(shard: &Shard<I>, topic: &Topic) -> bool {
    shard.topic_configs[&topic.id].compression == StoredCodec::Zstd
}

fn find<'a, I: Io>(shard: &'a Shard<I>, version: i16, asked: &AskedTopic<'_>) -> Option<&'a Topic> {
    if version >= 13 {
        shard.image.topic_by_id(asked.topic_id).map(|topic| &**topic)
    } else {
        shard.image.topic(asked.topic).map(|topic| &**topic)
    }
}
