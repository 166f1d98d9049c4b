//! Is the result valid? Decided from facts by pure functions, explained in words.

use crate::args::{Acks, RunArgs, Switch};
use crate::report::Report;

/// Above this share of a CPU the client may have been the limit.
const CLIENT_CPU_MAX: f64 = 0.90;
/// Sends later than this, and than a good part of the times they belong to, spoil those times.
const LAG_MAX_US: f64 = 1_000.0;
const LAG_SHARE_MAX: f64 = 0.25;
/// CPUs that others may keep busy.
const OTHER_CPUS_MAX: f64 = 0.20;
/// Largest median lateness of a timer on a quiet host.
const TIMER_LATE_MAX_US: f64 = 500.0;

/// What is known besides the report's own figures.
#[derive(Clone, Copy, Debug, Default)]
pub struct Circumstances {
    /// The consumers were given up before they had seen everything.
    pub is_drain_cut: bool,
    /// Connections lost.
    pub connections_lost: u64,
    /// The process named by --pid ended during the run.
    pub has_broker_ended: bool,
}

/// Reasons why the figures are not to be trusted, and remarks that do not spoil them.
pub fn judge(report: &Report, args: &RunArgs, about: Circumstances) -> (Vec<String>, Vec<String>) {
    let mut reasons = Vec::new();
    let mut notes = Vec::new();
    integrity(report, args, about, &mut reasons);
    client(report, args, &mut reasons, &mut notes);
    machine(report, &mut reasons, &mut notes);
    load(report, args, &mut reasons, &mut notes);
    (reasons, notes)
}

fn integrity(report: &Report, args: &RunArgs, about: Circumstances, reasons: &mut Vec<String>) {
    let was_retried = report.retries > 0 && args.idempotent == Switch::Off;
    reasons.extend(report.integrity.complaints(was_retried));
    if args.fetch.verify == Switch::Off {
        reasons.push("records were not verified (--verify off)".to_owned());
    }
    if about.is_drain_cut {
        reasons.push("consumers did not get to the end of what was sent".to_owned());
    }
    if report.errors > 0 {
        let kinds: Vec<String> =
            report.errors_by_code.iter().map(|(name, count)| format!("{count} x {name}")).collect();
        reasons.push(format!("errors: {}", kinds.join(", ")));
    }
    if about.connections_lost > 0 {
        reasons.push(format!("{} connections were lost", about.connections_lost));
    }
    if about.has_broker_ended {
        reasons.push("the process named by --pid ended during the run".to_owned());
    }
}

fn client(report: &Report, args: &RunArgs, reasons: &mut Vec<String>, notes: &mut Vec<String>) {
    let percent = report.client_cpu_fraction * 100.0;
    if report.client_cpu_fraction > CLIENT_CPU_MAX {
        reasons.push(format!(
            "a client thread used {percent:.0} % of its CPU: the client may have been the limit"
        ));
    }
    let (Some(lag_us), Some(_)) = (report.schedule_lag_us, args.rate) else { return };
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
        reasons
            .push(format!("other processes and the kernel's own threads kept {cpus:.2} CPUs busy"));
    }
    let probes = [&report.noise_before, &report.noise_after];
    let late_us = probes.iter().filter_map(|probe| probe.timer_late_us_p50).fold(0.0, f64::max);
    if late_us > TIMER_LATE_MAX_US {
        notes.push(format!("timers fire {late_us:.0} us late at the median: the host is busy"));
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
    if args.acks == Acks::None {
        notes.push(
            "acks=0 has no answers: response and service times do not exist, records count when \
             sent; see the end-to-end times"
                .to_owned(),
        );
    }
}
