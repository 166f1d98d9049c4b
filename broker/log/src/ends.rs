//! The four offsets that say how far a partition is: one place moves them and checks their order.

/// Invariant: `log_start <= durable_end <= written_end <= appended_end`. All ends are exclusive.
///
/// Records below the log start need no disk any more, so moving it may take the durable end along.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ends {
    log_start: i64,
    durable: i64,
    written: i64,
    appended: i64,
}

impl Ends {
    /// A log that is empty at `offset`.
    pub(crate) fn empty_at(offset: i64) -> Self {
        assert!(offset >= 0, "offsets count from 0");
        Self { log_start: offset, durable: offset, written: offset, appended: offset }
    }

    /// A log found on disk: all of it is written, a prefix of it is known to be durable.
    pub(crate) fn found(log_start: i64, durable: i64, end: i64) -> Self {
        let durable = durable.clamp(log_start, end);
        Self { log_start, durable, written: end, appended: end }.checked()
    }

    fn checked(self) -> Self {
        assert!(self.log_start <= self.durable, "durable below the log start: {self:?}");
        assert!(self.durable <= self.written, "durable but not written: {self:?}");
        assert!(self.written <= self.appended, "written but never appended: {self:?}");
        self
    }

    /// The first offset that may be read.
    pub fn log_start(&self) -> i64 {
        self.log_start
    }

    /// Records below survive a power cut.
    pub fn durable_end(&self) -> i64 {
        self.durable
    }

    /// Records below survive the end of this process.
    pub fn written_end(&self) -> i64 {
        self.written
    }

    /// The next offset to be given out.
    pub fn appended_end(&self) -> i64 {
        self.appended
    }

    pub(crate) fn append_to(&mut self, end: i64) {
        assert!(end > self.appended, "a batch holds at least one offset");
        self.appended = end;
    }

    pub(crate) fn write_to(&mut self, end: i64) {
        assert!(end >= self.written, "writes complete in order");
        self.written = end;
        *self = self.checked();
    }

    /// Returns whether the durable end moved; a flush that covers less than is known is no news.
    pub(crate) fn flush_to(&mut self, end: i64) -> bool {
        let moved = end > self.durable;
        self.durable = self.durable.max(end);
        *self = self.checked();
        moved
    }

    pub(crate) fn start_at(&mut self, offset: i64) {
        assert!(offset >= self.log_start, "the log start only grows");
        self.log_start = offset;
        self.durable = self.durable.max(offset);
        *self = self.checked();
    }

    pub(crate) fn truncate_to(&mut self, end: i64) {
        assert!(end >= self.log_start, "truncated below the log start");
        self.appended = self.appended.min(end);
        self.written = self.written.min(end);
        self.durable = self.durable.min(end);
        *self = self.checked();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_follow_each_other() {
        let mut ends = Ends::empty_at(5);
        ends.append_to(9);
        ends.write_to(8);
        assert!(ends.flush_to(7));
        assert!(!ends.flush_to(6), "an older flush is no news");
        assert_eq!(
            (ends.log_start(), ends.durable_end(), ends.written_end(), ends.appended_end()),
            (5, 7, 8, 9)
        );
        ends.start_at(8);
        assert_eq!(ends.durable_end(), 8, "what is below the start needs no disk");
        ends.truncate_to(8);
        assert_eq!((ends.written_end(), ends.appended_end()), (8, 8));
    }

    #[test]
    #[should_panic(expected = "written but never appended")]
    fn nothing_is_written_before_it_is_appended() {
        Ends::empty_at(0).write_to(1);
    }
}
