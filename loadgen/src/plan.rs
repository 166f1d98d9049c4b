//! From options to connections: which topic, which leaders, who sends where and reads what.

use crate::args::{FetchArgs, Partitioner, RunArgs, ShapeArgs, Switch, TargetArgs};
use crate::batch::{RecordShape, Template};
use crate::clock::{Clock, nanos, wall_ms};
use crate::cluster::{CLIENT_ID, Cluster, ClusterError, Leaders};
use crate::driver::frame::PRODUCE_VERSIONS;
use crate::driver::worker::Share;
use crate::driver::{
    ConsumerPlan, FetchSetup, Membership, ProduceSetup, ProducerPlan, Setup, Timeline,
};
use crate::group::Group;
use crate::keys::Keys;
use crate::run::RunError;
use crate::schedule::{self, Arrivals};
use millrace_client::frame;
use millrace_wire::messages::ProduceRequest;
use millrace_wire::messages::produce_request::TopicProduceData;
use millrace_wire::{ApiKey, Array, Writer};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::time::{Duration, Instant};

/// Versions of Fetch that name topics, and whose sessions can be left out.
const FETCH_VERSIONS: RangeInclusive<i16> = 4..=12;
/// More points than this make no better chart.
const INTERVALS: u32 = 120;
const INTERVAL_MIN: Duration = Duration::from_millis(100);
const LEAD_MIN: Duration = Duration::from_millis(100);
/// What one connection takes on a host worth measuring, and on one that is far away.
const CONNECTING_MIN: Duration = Duration::from_millis(1);
const CONNECTING_MAX: Duration = Duration::from_millis(500);

/// A topic to load or read.
#[derive(Debug)]
pub struct Target {
    /// Its name.
    pub topic: String,
    /// It was made for this run.
    pub is_made: bool,
    /// Leaders of its partitions.
    pub leaders: Leaders,
}

impl Target {
    /// Finds the topic, or makes it.
    pub fn find_or_make(cluster: &mut Cluster, args: &RunArgs) -> Result<Self, ClusterError> {
        let topic = args
            .topic
            .clone()
            .unwrap_or_else(|| format!("loadgen-{}-{}", wall_ms(), std::process::id()));
        let is_made = cluster.leaders(&topic)?.is_none();
        if is_made {
            cluster.create_topic(&topic, args.partitions, &args.topic_config)?;
        }
        let leaders = cluster.wait_for_leaders(&topic)?;
        Ok(Self { topic, is_made, leaders })
    }

    /// The offsets of all partitions; -2 the beginning, -1 the end.
    pub fn offsets(
        &self,
        cluster: &mut Cluster,
        timestamp: i64,
    ) -> Result<BTreeMap<u32, i64>, ClusterError> {
        cluster.offsets(&self.topic, self.leaders.keys().copied(), timestamp)
    }

    /// Brokers and the partitions they lead.
    pub fn by_broker(&self) -> BTreeMap<Arc<str>, Vec<u32>> {
        let mut brokers: BTreeMap<Arc<str>, Vec<u32>> = BTreeMap::new();
        for (&partition, address) in &self.leaders {
            brokers.entry(Arc::clone(address)).or_default().push(partition);
        }
        brokers
    }

    /// Producer connections, spread over the brokers; each writes to all partitions of its broker.
    pub fn producers(
        &self,
        cluster: &mut Cluster,
        args: &RunArgs,
    ) -> Result<Vec<ProducerPlan>, ClusterError> {
        let brokers = self.by_broker();
        let brokers = brokers.iter().cycle();
        let mut plans = Vec::new();
        for (id, (address, partitions)) in (0..args.connections).zip(brokers) {
            let producer_id = match args.idempotent {
                Switch::On => cluster.producer_id()?,
                Switch::Off => (-1, -1),
            };
            let (address, partitions) = (Arc::clone(address), partitions.clone());
            plans.push(ProducerPlan { id, address, partitions, producer_id });
        }
        Ok(plans)
    }

    /// Consumer connections of a group: one for each member and broker.
    pub fn members(&self, group: &Group) -> Vec<ConsumerPlan> {
        let brokers = self.by_broker();
        let pairs = group.claims.iter().flat_map(|claim| brokers.iter().map(move |b| (claim, b)));
        let mut plans = Vec::new();
        for (connection, (claim, (address, led))) in (0..).zip(pairs) {
            let (claim, seen) = (Arc::clone(claim), Arc::clone(&group.seen));
            let membership = Some(Membership { connection, claim, seen, led: led.clone() });
            let (address, partitions) = (Arc::clone(address), Vec::new());
            plans.push(ConsumerPlan { replica: 0, address, partitions, membership });
        }
        plans
    }

    /// Consumer connections: `fanout` groups of `consumers`, which share the partitions.
    pub fn consumers(
        &self,
        consumers: u32,
        fanout: u32,
        begin: &BTreeMap<u32, i64>,
        end: Option<&BTreeMap<u32, i64>>,
    ) -> Vec<ConsumerPlan> {
        let mut plans = Vec::new();
        for replica in 0..fanout {
            for (address, led) in &self.by_broker() {
                for place in 0..consumers as usize {
                    let partitions: Vec<(u32, i64, Option<i64>)> = led
                        .iter()
                        .skip(place)
                        .step_by(consumers as usize)
                        .map(|partition| {
                            let begin = begin.get(partition).copied().unwrap_or(0);
                            let end = end.and_then(|end| end.get(partition).copied());
                            (*partition, begin, end)
                        })
                        .collect();
                    if !partitions.is_empty() {
                        let address = Arc::clone(address);
                        plans.push(ConsumerPlan { replica, address, partitions, membership: None });
                    }
                }
            }
        }
        plans
    }
}

/// What all threads share; `run` is the identity of the run in payloads.
pub fn setup(
    cluster: &mut Cluster,
    target: &Target,
    args: &RunArgs,
    run: u32,
) -> Result<Setup, RunError> {
    let version = cluster.pick(ApiKey::Produce, PRODUCE_VERSIONS)?;
    let shape = RecordShape {
        value_bytes: args.record_bytes,
        value_bytes_max: args.shape.record_bytes_max.unwrap_or(args.record_bytes),
        header_bytes: args.shape.header_bytes,
        records_max: args.batch_records as usize,
        keyed: args.keys > 0,
        constant_percent: args.compressible,
    };
    let produce = ProduceSetup {
        run,
        acks: args.acks,
        batch_records: args.batch_records as usize,
        batches_per_request: args.batches_per_request as usize,
        linger_ns: (args.linger_ms * 1e6) as u64,
        arrivals: arrivals(args)?,
        inflight: args.inflight as usize,
        records_max: args.records.map_or(u64::MAX, |n| n.div_ceil(u64::from(args.connections))),
        keys: (args.keys > 0)
            .then(|| Keys::new(args.keys, target.leaders.len(), args.shape.key_spread)),
        is_keyed: args.shape.partitioner == Partitioner::Keys,
        compression: args.codec.compression(),
        retries: args.retries,
        timeout_ns: nanos(args.timeout),
        seed: args.seed,
        connections: args.connections as usize,
        version,
        head: produce_head(&target.topic, args, version)?,
        answer_head: answer_head(&target.topic),
        template: Template::new(shape, args.seed),
    };
    let clock = Clock::start();
    let lead = lead(cluster, target, args)?;
    let timeline = timeline(nanos(lead), args.warmup, args.duration);
    let fetch = fetch_setup(cluster, &args.fetch, Some(run))?;
    let parts = (timeline, Some(produce), fetch);
    Ok(assemble(clock, cluster, &args.target, &target.topic, parts))
}

/// How long connecting may take until the first record is due: as long for each connection as it
/// has just taken for one, with TLS and login if need be.
fn lead(cluster: &Cluster, target: &Target, args: &RunArgs) -> Result<Duration, ClusterError> {
    let began = Instant::now();
    drop(cluster.again()?);
    let each = began.elapsed().clamp(CONNECTING_MIN, CONNECTING_MAX);
    let readers = args.consumers * args.fanout * target.by_broker().len() as u32;
    let threads = u32::try_from(args.target.cpus.len()).unwrap_or(u32::MAX).max(1);
    Ok(LEAD_MIN + each * (args.connections + readers).div_ceil(threads))
}

/// When records are due; `None` in a closed loop.
fn arrivals(args: &RunArgs) -> Result<Option<Arrivals>, RunError> {
    let ShapeArgs { schedule, burst, .. } = &args.shape;
    let read = |path: &PathBuf| schedule::read(path).map_err(RunError::Options);
    let replay = schedule.as_ref().map(read).transpose()?.map(Arrivals::Replay);
    let (spread, burst) = (args.spread, *burst);
    let at_rate = args.rate.map(|per_second| Arrivals::Rate { per_second, spread, burst });
    Ok(replay.or(at_rate))
}

/// A setup of readers only.
pub fn reading_setup(
    cluster: &mut Cluster,
    target: &Target,
    args: (&TargetArgs, &FetchArgs),
    run: Option<u32>,
    duration: Duration,
) -> Result<Setup, ClusterError> {
    let timeline = timeline(0, Duration::ZERO, duration);
    let fetch = fetch_setup(cluster, args.1, run)?;
    Ok(assemble(Clock::start(), cluster, args.0, &target.topic, (timeline, None, fetch)))
}

fn assemble(
    clock: Clock,
    cluster: &Cluster,
    args: &TargetArgs,
    topic: &str,
    (timeline, produce, fetch): (Timeline, Option<ProduceSetup>, FetchSetup),
) -> Setup {
    Setup {
        clock,
        wall_ms_at_zero: wall_ms() - (clock.now_ns() / 1_000_000) as i64,
        topic: topic.to_owned(),
        timeline,
        access: cluster.access().clone(),
        tcp_congestion: args.tcp_congestion.clone(),
        spin_ns: u64::from(args.spin_us) * 1000,
        produce,
        fetch,
        end_ns: AtomicU64::new(timeline.measure_end_ns),
        stop: AtomicBool::new(false),
    }
}

fn timeline(start_ns: u64, warmup: Duration, duration: Duration) -> Timeline {
    let measure_start_ns = start_ns + nanos(warmup);
    Timeline {
        start_ns,
        measure_start_ns,
        measure_end_ns: measure_start_ns + nanos(duration),
        interval_ns: nanos((duration / INTERVALS).max(INTERVAL_MIN)),
    }
}

fn fetch_setup(
    cluster: &mut Cluster,
    args: &FetchArgs,
    run: Option<u32>,
) -> Result<FetchSetup, ClusterError> {
    Ok(FetchSetup {
        version: cluster.pick(ApiKey::Fetch, FETCH_VERSIONS)?,
        min_bytes: args.fetch_min_bytes,
        max_bytes: args.fetch_max_bytes,
        partition_bytes: args.fetch_partition_bytes,
        wait_ms: args.fetch_wait_ms,
        is_verified: args.verify == Switch::On,
        run,
        ns_per_byte: 0.0,
    })
}

/// A produce request without partitions: it ends with their number.
fn produce_head(topic: &str, args: &RunArgs, version: i16) -> Result<Vec<u8>, ClusterError> {
    let topic = TopicProduceData { name: topic, ..Default::default() };
    let request = ProduceRequest {
        acks: args.acks.code(),
        timeout_ms: i32::try_from(args.timeout.as_millis()).unwrap_or(i32::MAX),
        topic_data: Array::from(vec![topic]),
        ..Default::default()
    };
    let mut writer = Writer::new();
    frame::encode(&mut writer, &request, version, 0, CLIENT_ID)?;
    Ok(writer.into_vec())
}

/// Versions 3 to 8 of a produce response begin with the topics: one of this name, with one
/// partition.
fn answer_head(topic: &str) -> Vec<u8> {
    let name_bytes = i16::try_from(topic.len()).unwrap_or(i16::MAX);
    let mut head = 1_i32.to_be_bytes().to_vec();
    head.extend_from_slice(&name_bytes.to_be_bytes());
    head.extend_from_slice(topic.as_bytes());
    head.extend_from_slice(&1_i32.to_be_bytes());
    head
}

/// Deals connections to one thread per CPU; producers from the front, consumers from the back.
pub fn deal(
    cpus: &[usize],
    producers: Vec<ProducerPlan>,
    consumers: Vec<ConsumerPlan>,
) -> Vec<Share> {
    let distinct: BTreeSet<usize> = cpus.iter().copied().collect();
    let mut shares: Vec<Share> = if distinct.is_empty() {
        vec![Share { cpu: None, producers: Vec::new(), consumers: Vec::new() }]
    } else {
        let share = |cpu| Share { cpu: Some(cpu), producers: Vec::new(), consumers: Vec::new() };
        distinct.into_iter().map(share).collect()
    };
    let count = shares.len();
    for (place, plan) in producers.into_iter().enumerate() {
        shares[place % count].producers.push(plan);
    }
    for (place, plan) in consumers.into_iter().enumerate() {
        shares[count - 1 - place % count].consumers.push(plan);
    }
    shares
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(leaders: &[(u32, &str)]) -> Target {
        let leaders = leaders.iter().map(|&(partition, address)| (partition, address.into()));
        Target { topic: "t".to_owned(), is_made: true, leaders: leaders.collect() }
    }

    #[test]
    fn every_partition_has_one_reader_in_each_group() {
        let (a, b) = ("127.0.0.1:1", "127.0.0.1:2");
        let target = target(&[(0, a), (1, b), (2, a), (3, b), (4, a)]);
        let begin = BTreeMap::from([(4, 7)]);
        for (consumers, fanout, connections) in [(1, 1, 2), (2, 1, 4), (3, 2, 10), (9, 1, 5)] {
            let plans = target.consumers(consumers, fanout, &begin, None);
            assert_eq!(plans.len(), connections, "{consumers} {fanout}");
            for replica in 0..fanout {
                let mut read: Vec<(u32, i64, Option<i64>)> = plans
                    .iter()
                    .filter(|plan| plan.replica == replica)
                    .flat_map(|plan| plan.partitions.clone())
                    .collect();
                read.sort_unstable();
                let expected = [(0, 0), (1, 0), (2, 0), (3, 0), (4, 7)];
                assert_eq!(read, expected.map(|(partition, at)| (partition, at, None)));
            }
        }
    }

    #[test]
    fn connections_are_dealt_to_each_cpu_once() {
        let plan = ConsumerPlan {
            replica: 0,
            address: "127.0.0.1:1".into(),
            partitions: Vec::new(),
            membership: None,
        };
        let shares = deal(&[3, 1, 3], Vec::new(), vec![plan.clone(), plan.clone(), plan]);
        let dealt: Vec<_> = shares.iter().map(|share| (share.cpu, share.consumers.len())).collect();
        assert_eq!(dealt, [(Some(1), 1), (Some(3), 2)]);
    }
}
