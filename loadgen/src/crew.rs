//! The threads of a load: started together, stopped together, and whose CPU is the broker's.

use crate::args::TargetArgs;
use crate::cost::Meter;
use crate::driver::Setup;
use crate::driver::stats::{Progress, Stats};
use crate::driver::worker::{self, Harvest, Share, WorkerError};
use crate::flushes::FlushCounter;
use crate::gather::{Gatherer, Live};
use crate::run::RunError;
use crate::verify::{SentStream, Tracker};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Barrier, mpsc};
use std::thread;

/// What was seen, with the group of readers that saw it.
pub type Seen = Vec<(u32, Tracker)>;

/// Whose CPU is counted as the broker's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerProcess {
    /// Unknown, perhaps on another host.
    None,
    /// A process of this host.
    Pid(u32),
    /// The same, and its flushes are counted.
    PidWithFlushes(u32),
    /// All threads of this process but the load's.
    Embedded,
}

impl BrokerProcess {
    /// From `--pid`.
    pub fn from_option(pid: Option<u32>) -> Self {
        pid.map_or(Self::None, Self::Pid)
    }

    /// From `--pid` and `--count-flushes`.
    pub fn from_target(target: &TargetArgs) -> Self {
        match (target.pid, target.count_flushes) {
            (Some(pid), true) => Self::PidWithFlushes(pid),
            (pid, _) => Self::from_option(pid),
        }
    }
}

/// Threads at work.
#[derive(Debug)]
pub struct Crew {
    /// What they share.
    pub setup: Arc<Setup>,
    /// When the last connection was made, by the run's clock.
    pub connected_ns: u64,
    threads: Vec<thread::JoinHandle<Result<Harvest, WorkerError>>>,
}

/// Starts one thread a share; returns when all are connected, or one has failed. What they cost is
/// first read before they begin.
pub fn start(
    setup: Setup,
    shares: Vec<Share>,
    broker: BrokerProcess,
    live: Live,
) -> Result<(Crew, Gatherer), RunError> {
    let setup = Arc::new(setup);
    let ready = Arc::new(Barrier::new(shares.len() + 1));
    let (send, receive) = mpsc::channel();
    let mut threads = Vec::new();
    let mut progress = Vec::new();
    for share in shares {
        let cell = Arc::new(Progress::default());
        progress.push(Arc::clone(&cell));
        let (setup, ready, send) = (Arc::clone(&setup), Arc::clone(&ready), send.clone());
        threads.push(thread::spawn(move || worker::run(setup, share, cell, send, &ready)));
    }
    ready.wait();
    let connected_ns = setup.clock.now_ns();
    let gatherer = meter(broker, &progress).map(|meter| {
        let mut gatherer = Gatherer::new(Arc::clone(&setup), progress, receive, meter, live);
        if setup.produce.is_none() {
            gatherer.read();
        }
        gatherer
    });
    if gatherer.is_err() {
        setup.stop.store(true, Ordering::Release);
    }
    ready.wait();
    Ok((Crew { setup, threads, connected_ns }, gatherer?))
}

fn meter(broker: BrokerProcess, progress: &[Arc<Progress>]) -> Result<Option<Meter>, RunError> {
    let of_process = |pid| Meter::of_process(pid).ok_or(RunError::Pid(pid));
    Ok(match broker {
        BrokerProcess::None => None,
        BrokerProcess::Pid(pid) => Some(of_process(pid)?),
        BrokerProcess::PidWithFlushes(pid) => {
            let flushes = FlushCounter::start(pid).map_err(RunError::Flushes)?;
            Some(of_process(pid)?.with_flushes(flushes))
        }
        BrokerProcess::Embedded => {
            let own = progress.iter().map(|cell| cell.thread.load(Ordering::Acquire));
            let main = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
            Some(Meter::of_this_process_without(own.chain([main])))
        }
    })
}

impl Crew {
    /// Ends all threads and takes what they have.
    pub fn stop(self) -> Result<Vec<Harvest>, RunError> {
        self.setup.stop.store(true, Ordering::Release);
        let joined = self.threads.into_iter().map(|thread| thread.join());
        let harvests: Result<Vec<Harvest>, WorkerError> =
            joined.map(|joined| joined.expect("a panic of a thread ends the program")).collect();
        Ok(harvests?)
    }

    /// Whether a thread could not begin.
    pub fn has_failed(&self) -> bool {
        self.setup.stop.load(Ordering::Acquire)
    }
}

/// One account of all threads.
pub fn merge(harvests: Vec<Harvest>) -> (Stats, Vec<SentStream>, Seen) {
    let mut harvests = harvests.into_iter();
    let Harvest { mut stats, mut sent, mut seen } =
        harvests.next().expect("there is at least one thread");
    for harvest in harvests {
        stats.add(&harvest.stats);
        sent.extend(harvest.sent);
        seen.extend(harvest.seen);
    }
    (stats, sent, seen)
}
