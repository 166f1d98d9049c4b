//! `loadgen crash`: rounds of load in which the broker is killed or frozen at a random moment, each
//! followed by a comparison of everything acknowledged with everything there.

use crate::args::{Acks, CrashArgs, Failing, RunArgs};
use crate::brokers::Running;
use crate::clock::boot_ns;
use crate::cluster::Cluster;
use crate::gather::Live;
use crate::interrupt;
use crate::lifecycle::{first_ack, millis};
use crate::run::{self, BrokerProcess, RunError, Surroundings};
use crate::study::ratio::Spread;
use crate::verify::Integrity;
use rustix::process::Signal;
use serde::Serialize;
use std::fmt::Write;
use std::path::Path;
use std::thread;
use std::time::Duration;

/// A topic for the first acknowledgement after a failure, apart from the load's.
const ACK_TOPIC: &str = "loadgen-crash-ack";
const FROZEN_MS: std::ops::Range<u64> = 50..1_000;

/// One round.
#[derive(Clone, Debug, Serialize)]
pub struct Round {
    /// Acknowledgement level of its load.
    pub acks: &'static str,
    /// What was done to the broker.
    pub failing: Failing,
    /// When, after the load was begun.
    pub at_ms: f64,
    /// From the kill, or the thaw, to the first acknowledged record.
    pub to_first_ack_ms: f64,
    /// Records handed to batches.
    pub records_sent: u64,
    /// The comparison of what was sent with what was there afterwards.
    pub integrity: Integrity,
    /// What broke a promise, or kept the round from being judged.
    pub faults: Vec<String>,
}

/// All rounds of one acknowledgement level.
#[derive(Clone, Debug, Serialize)]
pub struct Level {
    /// The level.
    pub acks: &'static str,
    /// Rounds.
    pub rounds: usize,
    /// Records sent in them.
    pub records_sent: u64,
    /// All comparisons together.
    pub integrity: Integrity,
    /// From the kill or the thaw to the first acknowledged record, milliseconds.
    pub to_first_ack_ms: Option<Spread>,
}

/// All rounds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct CrashFound {
    /// All rounds were run, and no promise was broken.
    pub valid: bool,
    /// Why not.
    pub invalid_reasons: Vec<String>,
    /// Of the moments.
    pub seed: u64,
    /// Acknowledged and not there, in all rounds.
    pub lost: u64,
    /// Content differs from what was sent.
    pub altered: u64,
    /// Median over all rounds, from the kill or the thaw.
    pub to_first_ack_ms: Option<f64>,
    /// By acknowledgement level.
    pub levels: Vec<Level>,
    /// In order.
    pub rounds: Vec<Round>,
}

/// `loadgen crash`: with a broker of its own.
pub fn crash_alone(args: &CrashArgs, live: Live) -> Result<CrashFound, RunError> {
    load(args, "", Acks::All, 0).check().map_err(RunError::Options)?;
    let mut broker =
        Running::start_alone(&args.start, args.prints_pid, &args.broker_cpus, &args.folder)?;
    crash(&mut broker, args, live)
}

/// Runs the rounds on one broker that we started, whose data stays from round to round.
pub fn crash(broker: &mut Running, args: &CrashArgs, live: Live) -> Result<CrashFound, RunError> {
    let mut cluster = Cluster::connect(&broker.address)?;
    cluster.create_topic(ACK_TOPIC, 1, &[])?;
    cluster.wait_for_leaders(ACK_TOPIC)?;
    drop(cluster);
    let mut random = fastrand::Rng::with_seed(args.seed);
    let (mut rounds, mut ended) = (Vec::new(), None);
    for number in 0..args.rounds {
        if interrupt::is_requested() {
            break;
        }
        let round = match round(args, broker, number, &mut random) {
            Ok(round) => round,
            // What the rounds before it have found stands.
            Err(error) => {
                ended = Some(format!("round {}: {error}", number + 1));
                break;
            }
        };
        live.show(&format!("round {}/{}: {}", number + 1, args.rounds, words_of(&round)));
        rounds.push(round);
    }
    live.end();
    Ok(conclude(args, rounds, ended))
}

fn round(
    args: &CrashArgs,
    broker: &mut Running,
    number: u32,
    random: &mut fastrand::Rng,
) -> Result<Round, RunError> {
    let acks = [Acks::All, Acks::Leader][number as usize % 2];
    let failing = match args.failing {
        Failing::Both => [Failing::Kill, Failing::Freeze][number as usize / 2 % 2],
        one => one,
    };
    let at = args.duration.mul_f64(0.2 + 0.6 * random.f64());
    let frozen = Duration::from_millis(random.u64(FROZEN_MS));
    let load = load(args, &broker.address, acks, number);
    let command = "";
    let around = Surroundings {
        broker: BrokerProcess::None,
        live: Live::Silent,
        folder: Path::new("."),
        command,
        is_probed: false,
    };
    let address = broker.address.clone();
    let (failed, outcome) = thread::scope(|scope| {
        let failing = scope.spawn(|| fail(broker, failing, at, frozen));
        let outcome = run::run(&load, around);
        (failing.join().expect("a panic of a thread ends the program"), outcome)
    });
    let to_first_ack_ms = failed?;
    if let Some(topic) = &load.topic {
        // One that could not be deleted stays: it does no harm.
        let _ = Cluster::connect(&address).and_then(|mut cluster| cluster.delete_topic(topic));
    }
    let mut round = Round {
        acks: acks.word(),
        failing,
        at_ms: at.as_secs_f64() * 1e3,
        to_first_ack_ms,
        records_sent: 0,
        integrity: Integrity::default(),
        faults: Vec::new(),
    };
    match outcome {
        Ok(outcome) => {
            round.records_sent = outcome.report.records_sent;
            round.faults = outcome.report.integrity.complaints(outcome.report.retries > 0);
            round.integrity = outcome.report.integrity;
            // Nothing counts as lost that was not looked for.
            if outcome.report.unread && round.faults.is_empty() {
                round.faults.push(not_judged(&outcome.report.invalid_reasons.join("; ")));
            }
        }
        Err(error) => round.faults.push(not_judged(&error)),
    }
    Ok(round)
}

fn not_judged(why: &dyn std::fmt::Display) -> String {
    format!("not judged, the broker must be back before --duration is over: {why}")
}

/// Lets the broker fail; milliseconds until it acknowledges again.
fn fail(
    broker: &mut Running,
    failing: Failing,
    at: Duration,
    frozen: Duration,
) -> Result<f64, RunError> {
    thread::sleep(at);
    let from_ns = match failing {
        Failing::Freeze => {
            broker.signal(Signal::STOP);
            thread::sleep(frozen);
            broker.signal(Signal::CONT);
            boot_ns()
        }
        Failing::Kill | Failing::Both => {
            let killed_ns = boot_ns();
            broker.kill()?;
            broker.launch()?;
            killed_ns
        }
    };
    Ok(millis(first_ack(broker, ACK_TOPIC)?.saturating_sub(from_ns)))
}

/// The load of a round: open loop, several connections, read back afterwards.
fn load(args: &CrashArgs, address: &str, acks: Acks, number: u32) -> RunArgs {
    let mut load = RunArgs::with_defaults();
    load.target.bootstrap = address.to_owned();
    load.topic = Some(format!("loadgen-crash-{number}"));
    // Deleted over a new connection: that of the run does not outlive the broker.
    load.keep_topic = true;
    (load.acks, load.partitions, load.connections) = (acks, 4, 4);
    (load.record_bytes, load.batch_records) = (args.record_bytes, 10);
    load.rate = Some(args.rate);
    (load.warmup, load.duration) = (Duration::ZERO, args.duration);
    (load.consumers, load.inflight) = (0, 5);
    load.seed = args.seed.wrapping_add(u64::from(number));
    load
}

fn conclude(args: &CrashArgs, rounds: Vec<Round>, ended: Option<String>) -> CrashFound {
    let mut invalid_reasons: Vec<String> = ended.into_iter().collect();
    // The last one may have been cut short.
    if interrupt::is_requested() {
        let (done, asked) = (rounds.len(), args.rounds);
        invalid_reasons.push(format!("partial: ended by a signal after {done} of {asked} rounds"));
    }
    for (number, round) in rounds.iter().enumerate() {
        let (acks, number) = (round.acks, number + 1);
        let told = round.faults.iter().map(|fault| format!("round {number}, acks={acks}: {fault}"));
        invalid_reasons.extend(told);
    }
    let levels = [Acks::All, Acks::Leader].map(|acks| {
        let of_level: Vec<&Round> =
            rounds.iter().filter(|round| round.acks == acks.word()).collect();
        let mut integrity = Integrity::default();
        of_level.iter().for_each(|round| integrity.add(&round.integrity));
        integrity.verified = of_level.iter().map(|round| round.integrity.verified).sum();
        let times: Vec<f64> = of_level.iter().map(|round| round.to_first_ack_ms).collect();
        Level {
            acks: acks.word(),
            rounds: of_level.len(),
            records_sent: of_level.iter().map(|round| round.records_sent).sum(),
            integrity,
            to_first_ack_ms: Spread::of(&times),
        }
    });
    let sum = |of: fn(&Integrity) -> u64| rounds.iter().map(|round| of(&round.integrity)).sum();
    let times: Vec<f64> = rounds.iter().map(|round| round.to_first_ack_ms).collect();
    CrashFound {
        valid: invalid_reasons.is_empty(),
        invalid_reasons,
        seed: args.seed,
        lost: sum(|integrity| integrity.lost),
        altered: sum(|integrity| integrity.altered),
        to_first_ack_ms: Spread::of(&times).map(|spread| spread.median),
        levels: levels.to_vec(),
        rounds,
    }
}

fn words_of(round: &Round) -> String {
    let what = match round.failing {
        Failing::Freeze => "frozen",
        Failing::Kill | Failing::Both => "killed",
    };
    let faults = match round.faults.is_empty() {
        true => "nothing lost".to_owned(),
        false => round.faults.join("; "),
    };
    format!(
        "acks={}, {what} after {:.0} ms, acknowledged again after {:.0} ms, {} records: {faults}",
        round.acks, round.at_ms, round.to_first_ack_ms, round.records_sent
    )
}

/// The result for a terminal.
pub fn words(found: &CrashFound) -> String {
    let mut text = format!(
        "{:<6}{:>7}{:>12}{:>12}{:>10}{:>8}{:>10}{:>12}{:>11}{:>26}\n",
        "acks",
        "rounds",
        "sent",
        "verified",
        "unknown",
        "lost",
        "altered",
        "duplicated",
        "reordered",
        "first ack again, ms"
    );
    for level in &found.levels {
        let is = &level.integrity;
        let time = level.to_first_ack_ms.map_or("-".to_owned(), |time| {
            format!("{:.0} [{:.0} to {:.0}]", time.median, time.min, time.max)
        });
        let _ = writeln!(
            text,
            "{:<6}{:>7}{:>12}{:>12}{:>10}{:>8}{:>10}{:>12}{:>11}{time:>26}",
            level.acks,
            level.rounds,
            level.records_sent,
            is.verified,
            is.uncertain,
            is.lost,
            is.altered,
            is.duplicated,
            is.reordered,
        );
    }
    text.push_str(
        "Unknown: under way when the broker failed; they may be there or not. Lost: acknowledged \
         and not there.\n",
    );
    for reason in &found.invalid_reasons {
        let _ = writeln!(text, "Not valid: {reason}.");
    }
    text
}
