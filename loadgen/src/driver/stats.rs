//! What a thread has measured, and what of it others may read while it runs.

use super::Timeline;
use crate::histogram::Latencies;
use millrace_wire::ErrorCode;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// A kind of failure that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// The broker's answer.
    Code(i16),
    /// The connection ended while requests were under way.
    ConnectionLost,
    /// No answer in time.
    NoAnswer,
    /// An answer that cannot be understood.
    Malformed,
}

impl Failure {
    /// Kafka's name, or one in its style.
    pub fn name(self) -> String {
        match self {
            Self::Code(code) => ErrorCode(code).to_string(),
            Self::ConnectionLost => "CONNECTION_LOST".to_owned(),
            Self::NoAnswer => "NO_ANSWER".to_owned(),
            Self::Malformed => "MALFORMED_ANSWER".to_owned(),
        }
    }
}

/// Counts of one interval of the measured time.
#[derive(Clone, Debug)]
pub struct Interval {
    /// 0 is the first of the measured time.
    pub index: u64,
    /// Records acknowledged (acks=0: sent).
    pub records: u64,
    /// Their value bytes.
    pub bytes: u64,
    /// Records seen by consumers.
    pub consumed: u64,
    /// Failed batches.
    pub errors: u64,
    /// Response times of requests answered in it.
    pub response: Latencies,
    /// End-to-end times of records seen in it.
    pub end_to_end: Latencies,
}

impl Interval {
    /// An empty interval.
    pub fn new(index: u64) -> Self {
        Self {
            index,
            records: 0,
            bytes: 0,
            consumed: 0,
            errors: 0,
            response: Latencies::default(),
            end_to_end: Latencies::default(),
        }
    }

    /// Adds what another thread did in the same interval.
    pub fn add(&mut self, other: &Self) {
        self.records += other.records;
        self.bytes += other.bytes;
        self.consumed += other.consumed;
        self.errors += other.errors;
        self.response.add(&other.response);
        self.end_to_end.add(&other.end_to_end);
    }
}

/// Everything a thread measures. Counts and times belong to the measured time.
#[derive(Debug)]
pub struct Stats {
    /// Bytes handed to the socket -> answer; one sample a request.
    pub service: Latencies,
    /// Intended time -> answer; one sample for each intended time of a request.
    pub response: Latencies,
    /// Intended time -> seen by a consumer; one sample for each intended time of a batch.
    pub end_to_end: Latencies,
    /// How much later than it could have left a request left, because of the client or the host.
    pub lag: Latencies,
    /// Records acknowledged (acks=0: sent).
    pub records: u64,
    /// Their value bytes.
    pub bytes: u64,
    /// Batches of them.
    pub batches: u64,
    /// Requests of them.
    pub requests: u64,
    /// Bytes of those requests.
    pub request_bytes: u64,
    /// Records acknowledged (acks=0: sent) in the whole run.
    pub records_ever: u64,
    /// The longest time in the measured time in which the client saw nothing.
    pub longest_stall_ns: u64,
    /// When the last request of the measured time was answered.
    pub last_done_ns: u64,
    /// When the last batch was consumed.
    pub last_consumed_ns: u64,
    /// Records seen by consumers.
    pub consumed: u64,
    /// Bytes of the batches they came in.
    pub consumed_bytes: u64,
    /// Answered fetches.
    pub fetches: u64,
    /// Failed batches and fetches by kind, over the whole run.
    pub errors: BTreeMap<Failure, u64>,
    /// Batches sent again, over the whole run.
    pub retries: u64,
    /// Connections lost, over the whole run.
    pub connections_lost: u64,
    timeline: Timeline,
    interval: Interval,
}

impl Stats {
    /// Nothing measured yet.
    pub fn new(timeline: Timeline) -> Self {
        Self {
            service: Latencies::default(),
            response: Latencies::default(),
            end_to_end: Latencies::default(),
            lag: Latencies::default(),
            records: 0,
            bytes: 0,
            batches: 0,
            requests: 0,
            request_bytes: 0,
            records_ever: 0,
            longest_stall_ns: 0,
            last_done_ns: 0,
            last_consumed_ns: 0,
            consumed: 0,
            consumed_bytes: 0,
            fetches: 0,
            errors: BTreeMap::new(),
            retries: 0,
            connections_lost: 0,
            timeline,
            interval: Interval::new(0),
        }
    }

    /// Adds what another thread measured.
    pub fn add(&mut self, other: &Self) {
        self.service.add(&other.service);
        self.response.add(&other.response);
        self.end_to_end.add(&other.end_to_end);
        self.lag.add(&other.lag);
        self.records += other.records;
        self.bytes += other.bytes;
        self.batches += other.batches;
        self.requests += other.requests;
        self.request_bytes += other.request_bytes;
        self.records_ever += other.records_ever;
        self.longest_stall_ns = self.longest_stall_ns.max(other.longest_stall_ns);
        self.last_done_ns = self.last_done_ns.max(other.last_done_ns);
        self.last_consumed_ns = self.last_consumed_ns.max(other.last_consumed_ns);
        self.consumed += other.consumed;
        self.consumed_bytes += other.consumed_bytes;
        self.fetches += other.fetches;
        self.retries += other.retries;
        self.connections_lost += other.connections_lost;
        for (&failure, count) in &other.errors {
            *self.errors.entry(failure).or_default() += count;
        }
    }

    /// A request was answered, or with acks=0 sent, at `now_ns`.
    pub fn on_done(&mut self, now_ns: u64, done: Done) {
        self.records_ever += done.records;
        if self.timeline.is_measured(now_ns) {
            self.last_done_ns = now_ns;
            self.records += done.records;
            self.bytes += done.value_bytes;
            self.batches += done.batches;
            self.requests += 1;
            self.request_bytes += done.request_bytes;
            self.interval.records += done.records;
            self.interval.bytes += done.value_bytes;
        }
    }

    /// The times of an answered request.
    pub fn on_times(&mut self, now_ns: u64, intended_ns: &[u64], written_ns: u64) {
        let mut any = false;
        for &intended_ns in intended_ns {
            if self.timeline.is_measured(intended_ns) {
                let took_ns = now_ns.saturating_sub(intended_ns);
                self.response.record(took_ns);
                self.interval.response.record(took_ns);
                any = true;
            }
        }
        if any {
            self.service.record(now_ns.saturating_sub(written_ns));
        }
    }

    /// The thread stood still for so long.
    pub fn on_stall(&mut self, now_ns: u64, ns: u64) {
        if self.timeline.is_measured(now_ns) {
            self.longest_stall_ns = self.longest_stall_ns.max(ns);
        }
    }

    /// A request that was due at `due_ns` left so much later than it could have.
    pub fn on_lag(&mut self, due_ns: u64, late_ns: u64) {
        if self.timeline.is_measured(due_ns) {
            self.lag.record(late_ns);
        }
    }

    /// Records of one intended time were seen.
    pub fn on_end_to_end(&mut self, now_ns: u64, intended_ns: u64) {
        if self.timeline.is_measured(intended_ns) {
            let took_ns = now_ns.saturating_sub(intended_ns);
            self.end_to_end.record(took_ns);
            self.interval.end_to_end.record(took_ns);
        }
    }

    /// Batches were consumed.
    pub fn on_consumed(&mut self, now_ns: u64, records: u64, bytes: u64) {
        self.last_consumed_ns = now_ns;
        if self.timeline.is_measured(now_ns) {
            self.consumed += records;
            self.consumed_bytes += bytes;
            self.interval.consumed += records;
        }
    }

    /// Batches or fetches failed.
    pub fn on_failure(&mut self, failure: Failure, count: u64) {
        *self.errors.entry(failure).or_default() += count;
        self.interval.errors += count;
    }

    /// What failed, by its name.
    pub fn errors_by_code(&self) -> BTreeMap<String, u64> {
        let some = self.errors.iter().filter(|(_, count)| **count > 0);
        some.map(|(failure, count)| (failure.name(), *count)).collect()
    }

    /// The interval that has ended by `now_ns`, if one has.
    pub fn finished_interval(&mut self, now_ns: u64) -> Option<Interval> {
        let index = self.timeline.interval_index(now_ns)?;
        (index > self.interval.index)
            .then(|| std::mem::replace(&mut self.interval, Interval::new(index)))
    }

    /// The interval under way.
    pub fn last_interval(&self) -> &Interval {
        &self.interval
    }
}

/// One finished request.
#[derive(Clone, Copy, Debug)]
pub struct Done {
    /// Records acknowledged.
    pub records: u64,
    /// Their value bytes.
    pub value_bytes: u64,
    /// Batches acknowledged.
    pub batches: u64,
    /// Bytes of the request.
    pub request_bytes: u64,
}

/// What a thread tells others while it runs. Written by one thread, read by the main one.
#[derive(Debug, Default)]
pub struct Progress {
    /// Its id, for /proc.
    pub thread: AtomicU32,
    /// Records handed to batches.
    pub sent: AtomicU64,
    /// Records acknowledged (acks=0: sent).
    pub acked: AtomicU64,
    /// Records whose fate is unknown.
    pub uncertain: AtomicU64,
    /// Records seen by consumers.
    pub seen: AtomicU64,
    /// Failed batches and fetches.
    pub errors: AtomicU64,
    /// CPU time spent waiting for a due time without sleeping.
    pub spun_ns: AtomicU64,
    /// Every consumer has read to its end.
    pub is_done_reading: AtomicBool,
    /// All requests are answered or given up.
    pub is_done_sending: AtomicBool,
}

impl Progress {
    /// Stores a value that only this thread changes.
    pub fn publish(cell: &AtomicU64, value: u64) {
        cell.store(value, Ordering::Release);
    }
}
