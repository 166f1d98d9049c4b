//! Compaction away from the log it is for: reads finished segments, writes what stays of them.
//!
//! Rules of Kafka's `Cleaner`. First the keys of the part that was never cleaned go into a map of
//! bounded size; then all segments up to there are written anew (see `rewrite`), neighbours
//! together up to the size of a segment. The last batch of a new segment stays, be it without
//! records: its end covers the old ones.
//!
//! A new segment is written as `.cleaned`, flushed, and renamed to `.swap`: from then on it counts,
//! whatever happens (see `open`). The log itself puts it in place (see `compaction`).

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use millrace_io::{Io, OpenMode};
use millrace_wire::batch::{Batch, batches, without_records};

use crate::header::{self, HEADER_BYTES, next_offset};
use crate::key_map::KeyMap;
use crate::producers::remove_if_there;
use crate::recovery::SUFFIXES;
use crate::rewrite::{DECOMPRESSED_BYTES_MAX, Rewriter, Rules, damaged, is_of_transaction};
use crate::segment::{self, Segment};

/// The smallest reads and writes.
const BUFFER_BYTES_MIN: usize = 16 << 10;

/// What cleaning may use.
#[derive(Clone, Copy, Debug)]
pub struct CleanLimits {
    /// `log.cleaner.dedupe.buffer.size`: memory of the map of keys.
    pub map_bytes: usize,
    /// `log.cleaner.io.buffer.load.factor`: how full the map may get.
    pub map_load: f64,
    /// `log.cleaner.io.buffer.size`: bytes read and written in one step.
    pub buffer_bytes: usize,
}

/// What one step came to.
pub enum CleanStep<I: Io> {
    /// There is more to do. So many bytes were read.
    More(usize),
    /// A new segment is ready for [`crate::PartitionLog::swap_in`].
    Segment(CleanedSegment<I>),
    /// All is done.
    Done(Cleaned),
}

/// What cleaning has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// Everything below is clean: the next `first_dirty`.
    pub end: i64,
    /// Segments before and after.
    pub segments: (usize, usize),
    /// Their bytes before and after.
    pub bytes: (u64, u64),
}

/// A segment that stands for some old ones.
pub struct CleanedSegment<I: Io> {
    pub(crate) segment: Segment<I>,
    /// The old ones by base: neighbours, the first has the same base.
    pub(crate) replaces: Vec<i64>,
}

/// A finished segment to be cleaned.
pub(crate) struct Source {
    pub(crate) base: i64,
    pub(crate) bytes: u64,
    /// The base of the next.
    pub(crate) end: i64,
}

/// What the log says of the cleaning that it begins.
pub(crate) struct Order {
    pub(crate) dir: PathBuf,
    /// Neighbours, the oldest first.
    pub(crate) sources: Vec<Source>,
    pub(crate) first_dirty: i64,
    pub(crate) delete_retention_ms: i64,
    pub(crate) segment_bytes: u64,
    pub(crate) segment_index_bytes: u64,
    pub(crate) index_interval_bytes: u64,
    pub(crate) wall_ms: i64,
    /// Last offset of each known producer's last batch.
    pub(crate) last_of_producer: HashMap<i64, i64>,
    /// Set when the log is gone.
    pub(crate) stop: Arc<AtomicBool>,
}

/// A cleaning under way, driven by [`Cleaner::step`] on any thread. Dropping it leaves files that
/// the next opening removes.
pub struct Cleaner<I: Io> {
    order: Order,
    map: KeyMap,
    /// The map covers the offsets below.
    map_end: i64,
    is_mapped: bool,
    /// Index of the source that is read, and where in it.
    source: usize,
    input: Option<Input<I>>,
    output: Option<Output<I>>,
    buffer: Vec<u8>,
    buffer_bytes: usize,
    rewriter: Rewriter,
    done: Cleaned,
}

impl<I: Io> Cleaner<I> {
    pub(crate) fn new(order: Order, limits: CleanLimits) -> Self {
        let end = order.sources.last().map_or(order.first_dirty, |last| last.end);
        let keys_max = end.abs_diff(order.first_dirty);
        Self {
            map: KeyMap::new(limits.map_bytes, limits.map_load, keys_max),
            map_end: order.first_dirty,
            is_mapped: false,
            source: order.sources.partition_point(|source| source.end <= order.first_dirty),
            input: None,
            output: None,
            buffer: Vec::new(),
            buffer_bytes: limits.buffer_bytes.max(BUFFER_BYTES_MIN),
            rewriter: Rewriter::default(),
            done: Cleaned::default(),
            order,
        }
    }

    /// Does a piece of the work: about a buffer full. After an error nothing more can be done; of
    /// kind `InvalidData` when a segment is damaged, `Interrupted` when the log is gone. Blocks.
    pub fn step(&mut self, io: &mut I) -> io::Result<CleanStep<I>> {
        if self.order.stop.load(Ordering::Acquire) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        let stepped = if self.is_mapped { self.copy(io) } else { self.map_keys(io) };
        if stepped.is_err()
            && let Some(output) = self.output.take()
        {
            for suffix in SUFFIXES {
                let cleaned = output.path(suffix);
                // What stays of the first is removed when the partition is opened again.
                drop(io.remove_file(&cleaned.with_extension("swap")));
                drop(io.remove_file(&cleaned));
            }
        }
        stepped
    }

    /// The next batches of the present source, opened if need be; `None` when it has no more.
    fn read(&mut self, io: &mut I) -> io::Result<Option<usize>> {
        let source = &self.order.sources[self.source];
        let input = match &mut self.input {
            Some(input) => input,
            none => {
                let path = segment::path(&self.order.dir, source.base, ".log");
                let file = io.open(&path, OpenMode::Read)?;
                none.insert(Input { file, position: 0, limit: source.bytes })
            }
        };
        let bytes = input.next(io, &mut self.buffer, self.buffer_bytes)?;
        if bytes == 0 {
            self.input = None;
            self.source += 1;
        }
        Ok((bytes > 0).then_some(bytes))
    }

    fn map_keys(&mut self, io: &mut I) -> io::Result<CleanStep<I>> {
        let mut is_full = false;
        if self.source < self.order.sources.len() {
            let bytes = self.read(io)?.unwrap_or(0);
            let buffer = std::mem::take(&mut self.buffer);
            for batch in batches(&buffer[..bytes]) {
                let batch = batch.map_err(damaged)?;
                batch.verify_crc().map_err(damaged)?;
                is_full = !self.map_batch(&batch)?;
                if is_full {
                    break;
                }
            }
            self.buffer = buffer;
            if !is_full {
                return Ok(CleanStep::More(bytes));
            }
        }
        // What lies beyond the map is for another time.
        let end = self.map_end;
        self.order.sources.retain(|source| source.base < end);
        let bytes = self.order.sources.iter().map(|source| source.bytes).sum();
        self.done = Cleaned { end, segments: (self.order.sources.len(), 0), bytes: (bytes, 0) };
        (self.is_mapped, self.source, self.input) = (true, 0, None);
        Ok(CleanStep::More(0))
    }

    /// Returns false when the map is full.
    fn map_batch(&mut self, batch: &Batch<'_>) -> io::Result<bool> {
        let header = batch.header();
        if header.last_offset() < self.order.first_dirty {
            return Ok(true);
        }
        if !is_of_transaction(header) {
            let scratch = &mut self.rewriter.scratch;
            let records = batch.records(scratch, DECOMPRESSED_BYTES_MAX).map_err(damaged)?;
            for record in records {
                let record = record.map_err(damaged)?;
                if let Some(key) = record.key
                    && record.offset >= self.order.first_dirty
                {
                    if !self.map.put(key, record.offset) {
                        return Ok(false);
                    }
                    self.map_end = record.offset + 1;
                }
            }
        }
        self.map_end = next_offset(header);
        Ok(true)
    }

    fn copy(&mut self, io: &mut I) -> io::Result<CleanStep<I>> {
        if self.input.is_none() {
            match self.order.sources.get(self.source) {
                Some(source) => {
                    let index = segment::path(&self.order.dir, source.base, ".index");
                    let index_bytes = match io.open(&index, OpenMode::Read) {
                        Ok(file) => io.file_bytes(&file)?,
                        Err(_) => 0,
                    };
                    let fits = |output: &Output<I>| output.takes(source, index_bytes, &self.order);
                    match &mut self.output {
                        Some(output) if fits(output) => output.replaces.push(source.base),
                        Some(_) => return self.finish(io),
                        None => self.output = Some(Output::begin(io, &self.order, source.base)?),
                    }
                }
                None if self.output.is_some() => return self.finish(io),
                None => return Ok(CleanStep::Done(self.done)),
            }
        }
        let bytes = self.read(io)?.unwrap_or(0);
        let output = self.output.as_mut().expect("begun with the input");
        for batch in batches(&self.buffer[..bytes]) {
            let batch = batch.map_err(damaged)?;
            batch.verify_crc().map_err(damaged)?;
            let rules = Rules {
                map: &self.map,
                map_end: self.map_end,
                wall_ms: self.order.wall_ms,
                delete_retention_ms: self.order.delete_retention_ms,
                last_of_producer: &self.order.last_of_producer,
            };
            let kept = self.rewriter.rewrite(&rules, &batch)?;
            output.last = without_records(batch.bytes());
            output.push(kept, &self.order);
        }
        output.write(io)?;
        Ok(CleanStep::More(bytes))
    }

    /// Ends a new segment: complete, durable, and named so that it counts.
    fn finish(&mut self, io: &mut I) -> io::Result<CleanStep<I>> {
        let mut output = self.output.take().expect("the caller looked");
        let finished = output.finish(io, &self.order);
        if let Err(error) = finished {
            self.output = Some(output);
            return Err(error);
        }
        self.done.segments.1 += 1;
        self.done.bytes.1 += output.segment.bytes;
        let Output { segment, replaces, .. } = output;
        Ok(CleanStep::Segment(CleanedSegment { segment, replaces }))
    }
}

/// A segment that is read.
struct Input<I: Io> {
    file: I::File,
    position: u64,
    limit: u64,
}

impl<I: Io> Input<I> {
    /// Puts whole batches into the buffer, about `wanted` bytes; returns how many, 0 at the end.
    fn next(&mut self, io: &mut I, buffer: &mut Vec<u8>, mut wanted: usize) -> io::Result<usize> {
        let cut = || damaged("a segment ends within a batch");
        loop {
            let left = self.limit - self.position;
            if left == 0 {
                return Ok(0);
            }
            buffer.resize(wanted.min(usize::try_from(left).unwrap_or(usize::MAX)), 0);
            if io.read_at(&self.file, self.position, buffer)? != buffer.len() {
                return Err(cut());
            }
            let mut whole = 0;
            while buffer.len() - whole >= HEADER_BYTES {
                let header = header::parse(&buffer[whole..]);
                let bytes =
                    header.ok_or_else(|| damaged("no batch where one should begin"))?.bytes();
                if bytes as u64 > left - whole as u64 {
                    return Err(cut());
                }
                if bytes > buffer.len() - whole {
                    wanted = wanted.max(bytes);
                    break;
                }
                whole += bytes;
            }
            if whole > 0 {
                self.position += whole as u64;
                return Ok(whole);
            }
            if buffer.len() < HEADER_BYTES {
                return Err(cut());
            }
        }
    }
}

/// A new segment that is written.
struct Output<I: Io> {
    dir: PathBuf,
    file: I::File,
    segment: Segment<I>,
    /// The offset after its last batch.
    end: i64,
    replaces: Vec<i64>,
    /// What would be left of the last batch read without its records.
    last: [u8; HEADER_BYTES],
    pending: Vec<u8>,
}

impl<I: Io> Output<I> {
    fn begin(io: &mut I, order: &Order, base: i64) -> io::Result<Self> {
        let path = |suffix: &str| segment::path(&order.dir, base, &format!("{suffix}.cleaned"));
        SUFFIXES.iter().try_for_each(|suffix| remove_if_there(io, &path(suffix)))?;
        Ok(Self {
            dir: order.dir.clone(),
            file: io.open(&path(".log"), OpenMode::ReadWrite)?,
            segment: Segment::new(base),
            end: base,
            replaces: vec![base],
            last: [0; HEADER_BYTES],
            pending: Vec::new(),
        })
    }

    fn path(&self, suffix: &str) -> PathBuf {
        segment::path(&self.dir, self.segment.base, &format!("{suffix}.cleaned"))
    }

    /// Whether another segment goes in, too.
    fn takes(&self, source: &Source, index_bytes: u64, order: &Order) -> bool {
        self.segment.bytes + source.bytes <= order.segment_bytes
            && self.segment.offsets.bytes() + index_bytes <= order.segment_index_bytes
            && source.end - self.segment.base <= i64::from(i32::MAX)
    }

    fn push(&mut self, batch: &[u8], order: &Order) {
        if let Some(header) = header::parse(batch) {
            self.segment.append(&header, order.index_interval_bytes);
            self.end = next_offset(&header);
            self.pending.extend_from_slice(batch);
        }
    }

    fn write(&mut self, io: &mut I) -> io::Result<()> {
        let position = self.segment.bytes - self.pending.len() as u64;
        io.write_at(&self.file, position, &self.pending)?;
        self.pending.clear();
        Ok(())
    }

    fn finish(&mut self, io: &mut I, order: &Order) -> io::Result<()> {
        // Recovery knows by the end which old segments this one stands for.
        let last = self.last;
        let end = header::parse(&last).map_or(0, |header| next_offset(&header));
        if self.end < end {
            self.push(&last, order);
        }
        self.write(io)?;
        self.segment.push_time();
        let Segment { offsets, times, base, .. } = &mut self.segment;
        let path = |suffix: &str| segment::path(&order.dir, *base, &format!("{suffix}.cleaned"));
        offsets.persist(io, &path(".index"), |_| true)?;
        times.persist(io, &path(".timeindex"), |_| true)?;
        self.copy_aborted(io, order)?;
        // The log last: with it the others count.
        for suffix in SUFFIXES.iter().rev() {
            let cleaned = self.path(suffix);
            let file = match io.open(&cleaned, OpenMode::Read) {
                Err(error) if error.kind() == io::ErrorKind::NotFound && *suffix != ".log" => {
                    continue;
                }
                opened => opened?,
            };
            io.sync(&file)?;
            if order.stop.load(Ordering::Acquire) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            io.rename(&cleaned, &cleaned.with_extension("swap"))?;
        }
        io.sync_dir(&order.dir)
    }

    /// The index of aborted transactions, whose batches are all still there.
    fn copy_aborted(&self, io: &mut I, order: &Order) -> io::Result<()> {
        let mut entries = Vec::new();
        for base in &self.replaces {
            let found = io.read_file(&segment::path(&order.dir, *base, ".txnindex"));
            entries.extend(found.unwrap_or_default());
        }
        if entries.is_empty() {
            return Ok(());
        }
        let file = io.open(&self.path(".txnindex"), OpenMode::ReadWrite)?;
        io.write_at(&file, 0, &entries)?;
        io.set_file_bytes(&file, entries.len() as u64)
    }
}
