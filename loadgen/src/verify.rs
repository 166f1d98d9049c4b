//! Which records of a run were seen, and which were lost, doubled, moved or altered.
//!
//! Sequences of a (producer, partition) are handed out without holes and sent in order. A tracker
//! keeps the next expected sequence and the holes below it, so its memory grows with damage, not
//! with records.

use crate::fetched::Broken;
use crate::payload;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::Range;

/// How many damaged records are described in words.
const EXAMPLES_MAX: usize = 10;

/// The records of one producer in one partition, as a consumer saw them.
#[derive(Debug, Default)]
struct Stream {
    /// One more than the largest sequence seen.
    next: u64,
    /// Sequences below `next` not seen yet: start -> end. Invariant: disjoint, not empty, all below
    /// `next`.
    holes: BTreeMap<u64, u64>,
    seen: u64,
    duplicated: u64,
    reordered: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrival {
    InOrder,
    Late,
    Again,
}

impl Stream {
    fn on_sequence(&mut self, sequence: u64) -> Arrival {
        if sequence >= self.next {
            if sequence > self.next {
                self.holes.insert(self.next, sequence);
            }
            self.next = sequence + 1;
            self.seen += 1;
            return Arrival::InOrder;
        }
        let hole = self.holes.range(..=sequence).next_back().map(|(&start, &end)| start..end);
        match hole {
            Some(hole) if hole.contains(&sequence) => {
                self.holes.remove(&hole.start);
                if hole.start < sequence {
                    self.holes.insert(hole.start, sequence);
                }
                if sequence + 1 < hole.end {
                    self.holes.insert(sequence + 1, hole.end);
                }
                self.seen += 1;
                self.reordered += 1;
                Arrival::Late
            }
            _ => {
                self.duplicated += 1;
                Arrival::Again
            }
        }
    }

    /// Sequences in `0..sent` that were not seen.
    fn missing(&self, sent: u64) -> impl Iterator<Item = Range<u64>> {
        let tail = (self.next < sent).then_some(self.next..sent);
        self.holes.iter().map(|(&start, &end)| start..end).chain(tail)
    }
}

/// Checks the records of one partition, in the order they are read.
#[derive(Debug)]
pub struct Tracker {
    run: Option<u32>,
    partition: u32,
    streams: Vec<Stream>,
    counts: Integrity,
}

/// What was found; all counts are records.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Integrity {
    /// Seen with the right content, once, in its partition.
    pub verified: u64,
    /// Acknowledged (or sent with acks=0 on a connection that held) and never seen.
    pub lost: u64,
    /// Seen more than once.
    pub duplicated: u64,
    /// Seen after a later record of the same producer and partition.
    pub reordered: u64,
    /// Content differs from what was sent.
    pub altered: u64,
    /// Seen in another partition than it was sent to.
    pub misplaced: u64,
    /// Seen although never sent.
    pub invented: u64,
    /// Sent without a positive answer, and seen or not: neither counts as damage.
    pub uncertain: u64,
    /// Records of other runs or programs in the topic; not judged.
    pub foreign: u64,
    /// The first few damaged records in words.
    pub examples: Vec<String>,
}

/// What a producer did to one partition.
#[derive(Clone, Debug, Default)]
pub struct SentStream {
    /// The producing connection.
    pub producer: u32,
    /// The partition.
    pub partition: u32,
    /// Sequences `0..sent` were handed out.
    pub sent: u64,
    /// Those whose outcome is not known to be success.
    pub uncertain: Vec<Range<u64>>,
}

impl SentStream {
    /// From here on nothing of it is known to have succeeded.
    pub fn doubt_all(&mut self) {
        self.uncertain = std::iter::once(0..self.sent).collect();
    }

    /// Records that must be seen.
    pub fn certain(&self) -> u64 {
        let uncertain: u64 = self.uncertain.iter().map(|range| range.end - range.start).sum();
        self.sent - uncertain
    }
}

impl Tracker {
    /// A tracker of `partition` for the records of `run`; `None`: of the first run met.
    pub fn new(run: Option<u32>, partition: u32) -> Self {
        Self { run, partition, streams: Vec::new(), counts: Integrity::default() }
    }

    /// The partition.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// Takes one value. Returns its intended time when it is a sound record of this run, seen for
    /// the first time.
    pub fn on_value(&mut self, offset: i64, value: &[u8]) -> Option<u64> {
        let stamp = match payload::read(value) {
            Ok(stamp) => stamp,
            Err(damage) => {
                // A short value cannot be ours; whether a foreign program's value is "altered"
                // cannot be told apart, so a topic shared with others does not verify.
                self.counts.altered += 1;
                self.note(offset, &damage.to_string());
                return None;
            }
        };
        if *self.run.get_or_insert(stamp.run) != stamp.run {
            self.counts.foreign += 1;
            return None;
        }
        if stamp.partition != self.partition {
            self.counts.misplaced += 1;
            self.note(offset, &format!("was sent to partition {}", stamp.partition));
            return None;
        }
        let index = stamp.producer as usize;
        if index >= self.streams.len() {
            self.streams.resize_with(index + 1, Stream::default);
        }
        match self.streams[index].on_sequence(stamp.sequence) {
            Arrival::InOrder => Some(stamp.intended_ns),
            Arrival::Late => {
                self.note_stream(offset, &stamp, "comes after later ones");
                Some(stamp.intended_ns)
            }
            Arrival::Again => {
                self.note_stream(offset, &stamp, "was seen before");
                None
            }
        }
    }

    /// Takes a batch that cannot be cut into records: all of them count as altered.
    pub fn on_broken_batch(&mut self, base_offset: i64, records: u64, broken: Broken) {
        self.counts.altered += records.max(1);
        self.note(base_offset, &broken.to_string());
    }

    /// Sound records of this run seen so far, each counted once.
    pub fn seen(&self) -> u64 {
        self.streams.iter().map(|stream| stream.seen).sum()
    }

    /// Records that came, sound or not, each counted once: what a reader need not wait for.
    pub fn arrived(&self) -> u64 {
        self.seen() + self.counts.altered + self.counts.misplaced
    }

    fn note_stream(&mut self, offset: i64, stamp: &payload::Stamp, what: &str) {
        let words = format!("producer {} sequence {} {what}", stamp.producer, stamp.sequence);
        self.note(offset, &words);
    }

    fn note(&mut self, offset: i64, what: &str) {
        if self.counts.examples.len() < EXAMPLES_MAX {
            let partition = self.partition;
            self.counts.examples.push(format!("partition {partition} offset {offset}: {what}"));
        }
    }

    /// The findings without knowledge of what was sent: holes count as lost, the end of each stream
    /// is unknown.
    pub fn settle_alone(&self) -> Integrity {
        let sent: Vec<SentStream> = (0_u32..)
            .zip(&self.streams)
            .map(|(producer, stream)| SentStream {
                producer,
                partition: self.partition,
                sent: stream.next,
                uncertain: Vec::new(),
            })
            .collect();
        settle(std::slice::from_ref(self), &sent)
    }
}

impl Integrity {
    /// Adds the counts of another reader.
    pub fn add(&mut self, other: &Self) {
        self.verified += other.verified;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.altered += other.altered;
        self.misplaced += other.misplaced;
        self.invented += other.invented;
        self.uncertain += other.uncertain;
        self.foreign += other.foreign;
        let room = EXAMPLES_MAX.saturating_sub(self.examples.len());
        self.examples.extend(other.examples.iter().take(room).cloned());
    }

    /// Damage in words, empty when there is none. With `retried`, batches may rightly come twice or
    /// late.
    pub fn complaints(&self, retried: bool) -> Vec<String> {
        let order = if retried { 0 } else { 1 };
        [
            (self.lost, "lost"),
            (self.altered, "altered"),
            (self.misplaced, "in the wrong partition"),
            (self.invented, "seen but never sent"),
            (self.duplicated * order, "duplicated"),
            (self.reordered * order, "out of order"),
        ]
        .into_iter()
        .filter(|&(count, _)| count > 0)
        .map(|(count, what)| format!("{count} records {what}"))
        .collect()
    }
}

/// Compares what was seen by one reader of each partition with what was sent.
pub fn settle(trackers: &[Tracker], sent: &[SentStream]) -> Integrity {
    let mut sent_by: BTreeMap<(u32, u32), &SentStream> =
        sent.iter().map(|stream| ((stream.partition, stream.producer), stream)).collect();
    let mut total = Integrity::default();
    for tracker in trackers {
        total.add(&tracker.counts);
        for (producer, stream) in (0_u32..).zip(&tracker.streams) {
            total.verified += stream.seen;
            total.duplicated += stream.duplicated;
            total.reordered += stream.reordered;
            let nothing = SentStream::default();
            let sent = sent_by.remove(&(tracker.partition, producer)).unwrap_or(&nothing);
            total.invented += stream.next.saturating_sub(sent.sent);
            count_missing(&mut total, stream, sent);
        }
    }
    for unseen in sent_by.values() {
        count_missing(&mut total, &Stream::default(), unseen);
    }
    total
}

fn count_missing(total: &mut Integrity, stream: &Stream, sent: &SentStream) {
    for range in stream.missing(sent.sent) {
        let excused: u64 = sent.uncertain.iter().map(|uncertain| overlap(uncertain, &range)).sum();
        let lost = (range.end - range.start) - excused;
        total.lost += lost;
        if lost > 0 && total.examples.len() < EXAMPLES_MAX {
            let SentStream { partition, producer, .. } = sent;
            let Range { start, end } = range;
            total.examples.push(format!(
                "partition {partition}: producer {producer} sequences {start} to {} never seen",
                end - 1
            ));
        }
    }
    total.uncertain += sent.uncertain.iter().map(|range| range.end - range.start).sum::<u64>();
}

fn overlap(a: &Range<u64>, b: &Range<u64>) -> u64 {
    a.end.min(b.end).saturating_sub(a.start.max(b.start))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::{HEADER_BYTES, Stamp};

    fn value(producer: u32, partition: u32, sequence: u64) -> Vec<u8> {
        let mut value = vec![7; HEADER_BYTES + 10];
        let stamp = Stamp { run: 1, producer, partition, sequence, intended_ns: sequence };
        let crc = payload::body_crc(&value[HEADER_BYTES..]);
        payload::write(&mut value, &stamp, crc);
        value
    }

    fn check(name: &str, seen: &[u64], uncertain: Range<u64>, expected: [u64; 4]) {
        let mut tracker = Tracker::new(Some(1), 0);
        for (offset, &sequence) in seen.iter().enumerate() {
            tracker.on_value(offset as i64, &value(0, 0, sequence));
        }
        let sent =
            [SentStream { sent: 6, uncertain: Vec::from([uncertain]), ..Default::default() }];
        let found = settle(&[tracker], &sent);
        let counts = [found.verified, found.lost, found.duplicated, found.reordered];
        assert_eq!(counts, expected, "{name}: {:?}", found.examples);
        assert_eq!(found.complaints(false).is_empty(), expected[1..] == [0, 0, 0], "{name}");
    }

    #[test]
    fn tells_lost_doubled_and_moved_records_apart() {
        // verified, lost, duplicated, reordered
        check("all in order", &[0, 1, 2, 3, 4, 5], 0..0, [6, 0, 0, 0]);
        check("one dropped", &[0, 1, 3, 4, 5], 0..0, [5, 1, 0, 0]);
        check("first dropped", &[1, 2, 3, 4, 5], 0..0, [5, 1, 0, 0]);
        check("end dropped", &[0, 1, 2, 3], 0..0, [4, 2, 0, 0]);
        check("none seen", &[], 0..0, [0, 6, 0, 0]);
        check("one doubled", &[0, 1, 1, 2, 3, 4, 5], 0..0, [6, 0, 1, 0]);
        check("a batch doubled", &[0, 1, 2, 0, 1, 2, 3, 4, 5], 0..0, [6, 0, 3, 0]);
        check("two swapped", &[0, 2, 1, 3, 4, 5], 0..0, [6, 0, 0, 1]);
        check("middle of a hole filled", &[0, 5, 2, 2], 0..0, [3, 3, 1, 1]);
        check("hole filled from both ends", &[5, 0, 4, 1, 3, 2], 0..0, [6, 0, 0, 5]);
        check("uncertain and missing", &[0, 1, 4, 5], 2..4, [4, 0, 0, 0]);
        check("uncertain and seen", &[0, 1, 2, 3, 4, 5], 2..4, [6, 0, 0, 0]);
        check("uncertain beside lost", &[0, 4, 5], 2..4, [3, 1, 0, 0]);
    }

    #[test]
    fn content_place_and_origin_are_judged_for_each_record() {
        let mut tracker = Tracker::new(Some(1), 0);
        let mut altered = value(0, 0, 1);
        altered[40] ^= 1;
        assert_eq!(tracker.on_value(0, &value(0, 0, 0)), Some(0));
        assert_eq!(tracker.on_value(1, &altered), None);
        assert_eq!(tracker.on_value(2, &value(0, 5, 0)), None);
        assert_eq!(tracker.on_value(3, &value(9, 0, 0)), Some(0));
        let mut foreign = Tracker::new(Some(2), 0);
        assert_eq!(foreign.on_value(0, &value(0, 0, 0)), None);

        let sent = [SentStream { sent: 2, ..Default::default() }];
        let found = settle(&[tracker, foreign], &sent);
        let expected = Integrity {
            verified: 2,
            lost: 1,
            altered: 1,
            misplaced: 1,
            invented: 1,
            foreign: 1,
            examples: found.examples.clone(),
            ..Default::default()
        };
        assert_eq!(found, expected);
        assert_eq!(found.examples.len(), 3, "{:?}", found.examples);
        assert_eq!(found.complaints(true).len(), 4);
    }

    #[test]
    fn a_partition_nobody_saw_is_lost_as_a_whole() {
        let sent = [SentStream {
            producer: 2,
            partition: 9,
            sent: 100,
            uncertain: std::iter::once(10..20).collect(),
        }];
        assert_eq!(settle(&[Tracker::new(Some(1), 0)], &sent).lost, 90);
    }

    #[test]
    fn without_the_senders_account_holes_still_count() {
        let mut tracker = Tracker::new(None, 0);
        for sequence in [0, 1, 4] {
            tracker.on_value(0, &value(3, 0, sequence));
        }
        let found = tracker.settle_alone();
        assert_eq!((found.verified, found.lost, found.invented), (3, 2, 0));
    }
}
