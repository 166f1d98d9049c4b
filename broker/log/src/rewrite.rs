//! What stays of a batch when its log is compacted.
//!
//! Rules of Kafka's `Cleaner`: a record stays when it is the newest of its key, or beyond what the
//! map of keys covers. A tombstone that stays gives its batch a delete horizon, after which it
//! goes. Batches keep offsets and sequence numbers. One left without records goes, unless it is the
//! last of a producer that is still known.
//!
//! Batches of transactions and their markers stay as they are, and their keys replace nothing.

use std::collections::HashMap;
use std::io;

use millrace_wire::batch::{
    Batch, BatchBuilder, BatchHeader, BatchOptions, Record, without_records,
};

use crate::key_map::KeyMap;

/// Records of one batch take at most this much memory.
pub(crate) const DECOMPRESSED_BYTES_MAX: usize = 128 << 20;

/// What decides about a record.
pub(crate) struct Rules<'a> {
    pub(crate) map: &'a KeyMap,
    /// The map covers the offsets below.
    pub(crate) map_end: i64,
    pub(crate) wall_ms: i64,
    /// `delete.retention.ms`.
    pub(crate) delete_retention_ms: i64,
    /// Last offset of each known producer's last batch.
    pub(crate) last_of_producer: &'a HashMap<i64, i64>,
}

impl Rules<'_> {
    /// Kafka's `Cleaner.shouldRetainRecord`.
    fn stays(&self, record: &Record<'_>, horizon: Option<i64>) -> bool {
        if record.offset >= self.map_end {
            return true;
        }
        // Without a key nothing can stand for it: left from before the topic was compacted.
        let Some(key) = record.key else { return false };
        let is_newest = self.map.get(key).is_none_or(|newest| record.offset >= newest);
        is_newest
            && (record.value.is_some() || horizon.is_none_or(|horizon| self.wall_ms < horizon))
    }
}

/// Buffers for batches that are written anew.
#[derive(Default)]
pub(crate) struct Rewriter {
    builder: BatchBuilder,
    pub(crate) scratch: Vec<u8>,
    empty: Vec<u8>,
    stays: Vec<bool>,
}

impl Rewriter {
    /// What stays of a batch: nothing is an empty slice.
    pub(crate) fn rewrite<'a>(
        &'a mut self,
        rules: &Rules<'_>,
        batch: &Batch<'a>,
    ) -> io::Result<&'a [u8]> {
        let header = batch.header();
        if is_of_transaction(header) {
            return Ok(batch.bytes());
        }
        let known = header.delete_horizon();
        let records = batch.records(&mut self.scratch, DECOMPRESSED_BYTES_MAX).map_err(damaged)?;
        self.stays.clear();
        let mut has_tombstone = false;
        for record in records.clone() {
            let record = record.map_err(damaged)?;
            let stays = rules.stays(&record, known);
            has_tombstone |= stays && record.value.is_none();
            self.stays.push(stays);
        }
        let horizon = known.or_else(|| {
            let at = rules.wall_ms.saturating_add(rules.delete_retention_ms);
            has_tombstone.then_some(at)
        });
        let count = self.stays.iter().filter(|stays| **stays).count();
        if count == 0 {
            let last = rules.last_of_producer.get(&header.producer_id);
            self.empty.clear();
            if header.has_producer() && last == Some(&header.last_offset()) {
                self.empty.extend(without_records(batch.bytes()));
            }
            return Ok(&self.empty);
        }
        if count == self.stays.len() && horizon == known {
            return Ok(batch.bytes());
        }
        if let Some(horizon) = horizon {
            self.builder.begin(horizon);
        }
        for (record, stays) in records.zip(&self.stays) {
            let Record { offset, timestamp, key, value, headers } = record.map_err(damaged)?;
            if *stays {
                let delta = (offset - header.base_offset) as i32;
                let headers: Vec<_> = headers.iter().collect();
                self.builder.append_at(delta, timestamp, key, value, headers.iter().copied());
            }
        }
        let options = BatchOptions {
            base_offset: header.base_offset,
            partition_leader_epoch: header.partition_leader_epoch,
            compression: header.compression().map_err(damaged)?,
            producer_id: header.producer_id,
            producer_epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
            log_append_time: header.is_log_append_time().then_some(header.max_timestamp),
            last_offset_delta: Some(header.last_offset_delta),
            delete_horizon: horizon.is_some(),
            ..BatchOptions::default()
        };
        self.builder.finish(&options).map_err(damaged)
    }
}

pub(crate) fn is_of_transaction(header: &BatchHeader) -> bool {
    header.is_transactional() || header.is_control()
}

pub(crate) fn damaged(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}
