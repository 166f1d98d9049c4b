//! Kafka's sparse indexes: `.index` (offset to position) and `.timeindex` (timestamp to offset).
//!
//! Entries gather in memory and go to the file once what they point at is durable, so the last
//! entry in a file is always a place from which recovery may start. Entries in the file are not
//! kept in memory: a look-up is a binary search in the page cache. Indexes are hints: who uses an
//! entry checks the batch that it points at, and rebuilds the index when they disagree.

use std::io;
use std::path::Path;

use millrace_io::{Io, OpenMode};

/// One fixed-size record of an index file.
pub(crate) trait Entry: Copy + PartialOrd {
    /// Size in the file.
    const BYTES: usize;
    fn encode(self, into: &mut Vec<u8>);
    /// `bytes` has length [`Entry::BYTES`].
    fn decode(bytes: &[u8]) -> Self;
}

/// `.index`: the last offset of a batch, relative to the segment's base, and where the batch
/// begins.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
pub(crate) struct OffsetEntry {
    pub(crate) offset: u32,
    pub(crate) position: u32,
}

impl Entry for OffsetEntry {
    const BYTES: usize = 8;

    fn encode(self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.offset.to_be_bytes());
        into.extend_from_slice(&self.position.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Self {
        let (offset, position) = bytes.split_at(4);
        Self {
            offset: u32::from_be_bytes(offset.try_into().expect("8 bytes are 4 and 4")),
            position: u32::from_be_bytes(position.try_into().expect("8 bytes are 4 and 4")),
        }
    }
}

/// `.timeindex`: the largest timestamp so far, and the last offset of the batch that holds it,
/// relative to the segment's base.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Debug)]
pub(crate) struct TimeEntry {
    pub(crate) timestamp: i64,
    pub(crate) offset: u32,
}

impl Entry for TimeEntry {
    const BYTES: usize = 12;

    fn encode(self, into: &mut Vec<u8>) {
        into.extend_from_slice(&self.timestamp.to_be_bytes());
        into.extend_from_slice(&self.offset.to_be_bytes());
    }

    fn decode(bytes: &[u8]) -> Self {
        let (timestamp, offset) = bytes.split_at(8);
        Self {
            timestamp: i64::from_be_bytes(timestamp.try_into().expect("12 bytes are 8 and 4")),
            offset: u32::from_be_bytes(offset.try_into().expect("12 bytes are 8 and 4")),
        }
    }
}

/// Invariant: entries grow strictly, those in the file before those in memory.
pub(crate) struct SparseIndex<I: Io, E> {
    file: Option<I::File>,
    /// Entries in the file; `None` until its length was looked at.
    persisted: Option<u32>,
    pending: Vec<E>,
    /// The newest entry, once known.
    last: Option<E>,
}

impl<I: Io, E: Entry> SparseIndex<I, E> {
    /// An index whose file is not there yet.
    pub(crate) fn new() -> Self {
        Self { file: None, persisted: Some(0), pending: Vec::new(), last: None }
    }

    /// An index whose file may be there.
    pub(crate) fn on_disk() -> Self {
        Self { file: None, persisted: None, pending: Vec::new(), last: None }
    }

    pub(crate) fn push(&mut self, entry: E) {
        self.pending.push(entry);
        self.last = Some(entry);
    }

    /// The newest entry, if it was pushed or looked at.
    pub(crate) fn last(&self) -> Option<E> {
        self.last
    }

    /// Size of the file once everything is in it, as far as it was looked at.
    pub(crate) fn bytes(&self) -> u64 {
        (self.persisted.unwrap_or(0) as usize + self.pending.len()) as u64 * E::BYTES as u64
    }

    /// Entries in the file. Opens it when it is there.
    pub(crate) fn load(&mut self, io: &mut I, path: &Path) -> io::Result<u32> {
        if let (Some(count), true) = (self.persisted, self.file.is_some()) {
            return Ok(count);
        }
        if self.persisted == Some(0) {
            return Ok(0);
        }
        match io.open(path, OpenMode::Read) {
            Ok(file) => {
                let count = io.file_bytes(&file)? / E::BYTES as u64;
                let count = u32::try_from(count).map_err(|_| io::ErrorKind::InvalidData)?;
                self.file = Some(file);
                let mut count = self.persisted.unwrap_or(count).min(count);
                if count > 1 && self.entry(io, count - 1)? <= self.entry(io, 0)? {
                    // Zeros at the end: its length outlived its data in a power cut.
                    count = 0;
                }
                self.persisted = Some(count);
                if let (Some(last), None) = (count.checked_sub(1), self.last) {
                    self.last = Some(self.entry(io, last)?);
                }
                Ok(count)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.persisted = Some(0);
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }

    /// An entry in the file. `index` is below what [`SparseIndex::load`] returned.
    pub(crate) fn entry(&self, io: &mut I, index: u32) -> io::Result<E> {
        let file = self.file.as_ref().expect("an index with persisted entries was loaded");
        let mut bytes = [0; 16];
        let bytes = &mut bytes[..E::BYTES];
        if io.read_at(file, u64::from(index) * E::BYTES as u64, bytes)? != bytes.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(E::decode(bytes))
    }

    /// The last entry that `is_before` holds for; it must hold for a prefix of all entries.
    pub(crate) fn find_last(
        &mut self,
        io: &mut I,
        path: &Path,
        is_before: impl Fn(&E) -> bool,
    ) -> io::Result<Option<E>> {
        let in_memory = self.pending.partition_point(&is_before);
        if in_memory > 0 {
            return Ok(Some(self.pending[in_memory - 1]));
        }
        let (mut low, mut high) = (0, self.load(io, path)?);
        let mut found = None;
        while low < high {
            let middle = low + (high - low) / 2;
            let entry = self.entry(io, middle)?;
            if is_before(&entry) {
                found = Some(entry);
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(found)
    }

    /// Puts the entries that `is_durable` holds for (a prefix) at the end of the file.
    pub(crate) fn persist(
        &mut self,
        io: &mut I,
        path: &Path,
        is_durable: impl Fn(&E) -> bool,
    ) -> io::Result<()> {
        let count = self.pending.partition_point(is_durable);
        if count == 0 {
            return Ok(());
        }
        let persisted = self.load(io, path)?;
        let mut bytes = Vec::with_capacity(count * E::BYTES);
        self.pending[..count].iter().for_each(|entry| entry.encode(&mut bytes));
        let file = io.open(path, OpenMode::ReadWrite)?;
        let start = u64::from(persisted) * E::BYTES as u64;
        io.write_at(&file, start, &bytes)?;
        let end = start + bytes.len() as u64;
        if io.file_bytes(&file)? != end {
            io.set_file_bytes(&file, end)?;
        }
        self.file = Some(file);
        self.persisted = Some(persisted + count as u32);
        self.pending.drain(..count);
        Ok(())
    }

    /// Forgets the entries in memory, and those in the file but the ones that `is_kept` holds for
    /// (a prefix).
    pub(crate) fn truncate(
        &mut self,
        io: &mut I,
        path: &Path,
        is_kept: impl Fn(&E) -> bool,
    ) -> io::Result<()> {
        self.pending.clear();
        let mut count = self.load(io, path)?;
        while count > 0 && !is_kept(&self.entry(io, count - 1)?) {
            count -= 1;
        }
        if self.persisted != Some(count) {
            let file = io.open(path, OpenMode::ReadWrite)?;
            io.set_file_bytes(&file, u64::from(count) * E::BYTES as u64)?;
            self.persisted = Some(count);
        }
        self.last = match count.checked_sub(1) {
            Some(last) => Some(self.entry(io, last)?),
            None => None,
        };
        Ok(())
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.pending.capacity() * size_of::<E>()
    }

    pub(crate) fn is_open(&self) -> bool {
        self.file.is_some()
    }

    /// Closes the file and gives memory that is not needed back.
    pub(crate) fn release(&mut self) {
        self.file = None;
        self.pending.shrink_to_fit();
    }
}
