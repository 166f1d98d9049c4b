//! Offsets by time: the first record at or after a timestamp, and the record with the largest.

use std::io;

use millrace_io::Io;

use crate::LogError;
use crate::header::Header;
use crate::partition::PartitionLog;
use crate::read::{Walk, WalkError};
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

impl<I: Io> PartitionLog<I> {
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
    fn header_at(&mut self, io: &mut I, index: usize, offset: i64) -> io::Result<Option<Header>> {
        let limit = self.segments[index].bytes;
        let found = self.find(io, index, offset, limit, true).and_then(|position| match position {
            Some(position) => Walk::new(index, position, limit, true).peek(self, io),
            None => Ok(None),
        });
        match found {
            Ok(header) => Ok(header),
            Err(WalkError::Io(error)) => Err(error),
            Err(WalkError::Cold(_)) => unreachable!("reads may block"),
        }
    }
}
