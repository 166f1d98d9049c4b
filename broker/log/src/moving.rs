//! What a log has to do with its own move to another folder: keeping its files as they are, saying
//! which are finished. Copying them is the [`Copier`]'s, elsewhere.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;

use millrace_io::{ChunkPool, Io, OpenMode};

use crate::LogError;
use crate::compaction::Cleaning;
use crate::partition::PartitionLog;
use crate::recovery::SUFFIXES;
use crate::segment;

/// Bytes that one step copies.
const STEP_BYTES: usize = 1 << 20;

/// How far the files are.
#[derive(Debug, PartialEq, Eq)]
pub enum Finished {
    /// These files of finished segments, and the base of the segment after them.
    Files(Vec<PathBuf>, i64),
    /// A segment is being finished.
    Soon,
    /// All but the newest segment, which has so many bytes.
    AllBut(u64),
}

impl<I: Io> PartitionLog<I> {
    /// From now on no finished segment goes or is written anew, until
    /// [`PartitionLog::end_cleaning`]. Returns whether that is so: a cleaning that is under way
    /// ends first.
    pub fn hold(&mut self) -> bool {
        let is_free = self.cleaning.is_none() && self.poison.is_none();
        if is_free {
            self.cleaning = Some(Cleaning::default());
        }
        is_free
    }

    /// Files of the segments from `base` on that are finished: they are durable and stay as they
    /// are. Not every segment has every index.
    pub fn finished_from(&self, base: i64) -> Finished {
        let bases = self.segments.iter().map(|segment| segment.base);
        let bases = bases.filter(|at| (base..self.writer.segment).contains(at));
        let files = bases.flat_map(|base| SUFFIXES.map(|s| segment::path(&self.dir, base, s)));
        let files: Vec<PathBuf> = files.collect();
        let active = self.segments.back().expect("never empty");
        match files.is_empty() {
            false => Finished::Files(files, self.writer.segment),
            true if active.base > self.writer.segment => Finished::Soon,
            true => Finished::AllBut(active.bytes),
        }
    }

    /// Begins a new segment, so that the present one is finished soon.
    pub fn finish_segment(&mut self, io: &mut I, pool: &mut ChunkPool) -> Result<(), LogError> {
        self.finish_active(io, pool)
    }
}

/// Copies files into a folder, some bytes a step.
pub struct Copier<I: Io> {
    files: VecDeque<PathBuf>,
    to: PathBuf,
    /// The first of `files`, its copy, and how much was copied.
    open: Option<(I::File, I::File, u64)>,
}

impl<I: Io> Copier<I> {
    /// For these files; those that are not there are left out, but for logs.
    pub fn new(files: Vec<PathBuf>, to: PathBuf) -> Self {
        Self { files: files.into(), to, open: None }
    }

    /// Copies some: how many bytes, or `None` when all is copied and durable. Blocks.
    pub fn step(&mut self, io: &mut I) -> io::Result<Option<usize>> {
        let Some((from, copy, position)) = &mut self.open else { return self.begin(io) };
        let mut buffer = vec![0; STEP_BYTES];
        let count = io.read_at(from, *position, &mut buffer)?;
        if count > 0 {
            io.write_at(copy, *position, &buffer[..count])?;
            *position += count as u64;
        } else {
            io.sync(copy)?;
            self.open = None;
            self.files.pop_front();
        }
        Ok(Some(count))
    }

    /// Opens the next file.
    fn begin(&mut self, io: &mut I) -> io::Result<Option<usize>> {
        let Some(path) = self.files.front() else {
            io.sync_dir(&self.to)?;
            return Ok(None);
        };
        match io.open(path, OpenMode::Read) {
            Ok(from) => {
                let name = path.file_name().expect("a file of a partition");
                let copy = io.open(&self.to.join(name), OpenMode::ReadWrite)?;
                self.open = Some((from, copy, 0));
            }
            Err(error)
                if error.kind() == io::ErrorKind::NotFound
                    && path.extension().is_some_and(|extension| extension != "log") =>
            {
                self.files.pop_front();
            }
            Err(error) => return Err(error),
        }
        Ok(Some(0))
    }
}
