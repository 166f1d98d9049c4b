//! What a log has to do with its own compaction: saying when it is worth it, and taking in the new
//! segments. The work between is the [`Cleaner`]'s, elsewhere.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millrace_io::{ChunkPool, Io, OpenMode};

use crate::LogError;
use crate::cleaner::{CleanLimits, CleanedSegment, Cleaner, Order, Source};
use crate::header::{self, HEADER_BYTES, next_offset};
use crate::partition::PartitionLog;
use crate::producers::remove_if_there;
use crate::read::Cursors;
use crate::recovery::{SUFFIXES, remove_segment_files};
use crate::segment;

/// That a log is being cleaned: none of its old segments goes meanwhile. Dropped with the log, it
/// stops the work.
#[derive(Debug, Default)]
pub(crate) struct Cleaning {
    stop: Arc<AtomicBool>,
}

impl Drop for Cleaning {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}

/// A part of a log that is worth cleaning.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dirt {
    /// Share of bytes not cleaned yet: the dirtiest log goes first.
    pub ratio: f64,
    first_dirty: i64,
    /// The base of the first segment that is not cleaned.
    end: i64,
}

impl<I: Io> PartitionLog<I> {
    /// Whether the log is worth cleaning now, by its topic's settings (Kafka:
    /// `LogCleanerManager.grabFilthiestCompactedLog`). `first_dirty` is the end of the last
    /// cleaning. May block, on indexes.
    pub fn dirt(
        &mut self,
        io: &mut I,
        first_dirty: Option<i64>,
        wall_ms: i64,
    ) -> Result<Option<Dirt>, LogError> {
        let Some(rules) = self.config.compaction else { return Ok(None) };
        // Segments before the one that is written are finished and durable.
        let finished = self.segment_at(self.writer.segment);
        if finished == 0 || self.cleaning.is_some() || self.poison.is_some() {
            return Ok(None);
        }
        let (oldest, end) = (self.segments[0].base, self.segments[finished].base);
        // One that lies elsewhere is of a log that was cut.
        let first_dirty = first_dirty.filter(|at| (oldest..=end).contains(at)).unwrap_or(oldest);
        let first = self.segments.range(1..).take_while(|next| next.base <= first_dirty).count();
        let open_transaction = self.producers.first_open_transaction();
        let (mut segments, mut is_overdue) = (first, false);
        while segments < finished {
            let is_open = |at: i64| at < self.segments[segments + 1].base;
            if open_transaction.is_some_and(is_open) {
                break;
            }
            let max = match rules.lag_ms_min {
                0 => None,
                _ => self.segment_max_timestamp(io, segments)?,
            };
            if max.is_some_and(|max| max.timestamp > wall_ms.saturating_sub(rules.lag_ms_min)) {
                break;
            }
            if rules.lag_ms_max != i64::MAX {
                let begun = self.first_timestamp_of(io, segments)?;
                let overdue = 1..wall_ms.saturating_sub(rules.lag_ms_max);
                is_overdue |= begun.is_some_and(|at| overdue.contains(&at));
            }
            segments += 1;
        }
        let bytes = |range| self.segments.range(range).map(|segment| segment.bytes).sum::<u64>();
        let dirty = bytes(first..segments);
        let ratio = dirty as f64 / bytes(0..segments).max(1) as f64;
        let is_worth_it = dirty > 0 && (is_overdue || ratio > rules.dirty_ratio_min);
        let end = self.segments[segments].base;
        Ok(is_worth_it.then_some(Dirt { ratio, first_dirty, end }))
    }

    /// The largest timestamp of a segment's first batch: the time that Kafka takes for its age.
    fn first_timestamp_of(&mut self, io: &mut I, index: usize) -> Result<Option<i64>, LogError> {
        let base = self.segments[index].base;
        let read = self.segments[index].file(io, &self.dir).and_then(|file| {
            let mut start = [0; HEADER_BYTES];
            io.read_at(&file, 0, &mut start)?;
            Ok(header::parse(&start).map(|header| header.max_timestamp))
        });
        read.map_err(|error| self.failed(base, error))
    }

    /// Begins the cleaning that [`PartitionLog::dirt`] found worth it, if it still holds.
    /// Until [`PartitionLog::end_cleaning`] no old segment is given up.
    pub fn begin_cleaning(
        &mut self,
        dirt: Dirt,
        limits: CleanLimits,
        wall_ms: i64,
    ) -> Option<Cleaner<I>> {
        let rules = self.config.compaction?;
        if self.cleaning.is_some() || self.poison.is_some() {
            return None;
        }
        let next = self.segments.range(1..).map(|next| next.base);
        let sources = self.segments.iter().zip(next).take_while(|(_, end)| *end <= dirt.end);
        let sources = sources
            .map(|(segment, end)| Source { base: segment.base, bytes: segment.bytes, end })
            .collect();
        let cleaning = self.cleaning.insert(Cleaning::default());
        let order = Order {
            dir: self.dir.clone(),
            sources,
            first_dirty: dirt.first_dirty,
            delete_retention_ms: rules.delete_retention_ms,
            segment_bytes: self.config.segment_bytes,
            segment_index_bytes: self.config.segment_index_bytes,
            index_interval_bytes: self.config.index_interval_bytes,
            wall_ms,
            last_of_producer: self.producers.last_offsets().collect(),
            stop: Arc::clone(&cleaning.stop),
        };
        Some(Cleaner::new(order, limits))
    }

    /// Puts a new segment in the place of those that it stands for. Returns files to be removed,
    /// which reads in flight may still use.
    pub fn swap_in(
        &mut self,
        io: &mut I,
        pool: &mut ChunkPool,
        cleaned: CleanedSegment<I>,
    ) -> Result<Vec<PathBuf>, LogError> {
        if self.poison.is_some() || self.cleaning.is_none() {
            // The next opening does it.
            return Ok(Vec::new());
        }
        let CleanedSegment { mut segment, replaces } = cleaned;
        let first = self.segment_at(segment.base);
        let bases = self.segments.range(first..).map(|old| old.base).take(replaces.len());
        assert!(bases.eq(replaces.iter().copied()), "nothing goes while a log is cleaned");
        let retired = retire_files(io, &self.dir, &replaces)
            .and_then(|retired| put_in_place(io, &self.dir, segment.base).map(|()| retired));
        let retired = retired.map_err(|error| {
            self.stop("putting a cleaned segment in place", &error);
            self.failed(segment.base, error)
        })?;
        segment.release();
        drop(self.segments.drain(first..first + replaces.len()));
        self.segments.insert(first, segment);
        self.tail.forget_below(pool, self.segments[first + 1].base);
        self.cursors = Cursors::default();
        Ok(retired)
    }

    /// The cleaning that was begun has ended, well or not.
    pub fn end_cleaning(&mut self) {
        self.cleaning = None;
    }
}

/// Renames the files of old segments, so that they do not come back; returns their new names.
fn retire_files<I: Io>(io: &mut I, dir: &Path, bases: &[i64]) -> io::Result<Vec<PathBuf>> {
    let mut retired = Vec::new();
    for base in bases {
        for suffix in SUFFIXES {
            let path = segment::path(dir, *base, suffix);
            let gone = path.with_added_extension("deleted");
            match io.rename(&path, &gone) {
                Ok(()) => retired.push(gone),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(retired)
}

/// Gives the files of a new segment their names, the log last.
fn put_in_place<I: Io>(io: &mut I, dir: &Path, base: i64) -> io::Result<()> {
    for suffix in SUFFIXES.iter().rev() {
        let path = segment::path(dir, base, suffix);
        match io.rename(&path.with_added_extension("swap"), &path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound && *suffix != ".log" => {}
            renamed => renamed?,
        }
    }
    Ok(())
}

/// Before a folder is read: puts in place what was ready when the last process ended, and removes
/// what was on its way out or never finished.
pub(crate) fn finish_interrupted<I: Io>(io: &mut I, dir: &Path) -> io::Result<()> {
    let names = io.read_dir(dir)?;
    let ends_with = |path: &Path, end: &str| path.to_string_lossy().ends_with(end);
    let (unfinished, names): (Vec<PathBuf>, Vec<PathBuf>) = names
        .into_iter()
        .partition(|path| ends_with(path, ".deleted") || ends_with(path, ".cleaned"));
    unfinished.iter().try_for_each(|path| io.remove_file(path))?;
    let bases: Vec<i64> = names.iter().filter_map(|path| base_of(path, ".log")).collect();
    for base in names.iter().filter_map(|path| base_of(path, ".log.swap")) {
        let end = end_of_segment(io, &segment::path(dir, base, ".log.swap"))?;
        for old in bases.iter().filter(|old| (base + 1..end).contains(*old)) {
            remove_segment_files(io, dir, *old)?;
        }
        put_in_place(io, dir, base)?;
    }
    let mut changed = !unfinished.is_empty();
    // Those without a log were not ready.
    for path in names.iter().filter(|path| ends_with(path, ".swap")) {
        remove_if_there(io, path)?;
        changed = true;
    }
    if changed { io.sync_dir(dir) } else { Ok(()) }
}

/// The base offset in the name of a segment's file with this suffix.
pub(crate) fn base_of(path: &Path, suffix: &str) -> Option<i64> {
    let digits = path.file_name()?.to_str()?.strip_suffix(suffix)?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten()
}

/// The offset after the last batch of a file that was flushed whole.
fn end_of_segment<I: Io>(io: &mut I, path: &Path) -> io::Result<i64> {
    let file = io.open(path, OpenMode::Read)?;
    let bytes = io.file_bytes(&file)?;
    let (mut position, mut end) = (0, 0);
    while position < bytes {
        let mut start = [0; HEADER_BYTES];
        io.read_at(&file, position, &mut start)?;
        let header = header::parse(&start).ok_or(io::ErrorKind::InvalidData)?;
        position += header.bytes() as u64;
        end = next_offset(&header);
    }
    Ok(end)
}
