//! One thread: an epoll, its connections, and the loop that sends what is due.

use super::consumer::Consumer;
use super::link::Link;
use super::producer::Producer;
use super::stats::{Failure, Interval, Progress, Stats};
use super::{ConsumerPlan, ProducerPlan, Setup};
use crate::verify::{SentStream, Tracker};
use rustix::event::{Timespec, epoll};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::Sender;

/// How often answers overdue, retries and ends are looked for.
const TICK_NS: u64 = 10_000_000;
const EVENTS_MAX: usize = 256;

/// What a thread is given.
#[derive(Debug)]
pub struct Share {
    /// CPU to stay on.
    pub cpu: Option<usize>,
    /// Its producer connections.
    pub producers: Vec<ProducerPlan>,
    /// Its consumer connections.
    pub consumers: Vec<ConsumerPlan>,
}

/// What a thread brings back.
#[derive(Debug)]
pub struct Harvest {
    /// Measurements.
    pub stats: Stats,
    /// What was sent.
    pub sent: Vec<SentStream>,
    /// What was seen, by reader of each partition.
    pub seen: Vec<(u32, Tracker)>,
}

/// Why a thread could not begin.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum WorkerError {
    #[error("cannot connect to {address}: {source}")]
    Connect { address: Arc<str>, source: std::io::Error },
    #[error("epoll: {0}")]
    Poll(#[from] rustix::io::Errno),
    #[error("CPU {cpu} cannot be used: {source}")]
    Pin { cpu: usize, source: rustix::io::Errno },
}

struct Worker {
    setup: Arc<Setup>,
    progress: Arc<Progress>,
    intervals: Sender<Interval>,
    poll: OwnedFd,
    producers: Vec<Producer>,
    consumers: Vec<Consumer>,
    /// By connection, producers first: whether epoll was told to watch for room to write.
    watched: Vec<bool>,
    /// Producers whose next send is due at a time; each at most once.
    due: BinaryHeap<Reverse<(u64, usize)>>,
    is_queued: Vec<bool>,
    /// Scratch: the producers whose turn it is.
    turn: Vec<usize>,
    stats: Stats,
    next_tick_ns: u64,
    spun_ns: u64,
}

/// Pins the calling thread; an empty list leaves it free.
pub fn pin(cpus: &[usize]) -> Result<(), WorkerError> {
    if cpus.is_empty() {
        return Ok(());
    }
    let mut set = rustix::thread::CpuSet::new();
    cpus.iter().filter(|&&cpu| cpu < rustix::thread::CpuSet::MAX_CPU).for_each(|&cpu| set.set(cpu));
    rustix::thread::sched_setaffinity(None, &set)
        .map_err(|source| WorkerError::Pin { cpu: cpus[0], source })
}

/// Runs one thread's share to its end; begins when all have passed `ready` twice: connected, and
/// looked at by the main thread.
pub fn run(
    setup: Arc<Setup>,
    share: Share,
    progress: Arc<Progress>,
    intervals: Sender<Interval>,
    ready: &std::sync::Barrier,
) -> Result<Harvest, WorkerError> {
    let worker = Worker::new(Arc::clone(&setup), share, progress, intervals);
    if worker.is_err() {
        setup.stop.store(true, Ordering::Release);
    }
    // Also after a failure: the others wait for everyone.
    ready.wait();
    ready.wait();
    Ok(worker?.run())
}

impl Worker {
    fn new(
        setup: Arc<Setup>,
        share: Share,
        progress: Arc<Progress>,
        intervals: Sender<Interval>,
    ) -> Result<Self, WorkerError> {
        let thread = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        progress.thread.store(thread, Ordering::Release);
        pin(share.cpu.as_slice())?;
        // The default of 50 us would be added to every sleep.
        let _ = rustix::thread::set_current_timer_slack(std::num::NonZeroU64::new(1));
        let poll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let mut producers = Vec::new();
        for plan in share.producers {
            let address = Arc::clone(&plan.address);
            producers.push(
                Producer::connect(plan, &setup)
                    .map_err(|source| WorkerError::Connect { address, source })?,
            );
        }
        let mut consumers = Vec::new();
        for plan in share.consumers {
            let address = Arc::clone(&plan.address);
            consumers.push(
                Consumer::connect(plan, &setup)
                    .map_err(|source| WorkerError::Connect { address, source })?,
            );
        }
        let links =
            producers.iter().map(Producer::link).chain(consumers.iter().map(Consumer::link));
        let mut connections = 0;
        for link in links.flatten() {
            watch(&poll, link, connections, false, true)?;
            connections += 1;
        }
        Ok(Self {
            stats: Stats::new(setup.timeline),
            is_queued: vec![false; producers.len()],
            turn: Vec::new(),
            watched: vec![false; connections],
            setup,
            progress,
            intervals,
            poll,
            producers,
            consumers,
            due: BinaryHeap::new(),
            next_tick_ns: 0,
            spun_ns: 0,
        })
    }

    fn run(mut self) -> Harvest {
        let mut events = Vec::with_capacity(EVENTS_MAX);
        for index in 0..self.producers.len() {
            self.after_producer(index);
        }
        while !self.setup.stop.load(Ordering::Acquire) {
            let now_ns = self.setup.clock.now_ns();
            self.send_due(now_ns);
            if now_ns >= self.next_tick_ns {
                self.on_tick(now_ns);
            }
            self.wait(&mut events);
            for event in events.drain(..) {
                self.on_event(event);
            }
        }
        self.finish()
    }

    fn send_due(&mut self, now_ns: u64) {
        while let Some(Reverse((due_ns, index))) = self.due.peek().copied() {
            if due_ns > now_ns {
                break;
            }
            self.due.pop();
            self.is_queued[index] = false;
            self.turn.push(index);
        }
        // One turn each, then events: a producer may be due again at once.
        let mut turn = std::mem::take(&mut self.turn);
        for index in turn.drain(..) {
            self.producers[index].pump(&self.setup, &mut self.stats);
            self.after_producer(index);
        }
        self.turn = turn;
    }

    /// Brings the queue of due times and epoll up to date with a producer.
    fn after_producer(&mut self, index: usize) {
        let producer = &mut self.producers[index];
        if !self.is_queued[index]
            && let Some(due_ns) = producer.next_due_ns(&self.setup)
        {
            self.due.push(Reverse((due_ns, index)));
            self.is_queued[index] = true;
        }
        let wants = producer.wants_write();
        if self.watched[index] != wants {
            if let Some(link) = producer.link() {
                // A socket that cannot be watched is found out by its next write.
                let _ = watch(&self.poll, link, index, wants, false);
            }
            self.watched[index] = wants;
        }
    }

    fn after_consumer(&mut self, index: usize) {
        let connection = self.producers.len() + index;
        let wants = self.consumers[index].wants_write();
        if self.watched[connection] != wants {
            if let Some(link) = self.consumers[index].link() {
                let _ = watch(&self.poll, link, connection, wants, false);
            }
            self.watched[connection] = wants;
        }
    }

    fn on_event(&mut self, event: epoll::Event) {
        let connection = event.data.u64() as usize;
        let flags = event.flags;
        let can_write = flags.contains(epoll::EventFlags::OUT);
        // Errors and hang-ups show themselves to a read.
        let can_read = flags.intersects(!epoll::EventFlags::OUT);
        let Self { setup, stats, .. } = self;
        if let Some(producer) = self.producers.get_mut(connection) {
            if can_write {
                producer.on_writable(setup, stats);
            }
            if can_read {
                producer.on_readable(setup, stats);
            }
            self.after_producer(connection);
        } else {
            let index = connection - self.producers.len();
            let consumer = &mut self.consumers[index];
            if can_write {
                consumer.on_writable(setup, stats);
            }
            if can_read {
                consumer.on_readable(setup, stats);
            }
            self.after_consumer(index);
        }
    }

    /// Waits for events, at most until the next send or tick is due.
    fn wait(&mut self, events: &mut Vec<epoll::Event>) {
        let due_ns = self.due.peek().map_or(u64::MAX, |Reverse((due_ns, _))| *due_ns);
        let start_ns = self.setup.clock.now_ns();
        let is_soon = due_ns <= start_ns.saturating_add(self.setup.spin_ns);
        let sleep_ns = match is_soon {
            true => 0,
            false => {
                let wake_ns = (due_ns - self.setup.spin_ns).min(self.next_tick_ns);
                wake_ns.saturating_sub(start_ns)
            }
        };
        let timeout = Timespec {
            tv_sec: (sleep_ns / 1_000_000_000) as i64,
            tv_nsec: (sleep_ns % 1_000_000_000) as i64,
        };
        // An interrupted wait is an empty one.
        let buffer = rustix::buffer::spare_capacity(events);
        let is_empty = epoll::wait(&self.poll, buffer, Some(&timeout)).unwrap_or(0) == 0;
        if is_soon && is_empty && due_ns > start_ns {
            self.spun_ns += self.setup.clock.now_ns() - start_ns;
        }
    }

    fn on_tick(&mut self, now_ns: u64) {
        // Nothing was seen meanwhile: not what was due, and not that the broker had answered.
        let stalled_ns = match self.next_tick_ns {
            0 => 0,
            due_ns => now_ns - due_ns,
        };
        self.stats.on_stall(now_ns, stalled_ns);
        self.next_tick_ns = now_ns + TICK_NS;
        let setup = Arc::clone(&self.setup);
        for index in 0..self.producers.len() {
            let is_new = self.producers[index].on_tick(&setup, &mut self.stats, now_ns);
            if is_new {
                self.watch_new(index);
            }
            self.producers[index].on_stall(stalled_ns);
            self.producers[index].pump(&setup, &mut self.stats);
            self.after_producer(index);
        }
        for index in 0..self.consumers.len() {
            let is_new = self.consumers[index].on_tick(&setup, &mut self.stats, now_ns);
            if is_new {
                self.watch_new(self.producers.len() + index);
            }
            self.after_consumer(index);
        }
        if let Some(interval) = self.stats.finished_interval(now_ns) {
            // Nobody listens once the run is being given up.
            drop(self.intervals.send(interval));
        }
        self.publish(now_ns);
    }

    fn watch_new(&mut self, connection: usize) {
        let link = match self.producers.get(connection) {
            Some(producer) => producer.link(),
            None => self.consumers[connection - self.producers.len()].link(),
        };
        self.watched[connection] = false;
        if let Some(link) = link {
            let _ = watch(&self.poll, link, connection, false, true);
        }
    }

    fn publish(&mut self, now_ns: u64) {
        let setup = &self.setup;
        let progress = &self.progress;
        let sent = self.producers.iter().map(Producer::sent_records).sum();
        let uncertain = self.producers.iter().map(Producer::uncertain_records).sum();
        let seen = self.consumers.iter().map(|consumer| consumer.seen(setup)).sum();
        Progress::publish(&progress.sent, sent);
        Progress::publish(&progress.uncertain, uncertain);
        Progress::publish(&progress.seen, seen);
        Progress::publish(&progress.acked, self.stats.records_ever);
        Progress::publish(&progress.errors, self.stats.errors.values().sum());
        Progress::publish(&progress.spun_ns, self.spun_ns);
        let is_done = self.producers.iter_mut().all(|producer| producer.is_done(setup, now_ns));
        progress.is_done_sending.store(is_done, Ordering::Release);
        let is_read = self.consumers.iter().all(Consumer::is_done);
        progress.is_done_reading.store(is_read, Ordering::Release);
    }

    fn finish(mut self) -> Harvest {
        for producer in &mut self.producers {
            producer.give_up(&mut self.stats, Failure::NoAnswer);
        }
        self.publish(self.setup.clock.now_ns());
        drop(self.intervals.send(self.stats.last_interval().clone()));
        Harvest {
            stats: self.stats,
            sent: self.producers.into_iter().flat_map(Producer::into_streams).collect(),
            seen: self
                .consumers
                .into_iter()
                .flat_map(|consumer| {
                    let replica = consumer.replica;
                    consumer.readings.into_iter().map(move |reading| (replica, reading.tracker))
                })
                .collect(),
        }
    }
}

fn watch(
    poll: &OwnedFd,
    link: &Link,
    connection: usize,
    wants_write: bool,
    is_new: bool,
) -> Result<(), rustix::io::Errno> {
    let mut flags = epoll::EventFlags::IN;
    flags.set(epoll::EventFlags::OUT, wants_write);
    let data = epoll::EventData::new_u64(connection as u64);
    match is_new {
        true => epoll::add(poll, link.fd(), data, flags),
        false => epoll::modify(poll, link.fd(), data, flags),
    }
}
