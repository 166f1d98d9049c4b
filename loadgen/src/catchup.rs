//! `loadgen consume`: a topic read from its beginning as fast as it comes, and what that costs.

use crate::args::{ConsumeArgs, Switch};
use crate::cluster::Cluster;
use crate::crew;
use crate::driver::stats::Stats;
use crate::gather::{Live, Wait};
use crate::interrupt;
use crate::plan::{self, Target};
use crate::report::{BrokerCost, text};
use crate::run::{self, BrokerProcess, RunError};
use crate::verify::Integrity;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::Ordering;

/// What reading a topic took.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CatchUp {
    /// All was read, and nothing was damaged.
    pub valid: bool,
    /// It was ended by a signal.
    pub partial: bool,
    /// Why not.
    pub invalid_reasons: Vec<String>,
    /// From the first fetch to the last answer.
    pub seconds: f64,
    /// Records read, by all readers.
    pub records: u64,
    /// Bytes of their batches.
    pub bytes: u64,
    /// Records a second.
    pub records_per_second: f64,
    /// Batch bytes a second.
    pub bytes_per_second: f64,
    /// Answered fetches.
    pub fetches: u64,
    /// Failed fetches.
    pub errors: u64,
    /// The same by kind.
    pub errors_by_code: BTreeMap<String, u64>,
    /// CPU time of the broker per 10^9 batch bytes.
    pub broker_cpu_s_per_gb: Option<f64>,
    /// CPU time of the broker per record.
    pub broker_cpu_us_per_record: Option<f64>,
    /// What the broker used.
    pub broker: Option<BrokerCost>,
    /// Busiest client thread: share of one CPU.
    pub client_cpu_fraction: f64,
    /// Records with the right content, once, in order.
    pub records_verified: u64,
    /// What was found; ends of streams that never were written cannot be missed.
    pub integrity: Integrity,
}

/// Reads the topic.
pub fn consume(args: &ConsumeArgs, live: Live) -> Result<CatchUp, RunError> {
    crate::driver::worker::pin(&args.target.cpus)?;
    let mut cluster = Cluster::of(&args.target)?;
    let leaders = cluster.wait_for_leaders(&args.topic)?;
    let target = Target { topic: args.topic.clone(), is_made: false, leaders };
    let begin = target.offsets(&mut cluster, -2)?;
    let end = target.offsets(&mut cluster, -1)?;
    let plans = target.consumers(args.consumers, args.fanout, &begin, Some(&end));
    let options = (&args.target, &args.fetch);
    let mut setup = plan::reading_setup(&mut cluster, &target, options, None, args.timeout)?;
    setup.fetch.ns_per_byte = ns_per_byte(args, plans.len());
    let shares = plan::deal(&args.target.cpus, Vec::new(), plans);
    let broker = BrokerProcess::from_target(&args.target);
    let (crew, mut gatherer) = crew::start(setup, shares, broker, live)?;
    let is_over = gatherer.wait_for(
        (args.timeout, args.timeout),
        |progress| {
            let is_read = progress.iter().all(|p| p.is_done_reading.load(Ordering::Acquire));
            is_read || interrupt::is_requested()
        },
        // Patience is for the whole: nothing counts as a sign of life.
        |_| 0,
    );
    gatherer.read();
    let has_broker_ended = !gatherer.is_broker_alive();
    let harvests = crew.stop()?;
    let edges = gatherer.finish().edges;
    let (stats, _, seen) = crew::merge(harvests);
    let (first, last) = edges.expect("it was read twice");
    // The end is noticed some milliseconds after the last batch.
    let end_ns = stats.last_consumed_ns.clamp(first.at_ns + 1, last.at_ns);
    let seconds = (end_ns - first.at_ns) as f64 / 1e9;
    let run::Costs { broker, client_fraction, .. } = run::costs(&(first, last));
    let mut integrity = Integrity::default();
    if args.fetch.verify == Switch::On {
        seen.iter().for_each(|(_, tracker)| integrity.add(&tracker.settle_alone()));
    }
    let is_interrupted = interrupt::is_requested();
    let errors: u64 = stats.errors.values().sum();
    let mut invalid_reasons = integrity.complaints(false);
    invalid_reasons.extend(doubts(args, &stats, &integrity, (is_over, has_broker_ended)));
    let per = |amount: u64, cost: f64| (amount > 0).then(|| cost / amount as f64);
    Ok(CatchUp {
        valid: invalid_reasons.is_empty(),
        partial: is_interrupted,
        invalid_reasons,
        seconds,
        records: stats.consumed,
        bytes: stats.consumed_bytes,
        records_per_second: stats.consumed as f64 / seconds,
        bytes_per_second: stats.consumed_bytes as f64 / seconds,
        fetches: stats.fetches,
        errors,
        errors_by_code: stats.errors_by_code(),
        broker_cpu_s_per_gb: broker.and_then(|b| per(stats.consumed_bytes, b.cpu_s * 1e9)),
        broker_cpu_us_per_record: broker.and_then(|b| per(stats.consumed, b.cpu_s * 1e6)),
        broker,
        client_cpu_fraction: client_fraction,
        records_verified: integrity.verified,
        integrity,
    })
}

/// Why what was read does not count, besides damage.
fn doubts(
    args: &ConsumeArgs,
    stats: &Stats,
    integrity: &Integrity,
    (is_over, has_broker_ended): (Wait, bool),
) -> Vec<String> {
    let is_interrupted = interrupt::is_requested();
    let errors: u64 = stats.errors.values().sum();
    let is_foreign = args.fetch.verify == Switch::On && integrity.verified == 0;
    let rows = [
        (is_interrupted, "partial: ended by a signal".to_owned()),
        (is_over != Wait::Over, "the end was not reached before --timeout".to_owned()),
        (errors > 0, format!("{errors} fetches failed")),
        (stats.connections_lost > 0, format!("{} connections were lost", stats.connections_lost)),
        (has_broker_ended, "the process named by --pid ended meanwhile".to_owned()),
        (
            stats.consumed == 0 && !is_interrupted,
            format!("topic {} holds no records to read", args.topic),
        ),
        (
            stats.consumed > 0 && is_foreign,
            "none of the records is one that loadgen wrote: --verify off reads any".to_owned(),
        ),
    ];
    rows.into_iter().filter(|row| row.0).map(|row| row.1).collect()
}

/// How long each of so many connections waits for each byte.
fn ns_per_byte(args: &ConsumeArgs, connections: usize) -> f64 {
    match args.bytes_per_second {
        0 => 0.0,
        rate => connections as f64 * 1e9 / rate as f64,
    }
}

/// The result for a terminal.
pub fn terminal(found: &CatchUp) -> String {
    let mut text = format!(
        "{} records, {} MB in {:.2} s: {} records/s, {:.0} MB/s\n",
        found.records,
        found.bytes / 1_000_000,
        found.seconds,
        text::short(found.records_per_second),
        found.bytes_per_second / 1e6,
    );
    let _ = writeln!(
        text,
        "broker CPU {} s/GB, {} us/record; client {:.2} of a CPU; {} fetches, {} errors",
        text::decimal(found.broker_cpu_s_per_gb, 3),
        text::decimal(found.broker_cpu_us_per_record, 3),
        found.client_cpu_fraction,
        found.fetches,
        found.errors,
    );
    let _ = match found.valid {
        true => writeln!(
            text,
            "Valid: {} records verified, {} of other runs or programs not judged.",
            found.records_verified, found.integrity.foreign
        ),
        false => writeln!(text, "Not valid: {}.", found.invalid_reasons.join("; ")),
    };
    for example in &found.integrity.examples {
        let _ = writeln!(text, "  {example}");
    }
    text
}
