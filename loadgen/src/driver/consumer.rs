//! One consumer connection: fetches its partitions over and over, checks what comes.

use super::link::Link;
use super::stats::{Failure, Stats};
use super::{ConsumerPlan, Membership, Setup};
use crate::cluster::CLIENT_ID;
use crate::fetched::{self, Broken, Fetched};
use crate::verify::Tracker;
use millrace_client::frame;
use millrace_wire::messages::fetch_request::{FetchPartition, FetchTopic};
use millrace_wire::messages::fetch_response::PartitionData;
use millrace_wire::messages::{FetchRequest, FetchResponse};
use millrace_wire::{Array, Records, Writer};
use std::collections::BTreeMap;
use std::io::IoSlice;
use std::sync::Arc;

const INPUT_BYTES: usize = 1 << 20;
/// After a failed fetch or a lost connection.
const RETRY_DELAY_NS: u64 = 50_000_000;

/// One partition as it is read.
#[derive(Debug)]
pub struct Reading {
    partition: u32,
    /// Where the next fetch begins.
    offset: i64,
    /// Records below are checked. Invariant: `checked <= offset`.
    checked: i64,
    /// Read up to here; `None` for ever.
    end: Option<i64>,
    /// What was seen.
    pub tracker: Tracker,
    /// Records counted by batch headers, when values are not checked.
    counted: u64,
}

impl Reading {
    fn new(offset: i64, end: Option<i64>, tracker: Tracker) -> Self {
        let partition = tracker.partition();
        Self { partition, offset, checked: offset, end, tracker, counted: 0 }
    }

    fn is_at_end(&self) -> bool {
        self.end.is_some_and(|end| self.offset >= end)
    }
}

/// A consumer connection.
#[derive(Debug)]
pub struct Consumer {
    /// Which of the readers of each partition it is.
    pub replica: u32,
    address: Arc<str>,
    link: Option<Link>,
    /// Its partitions.
    pub readings: Vec<Reading>,
    /// Partition -> place in `readings`.
    places: BTreeMap<i32, usize>,
    /// The reading that comes first in the next fetch.
    first: usize,
    /// Answers so far.
    bytes: u64,
    request: Writer,
    written: usize,
    correlation_id: i32,
    is_blocked: bool,
    /// Nothing is under way and the next fetch may leave from then on.
    next_fetch_ns: Option<u64>,
    /// Where its partitions come from, if from a group.
    membership: Option<Membership>,
    /// The version of them that it reads.
    version: u64,
}

impl Consumer {
    /// Connects.
    pub fn connect(plan: ConsumerPlan, setup: &Setup) -> std::io::Result<Self> {
        let link = setup.connect(&plan.address, INPUT_BYTES)?;
        let readings: Vec<Reading> = plan
            .partitions
            .into_iter()
            .map(|(partition, offset, end)| {
                Reading::new(offset, end, Tracker::new(setup.fetch.run, partition))
            })
            .collect();
        Ok(Self {
            replica: plan.replica,
            address: plan.address,
            link: Some(link),
            places: places(&readings),
            readings,
            first: 0,
            bytes: 0,
            request: Writer::new(),
            written: 0,
            correlation_id: 0,
            is_blocked: false,
            next_fetch_ns: Some(0),
            membership: plan.membership,
            version: 0,
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

    /// Whether every partition was read to its end.
    pub fn is_done(&self) -> bool {
        self.readings.iter().all(Reading::is_at_end)
    }

    /// Records that came, each counted once.
    pub fn seen(&self, setup: &Setup) -> u64 {
        self.readings
            .iter()
            .map(|reading| match setup.fetch.is_verified {
                true => reading.tracker.arrived(),
                false => reading.counted,
            })
            .sum()
    }

    /// Takes over what the group has given or taken, and tells it how far each partition was read.
    fn follow_group(&mut self, setup: &Setup) {
        let Some(Membership { connection, claim, seen, led }) = &self.membership else { return };
        let positions = |readings: &[Reading]| -> BTreeMap<u32, i64> {
            readings.iter().map(|reading| (reading.partition, reading.checked)).collect()
        };
        let mut read = positions(&self.readings);
        if let Some((version, mut given)) = claim.changed_since(self.version, led) {
            self.version = version;
            for reading in std::mem::take(&mut self.readings) {
                match given.remove(&reading.partition) {
                    Some(offset) if offset == reading.checked => self.readings.push(reading),
                    given_back => {
                        let partition = reading.partition;
                        seen.put(partition, reading.tracker);
                        given.extend(given_back.map(|offset| (partition, offset)));
                    }
                }
            }
            for (partition, offset) in given {
                let tracker = seen.take(setup.fetch.run, partition);
                self.readings.push(Reading::new(offset, None, tracker));
            }
            self.places = places(&self.readings);
            read.extend(positions(&self.readings));
        }
        claim.report(*connection, self.version, read);
    }

    /// Sends the next fetch if none is under way, connects again if need be. Returns whether there
    /// is a new connection.
    pub fn on_tick(&mut self, setup: &Setup, stats: &mut Stats, now_ns: u64) -> bool {
        self.follow_group(setup);
        if self.next_fetch_ns.is_none_or(|at_ns| at_ns > now_ns) {
            return false;
        }
        let is_new = self.link.is_none();
        match self.link.take().map_or_else(|| setup.connect(&self.address, INPUT_BYTES), Ok) {
            Ok(link) => self.continue_with(link, setup, stats),
            Err(_) => self.next_fetch_ns = Some(now_ns + RETRY_DELAY_NS),
        }
        is_new && self.link.is_some()
    }

    /// Sends the next fetch over `link`, and keeps it unless that fails.
    fn continue_with(&mut self, link: Link, setup: &Setup, stats: &mut Stats) {
        match self.send_fetch(&link, setup) {
            Ok(()) => self.link = Some(link),
            Err(failure) => self.on_lost(setup, stats, failure),
        }
    }

    fn send_fetch(&mut self, link: &Link, setup: &Setup) -> Result<(), Failure> {
        let fetch = &setup.fetch;
        self.next_fetch_ns = None;
        // The broker fills a fetch from the front: who comes first changes each time.
        if self.readings.is_empty() {
            // The group may give it some.
            self.next_fetch_ns = Some(setup.clock.now_ns() + RETRY_DELAY_NS);
            return Ok(());
        }
        let (after, before) = self.readings.split_at(self.first % self.readings.len());
        self.first = (self.first + 1) % self.readings.len();
        let partitions: Vec<FetchPartition<'_>> = before
            .iter()
            .chain(after)
            .filter(|reading| !reading.is_at_end())
            .map(|reading| FetchPartition {
                partition: reading.partition as i32,
                current_leader_epoch: -1,
                fetch_offset: reading.offset,
                partition_max_bytes: fetch.partition_bytes,
                ..Default::default()
            })
            .collect();
        if partitions.is_empty() {
            return Ok(());
        }
        let topic = FetchTopic {
            topic: &setup.topic,
            partitions: Array::from(partitions),
            ..Default::default()
        };
        let request = FetchRequest {
            replica_id: -1,
            max_wait_ms: fetch.wait_ms,
            min_bytes: fetch.min_bytes,
            max_bytes: fetch.max_bytes,
            session_id: 0,
            session_epoch: -1,
            topics: Array::from(vec![topic]),
            ..Default::default()
        };
        self.correlation_id = self.correlation_id.wrapping_add(1) & i32::MAX;
        frame::encode(&mut self.request, &request, fetch.version, self.correlation_id, CLIENT_ID)
            .expect("every field set here exists in versions 4 to 12");
        self.written = 0;
        self.flush(link)
    }

    /// The socket takes bytes again.
    pub fn on_writable(&mut self, setup: &Setup, stats: &mut Stats) {
        self.is_blocked = false;
        let Some(link) = self.link.take() else { return };
        match self.flush(&link) {
            Ok(()) => self.link = Some(link),
            Err(failure) => self.on_lost(setup, stats, failure),
        }
    }

    fn flush(&mut self, link: &Link) -> Result<(), Failure> {
        while self.written < self.request.bytes().len() && !self.is_blocked {
            let rest = IoSlice::new(&self.request.bytes()[self.written..]);
            let bytes = link.write(&[rest]).map_err(|_| Failure::ConnectionLost)?;
            self.is_blocked = bytes == 0;
            self.written += bytes;
        }
        self.is_blocked |= !link.push().map_err(|_| Failure::ConnectionLost)?;
        Ok(())
    }

    fn on_lost(&mut self, setup: &Setup, stats: &mut Stats, failure: Failure) {
        self.link = None;
        self.is_blocked = false;
        self.next_fetch_ns = Some(setup.clock.now_ns() + RETRY_DELAY_NS);
        stats.connections_lost += 1;
        stats.on_failure(failure, 1);
    }

    /// Takes the answers that have arrived.
    pub fn on_readable(&mut self, setup: &Setup, stats: &mut Stats) {
        // Taken out while its frames are looked at, so that the rest of `self` can change.
        let Some(mut link) = self.link.take() else { return };
        match self.read_answer(&mut link, setup, stats) {
            Ok(()) => self.link = Some(link),
            Err(failure) => self.on_lost(setup, stats, failure),
        }
    }

    fn read_answer(
        &mut self,
        link: &mut Link,
        setup: &Setup,
        stats: &mut Stats,
    ) -> Result<(), Failure> {
        let is_open = link.receive().map_err(|_| Failure::ConnectionLost)?;
        let Some(place) = link.next_frame().map_err(|_| Failure::Malformed)? else {
            return if is_open { Ok(()) } else { Err(Failure::ConnectionLost) };
        };
        let (now_ns, place_bytes) = (setup.clock.now_ns(), place.len());
        let link = &*link;
        let (correlation_id, answer): (i32, FetchResponse<'_>) =
            frame::decode(link.frame(place), setup.fetch.version)
                .map_err(|_| Failure::Malformed)?;
        if correlation_id != self.correlation_id {
            return Err(Failure::Malformed);
        }
        stats.fetches += 1;
        let mut has_failed = answer.error_code != 0;
        if has_failed {
            stats.on_failure(Failure::Code(answer.error_code), 1);
        }
        for topic in answer.responses.iter() {
            for partition in topic.partitions.iter() {
                if let Err(failure) = self.advance(&partition) {
                    stats.on_failure(failure, 1);
                    has_failed = true;
                }
            }
        }
        self.bytes += place_bytes as u64;
        let allowed_ns = (self.bytes as f64 * setup.fetch.ns_per_byte) as u64;
        // The next fetch leaves before this answer is checked: the broker works meanwhile.
        if has_failed {
            self.next_fetch_ns = Some(now_ns + RETRY_DELAY_NS);
        } else if allowed_ns > now_ns {
            self.next_fetch_ns = Some(allowed_ns);
        } else {
            self.send_fetch(link, setup)?;
        }
        for topic in answer.responses.iter() {
            for partition in topic.partitions.iter() {
                self.check(&partition, setup, stats, now_ns);
            }
        }
        Ok(())
    }

    /// Moves the next fetch behind the batches of an answer.
    fn advance(&mut self, answer: &PartitionData<'_>) -> Result<(), Failure> {
        if answer.error_code != 0 {
            return Err(Failure::Code(answer.error_code));
        }
        let place = match self.places.get(&answer.partition_index) {
            Some(place) => *place,
            // A partition that the group has just taken away.
            None if self.membership.is_some() => return Ok(()),
            None => return Err(Failure::Malformed),
        };
        let mut bytes = records_of(answer);
        while let Some((batch, rest)) = Fetched::first(bytes).map_err(|_| Failure::Malformed)? {
            self.readings[place].offset = batch.end_offset();
            bytes = rest;
        }
        Ok(())
    }

    /// Checks the batches of an answer that `advance` accepted.
    fn check(&mut self, answer: &PartitionData<'_>, setup: &Setup, stats: &mut Stats, now_ns: u64) {
        let Some(&place) = self.places.get(&answer.partition_index) else { return };
        let reading = &mut self.readings[place];
        let mut bytes = records_of(answer);
        while let Ok(Some((batch, rest))) = Fetched::first(bytes) {
            bytes = rest;
            let from = reading.checked;
            reading.checked = from.max(batch.end_offset());
            if batch.is_control() || batch.end_offset() <= from {
                continue;
            }
            stats.on_consumed(now_ns, batch.count(), batch.len() as u64);
            if !setup.fetch.is_verified {
                reading.counted += batch.count();
            } else if let Err(broken) = reading.check_batch(&batch, from, stats, now_ns) {
                reading.tracker.on_broken_batch(batch.base_offset(), batch.count(), broken);
            }
        }
    }
}

impl Reading {
    fn check_batch(
        &mut self,
        batch: &Fetched<'_>,
        from: i64,
        stats: &mut Stats,
        now_ns: u64,
    ) -> Result<(), Broken> {
        batch.check_crc()?;
        let body = batch.plain_body()?;
        let base_offset = batch.base_offset();
        let mut last_intended = None;
        let tracker = &mut self.tracker;
        fetched::for_each_record(&body, |offset_delta, value| {
            let offset = base_offset + offset_delta;
            if offset < from {
                return;
            }
            let intended_ns = tracker.on_value(offset, value);
            // Records that were due together are one sample.
            if intended_ns.is_some() && intended_ns != last_intended {
                last_intended = intended_ns;
                stats.on_end_to_end(now_ns, intended_ns.unwrap_or(now_ns));
            }
        })
    }
}

fn places(readings: &[Reading]) -> BTreeMap<i32, usize> {
    (0..).zip(readings).map(|(at, reading)| (reading.partition as i32, at)).collect()
}

fn records_of<'a>(answer: &PartitionData<'a>) -> &'a [u8] {
    match answer.records {
        Some(Records::Bytes(bytes)) => bytes,
        _ => &[],
    }
}
