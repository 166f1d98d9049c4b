//! When a flush is due, what it must reach, and what is durable once it completed.
//!
//! Only one segment of a log ever holds bytes that are written and not durable (see `writer`), so a
//! flush needs one file. A flush may be this log's own or one that many logs share: either way a
//! [`FlushTicket`] taken before it starts says what it covers.

use std::io;

use millrace_io::{Instant, Io};

use crate::LogError;
use crate::partition::PartitionLog;
use crate::token::{self, Operation};
use crate::writer::{Gate, LogProgress};

/// What a flush that starts after this was taken makes durable.
#[derive(Clone, Copy, Debug)]
pub struct FlushTicket {
    end: i64,
    bytes: u64,
    generation: u32,
    taken: Instant,
}

impl FlushTicket {
    /// The durable end once the flush completed.
    pub fn end(&self) -> i64 {
        self.end
    }
}

/// When the next flush is due by the log's settings. What waits for an acknowledgement is not
/// counted: who waits asks for the flush.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FlushDue {
    /// Nothing asks for one.
    Never,
    /// At this time, if nothing flushes before.
    At(Instant),
    /// Now.
    Now,
}

/// Bytes are counted since the log was opened, to bound what is not durable.
#[derive(Debug, Default)]
pub(crate) struct FlushState {
    pub(crate) dirty_since: Option<Instant>,
    pub(crate) written_bytes: u64,
    durable_bytes: u64,
    /// Invariant: at most `durable_bytes`. What the hints on disk save recovery from scanning.
    hinted_bytes: u64,
    own: Option<FlushTicket>,
}

impl FlushState {
    /// Whether a flush of the log's own is under way.
    pub(crate) fn is_in_flight(&self) -> bool {
        self.own.is_some()
    }

    /// The log is empty again; a flush in flight is still to be heard of.
    pub(crate) fn restart(&mut self) {
        *self = Self { own: self.own.take(), ..Self::default() };
    }
}

/// Hints are put into their files when they save recovery from scanning so much.
const HINT_BYTES: u64 = 16 << 20;

impl<I: Io> PartitionLog<I> {
    /// Whether `flush.messages`, `flush.ms` or the bound of unflushed bytes ask for a flush.
    pub fn flush_due(&self, now: Instant) -> FlushDue {
        let messages = self.ends.written_end() - self.ends.durable_end();
        let bytes = self.flush.written_bytes - self.flush.durable_bytes;
        if messages == 0 || self.poison.is_some() || self.flush.own.is_some() {
            return FlushDue::Never;
        }
        let too_many = messages >= self.config.flush_messages;
        let deadline = self.flush.dirty_since.and_then(|at| self.config.flush_deadline(at));
        match deadline {
            _ if too_many || bytes >= self.config.unflushed_bytes_max => FlushDue::Now,
            Some(deadline) if deadline <= now => FlushDue::Now,
            Some(deadline) => FlushDue::At(deadline),
            None => FlushDue::Never,
        }
    }

    /// Whether anything is written and not durable.
    pub fn is_dirty(&self) -> bool {
        self.ends.durable_end() < self.ends.written_end()
            || matches!(self.writer.gate, Gate::Unsettled | Gate::Settling)
    }

    /// The file that a flush must reach and what it will cover, for a flush shared by many logs:
    /// start it after this call, and bring its outcome to [`PartitionLog::on_flushed`]. `None` when
    /// nothing is to be flushed.
    pub fn begin_flush(&mut self, io: &mut I) -> Result<Option<(I::File, FlushTicket)>, LogError> {
        if !self.is_dirty() || self.poison.is_some() {
            return Ok(None);
        }
        let index = self.segment_at(self.writer.segment);
        let base = self.segments[index].base;
        let file = self.segments[index].file(io, &self.dir);
        let file = file.map_err(|error| self.failed(base, error))?;
        self.writer.note_flush();
        let ticket = FlushTicket {
            end: self.ends.written_end(),
            bytes: self.flush.written_bytes,
            generation: self.generation,
            taken: io.now(),
        };
        Ok(Some((file, ticket)))
    }

    /// Starts a flush of this log alone, unless one is in flight or nothing is to be flushed.
    pub fn submit_flush(&mut self, io: &mut I) -> Result<bool, LogError> {
        if self.flush.own.is_some() {
            return Ok(false);
        }
        let Some((file, ticket)) = self.begin_flush(io)? else { return Ok(false) };
        let token = token::pack(Operation::Flush, self.generation, self.partition_index);
        io.submit_sync(token, &file);
        self.flush.own = Some(ticket);
        Ok(true)
    }

    pub(crate) fn on_own_flush(&mut self, io: &mut I, result: io::Result<usize>) -> LogProgress {
        let ticket = self.flush.own.take().expect("a flush of this log was in flight");
        self.on_flushed(io, ticket, result.as_ref().map(|_| ()))
    }

    /// Takes the outcome of a flush that started after the ticket was taken.
    pub fn on_flushed(
        &mut self,
        io: &mut I,
        ticket: FlushTicket,
        result: Result<(), &io::Error>,
    ) -> LogProgress {
        if let Err(error) = result {
            self.stop("a flush", error);
            return LogProgress { is_poisoned: true, ..LogProgress::default() };
        }
        if ticket.generation != self.generation || self.poison.is_some() {
            return LogProgress::default();
        }
        if self.writer.gate == Gate::Unsettled {
            self.writer.gate = Gate::Open;
        }
        let is_durable = self.note_durable(ticket.end, ticket.bytes);
        self.flush.dirty_since =
            (self.ends.durable_end() < self.ends.written_end()).then_some(ticket.taken);
        if self.unhinted_bytes() >= HINT_BYTES {
            // Without them recovery scans more, that is all.
            let _ = self.persist_hints(io);
        }
        LogProgress { is_durable, ..LogProgress::default() }
    }

    pub(crate) fn note_durable(&mut self, end: i64, bytes: u64) -> bool {
        self.flush.durable_bytes = self.flush.durable_bytes.max(bytes);
        let moved = self.ends.flush_to(end);
        if self.ends.durable_end() == self.ends.written_end() {
            self.flush.dirty_since = None;
        }
        moved
    }

    /// Durable bytes that recovery would scan again for want of hints.
    pub fn unhinted_bytes(&self) -> u64 {
        self.flush.durable_bytes - self.flush.hinted_bytes
    }

    /// Puts into files what makes the next opening fast: index entries of durable records, and the
    /// state of producers. Not flushed: neither is believed unchecked.
    pub fn persist_hints(&mut self, io: &mut I) -> Result<(), LogError> {
        let durable_end = self.ends.durable_end();
        let index = self.segment_at(self.writer.segment);
        let base = self.segments[index].base;
        let persisted = self.segments[index].persist_indexes(io, &self.dir, durable_end);
        persisted.map_err(|error| self.failed(base, error))?;
        self.flush.hinted_bytes = self.flush.durable_bytes;
        let end = self.ends.appended_end();
        let written = self.snapshot_producers(io, end);
        written.map_err(|error| self.failed(end, error))
    }
}
