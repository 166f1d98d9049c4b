//! One run from its options to its report: prepare, load, drain, read back, judge.

use crate::args::{RunArgs, Switch};
use crate::catchup::CatchUp;
use crate::clock::{self, nanos};
use crate::cluster::{Cluster, ClusterError};
use crate::crew::{self, Crew, Seen};
use crate::driver::stats::{Progress, Stats};
use crate::driver::worker::{self, WorkerError};
use crate::driver::{ProducerPlan, Setup, Timeline};
use crate::gather::{Gathered, Gatherer, Live, Reading, Wait};
use crate::group::{Group, GroupFound, GroupPlan};
use crate::interrupt;
use crate::judge::{Circumstances, is_cost_valid, is_overloaded, judge};
use crate::machine::{Facts, Noise};
use crate::mix::{self, ColdReaders};
use crate::plan::{self, Target};
use crate::report::{BrokerCost, Outcome, Report, text};
use crate::room;
use crate::schedule::Arrivals;
use crate::verify::{Integrity, SentStream, Tracker, settle};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

pub use crate::crew::BrokerProcess;

/// Readers that see nothing new for this long are given up.
const DRAIN_PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)]
pub enum RunError {
    #[error("{0}")]
    Options(String),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error(transparent)]
    Worker(#[from] WorkerError),
    #[error("--pid {0}: no such process")]
    Pid(u32),
    #[error("ended by a signal before anything was measured")]
    Interrupted,
    #[error("--count-flushes: {0}")]
    Flushes(std::io::Error),
    #[error("--prometheus {listen}: {source}")]
    Prometheus { listen: String, source: std::io::Error },
    #[error("{path}: {source}")]
    Write { path: String, source: std::io::Error },
}

/// What surrounds a run.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// Whose CPU is the broker's.
    pub broker: BrokerProcess,
    /// Where progress goes.
    pub live: Live,
    /// The folder for the report, which exists.
    pub folder: &'a Path,
    /// The command line, to repeat it.
    pub command: &'a str,
    /// Whether the host's noise is measured before and after.
    pub is_probed: bool,
}

/// Takes a load through all its phases.
pub fn run(args: &RunArgs, around: Surroundings<'_>) -> Result<Outcome, RunError> {
    args.check().map_err(RunError::Options)?;
    room::check(args).map_err(RunError::Options)?;
    worker::pin(&args.target.cpus)?;
    let started = clock::wall_ms();
    let probe = || match around.is_probed {
        true => Noise::probe(around.folder),
        false => Noise::default(),
    };
    let noise_before = probe();
    let mut cluster = Cluster::of(&args.target)?;
    let target = Target::find_or_make(&mut cluster, args)?;
    let result = load(&mut cluster, &target, args, around);
    let is_kept = !target.is_made || args.keep_topic;
    let deleted = if is_kept { Ok(()) } else { cluster.delete_topic(&target.topic) };
    let loaded = result?;
    let noise_after = probe();
    let mut outcome = conclude(args, around, loaded, started, [noise_before, noise_after]);
    if let Err(error) = deleted {
        outcome.report.notes.push(format!("topic {} is still there: {error}", target.topic));
    }
    Ok(outcome)
}

/// What a load leaves behind.
struct Loaded {
    stats: Stats,
    integrity: Integrity,
    sent: u64,
    /// Length of the measured time as it was.
    seconds: f64,
    gathered: Gathered,
    about: Circumstances,
    group: Option<GroupFound>,
    catch_up: Option<CatchUp>,
    /// What failed after the load, which is no reason to lose what was measured.
    failures: Vec<String>,
}

/// The result, or why there is none among `failures`.
fn or_told<T>(
    what: &str,
    result: Result<T, impl std::fmt::Display>,
    failures: &mut Vec<String>,
) -> Option<T> {
    result.map_err(|error| failures.push(format!("{what}: {error}"))).ok()
}

/// The group of the consumers, all its members joined, if they are to have one.
fn join_group(
    cluster: &Cluster,
    target: &Target,
    args: &RunArgs,
    begin: &BTreeMap<u32, i64>,
    live: Live,
) -> Result<Option<Group>, RunError> {
    let Some(name) = args.mix.group.clone() else { return Ok(None) };
    live.show(&format!("{} members join group {name}", args.consumers));
    let plan = GroupPlan {
        name,
        topic: target.topic.clone(),
        begin: begin.clone(),
        members: args.consumers,
        commit_every: args.mix.commit_every,
    };
    Ok(Some(Group::join(&plan, cluster)?))
}

fn load(
    cluster: &mut Cluster,
    target: &Target,
    args: &RunArgs,
    around: Surroundings<'_>,
) -> Result<Loaded, RunError> {
    let producers = target.producers(cluster, args)?;
    check_fit(args, &producers)?;
    if args.mix.backlog_bytes > 0 {
        mix::fill(args, &target.topic, around)?;
    }
    let begin = target.offsets(cluster, -1)?;
    let group = join_group(cluster, target, args, &begin, around.live)?;
    let consumers = match &group {
        Some(group) => target.members(group),
        None => target.consumers(args.consumers, args.fanout, &begin, None),
    };
    let has_tail = !consumers.is_empty();
    // Identity of the run among others in the topic; not from the seed, so that a repetition into
    // the same topic is another run.
    let run = fastrand::Rng::with_seed(clock::wall_ms() as u64 ^ args.seed).u32(..);
    let setup = plan::setup(cluster, target, args, run)?;
    let watch = clock::Watch::start();
    let shares = plan::deal(&args.target.cpus, producers, consumers);
    let (crew, mut gatherer) = crew::start(setup, shares, around.broker, around.live)?;
    if let Some(listen) = args.prometheus.clone() {
        gatherer.expose(&listen).map_err(|source| RunError::Prometheus { listen, source })?;
    }
    let cold = ColdReaders::start(args, &target.topic, &crew.setup);
    let (sending, mut reading) = drive(args, &crew, &mut gatherer, has_tail);
    let (setup, connected_ns) = (Arc::clone(&crew.setup), crew.connected_ns);
    let harvests = crew.stop()?;
    let (has_broker_ended, gathered) = (!gatherer.is_broker_alive(), gatherer.finish());
    let (mut stats, mut sent, mut seen) = crew::merge(harvests);
    let seconds = measured_seconds(gathered.edges.as_ref(), &setup.timeline, stats.last_done_ns);
    let mut failures = Vec::new();
    let catch_up = cold.and_then(|c| or_told("cold readers", c.finish(), &mut failures));
    let unread = group.as_ref().map(|group| group.seen.drain()).unwrap_or_default();
    seen.extend(unread.into_values().map(|tracker| (0, tracker)));
    let group = group.and_then(|g| or_told("the group", g.leave(), &mut failures));
    let is_verified = args.fetch.verify == Switch::On;
    if !has_tail && is_verified {
        let read = read_back(cluster, target, (args, run, &begin, &sent), around.live);
        reading = Wait::Cut;
        if let Some((waited, read, there)) = or_told("reading back", read, &mut failures) {
            let errors = read.errors.into_iter();
            errors.for_each(|(failure, n)| *stats.errors.entry(failure).or_default() += n);
            (reading, seen) = (waited, there);
        }
    }
    let (wall_jump_ms, slept_ms) = watch.jumps_ms();
    let about = Circumstances {
        is_sending_cut: sending != Wait::Over,
        is_drain_cut: reading != Wait::Over,
        connections_lost: stats.connections_lost,
        has_broker_ended,
        is_interrupted: interrupt::is_requested(),
        wall_jump_ms,
        slept_ms,
        longest_stall_us: stats.longest_stall_ns as f64 / 1e3,
        ..prepared(args, target, &setup, connected_ns)
    };
    if reading == Wait::Cut {
        // What was not waited for is not lost.
        sent.iter_mut().for_each(SentStream::doubt_all);
    }
    let integrity = if is_verified { settle_all(seen, &sent) } else { Integrity::default() };
    let sent = sent.iter().map(|stream| stream.sent).sum();
    Ok(Loaded { stats, integrity, sent, seconds, gathered, about, group, catch_up, failures })
}

/// What is known of a load once all its connections are made.
fn prepared(args: &RunArgs, target: &Target, setup: &Setup, connected_ns: u64) -> Circumstances {
    let measured = [args.warmup, args.warmup + args.duration].map(nanos);
    let unmeasured = |arrivals: &Arrivals| arrivals.unmeasured(measured);
    let partitions = target.leaders.len();
    let is_other = !target.is_made && partitions != args.partitions as usize;
    let late_ns = connected_ns.saturating_sub(setup.timeline.measure_start_ns);
    Circumstances {
        connected_late_ms: late_ns / 1_000_000,
        brokers: target.by_broker().len(),
        unmeasured_times: setup.produce().arrivals.as_ref().map_or([0, 0], unmeasured),
        partitions_found: is_other.then_some(partitions),
        ..Default::default()
    }
}

/// Takes the threads through the measured time and what comes after it: how the wait for all to be
/// sent and answered ended, and that for the consumers at the tail to have seen it.
fn drive(args: &RunArgs, crew: &Crew, gatherer: &mut Gatherer, has_tail: bool) -> (Wait, Wait) {
    let has_failed = crew.has_failed();
    if !has_failed {
        gatherer.measure(interrupt::is_requested);
    }
    let sum = |progress: &[Arc<Progress>], cell: fn(&Progress) -> u64| -> u64 {
        progress.iter().map(|progress| cell(progress)).sum()
    };
    // What is due is sent however late; but the rate may be one that nobody can ever keep.
    let longest = args.timeout + DRAIN_PATIENCE + 2 * (args.warmup + args.duration);
    let sending = gatherer.wait_for(
        (args.timeout + DRAIN_PATIENCE, longest),
        |progress| has_failed || progress.iter().all(|p| p.is_done_sending.load(Ordering::Acquire)),
        |progress| sum(progress, |p| p.acked.load(Ordering::Acquire)),
    );
    if !has_tail {
        return (sending, Wait::Over);
    }
    let reading = gatherer.wait_for(
        (DRAIN_PATIENCE, Duration::MAX),
        |progress| {
            let sent = sum(progress, |p| p.sent.load(Ordering::Acquire));
            let uncertain = sum(progress, |p| p.uncertain.load(Ordering::Acquire));
            has_failed || seen_by(progress) >= (sent - uncertain) * u64::from(args.fanout)
        },
        seen_by,
    );
    (sending, reading)
}

/// Length of the measured time; it may have been cut short, after which answers still came.
fn measured_seconds(
    edges: Option<&(Reading, Reading)>,
    timeline: &Timeline,
    last_done_ns: u64,
) -> f64 {
    let cut = edges.filter(|(_, last)| last.at_ns < timeline.measure_end_ns);
    let ns = match cut {
        Some((first, last)) => {
            last.at_ns.max(last_done_ns).saturating_sub(first.at_ns).max(1_000_000)
        }
        None => timeline.measure_end_ns - timeline.measure_start_ns,
    };
    ns as f64 / 1e9
}

fn check_fit(args: &RunArgs, producers: &[ProducerPlan]) -> Result<(), RunError> {
    let fewest = producers.iter().map(|plan| plan.partitions.len()).min().unwrap_or(0);
    if fewest < args.batches_per_request as usize {
        return Err(RunError::Options(format!(
            "--batches-per-request {} needs as many partitions on one broker; there are {fewest}",
            args.batches_per_request
        )));
    }
    Ok(())
}

fn seen_by(progress: &[Arc<Progress>]) -> u64 {
    progress.iter().map(|progress| progress.seen.load(Ordering::Acquire)).sum()
}

/// Reads what a run has written, after it, until as many records came as expected: where a
/// partition ends is not known yet when acks=0 left the broker behind.
fn read_back(
    cluster: &mut Cluster,
    target: &Target,
    (args, run, begin, sent): (&RunArgs, u32, &BTreeMap<u32, i64>, &[SentStream]),
    live: Live,
) -> Result<(Wait, Stats, Seen), RunError> {
    let expected: u64 = sent.iter().map(SentStream::certain).sum();
    let plans = target.consumers(1, 1, begin, None);
    let options = (&args.target, &args.fetch);
    let forever = Duration::from_secs(3600);
    let setup = plan::reading_setup(cluster, target, options, Some(run), forever)?;
    let shares = plan::deal(&args.target.cpus, Vec::new(), plans);
    let (crew, mut gatherer) = crew::start(setup, shares, BrokerProcess::None, live)?;
    let is_over = |progress: &[Arc<Progress>]| seen_by(progress) >= expected;
    let complete = gatherer.wait_for((DRAIN_PATIENCE, Duration::MAX), is_over, seen_by);
    let harvests = crew.stop()?;
    gatherer.finish();
    let (stats, _, seen) = crew::merge(harvests);
    Ok((complete, stats, seen))
}

/// Compares what was sent with what each group of readers saw; a record is verified when all did.
fn settle_all(seen: Seen, sent: &[SentStream]) -> Integrity {
    let mut groups: BTreeMap<u32, Vec<Tracker>> = BTreeMap::new();
    for (replica, tracker) in seen {
        groups.entry(replica).or_default().push(tracker);
    }
    let found: Vec<Integrity> = groups.values().map(|group| settle(group, sent)).collect();
    let mut total = Integrity::default();
    found.iter().for_each(|integrity| total.add(integrity));
    total.verified = found.iter().map(|integrity| integrity.verified).min().unwrap_or(0);
    total
}

fn conclude(
    args: &RunArgs,
    around: Surroundings<'_>,
    loaded: Loaded,
    started: i64,
    noise: [Noise; 2],
) -> Outcome {
    let Loaded { stats, integrity, sent, seconds, about, group, catch_up, .. } = loaded;
    let Gathered { edges, rows, history } = loaded.gathered;
    let per = |a: u64, b: u64| (b > 0).then(|| a as f64 / b as f64);
    let costs = edges.map_or_else(Costs::default, |edges| costs(&edges));
    let broker = costs.broker;
    let mut report = Report {
        partial: about.is_interrupted,
        unread: about.is_drain_cut,
        records_per_second: stats.records as f64 / seconds,
        bytes_per_second: stats.bytes as f64 / seconds,
        errors: stats.errors.values().sum(),
        errors_by_code: stats.errors_by_code(),
        retries: stats.retries,
        records_verified: integrity.verified,
        records_sent: sent,
        integrity,
        records_per_batch: per(stats.records, stats.batches),
        batches_per_request: per(stats.batches, stats.requests),
        bytes_per_request: per(stats.request_bytes, stats.requests),
        response_us: stats.response.percentiles(),
        service_us: stats.service.percentiles(),
        end_to_end_us: stats.end_to_end.percentiles(),
        broker_cpu_us_per_record: broker
            .filter(|_| stats.records > 0)
            .map(|broker| broker.cpu_s * 1e6 / stats.records as f64),
        broker_cpu_s_per_gb: broker
            .filter(|_| stats.bytes > 0)
            .map(|broker| broker.cpu_s * 1e9 / stats.bytes as f64),
        flushes_per_request: broker.and_then(|broker| per(broker.flushes?, stats.requests)),
        broker,
        client_cpu_fraction: costs.client_fraction,
        schedule_lag_us: stats.lag.quantile_us(0.99),
        schedule_lag_percentiles_us: stats.lag.percentiles(),
        other_cpus_busy: costs.other_cpus,
        kernel_cpus_busy: costs.kernel_cpus,
        stolen_cpus: costs.stolen_cpus,
        consumed_per_second: stats.consumed as f64 / seconds,
        group,
        catch_up,
        measured_seconds: seconds,
        load: text::load(args),
        configuration: serde_json::to_value(args).unwrap_or_default(),
        machine: Facts::read(),
        noise_before: noise[0],
        noise_after: noise[1],
        version: env!("CARGO_PKG_VERSION").to_owned(),
        command: around.command.to_owned(),
        seed: args.seed,
        started: clock::utc_words(started),
        intervals: rows,
        ..Default::default()
    };
    report.overloaded = is_overloaded(&report, args);
    (report.invalid_reasons, report.notes) = judge(&report, args, about);
    report.invalid_reasons.extend(loaded.failures);
    report.valid = report.invalid_reasons.is_empty();
    report.cost_valid = is_cost_valid(&report.invalid_reasons);
    let Stats { response, service, end_to_end, .. } = stats;
    Outcome { report, response, service, end_to_end, history }
}

/// What a measured time cost.
#[derive(Clone, Copy, Debug, Default)]
pub struct Costs {
    /// The broker.
    pub broker: Option<BrokerCost>,
    /// Busiest client thread: share of one CPU, without spinning.
    pub client_fraction: f64,
    /// CPUs that other processes kept busy; `None` when the broker's share is not known.
    pub other_cpus: Option<f64>,
    /// CPUs that the kernel's own threads kept busy.
    pub kernel_cpus: f64,
    /// CPUs that the hypervisor gave to others.
    pub stolen_cpus: f64,
}

/// The costs between two readings.
pub fn costs((first, last): &(Reading, Reading)) -> Costs {
    let ns = last.at_ns.saturating_sub(first.at_ns).max(1) as f64;
    let used = first.broker.zip(last.broker).map(|(first, last)| last.since(&first));
    let busy = |&((cpu, spun), (cpu_end, spun_end)): &((u64, u64), (u64, u64))| {
        let cpu_ns = cpu_end.saturating_sub(cpu);
        (cpu_ns, cpu_ns.saturating_sub(spun_end.saturating_sub(spun)))
    };
    let threads: Vec<(u64, u64)> =
        first.threads.iter().copied().zip(last.threads.iter().copied()).map(|t| busy(&t)).collect();
    let client = threads.iter().map(|thread| thread.1).max().unwrap_or(0) as f64 / ns;
    let client_total: u64 = threads.iter().map(|thread| thread.0).sum();
    let machine = last.machine_ns.saturating_sub(first.machine_ns);
    let kernel = last.kernel_ns.saturating_sub(first.kernel_ns);
    let others =
        used.map(|used| machine.saturating_sub(used.cpu_ns + client_total + kernel) as f64 / ns);
    Costs {
        broker: used.map(|used| BrokerCost::new(&used, ns / 1e9)),
        client_fraction: client,
        other_cpus: others,
        kernel_cpus: kernel as f64 / ns,
        stolen_cpus: last.stolen_ns.saturating_sub(first.stolen_ns) as f64 / ns,
    }
}
