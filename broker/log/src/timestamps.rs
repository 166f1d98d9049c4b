//! Offsets by time: the first record at or after a timestamp, and the record with the largest.

use std::io;

use millrace_io::Io;

use crate::LogError;
use millrace_wire::batch::{Batch, BatchHeader};

use crate::partition::PartitionLog;
use crate::read::{Walk, unwalked};
use crate::segment::{self, MaxTimestamp};

/// A record found by its time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TimedOffset {
    /// Where it is.
    pub offset: i64,
    /// Its timestamp.
    pub timestamp: i64,
    /// The leader epoch of its batch.
    pub leader_epoch: i32,
}

/// Records of one batch take at most this much memory while one of them is looked for.
const DECOMPRESSED_BYTES_MAX: usize = 128 << 20;

impl<I: Io> PartitionLog<I> {
    /// The first record below `upper_bound` whose timestamp is at or after `timestamp`. Blocks.
    pub fn offset_for_timestamp(
        &mut self,
        io: &mut I,
        timestamp: i64,
        upper_bound: i64,
    ) -> Result<Option<TimedOffset>, LogError> {
        let is_late = |at: i64| at >= timestamp;
        for index in self.segment_of(self.log_start())..self.segments.len() {
            let max = self.segment_max_timestamp(io, index)?;
            if !max.is_some_and(|max| is_late(max.timestamp)) {
                continue;
            }
            let base = self.segments[index].base;
            let from = self.offset_before(io, index, timestamp);
            let from = from.map_err(|error| self.failed(base, error))?;
            if let Some(found) = self.first_record(io, index, from, is_late)? {
                return Ok(Some(found).filter(|found| found.offset < upper_bound));
            }
        }
        Ok(None)
    }

    /// The first record with the largest timestamp. Blocks.
    pub fn max_timestamp(&mut self, io: &mut I) -> Result<Option<TimedOffset>, LogError> {
        let mut largest: Option<(usize, MaxTimestamp)> = None;
        for index in 0..self.segments.len() {
            let max = self.segment_max_timestamp(io, index)?;
            if let Some(max) = max
                && largest.is_none_or(|(_, largest)| largest.timestamp < max.timestamp)
            {
                largest = Some((index, max));
            }
        }
        let Some((index, max)) = largest else { return Ok(None) };
        self.first_record(io, index, max.offset, |at| at >= max.timestamp)
    }

    /// An offset of the segment before which no timestamp is as late as this.
    fn offset_before(&mut self, io: &mut I, index: usize, timestamp: i64) -> io::Result<i64> {
        let segment = &mut self.segments[index];
        let base = segment.base;
        let path = segment::path(&self.dir, base, ".timeindex");
        let entry = segment.times.find_last(io, &path, |entry| entry.timestamp < timestamp)?;
        let Some(entry) = entry else { return Ok(base) };
        let offset = base + i64::from(entry.offset);
        let agrees = self.header_at(io, index, offset)?.is_some_and(|header| {
            header.last_offset() == offset && header.max_timestamp == entry.timestamp
        });
        Ok(if agrees { offset } else { base })
    }

    /// The first record of the segment from `from` on, and not below the log start, whose timestamp
    /// is wanted.
    fn first_record(
        &mut self,
        io: &mut I,
        index: usize,
        from: i64,
        is_wanted: impl Fn(i64) -> bool,
    ) -> Result<Option<TimedOffset>, LogError> {
        let from = from.max(self.ends.log_start());
        let (base, limit) = (self.segments[index].base, self.segments[index].bytes);
        let found = self.find(io, index, from, limit, true);
        let start = unwalked(found).map_err(|error| self.failed(base, error))?;
        let mut walk = Walk::new(index, start.unwrap_or(limit), limit, true);
        let (mut bytes, mut scratch) = (Vec::new(), Vec::new());
        loop {
            let peeked = unwalked(walk.peek(self, io)).map_err(|error| self.failed(base, error))?;
            let Some(header) = peeked else { return Ok(None) };
            if is_wanted(header.max_timestamp) {
                bytes.resize(header.bytes(), 0);
                let read = self.read_log(io, index, walk.position, &mut bytes, true);
                unwalked(read).map_err(|error| self.failed(base, error))?;
                let found = record_in(&bytes, &mut scratch, |offset, timestamp| {
                    offset >= self.ends.log_start() && is_wanted(timestamp)
                });
                let found = found.map_err(|error| self.failed(base, error))?;
                if let Some((offset, timestamp)) = found {
                    let leader_epoch = header.partition_leader_epoch;
                    return Ok(Some(TimedOffset { offset, timestamp, leader_epoch }));
                }
            }
            walk.step(&header);
        }
    }

    /// The largest timestamp in a segment, from memory, from its time index, or from its batches.
    pub(crate) fn segment_max_timestamp(
        &mut self,
        io: &mut I,
        index: usize,
    ) -> Result<Option<MaxTimestamp>, LogError> {
        let segment = &self.segments[index];
        let base = segment.base;
        if segment.max_timestamp.is_some() || segment.bytes == 0 {
            return Ok(segment.max_timestamp);
        }
        let found = self.look_up_max(io, index).map_err(|error| self.failed(base, error))?;
        self.segments[index].max_timestamp = found;
        Ok(found)
    }

    fn look_up_max(&mut self, io: &mut I, index: usize) -> io::Result<Option<MaxTimestamp>> {
        let segment = &mut self.segments[index];
        let base = segment.base;
        let path = segment::path(&self.dir, base, ".timeindex");
        let is_finished = base < self.writer.segment;
        let last = segment.times.find_last(io, &path, |_| true)?;
        if let (Some(last), true) = (last, is_finished) {
            let offset = base + i64::from(last.offset);
            if self.header_at(io, index, offset)?.is_some_and(|header| {
                header.last_offset() == offset && header.max_timestamp == last.timestamp
            }) {
                return Ok(Some(MaxTimestamp { timestamp: last.timestamp, offset }));
            }
        }
        self.rebuild_index(io, index)?;
        Ok(self.segments[index].max_timestamp)
    }

    /// The header of the batch that holds `offset`, or of the next one in the segment.
    fn header_at(
        &mut self,
        io: &mut I,
        index: usize,
        offset: i64,
    ) -> io::Result<Option<BatchHeader>> {
        let limit = self.segments[index].bytes;
        match unwalked(self.find(io, index, offset, limit, true))? {
            Some(position) => unwalked(Walk::new(index, position, limit, true).peek(self, io)),
            None => Ok(None),
        }
    }
}

/// The first record of a batch that is wanted: its offset and timestamp.
fn record_in(
    bytes: &[u8],
    scratch: &mut Vec<u8>,
    is_wanted: impl Fn(i64, i64) -> bool,
) -> io::Result<Option<(i64, i64)>> {
    let damaged = |error| io::Error::new(io::ErrorKind::InvalidData, error);
    let (batch, _) = Batch::parse(bytes).map_err(damaged)?;
    for record in batch.records(scratch, DECOMPRESSED_BYTES_MAX).map_err(damaged)? {
        let record = record.map_err(damaged)?;
        if is_wanted(record.offset, record.timestamp) {
            return Ok(Some((record.offset, record.timestamp)));
        }
    }
    Ok(None)
}
