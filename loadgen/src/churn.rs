//! `loadgen churn`: connections, topics or group memberships made and ended at a rate, each
//! measured from when it was due.

use crate::args::{ChurnArgs, Churned};
use crate::clock::{self, Clock, nanos};
use crate::cluster::{Cluster, ClusterError};
use crate::cost::Meter;
use crate::gather::Live;
use crate::histogram::{Latencies, Percentiles};
use crate::interrupt;
use crate::report::text;
use crate::run::RunError;
use millrace_client::Member;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

/// What churning took.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ChurnFound {
    /// Everything that was due was done.
    pub valid: bool,
    /// Why not.
    pub invalid_reasons: Vec<String>,
    /// What was made and ended.
    pub of: &'static str,
    /// How many.
    pub done: u64,
    /// Of them a second.
    pub done_per_second: f64,
    /// Those that failed.
    pub errors: u64,
    /// The first few failures in words, each once.
    pub error_examples: BTreeMap<String, u64>,
    /// From when it was due to its end.
    pub response_us: Percentiles,
    /// From its begin.
    pub service_us: Percentiles,
    /// CPU time of the broker for each, microseconds.
    pub broker_cpu_us_each: Option<f64>,
    /// By how much the broker's resident memory grew, MiB.
    pub broker_grew_mib: Option<f64>,
    /// Measured time.
    pub seconds: f64,
}

/// What one thread found.
#[derive(Default)]
struct Part {
    response: Latencies,
    service: Latencies,
    errors: BTreeMap<String, u64>,
}

/// Makes and ends them.
pub fn churn(args: &ChurnArgs, live: Live) -> Result<ChurnFound, RunError> {
    if !(args.rate.is_finite() && args.rate > 0.0) {
        return Err(RunError::Options("--rate must be above 0".to_owned()));
    }
    if args.duration.is_zero() {
        return Err(RunError::Options("--duration must be above 0".to_owned()));
    }
    let topic = format!("loadgen-churn-{}", clock::wall_ms());
    let mut cluster = Cluster::of(&args.target)?;
    if args.of == Churned::Groups {
        cluster.create_topic(&topic, 1, &[])?;
        cluster.wait_for_leaders(&topic)?;
    }
    let mut meter = match args.target.pid {
        Some(pid) => Some(Meter::of_process(pid).ok_or(RunError::Pid(pid))?),
        None => None,
    };
    let before = meter.as_mut().map(Meter::read);
    let total = (args.rate * args.duration.as_secs_f64()).ceil() as u64;
    let (clock, next) = (Clock::start(), AtomicU64::new(0));
    live.show(&format!("{total} {} at {} a second", args.of.word(), args.rate));
    let parts: Vec<Result<Part, RunError>> = thread::scope(|scope| {
        let threads: Vec<_> = (0..args.threads)
            .map(|_| scope.spawn(|| work(args, &topic, (clock, &next, total))))
            .collect();
        threads.into_iter().map(|t| t.join().expect("a panic ends the program")).collect()
    });
    let seconds = clock.now_ns() as f64 / 1e9;
    let after = meter.as_mut().map(Meter::read);
    live.end();
    if args.of == Churned::Groups {
        cluster.delete_topic(&topic)?;
    }
    let mut all = Part::default();
    for part in parts {
        let part = part?;
        all.response.add(&part.response);
        all.service.add(&part.service);
        part.errors.into_iter().for_each(|(what, n)| *all.errors.entry(what).or_default() += n);
    }
    let used = before.zip(after);
    let done = all.response.count();
    let errors: u64 = all.errors.values().sum();
    let mut found = ChurnFound {
        of: args.of.word(),
        done,
        done_per_second: done as f64 / seconds,
        errors,
        error_examples: all.errors.into_iter().take(5).collect(),
        response_us: all.response.percentiles(),
        service_us: all.service.percentiles(),
        broker_cpu_us_each: used
            .filter(|_| done > 0)
            .map(|(before, after)| after.since(&before).cpu_ns as f64 / 1e3 / done as f64),
        broker_grew_mib: used.map(|(before, after)| {
            (after.rss_bytes as f64 - before.rss_bytes as f64) / 1_048_576.0
        }),
        seconds,
        ..Default::default()
    };
    if done + errors < total {
        let tried = done + errors;
        found.invalid_reasons.push(format!("partial: ended by a signal after {tried} of {total}"));
    }
    if errors > 0 {
        found.invalid_reasons.push(format!("{errors} failed"));
    }
    found.valid = found.invalid_reasons.is_empty();
    Ok(found)
}

/// Takes what is due next until nothing is left.
fn work(
    args: &ChurnArgs,
    topic: &str,
    (clock, next, total): (Clock, &AtomicU64, u64),
) -> Result<Part, RunError> {
    let mut part = Part::default();
    let mut cluster = Cluster::of(&args.target)?;
    while !interrupt::is_requested() {
        let number = next.fetch_add(1, Ordering::Relaxed);
        if number >= total {
            break;
        }
        let due_ns = nanos(std::time::Duration::from_secs_f64(number as f64 / args.rate));
        clock.sleep_until(due_ns);
        let begun_ns = clock.now_ns();
        match once(args, &mut cluster, topic, number) {
            Ok(()) => {
                let now_ns = clock.now_ns();
                part.response.record(now_ns.saturating_sub(due_ns));
                part.service.record(now_ns - begun_ns);
            }
            Err(error) => *part.errors.entry(error.to_string()).or_default() += 1,
        }
    }
    Ok(part)
}

fn once(
    args: &ChurnArgs,
    cluster: &mut Cluster,
    topic: &str,
    number: u64,
) -> Result<(), ClusterError> {
    match args.of {
        Churned::Connections => {
            Cluster::reach(&args.target.bootstrap, cluster.access().clone()).map(|_| ())
        }
        Churned::Topics => {
            let topic = format!("{topic}-{number}");
            cluster.create_topic(&topic, 1, &[])?;
            cluster.delete_topic(&topic)
        }
        Churned::Groups => {
            let mut member = Member::new(&format!("{topic}-{number}"), &[topic.to_owned()]);
            member.join(cluster.client())?;
            member.leave(cluster.client())
        }
    }
}

/// The result for a terminal.
pub fn words(found: &ChurnFound) -> String {
    let [p50, p99, max] =
        [found.response_us.p50, found.response_us.p99, found.response_us.max].map(text::time);
    let mut words = format!(
        "{} {} in {:.1} s ({:.1}/s): from when each was due p50 {p50}, p99 {p99}, max {max}; broker \
         CPU {} us each, RSS grew by {} MiB; {} failed\n",
        found.done,
        found.of,
        found.seconds,
        found.done_per_second,
        text::decimal(found.broker_cpu_us_each, 1),
        text::decimal(found.broker_grew_mib, 1),
        found.errors,
    );
    for (what, count) in &found.error_examples {
        let _ = writeln!(words, "  {count} x {what}");
    }
    for reason in &found.invalid_reasons {
        let _ = writeln!(words, "Not valid: {reason}.");
    }
    words
}
