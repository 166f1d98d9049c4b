//! Produce (key 0), versions 0 to 13; 0 to 2 carry message sets, which are stored as batches.
//!
//! acks=0 is never answered; an error then closes the connection. acks=1 is answered when the write
//! has completed, acks=-1 when a flush covers it (or the write, with `millrace.acks.all=write`).
//! The reply is encoded at once, with the offsets already assigned; partitions that still wait for
//! the disk or for another shard are entered later at their place.
//!
//! Sources: KIP-98 (idempotence), KIP-467 (record errors), KIP-516 (topic ids), Kafka's
//! `ReplicaManager.appendRecords`; what may be stored is said in `crate::admission`.

use std::sync::Arc;

use bytes::Bytes;
use millrace_io::Io;
use millrace_wire::messages::ProduceRequest;
use millrace_wire::messages::produce_request::{PartitionProduceData, TopicProduceData};
use millrace_wire::messages::produce_response::{
    BatchIndexAndErrorMessage, PartitionProduceResponse,
};
use millrace_wire::{ErrorCode, Wire as _, Writer};

use crate::admission::{Refusal, Rules};
use crate::connection::Slot;
use crate::metadata::Topic;
use crate::partitions::{AppendAnswer, Durability, PartitionId, Then, Ticket};
use crate::produce::{AppendTask, Appending, Incoming};
use crate::request::{Outcome, Request, finish_reply};
use crate::shard::{Message, Shard};

/// What one request has come to while its partitions are gone through.
struct Progress {
    writer: Writer,
    outstanding: u32,
    failed: Option<ErrorCode>,
    durability: Option<Durability>,
}

pub(super) fn handle<I: Io>(shard: &mut Shard<I>, request: &Request) -> Outcome<I> {
    let body: ProduceRequest<'_> = match request.decode() {
        Ok(body) => body,
        Err(malformed) => return malformed.into(),
    };
    let version = request.head.version;
    let durability = match body.acks {
        0 => None,
        1 => Some(Durability::Written),
        _ => Some(Durability::Flushed),
    };
    let acks_known = matches!(body.acks, -1..=1);
    let mut progress =
        Progress { writer: request.head.start_reply(), outstanding: 0, failed: None, durability };
    progress.writer.set_version(version, version >= 9);
    progress.writer.array_length(body.topic_data.len()).expect("as many as were decoded");
    for topic in body.topic_data.iter() {
        put_topic_name(&mut progress.writer, version, &topic);
        let parts = topic.partition_data.len();
        progress.writer.array_length(parts).expect("as many as were decoded");
        let known = find_topic(shard, version, &topic);
        for part in topic.partition_data.iter() {
            let appending = match &known {
                Err(error) => Err((*error).into()),
                // Those who keep groups write there, nobody else.
                Ok(known) if known.is_internal() => Err(ErrorCode::INVALID_TOPIC_EXCEPTION.into()),
                Ok(_) if !acks_known => Err(ErrorCode::INVALID_REQUIRED_ACKS.into()),
                Ok(known) => append_part(shard, request, known, &part, &progress),
            };
            progress.put_part(part.index, appending);
        }
        if version >= 9 {
            progress.writer.u8(0);
        }
    }
    if version >= 1 {
        progress.writer.i32(0);
    }
    if version >= 9 {
        progress.writer.u8(0);
    }
    progress.finish(shard, request, body.acks)
}

impl Progress {
    /// Writes one partition of the response.
    fn put_part(&mut self, index: i32, appending: Result<Appending, Refusal>) {
        let is_waiting = matches!(appending, Ok(Appending::Waiting(_)));
        let (answer, refusal) = match appending {
            Ok(Appending::Done(answer)) => (answer, None),
            // What it will be is not known yet: whoever reports it looks for errors.
            Ok(Appending::Waiting(answer)) => {
                self.outstanding += 1;
                (answer, None)
            }
            Err(refusal) => (AppendAnswer::failed(refusal.error), Some(refusal)),
        };
        if answer.error != ErrorCode::NONE && !is_waiting {
            self.failed = Some(answer.error);
        }
        let faults = refusal.iter().flat_map(|refusal| &refusal.records);
        let record_errors = faults.map(|(index, fault)| BatchIndexAndErrorMessage {
            batch_index: *index,
            batch_index_error_message: Some(fault),
            ..Default::default()
        });
        PartitionProduceResponse {
            index,
            error_code: answer.error.code(),
            base_offset: answer.base_offset,
            log_append_time_ms: answer.log_append_time_ms,
            log_start_offset: answer.log_start,
            record_errors: record_errors.collect(),
            error_message: refusal.as_ref().and_then(|refusal| refusal.message),
            ..Default::default()
        }
        .write(&mut self.writer)
        .expect("every field is ignorable");
    }

    /// Position that the error code of the next partition will have in the reply.
    fn error_position(&self) -> usize {
        self.writer.bytes().len() + 4
    }

    fn finish<I: Io>(self, shard: &mut Shard<I>, request: &Request, acks: i16) -> Outcome<I> {
        let (outstanding, version) = (self.outstanding, request.head.version);
        if acks == 0 {
            if let Some(error) = self.failed {
                return Outcome::Close(format!("acks=0 and an append failed: {}", error.name()));
            }
            if outstanding == 0 {
                return Outcome::NoReply;
            }
            shard.set_slot(request.head.id, Slot::Unacknowledged { outstanding });
            return Outcome::Wait;
        }
        let reply = finish_reply(self.writer, Vec::new());
        if outstanding == 0 {
            return Outcome::Reply(reply);
        }
        shard.set_slot(request.head.id, Slot::Produce { reply, outstanding, version });
        Outcome::Wait
    }
}

fn put_topic_name(writer: &mut Writer, version: i16, topic: &TopicProduceData<'_>) {
    let written =
        if version >= 13 { topic.topic_id.write(writer) } else { topic.name.write(writer) };
    written.expect("a name that was decoded fits");
}

fn find_topic<I: Io>(
    shard: &Shard<I>,
    version: i16,
    topic: &TopicProduceData<'_>,
) -> Result<Arc<Topic>, ErrorCode> {
    if version >= 13 {
        shard.image.topic_by_id(topic.topic_id).cloned().ok_or(ErrorCode::UNKNOWN_TOPIC_ID)
    } else {
        shard.image.topic(topic.name).cloned().ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)
    }
}

/// Validates the records of one partition and appends them here or has them appended by the owner.
fn append_part<I: Io>(
    shard: &mut Shard<I>,
    request: &Request,
    topic: &Topic,
    part: &PartitionProduceData<'_>,
    progress: &Progress,
) -> Result<Appending, Refusal> {
    if topic.partition(part.index).is_none() {
        return Err(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION.into());
    }
    if let Some(start) = shard.landed.take() {
        let sent = Sent::Landed(start);
        return Ok(append_or_forward(shard, request, topic, part.index, progress, sent));
    }
    let records = part.records.as_ref().map_or(&[][..], |records| records.bytes());
    let Shard { topic_configs, io, scratch, .. } = shard;
    let (version, now_ms) = (request.head.version, io.wall_clock_ms());
    let rules = Rules { topic: &topic_configs[&topic.id], now_ms, version };
    let sent = rules.admit(records, scratch)?.map_or(Sent::Received(records), Sent::Made);
    Ok(append_or_forward(shard, request, topic, part.index, progress, sent))
}

/// Records of a request: part of its frame, or made from it, or landed: then this is their start.
enum Sent<'a> {
    Received(&'a [u8]),
    Made(Vec<u8>),
    Landed(Bytes),
}

/// Appends here, or has the owning shard append.
fn append_or_forward<I: Io>(
    shard: &mut Shard<I>,
    request: &Request,
    topic: &Topic,
    partition: i32,
    progress: &Progress,
    sent: Sent<'_>,
) -> Appending {
    let id = PartitionId { topic_id: topic.id, partition };
    let ticket = Ticket { request: request.head.id, position: progress.error_position() };
    let owner = id.owner(shard.mailbox.shards());
    if owner == shard.id {
        let then = |answer| Then::Answer(ticket, answer);
        let batch = match &sent {
            Sent::Received(records) => Incoming::Whole(records),
            Sent::Made(records) => Incoming::Whole(records),
            Sent::Landed(start) => Incoming::Landed(start),
        };
        return shard.append(id, batch, progress.durability, then);
    }
    let task = AppendTask {
        partition: id,
        records: match sent {
            Sent::Received(records) => request.share(records),
            Sent::Made(records) => Bytes::from(records),
            Sent::Landed(_) => unreachable!("records land on the shard of their partition"),
        },
        durability: progress.durability,
        ticket,
    };
    shard.mailbox.post(owner, Message::Append(task));
    Appending::Waiting(AppendAnswer::failed(ErrorCode::UNKNOWN_SERVER_ERROR))
}
