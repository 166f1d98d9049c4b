//! DescribeProducers (key 61), version 0 (KIP-664): the idempotent producers a partition knows.
//! None has a transaction: those are not built.

use millrace_io::Io;
use millrace_log::ProducerState;
use millrace_wire::ErrorCode;
use millrace_wire::messages::describe_producers_response::{
    self, PartitionResponse, TopicResponse,
};
use millrace_wire::messages::{DescribeProducersRequest, DescribeProducersResponse};

use crate::metadata::controller;
use crate::partitions::PartitionId;
use crate::request::{Outcome, Request};
use crate::shard::Shard;

type Known = Result<Vec<ProducerState>, ErrorCode>;

pub(super) fn handle<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    let body: DescribeProducersRequest<'_> = match request.decode() {
        Ok(body) => body,
        Err(malformed) => return malformed.into(),
    };
    let mut asked = Vec::new();
    let mut known: Vec<Known> = Vec::new();
    for topic in body.topics.iter() {
        let found = shard.image.topic(topic.name);
        for partition in topic.partition_indexes.iter() {
            if let Some(found) = found
                && found.partition(partition).is_some()
            {
                asked.push((known.len(), PartitionId { topic_id: found.id, partition }));
            }
            known.push(Err(match controller::check_name(topic.name) {
                Ok(()) => ErrorCode::UNKNOWN_TOPIC_OR_PARTITION,
                Err(_) => ErrorCode::INVALID_TOPIC_EXCEPTION,
            }));
        }
    }
    let request = request.detach();
    shard.gather(
        asked,
        |(_, id)| *id,
        |shard, (place, id)| (place, producers(shard, id)),
        move |shard, answers| {
            for (place, answer) in answers {
                known[place] = answer;
            }
            let reply = request.head.reply(&response(&request, &known));
            shard.reply(request.head, reply);
        },
    );
    Outcome::Wait
}

fn producers<I: Io>(shard: &mut Shard<I>, id: PartitionId) -> Known {
    let index = shard.open_partition(id)?;
    let partition = shard.partitions.get_mut(index).expect("opened just now");
    Ok(partition.log.as_ref().expect("opened just now").producers().collect())
}

fn response<'a>(request: &'a Request, known: &[Known]) -> DescribeProducersResponse<'a> {
    let body: DescribeProducersRequest<'a> = request.decode().expect("decoded before");
    let mut known = known.iter();
    let topics = body.topics.iter().map(|topic| {
        let partitions = topic.partition_indexes.iter().zip(&mut known).map(|(index, known)| {
            let active =
                known.iter().flatten().map(|producer| describe_producers_response::ProducerState {
                    producer_id: producer.producer_id,
                    producer_epoch: producer.epoch.into(),
                    last_sequence: producer.last_sequence,
                    last_timestamp: producer.last_timestamp,
                    coordinator_epoch: -1,
                    ..Default::default()
                });
            PartitionResponse {
                partition_index: index,
                error_code: known.as_ref().err().map_or(0, |error| error.code()),
                active_producers: active.collect(),
                ..Default::default()
            }
        });
        TopicResponse { name: topic.name, partitions: partitions.collect(), ..Default::default() }
    });
    DescribeProducersResponse { topics: topics.collect(), ..Default::default() }
}
