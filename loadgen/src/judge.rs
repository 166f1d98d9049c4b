//! Is the result valid? Decided from facts by pure functions, explained in words.

use crate::args::{Acks, RunArgs, Switch};
use crate::report::Report;

/// Begins the reason that leaves costs alone: they are the broker's whoever was the limit.
const CLIENT_LIMIT: &str = "a client thread used";
/// Above this share of a CPU the client may have been the limit.
const CLIENT_CPU_MAX: f64 = 0.90;
/// Sends later than this, and than a good part of the times they belong to, spoil those times.
const LAG_MAX_US: f64 = 1_000.0;
const LAG_SHARE_MAX: f64 = 0.25;
/// A closed loop says so when its client stood still for longer.
const STALL_MAX_US: f64 = 10_000.0;
/// CPUs that others may keep busy.
const OTHER_CPUS_MAX: f64 = 0.20;
/// CPUs that the hypervisor may take before rates and times are noise; a little it always takes
/// for the guest's own disk and network.
const STOLEN_CPUS_MAX: f64 = 0.40;
/// Other clocks may drift by this much during a run.
const CLOCK_JUMP_MAX_MS: i64 = 500;
/// Largest median lateness of a timer on a quiet host.
const TIMER_LATE_MAX_US: f64 = 500.0;

/// What is known besides the report's own figures.
#[derive(Clone, Copy, Debug, Default)]
pub struct Circumstances {
    /// Requests that were due were given up before they were sent and answered.
    pub is_sending_cut: bool,
    /// The consumers were given up before they had seen everything.
    pub is_drain_cut: bool,
    /// Connections lost.
    pub connections_lost: u64,
    /// The process named by --pid ended during the run.
    pub has_broker_ended: bool,
    /// A signal ended the run early.
    pub is_interrupted: bool,
    /// Partitions of a topic that was there already, where that is not what --partitions says.
    pub partitions_found: Option<usize>,
    /// By how much the wall clock was set forward or back, milliseconds.
    pub wall_jump_ms: i64,
    /// How long the host slept.
    pub slept_ms: u64,
    /// By how much the measured time had begun before all connections were made.
    pub connected_late_ms: u64,
    /// The longest time in which a thread of the client saw nothing.
    pub longest_stall_us: f64,
    /// Brokers that lead partitions of the topic.
    pub brokers: usize,
    /// Times of --schedule in the warm-up, and those after the end.
    pub unmeasured_times: [usize; 2],
}

/// Whether the costs of a run hold although its rates and times may not.
pub fn is_cost_valid(reasons: &[String]) -> bool {
    reasons.iter().all(|reason| reason.starts_with(CLIENT_LIMIT))
}

/// Whether less was acknowledged in time than was due.
pub fn is_overloaded(report: &Report, args: &RunArgs) -> bool {
    let in_request = f64::from(args.batch_records) * f64::from(args.batches_per_request);
    // At the edges of the measured time each connection may be a request short.
    let edge = in_request * f64::from(args.connections) / report.measured_seconds.max(1e-3);
    let reached = report.records_per_second;
    // Where nothing was taken, it was refused.
    args.rate.is_some_and(|rate| reached > 0.0 && reached < 0.98 * rate - edge)
}

/// Reasons why the figures are not to be trusted, and remarks that do not spoil them.
pub fn judge(report: &Report, args: &RunArgs, about: Circumstances) -> (Vec<String>, Vec<String>) {
    let mut reasons = Vec::new();
    let mut notes = Vec::new();
    integrity(report, args, about, &mut reasons);
    client(report, &mut reasons);
    lateness(report, args, &mut reasons, &mut notes);
    machine(report, &mut reasons, &mut notes);
    load(report, args, &mut reasons, &mut notes);
    surprises(report, args, about, &mut notes);
    (reasons, notes)
}

fn integrity(report: &Report, args: &RunArgs, about: Circumstances, reasons: &mut Vec<String>) {
    let was_retried = report.retries > 0 && args.idempotent == Switch::Off;
    reasons.extend(report.integrity.complaints(was_retried));
    if args.fetch.verify == Switch::Off {
        reasons.push("records were not verified (--verify off)".to_owned());
    }
    if about.is_interrupted {
        let (measured, asked) = (report.measured_seconds, args.duration.as_secs_f64());
        reasons.push(format!("partial: ended by a signal after {measured:.1} of {asked:.1} s"));
    }
    if about.is_sending_cut {
        reasons.push("not everything that was due was sent and answered".to_owned());
    }
    if about.is_drain_cut {
        reasons.push("consumers did not get to the end of what was sent".to_owned());
    }
    if report.errors > 0 {
        let kinds: Vec<String> =
            report.errors_by_code.iter().map(|(name, count)| format!("{count} x {name}")).collect();
        reasons.push(format!("errors: {}", kinds.join(", ")));
    }
    if let Some(read) = report.catch_up.as_ref().filter(|read| !read.valid) {
        reasons.push(format!("cold readers: {}", read.invalid_reasons.join("; ")));
    }
    if about.connections_lost > 0 {
        reasons.push(format!("{} connections were lost", about.connections_lost));
    }
    if about.slept_ms > CLOCK_JUMP_MAX_MS.unsigned_abs() {
        reasons.push(format!("the host slept for {:.1} s", about.slept_ms as f64 / 1e3));
    }
    if about.connected_late_ms > 0 {
        reasons.push(format!(
            "connecting took until {} ms after measuring began: a longer --warmup is needed",
            about.connected_late_ms
        ));
    }
    if about.has_broker_ended {
        reasons.push("the process named by --pid ended during the run".to_owned());
    }
}

fn client(report: &Report, reasons: &mut Vec<String>) {
    let percent = report.client_cpu_fraction * 100.0;
    if report.client_cpu_fraction > CLIENT_CPU_MAX {
        reasons.push(format!(
            "{CLIENT_LIMIT} {percent:.0} % of its CPU: the client may have been the limit"
        ));
    }
}

/// Compares how late requests left with the times they belong to, percentile by percentile.
fn lateness(report: &Report, args: &RunArgs, reasons: &mut Vec<String>, notes: &mut Vec<String>) {
    if !args.is_open() {
        return;
    }
    let times = match report.response_us.count {
        0 => &report.end_to_end_us,
        _ => &report.response_us,
    };
    let lag = &report.schedule_lag_percentiles_us;
    let share = |lag_us: &f64, us: Option<f64>| us.is_none_or(|us| *lag_us > LAG_SHARE_MAX * us);
    let late = |lag_us: Option<f64>| lag_us.filter(|lag_us| *lag_us > LAG_MAX_US);
    // Fewer requests have fewer percentiles.
    let judged = [(1, lag.p99, times.p99), (10, lag.p90, times.p90), (50, lag.p50, times.p50)];
    let spoilt = judged.iter().find_map(|&(percent, lag_us, us)| {
        Some((percent, late(lag_us).filter(|lag_us| share(lag_us, us))?))
    });
    if let Some((percent, lag_us)) = spoilt {
        reasons.push(format!(
            "{percent} % of the requests left {lag_us:.0} us or more after they could have: the \
             client or the machine was the limit"
        ));
        return;
    }
    if let Some(lag_us) = late(lag.p99) {
        notes.push(format!("1 % of the requests left {lag_us:.0} us or more too late"));
    }
    let rare = [
        ("p99.9", lag.p99_9, times.p99_9),
        ("p99.99", lag.p99_99, times.p99_99),
        ("the maximum", lag.max, times.max),
    ];
    let rare = rare.into_iter().find_map(|(name, lag_us, us)| {
        Some((name, late(lag_us).filter(|lag_us| share(lag_us, us))?))
    });
    if let Some((name, lag_us)) = rare {
        notes.push(format!(
            "{name} may be the client's or the machine's own: requests as rare left {lag_us:.0} us \
             later than they could have"
        ));
    }
}

fn machine(report: &Report, reasons: &mut Vec<String>, notes: &mut Vec<String>) {
    if let Some(cpus) = report.other_cpus_busy.filter(|&cpus| cpus > OTHER_CPUS_MAX) {
        reasons.push(format!("other processes kept {cpus:.2} CPUs busy"));
    }
    if report.stolen_cpus > STOLEN_CPUS_MAX {
        reasons.push(format!("the hypervisor took {:.2} CPUs away", report.stolen_cpus));
    }
    let probes = [&report.noise_before, &report.noise_after];
    let late_us = probes.iter().filter_map(|probe| probe.timer_late_us_p50).fold(0.0, f64::max);
    if late_us > TIMER_LATE_MAX_US {
        notes.push(format!("timers fire {late_us:.0} us late at the median: the host is busy"));
    }
}

fn surprises(report: &Report, args: &RunArgs, about: Circumstances, notes: &mut Vec<String>) {
    if about.brokers > 1 && report.broker.is_some() {
        notes.push(format!(
            "the broker's costs are those of one process, the records those of {} brokers",
            about.brokers
        ));
    }
    if let Some(found) = about.partitions_found {
        let topic = args.topic.as_deref().unwrap_or_default();
        notes.push(format!(
            "topic {topic} was there already, with {found} partitions: --partitions and \
             --topic-config say nothing about it"
        ));
    }
    // An open loop tells how late its sends were.
    let stall_us = about.longest_stall_us;
    let longest_us = report.response_us.max.unwrap_or(0.0);
    if !args.is_open() && stall_us > STALL_MAX_US && stall_us > LAG_SHARE_MAX * longest_us {
        notes.push(format!(
            "the client stood still for up to {:.0} ms: the longest times are its own",
            stall_us / 1e3
        ));
    }
    if about.unmeasured_times != [0, 0] {
        let [before, after] = about.unmeasured_times;
        notes.push(format!(
            "of the times in --schedule {before} lie in the warm-up, {after} after --duration and \
             were not sent"
        ));
    }
    if about.wall_jump_ms.abs() > CLOCK_JUMP_MAX_MS {
        notes.push(format!(
            "the wall clock jumped by {:.1} s: timestamps in records are off, times are not",
            about.wall_jump_ms as f64 / 1e3
        ));
    }
}

fn load(report: &Report, args: &RunArgs, reasons: &mut Vec<String>, notes: &mut Vec<String>) {
    if report.records_per_second == 0.0 {
        reasons.push("no record was acknowledged in the measured time".to_owned());
    }
    if let Some(rate) = args.rate.filter(|_| report.overloaded) {
        let reached = report.records_per_second;
        notes.push(format!(
            "{reached:.0} of {rate:.0} records a second were acknowledged in time: the broker did \
             not keep up, and times depend on the duration"
        ));
    }
    if let Some(group) = report.group.as_ref().filter(|group| group.commits_failed > 0) {
        notes.push(format!("{} commits failed while the group rebalanced", group.commits_failed));
    }
    if !args.is_open() && args.acks != Acks::None {
        notes.push(
            "closed loop: whoever waits for an answer does not send, so that a stall is one late \
             sample for each request under way; --rate shows what users would wait"
                .to_owned(),
        );
    }
    if args.acks == Acks::None {
        notes.push(
            "acks=0 has no answers: response and service times do not exist, records count when \
             sent; see the end-to-end times"
                .to_owned(),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::histogram::Percentiles;
    use crate::verify::Integrity;

    fn sound() -> (Report, RunArgs, Circumstances) {
        let mut args = RunArgs::with_defaults();
        args.rate = Some(1000.0);
        let times = Percentiles { p99: Some(2_000.0), count: 5_000, ..Default::default() };
        let report = Report {
            records_per_second: 1000.0,
            response_us: times,
            client_cpu_fraction: 0.5,
            schedule_lag_percentiles_us: Percentiles { p99: Some(100.0), ..Default::default() },
            measured_seconds: 1e3,
            other_cpus_busy: Some(0.1),
            ..Default::default()
        };
        (report, args, Circumstances::default())
    }

    #[test]
    fn each_doubt_is_a_reason_and_a_sound_run_has_none() {
        type Change = fn(&mut Report, &mut RunArgs, &mut Circumstances);
        // What happens, the reason, the note.
        let rows: [(Change, &str, &str); 27] = [
            (|_, _, c| c.unmeasured_times = [2, 7], "", "2 lie in the warm-up, 7 after"),
            (|_, _, c| c.connected_late_ms = 70, "until 70 ms after", ""),
            (|_, _, c| c.brokers = 3, "", ""),
            (
                |r, _, c| (r.broker, c.brokers) = (Some(Default::default()), 3),
                "",
                "those of 3 brokers",
            ),
            (
                |r, _, _| {
                    let lag = &mut r.schedule_lag_percentiles_us;
                    (lag.p99, lag.p90) = (None, Some(1_500.0));
                },
                "10 % of the requests left 1500 us",
                "",
            ),
            (|r, _, _| r.schedule_lag_percentiles_us.p99_9 = Some(2e4), "", "p99.9 may be"),
            (|r, _, _| r.schedule_lag_percentiles_us.max = Some(2e4), "", "the maximum may be"),
            (|_, _, c| c.wall_jump_ms = -7_000, "", "jumped by -7.0 s"),
            (|_, _, c| c.slept_ms = 9_000, "slept for 9.0 s", ""),
            (|_, _, c| c.partitions_found = Some(3), "", "with 3 partitions"),
            (|_, _, c| c.has_broker_ended = true, "--pid ended", ""),
            (|_, _, _| (), "", ""),
            (|r, _, _| r.client_cpu_fraction = 0.95, "client thread used 95 %", ""),
            (|r, _, _| r.schedule_lag_percentiles_us.p99 = Some(1_500.0), "left 1500 us", ""),
            (
                |r, _, _| {
                    r.schedule_lag_percentiles_us.p99 = Some(1_500.0);
                    r.response_us.p99 = Some(50_000.0);
                },
                "",
                "left 1500 us",
            ),
            (
                |r, a, _| (r.schedule_lag_percentiles_us.p99, a.rate) = (Some(9e9), None),
                "",
                "closed loop",
            ),
            (|r, _, _| r.other_cpus_busy = Some(0.7), "0.70 CPUs busy", ""),
            (|r, _, _| r.stolen_cpus = 0.5, "took 0.50 CPUs", ""),
            (|r, _, _| r.noise_after.timer_late_us_p50 = Some(900.0), "", "900 us late"),
            (|r, _, _| (r.records_per_second, r.overloaded) = (970.0, true), "", "970 of 1000"),
            (|r, _, _| r.records_per_second = 0.0, "no record", ""),
            (
                |r, _, _| r.integrity = Integrity { lost: 3, ..Default::default() },
                "3 records lost",
                "",
            ),
            (
                |r, _, _| {
                    r.errors = 2;
                    r.errors_by_code.insert("NO_ANSWER".to_owned(), 2);
                },
                "2 x NO_ANSWER",
                "",
            ),
            (|_, _, c| c.connections_lost = 1, "1 connections", ""),
            (|_, a, _| a.acks = Acks::None, "", "acks=0"),
            (|_, _, c| c.is_interrupted = true, "partial", ""),
            (|_, _, c| c.is_sending_cut = true, "was due", ""),
        ];
        for (change, reason, note) in rows {
            let (mut report, mut args, mut about) = sound();
            change(&mut report, &mut args, &mut about);
            let (reasons, notes) = judge(&report, &args, about);
            for (found, expected) in [(&reasons, reason), (&notes, note)] {
                assert_eq!(found.is_empty(), expected.is_empty(), "{reason}/{note}: {found:?}");
                assert!(found.iter().all(|text| text.contains(expected)), "{found:?}");
            }
        }
    }

    #[test]
    fn a_closed_loop_says_when_its_client_stood_still() {
        let (report, mut args, mut about) = sound();
        about.longest_stall_us = 300_000.0;
        let is_told = |args: &RunArgs, about| {
            judge(&report, args, about).1.iter().any(|note| note.contains("up to 300 ms"))
        };
        assert!(!is_told(&args, about), "an open loop has its schedule lag");
        args.rate = None;
        assert!(is_told(&args, about) && !is_told(&args, Circumstances::default()));
    }

    #[test]
    fn records_that_were_retried_may_come_twice_or_late_but_never_be_lost() {
        let (mut report, args, about) = sound();
        report.integrity = Integrity { duplicated: 1, reordered: 1, ..Default::default() };
        assert_eq!(judge(&report, &args, about).0.len(), 2);
        report.retries = 1;
        assert_eq!(judge(&report, &args, about).0.len(), 0);
        report.integrity.lost = 1;
        assert_eq!(judge(&report, &args, about).0.len(), 1);
    }
}
