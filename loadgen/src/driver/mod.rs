//! The load itself: threads, each with an epoll and its share of producer and consumer connections.

pub mod consumer;
pub mod frame;
pub mod link;
pub mod outcome;
pub mod producer;
pub mod request;
pub mod stats;
pub mod worker;

use crate::args::Acks;
use crate::batch::Template;
use crate::clock::Clock;
use crate::group::{Claim, Seen};
use crate::keys::Keys;
use crate::schedule::Arrivals;
use crate::secure::Access;
use link::Link;
use millrace_wire::compression::Compression;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The phases of a run, in clock nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeline {
    /// The first record is due.
    pub start_ns: u64,
    /// Measuring begins.
    pub measure_start_ns: u64,
    /// Measuring ends, and nothing later is due.
    pub measure_end_ns: u64,
    /// Length of an interval of the measured time.
    pub interval_ns: u64,
}

impl Timeline {
    /// Whether a time belongs to the measured time.
    pub fn is_measured(&self, at_ns: u64) -> bool {
        (self.measure_start_ns..self.measure_end_ns).contains(&at_ns)
    }

    /// The interval of a time; `None` before the measured time. The last one has no end.
    pub fn interval_index(&self, at_ns: u64) -> Option<u64> {
        let at_ns = at_ns.min(self.measure_end_ns - 1);
        Some(at_ns.checked_sub(self.measure_start_ns)? / self.interval_ns)
    }
}

/// What all threads of a run share.
#[derive(Debug)]
pub struct Setup {
    /// The clock of all times.
    pub clock: Clock,
    /// Wall clock at the clock's zero, milliseconds since 1970.
    pub wall_ms_at_zero: i64,
    /// The topic.
    pub topic: String,
    /// When what happens.
    pub timeline: Timeline,
    /// How brokers are reached.
    pub access: Access,
    /// Congestion control asked for.
    pub tcp_congestion: String,
    /// Spin instead of sleeping when a send is due within this time.
    pub spin_ns: u64,
    /// How producers send; `None` when there are none.
    pub produce: Option<ProduceSetup>,
    /// How consumers fetch.
    pub fetch: FetchSetup,
    /// Nothing is due from here on; the end of the measured time, or earlier once it is cut short.
    pub end_ns: AtomicU64,
    /// Everything ends at once.
    pub stop: AtomicBool,
}

impl Setup {
    /// When sending ends.
    pub fn end_ns(&self) -> u64 {
        self.end_ns.load(Ordering::Relaxed)
    }

    /// Connects to a broker.
    pub fn connect(&self, address: &str, input_bytes: usize) -> io::Result<Link> {
        Link::connect(address, &self.access, &self.tcp_congestion, input_bytes)
    }

    /// Ends sending now, if it has not ended.
    pub fn end_now(&self) {
        self.end_ns.fetch_min(self.clock.now_ns(), Ordering::Relaxed);
    }

    /// How producers send, for those that do.
    pub fn produce(&self) -> &ProduceSetup {
        self.produce.as_ref().expect("producers are only made with their setup")
    }
}

/// How producers send.
#[derive(Debug)]
pub struct ProduceSetup {
    /// Identity of the run in payloads.
    pub run: u32,
    /// Acknowledgement level.
    pub acks: Acks,
    /// Records in a batch, at most or exactly.
    pub batch_records: usize,
    /// Batches in a request.
    pub batches_per_request: usize,
    /// 0: batches are due whole.
    pub linger_ns: u64,
    /// When records are due; `None`: closed loop.
    pub arrivals: Option<Arrivals>,
    /// Requests under way on a connection.
    pub inflight: usize,
    /// Each connection ends after the request that reaches this many records.
    pub records_max: u64,
    /// The keys; `None` without.
    pub keys: Option<Keys>,
    /// Batches go where the keys are, not to the next partition.
    pub is_keyed: bool,
    /// Compression.
    pub compression: Compression,
    /// How often a batch is sent again.
    pub retries: u32,
    /// How long a request may stay unanswered.
    pub timeout_ns: u64,
    /// Seed of keys and arrivals.
    pub seed: u64,
    /// Producer connections of all threads.
    pub connections: usize,
    /// Version of Produce.
    pub version: i16,
    /// A frame without partitions.
    pub head: Vec<u8>,
    /// How every answer about one partition goes on after the correlation id.
    pub answer_head: Vec<u8>,
    /// The largest batch.
    pub template: Template,
}

/// How consumers fetch.
#[derive(Clone, Debug)]
pub struct FetchSetup {
    /// Version of Fetch.
    pub version: i16,
    /// Least bytes.
    pub min_bytes: i32,
    /// Most bytes.
    pub max_bytes: i32,
    /// Most bytes of a partition.
    pub partition_bytes: i32,
    /// Longest wait, milliseconds.
    pub wait_ms: i32,
    /// Whether values are checked.
    pub is_verified: bool,
    /// The run whose records count; `None`: the first one met.
    pub run: Option<u32>,
    /// Of a connection, for each byte read since the clock's zero; 0.0: as fast as it goes.
    pub ns_per_byte: f64,
}

/// A producer connection to make.
#[derive(Clone, Debug)]
pub struct ProducerPlan {
    /// Its number, which is the producer in payloads.
    pub id: u32,
    /// HOST:PORT of the broker.
    pub address: Arc<str>,
    /// Partitions led by it.
    pub partitions: Vec<u32>,
    /// Producer id and epoch, (-1, -1) without idempotence.
    pub producer_id: (i64, i16),
}

/// A consumer connection to make.
#[derive(Clone, Debug)]
pub struct ConsumerPlan {
    /// Which of the readers of each partition it is.
    pub replica: u32,
    /// HOST:PORT of the broker.
    pub address: Arc<str>,
    /// Partitions, with the offset to begin at and the one to stop at.
    pub partitions: Vec<(u32, i64, Option<i64>)>,
    /// A group that gives it its partitions instead.
    pub membership: Option<Membership>,
}

/// What a consumer connection knows of its group.
#[derive(Clone, Debug)]
pub struct Membership {
    /// Tells the connections of all members apart.
    pub connection: u64,
    /// What its member is given.
    pub claim: Arc<Claim>,
    /// What was seen of partitions without a reader.
    pub seen: Arc<Seen>,
    /// Partitions that its broker leads.
    pub led: Vec<u32>,
}
