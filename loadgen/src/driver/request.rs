//! One produce request and what must be remembered about it until its answer.

use super::frame::Frame;
use super::{ProduceSetup, Setup};
use crate::batch::Fill;
use crate::payload::Stamp;
use crate::verify::SentStream;
use millrace_wire::compression::Compression;

/// A request; recycled, so that sending allocates nothing once under way.
#[derive(Debug, Default)]
pub struct Request {
    /// The bytes.
    pub frame: Frame,
    /// What its answer will carry.
    pub correlation_id: i32,
    /// Its batches, in the frame's order.
    pub batches: Vec<SentBatch>,
    /// Intended times: one for all records, or one for each.
    pub intended_ns: Vec<u64>,
    /// When its last byte was handed to the socket.
    pub written_ns: u64,
    /// How often it was sent before.
    pub attempts: u32,
}

/// One batch of a request.
#[derive(Clone, Copy, Debug)]
pub struct SentBatch {
    /// Place of its partition among those of the connection.
    pub slot: usize,
    /// Sequence of its first record.
    pub first_sequence: u64,
    /// Number of records.
    pub records: usize,
}

/// The producer a request is built for.
#[derive(Debug)]
pub struct Author<'a> {
    /// Its number.
    pub producer: u32,
    /// Producer id and epoch; -1 without idempotence.
    pub producer_id: (i64, i16),
    /// Its partitions and how far each was sent.
    pub streams: &'a mut [SentStream],
    /// The partition of the next batch.
    pub cursor: &'a mut usize,
    /// Sums of how often keys of each partition come; empty: one partition after the other.
    pub weights: &'a [f64],
    /// Source of keys.
    pub random: &'a mut fastrand::Rng,
}

impl Author<'_> {
    fn next_slot(&mut self) -> usize {
        let count = self.streams.len();
        let Some(total) = self.weights.last() else {
            let slot = *self.cursor;
            *self.cursor = (slot + 1) % count;
            return slot;
        };
        let at = self.random.f64() * total;
        self.weights.partition_point(|sum| *sum <= at).min(count - 1)
    }
}

impl Request {
    /// Fills the request with new batches of `records` records each, for the next partitions.
    pub fn build(
        &mut self,
        setup: &Setup,
        produce: &ProduceSetup,
        mut author: Author<'_>,
        now_ns: u64,
        records: usize,
    ) {
        let Self { frame, batches, intended_ns, .. } = self;
        let template = &produce.template;
        let is_plain = produce.compression == Compression::None;
        if is_plain {
            frame.lay_out(&produce.head, template, produce.batches_per_request, records);
        } else {
            frame.start(&produce.head);
        }
        batches.clear();
        for index in 0..produce.batches_per_request {
            let slot = author.next_slot();
            let stream = &mut author.streams[slot];
            let first_sequence = stream.sent;
            stream.sent += records as u64;
            batches.push(SentBatch { slot, first_sequence, records });
            let (producer_id, epoch) = author.producer_id;
            let base_sequence = match producer_id {
                ..0 => -1,
                // Kafka's sequence numbers go round after 2^31 - 1.
                _ => (first_sequence & 0x7fff_ffff) as i32,
            };
            let fill = Fill {
                first: Stamp {
                    run: produce.run,
                    producer: author.producer,
                    partition: stream.partition,
                    sequence: first_sequence,
                    intended_ns: 0,
                },
                intended_ns,
                timestamp_ms: setup.wall_ms_at_zero + (now_ns / 1_000_000) as i64,
                producer: (producer_id, epoch, base_sequence),
                keys: produce.keys.as_ref(),
            };
            if is_plain {
                frame.fill(index, template, &fill, author.random);
            } else {
                frame.push_compressed(template, records, produce.compression, &fill, author.random);
            }
            frame.set_partition(index, stream.partition);
        }
        if !is_plain {
            frame.finish();
        }
        frame.set_correlation_id(self.correlation_id);
    }

    /// Becomes a request of one batch of `other`, as it was sent.
    pub fn copy_batch(&mut self, other: &Self, index: usize, partition: u32) {
        self.frame.start(other.frame.head());
        self.frame.push(other.frame.batch(index));
        self.frame.finish();
        self.frame.set_partition(0, partition);
        self.batches.clear();
        self.batches.push(other.batches[index]);
        self.intended_ns.clone_from(&other.intended_ns);
        self.attempts = other.attempts;
    }

    /// Records of all its batches.
    pub fn records(&self) -> u64 {
        self.batches.iter().map(|batch| batch.records as u64).sum()
    }
}
