//! A produce request that is laid out once and patched for each send.
//!
//! Versions 3 to 8 have fixed-width counts, so every place to patch stays where it is as long as
//! the number of batches and their record counts do. Kafka 2.1 to 4.3 all speak version 7 or 8.

use crate::batch::{self, BATCH_HEADER_BYTES, Fill, Template};
use millrace_wire::compression::Compression;
use std::ops::{Range, RangeInclusive};

/// The versions of Produce whose layout this file knows.
pub const PRODUCE_VERSIONS: RangeInclusive<i16> = 3..=8;

/// Size, API key and version come before the correlation id.
const CORRELATION_ID: usize = 8;
/// Partition index and length of the records.
const ENTRY_HEAD_BYTES: usize = 8;

/// One request.
#[derive(Debug, Default)]
pub struct Frame {
    bytes: Vec<u8>,
    /// Where each batch lies.
    batches: Vec<Range<usize>>,
    /// Records of each batch, as laid out; empty when the batches were compressed.
    counts: Vec<usize>,
    /// A batch before its compression.
    plain: Vec<u8>,
}

impl Frame {
    /// The bytes to send.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Makes room for `batches` batches of `count` records, not compressed. `head` is a frame
    /// without partitions, which ends with their number.
    pub fn lay_out(&mut self, head: &[u8], template: &Template, batches: usize, count: usize) {
        if self.counts.len() == batches && self.counts.iter().all(|&laid| laid == count) {
            return;
        }
        self.start(head);
        for _ in 0..batches {
            self.push(template.batch(count));
            self.counts.push(count);
        }
        self.finish();
    }

    /// Begins a frame whose batches are pushed one by one.
    pub fn start(&mut self, head: &[u8]) {
        self.bytes.clear();
        self.batches.clear();
        self.counts.clear();
        self.bytes.extend_from_slice(head);
    }

    /// Adds a batch; its partition is set later.
    pub fn push(&mut self, batch: &[u8]) {
        let start = self.bytes.len() + ENTRY_HEAD_BYTES;
        self.bytes.extend_from_slice(&[0; ENTRY_HEAD_BYTES]);
        self.bytes.extend_from_slice(batch);
        self.batches.push(start..start + batch.len());
    }

    /// Adds a batch of the template's first `count` records, compressed.
    pub fn push_compressed(
        &mut self,
        template: &Template,
        count: usize,
        compression: Compression,
        fill: &Fill<'_>,
        random: &mut fastrand::Rng,
    ) {
        self.plain.clear();
        self.plain.extend_from_slice(template.batch(count));
        template.patch(&mut self.plain, count, fill, random);
        let (header, records) = self.plain.split_at(BATCH_HEADER_BYTES);
        let start = self.bytes.len() + ENTRY_HEAD_BYTES;
        self.bytes.extend_from_slice(&[0; ENTRY_HEAD_BYTES]);
        self.bytes.extend_from_slice(header);
        compression.compress(records, &mut self.bytes).expect("memory takes all that is written");
        let batch = &mut self.bytes[start..];
        batch::put_header(batch, count, compression as i16, fill);
        batch::seal(batch);
        self.batches.push(start..start + batch.len());
    }

    /// Sets sizes and counts after the last batch.
    pub fn finish(&mut self) {
        let first = self.batches.first().map(|batch| batch.start - ENTRY_HEAD_BYTES);
        let count_at = first.expect("a request has a batch") - 4;
        put_i32(&mut self.bytes, count_at, self.batches.len());
        for batch in &self.batches {
            put_i32(&mut self.bytes, batch.start - 4, batch.len());
        }
        let size = self.bytes.len() - 4;
        put_i32(&mut self.bytes, 0, size);
    }

    /// Sets the correlation id.
    pub fn set_correlation_id(&mut self, correlation_id: i32) {
        self.bytes[CORRELATION_ID..CORRELATION_ID + 4]
            .copy_from_slice(&correlation_id.to_be_bytes());
    }

    /// Sets the partition of a batch.
    pub fn set_partition(&mut self, index: usize, partition: u32) {
        let at = self.batches[index].start - ENTRY_HEAD_BYTES;
        self.bytes[at..at + 4].copy_from_slice(&partition.to_be_bytes());
    }

    /// Patches a batch that was laid out from `template` and seals it.
    pub fn fill(
        &mut self,
        index: usize,
        template: &Template,
        fill: &Fill<'_>,
        random: &mut fastrand::Rng,
    ) {
        let bytes = &mut self.bytes[self.batches[index].clone()];
        template.patch(bytes, self.counts[index], fill, random);
        batch::seal(bytes);
    }

    /// A batch as it is.
    pub fn batch(&self, index: usize) -> &[u8] {
        &self.bytes[self.batches[index].clone()]
    }

    /// Bytes of all batches.
    pub fn batch_bytes(&self) -> usize {
        self.batches.iter().map(Range::len).sum()
    }

    /// The part before the partitions, from which another frame can be started.
    pub fn head(&self) -> &[u8] {
        &self.bytes[..self.batches[0].start - ENTRY_HEAD_BYTES]
    }
}

fn put_i32(bytes: &mut [u8], at: usize, value: usize) {
    let value = i32::try_from(value).expect("options bound a request to 1 GiB");
    bytes[at..at + 4].copy_from_slice(&value.to_be_bytes());
}
