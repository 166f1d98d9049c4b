//! Landing: a large batch goes from the socket straight to the place in memory from which it is
//! written, so its bytes are not copied once more.
//!
//! Only what nearly all large requests are lands: one plain batch for one partition of this shard,
//! whole in the kernel's memory already, so that no slow sender holds the tail of a partition.
//! Everything else, and every batch in which something turns out to be wrong or to be changed,
//! takes the way through the receive buffer and `admission`.

use std::io::{self, IoSliceMut};

use bytes::{BufMut as _, Bytes, BytesMut};
use millrace_io::Io;
use millrace_wire::api::{self, ApiKey};
use millrace_wire::batch::{self, BatchHeader, HEADER_BYTES};
use millrace_wire::compression::Compression;
use millrace_wire::messages::{ProduceRequest, RequestHeader};
use millrace_wire::{DecodeError, Message as _, Reader};

use crate::admission::Rules;
use crate::config::TimestampType;
use crate::connection::ConnectionId;
use crate::limits;
use crate::partitions::PartitionId;
use crate::shard::Shard;

/// Versions whose requests carry batches of magic 2.
const FIRST_VERSION: i16 = 3;
/// From here on requests have compact lengths and tagged fields.
const FIRST_FLEXIBLE: i16 = 9;
/// From here on topics go by their id.
const FIRST_WITH_IDS: i16 = 13;

/// What became of a frame that has begun to arrive.
#[derive(Debug)]
pub(crate) enum Landed {
    /// This many bytes of it were received; its request is on its way.
    Bytes(usize),
    /// `Readable` comes when all of it is there.
    Waiting,
    /// Receive it as usual.
    No,
}

/// A produce request of which the last bytes are still in the socket.
struct Plan {
    /// The request without its records.
    short: Bytes,
    /// Where the records begin in the bytes received, the frame's length included.
    records_start: usize,
    records_bytes: usize,
    /// Bytes of the frame after the records: empty tagged fields.
    trailing: usize,
    version: i16,
}

impl Plan {
    /// Reads the beginning of a frame, its length included; `missing` bytes of the frame follow.
    fn read(received: &[u8], missing: usize) -> Option<Self> {
        let frame = received.get(4..)?;
        let mut reader = Reader::new(frame);
        let (key, version) = (reader.i16().ok()?, reader.i16().ok()?);
        let is_produce = ApiKey::try_from(key) == Ok(ApiKey::Produce);
        let supported = crate::handlers::versions(ApiKey::Produce);
        if !is_produce || version < FIRST_VERSION || !supported.contains(&version) {
            return None;
        }
        let flexible = version >= FIRST_FLEXIBLE;
        let mut reader = Reader::new(frame);
        let header_version = api::request_header_version(ApiKey::Produce, version);
        RequestHeader::decode(&mut reader, header_version).ok()?;
        skip_to_records(&mut reader, version, flexible).ok().flatten()?;
        let length_start = frame.len() - reader.remaining();
        let records_bytes = length(&mut reader, flexible).ok().flatten()?;
        let start = frame.len() - reader.remaining();
        let trailing = if flexible { 3 } else { 0 };
        let is_last = frame.len() + missing == start + records_bytes + trailing;
        if !is_last || missing <= trailing {
            return None;
        }
        let mut short = BytesMut::with_capacity(length_start + 4);
        short.put_slice(&frame[..length_start]);
        // No records, and no tagged fields.
        short.put_slice(if flexible { &[1, 0, 0, 0] } else { &[0, 0, 0, 0] });
        let records_start = start + 4;
        Some(Self { short: short.freeze(), records_start, records_bytes, trailing, version })
    }
}

/// Reads up to the length of the records of the first partition, if it is the only one.
fn skip_to_records(
    reader: &mut Reader<'_>,
    version: i16,
    flexible: bool,
) -> Result<Option<()>, DecodeError> {
    let skip_text = |reader: &mut Reader<'_>| {
        let bytes = if flexible { length(reader, true)? } else { short_length(reader)? };
        reader.take(bytes.unwrap_or(0)).map(|_| ())
    };
    skip_text(reader)?; // transactional id
    reader.take(2 + 4)?; // acks, timeout
    if length(reader, flexible)? != Some(1) {
        return Ok(None);
    }
    if version >= FIRST_WITH_IDS {
        reader.take(16)?;
    } else {
        skip_text(reader)?;
    }
    if length(reader, flexible)? != Some(1) {
        return Ok(None);
    }
    reader.take(4)?; // partition
    Ok(Some(()))
}

/// A length of an array or of bytes; `None` is null.
fn length(reader: &mut Reader<'_>, flexible: bool) -> Result<Option<usize>, DecodeError> {
    let length = if flexible { i64::from(reader.uvarint()?) - 1 } else { reader.i32()?.into() };
    Ok(usize::try_from(length).ok())
}

fn short_length(reader: &mut Reader<'_>) -> Result<Option<usize>, DecodeError> {
    Ok(usize::try_from(reader.i16()?).ok())
}

impl<I: Io> Shard<I> {
    /// Receives the rest of the frame at the front of a connection's buffer, of which `missing`
    /// bytes are not in it yet, into the log it is meant for.
    pub(crate) fn land(&mut self, id: ConnectionId, missing: usize) -> Result<Landed, String> {
        let connection = self.connections[id.index as usize].as_mut().expect("looked up by serve");
        if !connection.expects_large || !limits::LANDING_BYTES.contains(&missing) {
            return Ok(Landed::No);
        }
        let waited = std::mem::take(&mut connection.awaits_whole);
        let Some(plan) = Plan::read(&connection.received, missing) else {
            connection.landing_pause = limits::LANDING_PAUSE;
            return Ok(Landed::No);
        };
        let Some(partition) = self.landing_place(id, &plan) else { return Ok(Landed::No) };
        let received = self.receive_to(id, &plan, partition);
        if !matches!(received, Ok(None)) {
            // Before the request goes the usual way, which may append to this log.
            self.forget_reserved(partition);
        }
        let connection = self.connections[id.index as usize].as_mut().expect("as above");
        match received {
            Ok(None) => {
                // The request without its records is in `short`; they are behind the log's end.
                let start = connection.received.split().freeze().slice(plan.records_start..);
                self.landed = Some(start);
                let started = self.start_request(id, plan.short);
                self.landed = None;
                self.forget_reserved(partition);
                started.map(|()| Landed::Bytes(missing))
            }
            Ok(Some(rest)) => {
                let mut frame = connection.received.split().split_off(4);
                frame.unsplit(rest);
                self.start_request(id, frame.freeze()).map(|()| Landed::Bytes(missing))
            }
            Err(error) => match error.kind() {
                // Readable, and not whole: perhaps no more can be sent before this is received.
                io::ErrorKind::WouldBlock if waited => Ok(Landed::No),
                io::ErrorKind::WouldBlock => {
                    connection.may_receive = false;
                    connection.awaits_whole = true;
                    Ok(Landed::Waiting)
                }
                io::ErrorKind::OutOfMemory => Ok(Landed::No),
                // The client is gone without a word: nothing to tell anybody.
                io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Err(String::new()),
                _ => Err(error.to_string()),
            },
        }
    }

    /// What was reserved in the partition's log and not appended is given back.
    fn forget_reserved(&mut self, partition: PartitionId) {
        let Self { partitions, chunks, .. } = self;
        let index = partitions.index(partition);
        let partition = index.and_then(|index| partitions.get_mut(index));
        if let Some(log) = partition.and_then(|partition| partition.log.as_mut()) {
            log.forget_reserved(chunks);
        }
    }

    /// The partition whose log takes the batch as it is, if nothing in what is known of it so far
    /// stands against that.
    fn landing_place(&self, id: ConnectionId, plan: &Plan) -> Option<PartitionId> {
        let connection = self.connections[id.index as usize].as_ref()?;
        let batch = connection.received.get(plan.records_start..)?;
        let header = BatchHeader::parse(batch).ok()?;
        let is_plain = header.bytes() == plan.records_bytes
            && header.compression().ok()? == Compression::None
            && header.base_offset == 0
            && !header.is_transactional()
            && !header.is_log_append_time();
        let header_version = api::request_header_version(ApiKey::Produce, plan.version);
        let mut reader = Reader::new(&plan.short);
        RequestHeader::decode(&mut reader, header_version).ok()?;
        let body = ProduceRequest::decode(&mut reader, plan.version).ok()?;
        let topic_data = body.topic_data.iter().next()?;
        let index = topic_data.partition_data.iter().next()?.index;
        let topic = match plan.version >= FIRST_WITH_IDS {
            true => self.image.topic_by_id(topic_data.topic_id)?,
            false => self.image.topic(topic_data.name)?,
        };
        topic.partition(index)?;
        let config = &self.topic_configs[&topic.id];
        let rules = Rules { topic: config, now_ms: 0, version: plan.version };
        let takes_it = !topic.is_internal()
            && config.stored_compression(Compression::None).0 == Compression::None
            && config.timestamp_type == TimestampType::CreateTime
            && rules.check_size(plan.records_bytes).is_ok();
        let partition = PartitionId { topic_id: topic.id, partition: index };
        let is_ours = partition.owner(self.mailbox.shards()) == self.id;
        (is_plain && takes_it && is_ours && matches!(body.acks, -1..=1)).then_some(partition)
    }

    /// Receives the missing bytes behind the end of the log. `Some` are those bytes, when the batch
    /// cannot stay there.
    fn receive_to(
        &mut self,
        id: ConnectionId,
        plan: &Plan,
        partition: PartitionId,
    ) -> io::Result<Option<BytesMut>> {
        let refused = || io::Error::from(io::ErrorKind::OutOfMemory);
        let index = self.open_partition(partition).map_err(|_| refused())?;
        let Self { connections, partitions, io, chunks, scratch, topic_configs, .. } = self;
        let connection = connections[id.index as usize].as_ref().expect("looked up by serve");
        let start = &connection.received[plan.records_start..];
        let partition = partitions.get_mut(index).expect("opened just now");
        let log = partition.log.as_mut().expect("opened just now");
        let pieces = log.reserve(io, chunks, start, partition.leader_epoch);
        let mut pieces = pieces.map_err(|_| refused())?;
        let mut trailing = [0; 3];
        let mut skip = start.len();
        let mut targets = Vec::with_capacity(pieces.len() + 1);
        for piece in &mut pieces {
            let from = skip.min(piece.len());
            skip -= from;
            targets.push(IoSliceMut::new(&mut piece[from..]));
        }
        targets.push(IoSliceMut::new(&mut trailing[..plan.trailing]));
        io.recv_whole(connection.socket, &mut targets)?;

        let mut batch: Vec<&[u8]> = Vec::with_capacity(targets.len() + 1);
        batch.push(start);
        batch.extend(targets.iter().map(|target| &**target));
        let tags = batch.pop().expect("pushed above");
        let topic = &topic_configs[&partition.id.topic_id];
        let rules = Rules { topic, now_ms: io.wall_clock_ms(), version: plan.version };
        let is_sound = batch::validate_pieces(&batch, scratch)
            .is_ok_and(|(header, summary)| rules.takes_unchanged(&header, &summary));
        if is_sound && tags.iter().all(|count| *count == 0) {
            return Ok(None);
        }
        let mut rest = BytesMut::with_capacity(plan.records_bytes);
        targets.iter().for_each(|target| rest.put_slice(target));
        Ok(Some(rest))
    }
}

const _: () = assert!(limits::LANDING_START_BYTES > 2 * HEADER_BYTES);
