//! What is known of idempotent producers: the checks of sequence numbers, and `.snapshot` files.
//!
//! Rules of Kafka's `ProducerAppendInfo` and `ProducerStateEntry`: the last five batches of a
//! producer are remembered, a repeated one is answered with its first offset.

use std::collections::HashMap;
use std::io;
use std::path::Path;

use millrace_io::{Io, OpenMode};

use millrace_wire::batch::BatchHeader;
use millrace_wire::crc32c;

use crate::segment;

/// Batches remembered of a producer: Kafka's, and the most requests a producer has in flight.
const BATCHES: usize = 5;

/// What the sequence numbers of a batch say about appending it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ProducerCheck {
    /// Next in line, or not from an idempotent producer.
    Append,
    /// It is in the log already, here: answer with this as if it had just been appended.
    Duplicate {
        /// Offset of its first record.
        base_offset: i64,
        /// Offset of its last record.
        last_offset: i64,
        /// Its largest timestamp.
        timestamp: i64,
    },
    /// A sequence number was left out or repeated (error 45).
    OutOfOrder {
        /// The sequence number that would have been next.
        expected: i32,
    },
    /// A newer instance of the producer wrote here (error 47).
    StaleEpoch {
        /// The newer epoch.
        current: i16,
    },
}

/// What the log knows of one producer, for `DescribeProducers` and the like.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ProducerState {
    /// The producer.
    pub producer_id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// Sequence number of its last record; -1 when none is known.
    pub last_sequence: i32,
    /// Timestamp of its last batch.
    pub last_timestamp: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
struct Batch {
    last_sequence: i32,
    last_offset: i64,
    offset_delta: i32,
    timestamp: i64,
}

impl Batch {
    fn base_sequence(&self) -> i32 {
        // Sequence numbers go from 2^31 - 1 back to 0.
        let base = i64::from(self.last_sequence) - i64::from(self.offset_delta);
        base.rem_euclid(1 << 31) as i32
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Producer {
    epoch: i16,
    /// The oldest first.
    batches: [Batch; BATCHES],
    count: u8,
    last_timestamp: i64,
    coordinator_epoch: i32,
    transaction_start: i64,
}

impl Producer {
    fn batches(&self) -> &[Batch] {
        &self.batches[..usize::from(self.count)]
    }

    fn last_sequence(&self) -> i32 {
        self.batches().last().map_or(-1, |batch| batch.last_sequence)
    }

    fn push(&mut self, batch: Batch) {
        if usize::from(self.count) == BATCHES {
            self.batches.rotate_left(1);
            self.count -= 1;
        }
        self.batches[usize::from(self.count)] = batch;
        self.count += 1;
    }
}

/// The producers of a partition and the snapshots of them on disk.
#[derive(Debug, Default)]
pub(crate) struct Producers {
    known: HashMap<i64, Producer>,
    /// Offsets of the snapshot files, in order.
    snapshots: Vec<i64>,
}

impl Producers {
    pub(crate) fn check(&self, header: &BatchHeader) -> ProducerCheck {
        let Some(producer) = self.known.get(&header.producer_id) else {
            return ProducerCheck::Append;
        };
        if header.producer_id < 0 || header.is_control() {
            return ProducerCheck::Append;
        }
        if header.producer_epoch < producer.epoch {
            return ProducerCheck::StaleEpoch { current: producer.epoch };
        }
        if header.producer_epoch > producer.epoch {
            return match header.base_sequence {
                0 => ProducerCheck::Append,
                _ => ProducerCheck::OutOfOrder { expected: 0 },
            };
        }
        let repeated = producer.batches().iter().find(|batch| {
            batch.base_sequence() == header.base_sequence
                && batch.offset_delta == header.last_offset_delta
        });
        if let Some(batch) = repeated {
            return ProducerCheck::Duplicate {
                base_offset: batch.last_offset - i64::from(batch.offset_delta),
                last_offset: batch.last_offset,
                timestamp: batch.timestamp,
            };
        }
        match next_sequence(producer.last_sequence(), 1) {
            expected if expected == header.base_sequence => ProducerCheck::Append,
            expected => ProducerCheck::OutOfOrder { expected },
        }
    }

    /// Takes a batch that was appended, or found in the log.
    pub(crate) fn note(&mut self, header: &BatchHeader) {
        if header.producer_id < 0 {
            return;
        }
        let producer = self.known.entry(header.producer_id).or_insert_with(|| Producer {
            epoch: header.producer_epoch,
            batches: [Batch::default(); BATCHES],
            count: 0,
            last_timestamp: -1,
            coordinator_epoch: -1,
            transaction_start: -1,
        });
        if header.producer_epoch != producer.epoch {
            producer.epoch = header.producer_epoch;
            producer.count = 0;
        }
        producer.last_timestamp = header.max_timestamp;
        if header.is_control() {
            producer.transaction_start = -1;
            return;
        }
        if header.is_transactional() && producer.transaction_start < 0 {
            producer.transaction_start = header.base_offset;
        }
        producer.push(Batch {
            last_sequence: next_sequence(header.base_sequence, header.last_offset_delta),
            last_offset: header.last_offset(),
            offset_delta: header.last_offset_delta,
            timestamp: header.max_timestamp,
        });
    }

    /// Forgets producers whose last batch is older than `expiration_ms`.
    pub(crate) fn expire(&mut self, wall_ms: i64, expiration_ms: i64) {
        self.known.retain(|_, producer| {
            producer.transaction_start >= 0
                || wall_ms.saturating_sub(producer.last_timestamp) < expiration_ms
        });
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.known.capacity() * size_of::<(i64, Producer)>()
    }

    /// The last offset of each producer's last batch.
    pub(crate) fn last_offsets(&self) -> impl Iterator<Item = (i64, i64)> + '_ {
        let last = |producer: &Producer| producer.batches().last().map(|batch| batch.last_offset);
        self.known.iter().filter_map(move |(&id, producer)| Some((id, last(producer)?)))
    }

    /// Where the oldest transaction that has not ended begins.
    pub(crate) fn first_open_transaction(&self) -> Option<i64> {
        let starts = self.known.values().map(|producer| producer.transaction_start);
        starts.filter(|start| *start >= 0).min()
    }

    pub(crate) fn states(&self) -> impl Iterator<Item = ProducerState> + '_ {
        self.known.iter().map(|(&producer_id, producer)| ProducerState {
            producer_id,
            epoch: producer.epoch,
            last_sequence: producer.last_sequence(),
            last_timestamp: producer.last_timestamp,
        })
    }

    // -- snapshots --------------------------------------------------------------------------

    pub(crate) fn set_snapshots(&mut self, mut offsets: Vec<i64>) {
        offsets.sort_unstable();
        self.snapshots = offsets;
    }

    /// Writes the state after all records below `offset`, unless that was done. Not flushed: the
    /// file's CRC says whether it may be used.
    pub(crate) fn snapshot<I: Io>(
        &mut self,
        io: &mut I,
        dir: &Path,
        offset: i64,
    ) -> io::Result<()> {
        if self.snapshots.last() == Some(&offset) {
            return Ok(());
        }
        let bytes = self.encode();
        let file = io.open(&segment::path(dir, offset, ".snapshot"), OpenMode::ReadWrite)?;
        io.write_at(&file, 0, &bytes)?;
        io.set_file_bytes(&file, bytes.len() as u64)?;
        self.snapshots.retain(|known| *known < offset);
        self.snapshots.push(offset);
        Ok(())
    }

    /// Removes snapshot files that `is_needed` does not hold for, but never the last two: the last
    /// may be ahead of what a power cut leaves of the log.
    pub(crate) fn prune<I: Io>(
        &mut self,
        io: &mut I,
        dir: &Path,
        is_needed: impl Fn(i64) -> bool,
    ) -> io::Result<()> {
        let old = self.snapshots.len().saturating_sub(2);
        for index in (0..old).rev() {
            if !is_needed(self.snapshots[index]) {
                let offset = self.snapshots.remove(index);
                remove_if_there(io, &segment::path(dir, offset, ".snapshot"))?;
            }
        }
        Ok(())
    }

    /// Starts anew from the last whole snapshot at or below `end`, removes those above, and returns
    /// the offset from which batches are to be noted again.
    pub(crate) fn load<I: Io>(
        &mut self,
        io: &mut I,
        dir: &Path,
        end: i64,
    ) -> io::Result<Option<i64>> {
        self.known.clear();
        let before = self.snapshots.len();
        let mut found = None;
        while let Some(&offset) = self.snapshots.last() {
            let path = segment::path(dir, offset, ".snapshot");
            if offset <= end
                && let Ok(bytes) = io.read_file(&path)
                && let Some(known) = decode(&bytes)
            {
                self.known = known;
                found = Some(offset);
                break;
            }
            self.snapshots.pop();
            remove_if_there(io, &path)?;
        }
        if self.snapshots.len() < before {
            // One that came back after a power cut would be believed by then.
            io.sync_dir(dir)?;
        }
        Ok(found)
    }

    fn encode(&self) -> Vec<u8> {
        let mut body = Vec::with_capacity(4 + self.known.len() * ENTRY_BYTES);
        body.extend_from_slice(&(self.known.len() as i32).to_be_bytes());
        for (id, producer) in &self.known {
            let last = producer.batches().last();
            body.extend_from_slice(&id.to_be_bytes());
            body.extend_from_slice(&producer.epoch.to_be_bytes());
            body.extend_from_slice(&producer.last_sequence().to_be_bytes());
            body.extend_from_slice(&last.map_or(-1, |batch| batch.last_offset).to_be_bytes());
            body.extend_from_slice(&last.map_or(0, |batch| batch.offset_delta).to_be_bytes());
            body.extend_from_slice(&producer.last_timestamp.to_be_bytes());
            body.extend_from_slice(&producer.coordinator_epoch.to_be_bytes());
            body.extend_from_slice(&producer.transaction_start.to_be_bytes());
        }
        let mut bytes = 1_i16.to_be_bytes().to_vec();
        bytes.extend_from_slice(&crc32c(&body).to_be_bytes());
        bytes.extend_from_slice(&body);
        bytes
    }
}

/// Size of a producer in a snapshot.
const ENTRY_BYTES: usize = 46;

/// Kafka's snapshot format 1; `None` when damaged.
fn decode(bytes: &[u8]) -> Option<HashMap<i64, Producer>> {
    let (version, rest) = bytes.split_first_chunk()?;
    let (crc, body) = rest.split_first_chunk()?;
    if i16::from_be_bytes(*version) != 1 || u32::from_be_bytes(*crc) != crc32c(body) {
        return None;
    }
    let (count, entries) = body.split_first_chunk()?;
    let count = usize::try_from(i32::from_be_bytes(*count)).ok()?;
    if entries.len() != count.checked_mul(ENTRY_BYTES)? {
        return None;
    }
    let mut known = HashMap::with_capacity(count);
    for entry in entries.chunks_exact(ENTRY_BYTES) {
        let i32_at = |at: usize| i32::from_be_bytes(*entry[at..].first_chunk().expect("46 bytes"));
        let i64_at = |at: usize| i64::from_be_bytes(*entry[at..].first_chunk().expect("46 bytes"));
        let mut producer = Producer {
            epoch: i16::from_be_bytes(*entry[8..].first_chunk().expect("46 bytes")),
            batches: [Batch::default(); BATCHES],
            count: 0,
            last_timestamp: i64_at(26),
            coordinator_epoch: i32_at(34),
            transaction_start: i64_at(38),
        };
        let last_offset = i64_at(14);
        if last_offset >= 0 {
            producer.push(Batch {
                last_sequence: i32_at(10),
                last_offset,
                offset_delta: i32_at(22),
                timestamp: producer.last_timestamp,
            });
        }
        known.insert(i64_at(0), producer);
    }
    Some(known)
}

/// `sequence + count`, going from 2^31 - 1 back to 0.
fn next_sequence(sequence: i32, count: i32) -> i32 {
    ((i64::from(sequence) + i64::from(count)).rem_euclid(1 << 31)) as i32
}

pub(crate) fn remove_if_there<I: Io>(io: &mut I, path: &Path) -> io::Result<()> {
    match io.remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn batch(epoch: i16, sequence: i32, offset: i64) -> BatchHeader {
        BatchHeader {
            base_offset: offset,
            batch_length: 100,
            partition_leader_epoch: 0,
            magic: 2,
            crc: 0,
            attributes: 0,
            last_offset_delta: 1,
            base_timestamp: 1000,
            max_timestamp: 1000 + offset,
            producer_id: 7,
            producer_epoch: epoch,
            base_sequence: sequence,
            record_count: 2,
        }
    }

    #[test]
    fn sequences_are_checked_as_kafka_does() {
        let mut producers = Producers::default();
        assert_eq!(producers.check(&batch(1, 40, 0)), ProducerCheck::Append, "no state: any");
        for round in 0..7 {
            let next = batch(1, round * 2, i64::from(round) * 2);
            assert_eq!(producers.check(&next), ProducerCheck::Append);
            producers.note(&next);
        }
        let duplicate =
            ProducerCheck::Duplicate { base_offset: 4, last_offset: 5, timestamp: 1004 };
        let cases = [
            (batch(1, 14, 99), ProducerCheck::Append),
            (batch(1, 4, 99), duplicate),
            (batch(1, 2, 99), ProducerCheck::OutOfOrder { expected: 14 }),
            (batch(1, 16, 99), ProducerCheck::OutOfOrder { expected: 14 }),
            (batch(0, 14, 99), ProducerCheck::StaleEpoch { current: 1 }),
            (batch(2, 0, 99), ProducerCheck::Append),
            (batch(2, 14, 99), ProducerCheck::OutOfOrder { expected: 0 }),
            (BatchHeader { producer_id: 8, ..batch(1, 5, 99) }, ProducerCheck::Append),
            (BatchHeader { producer_id: -1, ..batch(-1, -1, 99) }, ProducerCheck::Append),
        ];
        for (asked, answer) in cases {
            assert_eq!(producers.check(&asked), answer, "{asked:?}");
        }
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let mut producers = Producers::default();
        producers.note(&batch(0, i32::MAX, 0));
        assert_eq!(producers.check(&batch(0, 1, 2)), ProducerCheck::Append);
        assert!(matches!(
            producers.check(&batch(0, i32::MAX, 2)),
            ProducerCheck::Duplicate { base_offset: 0, .. }
        ));
    }

    #[test]
    fn a_snapshot_reads_back_and_damage_is_noticed() {
        let mut producers = Producers::default();
        producers.note(&batch(3, 0, 0));
        producers.note(&batch(3, 2, 2));
        let mut bytes = producers.encode();
        assert_eq!(bytes.len(), 10 + ENTRY_BYTES);
        let known = decode(&bytes).expect("whole");
        assert_eq!(known[&7].last_sequence(), 3);
        assert_eq!(known[&7].batches().len(), 1);
        assert_eq!(decode(&bytes[..20]), None);
        bytes[30] ^= 1;
        assert_eq!(decode(&bytes), None);
    }

    #[test]
    fn silent_producers_are_forgotten() {
        let mut producers = Producers::default();
        producers.note(&batch(3, 0, 0));
        producers.expire(1500, 1000);
        assert_eq!(producers.states().count(), 1);
        producers.expire(2000, 1000);
        assert_eq!(producers.states().count(), 0);
    }
}
