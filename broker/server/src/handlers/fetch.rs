//! Fetch (key 1), versions 0 to 18; batches are turned into message sets for 0 to 3. Sessions are
//! kept by the shard that their id names: requests that go on with one are served there.
//!
//! Waits until `min_bytes` are there, a partition has an error, or `max_wait_ms` is over. See
//! `crate::fetch` for the engine.

use std::sync::Arc;

use millrace_io::Io;
use millrace_wire::messages::fetch_request::FetchPartition;
use millrace_wire::messages::{FetchRequest, FetchResponse};
use millrace_wire::{ErrorCode, Uuid};

use crate::config::StoredCodec;
use crate::fetch::{FetchPart, FetchTopic, PartToRead};
use crate::fetch_session::{self, Asked, PartKey};
use crate::metadata::Topic;
use crate::partitions::PartitionId;
use crate::request::{Outcome, Request};
use crate::shard::Shard;

pub(super) fn handle<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    let body: FetchRequest<'_> = match request.decode() {
        Ok(body) => body,
        Err(malformed) => return malformed.into(),
    };
    let version = request.head.version;
    let asked =
        Asked { id: body.session_id, epoch: body.session_epoch, by_topic_id: version >= 13 };
    let owner = fetch_session::owner(asked.id, shard.mailbox.shards());
    if asked.id != 0 && owner != shard.id {
        if !asked.is_full() {
            return Outcome::Forward(owner);
        }
        shard.run_on(owner, move |shard| shard.sessions.close(asked.id));
    }
    let mut wanted = Vec::new();
    for topic in body.topics.iter() {
        let name = Arc::new(FetchTopic { name: topic.topic.to_owned(), id: topic.topic_id });
        wanted.extend(topic.partitions.iter().map(|part| wanted_part(&name, &part)));
    }
    let mut forgotten: Vec<PartKey> = Vec::new();
    for topic in body.forgotten_topics_data.iter() {
        let name = Arc::new(FetchTopic { name: topic.topic.to_owned(), id: topic.topic_id });
        forgotten.extend(topic.partitions.iter().map(|part| (Arc::clone(&name), part)));
    }
    match shard.sessions.begin(shard.now, asked, wanted, &forgotten) {
        Err(error) => {
            let answer = FetchResponse { error_code: error.code(), ..Default::default() };
            Outcome::Reply(request.head.reply(&answer))
        }
        Ok((session, mut parts)) => {
            resolve(shard, version, &mut parts);
            shard.start_fetch(request.head, &body, session, parts);
            Outcome::Wait
        }
    }
}

fn wanted_part(topic: &Arc<FetchTopic>, part: &FetchPartition) -> FetchPart {
    let read = PartToRead {
        id: PartitionId { topic_id: Uuid::ZERO, partition: part.partition },
        offset: part.fetch_offset,
        bytes_max: usize::try_from(part.partition_max_bytes).unwrap_or(0),
        current_leader_epoch: part.current_leader_epoch,
        last_fetched_epoch: part.last_fetched_epoch,
    };
    FetchPart { topic: Arc::clone(topic), read, error: None }
}

/// Finds each partition in the present metadata, which may have changed within a session.
fn resolve<I: Io>(shard: &Shard<I>, version: i16, parts: &mut [FetchPart]) {
    for of_topic in parts.chunk_by_mut(|left, right| Arc::ptr_eq(&left.topic, &right.topic)) {
        let (found, unknown) = if version >= 13 {
            (shard.image.topic_by_id(of_topic[0].topic.id), ErrorCode::UNKNOWN_TOPIC_ID)
        } else {
            let found = shard.image.topic(&of_topic[0].topic.name);
            (found, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
        };
        for part in of_topic {
            part.read.id.topic_id = found.map_or(Uuid::ZERO, |topic| topic.id);
            part.error = match found {
                None => Some(unknown),
                // As Kafka 4: whoever reads batches gets zstd, though KIP-110 asks for version 10.
                Some(topic) if version < 4 && is_zstd(shard, topic) => {
                    Some(ErrorCode::UNSUPPORTED_COMPRESSION_TYPE)
                }
                Some(topic) => topic
                    .partition(part.read.id.partition)
                    .is_none()
                    .then_some(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION),
            };
        }
    }
}

fn is_zstd<I: Io>(shard: &Shard<I>, topic: &Topic) -> bool {
    shard.topic_configs[&topic.id].compression == StoredCodec::Zstd
}
