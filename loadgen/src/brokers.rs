//! A broker to measure: one that is there, or one started by a command in a folder of its own.

use crate::args::RunArgs;
use crate::clock::boot_ns;
use crate::cluster::Cluster;
use crate::driver::worker;
use crate::interrupt;
use crate::machine::usable_cpus;
use crate::run::RunError;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use std::fs;
use std::io::{self, Write as _};
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// A broker must answer, or end, within this time.
const PATIENCE: Duration = Duration::from_secs(120);
/// Below the ports that the kernel gives to clients.
const PORTS: std::ops::Range<u16> = 21_000..32_000;
/// Of USER_HZ, which is 100 on every architecture of Linux.
const TICK_NS: u64 = 10_000_000;

/// How to get at a broker.
#[derive(Clone, Debug, Default, Serialize)]
pub struct BrokerSpec {
    /// In tables.
    pub name: String,
    /// What a reader should know: version, settings, what its acks mean.
    pub about: String,
    /// HOST:PORT of one that runs already.
    pub address: Option<String>,
    /// Its process on this host.
    pub pid: Option<u32>,
    /// A shell command that becomes the broker, given PORT, DIR and CPUS.
    pub start: Option<String>,
    /// The command starts the broker in the background and prints its process id last.
    pub prints_pid: bool,
    /// A shell command that prints the version.
    pub version: Option<String>,
    /// CPUs of the broker; empty: all.
    pub cpus: Vec<usize>,
    /// Load before the first measurement.
    #[serde(skip)]
    pub warm_up: Duration,
    /// A run that leaves its topic behind, done once when the broker has started.
    #[serde(skip)]
    pub fill: Option<Box<RunArgs>>,
    /// Configuration of a topic whose acks=all is to wait for the disk.
    pub durable: Vec<String>,
    /// A shell command before each measurement, such as one that changes a setting of the host.
    pub before: Option<String>,
    /// A shell command after it, whatever came of it, such as one that puts the setting back.
    pub after: Option<String>,
    /// For the shell commands; not in reports, which are not to hold paths of a machine.
    #[serde(skip)]
    pub variables: Vec<(String, String)>,
}

impl BrokerSpec {
    /// Runs `before`; `after` follows when the result is dropped.
    pub fn prepare(&self) -> Result<Prepared<'_>, RunError> {
        let prepared = Prepared(self);
        match self.shell(self.before.as_deref()) {
            true => Ok(prepared),
            false => Err(RunError::Options(format!("{}: `before` failed", self.name))),
        }
    }

    fn shell(&self, command: Option<&str>) -> bool {
        let Some(command) = command else { return true };
        let mut shell = Command::new("sh");
        shell.args(["-euc", command]).envs(self.variables.iter().cloned()).stdin(Stdio::null());
        shell.status().is_ok_and(|status| status.success())
    }
}

/// The time of a measurement.
#[derive(Debug)]
pub struct Prepared<'a>(&'a BrokerSpec);

impl Drop for Prepared<'_> {
    fn drop(&mut self) {
        if !self.0.shell(self.0.after.as_deref()) {
            // Nobody reads it where standard error is closed.
            let _ = writeln!(io::stderr(), "{}: `after` failed", self.0.name);
        }
    }
}

/// A broker that answers.
#[derive(Debug)]
pub struct Running {
    spec: BrokerSpec,
    /// HOST:PORT.
    pub address: String,
    /// Its process, if known.
    pub pid: Option<u32>,
    /// When the process began, by [`boot_ns`].
    pub began_ns: u64,
    child: Option<Child>,
    place: Option<Place>,
}

#[derive(Clone, Debug)]
struct Place {
    /// Holds the data folder and what the start command printed.
    folder: PathBuf,
    port: u16,
    /// CPUs to run on.
    cpus: Vec<usize>,
}

impl Running {
    /// Starts a broker for one run by a shell command, in a `folder` that must not exist, and
    /// waits until it answers.
    pub fn start_alone(
        start: &str,
        prints_pid: bool,
        cpus: &[usize],
        folder: &Path,
    ) -> Result<Self, RunError> {
        let spec = BrokerSpec {
            name: "started by --start".to_owned(),
            start: Some(start.to_owned()),
            prints_pid,
            cpus: cpus.to_vec(),
            ..Default::default()
        };
        if folder.exists() {
            let folder = folder.display();
            return Err(RunError::Options(format!("--folder {folder}: it exists already")));
        }
        let mut broker = Self::start(&spec, folder, &usable_cpus())?;
        broker.wait_until_answering()?;
        Ok(broker)
    }

    /// Uses the broker at its address, or starts one in `folder`, which must not exist and goes
    /// away with it. `all_cpus` are those of a broker that names none.
    pub fn start(spec: &BrokerSpec, folder: &Path, all_cpus: &[usize]) -> Result<Self, RunError> {
        if let Some(address) = &spec.address {
            Cluster::connect(address)?;
            return Ok(Self {
                spec: spec.clone(),
                address: address.clone(),
                pid: spec.pid,
                began_ns: 0,
                child: None,
                place: None,
            });
        }
        fs::create_dir_all(folder.join("data")).map_err(|source| write_error(folder, source))?;
        // The data folder is named to programs that may stand elsewhere.
        let folder = folder.canonicalize().map_err(|source| write_error(folder, source))?;
        let cpus = if spec.cpus.is_empty() { all_cpus } else { &spec.cpus };
        let place = Place { folder, port: free_port()?, cpus: cpus.to_vec() };
        let mut running = Self {
            spec: spec.clone(),
            address: format!("127.0.0.1:{}", place.port),
            pid: None,
            began_ns: 0,
            child: None,
            place: Some(place),
        };
        running.launch()?;
        Ok(running)
    }

    /// Starts the broker again in its folder; it must have ended.
    pub fn launch(&mut self) -> Result<(), RunError> {
        let (Some(command), Some(place)) = (&self.spec.start, &self.place) else {
            return Err(RunError::Options(format!("{} has no start command", self.spec.name)));
        };
        let cpus: Vec<String> = place.cpus.iter().map(ToString::to_string).collect();
        let file = |name: &str| {
            let path = place.folder.join(name);
            let opened = fs::File::options().create(true).append(true).open(&path);
            opened.map_err(|source| write_error(&path, source))
        };
        let mut shell = Command::new("sh");
        shell
            .args(["-euc", command])
            .env("PORT", place.port.to_string())
            .env("DIR", place.folder.join("data"))
            .env("CPUS", cpus.join(","))
            .envs(self.spec.variables.iter().cloned())
            .stdin(Stdio::null())
            .stdout(file("out")?)
            .stderr(file("err")?)
            // Ctrl-C is for loadgen, which then stops the broker.
            .process_group(0);
        let began_ns = boot_ns();
        let spawned = spawn_on(shell, &place.cpus)?;
        self.began_ns = began_ns;
        self.pid = Some(spawned.id());
        self.child = Some(spawned);
        if self.spec.prints_pid {
            self.take_printed_pid()?;
        }
        Ok(())
    }

    fn take_printed_pid(&mut self) -> Result<(), RunError> {
        let child = self.child.take();
        let status = child.map(|mut child| wait_for_exit(&mut child));
        let Some(Some(0)) = status else { return Err(self.failed("its start command failed")) };
        let out = self.place.as_ref().map(|place| place.folder.join("out")).unwrap_or_default();
        let text = fs::read_to_string(out).unwrap_or_default();
        let pid = text.lines().next_back().and_then(|line| line.trim().parse().ok());
        let began_ns = pid.and_then(began_ns);
        let (Some(pid), Some(began_ns)) = (pid, began_ns) else {
            return Err(self.failed("its start command printed no process id"));
        };
        (self.pid, self.began_ns) = (Some(pid), began_ns);
        Ok(())
    }

    /// Waits for the first Metadata answer that names a broker; returns when it came.
    pub fn wait_until_answering(&mut self) -> Result<u64, RunError> {
        if self.place.is_none() {
            // It has been connected to.
            return Ok(boot_ns());
        }
        let start = Instant::now();
        loop {
            let asked = Cluster::connect(&self.address).map(|cluster| cluster.broker_count());
            if asked.is_ok_and(|brokers| brokers > 0) {
                return Ok(boot_ns());
            }
            if !self.is_alive() {
                return Err(self.failed("it ended before it answered"));
            }
            if interrupt::is_requested() {
                return Err(RunError::Interrupted);
            }
            if start.elapsed() > PATIENCE {
                return Err(self.failed("it did not answer"));
            }
            let pause = start.elapsed() / 200;
            thread::sleep(pause.clamp(Duration::from_micros(200), Duration::from_millis(5)));
        }
    }

    /// Whether its process is there; true when unknown.
    pub fn is_alive(&mut self) -> bool {
        match (&mut self.child, self.pid) {
            (Some(child), _) => matches!(child.try_wait(), Ok(None)),
            (None, Some(pid)) => is_running(pid),
            (None, None) => true,
        }
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// For the shell commands.
    pub fn variables(&self) -> Vec<(String, String)> {
        self.spec.variables.clone()
    }

    /// Sends a signal to a broker that was started here.
    pub fn signal(&self, signal: Signal) {
        let pid = self.pid.filter(|_| self.place.is_some());
        if let Some(pid) = pid.and_then(|pid| Pid::from_raw(pid.cast_signed())) {
            // One that has ended already needs none.
            let _ = kill_process(pid, signal);
        }
    }

    /// Kills it and waits for its end.
    pub fn kill(&mut self) -> Result<(), RunError> {
        self.signal(Signal::KILL);
        self.wait_for_end()
    }

    fn wait_for_end(&mut self) -> Result<(), RunError> {
        let start = Instant::now();
        while self.is_alive() {
            if start.elapsed() > PATIENCE {
                return Err(self.failed("it did not end"));
            }
            thread::sleep(Duration::from_millis(1));
        }
        self.child = None;
        Ok(())
    }

    fn failed(&self, what: &str) -> RunError {
        let tail = |name: &str| {
            let path = self.place.as_ref().map(|place| place.folder.join(name));
            let text = path.and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
            let lines: Vec<&str> = text.lines().rev().take(3).collect();
            lines.into_iter().rev().map(|line| format!("\n  {line}")).collect::<String>()
        };
        let (name, out, err) = (&self.spec.name, tail("out"), tail("err"));
        RunError::Options(format!("broker {name}: {what}{out}{err}"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.place.is_none() {
            return;
        }
        self.signal(Signal::TERM);
        if self.wait_for_end().is_err() {
            self.signal(Signal::KILL);
            let _ = self.wait_for_end();
        }
        if let Some(place) = &self.place {
            let _ = fs::remove_dir_all(&place.folder);
        }
    }
}

/// Spawns from a thread on these CPUs, which the process inherits.
pub fn spawn_on(mut command: Command, cpus: &[usize]) -> Result<Child, RunError> {
    let cpus = cpus.to_vec();
    let spawned = thread::spawn(move || {
        worker::pin(&cpus)?;
        command.spawn().map_err(|error| RunError::Options(format!("sh: {error}")))
    });
    spawned.join().expect("a panic of a thread ends the program")
}

/// The exit code of a child that ends in time.
pub fn wait_for_exit(child: &mut Child) -> Option<i32> {
    let start = Instant::now();
    loop {
        if let Ok(Some(status)) = child.try_wait() {
            return status.code();
        }
        if start.elapsed() > PATIENCE {
            drop(child.kill());
            return None;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Variables for shell commands, from NAME=VALUE.
pub fn variables(set: &[String]) -> Result<Vec<(String, String)>, String> {
    let pair = |text: &String| {
        let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty())?;
        Some((name.to_owned(), value.to_owned()))
    };
    let pairs = set.iter().map(|text| pair(text).ok_or(format!("--set {text}: not NAME=VALUE")));
    pairs.collect()
}

/// The output of a short shell command, in one line.
pub fn output_of(command: &str, variables: &[(String, String)]) -> Option<String> {
    let mut shell = Command::new("sh");
    shell.args(["-euc", command]).envs(variables.iter().cloned());
    let done = shell.stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&done.stdout).trim().replace('\n', "; ");
    (done.status.success() && !text.is_empty()).then_some(text)
}

fn free_port() -> Result<u16, RunError> {
    // Some brokers also use the port after theirs.
    let mut random = fastrand::Rng::new();
    let is_free = |port: u16| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let mut tried = (0..100).map(|_| random.u16(PORTS) & !1);
    let free = tried.find(|&port| is_free(port) && is_free(port + 1));
    free.ok_or_else(|| RunError::Options("no free port for a broker".to_owned()))
}

/// The fields of /proc/PID/stat from the state on.
fn stat(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    Some(stat.rsplit_once(") ")?.1.to_owned())
}

fn is_running(pid: u32) -> bool {
    stat(pid).is_some_and(|stat| !stat.starts_with(['Z', 'X']))
}

/// When a process began, to a tick.
fn began_ns(pid: u32) -> Option<u64> {
    let ticks: u64 = stat(pid)?.split(' ').nth(19)?.parse().ok()?;
    Some(ticks * TICK_NS)
}

fn write_error(path: &Path, source: std::io::Error) -> RunError {
    RunError::Write { path: path.display().to_string(), source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_began_after_the_boot_and_before_now() {
        let began_ns = began_ns(std::process::id()).expect("this process is there");
        assert!(began_ns > 0 && began_ns <= boot_ns());
        assert!(is_running(std::process::id()) && !is_running(u32::MAX));
    }

    #[test]
    fn what_is_set_before_a_measurement_is_put_back_after_it() {
        let file = std::env::temp_dir().join(format!("loadgen-setting-{}", std::process::id()));
        let setting = || fs::read_to_string(&file).expect("it was set");
        let command = |value: &str| Some(format!("echo {value} > \"$FILE\""));
        let mut spec = BrokerSpec {
            before: command("new"),
            after: command("old"),
            variables: vec![("FILE".to_owned(), file.display().to_string())],
            ..Default::default()
        };
        let prepared = spec.prepare().expect("the shell writes");
        assert_eq!(setting(), "new\n");
        drop(prepared);
        assert_eq!(setting(), "old\n");
        // Half of it may have been done.
        spec.before = command("half").map(|command| command + "; false");
        assert!(spec.prepare().expect_err("it fails").to_string().contains("`before` failed"));
        assert_eq!(setting(), "old\n");
        fs::remove_file(&file).expect("it is ours");
    }

    #[test]
    fn a_command_that_fails_is_told_with_what_it_printed() {
        let folder = std::env::temp_dir().join(format!("loadgen-brokers-{}", std::process::id()));
        let cpus = usable_cpus();
        let rows = [
            ("echo no such disk >&2; exit 3", false, "ended before it answered\n  no such disk"),
            ("exec $LOADGEN_NOT_SET", false, "ended before it answered\n  sh:"),
            ("echo started", true, "printed no process id\n  started"),
            ("exit 1", true, "start command failed"),
        ];
        for (start, prints_pid, words) in rows {
            let start = Some(start.to_owned());
            let spec = BrokerSpec { name: "b".to_owned(), start, prints_pid, ..Default::default() };
            let started = Running::start(&spec, &folder, &cpus)
                .and_then(|mut running| running.wait_until_answering());
            let error = started.expect_err(words).to_string();
            assert!(error.contains(words), "{error}");
            assert!(!folder.exists(), "its folder goes away");
        }
    }
}
