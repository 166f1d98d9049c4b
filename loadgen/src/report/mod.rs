//! The result of a run, and the folder it is written to.

pub mod chart;
pub mod html;
pub mod omb;
pub mod text;

use crate::catchup::CatchUp;
use crate::cost::Usage;
use crate::driver::stats::Interval;
use crate::gather::History;
use crate::group::GroupFound;
use crate::histogram::{Latencies, Percentiles};
use crate::machine::{Facts, Noise};
use crate::verify::Integrity;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::Path;

/// Everything a run has found, as in report.json. Times in the names' units.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Report {
    /// Whether the figures are the broker's, and every record was verified.
    pub valid: bool,
    /// Why not.
    pub invalid_reasons: Vec<String>,
    /// Whether what a record cost the broker holds: the client may have been the limit.
    pub cost_valid: bool,
    /// The run was ended by a signal.
    pub partial: bool,
    /// Readers did not get to the end: what they did not see may be there.
    pub unread: bool,
    /// Open loop: less was acknowledged in time than was due, so that times grow with the duration.
    pub overloaded: bool,
    /// What a reader should know besides.
    pub notes: Vec<String>,
    /// Records acknowledged (acks=0: sent) a second of the measured time.
    pub records_per_second: f64,
    /// Value bytes of them.
    pub bytes_per_second: f64,
    /// Failed batches, fetches and requests, over the whole run.
    pub errors: u64,
    /// The same by kind.
    pub errors_by_code: BTreeMap<String, u64>,
    /// Batches sent again.
    pub retries: u64,
    /// Records of the whole run read back with the right content, once, in order.
    pub records_verified: u64,
    /// Records handed to batches in the whole run, warm-up included.
    pub records_sent: u64,
    /// The comparison of what was sent with what was seen.
    pub integrity: Integrity,
    /// Records per batch as it really was.
    pub records_per_batch: Option<f64>,
    /// Batches per request as it really was.
    pub batches_per_request: Option<f64>,
    /// Bytes per produce request.
    pub bytes_per_request: Option<f64>,
    /// Intended time -> answer.
    pub response_us: Percentiles,
    /// Bytes handed to the socket -> answer.
    pub service_us: Percentiles,
    /// Intended time -> seen by a consumer.
    pub end_to_end_us: Percentiles,
    /// CPU time of the broker per acknowledged record, reading by consumers included.
    pub broker_cpu_us_per_record: Option<f64>,
    /// CPU time of the broker per 10^9 acknowledged value bytes.
    pub broker_cpu_s_per_gb: Option<f64>,
    /// Flushes of the broker per request, with --count-flushes.
    pub flushes_per_request: Option<f64>,
    /// What the broker used in the measured time.
    pub broker: Option<BrokerCost>,
    /// Busiest client thread: share of one CPU, without spinning.
    pub client_cpu_fraction: f64,
    /// Open loop: p99 of how much later than possible requests left.
    pub schedule_lag_us: Option<f64>,
    /// The same in full.
    pub schedule_lag_percentiles_us: Percentiles,
    /// CPUs that other processes kept busy; `None` without --pid.
    pub other_cpus_busy: Option<f64>,
    /// CPUs that the kernel's own threads kept busy, writing back pages for instance.
    pub kernel_cpus_busy: f64,
    /// CPUs that the hypervisor gave to others meanwhile.
    pub stolen_cpus: f64,
    /// Records consumers saw a second of the measured time.
    pub consumed_per_second: f64,
    /// What the group of the consumers did, with --group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub group: Option<GroupFound>,
    /// What the readers of the backlog did, with --cold-readers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub catch_up: Option<CatchUp>,
    /// Length of the measured time.
    pub measured_seconds: f64,
    /// What was asked for, in words.
    pub load: String,
    /// Every option.
    pub configuration: serde_json::Value,
    /// The host.
    pub machine: Facts,
    /// The host before the load.
    pub noise_before: Noise,
    /// The host after it.
    pub noise_after: Noise,
    /// Of loadgen.
    pub version: String,
    /// To repeat it.
    pub command: String,
    /// Of payloads, keys and arrivals.
    pub seed: u64,
    /// UTC.
    pub started: String,
    /// The measured time in pieces.
    pub intervals: Vec<Row>,
}

/// What the broker used.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct BrokerCost {
    /// CPU time, seconds.
    pub cpu_s: f64,
    /// CPUs it kept busy on average.
    pub cpus: f64,
    /// Resident memory at the end.
    pub rss_bytes: u64,
    /// Context switches a second.
    pub context_switches_per_second: f64,
    /// Read from storage.
    pub read_bytes: u64,
    /// Written to storage.
    pub write_bytes: u64,
    /// Flushes asked of the file system, when they were counted.
    pub flushes: Option<u64>,
}

impl BrokerCost {
    /// What `used` means over `seconds`.
    pub fn new(used: &Usage, seconds: f64) -> Self {
        Self {
            cpu_s: used.cpu_ns as f64 / 1e9,
            cpus: used.cpu_ns as f64 / 1e9 / seconds,
            rss_bytes: used.rss_bytes,
            context_switches_per_second: used.context_switches as f64 / seconds,
            read_bytes: used.read_bytes,
            write_bytes: used.write_bytes,
            flushes: used.flushes,
        }
    }
}

/// One interval of the measured time.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Row {
    /// Its end, seconds from the start of measuring.
    pub at_s: f64,
    /// Acknowledged records a second.
    pub records_per_second: f64,
    /// Their value bytes a second.
    pub bytes_per_second: f64,
    /// Records seen by consumers a second.
    pub consumed_per_second: f64,
    /// Failed batches.
    pub errors: u64,
    /// Response times of what was answered in it.
    pub response_us: Percentiles,
    /// End-to-end times of what was seen in it.
    pub end_to_end_us: Percentiles,
    /// CPUs the broker kept busy.
    pub broker_cpus: Option<f64>,
    /// The broker's resident memory.
    pub broker_rss_bytes: Option<u64>,
}

/// A report and the histograms behind it.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What report.json says.
    pub report: Report,
    /// Intended time -> answer.
    pub response: Latencies,
    /// Bytes handed to the socket -> answer.
    pub service: Latencies,
    /// Intended time -> seen by a consumer.
    pub end_to_end: Latencies,
    /// Response and end to end over time.
    pub history: History,
}

impl Outcome {
    /// The histograms with their names.
    pub fn histograms(&self) -> [(&'static str, &Latencies); 3] {
        [("response", &self.response), ("service", &self.service), ("end_to_end", &self.end_to_end)]
    }

    /// Writes report.html, report.json, omb.json, summary.md, intervals.csv, two pictures, the
    /// histograms and their interval logs.
    pub fn write(&self, folder: &Path) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        write_json(&folder.join("report.json"), &self.report)?;
        write_json(&folder.join("omb.json"), &omb::result(self))?;
        fs::write(folder.join("report.html"), html::run_page(self))?;
        fs::write(folder.join("summary.md"), text::summary(&self.report))?;
        fs::write(folder.join("intervals.csv"), text::intervals(&self.report.intervals))?;
        for (name, chart) in html::pictures(self) {
            fs::write(folder.join(name), chart.standalone())?;
        }
        self.write_interval_logs(folder)?;
        self.write_histograms(folder, "")
    }

    /// Writes response.hlog and end_to_end.hlog, those with samples.
    fn write_interval_logs(&self, folder: &Path) -> io::Result<()> {
        type Of = fn(&Interval) -> &Latencies;
        let logs: [(&str, u64, Of); 2] = [
            ("response.hlog", self.response.count(), |interval| &interval.response),
            ("end_to_end.hlog", self.end_to_end.count(), |interval| &interval.end_to_end),
        ];
        for (name, _, of) in logs.into_iter().filter(|log| log.1 > 0) {
            let mut file = BufWriter::new(fs::File::create(folder.join(name))?);
            Latencies::write_hlog_head(self.history.began_ms, &mut file)?;
            let mut start_s = 0.0;
            for (interval, row) in self.history.intervals.iter().zip(&self.report.intervals) {
                of(interval).write_hlog(start_s, row.at_s - start_s, &mut file)?;
                start_s = row.at_s;
            }
            file.flush()?;
        }
        Ok(())
    }

    /// Writes each histogram that has samples as PREFIXNAME.hgrm.
    pub fn write_histograms(&self, folder: &Path, prefix: &str) -> io::Result<()> {
        for (name, latencies) in self.histograms() {
            if latencies.count() > 0 {
                let path = folder.join(format!("{prefix}{name}.hgrm"));
                let mut file = BufWriter::new(fs::File::create(path)?);
                latencies.write_hgrm(&mut file)?;
                file.flush()?;
            }
        }
        Ok(())
    }
}

/// Takes the files of an earlier report out of a folder.
pub fn clear(folder: &Path) -> io::Result<()> {
    const NAMES: [&str; 8] = [
        "report.html",
        "report.json",
        "omb.json",
        "summary.md",
        "intervals.csv",
        "latency.svg",
        "over-time.svg",
        "throughput.svg",
    ];
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let is_histogram = name.ends_with(".hgrm") || name.ends_with(".hlog");
        if is_histogram || NAMES.contains(&name) {
            fs::remove_file(&path)?;
        }
    }
    match folder.join("at-max") {
        best if best.is_dir() => clear(&best),
        _ => Ok(()),
    }
}

/// Writes a value as indented JSON.
pub fn write_json(path: &Path, value: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_vec_pretty(value)?;
    text.push(b'\n');
    fs::write(path, text)
}
