//! A load by another program, as a check on our own figures: what it costs the broker.

use crate::brokers::{Running, spawn_on};
use crate::cluster::Cluster;
use crate::cost::Meter;
use crate::interrupt;
use crate::plan::Target;
use crate::run::RunError;
use serde::Serialize;
use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(300);

/// What a program did to a broker.
#[derive(Clone, Debug, Default, Serialize)]
pub struct ControlFound {
    /// It ended well and did what it was to do.
    pub valid: bool,
    /// Why not.
    pub invalid_reasons: Vec<String>,
    /// Its start and end included.
    pub seconds: f64,
    /// Records it was to move.
    pub records: u64,
    /// Value bytes of them a second.
    pub bytes_per_second: f64,
    /// Records a second.
    pub records_per_second: f64,
    /// CPU time of the broker per 10^9 value bytes.
    pub broker_cpu_s_per_gb: f64,
    /// CPU time of the broker per record.
    pub broker_cpu_us_per_record: f64,
    /// The last lines it printed.
    pub output: Vec<String>,
}

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Control {
    /// Shell command, given BOOTSTRAP and TOPIC.
    pub command: String,
    /// Records it moves.
    pub records: u64,
    /// Bytes of each value.
    pub record_bytes: u64,
    /// It writes the records, rather than reading what is there.
    pub is_producing: bool,
}

/// Runs the program on these CPUs.
pub fn control(
    control: &Control,
    broker: &Running,
    target: &Target,
    cpus: &[usize],
    folder: &Path,
) -> Result<ControlFound, RunError> {
    let pid = broker.pid.ok_or_else(|| RunError::Options("a control needs a pid".to_owned()))?;
    let mut meter = Meter::of_process(pid).ok_or(RunError::Pid(pid))?;
    let path = folder.join("output.txt");
    let write_error = |source| RunError::Write { path: path.display().to_string(), source };
    let out = fs::File::create(&path).map_err(write_error)?;
    let err = out.try_clone().map_err(write_error)?;
    let mut shell = Command::new("sh");
    shell
        .args(["-euc", &control.command])
        .env("BOOTSTRAP", &broker.address)
        .env("TOPIC", &target.topic)
        .envs(broker.variables())
        .stdin(Stdio::null())
        .stdout(out)
        .stderr(err);
    let (before, start) = (meter.read(), Instant::now());
    let mut child = spawn_on(shell, cpus)?;
    let status = loop {
        if let Ok(Some(status)) = child.try_wait() {
            break status.code();
        }
        if interrupt::is_requested() || start.elapsed() > PATIENCE {
            drop(child.kill());
            drop(child.wait());
            break None;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let (cpu_ns, seconds) = (meter.read().since(&before).cpu_ns, start.elapsed().as_secs_f64());
    let mut invalid_reasons = Vec::new();
    if status != Some(0) {
        let how = status.map_or("was ended".to_owned(), |code| format!("ended with status {code}"));
        invalid_reasons.push(format!("the program {how}"));
    }
    let mut cluster = Cluster::connect(&broker.address)?;
    let there: i64 = target.offsets(&mut cluster, -1)?.values().sum();
    if there.unsigned_abs() != control.records {
        invalid_reasons.push(format!("{there} records are there, not {}", control.records));
    }
    let bytes = control.records * control.record_bytes;
    let text = fs::read_to_string(&path).unwrap_or_default();
    let last = text.lines().rev().take(5).map(str::to_owned).collect::<Vec<String>>();
    Ok(ControlFound {
        valid: invalid_reasons.is_empty(),
        invalid_reasons,
        seconds,
        records: control.records,
        bytes_per_second: bytes as f64 / seconds,
        records_per_second: control.records as f64 / seconds,
        broker_cpu_s_per_gb: cpu_ns as f64 / bytes.max(1) as f64,
        broker_cpu_us_per_record: cpu_ns as f64 / 1e3 / control.records.max(1) as f64,
        output: last.into_iter().rev().collect(),
    })
}
