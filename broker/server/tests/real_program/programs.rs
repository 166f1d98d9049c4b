//! Client programs of other languages: found where `clients/setup` put them, run, and judged by
//! their exit status.

use std::env;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::process::Broker;

const PROGRAM_WITHIN: Duration = Duration::from_secs(180);

/// A program of `tests/clients`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Program {
    /// A file of `clients/python`, run in the environment of that name.
    Python { environment: &'static str, file: &'static str },
    /// A class of `clients/java`, with the jars of that line of releases.
    Java { line: &'static str, class: &'static str },
    /// A file of `clients/node`.
    Node { file: &'static str },
    /// A module of `clients/go`, or the package `rust`.
    Compiled { name: &'static str },
}

/// One topic prefix and time base; programs of the same run find each other's records.
pub(crate) struct Run<'a> {
    broker: &'a Broker,
    prefix: String,
    base_ms: u128,
}

impl<'a> Run<'a> {
    pub(crate) fn new(broker: &'a Broker) -> Self {
        Self::at(broker, Names::fresh())
    }

    /// A run that goes on with the names of an earlier one.
    pub(crate) fn at(broker: &'a Broker, names: Names) -> Self {
        Self { broker, prefix: names.prefix, base_ms: names.base_ms }
    }

    /// Runs the phases one after another in one process; panics with its output if one fails.
    pub(crate) fn phases(&self, program: Program, phases: &[&str]) {
        let mut command = program.command();
        command.arg(self.broker.bootstrap()).arg(&self.prefix).arg(self.base_ms.to_string());
        command.args(phases);
        if self.broker.is_own() {
            command.env("MILLRACE_TEST_DATA", self.broker.data_folder());
        }
        run_to_end(command, &format!("{program:?} {phases:?}"), self.broker);
    }
}

/// What identifies a run: a prefix no other run has, and times ten minutes in the past, so that
/// no record lies in the future or beyond a retention time.
#[derive(Clone)]
pub(crate) struct Names {
    prefix: String,
    base_ms: u128,
}

impl Names {
    pub(crate) fn fresh() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
        Self {
            prefix: format!("t{}-{}-{number}", now.as_secs(), std::process::id()),
            base_ms: now.as_millis() - 600_000,
        }
    }
}

impl Names {
    /// Another prefix with the same times.
    pub(crate) fn beside(&self) -> Self {
        Self { prefix: Self::fresh().prefix, base_ms: self.base_ms }
    }

    /// A topic of this run.
    pub(crate) fn topic(&self, name: &str) -> String {
        format!("{}-{name}", self.prefix)
    }
}

impl Program {
    /// Whether its runtime was set up. A missing one fails in CI and is reported elsewhere.
    pub(crate) fn is_ready(self) -> bool {
        let part = match self {
            Self::Python { environment, .. } => environment.to_owned(),
            Self::Java { line, .. } => format!("java-{line}/classes"),
            Self::Node { .. } => "node".to_owned(),
            Self::Compiled { name } => name.to_owned(),
        };
        let ready = target().join(&part).join(".stamp").exists();
        if !ready {
            let what = format!("skipped: no {part} (run broker/server/tests/clients/setup)");
            assert!(env::var_os("CI").is_none(), "{what}");
            eprintln!("{what}");
        }
        ready
    }

    fn command(self) -> Command {
        match self {
            Self::Python { environment, file } => {
                let mut command = Command::new(target().join(environment).join("bin/python"));
                command.arg("-B").arg(sources().join("python").join(file));
                command
            }
            Self::Java { line, class } => {
                let folder = target().join(format!("java-{line}"));
                let path = format!("{0}/classes:{0}/lib/*", folder.display());
                let mut command = Command::new("java");
                // Short runs: the quick compiler and the small collector start fastest.
                command.args(["-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC", "-cp"]);
                command.arg(path).arg(class);
                command
            }
            Self::Node { file } => {
                let mut command = Command::new("node");
                command.env("NODE_PATH", target().join("node/node_modules"));
                command.arg(sources().join("node").join(file));
                command
            }
            Self::Compiled { name } => Command::new(target().join(name).join("program")),
        }
    }
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// Where `setup` installs: `clients` in cargo's target folder.
fn target() -> &'static Path {
    static TARGET: OnceLock<PathBuf> = OnceLock::new();
    TARGET.get_or_init(|| {
        let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
        tmp.parent().expect("target/tmp has a parent").join("clients")
    })
}

fn run_to_end(mut command: Command, what: &str, broker: &Broker) {
    let started = Instant::now();
    let output = env::temp_dir().join(format!("millrace-client-{}", Names::fresh().prefix));
    let file = std::fs::File::create(&output).expect("the temporary folder is writable");
    let mut child = command
        .stdin(Stdio::null())
        .stdout(file.try_clone().expect("a file descriptor is left"))
        .stderr(file)
        .spawn()
        .unwrap_or_else(|error| panic!("{what} cannot be started: {error}"));
    let status = loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            break Some(status);
        }
        if started.elapsed() > PROGRAM_WITHIN {
            child.kill().expect("it is our child");
            child.wait().expect("it is our child");
            break None;
        }
        thread::sleep(Duration::from_millis(10));
    };
    let text = std::fs::read_to_string(&output).unwrap_or_default();
    let _ = std::fs::remove_file(&output);
    let log = if broker.is_own() { broker.log() } else { String::new() };
    let took = started.elapsed();
    match status {
        Some(status) if status.success() => println!("{what}: {took:.1?}"),
        Some(status) => panic!("{what}: {status} after {took:.1?}\n{text}\nbroker's log:\n{log}"),
        None => panic!("{what}: still running after {took:.1?}\n{text}\nbroker's log:\n{log}"),
    }
}
