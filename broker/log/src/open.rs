//! Making a partition's folder, finding it again, and closing it.

use std::collections::VecDeque;
use std::io;
use std::path::{Path, PathBuf};

use millrace_io::{ChunkPool, Io, OpenMode};

use crate::compaction::{base_of, finish_interrupted};
use crate::config::LogConfig;
use crate::ends::Ends;
use crate::epochs::{self, Epochs};
use crate::flush::FlushState;
use crate::partition::PartitionLog;
use crate::producers::Producers;
use crate::read::Cursors;
use crate::recovery::Recovered;
use crate::segment::{self, Segment};
use crate::tail::Tail;
use crate::writer::{Gate, Writer};
use crate::{LogError, Uuid};

const METADATA: &str = "partition.metadata";

/// What the data folder's files say about a partition that is opened.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenHints {
    /// The broker stopped cleanly: what is on disk is taken as it is.
    pub clean: bool,
    /// From the recovery point checkpoint: records below are durable.
    pub recovery_point: Option<i64>,
    /// From the log start checkpoint.
    pub log_start: Option<i64>,
}

impl<I: Io> PartitionLog<I> {
    /// Makes the folder of a new partition; the names in it are durable when this returns.
    pub fn create(
        io: &mut I,
        dir: &Path,
        topic_id: Uuid,
        config: LogConfig,
    ) -> Result<Self, LogError> {
        let on_error = |source| LogError::Io { path: dir.to_owned(), source };
        io.create_dir(dir).map_err(on_error)?;
        io.open(&segment::path(dir, 0, ".log"), OpenMode::ReadWrite).map_err(on_error)?;
        let metadata = format!("version: 0\ntopic_id: {topic_id}\n");
        io.replace_file(&dir.join(METADATA), metadata.as_bytes()).map_err(on_error)?;
        Ok(Self::assemble(dir.to_owned(), topic_id, config, VecDeque::from([Segment::new(0)])))
    }

    /// The topic that a partition's folder belongs to, without opening the partition.
    pub fn read_topic_id(io: &mut I, dir: &Path) -> Result<Uuid, LogError> {
        let path = dir.join(METADATA);
        let text = io.read_file(&path).map_err(|source| LogError::Io { path, source })?;
        let text = String::from_utf8_lossy(&text);
        let id = text.lines().find_map(|line| line.strip_prefix("topic_id: "));
        id.and_then(|id| id.trim().parse().ok()).ok_or_else(|| LogError::Damaged {
            path: dir.join(METADATA),
            what: "no topic id in it",
        })
    }

    /// Opens a partition. Blocks. After an unclean stop the newest segment is scanned and cut where
    /// it ends; a flush (the server's, for all partitions at once, or else the log's own before the
    /// first write) then makes that durable.
    pub fn open(
        io: &mut I,
        dir: &Path,
        config: LogConfig,
        hints: OpenHints,
    ) -> Result<(Self, Recovered), LogError> {
        let topic_id = Self::read_topic_id(io, dir)?;
        let on_error = |source| LogError::Io { path: dir.to_owned(), source };
        let found = Folder::read(io, dir).map_err(on_error)?;
        let mut log = Self::assemble(dir.to_owned(), topic_id, config, found.segments);
        log.producers.set_snapshots(found.snapshots);
        let epochs = io.read_file(&dir.join(epochs::FILE)).ok();
        let epochs = epochs.and_then(|text| Epochs::parse(std::str::from_utf8(&text).ok()?));
        let recovered = log.recover(io, epochs, hints)?;
        Ok((log, recovered))
    }

    fn assemble(
        dir: PathBuf,
        topic_id: Uuid,
        config: LogConfig,
        segments: VecDeque<Segment<I>>,
    ) -> Self {
        let base = segments.back().map_or(0, |segment| segment.base);
        Self {
            dir,
            topic_id,
            partition_index: 0,
            config,
            ends: Ends::empty_at(base),
            segments,
            tail: Tail::new(),
            writer: Writer::at(base, 0),
            flush: FlushState::default(),
            epochs: Epochs::default(),
            producers: Producers::default(),
            cursors: Cursors::default(),
            generation: 0,
            cleaning: None,
            poison: None,
        }
    }

    /// Leaves the folder as a clean start wants it: exact lengths, indexes, snapshot, epochs. All
    /// that was appended must be written and flushed before; blocks.
    pub fn close(&mut self, io: &mut I, pool: &mut ChunkPool) -> Result<(), LogError> {
        if self.poison.is_some() || self.writer.is_busy() {
            return Err(LogError::Busy);
        }
        if self.is_dirty() || self.writer.unwritten_bytes > 0 {
            return Err(LogError::Busy);
        }
        self.close_files(io).map_err(|error| self.failed(self.writer.segment, error))?;
        self.tail.clear(pool);
        self.segments.iter_mut().for_each(Segment::release);
        self.writer.release();
        Ok(())
    }

    fn close_files(&mut self, io: &mut I) -> io::Result<()> {
        let end = self.ends.appended_end();
        let dir = self.dir.clone();
        let index = self.segment_at(self.writer.segment);
        let segment = &mut self.segments[index];
        segment.push_time();
        segment.persist_indexes(io, &dir, end)?;
        let (base, bytes) = (segment.base, segment.bytes);
        if self.writer.prepared > bytes {
            let file = self.open_for_writing(io, base, false)?;
            io.set_file_bytes(&file, bytes)?;
            io.sync(&file)?;
            self.writer.prepared = bytes;
        }
        if self.epochs.last().is_some() {
            self.epochs.replace(io, &dir)?;
        }
        self.snapshot_producers(io, end)
    }

    /// Writes a snapshot of the producers as they are after all records below `end`, and removes
    /// those that nothing needs any more.
    pub(crate) fn snapshot_producers(&mut self, io: &mut I, end: i64) -> io::Result<()> {
        self.producers.snapshot(io, &self.dir, end)?;
        let bases: Vec<i64> = self.segments.iter().map(|segment| segment.base).collect();
        self.producers.prune(io, &self.dir, |offset| bases.binary_search(&offset).is_ok())
    }

    /// Sets the writer to the end of the newest segment, all of which is written.
    pub(crate) fn restart_writer(&mut self, gate: Gate) {
        let active = self.segments.back().expect("never empty");
        let is_buffered = self.writer.is_buffered;
        self.writer = Writer::at(active.base, active.bytes);
        self.writer.is_buffered = is_buffered;
        self.writer.gate = gate;
    }
}

/// What lies in a partition's folder.
struct Folder<I: Io> {
    segments: VecDeque<Segment<I>>,
    snapshots: Vec<i64>,
}

impl<I: Io> Folder<I> {
    /// Lists segments and snapshots, once what was interrupted is finished.
    fn read(io: &mut I, dir: &Path) -> io::Result<Self> {
        finish_interrupted(io, dir)?;
        let mut found = Self { segments: VecDeque::new(), snapshots: Vec::new() };
        for path in io.read_dir(dir)? {
            if let Some(offset) = base_of(&path, ".log") {
                let file = io.open(&path, OpenMode::Read)?;
                let bytes = io.file_bytes(&file)?;
                found.segments.push_back(Segment::found(offset, bytes));
            }
            found.snapshots.extend(base_of(&path, ".snapshot"));
        }
        Ok(found)
    }
}
