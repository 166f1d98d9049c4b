//! Cutting the newest end off, and starting anew at an offset: ordinary operations of a replica,
//! and of a leader whose disk is full.

use std::io;

use millrace_io::{ChunkPool, Io};

use crate::LogError;
use crate::ends::Ends;
use crate::epochs::Epochs;
use crate::partition::PartitionLog;
use crate::read::{Cursors, Walk, unwalked};
use crate::recovery::remove_segment_files;
use crate::segment::Segment;
use crate::writer::Gate;

impl<I: Io> PartitionLog<I> {
    /// Forgets all records from `offset` on; when it lies within a batch, the whole batch goes.
    /// [`LogError::Busy`] while the kernel works on the file or bytes below `offset` are not
    /// written: ask again after the next completion. Blocks, and is durable when it returns.
    pub fn truncate_to(
        &mut self,
        io: &mut I,
        pool: &mut ChunkPool,
        offset: i64,
    ) -> Result<(), LogError> {
        if offset >= self.ends.appended_end() {
            return Ok(());
        }
        let unwritten = self.writer.unwritten_bytes > 0 && offset > self.ends.written_end();
        let is_cleaned = self.cleaning.is_some();
        if self.poison.is_some() || self.writer.is_busy() || unwritten || is_cleaned {
            return Err(LogError::Busy);
        }
        if offset < self.ends.log_start() {
            return self.truncate_fully_and_start_at(io, pool, offset);
        }
        let cut = self.cut(io, pool, offset);
        if let Err(error) = &cut {
            self.stop("a truncation", &io::Error::other(error.to_string()));
        }
        cut
    }

    /// Forgets all records from `offset` on. The file is quiet.
    pub(crate) fn cut(
        &mut self,
        io: &mut I,
        pool: &mut ChunkPool,
        offset: i64,
    ) -> Result<(), LogError> {
        let base = self.segments[self.segment_of(offset)].base;
        self.cut_at(io, pool, offset).map_err(|error| self.failed(base, error))
    }

    fn cut_at(&mut self, io: &mut I, pool: &mut ChunkPool, offset: i64) -> io::Result<()> {
        assert!(!self.writer.is_busy(), "nothing is in flight");
        self.cursors = Cursors::default();
        // A segment that is in memory only goes, too: the one before it is not finished yet.
        let index = self.segment_of(offset).min(self.segment_at(self.writer.segment));
        let limit = self.segments[index].bytes;
        let position = unwalked(self.find(io, index, offset, limit, true))?.unwrap_or(limit);
        let first = unwalked(Walk::new(index, position, limit, true).peek(self, io))?;
        let end = first.map_or(offset, |first| first.base_offset.min(offset));
        let end = end.max(self.ends.log_start());
        self.writer.forget_unwritten();
        self.tail.clear(pool);
        while self.segments.len() > index + 1 {
            let gone = self.segments.pop_back().expect("more than one");
            remove_segment_files(io, &self.dir, gone.base)?;
        }
        let base = self.segments[index].base;
        let file = self.open_for_writing(io, base, false)?;
        io.set_file_bytes(&file, position)?;
        // Before anything is written in the old place, and before an epoch is noted that began
        // there.
        io.sync(&file)?;
        io.sync_dir(&self.dir)?;
        self.segments[index].truncate(io, &self.dir, end, position)?;
        self.segments[index].set_file(file);
        self.walk_to_end(io)?.ok_or(io::ErrorKind::InvalidData)?;
        self.ends.truncate_to(end);
        self.generation = self.generation.wrapping_add(1);
        let refused_at = self.writer.refused_at;
        self.restart_writer(Gate::Open);
        self.writer.refused_at = refused_at;
        if self.epochs.truncate_to(end) {
            self.epochs.replace(io, &self.dir)?;
        }
        self.restore_producers(io)
    }

    /// Forgets everything; the next record has this offset. Same conditions as
    /// [`PartitionLog::truncate_to`].
    pub fn truncate_fully_and_start_at(
        &mut self,
        io: &mut I,
        pool: &mut ChunkPool,
        offset: i64,
    ) -> Result<(), LogError> {
        if self.poison.is_some() || self.writer.is_busy() || self.cleaning.is_some() {
            return Err(LogError::Busy);
        }
        self.writer.forget_unwritten();
        self.tail.clear(pool);
        self.start_over(io, offset)
    }

    /// Removes all segments and makes an empty one.
    pub(crate) fn start_over(&mut self, io: &mut I, offset: i64) -> Result<(), LogError> {
        self.make_empty_at(io, offset).map_err(|error| self.failed(offset, error))
    }

    fn make_empty_at(&mut self, io: &mut I, offset: i64) -> io::Result<()> {
        while let Some(gone) = self.segments.pop_back() {
            remove_segment_files(io, &self.dir, gone.base)?;
        }
        self.segments.push_back(Segment::new(offset));
        self.ends = Ends::empty_at(offset);
        self.generation = self.generation.wrapping_add(1);
        self.cursors = Cursors::default();
        self.flush.restart();
        self.restart_writer(Gate::Open);
        self.epochs = Epochs::default();
        self.epochs.replace(io, &self.dir)?;
        self.producers.load(io, &self.dir, -1)?;
        self.open_for_writing(io, offset, true)?;
        Ok(())
    }
}
