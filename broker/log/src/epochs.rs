//! Which leader epoch began at which offset: Kafka's `leader-epoch-checkpoint` and its look-ups.
//!
//! A new epoch is written to the file before its first batch is appended. That write is not flushed
//! by itself: every batch carries its epoch, so recovery finds an entry that a power cut took.

use std::fmt::Write;
use std::io;
use std::path::Path;

use millrace_io::{Io, OpenMode};

/// The file's name in the partition's folder.
pub(crate) const FILE: &str = "leader-epoch-checkpoint";

/// Invariant: epochs and start offsets grow strictly.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Epochs {
    entries: Vec<(i32, i64)>,
}

impl Epochs {
    /// Reads the file's text; `None` when it is damaged.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        if lines.next()? != "0" {
            return None;
        }
        let count: usize = lines.next()?.parse().ok()?;
        let mut entries: Vec<(i32, i64)> = Vec::new();
        for line in lines {
            let (epoch, start) = line.split_once(' ')?;
            entries.push((epoch.parse().ok()?, start.parse().ok()?));
        }
        let grows = entries.is_sorted_by(|a, b| a.0 < b.0 && a.1 < b.1);
        (grows && entries.len() == count).then_some(Self { entries })
    }

    fn text(&self) -> String {
        let mut text = format!("0\n{}\n", self.entries.len());
        for (epoch, start) in &self.entries {
            writeln!(text, "{epoch} {start}").expect("a string takes everything");
        }
        text
    }

    /// The latest epoch.
    pub(crate) fn last(&self) -> Option<(i32, i64)> {
        self.entries.last().copied()
    }

    /// Notes that a batch of this epoch begins at `offset`; returns whether that is news.
    pub(crate) fn note(&mut self, epoch: i32, offset: i64) -> bool {
        if self.last().is_some_and(|(last, _)| last >= epoch) || epoch < 0 {
            return false;
        }
        self.entries.retain(|(_, start)| *start < offset);
        self.entries.push((epoch, offset));
        true
    }

    /// As [`Epochs::note`], and puts news into the file: one write over what is there, which it
    /// covers, as entries are only added.
    pub(crate) fn assign<I: Io>(
        &mut self,
        io: &mut I,
        dir: &Path,
        epoch: i32,
        offset: i64,
    ) -> io::Result<()> {
        let before = self.clone_if_news(epoch);
        if self.note(epoch, offset)
            && let Err(error) = self.write(io, dir)
        {
            *self = before.expect("news was foreseen");
            return Err(error);
        }
        Ok(())
    }

    fn clone_if_news(&self, epoch: i32) -> Option<Self> {
        self.last().is_none_or(|(last, _)| last < epoch).then(|| self.clone())
    }

    fn write<I: Io>(&self, io: &mut I, dir: &Path) -> io::Result<()> {
        let text = self.text();
        let file = io.open(&dir.join(FILE), OpenMode::ReadWrite)?;
        io.write_at(&file, 0, text.as_bytes())?;
        if io.file_bytes(&file)? != text.len() as u64 {
            io.set_file_bytes(&file, text.len() as u64)?;
        }
        Ok(())
    }

    /// Writes the file anew, flushed.
    pub(crate) fn replace<I: Io>(&self, io: &mut I, dir: &Path) -> io::Result<()> {
        io.replace_file(&dir.join(FILE), self.text().as_bytes())
    }

    /// Forgets epochs that begin at or above `end`; returns whether there were any.
    pub(crate) fn truncate_to(&mut self, end: i64) -> bool {
        let count = self.entries.len();
        self.entries.retain(|(_, start)| *start < end);
        self.entries.len() != count
    }

    /// The log now starts at `start`: the epoch in force there begins there. Returns whether
    /// anything changed.
    pub(crate) fn start_at(&mut self, start: i64) -> bool {
        let below = self.entries.partition_point(|(_, at)| *at <= start);
        if below == 0 || self.entries[below - 1].1 == start && below == 1 {
            return false;
        }
        self.entries.drain(..below - 1);
        self.entries[0].1 = start;
        true
    }

    /// The epoch of the record at `offset`.
    pub(crate) fn at(&self, offset: i64) -> Option<i32> {
        let below = self.entries.partition_point(|(_, start)| *start <= offset);
        below.checked_sub(1).map(|index| self.entries[index].0)
    }

    /// Kafka's `LeaderEpochFileCache.endOffsetFor`: the largest known epoch that is not above the
    /// one asked for, and where it ends; `None` when unknown.
    pub(crate) fn end_offset_for(&self, epoch: i32, log_end: i64) -> Option<(i32, i64)> {
        let (last, _) = self.last()?;
        if epoch == last {
            return Some((epoch, log_end));
        }
        if epoch < 0 || epoch > last {
            return None;
        }
        let above = self.entries.partition_point(|(known, _)| *known <= epoch);
        let end = self.entries[above].1;
        Some((above.checked_sub(1).map_or(epoch, |floor| self.entries[floor].0), end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn epochs(entries: &[(i32, i64)]) -> Epochs {
        Epochs { entries: entries.to_vec() }
    }

    #[test]
    fn the_file_reads_back_and_damage_is_noticed() {
        let known = epochs(&[(0, 0), (3, 17), (4, 90)]);
        assert_eq!(known.text(), "0\n3\n0 0\n3 17\n4 90\n");
        assert_eq!(Epochs::parse(&known.text()), Some(known));
        let damaged = ["", "1\n0\n", "0\n2\n0 0\n", "0\n1\n0\n", "0\n2\n3 5\n2 9\n", "0\n1\nx 1\n"];
        for text in damaged {
            assert_eq!(Epochs::parse(text), None, "{text:?}");
        }
    }

    #[test]
    fn look_ups_follow_kafka() {
        let known = epochs(&[(2, 10), (5, 30)]);
        let cases = [
            // asked, answer
            (-1, None),
            (0, Some((0, 10))),
            (2, Some((2, 30))),
            (4, Some((2, 30))),
            (5, Some((5, 44))),
            (6, None),
        ];
        for (asked, answer) in cases {
            assert_eq!(known.end_offset_for(asked, 44), answer, "epoch {asked}");
        }
        assert_eq!(epochs(&[]).end_offset_for(0, 44), None);
        assert_eq!((known.at(9), known.at(10), known.at(31)), (None, Some(2), Some(5)));
    }

    #[test]
    fn both_ends_are_cut() {
        let cases: [(i64, &[(i32, i64)]); 5] = [
            (5, &[(2, 10), (5, 30)]),
            (10, &[(2, 10), (5, 30)]),
            (20, &[(2, 20), (5, 30)]),
            (30, &[(5, 30)]),
            (99, &[(5, 99)]),
        ];
        for (start, left) in cases {
            let mut known = epochs(&[(2, 10), (5, 30)]);
            known.start_at(start);
            assert_eq!(known, epochs(left), "start at {start}");
        }
        let mut known = epochs(&[(2, 10), (5, 30)]);
        assert!(!known.truncate_to(31) && known.truncate_to(30));
        assert_eq!(known, epochs(&[(2, 10)]));
        assert!(known.note(3, 30) && !known.note(3, 40) && !known.note(1, 50));
    }
}
