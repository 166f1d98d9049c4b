//! What is on disk after any stop: where the log ends, and what is known of it.
//!
//! A segment is written only after its predecessor was finished and flushed, so only the newest
//! segment that holds a whole batch can end in doubt. Its index file points only at durable
//! batches, so the scan begins at the last entry whose batch checks out. The log ends at the first
//! batch that is not whole; what lies behind is cut off, a hole is never passed.

use std::io;

use millrace_io::Io;
use millrace_wire::batch::position;

use crate::LogError;
use crate::ends::Ends;
use crate::epochs::Epochs;
use crate::header::{self, BatchHeader, HEADER_BYTES, is_intact, next_offset};
use crate::open::OpenHints;
use crate::partition::PartitionLog;
use crate::producers::remove_if_there;
use crate::read::{Walk, unwalked};
use crate::segment::{self, MaxTimestamp, Segment};
use crate::writer::Gate;

/// Why the log ends where recovery says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CutReason {
    /// A length that no batch has, or that goes beyond the file.
    Length,
    /// The CRC is wrong: written in part.
    Crc,
    /// A batch with an offset below its predecessor's end: an old one in a place used again.
    Offset,
    /// Zeros where the next batch would begin: never written.
    NeverWritten,
}

/// What recovery took away.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cut {
    /// The segment.
    pub segment: i64,
    /// The log's end in it.
    pub position: u64,
    /// Bytes of the file behind the end.
    pub bytes: u64,
    /// What was found at the end.
    pub reason: CutReason,
}

/// What opening a partition had to do.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Recovered {
    /// Bytes whose CRC was checked.
    pub scanned_bytes: u64,
    /// Where the file was longer than the log. Prepared space that was never written is no loss.
    pub cut: Option<Cut>,
    /// Younger segments without a whole batch at their start, removed.
    pub removed_segments: usize,
    /// An older segment has bytes that are no batches: reads of them fail, and what is known of
    /// epochs and producers may lack what they held.
    pub is_damaged: bool,
}

impl Recovered {
    /// Whether bytes were cut that were written once.
    pub fn is_loss(&self) -> bool {
        self.cut.is_some_and(|cut| cut.reason != CutReason::NeverWritten)
    }
}

/// Bytes read at once by a scan.
const SCAN_BYTES: usize = 1 << 20;

impl<I: Io> PartitionLog<I> {
    /// Finds the end, the epochs and the producers of a log whose segments were listed.
    pub(crate) fn recover(
        &mut self,
        io: &mut I,
        epochs: Option<Epochs>,
        hints: OpenHints,
    ) -> Result<Recovered, LogError> {
        let mut recovered = Recovered::default();
        let is_missing = epochs.is_none();
        self.epochs = epochs.unwrap_or_default();
        if self.segments.is_empty() {
            self.start_over(io, hints.log_start.unwrap_or(0))?;
            return Ok(recovered);
        }
        let fail = |log: &Self, error| log.failed(log.segments.back().map_or(0, |s| s.base), error);
        let clean_end = match hints.clean {
            true => self.walk_to_end(io).map_err(|error| fail(self, error))?,
            false => None,
        };
        let (end, durable_end) = match clean_end {
            Some(end) => (end, end),
            None => self.scan(io, &mut recovered).map_err(|error| fail(self, error))?,
        };
        let first = self.segments[0].base;
        let log_start = hints.log_start.unwrap_or(first).max(first);
        if log_start > end {
            self.start_over(io, log_start)?;
            return Ok(recovered);
        }
        let durable_end = durable_end.max(hints.recovery_point.unwrap_or(0));
        self.ends = Ends::found(log_start, durable_end, end);
        let was_cut = recovered.cut.is_some() || recovered.removed_segments > 0;
        self.restart_writer(if was_cut { Gate::Unsettled } else { Gate::Open });
        // Bytes that rotted in an older segment keep nobody from the rest of the partition.
        for restored in [self.restore_epochs(io, is_missing), self.restore_producers(io)] {
            match restored {
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    recovered.is_damaged = true;
                }
                restored => restored.map_err(|error| fail(self, error))?,
            }
        }
        self.segments.iter_mut().for_each(Segment::release);
        Ok(recovered)
    }

    /// Learns the newest segment anew, whose file has its exact length: steps from the last index
    /// entry to the end. `None` when the file does not end with a batch: it must be scanned.
    pub(crate) fn walk_to_end(&mut self, io: &mut I) -> io::Result<Option<i64>> {
        let index = self.segments.len() - 1;
        let limit = self.segments[index].bytes;
        let found = self.resume_indexes(io, index, true)?;
        let resumed = std::mem::replace(&mut self.segments[index].bytes, limit);
        let mut end = found.unwrap_or(self.segments[index].base);
        let mut walk = Walk::new(index, resumed, limit, true);
        let mut batches = Vec::new();
        loop {
            match unwalked(walk.peek(self, io)) {
                Ok(Some(header)) if walk.position + header.bytes() as u64 <= limit => {
                    end = next_offset(&header);
                    batches.push(header);
                    walk.step(&header);
                }
                Ok(None) => break,
                Err(error) if error.kind() != io::ErrorKind::InvalidData => return Err(error),
                _ => return Ok(None),
            }
        }
        let segment = &mut self.segments[index];
        segment.bytes = resumed;
        batches.iter().for_each(|header| segment.append(header, self.config.index_interval_bytes));
        Ok(Some(end))
    }

    /// Sets a segment's length to the last place its index knows for certain, and returns the
    /// offset there; `None` when its indexes are of no use, which are forgotten then.
    fn resume_indexes(&mut self, io: &mut I, index: usize, clean: bool) -> io::Result<Option<i64>> {
        let dir = self.dir.clone();
        let segment = &mut self.segments[index];
        let (base, file_bytes) = (segment.base, segment.bytes);
        let count = segment.offsets.load(io, &segment::path(&dir, base, ".index"))?;
        if count == 0 {
            *segment = Segment::new(base);
            return Ok(Some(base));
        }
        let entry = segment.offsets.entry(io, count - 1)?;
        let times = segment::path(&dir, base, ".timeindex");
        if !clean {
            // Those above come back with the batches that are scanned.
            segment.times.truncate(io, &times, |time| time.offset <= entry.offset)?;
        }
        segment.times.load(io, &times)?;
        let time = segment.times.last();
        let position = u64::from(entry.position);
        let mut batch = Vec::new();
        let header = self.read_batch(io, index, position, file_bytes, &mut batch)?;
        let header = header.filter(|header| {
            is_intact(&batch) && header.last_offset() == base + i64::from(entry.offset)
        });
        let first = self.read_batch(io, index, 0, file_bytes, &mut batch)?;
        let segment = &mut self.segments[index];
        let (Some(header), Some(time), Some(first)) = (header, time, first) else {
            *segment = Segment::new(base);
            return Ok(None);
        };
        segment.first_timestamp = Some(first.max_timestamp);
        let offset = base + i64::from(time.offset);
        segment.max_timestamp = Some(MaxTimestamp { timestamp: time.timestamp, offset });
        segment.bytes = position;
        Ok(Some(header.base_offset))
    }

    /// Reads a whole batch from a file; `None` when it has no sane header or is not all there.
    fn read_batch(
        &mut self,
        io: &mut I,
        index: usize,
        position: u64,
        file_bytes: u64,
        into: &mut Vec<u8>,
    ) -> io::Result<Option<BatchHeader>> {
        let file = self.segments[index].file(io, &self.dir)?;
        let mut start = [0; HEADER_BYTES];
        let bytes = io.read_at(&file, position, &mut start)?;
        let Some(header) = header::parse(&start[..bytes]) else { return Ok(None) };
        if position + header.bytes() as u64 > file_bytes {
            return Ok(None);
        }
        into.resize(header.bytes(), 0);
        let bytes = io.read_at(&file, position, into)?;
        Ok((bytes == header.bytes()).then_some(header))
    }

    /// After an unclean stop: removes young segments that hold nothing, scans the newest that does,
    /// and cuts its file. Returns the end and the durable end.
    fn scan(&mut self, io: &mut I, recovered: &mut Recovered) -> io::Result<(i64, i64)> {
        let dir = self.dir.clone();
        while self.segments.len() > 1 && !self.begins_well(io)? {
            let gone = self.segments.pop_back().expect("more than one");
            recovered.removed_segments += 1;
            remove_segment_files(io, &dir, gone.base)?;
        }
        if recovered.removed_segments > 0 {
            io.sync_dir(&dir)?;
        }
        let index = self.segments.len() - 1;
        let file = self.segments[index].file(io, &dir)?;
        let file_bytes = self.segments[index].bytes;
        let known = match self.resume_indexes(io, index, false)? {
            Some(offset) => offset,
            None => self.segments[index].base,
        };
        let from = self.segments[index].bytes;
        let (end, reason) = self.scan_batches(io, &file, index, known, file_bytes)?;
        let position = self.segments[index].bytes;
        recovered.scanned_bytes = position - from;
        if position < file_bytes {
            let base = self.segments[index].base;
            let file = self.open_for_writing(io, base, false)?;
            io.set_file_bytes(&file, position)?;
            let bytes = file_bytes - position;
            recovered.cut = Some(Cut { segment: base, position, bytes, reason });
        }
        Ok((end, known))
    }

    /// Whether the newest segment begins with a whole batch.
    fn begins_well(&mut self, io: &mut I) -> io::Result<bool> {
        let index = self.segments.len() - 1;
        let (base, bytes) = (self.segments[index].base, self.segments[index].bytes);
        let mut batch = Vec::new();
        let header = self.read_batch(io, index, 0, bytes, &mut batch)?;
        Ok(header.is_some_and(|header| header.base_offset >= base && is_intact(&batch)))
    }

    /// Takes whole batches from where the segment's known part ends, until one is not.
    fn scan_batches(
        &mut self,
        io: &mut I,
        file: &I::File,
        index: usize,
        mut end: i64,
        file_bytes: u64,
    ) -> io::Result<(i64, CutReason)> {
        let mut buffer = vec![0; SCAN_BYTES];
        let (mut start, mut filled) = (0, 0);
        loop {
            let position = self.segments[index].bytes;
            let left = file_bytes - position;
            if left == 0 {
                return Ok((end, CutReason::NeverWritten));
            }
            let batch = &buffer[start..filled];
            let header = match verdict(batch, left, end) {
                Verdict::Whole(header) => header,
                Verdict::End(reason) => return Ok((end, reason)),
                Verdict::More(bytes) => {
                    buffer.copy_within(start..filled, 0);
                    (start, filled) = (0, filled - start);
                    buffer.resize(buffer.len().max(bytes), 0);
                    let more = io.read_at(file, position + filled as u64, &mut buffer[filled..])?;
                    if more == 0 {
                        return Ok((end, CutReason::Length));
                    }
                    filled += more;
                    continue;
                }
            };
            self.segments[index].append(&header, self.config.index_interval_bytes);
            end = next_offset(&header);
            start += header.bytes();
        }
    }

    /// Makes the epochs agree with the log: none beyond its end, and all that its batches have. A
    /// file that a power cut made old lacks the newest entries, never others.
    fn restore_epochs(&mut self, io: &mut I, is_missing: bool) -> io::Result<()> {
        let (start, end) = (self.ends.log_start(), self.ends.appended_end());
        let mut changed = self.epochs.truncate_to(end) || is_missing;
        let last = if end > start { self.last_header(io)? } else { None };
        let known = self.epochs.last();
        if let Some(last) = last
            && known.is_none_or(|(epoch, _)| epoch < last.partition_leader_epoch)
        {
            let from = known.map_or(start, |(_, from)| from.max(start));
            let mut found = std::mem::take(&mut self.epochs);
            let walked = self.for_each_header(io, from, |header| {
                changed |= found.note(header.partition_leader_epoch, header.base_offset);
            });
            self.epochs = found;
            walked?;
        }
        if changed && self.epochs.last().is_some() {
            self.epochs.replace(io, &self.dir)?;
        }
        Ok(())
    }

    /// The header of the last batch, by way of the index.
    fn last_header(&mut self, io: &mut I) -> io::Result<Option<BatchHeader>> {
        let mut found = None;
        self.for_each_header(io, self.ends.appended_end() - 1, |header| found = Some(*header))?;
        Ok(found)
    }

    /// Loads the newest snapshot and notes the batches that came after it.
    pub(crate) fn restore_producers(&mut self, io: &mut I) -> io::Result<()> {
        let end = self.ends.appended_end();
        let from = self.producers.load(io, &self.dir, end)?;
        let from = from.unwrap_or(0).max(self.ends.log_start());
        let mut producers = std::mem::take(&mut self.producers);
        let noted = self.for_each_header(io, from, |header| producers.note(header));
        self.producers = producers;
        noted
    }

    /// Calls `note` with every batch that ends above `from`, up to the appended end.
    pub(crate) fn for_each_header(
        &mut self,
        io: &mut I,
        from: i64,
        mut note: impl FnMut(&BatchHeader),
    ) -> io::Result<()> {
        for segment in self.segment_of(from)..self.segments.len() {
            let limit = self.segments[segment].bytes;
            let start = unwalked(self.find(io, segment, from, limit, true))?;
            let mut walk = Walk::new(segment, start.unwrap_or(limit), limit, true);
            while let Some(header) = unwalked(walk.peek(self, io))? {
                note(&header);
                walk.step(&header);
            }
        }
        Ok(())
    }

    /// Makes a segment's indexes anew from its batches.
    pub(crate) fn rebuild_index(&mut self, io: &mut I, segment: usize) -> io::Result<()> {
        let limit = self.segments[segment].bytes;
        let mut rebuilt = Segment::new(self.segments[segment].base);
        let mut walk = Walk::new(segment, 0, limit, true);
        while let Some(header) = unwalked(walk.peek(self, io))? {
            rebuilt.append(&header, self.config.index_interval_bytes);
            walk.step(&header);
        }
        rebuilt.push_time();
        self.segments[segment].take_indexes(rebuilt);
        Ok(())
    }
}

enum Verdict {
    Whole(BatchHeader),
    End(CutReason),
    /// This many bytes are needed to tell.
    More(usize),
}

/// Judges the bytes at the end of the log so far; `left` is what the file has from here on.
fn verdict(bytes: &[u8], left: u64, end: i64) -> Verdict {
    let start = &bytes[..bytes.len().min(HEADER_BYTES)];
    if start.len() < HEADER_BYTES {
        let is_all = start.len() as u64 == left;
        return match is_all {
            true if start.iter().all(|byte| *byte == 0) => Verdict::End(CutReason::NeverWritten),
            true => Verdict::End(CutReason::Length),
            false => Verdict::More(HEADER_BYTES),
        };
    }
    if start[position::BATCH_LENGTH..][..4] == [0; 4] {
        return Verdict::End(CutReason::NeverWritten);
    }
    let Some(header) = header::parse(start) else { return Verdict::End(CutReason::Length) };
    if header.bytes() as u64 > left {
        return Verdict::End(CutReason::Length);
    }
    if header.base_offset < end {
        return Verdict::End(CutReason::Offset);
    }
    if bytes.len() < header.bytes() {
        return Verdict::More(header.bytes());
    }
    match is_intact(&bytes[..header.bytes()]) {
        true => Verdict::Whole(header),
        false => Verdict::End(CutReason::Crc),
    }
}

/// Removes the files of a segment that is in no list any more.
pub(crate) fn remove_segment_files<I: Io>(
    io: &mut I,
    dir: &std::path::Path,
    base: i64,
) -> io::Result<()> {
    for suffix in SUFFIXES {
        remove_if_there(io, &segment::path(dir, base, suffix))?;
    }
    Ok(())
}

/// The files that belong to a segment.
pub(crate) const SUFFIXES: [&str; 4] = [".log", ".index", ".timeindex", ".txnindex"];
