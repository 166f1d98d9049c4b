//! The broker the tests talk to: the real `millrace` program with an empty data folder on a free
//! port, or one that is already running, named by MILLRACE_TEST_BOOTSTRAP.

use std::env;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

/// Generous because a loaded machine is not a fault; a ready broker is seen at once.
const READY_WITHIN: Duration = Duration::from_secs(20);
const STOPPED_WITHIN: Duration = Duration::from_secs(20);
const POLL_EVERY: Duration = Duration::from_millis(5);

/// A broker under test. Dropping it ends the process and removes its data folder, unless the
/// test failed: then the folder stays for inspection.
pub(crate) struct Broker {
    bootstrap: String,
    own: Option<Own>,
}

struct Own {
    process: Child,
    folder: PathBuf,
    overrides: Vec<String>,
}

impl Broker {
    /// Starts `millrace` with `overrides` (`key=value`; `{folder}` is a folder of its own), or
    /// takes the one that is running.
    pub(crate) fn start(overrides: &[&str]) -> Self {
        if let Ok(bootstrap) = env::var("MILLRACE_TEST_BOOTSTRAP") {
            return Self { bootstrap, own: None };
        }
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"))
            .join(format!("broker-{}-{number}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).expect("the target folder is writable");
        let bootstrap = format!("127.0.0.1:{}", free_port());
        let named = |pair: &&str| pair.replace("{folder}", &folder.display().to_string());
        let overrides: Vec<String> = overrides.iter().map(named).collect();
        let process = spawn(&bootstrap, &folder, &overrides);
        let mut broker = Self { bootstrap, own: Some(Own { process, folder, overrides }) };
        broker.wait_until_ready();
        broker
    }

    /// `host:port` for clients.
    pub(crate) fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// Whether the test may stop and start it.
    pub(crate) fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// The data folder of an own broker.
    pub(crate) fn data_folder(&self) -> PathBuf {
        self.own().folder.join("data")
    }

    /// Resident bytes of an own broker.
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.own().process.id()))
            .expect("the broker is running");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS is there");
        let kib = line.split_whitespace().nth(1).expect("VmRSS has a number");
        kib.parse::<u64>().expect("VmRSS is a number of KiB") * 1024
    }

    /// Whether an own broker still runs; a broker that ended prints why in its log.
    pub(crate) fn is_running(&mut self) -> bool {
        self.own_mut().process.try_wait().expect("the child can be waited for").is_none()
    }

    /// Does something while the broker stands still.
    pub(crate) fn while_paused(&self, act: impl FnOnce()) {
        self.signal("-STOP");
        act();
        self.signal("-CONT");
    }

    /// SIGTERM, and the same data folder and port again. The exit status must be 0.
    pub(crate) fn restart_cleanly(&mut self) {
        self.restart_cleanly_after(|_| {});
    }

    /// SIGTERM, something done to the data folder, and a start.
    pub(crate) fn restart_cleanly_after(&mut self, act: impl FnOnce(&Path)) {
        let status = self.stop("-TERM");
        assert!(status.success(), "a clean stop exits 0, not {status}; log:\n{}", self.log());
        act(&self.data_folder());
        self.start_again();
    }

    /// SIGKILL, and the same data folder and port again.
    pub(crate) fn restart_after_kill(&mut self) {
        if self.is_running() {
            self.stop("-KILL");
        }
        self.start_again();
    }

    /// SIGKILL, and a start that ends by itself; what it printed.
    pub(crate) fn refusal_after_kill(&mut self) -> String {
        if self.is_running() {
            self.stop("-KILL");
        }
        let before = self.log().len();
        let bootstrap = self.bootstrap.clone();
        let own = self.own_mut();
        own.process = spawn(&bootstrap, &own.folder, &own.overrides);
        let status = own.process.wait().expect("it is our child");
        assert!(!status.success(), "the start was to be refused; log:\n{}", self.log());
        self.log()[before..].to_owned()
    }

    /// Sets one more key from the next start on, as [`Broker::start`].
    pub(crate) fn set(&mut self, pair: &str) {
        let own = self.own_mut();
        own.overrides.push(pair.replace("{folder}", &own.folder.display().to_string()));
    }

    /// What the broker printed.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.own().folder.join("log")).unwrap_or_default()
    }

    fn own(&self) -> &Own {
        self.own.as_ref().expect("only asked of an own broker")
    }

    fn own_mut(&mut self) -> &mut Own {
        self.own.as_mut().expect("only asked of an own broker")
    }

    fn signal(&self, signal: &str) {
        let id = self.own().process.id().to_string();
        let sent = Command::new("kill").args([signal, &id]).status().expect("kill is installed");
        assert!(sent.success(), "kill {signal} {id} failed; log:\n{}", self.log());
    }

    fn stop(&mut self, signal: &str) -> ExitStatus {
        self.signal(signal);
        let end = Instant::now() + STOPPED_WITHIN;
        loop {
            if let Some(status) = self.own_mut().process.try_wait().expect("it is our child") {
                return status;
            }
            assert!(Instant::now() < end, "did not stop on {signal}; log:\n{}", self.log());
            thread::sleep(POLL_EVERY);
        }
    }

    fn start_again(&mut self) {
        let bootstrap = self.bootstrap.clone();
        let own = self.own_mut();
        own.process = spawn(&bootstrap, &own.folder, &own.overrides);
        self.wait_until_ready();
    }

    fn wait_until_ready(&mut self) {
        let end = Instant::now() + READY_WITHIN;
        while !answers_api_versions(&self.bootstrap) {
            assert!(self.is_running(), "the broker ended; log:\n{}", self.log());
            assert!(Instant::now() < end, "the broker is not ready; log:\n{}", self.log());
            thread::sleep(POLL_EVERY);
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let Some(own) = &mut self.own else { return };
        // An already ended process is fine here.
        let _ = own.process.kill();
        let _ = own.process.wait();
        if thread::panicking() {
            eprintln!("kept for inspection: {}", own.folder.display());
        } else {
            let _ = fs::remove_dir_all(&own.folder);
        }
    }
}

fn spawn(bootstrap: &str, folder: &Path, overrides: &[String]) -> Child {
    let log = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .expect("the folder was made");
    let mut command = Command::new(program());
    command.arg("serve");
    command.args(["--override", &format!("listeners=PLAINTEXT://{bootstrap}")]);
    command.args(["--override", &format!("log.dirs={}", folder.join("data").display())]);
    // New groups join at once: the delay only makes the tests slow.
    command.args(["--override", "group.initial.rebalance.delay.ms=0"]);
    for pair in overrides {
        command.args(["--override", pair]);
    }
    command
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file descriptor is left"))
        .stderr(log)
        .spawn()
        .expect("cargo built the program")
}

/// The program cargo built for the tests, or another build of it, named by MILLRACE_TEST_PROGRAM.
pub(crate) fn program() -> PathBuf {
    let built = || env!("CARGO_BIN_EXE_millrace").into();
    env::var_os("MILLRACE_TEST_PROGRAM").unwrap_or_else(built).into()
}

pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    listener.local_addr().expect("it is bound").port()
}

pub(crate) fn answers_api_versions(bootstrap: &str) -> bool {
    // Length 10, key 18 version 0, correlation 7, null client id.
    const REQUEST: &[u8] = &[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff];
    let Ok(mut stream) = TcpStream::connect(bootstrap) else { return false };
    let mut answer = [0_u8; 10];
    stream.set_read_timeout(Some(Duration::from_secs(2))).expect("not zero");
    stream.write_all(REQUEST).is_ok()
        && stream.read_exact(&mut answer).is_ok()
        && answer[4..] == [0, 0, 0, 7, 0, 0]
}
