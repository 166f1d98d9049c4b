//! What becomes of produce requests: acknowledged, to be sent again, or of unknown fate.

use super::Setup;
use super::link::Link;
use super::producer::{INPUT_BYTES, Producer, done};
use super::request::Request;
use super::stats::{Failure, Stats};
use crate::args::Acks;
use millrace_client::frame;
use millrace_wire::ErrorCode;
use millrace_wire::messages::ProduceResponse;
use std::collections::VecDeque;

const RETRY_DELAY_NS: u64 = 100_000_000;
const RECONNECT_DELAY_NS: u64 = 100_000_000;

impl Producer {
    /// Takes the answers that have arrived.
    pub fn on_readable(&mut self, setup: &Setup, stats: &mut Stats) {
        // Taken out while its frames are looked at, so that the rest of `self` can change.
        let Some(mut link) = self.link.take() else { return };
        let was_full = !self.has_room(setup.produce());
        let outcome = self.read_answers(&mut link, setup, stats);
        match outcome {
            Ok(now_ns) => {
                self.link = Some(link);
                if was_full && self.has_room(setup.produce()) {
                    self.possible_ns = now_ns;
                }
                self.pump(setup, stats);
            }
            Err(failure) => self.on_lost(setup, stats, failure),
        }
    }

    fn read_answers(
        &mut self,
        link: &mut Link,
        setup: &Setup,
        stats: &mut Stats,
    ) -> Result<u64, Failure> {
        let is_open = link.receive().map_err(|_| Failure::ConnectionLost)?;
        let now_ns = setup.clock.now_ns();
        while let Some(place) = link.next_frame().map_err(|_| Failure::Malformed)? {
            self.on_answer(link.frame(place), now_ns, setup, stats)?;
        }
        if is_open { Ok(now_ns) } else { Err(Failure::ConnectionLost) }
    }

    fn on_answer(
        &mut self,
        frame: &[u8],
        now_ns: u64,
        setup: &Setup,
        stats: &mut Stats,
    ) -> Result<(), Failure> {
        let produce = setup.produce();
        self.failed.clear();
        // Kafka answers in the order of the requests.
        let request = self.awaiting.pop_front().ok_or(Failure::Malformed)?;
        let checked = match is_plain_success(frame, &request, &produce.answer_head) {
            true => Ok(()),
            false => self.check_answer(frame, &request, produce.version),
        };
        if let Err(failure) = checked {
            self.awaiting.push_front(request);
            return Err(failure);
        }
        let good = (request.batches.len() - self.failed.len()) as u64;
        if good > 0 {
            stats.on_done(now_ns, done(&request, produce, good));
            stats.on_times(now_ns, &request.intended_ns, request.written_ns);
        }
        let failed = std::mem::take(&mut self.failed);
        for &(index, code) in &failed {
            self.on_failed_batch(&request, index, code, now_ns, setup, stats);
        }
        self.failed = failed;
        self.free.push(request);
        Ok(())
    }

    /// Finds out which batches of a request failed.
    fn check_answer(
        &mut self,
        frame: &[u8],
        request: &Request,
        version: i16,
    ) -> Result<(), Failure> {
        let (correlation_id, answer): (i32, ProduceResponse<'_>) =
            frame::decode(frame, version).map_err(|_| Failure::Malformed)?;
        let mut answered = 0;
        for topic in answer.responses.iter() {
            for partition in topic.partition_responses.iter() {
                answered += 1;
                if partition.error_code != 0 {
                    let index = request.batches.iter().position(|batch| {
                        i64::from(self.streams[batch.slot].partition) == i64::from(partition.index)
                    });
                    self.failed.push((index.ok_or(Failure::Malformed)?, partition.error_code));
                }
            }
        }
        let is_whole = answered == request.batches.len();
        let is_ours = correlation_id == request.correlation_id;
        if is_whole && is_ours { Ok(()) } else { Err(Failure::Malformed) }
    }

    fn on_failed_batch(
        &mut self,
        request: &Request,
        index: usize,
        code: i16,
        now_ns: u64,
        setup: &Setup,
        stats: &mut Stats,
    ) {
        stats.on_failure(Failure::Code(code), 1);
        let batch = request.batches[index];
        let may_retry = ErrorCode(code).is_retriable()
            && request.attempts < setup.produce().retries
            && now_ns < setup.end_ns();
        if may_retry {
            let mut again = self.free.pop().unwrap_or_default();
            again.copy_batch(request, index, self.streams[batch.slot].partition);
            again.attempts += 1;
            stats.retries += 1;
            self.again.push_back((now_ns + RETRY_DELAY_NS, again));
        } else {
            self.give_up_batches(request, &[index]);
        }
    }

    fn give_up_batches(&mut self, request: &Request, indexes: &[usize]) {
        for batch in indexes.iter().map(|&index| request.batches[index]) {
            let first = batch.first_sequence;
            self.streams[batch.slot].uncertain.push(first..first + batch.records as u64);
        }
    }

    /// The connection is of no use any more: what is under way has an unknown fate.
    pub fn on_lost(&mut self, setup: &Setup, stats: &mut Stats, failure: Failure) {
        self.link = None;
        self.is_blocked = false;
        self.reconnect_ns = setup.clock.now_ns() + RECONNECT_DELAY_NS;
        stats.connections_lost += 1;
        if setup.produce().acks == Acks::None {
            self.is_doubtful = true;
        }
        self.give_up(stats, failure);
    }

    /// Stops waiting for everything that is under way.
    pub fn give_up(&mut self, stats: &mut Stats, failure: Failure) {
        self.head_written = 0;
        let mut batches = 0;
        let again = self.again.drain(..).map(|(_, request)| request);
        let lost: VecDeque<Box<Request>> =
            self.awaiting.drain(..).chain(self.writing.drain(..)).chain(again).collect();
        for request in lost {
            batches += request.batches.len();
            let all: Vec<usize> = (0..request.batches.len()).collect();
            self.give_up_batches(&request, &all);
            self.free.push(request);
        }
        stats.on_failure(failure, batches as u64);
    }

    /// Looks after what no event reports: answers that do not come, connections to make again.
    /// Returns whether there is a new connection.
    pub fn on_tick(&mut self, setup: &Setup, stats: &mut Stats, now_ns: u64) -> bool {
        let timeout_ns = setup.produce().timeout_ns;
        let oldest_ns = self.awaiting.front().map(|request| request.written_ns);
        if oldest_ns.is_some_and(|written_ns| now_ns > written_ns.saturating_add(timeout_ns)) {
            self.on_lost(setup, stats, Failure::NoAnswer);
        }
        let is_over = now_ns >= setup.end_ns();
        if self.link.is_some() || is_over || now_ns < self.reconnect_ns {
            return false;
        }
        match setup.connect(&self.plan.address, INPUT_BYTES) {
            Ok(link) => {
                self.link = Some(link);
                self.possible_ns = setup.clock.now_ns();
                true
            }
            Err(_) => {
                self.reconnect_ns = now_ns + RECONNECT_DELAY_NS;
                false
            }
        }
    }

    /// Records whose fate is not known.
    pub fn uncertain_records(&self) -> u64 {
        let ranges = self.streams.iter().flat_map(|stream| &stream.uncertain);
        ranges.map(|range| range.end - range.start).sum()
    }

    /// What was sent, for the comparison with what was seen.
    pub fn into_streams(mut self) -> Vec<crate::verify::SentStream> {
        if self.is_doubtful {
            self.streams.iter_mut().for_each(crate::verify::SentStream::doubt_all);
        }
        self.streams
    }
}

/// Whether an answer is the usual one, by comparing bytes: to a request of one batch, its topic and
/// one partition, no error. At a million answers a second the codec's checks would cost a third of
/// the CPU.
fn is_plain_success(frame: &[u8], request: &Request, answer_head: &[u8]) -> bool {
    let Some((correlation_id, rest)) = frame.split_first_chunk::<4>() else { return false };
    // After topic and count: partition index, error code.
    let Some((_, error_code)) = rest
        .strip_prefix(answer_head)
        .and_then(|rest| rest.split_first_chunk::<4>())
        .and_then(|(index, rest)| Some((index, rest.first_chunk::<2>()?)))
    else {
        return false;
    };
    request.batches.len() == 1
        && *correlation_id == request.correlation_id.to_be_bytes()
        && *error_code == [0, 0]
}
