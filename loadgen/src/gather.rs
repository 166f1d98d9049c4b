//! While a load runs: intervals from the threads, readings of the broker, the live line.

use crate::clock::nanos;
use crate::cost::{self, Glance, Meter, Usage};
use crate::driver::stats::{Interval, Progress};
use crate::driver::{Setup, Timeline};
use crate::exposition::Exposition;
use crate::histogram::Latencies;
use crate::interrupt;
use crate::report::Row;
use crate::report::text;
use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::Receiver;
use std::time::Duration;

const STEP: Duration = Duration::from_millis(20);
const GLANCE_EVERY_NS: u64 = 250_000_000;
const EXPOSE_EVERY_NS: u64 = 200_000_000;
/// What is under way when a signal ends a run has this long to come to its end.
const AFTER_SIGNAL: Duration = Duration::from_secs(5);

/// How a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// All is there.
    Over,
    /// Nothing moved any more.
    Stuck,
    /// It would have gone on, but not for long enough.
    Cut,
}

/// Everything read at one moment.
#[derive(Clone, Debug, Default)]
pub struct Reading {
    /// Clock of the run.
    pub at_ns: u64,
    /// The broker.
    pub broker: Option<Usage>,
    /// All CPUs of the machine.
    pub machine_ns: u64,
    /// What the hypervisor took of them.
    pub stolen_ns: u64,
    /// The kernel's own threads.
    pub kernel_ns: u64,
    /// Each client thread: CPU and what of it was spent spinning.
    pub threads: Vec<(u64, u64)>,
}

/// Collects while threads work.
#[derive(Debug)]
pub struct Gatherer {
    setup: Arc<Setup>,
    progress: Vec<Arc<Progress>>,
    intervals: Receiver<Interval>,
    meter: Option<Meter>,
    merged: BTreeMap<u64, Interval>,
    readings: Vec<Reading>,
    glances: Vec<(u64, Glance)>,
    next_line_ns: u64,
    last_line: (u64, u64),
    live: Live,
    exposition: Option<Exposition>,
    next_exposure_ns: u64,
}

/// What was collected.
#[derive(Debug)]
pub struct Gathered {
    /// Readings at the start and the end of the measured time.
    pub edges: Option<(Reading, Reading)>,
    /// Each interval in figures.
    pub rows: Vec<Row>,
    /// Each interval with its histograms.
    pub history: History,
}

/// The intervals of the measured time.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// When measuring began, wall clock.
    pub began_ms: i64,
    /// From the first to the last.
    pub intervals: Vec<Interval>,
}

/// Where progress goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Live {
    /// One line, rewritten.
    Terminal,
    /// A line each second.
    Plain,
    /// Nowhere.
    Silent,
}

impl Live {
    /// By what standard error is.
    pub fn detect() -> Self {
        if std::io::stderr().is_terminal() { Self::Terminal } else { Self::Plain }
    }

    /// Shows a line; on a terminal it replaces the last one.
    pub fn show(self, line: &str) {
        // Progress that cannot be shown is no reason to stop.
        let _ = self.write(&mut std::io::stderr().lock(), line);
    }

    fn write(self, out: &mut impl Write, line: &str) -> std::io::Result<()> {
        match self {
            Self::Terminal => write!(out, "\r\x1b[K{line}").and_then(|()| out.flush()),
            Self::Plain => writeln!(out, "{line}"),
            Self::Silent => Ok(()),
        }
    }

    /// Ends a rewritten line.
    pub fn end(self) {
        if self == Self::Terminal {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

impl Gatherer {
    /// Ready to collect.
    pub fn new(
        setup: Arc<Setup>,
        progress: Vec<Arc<Progress>>,
        intervals: Receiver<Interval>,
        meter: Option<Meter>,
        live: Live,
    ) -> Self {
        Self {
            setup,
            progress,
            intervals,
            meter,
            merged: BTreeMap::new(),
            readings: Vec::new(),
            glances: Vec::new(),
            next_line_ns: 0,
            last_line: (0, 0),
            live,
            exposition: None,
            next_exposure_ns: 0,
        }
    }

    /// From now on also serves what is known to Prometheus.
    pub fn expose(&mut self, listen: &str) -> std::io::Result<()> {
        self.exposition = Some(Exposition::start(listen)?);
        Ok(())
    }

    fn timeline(&self) -> Timeline {
        self.setup.timeline
    }

    /// Collects through the measured time, which ends early when `is_cut` says so or everybody has
    /// sent all there was to send.
    pub fn measure(&mut self, is_cut: impl Fn() -> bool) {
        let timeline = self.timeline();
        let every_ns = timeline.interval_ns.max(GLANCE_EVERY_NS);
        let mut next_ns = timeline.measure_start_ns;
        loop {
            let is_done = self.progress.iter().all(|p| p.is_done_sending.load(Ordering::Acquire));
            let is_early = is_done || is_cut();
            if is_early {
                self.setup.end_now();
            }
            let now_ns = self.setup.clock.now_ns();
            let is_over = is_early || now_ns >= timeline.measure_end_ns;
            if is_over || now_ns >= next_ns {
                let is_edge = self.readings.is_empty() || is_over;
                // Reading all threads of a JVM takes milliseconds of the client's CPU: not while
                // it measures.
                if is_edge {
                    self.read();
                }
                if let Some(meter) = &self.meter {
                    self.glances.push((now_ns, meter.glance()));
                }
                if is_over {
                    return;
                }
                next_ns = (next_ns + every_ns).min(timeline.measure_end_ns);
            }
            self.step();
            let wake_ns = next_ns.min(now_ns + STEP.as_nanos() as u64);
            self.setup.clock.sleep_until(wake_ns);
        }
    }

    /// Collects until `is_over` says so, nothing that it counts has moved for `patience`, `longest`
    /// has passed, or a signal came some seconds ago.
    pub fn wait_for(
        &mut self,
        (patience, longest): (Duration, Duration),
        is_over: impl Fn(&[Arc<Progress>]) -> bool,
        count: impl Fn(&[Arc<Progress>]) -> u64,
    ) -> Wait {
        let mut last = (count(&self.progress), self.setup.clock.now_ns());
        let mut end_ns = last.1.saturating_add(nanos(longest));
        let mut is_interrupted = false;
        loop {
            if is_over(&self.progress) {
                return Wait::Over;
            }
            let now_ns = self.setup.clock.now_ns();
            let counted = count(&self.progress);
            if counted != last.0 {
                last = (counted, now_ns);
            }
            if !is_interrupted && interrupt::is_requested() {
                is_interrupted = true;
                end_ns = end_ns.min(now_ns + nanos(AFTER_SIGNAL));
            }
            if now_ns > end_ns {
                return Wait::Cut;
            }
            if now_ns - last.1 > nanos(patience) {
                return Wait::Stuck;
            }
            self.step();
            std::thread::sleep(STEP);
        }
    }

    fn step(&mut self) {
        while let Ok(interval) = self.intervals.try_recv() {
            self.merge(interval);
        }
        let now_ns = self.setup.clock.now_ns();
        if self.live != Live::Silent && now_ns >= self.next_line_ns {
            self.next_line_ns = now_ns + 1_000_000_000;
            self.show(now_ns);
        }
        if let Some(exposition) = &self.exposition
            && now_ns >= self.next_exposure_ns
        {
            self.next_exposure_ns = now_ns + EXPOSE_EVERY_NS;
            self.show_to(exposition);
        }
    }

    fn show_to(&self, exposition: &Exposition) {
        let total = |cell: fn(&Progress) -> &AtomicU64| -> [(&str, f64); 1] {
            let all = self.progress.iter().map(|progress| cell(progress).load(Ordering::Acquire));
            [("", all.sum::<u64>() as f64)]
        };
        let times = |of: fn(&Interval) -> &Latencies| -> Vec<(&str, f64)> {
            let p = self.merged.values().next_back().map(|interval| of(interval).percentiles());
            let p = p.unwrap_or_default();
            let named = [("{quantile=\"0.5\"}", p.p50), ("{quantile=\"0.99\"}", p.p99)];
            named.into_iter().filter_map(|(name, us)| Some((name, us? / 1e6))).collect()
        };
        let broker = self.glances.last().map(|(_, glance)| *glance);
        let cpu = broker.map(|glance| ("", glance.cpu_ns as f64 / 1e9));
        let rss = broker.map(|glance| ("", glance.rss_bytes as f64));
        exposition.show(&[
            ("records_sent_total", "Records handed to batches.", &total(|p| &p.sent)),
            ("records_acknowledged_total", "Records acknowledged.", &total(|p| &p.acked)),
            ("records_seen_total", "Records seen by consumers.", &total(|p| &p.seen)),
            ("records_uncertain", "Records of unknown fate.", &total(|p| &p.uncertain)),
            ("errors_total", "Failed batches and fetches.", &total(|p| &p.errors)),
            (
                "response_seconds",
                "Intended time to answer, last interval.",
                &times(|interval| &interval.response),
            ),
            (
                "end_to_end_seconds",
                "Intended time to consumer, last interval.",
                &times(|interval| &interval.end_to_end),
            ),
            ("broker_cpu_seconds_total", "CPU of the broker's process.", cpu.as_slice()),
            ("broker_resident_bytes", "Memory of the broker's process.", rss.as_slice()),
        ]);
    }

    fn merge(&mut self, interval: Interval) {
        self.merged
            .entry(interval.index)
            .and_modify(|merged| merged.add(&interval))
            .or_insert(interval);
    }

    fn show(&mut self, now_ns: u64) {
        let total = |cell: fn(&Progress) -> u64| -> u64 {
            self.progress.iter().map(|progress| cell(progress)).sum()
        };
        let seen = total(|progress| progress.seen.load(Ordering::Acquire));
        let sent = total(|progress| progress.sent.load(Ordering::Acquire));
        let errors = total(|progress| progress.errors.load(Ordering::Acquire));
        let timeline = self.timeline();
        let seconds = |ns: u64| ns as f64 / 1e9;
        let phase = match now_ns {
            now if now < timeline.measure_start_ns => "warm-up".to_owned(),
            now if now < timeline.measure_end_ns => format!(
                "{:.0}/{:.0} s",
                seconds(now - timeline.measure_start_ns),
                seconds(timeline.measure_end_ns - timeline.measure_start_ns)
            ),
            _ => "draining".to_owned(),
        };
        let (last_ns, last_sent) = self.last_line;
        let rate = sent.saturating_sub(last_sent) as f64 / seconds(now_ns - last_ns).max(1e-3);
        self.last_line = (now_ns, sent);
        let times = self.merged.values().next_back().map_or_else(String::new, |interval| {
            let times = match interval.response.count() {
                0 => &interval.end_to_end,
                _ => &interval.response,
            };
            let p = times.percentiles();
            format!("  p50 {}  p99 {}", text::time(p.p50), text::time(p.p99))
        });
        let rate = text::short(rate);
        self.live.show(&format!(
            "{phase:>9}  {rate}/s  sent {}  verified {}{times}  errors {errors}",
            text::short(sent as f64),
            text::short(seen as f64),
        ));
    }

    /// Reads the broker, the machine and the threads now.
    pub fn read(&mut self) {
        let threads = self
            .progress
            .iter()
            .map(|progress| {
                let cpu_ns = cost::thread_cpu_ns(progress.thread.load(Ordering::Acquire));
                (cpu_ns, progress.spun_ns.load(Ordering::Acquire))
            })
            .collect();
        let (machine_ns, stolen_ns) = cost::machine_ns();
        let reading = Reading {
            at_ns: self.setup.clock.now_ns(),
            broker: self.meter.as_mut().map(Meter::read),
            machine_ns,
            stolen_ns,
            kernel_ns: cost::kernel_threads_ns(),
            threads,
        };
        self.readings.push(reading);
    }

    /// Whether the broker's process is still there; true without one.
    pub fn is_broker_alive(&self) -> bool {
        self.meter.as_ref().is_none_or(Meter::is_alive)
    }

    /// After all threads have ended.
    pub fn finish(mut self) -> Gathered {
        while let Ok(interval) = self.intervals.try_recv() {
            self.merge(interval);
        }
        self.live.end();
        let edges = self.readings.first().cloned().zip(self.readings.last().cloned());
        let timeline = self.timeline();
        let count = self.merged.keys().next_back().map_or(0, |last| last + 1);
        let mut merged = std::mem::take(&mut self.merged);
        // Where no thread got to an interval, the client stood still.
        let take = |index| merged.remove(&index).unwrap_or_else(|| Interval::new(index));
        let intervals: Vec<Interval> = (0..count).map(take).collect();
        let rows = intervals.iter().map(|interval| self.row(interval, &timeline)).collect();
        let began_ms =
            self.setup.wall_ms_at_zero + (timeline.measure_start_ns / 1_000_000).cast_signed();
        Gathered { edges, rows, history: History { began_ms, intervals } }
    }

    fn row(&self, interval: &Interval, timeline: &Timeline) -> Row {
        let start_ns = timeline.measure_start_ns + interval.index * timeline.interval_ns;
        let end_ns = (start_ns + timeline.interval_ns).min(timeline.measure_end_ns);
        let seconds = end_ns.saturating_sub(start_ns).max(1) as f64 / 1e9;
        // The glances around its end; the last pair for what comes after all.
        let last = self.glances.len().saturating_sub(1);
        let after = self.glances.iter().position(|(at_ns, _)| *at_ns >= end_ns);
        let after = after.unwrap_or(last).max(1);
        let pair = self.glances.get(after - 1).zip(self.glances.get(after));
        let cpus = pair.map(|((start_ns, start), (end_ns, end))| {
            let ns = end_ns.saturating_sub(*start_ns).max(1) as f64;
            end.cpu_ns.saturating_sub(start.cpu_ns) as f64 / ns
        });
        Row {
            at_s: end_ns.saturating_sub(timeline.measure_start_ns) as f64 / 1e9,
            records_per_second: interval.records as f64 / seconds,
            bytes_per_second: interval.bytes as f64 / seconds,
            consumed_per_second: interval.consumed as f64 / seconds,
            errors: interval.errors,
            response_us: interval.response.percentiles(),
            end_to_end_us: interval.end_to_end.percentiles(),
            broker_cpus: cpus,
            broker_rss_bytes: pair.map(|(_, (_, glance))| glance.rss_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_has_one_line_and_a_pipe_one_after_the_other() {
        let rows = [
            (Live::Terminal, "\r\x1b[K1/2 s\r\x1b[K2/2 s"),
            (Live::Plain, "1/2 s\n2/2 s\n"),
            (Live::Silent, ""),
        ];
        for (live, expected) in rows {
            let mut shown = Vec::new();
            for line in ["1/2 s", "2/2 s"] {
                live.write(&mut shown, line).expect("memory takes it");
            }
            assert_eq!(String::from_utf8(shown).expect("text"), expected, "{live:?}");
        }
    }
}
