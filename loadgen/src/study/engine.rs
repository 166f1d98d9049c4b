//! Runs a study: for each row A B A B ..., every result in a file of its own, so that a study that
//! was interrupted goes on where it stopped.

use super::control::{self, Control};
use super::found::{Found, Measured};
use super::{Row, Study, Work, curve, page};
use crate::args::{ConsumeArgs, RunArgs};
use crate::brokers::{BrokerSpec, Running};
use crate::clock::wall_ms;
use crate::cluster::Cluster;
use crate::gather::Live;
use crate::machine::{self, HostCongestion};
use crate::plan::Target;
use crate::report::{Outcome, write_json};
use crate::run::{self, BrokerProcess, RunError, Surroundings};
use crate::{catchup, churn, crash, interrupt, lifecycle};
use serde::Serialize;
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// One load of a warm-up.
const WARM_UP_STEP: Duration = Duration::from_secs(5);

/// A study under way.
pub struct Engine<'a> {
    study: &'a Study,
    out: &'a Path,
    live: Live,
    command: &'a str,
    all_cpus: Vec<usize>,
    /// Brokers that stay up from row to row, warm; empty while rows want their own.
    fleet: Vec<Running>,
    found: Found,
}

/// Measures what the folder does not hold yet; returns everything found.
pub fn run(
    study: &Study,
    out: &Path,
    live: Live,
    command: &str,
    variables: Vec<(String, String)>,
) -> Result<Found, RunError> {
    let mut study = study.clone();
    study.brokers.iter_mut().for_each(|broker| broker.variables.clone_from(&variables));
    let study = &study;
    let all_cpus = machine::usable_cpus();
    fs::create_dir_all(out).map_err(|source| write_error(out, source))?;
    check_folder(study, out)?;
    let wanted = study.host_tcp_congestion.as_deref();
    let congestion = wanted.map(HostCongestion::set).transpose().map_err(|error| {
        RunError::Options(format!("host_tcp_congestion: the host does not take it: {error}"))
    })?;
    let changed = congestion.as_ref().and_then(|c| c.words(wanted.unwrap_or_default()));
    if let Some(words) = &changed {
        live.show(words);
        live.end();
    }
    let mut found = Found::of(study, command);
    found.notes.extend(changed);
    let mut engine = Engine { study, out, live, command, all_cpus, fleet: Vec::new(), found };
    engine.load_finished();
    let done = study.rows.iter().try_for_each(|row| engine.row(row));
    engine.fleet.clear();
    let _ = fs::remove_dir(out.join("brokers"));
    engine.write()?;
    live.end();
    match done {
        // What was found until then is a report, marked partial.
        Ok(()) | Err(RunError::Interrupted) => Ok(engine.found),
        Err(error) => Err(error),
    }
}

/// A folder holds one study.
fn check_folder(study: &Study, out: &Path) -> Result<(), RunError> {
    let path = out.join("study.toml");
    match fs::read_to_string(&path) {
        Ok(text) if text != study.text => Err(RunError::Options(format!(
            "{} holds another study: use another folder",
            out.display()
        ))),
        Ok(_) => Ok(()),
        Err(_) => fs::write(&path, &study.text).map_err(|source| write_error(&path, source)),
    }
}

impl Engine<'_> {
    fn run_folder(&self, row: &Row, broker: usize, repeat: u32) -> PathBuf {
        let broker = self.study.brokers[broker].name.replace(' ', "-");
        self.out.join("runs").join(&row.name).join(format!("{broker}-{}", repeat + 1))
    }

    /// Takes what an earlier call has measured and found valid.
    fn load_finished(&mut self) {
        for row in &self.study.rows {
            for repeat in 0..self.study.repeats_of(row) {
                for broker in 0..self.study.brokers.len() {
                    let path = self.run_folder(row, broker, repeat).join("report.json");
                    let Ok(text) = fs::read(&path) else { continue };
                    // One that was cut off in the middle is made again.
                    let Ok(report) = serde_json::from_slice(&text) else { continue };
                    let measured = Measured::of(&report);
                    if measured.is_usable() {
                        self.found.add(&row.name, broker, repeat, &report);
                    }
                }
            }
        }
    }

    /// Measures what is missing of a row.
    fn row(&mut self, row: &Row) -> Result<(), RunError> {
        let repeats = self.study.repeats_of(row);
        let brokers = self.study.brokers.len();
        let missing: Vec<(u32, usize)> = (0..repeats)
            .flat_map(|repeat| (0..brokers).map(move |broker| (repeat, broker)))
            .filter(|&(repeat, broker)| !self.found.has(&row.name, broker, repeat))
            .filter(|&(_, broker)| {
                !row.work.needs_start() || self.study.brokers[broker].start.is_some()
            })
            .collect();
        let is_wanted = self.study.only.is_empty() || self.study.only.contains(&row.name);
        if !is_wanted || missing.is_empty() || interrupt::is_requested() {
            return Ok(());
        }
        match row.work.wants_fresh_broker() {
            true => self.fleet.clear(),
            false => self.start_fleet()?,
        }
        let topics = self.prepare(row)?;
        for (repeat, broker) in missing {
            if interrupt::is_requested() {
                break;
            }
            let name = &self.study.brokers[broker].name;
            self.live.end();
            self.live.show(&format!("{}: {name}, {} of {repeats}", row.name, repeat + 1));
            self.measure(row, broker, repeat, topics.get(broker))?;
            self.write()?;
        }
        for (running, target) in self.fleet.iter().zip(&topics) {
            Cluster::connect(&running.address)?.delete_topic(&target.topic)?;
        }
        Ok(())
    }

    /// Starts all brokers and warms them up.
    fn start_fleet(&mut self) -> Result<(), RunError> {
        if !self.fleet.is_empty() {
            return Ok(());
        }
        for (place, spec) in self.study.brokers.iter().enumerate() {
            self.live.end();
            self.live.show(&format!("starting {}", spec.name));
            let mut running = self.start(spec, place)?;
            running.wait_until_answering()?;
            if let Some(args) = &spec.fill {
                let args = RunArgs { keep_topic: true, ..self.aimed(args, false, spec, &running) };
                self.fill(&args, &running)?;
            }
            self.warm_up(spec, &running)?;
            self.fleet.push(running);
        }
        Ok(())
    }

    fn start(&self, spec: &BrokerSpec, place: usize) -> Result<Running, RunError> {
        let folder = self.out.join("brokers").join(place.to_string());
        // What a study that was killed has left.
        let _ = fs::remove_dir_all(&folder);
        Running::start(spec, &folder, &self.all_cpus)
    }

    /// Loads a broker with the study's own works, in turns, without keeping the results.
    fn warm_up(&self, spec: &BrokerSpec, running: &Running) -> Result<(), RunError> {
        let start = Instant::now();
        let loads = self.study.rows.iter().filter_map(|row| match &row.work {
            Work::Run(args) => Some((row, args)),
            _ => None,
        });
        let loads: Vec<_> = loads.collect();
        for (row, args) in loads.iter().cycle() {
            if start.elapsed() >= spec.warm_up || interrupt::is_requested() {
                break;
            }
            let left = spec.warm_up.saturating_sub(start.elapsed()).as_secs();
            self.live.end();
            self.live.show(&format!("warming up {}: {left} s to go", spec.name));
            let mut args = self.aimed(args, row.is_durable, spec, running);
            (args.warmup, args.duration) = (Duration::ZERO, WARM_UP_STEP);
            run::run(&args, self.around(running, &args))?;
        }
        Ok(())
    }

    /// The options of a run against a broker.
    fn aimed(
        &self,
        args: &RunArgs,
        is_durable: bool,
        spec: &BrokerSpec,
        running: &Running,
    ) -> RunArgs {
        let mut args = args.clone();
        args.target.bootstrap.clone_from(&running.address);
        args.target.pid = running.pid;
        if args.target.cpus.is_empty() {
            args.target.cpus.clone_from(&self.study.client_cpus);
        }
        if is_durable {
            args.topic_config.extend(spec.durable.iter().cloned());
        }
        args
    }

    fn around(&self, running: &Running, args: &RunArgs) -> Surroundings<'_> {
        let broker = match args.target.count_flushes {
            true => BrokerProcess::from_target(&args.target),
            false => BrokerProcess::from_option(running.pid),
        };
        let (folder, command) = (self.out, self.command);
        Surroundings { broker, live: Live::Silent, folder, command, is_probed: true }
    }

    /// Makes and fills the topics that all repeats of a row read, one for each broker.
    fn prepare(&self, row: &Row) -> Result<Vec<Target>, RunError> {
        let fill = match &row.work {
            Work::Consume(fill, _) => fill,
            Work::Control(fill, control) if !control.is_producing => fill,
            _ => return Ok(Vec::new()),
        };
        let mut topics = Vec::new();
        for (spec, running) in self.study.brokers.iter().zip(&self.fleet) {
            let mut args = self.aimed(fill, row.is_durable, spec, running);
            args.topic = Some(format!("loadgen-study-{}", wall_ms()));
            args.keep_topic = true;
            self.fill(&args, running)?;
            let topic = args.topic.unwrap_or_default();
            let leaders = Cluster::connect(&running.address)?.wait_for_leaders(&topic)?;
            let target = Target { topic, is_made: true, leaders };
            if let Work::Consume(_, args) = &row.work {
                // Into the page cache, and into the JIT.
                catchup::consume(&self.reading(args, running, &target), Live::Silent)?;
            }
            topics.push(target);
        }
        Ok(topics)
    }

    /// Writes what is to be there before something is measured.
    fn fill(&self, args: &RunArgs, running: &Running) -> Result<(), RunError> {
        self.live.end();
        self.live.show(&format!("filling {}", running.name()));
        let filled = run::run(args, self.around(running, args))?.report;
        if filled.errors > 0 || args.records.is_some_and(|n| filled.records_sent < n) {
            let reasons = filled.invalid_reasons.join("; ");
            return Err(RunError::Options(format!("{}: not filled: {reasons}", running.name())));
        }
        Ok(())
    }

    fn reading(&self, args: &ConsumeArgs, running: &Running, target: &Target) -> ConsumeArgs {
        let mut args = args.clone();
        args.target.bootstrap.clone_from(&running.address);
        args.target.pid = running.pid;
        if args.target.cpus.is_empty() {
            args.target.cpus.clone_from(&self.study.client_cpus);
        }
        args.topic.clone_from(&target.topic);
        args
    }

    /// Measures once, again while the result is not valid, and keeps the last one.
    fn measure(
        &mut self,
        row: &Row,
        broker: usize,
        repeat: u32,
        target: Option<&Target>,
    ) -> Result<(), RunError> {
        let folder = self.run_folder(row, broker, repeat);
        fs::create_dir_all(&folder).map_err(|source| write_error(&folder, source))?;
        let mut tries = Vec::new();
        for _ in 0..=self.study.retries {
            let report = match self.once(row, broker, &folder, target) {
                Ok(report) => report,
                Err(RunError::Interrupted) => return Ok(()),
                Err(error) => {
                    if self.fleet.get_mut(broker).is_some_and(|running| !running.is_alive()) {
                        return Err(error);
                    }
                    json!({ "valid": false, "invalid_reasons": [error.to_string()] })
                }
            };
            if interrupt::is_requested() {
                return Ok(());
            }
            let measured = Measured::of(&report);
            let is_last = measured.is_usable();
            tries.push(report);
            if is_last {
                break;
            }
        }
        let mut report = tries.pop().expect("it was tried once");
        let before = tries.iter().map(|report| report["invalid_reasons"].clone());
        report["earlier_tries"] = Value::Array(before.collect());
        write_json(&folder.join("report.json"), &report)
            .map_err(|source| write_error(&folder, source))?;
        self.found.add(&row.name, broker, repeat, &report);
        Ok(())
    }

    fn once(
        &self,
        row: &Row,
        broker: usize,
        folder: &Path,
        target: Option<&Target>,
    ) -> Result<Value, RunError> {
        let spec = &self.study.brokers[broker];
        let _until_the_end = spec.prepare()?;
        rustix::fs::sync();
        std::thread::sleep(self.study.settle);
        match &row.work {
            Work::Run(args) => {
                let running = &self.fleet[broker];
                let args = self.aimed(args, row.is_durable, spec, running);
                let outcome = run::run(&args, self.around(running, &args))?;
                outcome
                    .write_histograms(folder, "")
                    .map_err(|source| write_error(folder, source))?;
                Ok(without_intervals(outcome))
            }
            Work::Consume(_, args) => {
                let running = &self.fleet[broker];
                let target = target.expect("a topic was prepared for each broker");
                let args = self.reading(args, running, target);
                value(&catchup::consume(&args, Live::Silent)?)
            }
            Work::Churn(args) => {
                let (running, mut args) = (&self.fleet[broker], args.clone());
                args.target.bootstrap.clone_from(&running.address);
                args.target.pid = running.pid;
                value(&churn::churn(&args, Live::Silent)?)
            }
            Work::Crash(args) => {
                let mut running = self.start(spec, broker)?;
                running.wait_until_answering()?;
                value(&crash::crash(&mut running, args, Live::Silent)?)
            }
            Work::Control(args, control) => {
                let running = &self.fleet[broker];
                self.control(row, (args, control), (spec, running), folder, target)
            }
            Work::Start => {
                let mut running = self.start(spec, broker)?;
                value(&lifecycle::started(&mut running)?)
            }
            Work::Recover(args) => {
                let mut running = self.start(spec, broker)?;
                running.wait_until_answering()?;
                let cpus = &self.study.client_cpus;
                value(&lifecycle::recover(&mut running, args, cpus, self.out, Live::Silent)?)
            }
            Work::Idle(args) => {
                let mut running = self.start(spec, broker)?;
                running.wait_until_answering()?;
                let mut args = args.clone();
                args.target.bootstrap.clone_from(&running.address);
                args.target.pid = running.pid;
                value(&lifecycle::idle(&args, Live::Silent)?)
            }
        }
    }

    fn control(
        &self,
        row: &Row,
        (args, control): (&RunArgs, &Control),
        (spec, running): (&BrokerSpec, &Running),
        folder: &Path,
        target: Option<&Target>,
    ) -> Result<Value, RunError> {
        let cpus = &self.study.client_cpus;
        if let Some(target) = target {
            return value(&control::control(control, running, target, cpus, folder)?);
        }
        let mut args = self.aimed(args, row.is_durable, spec, running);
        args.topic = Some(format!("loadgen-study-{}", wall_ms()));
        let mut cluster = Cluster::connect(&running.address)?;
        let target = Target::find_or_make(&mut cluster, &args)?;
        let found = control::control(control, running, &target, cpus, folder);
        cluster.delete_topic(&target.topic)?;
        value(&found?)
    }

    /// Writes what is known so far.
    fn write(&mut self) -> Result<(), RunError> {
        self.found.sum_up(self.study);
        let written = write_json(&self.out.join("report.json"), &self.found)
            .and_then(|()| fs::write(self.out.join("report.html"), page::html(&self.found)))
            .and_then(|()| fs::write(self.out.join("results.csv"), page::csv(&self.found)))
            .and_then(|()| fs::write(self.out.join("summary.md"), page::markdown(&self.found)));
        written.and_then(|()| self.write_curves()).map_err(|source| write_error(self.out, source))
    }

    /// Each curve also as a picture of its own, for pages about the study.
    fn write_curves(&self) -> std::io::Result<()> {
        let pictures = curve::pictures(&serde_json::to_value(&self.found)?);
        pictures.into_iter().try_for_each(|(name, svg)| fs::write(self.out.join(name), svg))
    }
}

/// A run's report without its intervals, which a study would repeat a hundred times.
fn without_intervals(outcome: Outcome) -> Value {
    let mut report = outcome.report;
    report.intervals.clear();
    serde_json::to_value(report).unwrap_or_default()
}

fn value(found: &impl Serialize) -> Result<Value, RunError> {
    Ok(serde_json::to_value(found).unwrap_or_default())
}

fn write_error(path: &Path, source: std::io::Error) -> RunError {
    RunError::Write { path: path.display().to_string(), source }
}
