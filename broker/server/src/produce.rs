//! Appends: from a produce request on any shard to the log of the shard that owns the partition,
//! and the answer back once it is as durable as was asked.

use bytes::Bytes;
use millrace_io::Io;
use millrace_log::{AppendAs, ProducerCheck};
use millrace_wire::ErrorCode;

use crate::config::TimestampType;
use crate::connection::Slot;
use crate::partitions::{AppendAnswer, Durability, PartitionId, Then, Ticket};
use crate::request::RequestId;
use crate::shard::{Message, Shard};

/// Records on their way to the shard that owns their partition, validated already.
pub(crate) struct AppendTask {
    pub(crate) partition: PartitionId,
    pub(crate) records: Bytes,
    /// `None` for acks=0.
    pub(crate) durability: Option<Durability>,
    pub(crate) ticket: Ticket,
}

/// What is to be appended: one batch, validated.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Incoming<'a> {
    /// All of it.
    Whole(&'a [u8]),
    /// Its start; the rest was received behind the end of the log, see `crate::landing`.
    Landed(&'a [u8]),
}

/// What an append came to so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Appending {
    /// Answer this now.
    Done(AppendAnswer),
    /// The answer comes for the ticket; this is what it will be if nothing fails.
    Waiting(AppendAnswer),
}

impl<I: Io> Shard<I> {
    /// Appends a batch to a partition of this shard.
    pub(crate) fn append(
        &mut self,
        id: PartitionId,
        batch: Incoming<'_>,
        durability: Option<Durability>,
        then: impl FnOnce(AppendAnswer) -> Then<I>,
    ) -> Appending {
        match self.try_append(id, batch) {
            Err(failed) => Appending::Done(failed),
            Ok((answer, end)) => {
                let Some(durability) = durability else { return Appending::Done(answer) };
                let durability = self.promised(id, end, durability);
                let index = self.partitions.index(id).expect("appended to it just now");
                let partition = self.partitions.get_mut(index).expect("an index from the table");
                let log = partition.log.as_ref().expect("appended to it just now");
                let reached = match durability {
                    Durability::Written => log.written_end(),
                    Durability::Flushed => log.durable_end(),
                };
                if end <= reached {
                    return Appending::Done(answer);
                }
                partition.wait_for(end, durability, then(answer));
                Appending::Waiting(answer)
            }
        }
    }

    /// What an acknowledgement waits for: acks=all may be set to wait for the write only, and
    /// `flush.messages` makes every acknowledgement of an append that reaches it wait for the
    /// flush, as in Kafka, where the append itself flushes.
    fn promised(&mut self, id: PartitionId, end: i64, asked: Durability) -> Durability {
        let index = self.partitions.index(id).expect("appended to it just now");
        let partition = self.partitions.get_mut(index).expect("an index from the table");
        let log = partition.log.as_ref().expect("appended to it just now");
        let due = end - log.durable_end() >= partition.config.flush_messages;
        let promised = match asked {
            _ if due => Durability::Flushed,
            Durability::Written => Durability::Written,
            Durability::Flushed => self.shared.acks_all(&partition.topic),
        };
        if promised == Durability::Flushed {
            self.want_flush(index);
        }
        promised
    }

    /// Lays a batch into the log; returns the answer and the end offset to wait for.
    fn try_append(
        &mut self,
        id: PartitionId,
        batch: Incoming<'_>,
    ) -> Result<(AppendAnswer, i64), AppendAnswer> {
        let index = self.open_partition(id).map_err(AppendAnswer::failed)?;
        self.note_use(index);
        let Self { partitions, io, chunks, dirty, .. } = self;
        let partition = partitions.get_mut(index).expect("opened just now");
        let epoch = partition.leader_epoch;
        let log_append_time = match partition.config.timestamp_type {
            TimestampType::CreateTime => None,
            TimestampType::LogAppendTime => Some(io.wall_clock_ms()),
        };
        let log = partition.log.as_mut().expect("opened just now");
        if log.poison().is_some() {
            // What it has not written is never written, so its memory of sequences means nothing.
            return Err(AppendAnswer::failed(ErrorCode::KAFKA_STORAGE_ERROR));
        }
        let log_start = log.log_start();
        let answer = |base_offset| AppendAnswer {
            error: ErrorCode::NONE,
            base_offset,
            log_append_time_ms: log_append_time.unwrap_or(-1),
            log_start,
        };
        // As Kafka, which tells the log's start beside what is wrong with a sequence.
        let refused = |error| Err(AppendAnswer { log_start, ..AppendAnswer::failed(error) });
        let (Incoming::Whole(start) | Incoming::Landed(start)) = batch;
        match log.check_producer(start) {
            ProducerCheck::Append => {}
            ProducerCheck::Duplicate { base_offset, last_offset, .. } => {
                return Ok((answer(base_offset), last_offset + 1));
            }
            ProducerCheck::OutOfOrder { .. } => {
                return refused(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER);
            }
            ProducerCheck::StaleEpoch { .. } => return refused(ErrorCode::INVALID_PRODUCER_EPOCH),
        }
        let before = log.unwritten_bytes();
        let appended = match batch {
            Incoming::Whole(batch) => {
                log.append(io, chunks, batch, AppendAs::Leader { epoch, log_append_time })
            }
            Incoming::Landed(start) => log.append_reserved(io, chunks, start, epoch),
        };
        let appended = match appended {
            Ok(appended) => appended,
            Err(error) => {
                crate::log_line!("{}: {error}", partition.name());
                return Err(AppendAnswer::failed(ErrorCode::KAFKA_STORAGE_ERROR));
            }
        };
        let bytes = log.unwritten_bytes() - before;
        partition.unwritten_bytes += bytes;
        self.unwritten_bytes += bytes;
        self.checkpoint.bytes += bytes;
        if !partition.dirty {
            partition.dirty = true;
            dirty.push(index);
        }
        Ok((answer(appended.base_offset), appended.last_offset + 1))
    }

    /// Appends for a request that another shard received.
    pub(crate) fn append_forwarded(&mut self, task: AppendTask) {
        let AppendTask { partition, records, durability, ticket } = task;
        let then = |answer| Then::Answer(ticket, answer);
        let appending = self.append(partition, Incoming::Whole(&records), durability, then);
        if let Appending::Done(answer) = appending {
            self.answer(ticket, answer);
        }
    }

    /// Reports the outcome of an append to the shard that holds the request.
    pub(crate) fn answer(&mut self, ticket: Ticket, answer: AppendAnswer) {
        let Ticket { request, position } = ticket;
        if request.shard == self.id {
            self.appended(request, position, answer);
        } else {
            self.mailbox.post(request.shard, Message::Appended(request, position, answer));
        }
    }

    /// Enters the outcome of one partition into the produce reply that waits for it.
    pub(crate) fn appended(&mut self, id: RequestId, position: usize, answer: AppendAnswer) {
        let Some(connection) = self.connection(id.connection) else { return };
        let Some(slot) = connection.slot(id.sequence) else { return };
        match slot {
            Slot::Produce { reply, outstanding, version } => {
                answer.write(&mut reply.bytes[position..], *version);
                *outstanding -= 1;
                if *outstanding == 0
                    && let Slot::Produce { reply, .. } = std::mem::replace(slot, Slot::Waiting)
                {
                    *slot = Slot::Ready(reply);
                    self.look_at(id.connection);
                }
            }
            // acks=0: an error can only be told by closing the connection.
            Slot::Unacknowledged { outstanding } => {
                *outstanding -= 1;
                let done = *outstanding == 0;
                if answer.error != ErrorCode::NONE {
                    let reason = format!("acks=0 and an append failed: {}", answer.error.name());
                    self.close(id.connection, &reason);
                } else if done {
                    *slot = Slot::Nothing;
                    self.look_at(id.connection);
                }
            }
            Slot::Waiting | Slot::Ready(_) | Slot::Nothing => {}
        }
    }
}

impl AppendAnswer {
    /// Writes the fields of a partition of a produce response, from its error code on. They have
    /// fixed sizes, so a reply can be encoded before they are known.
    pub(crate) fn write(&self, into: &mut [u8], version: i16) {
        into[..2].copy_from_slice(&self.error.code().to_be_bytes());
        into[2..10].copy_from_slice(&self.base_offset.to_be_bytes());
        if version >= 2 {
            into[10..18].copy_from_slice(&self.log_append_time_ms.to_be_bytes());
        }
        if version >= 5 {
            into[18..26].copy_from_slice(&self.log_start.to_be_bytes());
        }
    }
}
