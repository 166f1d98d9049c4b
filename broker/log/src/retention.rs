//! Which old segments go, by age, by size and below the log start.

use std::path::PathBuf;

use millrace_io::{ChunkPool, Io};

use crate::LogError;
use crate::partition::PartitionLog;
use crate::recovery::SUFFIXES;
use crate::segment;

/// Segments that left the log. Their files are still there, so reads in flight go on; whoever
/// removes them does so oldest first, in the background.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Retired {
    /// The files, oldest segment first; not all need to exist.
    pub paths: Vec<PathBuf>,
    /// Bytes of log in them.
    pub bytes: u64,
    /// How many segments.
    pub segments: usize,
}

/// Why records could not be deleted.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    /// The offset is above what consumers may see.
    #[error("offset {offset} is above the high watermark {high_watermark}")]
    AboveHighWatermark {
        /// Asked for.
        offset: i64,
        /// The limit.
        high_watermark: i64,
    },
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
}

impl<I: Io> PartitionLog<I> {
    /// Moves the log start up to `offset` and gives up segments that lie below it. An offset at or
    /// below the log start changes nothing. The new start is lasting once it is in the server's
    /// checkpoint.
    pub fn delete_records_before(
        &mut self,
        io: &mut I,
        offset: i64,
    ) -> Result<Retired, DeleteError> {
        let high_watermark = self.high_watermark();
        if offset > high_watermark {
            return Err(DeleteError::AboveHighWatermark { offset, high_watermark });
        }
        if offset > self.ends.log_start() {
            self.ends.start_at(offset);
        }
        let retired = self.retire(|log| log.segments[1].base <= log.ends.log_start());
        self.note_start(io)?;
        Ok(retired)
    }

    /// Gives up segments by `retention.ms` and `retention.bytes`. A segment is as old as the
    /// largest timestamp in it. The active segment goes, too, when all of it is too old: it is
    /// finished first, and given up when this is called again.
    pub fn enforce_retention(
        &mut self,
        io: &mut I,
        pool: &mut ChunkPool,
        wall_ms: i64,
    ) -> Result<Retired, LogError> {
        for segment in &mut self.segments {
            segment.seen_at.get_or_insert(wall_ms);
        }
        let mut expired = 0;
        let removable = self.segment_at(self.writer.segment);
        while expired < removable && self.is_expired(io, expired, wall_ms)? {
            expired += 1;
        }
        let active = self.segments.len() - 1;
        if expired == active && self.poison.is_none() && self.is_expired(io, active, wall_ms)? {
            self.finish_active(io, pool)?;
        }
        let mut excess = self.bytes().saturating_sub(self.config.retention_bytes.max(0) as u64);
        let by_size = self.config.retention_bytes >= 0;
        let retired = self.retire(|log| {
            let bytes = log.segments[0].bytes;
            let is_expired = expired > 0;
            expired = expired.saturating_sub(1);
            let is_excess = by_size && excess >= bytes;
            excess = excess.saturating_sub(bytes);
            is_expired || is_excess || log.segments[1].base <= log.ends.log_start()
        });
        let first = self.segments[0].base;
        if first > self.ends.log_start() {
            self.ends.start_at(first);
        }
        self.note_start(io)?;
        self.producers.expire(wall_ms, self.config.producer_expiration_ms);
        Ok(retired)
    }

    /// Whether the largest timestamp of a segment is older than `retention.ms`. Records of old
    /// producers have none (-1): they age from the moment at which retention first saw them.
    fn is_expired(&mut self, io: &mut I, index: usize, wall_ms: i64) -> Result<bool, LogError> {
        if self.config.retention_ms < 0 {
            return Ok(false);
        }
        let Some(max) = self.segment_max_timestamp(io, index)? else { return Ok(false) };
        let since = match max.timestamp {
            ..0 => self.segments[index].seen_at.unwrap_or(wall_ms),
            timestamp => timestamp,
        };
        Ok(wall_ms.saturating_sub(since) > self.config.retention_ms)
    }

    /// Begins a new segment, so that the active one can go.
    pub(crate) fn finish_active(
        &mut self,
        io: &mut I,
        pool: &mut ChunkPool,
    ) -> Result<(), LogError> {
        let end = self.ends.appended_end();
        let open = match self.writer.is_open {
            true => Ok(()),
            false => self.begin_writing(io, pool),
        };
        open.and_then(|()| self.roll(io, end)).map_err(|error| self.failed(end, error))?;
        self.submit_writes(io);
        Ok(())
    }

    /// Takes segments off the old end while `goes` holds for the first; never one that is written
    /// or being cleaned, which go another time.
    fn retire(&mut self, mut goes: impl FnMut(&Self) -> bool) -> Retired {
        let mut retired = Retired::default();
        while self.cleaning.is_none() && self.segments[0].base < self.writer.segment && goes(self) {
            let gone = self.segments.pop_front().expect("the one being written is behind it");
            let paths = SUFFIXES.map(|suffix| segment::path(&self.dir, gone.base, suffix));
            retired.paths.extend(paths);
            retired.bytes += gone.bytes;
            retired.segments += 1;
        }
        retired
    }

    /// Takes the epochs along after the log start moved.
    fn note_start(&mut self, io: &mut I) -> Result<(), LogError> {
        let start = self.ends.log_start();
        if self.epochs.start_at(start) {
            let replaced = self.epochs.replace(io, &self.dir);
            replaced.map_err(|error| self.failed(start, error))?;
        }
        Ok(())
    }
}
