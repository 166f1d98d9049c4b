//! Brokers that are processes of their own: killed, frozen, started again, left alone, studied.

mod fake;
mod harness;

use harness::Folder;
use loadgen::args::{Cli, Command as Asked};
use loadgen::crash::{self, CrashFound};
use loadgen::gather::Live;
use loadgen::lifecycle::{self, IdleFound, RecoverFound};
use millrace_server::config::Config;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What starts a broker of this tree: this very program.
fn start_command(before: &str) -> String {
    let program = std::env::current_exe().expect("it has a path");
    let program = program.display();
    format!("{before} exec '{program}' a_broker_of_its_own --exact --ignored --nocapture")
}

#[test]
#[ignore = "not a test: the broker that the others start, given PORT and DIR"]
fn a_broker_of_its_own() {
    let (Ok(port), Ok(folder)) = (std::env::var("PORT"), std::env::var("DIR")) else { return };
    let listeners = format!("PLAINTEXT://127.0.0.1:{port}");
    let config = Config::of([("listeners", listeners.as_str()), ("log.dirs", folder.as_str())]);
    let _broker = millrace_server::start(config.expect("sound settings")).expect("it starts");
    std::thread::park();
}

fn parse(words: &[&str]) -> Asked {
    use clap::Parser;
    let all = ["loadgen"].into_iter().chain(words.iter().copied());
    Cli::try_parse_from(all).expect("options that exist").command
}

fn crash_with(start: &str, options: &[&str]) -> CrashFound {
    let folder = Folder::new();
    let place = folder.0.join("broker").display().to_string();
    let words = ["crash", "--start", start, "--folder", &place, "--duration", "2s"];
    let Asked::Crash(mut args) = parse(&[&words[..], options].concat()) else { panic!("crash") };
    (args.rate, args.record_bytes) = (1_000.0, 100);
    crash::crash_alone(&args, Live::Silent).expect("the broker starts")
}

#[test]
fn killed_and_frozen_brokers_keep_what_they_acknowledged() {
    let found = crash_with(&start_command(""), &["--rounds", "4", "--failing", "both"]);
    assert!(found.valid, "{:?}", found.invalid_reasons);
    assert_eq!(found.rounds.len(), 4);
    for level in &found.levels {
        assert_eq!(level.rounds, 2, "{level:?}");
        let is = &level.integrity;
        assert_eq!((is.lost, is.altered, is.misplaced, is.invented), (0, 0, 0, 0), "{is:?}");
        // What was under way, or due while the broker was away, may be there or not.
        assert!(is.verified > 0 && is.verified <= level.records_sent, "{level:?}");
        assert!(is.verified + is.uncertain >= level.records_sent, "{level:?}");
    }
    assert!(crash::words(&found).contains("first ack again"));
}

#[test]
fn a_broker_that_forgets_when_it_is_killed_is_found_out() {
    let forget = "rm -rf \"$DIR\"/loadgen-crash-[0-9]*;";
    let found = crash_with(&start_command(forget), &["--rounds", "1"]);
    assert!(!found.valid && found.levels[0].integrity.lost > 0, "{:?}", found.rounds);
    assert!(found.invalid_reasons[0].contains("lost"), "{:?}", found.invalid_reasons);
}

fn recover_with(before: &str) -> Result<RecoverFound, String> {
    let folder = Folder::new();
    let place = folder.0.join("broker").display().to_string();
    let start = start_command(before);
    let words = ["recover", "--start", &start, "--folder", &place, "--fill-bytes", "1000000"];
    let Asked::Recover(args) = parse(&words) else { panic!("recover") };
    lifecycle::recover_alone(&args, Live::Silent).map_err(|error| error.to_string())
}

#[test]
fn a_killed_broker_is_started_again_and_what_it_had_is_counted() {
    let found = recover_with("").expect("it comes back");
    assert!(found.valid, "{:?}", found.invalid_reasons);
    assert!(found.records_acknowledged > 0 && found.filled_bytes >= 1_000_000, "{found:?}");
    assert!(found.records_found > found.records_acknowledged, "{found:?}");
    assert!(found.kill_to_ack_ms >= found.start_to_ack_ms && found.start_to_ack_ms > 0.0);
}

/// A process that is ended with the test.
struct Busy(Child);

impl Drop for Busy {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn idle_of(pid: u32, address: &str, partitions: &str) -> IdleFound {
    let pid = pid.to_string();
    let words = ["idle", "--bootstrap", address, "--pid", &pid, "--partitions", partitions];
    let times = ["--settle", "1ms", "--duration", "600ms"];
    let Asked::Idle(args) = parse(&[&words[..], &times].concat()) else { panic!("idle") };
    lifecycle::idle(&args, Live::Silent).expect("the process is there")
}

#[test]
fn an_idle_process_is_told_from_a_busy_one() {
    let mut responder = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    responder.args(["respond", "--listen", "127.0.0.1:0"]).stdout(Stdio::piped());
    let mut responder = responder.spawn().map(Busy).expect("it can be started");
    let mut said = BufReader::new(responder.0.stdout.take().expect("it is piped"));
    let mut line = String::new();
    said.read_line(&mut line).expect("text");
    let address = line.trim().strip_prefix("listening on ").expect("where it listens");
    let quiet = idle_of(responder.0.id(), address, "0");
    // This process listens, too, and has a thread that turns.
    let (fake, is_over) = (fake::Fake::start(fake::Fault::None), AtomicBool::new(false));
    let busy = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                std::hint::spin_loop();
            }
        });
        let busy = idle_of(std::process::id(), &fake.address(), "7");
        is_over.store(true, Ordering::Relaxed);
        busy
    });
    assert!(quiet.valid && busy.valid && busy.partitions == 7);
    assert!(quiet.seconds >= 0.6 && quiet.rss_mib > 0.0);
    // Whatever else runs, a busy loop gets more of a CPU than one that sleeps.
    assert!(busy.cpu_percent > 1.0, "{busy:?}");
    assert!(quiet.cpu_percent < busy.cpu_percent / 10.0, "{quiet:?} {busy:?}");
}

fn json(path: &Path) -> Value {
    let text = std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).expect("JSON")
}

/// Reasons that a loaded host gives; every other one is a fault.
fn is_of_the_host(reason: &str) -> bool {
    ["client", "CPUs busy", "took", "left"].iter().any(|word| reason.contains(word))
}

#[test]
fn the_smoke_study_does_every_kind_of_work_and_counts_right() {
    let folder = Folder::new();
    let out = folder.0.join("out");
    let study = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/smoke.toml");
    let done = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["study", study, "--out"])
        .arg(&out)
        .env("BROKER", std::env::current_exe().expect("it has a path"))
        .env("LOADGEN", env!("CARGO_BIN_EXE_loadgen"))
        .env("SCRATCH", &folder.0)
        .output()
        .expect("it can be started");
    let said = String::from_utf8_lossy(&done.stderr);
    // 0 valid, 2 not valid, which only the host may be the reason of.
    assert!(matches!(done.status.code(), Some(0 | 2)), "{:?}: {said}", done.status);
    // A pipe gets plain lines, one after the other.
    assert!(!said.contains(['\r', '\x1b']) && said.contains("idle: Millrace, 1 of 1\n"), "{said}");
    let mut runs = Vec::new();
    for row in std::fs::read_dir(out.join("runs")).expect("rows were measured").flatten() {
        let report = json(&row.path().join("Millrace-1/report.json"));
        let reasons = report["invalid_reasons"].as_array().expect("a list").clone();
        let faults = reasons.iter().filter(|r| !is_of_the_host(r.as_str().unwrap_or_default()));
        let faults: Vec<&Value> = faults.collect();
        let name = row.file_name().to_string_lossy().into_owned();
        assert!(faults.is_empty(), "{name}: {faults:?}");
        if report["records_sent"].is_u64() {
            assert_eq!(report["records_verified"], report["records_sent"], "{name}");
            assert_eq!(report["errors"], 0, "{name}");
        }
        runs.push((name, report));
    }
    assert_eq!(runs.len(), 6 + 7, "{:?}", runs.iter().map(|run| &run.0).collect::<Vec<_>>());
    let of = |name: &str| {
        let run = runs.iter().find(|run| run.0 == name);
        &run.unwrap_or_else(|| panic!("{name} was measured")).1
    };
    for acks in ["0", "1", "all"] {
        for (batch, sent) in [(1, 2_000), (100, 2_000)] {
            let report = of(&format!("produce,acks={acks},batch-records={batch}"));
            assert_eq!(report["records_sent"], sent, "acks {acks}, batches of {batch}");
            assert_eq!(report["records_per_batch"], f64::from(batch));
        }
    }
    assert_eq!(
        (of("consume")["records"].as_u64(), of("control")["valid"].as_bool()),
        (Some(6_000), Some(true))
    );
    let summary = std::fs::read_to_string(out.join("summary.md")).expect("it was written");
    assert!(summary.contains("| consume |") && summary.contains("Millrace"), "{summary}");
}

/// `loadgen run` against a broker that has all the time in the world, ended by Ctrl-C.
#[test]
fn ctrl_c_leaves_a_report_that_says_partial() {
    let (fake, folder) = (fake::Fake::start(fake::Fault::None), Folder::new());
    let out = folder.0.join("report");
    let mut child = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["run", "--bootstrap", &fake.address(), "--rate", "1000", "--warmup", "0s"])
        .args(["--duration", "10m", "--out"])
        .arg(&out)
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("it can be started");
    while fake.counts().requests < 3 {
        std::thread::sleep(Duration::from_millis(10));
    }
    let pid = Pid::from_raw(child.id().cast_signed()).expect("a child has an id");
    kill_process(pid, Signal::INT).expect("it is there");
    assert_eq!(child.wait().expect("it ends").code(), Some(2));
    let report = json(&out.join("report.json"));
    assert_eq!((&report["partial"], &report["valid"]), (&Value::Bool(true), &Value::Bool(false)));
    assert_eq!(report["records_verified"], report["records_sent"]);
    assert!(std::fs::read_to_string(out.join("report.html")).expect("html").contains("partial"));
}

/// What was due while the client itself stood still is its own fault, and so is what waits behind
/// that for the broker.
#[test]
fn a_client_that_was_stopped_does_not_blame_the_broker() {
    let slow = fake::Fault::Delay(Duration::from_millis(5));
    let (fake, folder) = (fake::Fake::start(slow), Folder::new());
    let out = folder.0.join("report");
    let mut child = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["run", "--bootstrap", &fake.address(), "--rate", "100", "--warmup", "0s"])
        .args(["--batch-records", "1", "--inflight", "1", "--duration", "4s", "--out"])
        .arg(&out)
        .stderr(Stdio::null())
        .stdout(Stdio::null())
        .spawn()
        .expect("it can be started");
    while fake.counts().requests < 10 {
        std::thread::sleep(Duration::from_millis(10));
    }
    let pid = Pid::from_raw(child.id().cast_signed()).expect("a child has an id");
    for (signal, pause) in [(Signal::STOP, 1_000), (Signal::CONT, 0)] {
        kill_process(pid, signal).expect("it is there");
        std::thread::sleep(Duration::from_millis(pause));
    }
    assert_eq!(child.wait().expect("it ends").code(), Some(2));
    let reasons = json(&out.join("report.json"))["invalid_reasons"].to_string();
    assert!(reasons.contains("the client or the machine was the limit"), "{reasons}");
}
