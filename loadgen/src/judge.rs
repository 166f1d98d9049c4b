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
}

/// Whether the costs of a run hold although its rates and times may not.
pub fn is_cost_valid(reasons: &[String]) -> bool {
    reasons.iter().all(|reason| reason.starts_with(CLIENT_LIMIT))
}

/// Reasons why the figures are not to be trusted, and remarks that do not spoil them.
pub fn judge(report: &Report, args: &RunArgs, about: Circumstances) -> (Vec<String>, Vec<String>) {
    let mut reasons = Vec::new();
    let mut notes = Vec::new();
    integrity(report, args, about, &mut reasons);
    client(report, args, &mut reasons, &mut notes);
    machine(report, &mut reasons, &mut notes);
    load(report, args, &mut reasons, &mut notes);
    surprises(args, about, &mut notes);
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
    if about.has_broker_ended {
        reasons.push("the process named by --pid ended during the run".to_owned());
    }
}

fn client(report: &Report, args: &RunArgs, reasons: &mut Vec<String>, notes: &mut Vec<String>) {
    let percent = report.client_cpu_fraction * 100.0;
    if report.client_cpu_fraction > CLIENT_CPU_MAX {
        reasons.push(format!(
            "{CLIENT_LIMIT} {percent:.0} % of its CPU: the client may have been the limit"
        ));
    }
    let (Some(lag_us), Some(_)) = (report.schedule_lag_us, args.is_open().then_some(())) else {
        return;
    };
    let p99_us = report.response_us.p99.or(report.end_to_end_us.p99);
    if lag_us > LAG_MAX_US && p99_us.is_none_or(|p99_us| lag_us > LAG_SHARE_MAX * p99_us) {
        reasons.push(format!(
            "1 % of the requests left {lag_us:.0} us or more after they could have: the client or \
             the machine was the limit"
        ));
    } else if lag_us > LAG_MAX_US {
        notes.push(format!("1 % of the requests left {lag_us:.0} us or more too late"));
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

fn surprises(args: &RunArgs, about: Circumstances, notes: &mut Vec<String>) {
    if let Some(found) = about.partitions_found {
        let topic = args.topic.as_deref().unwrap_or_default();
        notes.push(format!(
            "topic {topic} was there already, with {found} partitions: --partitions and \
             --topic-config say nothing about it"
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
    if let Some(rate) = args.rate.filter(|rate| report.records_per_second < 0.98 * rate) {
        let reached = report.records_per_second;
        notes.push(format!(
            "{reached:.0} of {rate:.0} records a second were acknowledged in time: the broker did \
             not keep up, and times depend on the duration"
        ));
    }
    if let Some(group) = report.group.as_ref().filter(|group| group.commits_failed > 0) {
        notes.push(format!("{} commits failed while the group rebalanced", group.commits_failed));
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
            schedule_lag_us: Some(100.0),
            other_cpus_busy: Some(0.1),
            ..Default::default()
        };
        (report, args, Circumstances::default())
    }

    #[test]
    fn each_doubt_is_a_reason_and_a_sound_run_has_none() {
        type Change = fn(&mut Report, &mut RunArgs, &mut Circumstances);
        // What happens, the reason, the note.
        let rows: [(Change, &str, &str); 20] = [
            (|_, _, c| c.wall_jump_ms = -7_000, "", "jumped by -7.0 s"),
            (|_, _, c| c.slept_ms = 9_000, "slept for 9.0 s", ""),
            (|_, _, c| c.partitions_found = Some(3), "", "with 3 partitions"),
            (|_, _, c| c.has_broker_ended = true, "--pid ended", ""),
            (|_, _, _| (), "", ""),
            (|r, _, _| r.client_cpu_fraction = 0.95, "client thread used 95 %", ""),
            (|r, _, _| r.schedule_lag_us = Some(1_500.0), "left 1500 us", ""),
            (
                |r, _, _| {
                    r.schedule_lag_us = Some(1_500.0);
                    r.response_us.p99 = Some(50_000.0);
                },
                "",
                "left 1500 us",
            ),
            (|r, a, _| (r.schedule_lag_us, a.rate) = (Some(9e9), None), "", ""),
            (|r, _, _| r.other_cpus_busy = Some(0.7), "0.70 CPUs busy", ""),
            (|r, _, _| r.stolen_cpus = 0.5, "took 0.50 CPUs", ""),
            (|r, _, _| r.noise_after.timer_late_us_p50 = Some(900.0), "", "900 us late"),
            (|r, _, _| r.records_per_second = 970.0, "", "970 of 1000"),
            (|r, _, _| r.records_per_second = 0.0, "no record", "0 of 1000"),
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
