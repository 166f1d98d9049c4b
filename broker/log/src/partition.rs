//! [`PartitionLog`]: the parts of one partition and what the outside may ask of them.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use millrace_io::{ChunkPool, Io};

use crate::compaction::Cleaning;
use crate::config::LogConfig;
use crate::ends::Ends;
use crate::epochs::Epochs;
use crate::flush::FlushState;
use crate::header;
use crate::producers::{ProducerCheck, ProducerState, Producers};
use crate::read::Cursors;
use crate::segment::Segment;
use crate::tail::Tail;
use crate::writer::Writer;
use crate::{LogError, Uuid};

/// Why a log stopped: a write or a flush failed, and what is on disk is no longer known. It stays
/// so until the process is restarted and the log recovered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what} failed: {error}")]
pub struct Poison {
    /// The operation.
    pub what: &'static str,
    /// The system's words.
    pub error: String,
}

/// One partition: its segments on disk, its newest bytes in memory, and how far each is.
///
/// Owned by one thread. Completions of the operations it submits are brought to
/// [`PartitionLog::on_completed`].
pub struct PartitionLog<I: Io> {
    pub(crate) dir: PathBuf,
    pub(crate) topic_id: Uuid,
    pub(crate) partition_index: u32,
    pub(crate) config: LogConfig,
    pub(crate) ends: Ends,
    /// Invariant: never empty, sorted by base; the last one takes appends.
    pub(crate) segments: VecDeque<Segment<I>>,
    pub(crate) tail: Tail,
    pub(crate) writer: Writer,
    pub(crate) flush: FlushState,
    pub(crate) epochs: Epochs,
    pub(crate) producers: Producers,
    pub(crate) cursors: Cursors,
    /// Grows with every truncation, so that a flush begun before one is not believed after it.
    pub(crate) generation: u32,
    /// While it is, no finished segment leaves the list.
    pub(crate) cleaning: Option<Cleaning>,
    pub(crate) poison: Option<Poison>,
}

impl<I: Io> PartitionLog<I> {
    /// Gives the log the index under which its shard finds it again from a token.
    pub fn set_index(&mut self, partition_index: u32) {
        self.partition_index = partition_index;
    }

    /// The folder of the partition.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The folder was renamed: files are opened there from now on.
    pub fn set_dir(&mut self, dir: PathBuf) {
        self.dir = dir;
    }

    /// The topic that the folder belongs to.
    pub fn topic_id(&self) -> Uuid {
        self.topic_id
    }

    /// The settings in force.
    pub fn config(&self) -> &LogConfig {
        &self.config
    }

    /// Changes the settings, for what is appended and deleted from now on.
    pub fn set_config(&mut self, config: LogConfig) {
        self.config = config;
    }

    /// All four ends.
    pub fn ends(&self) -> Ends {
        self.ends
    }

    /// The first offset that may be read.
    pub fn log_start(&self) -> i64 {
        self.ends.log_start()
    }

    /// Records below survive a power cut.
    pub fn durable_end(&self) -> i64 {
        self.ends.durable_end()
    }

    /// Records below survive the end of this process.
    pub fn written_end(&self) -> i64 {
        self.ends.written_end()
    }

    /// The next offset to be given out.
    pub fn appended_end(&self) -> i64 {
        self.ends.appended_end()
    }

    /// What consumers may see. With one replica: everything written.
    pub fn high_watermark(&self) -> i64 {
        self.ends.written_end()
    }

    /// The leader epoch of the newest batch.
    pub fn last_epoch(&self) -> Option<i32> {
        self.epochs.last().map(|(epoch, _)| epoch)
    }

    /// The leader epoch of the record at `offset`.
    pub fn epoch_at(&self, offset: i64) -> Option<i32> {
        self.epochs.at(offset)
    }

    /// The largest epoch known that is not above `epoch`, and the offset where it ends: the answer
    /// of `OffsetForLeaderEpoch`. `None` when nothing is known.
    pub fn end_offset_for_epoch(&self, epoch: i32) -> Option<(i32, i64)> {
        self.epochs.end_offset_for(epoch, self.ends.appended_end())
    }

    /// What the sequence numbers of a batch say about appending it. Ask right before
    /// [`PartitionLog::append`], with the whole batch or its header; one that cannot be read is
    /// left to `append` to refuse.
    pub fn check_producer(&self, batch: &[u8]) -> ProducerCheck {
        header::parse(batch).map_or(ProducerCheck::Append, |header| self.producers.check(&header))
    }

    /// The producers known.
    pub fn producers(&self) -> impl Iterator<Item = ProducerState> + '_ {
        self.producers.states()
    }

    /// Why the log stopped, if it did.
    pub fn poison(&self) -> Option<&Poison> {
        self.poison.as_ref()
    }

    /// Bytes of log in all segments.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Bytes appended and not yet written: what memory holds for this partition by necessity.
    pub fn unwritten_bytes(&self) -> u64 {
        self.writer.unwritten_bytes
    }

    /// Segments on disk, the active one included.
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// Whether operations are in flight whose completions this log must see: until then its index
    /// is not given to another.
    pub fn is_busy(&self) -> bool {
        self.writer.is_busy() || self.flush.is_in_flight()
    }

    /// Memory held for this partition: chunks, indexes not yet in their files, producers.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>()
            + self.tail.memory_bytes()
            + self.segments.iter().map(Segment::memory_bytes).sum::<usize>()
            + self.producers.memory_bytes()
    }

    /// Files held open.
    pub fn open_files(&self) -> usize {
        self.segments.iter().map(Segment::open_files).sum()
    }

    /// Gives memory and, when everything is durable, file descriptors back. For a partition that
    /// nobody used for a while; the next use opens and reads what it needs. Returns whether the
    /// partition is now down to its least.
    pub fn release_idle(&mut self, io: &mut I, pool: &mut ChunkPool) -> Result<bool, LogError> {
        if self.poison.is_some() || self.writer.is_busy() || self.writer.unwritten_bytes > 0 {
            return Ok(false);
        }
        self.tail.shrink(pool);
        self.writer.release();
        self.cursors = Cursors::default();
        let durable = self.ends.durable_end() == self.ends.written_end();
        if durable {
            self.persist_hints(io)?;
            self.segments.iter_mut().for_each(Segment::release);
            self.segments.shrink_to_fit();
        }
        Ok(durable)
    }

    /// Stops serving: nothing is submitted any more and appends are refused.
    pub(crate) fn stop(&mut self, what: &'static str, error: &std::io::Error) {
        self.poison.get_or_insert(Poison { what, error: error.to_string() });
    }

    /// The place of the segment with this base.
    pub(crate) fn segment_at(&self, base: i64) -> usize {
        let index = self.segments.partition_point(|segment| segment.base < base);
        assert!(self.segments[index].base == base, "a segment in use is in the list");
        index
    }

    /// An I/O error and the file it is about.
    pub(crate) fn failed(&self, base: i64, source: std::io::Error) -> LogError {
        LogError::Io { path: crate::segment::path(&self.dir, base, ".log"), source }
    }
}
