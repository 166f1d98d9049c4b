//! One producer connection: builds requests when they are due and keeps at most so many under way.
//! What becomes of their answers is in `outcome`.

use super::link::Link;
use super::request::{Author, Request};
use super::stats::{Done, Failure, Stats};
use super::{ProduceSetup, ProducerPlan, Setup};
use crate::args::Acks;
use crate::schedule::Schedule;
use crate::verify::SentStream;
use std::collections::VecDeque;
use std::io::IoSlice;

/// Frames handed to the kernel in one call.
const SLICES_MAX: usize = 64;
/// Rounds of building and writing before other connections get their turn.
const ROUNDS_MAX: usize = 4;
pub(super) const INPUT_BYTES: usize = 64 << 10;

/// A producer connection and its requests.
#[derive(Debug)]
pub struct Producer {
    pub(super) plan: ProducerPlan,
    pub(super) link: Option<Link>,
    pub(super) streams: Vec<SentStream>,
    cursor: usize,
    /// See [`Author::weights`].
    weights: Vec<f64>,
    /// Handed to batches so far.
    records_built: u64,
    schedule: Option<Schedule>,
    random: fastrand::Rng,
    /// The last correlation id given.
    correlation_id: i32,
    /// Built and not fully written; of the front one, `head_written` bytes are.
    pub(super) writing: VecDeque<Box<Request>>,
    pub(super) head_written: usize,
    /// Written and not answered, oldest first.
    pub(super) awaiting: VecDeque<Box<Request>>,
    /// To be sent again from a time on.
    pub(super) again: VecDeque<(u64, Box<Request>)>,
    /// Boxed, because a request goes from queue to queue millions of times a second.
    #[expect(clippy::vec_box)]
    pub(super) free: Vec<Box<Request>>,
    /// Since when nothing but the schedule has held sends back.
    pub(super) possible_ns: u64,
    /// How late sends are because of ourselves, since nothing was due the last time: what was late
    /// once holds up all that is due until then, although it waits for the broker now.
    pub(super) debt_ns: u64,
    /// The socket takes nothing now.
    pub(super) is_blocked: bool,
    pub(super) reconnect_ns: u64,
    /// With acks=0 a lost connection leaves everything sent before in doubt.
    pub(super) is_doubtful: bool,
    intended_ns: Vec<u64>,
    /// Failed batches of the answer at hand.
    pub(super) failed: Vec<(usize, i16)>,
}

impl Producer {
    /// Connects.
    pub fn connect(plan: ProducerPlan, setup: &Setup) -> std::io::Result<Self> {
        let produce = setup.produce();
        let link = setup.connect(&plan.address, INPUT_BYTES)?;
        let streams: Vec<SentStream> = plan
            .partitions
            .iter()
            .map(|&partition| SentStream { producer: plan.id, partition, ..Default::default() })
            .collect();
        Ok(Self {
            link: Some(link),
            // Connections begin at different partitions, so that few of them meet on one.
            cursor: plan.id as usize % streams.len(),
            weights: weights_of(produce, &plan.partitions),
            streams,
            records_built: 0,
            schedule: schedule_of(setup, produce, plan.id),
            random: fastrand::Rng::with_seed(produce.seed ^ u64::from(plan.id)),
            correlation_id: 0,
            writing: VecDeque::new(),
            head_written: 0,
            awaiting: VecDeque::new(),
            again: VecDeque::new(),
            free: Vec::new(),
            possible_ns: 0,
            debt_ns: 0,
            is_blocked: false,
            reconnect_ns: 0,
            is_doubtful: false,
            intended_ns: Vec::new(),
            failed: Vec::new(),
            plan,
        })
    }

    /// The socket, while connected.
    pub fn link(&self) -> Option<&Link> {
        self.link.as_ref()
    }

    /// Whether bytes wait for the socket to take more.
    pub fn wants_write(&self) -> bool {
        self.is_blocked
    }

    /// When the next send is due without any event: by the schedule, or at once in a closed loop
    /// without answers. `None` after the end, and while an answer or the socket must come first.
    pub fn next_due_ns(&mut self, setup: &Setup) -> Option<u64> {
        let produce = setup.produce();
        let may_send = self.has_room(produce) && !self.is_spent(produce);
        if self.link.is_none() || self.is_blocked || !may_send {
            return None;
        }
        if let Some(schedule) = &mut self.schedule {
            return due_ns(schedule, setup);
        }
        let is_open = setup.clock.now_ns() < setup.end_ns();
        (is_open && setup.produce().acks == Acks::None).then_some(setup.timeline.start_ns)
    }

    /// Whether nothing is due any more and nothing is under way.
    pub fn is_done(&mut self, setup: &Setup, now_ns: u64) -> bool {
        let nothing_due = match &mut self.schedule {
            Some(schedule) => due_ns(schedule, setup).is_none(),
            None => now_ns >= setup.end_ns(),
        } || self.is_spent(setup.produce());
        nothing_due && self.writing.is_empty() && self.awaiting.is_empty() && self.again.is_empty()
    }

    /// Records handed to batches so far.
    pub fn sent_records(&self) -> u64 {
        self.streams.iter().map(|stream| stream.sent).sum()
    }

    fn is_spent(&self, produce: &ProduceSetup) -> bool {
        self.records_built >= produce.records_max
    }

    pub(super) fn has_room(&self, produce: &ProduceSetup) -> bool {
        self.writing.len() + self.awaiting.len() < produce.inflight
    }

    /// The thread stood still for so long.
    pub fn on_stall(&mut self, ns: u64) {
        if !self.awaiting.is_empty() {
            self.debt_ns = self.debt_ns.max(ns);
        }
    }

    /// Sends everything that is due and allowed.
    pub fn pump(&mut self, setup: &Setup, stats: &mut Stats) {
        let produce = setup.produce();
        for _ in 0..ROUNDS_MAX {
            if self.link.is_none() {
                return;
            }
            let now_ns = setup.clock.now_ns();
            while self.again.front().is_some_and(|(at_ns, _)| *at_ns <= now_ns) {
                let (_, mut request) = self.again.pop_front().expect("there is a front");
                request.correlation_id = self.next_correlation_id();
                request.frame.set_correlation_id(request.correlation_id);
                self.writing.push_back(request);
            }
            while self.has_room(produce) {
                let Some((records, due_ns)) = self.next_records(setup, now_ns) else {
                    self.debt_ns = 0;
                    break;
                };
                if self.schedule.is_some() {
                    let own_ns = now_ns.saturating_sub(due_ns.max(self.possible_ns));
                    self.debt_ns = self.debt_ns.max(own_ns);
                    stats.on_lag(due_ns, self.debt_ns.min(now_ns.saturating_sub(due_ns)));
                }
                self.build(setup, now_ns, records);
            }
            if self.writing.is_empty() {
                return;
            }
            self.flush(setup, stats);
            if self.is_blocked || produce.acks != Acks::None {
                return;
            }
        }
    }

    /// How many records each batch gets now, their intended times in `self.intended_ns`, and since
    /// when it was due to leave.
    fn next_records(&mut self, setup: &Setup, now_ns: u64) -> Option<(usize, u64)> {
        let produce = setup.produce();
        self.intended_ns.clear();
        if self.is_spent(produce) {
            return None;
        }
        let Some(schedule) = &mut self.schedule else {
            self.intended_ns.push(now_ns);
            let is_open = (setup.timeline.start_ns..setup.end_ns()).contains(&now_ns);
            return is_open.then_some((produce.batch_records, now_ns));
        };
        let due_ns = due_ns(schedule, setup).filter(|due_ns| *due_ns <= now_ns)?;
        if produce.linger_ns == 0 {
            self.intended_ns.push(schedule.arrival_ns(0));
            schedule.take(1);
            return Some((produce.batch_records, due_ns));
        }
        let records = schedule.due(now_ns.min(setup.end_ns() - 1), produce.batch_records);
        self.intended_ns.extend((0..records).map(|ahead| schedule.arrival_ns(ahead)));
        schedule.take(records);
        Some((records, due_ns))
    }

    fn next_correlation_id(&mut self) -> i32 {
        self.correlation_id = self.correlation_id.wrapping_add(1) & i32::MAX;
        self.correlation_id
    }

    fn build(&mut self, setup: &Setup, now_ns: u64, records: usize) {
        let mut request = self.free.pop().unwrap_or_default();
        request.correlation_id = self.next_correlation_id();
        request.attempts = 0;
        request.intended_ns.clone_from(&self.intended_ns);
        let author = Author {
            producer: self.plan.id,
            producer_id: self.plan.producer_id,
            streams: &mut self.streams,
            cursor: &mut self.cursor,
            weights: &self.weights,
            random: &mut self.random,
        };
        request.build(setup, setup.produce(), author, now_ns, records);
        self.records_built += request.records();
        self.writing.push_back(request);
    }

    /// The socket takes bytes again.
    pub fn on_writable(&mut self, setup: &Setup, stats: &mut Stats) {
        if self.is_blocked {
            self.is_blocked = false;
            self.possible_ns = setup.clock.now_ns();
            self.flush(setup, stats);
        }
        self.pump(setup, stats);
    }

    fn flush(&mut self, setup: &Setup, stats: &mut Stats) {
        while !self.writing.is_empty() && !self.is_blocked {
            let Some(link) = &self.link else { return };
            let mut slices = [IoSlice::new(&[]); SLICES_MAX];
            let mut skipped = self.head_written;
            let mut count = 0;
            for (slice, request) in slices.iter_mut().zip(&self.writing) {
                *slice = IoSlice::new(&request.frame.bytes()[skipped..]);
                skipped = 0;
                count += 1;
            }
            match link.write(&slices[..count]) {
                Ok(0) => self.is_blocked = true,
                Ok(written) => self.on_written(setup, stats, written),
                Err(_) => self.on_lost(setup, stats, Failure::ConnectionLost),
            }
        }
        // What TLS has taken and the socket has not.
        match self.link.as_ref().map(Link::push) {
            Some(Ok(is_all_gone)) => self.is_blocked |= !is_all_gone,
            Some(Err(_)) => self.on_lost(setup, stats, Failure::ConnectionLost),
            None => {}
        }
    }

    fn on_written(&mut self, setup: &Setup, stats: &mut Stats, mut written: usize) {
        let produce = setup.produce();
        let now_ns = setup.clock.now_ns();
        while let Some(front) = self.writing.front() {
            let left = front.frame.bytes().len() - self.head_written;
            if written < left {
                self.head_written += written;
                return;
            }
            written -= left;
            self.head_written = 0;
            let mut request = self.writing.pop_front().expect("there is a front");
            request.written_ns = now_ns;
            if produce.acks == Acks::None {
                stats.on_done(now_ns, done(&request, produce, request.batches.len() as u64));
                self.free.push(request);
            } else {
                self.awaiting.push_back(request);
            }
        }
    }
}

pub(super) fn done(request: &Request, produce: &ProduceSetup, batches: u64) -> Done {
    // All batches of a request have as many records.
    let count = request.batches[0].records;
    Done {
        records: batches * count as u64,
        value_bytes: batches * produce.template.values_bytes(count),
        batches,
        request_bytes: request.frame.bytes().len() as u64,
    }
}

fn schedule_of(setup: &Setup, produce: &ProduceSetup, id: u32) -> Option<Schedule> {
    let records_per_arrival = match produce.linger_ns {
        0 => produce.batch_records * produce.batches_per_request,
        _ => 1,
    };
    let place = (id as usize, produce.connections);
    let arrivals = produce.arrivals.as_ref()?;
    Some(Schedule::new(arrivals, records_per_arrival, setup.timeline.start_ns, place, produce.seed))
}

fn weights_of(produce: &ProduceSetup, partitions: &[u32]) -> Vec<f64> {
    let Some(keys) = produce.keys.as_ref().filter(|_| produce.is_keyed) else { return Vec::new() };
    let sums = partitions.iter().scan(0.0, |sum, &partition| {
        *sum += keys.weight(partition);
        Some(*sum)
    });
    sums.collect()
}

/// When the next request is to leave; `None` when nothing is due before the end.
fn due_ns(schedule: &mut Schedule, setup: &Setup) -> Option<u64> {
    let produce = setup.produce();
    let end_ns = setup.end_ns();
    let first_ns = schedule.arrival_ns(0);
    if first_ns >= end_ns {
        return None;
    }
    if produce.linger_ns == 0 {
        return Some(first_ns);
    }
    let full_ns = schedule.arrival_ns(produce.batch_records - 1);
    // What is left over when the schedule ends leaves with the end.
    Some(full_ns.min(first_ns + produce.linger_ns).min(end_ns))
}
