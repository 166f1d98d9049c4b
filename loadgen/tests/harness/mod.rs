//! What every test of whole runs needs: options, a folder, a quiet run.
#![allow(dead_code)]

use crate::fake::Fake;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};
use loadgen::args::RunArgs;
use loadgen::gather::Live;
use loadgen::report::Outcome;
use loadgen::run::{self, BrokerProcess, Surroundings};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A folder that goes away with the test.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let place = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("loadgen-test-{}-{place}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// A broker of this tree inside the test, in a folder of its own.
pub(crate) struct Broker {
    broker: Option<millrace_server::RunningBroker>,
    _folder: Folder,
}

impl Broker {
    pub(crate) fn start() -> Self {
        let folder = Folder::new();
        let data = folder.0.display().to_string();
        let listeners = ("listeners", "PLAINTEXT://127.0.0.1:0");
        let config = millrace_server::config::Config::of([listeners, ("log.dirs", data.as_str())]);
        let broker = millrace_server::start(config.expect("sound settings"));
        Self { broker: Some(broker.expect("it starts")), _folder: folder }
    }

    pub(crate) fn address(&self) -> String {
        let addresses = self.broker.as_ref().map(|broker| broker.addresses());
        addresses.unwrap_or_default().first().expect("it listens").to_string()
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.broker.take().map(|broker| broker.stop());
    }
}

/// 1,000 records a second in batches of 5 for a second.
pub(crate) fn args(fake: &Fake) -> RunArgs {
    args_for(&fake.address())
}

/// The same, of any broker.
pub(crate) fn args_for(bootstrap: &str) -> RunArgs {
    let mut args = RunArgs::with_defaults();
    args.target.bootstrap = bootstrap.to_owned();
    args.partitions = 3;
    args.connections = 2;
    args.record_bytes = 100;
    args.batch_records = 5;
    args.rate = Some(1000.0);
    args.duration = Duration::from_secs(1);
    args.warmup = Duration::from_millis(100);
    args.fetch.fetch_wait_ms = 100;
    args
}

/// The intervals of an .hlog by another reader: start in seconds, samples in nanoseconds.
pub(crate) fn interval_log(text: &str) -> Vec<(f64, Histogram<u64>)> {
    let entries = IntervalLogIterator::new(text.as_bytes()).map(|entry| entry.expect("a log"));
    let intervals = entries.filter_map(|entry| match entry {
        LogEntry::Interval(interval) => Some(interval),
        LogEntry::StartTime(_) | LogEntry::BaseTime(_) => None,
    });
    let decoded = intervals.map(|interval| {
        let bytes = STANDARD.decode(interval.encoded_histogram()).expect("base64");
        let samples = Deserializer::new().deserialize(&mut bytes.as_slice());
        (interval.start_timestamp().as_secs_f64(), samples.expect("V2, compressed"))
    });
    decoded.collect()
}

/// A run with a report that nobody reads but the test.
pub(crate) fn run(args: &RunArgs) -> Outcome {
    let folder = Folder::new();
    let around = Surroundings {
        broker: BrokerProcess::from_target(&args.target),
        live: Live::Silent,
        folder: &folder.0,
        command: "test",
        is_probed: false,
    };
    run::run(args, around).expect("the run ends with a report")
}
