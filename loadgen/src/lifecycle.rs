//! What a broker costs and how long it takes when nobody loads it: idle, started, killed.

use crate::args::{IdleArgs, RecoverArgs, RunArgs};
use crate::brokers::Running;
use crate::clock;
use crate::clock::boot_ns;
use crate::cluster::Cluster;
use crate::cost::Meter;
use crate::gather::Live;
use crate::interrupt;
use crate::plan::Target;
use crate::report::text;
use crate::run::{self, BrokerProcess, RunError, Surroundings};
use serde::Serialize;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

/// The first acknowledgement after a kill must come within this time.
const ACK_PATIENCE: Duration = Duration::from_secs(180);

/// A broker left alone.
#[derive(Clone, Debug, Default, Serialize)]
pub struct IdleFound {
    /// The whole time was measured.
    pub valid: bool,
    /// Why not.
    pub invalid_reasons: Vec<String>,
    /// CPU time, percent of one CPU.
    pub cpu_percent: f64,
    /// Context switches a second.
    pub context_switches_per_second: f64,
    /// Resident memory at the end.
    pub rss_mib: f64,
    /// Empty partitions of ours.
    pub partitions: u32,
    /// Measured time.
    pub seconds: f64,
}

/// Measures a broker that nobody uses, with so many empty partitions of ours.
pub fn idle(args: &IdleArgs, live: Live) -> Result<IdleFound, RunError> {
    let pid = args.target.pid.ok_or_else(|| RunError::Options("idle needs --pid".to_owned()))?;
    if args.duration.is_zero() {
        return Err(RunError::Options("--duration must be above 0".to_owned()));
    }
    let topic = format!("loadgen-idle-{}", clock::wall_ms());
    let mut cluster = Cluster::of(&args.target)?;
    if args.partitions > 0 {
        cluster.create_topic(&topic, args.partitions, &[])?;
        cluster.wait_for_leaders(&topic)?;
    }
    // The connection of the measuring client is part of no idle broker.
    drop(cluster);
    live.show(&format!("idle with {} partitions: settling, then measuring", args.partitions));
    let _ = pause(args.settle);
    let mut meter = Meter::of_process(pid).ok_or(RunError::Pid(pid))?;
    let (before, start) = (meter.read(), Instant::now());
    let is_whole = pause(args.duration);
    let (used, seconds) = (meter.read().since(&before), start.elapsed().as_secs_f64());
    let is_alive = meter.is_alive();
    if args.partitions > 0 && is_alive {
        Cluster::of(&args.target)?.delete_topic(&topic)?;
    }
    live.end();
    let doubts = [
        (!is_whole, "partial: ended by a signal"),
        (!is_alive, "the process named by --pid ended meanwhile"),
    ];
    let doubts = doubts.into_iter().filter(|doubt| doubt.0).map(|doubt| doubt.1.to_owned());
    let invalid_reasons: Vec<String> = doubts.collect();
    Ok(IdleFound {
        valid: invalid_reasons.is_empty(),
        invalid_reasons,
        cpu_percent: used.cpu_ns as f64 / 1e7 / seconds,
        context_switches_per_second: used.context_switches as f64 / seconds,
        rss_mib: used.rss_bytes as f64 / 1_048_576.0,
        partitions: args.partitions,
        seconds,
    })
}

/// The result for a terminal.
pub fn idle_words(found: &IdleFound) -> String {
    let reasons = found.invalid_reasons.iter().map(|reason| format!("Not valid: {reason}.\n"));
    format!(
        "idle with {} partitions for {:.1} s: {:.3} % of a CPU, {:.1} context switches/s, RSS {:.1} \
         MiB\n{}",
        found.partitions,
        found.seconds,
        found.cpu_percent,
        found.context_switches_per_second,
        found.rss_mib,
        reasons.collect::<String>(),
    )
}

/// Sleeps; returns false when a signal ended it early.
fn pause(duration: Duration) -> bool {
    let start = Instant::now();
    while start.elapsed() < duration {
        if interrupt::is_requested() {
            return false;
        }
        thread::sleep((duration - start.elapsed().min(duration)).min(Duration::from_millis(50)));
    }
    true
}

/// A broker that has just been started.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StartFound {
    /// It answered.
    pub valid: bool,
    /// Empty.
    pub invalid_reasons: Vec<String>,
    /// From the start of its process to the first Metadata answer that names a broker.
    pub first_answer_ms: f64,
    /// CPU time until then.
    pub cpu_ms: f64,
    /// Resident memory then.
    pub rss_mib: f64,
}

/// Waits for the first answer of a broker that has just been launched.
pub fn started(broker: &mut Running) -> Result<StartFound, RunError> {
    let answered_ns = broker.wait_until_answering()?;
    let used = broker.pid.and_then(Meter::of_process).map(|mut meter| meter.read());
    let used = used.unwrap_or_default();
    Ok(StartFound {
        valid: true,
        invalid_reasons: Vec::new(),
        first_answer_ms: millis(answered_ns.saturating_sub(broker.began_ns)),
        cpu_ms: millis(used.cpu_ns),
        rss_mib: used.rss_bytes as f64 / 1_048_576.0,
    })
}

/// A broker that was killed and started again.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RecoverFound {
    /// Everything acknowledged was still there.
    pub valid: bool,
    /// Why not.
    pub invalid_reasons: Vec<String>,
    /// From the kill to the first acknowledged record.
    pub kill_to_ack_ms: f64,
    /// From the start of the new process to it.
    pub start_to_ack_ms: f64,
    /// Resident memory then.
    pub rss_mib: f64,
    /// Value bytes before the kill.
    pub filled_bytes: u64,
    /// Records acknowledged before the kill.
    pub records_acknowledged: u64,
    /// Records there after the start, the first new one included.
    pub records_found: u64,
}

/// Fills a broker, kills it, starts it again and waits for the first acknowledgement.
pub fn recover(
    broker: &mut Running,
    args: &RecoverArgs,
    cpus: &[usize],
    folder: &Path,
    live: Live,
) -> Result<RecoverFound, RunError> {
    const TOPIC: &str = "loadgen-recover";
    let record_bytes = 1024;
    let mut fill = RunArgs::with_defaults();
    fill.target.bootstrap.clone_from(&broker.address);
    (fill.topic, fill.keep_topic, fill.partitions) =
        (Some(TOPIC.to_owned()), true, args.partitions);
    (fill.record_bytes, fill.batch_records, fill.acks) =
        (record_bytes, 240, crate::args::Acks::Leader);
    fill.records = Some(args.fill_bytes.div_ceil(record_bytes as u64));
    (fill.warmup, fill.duration) = (Duration::ZERO, Duration::from_secs(3600));
    fill.target.cpus = cpus.to_vec();
    fill.consumers = 0;
    fill.fetch.verify = crate::args::Switch::Off;
    let command = "";
    let around =
        Surroundings { broker: BrokerProcess::None, live, folder, command, is_probed: false };
    let filled = run::run(&fill, around)?.report;
    if interrupt::is_requested() {
        return Err(RunError::Interrupted);
    }
    let killed_ns = boot_ns();
    broker.kill()?;
    broker.launch()?;
    let acked_ns = first_ack(broker, TOPIC)?;
    let rss = broker.pid.and_then(Meter::of_process).map_or(0, |meter| meter.glance().rss_bytes);
    let mut cluster = Cluster::connect(&broker.address)?;
    let leaders = cluster.wait_for_leaders(TOPIC)?;
    let target = Target { topic: TOPIC.to_owned(), is_made: false, leaders };
    let found: i64 = target.offsets(&mut cluster, -1)?.values().sum();
    let mut invalid_reasons = Vec::new();
    let acknowledged = filled.records_sent;
    if filled.errors > 0 {
        invalid_reasons.push(format!("{} batches failed while filling", filled.errors));
    }
    if found.unsigned_abs() < acknowledged + 1 {
        let lost = acknowledged + 1 - found.unsigned_abs();
        invalid_reasons.push(format!("{lost} acknowledged records are gone"));
    }
    Ok(RecoverFound {
        valid: invalid_reasons.is_empty(),
        invalid_reasons,
        kill_to_ack_ms: millis(acked_ns.saturating_sub(killed_ns)),
        start_to_ack_ms: millis(acked_ns.saturating_sub(broker.began_ns)),
        rss_mib: rss as f64 / 1_048_576.0,
        filled_bytes: acknowledged * record_bytes as u64,
        records_acknowledged: acknowledged,
        records_found: found.unsigned_abs(),
    })
}

/// `loadgen recover`: with a broker of its own.
pub fn recover_alone(args: &RecoverArgs, live: Live) -> Result<RecoverFound, RunError> {
    let mut broker =
        Running::start_alone(&args.start, args.prints_pid, &args.broker_cpus, &args.folder)?;
    recover(&mut broker, args, &[], Path::new("."), live)
}

/// Asks until one record is acknowledged; when it was.
pub(crate) fn first_ack(broker: &mut Running, topic: &str) -> Result<u64, RunError> {
    broker.wait_until_answering()?;
    let start = Instant::now();
    loop {
        let acked = Cluster::connect(&broker.address).and_then(|mut c| c.produce_one(topic, 0));
        match acked {
            Ok(()) => return Ok(boot_ns()),
            Err(error) if start.elapsed() > ACK_PATIENCE || !broker.is_alive() => {
                return Err(error.into());
            }
            Err(_) if interrupt::is_requested() => return Err(RunError::Interrupted),
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// The result for a terminal.
pub fn recover_words(found: &RecoverFound) -> String {
    let reasons = found.invalid_reasons.iter().map(|reason| format!("Not valid: {reason}.\n"));
    format!(
        "kill -9 to first acknowledgement {:.1} ms ({:.1} ms from the new start) with {} MB\n{}",
        found.kill_to_ack_ms,
        found.start_to_ack_ms,
        text::short(found.filled_bytes as f64 / 1e6),
        reasons.collect::<String>(),
    )
}

pub(crate) fn millis(ns: u64) -> f64 {
    ns as f64 / 1e6
}
