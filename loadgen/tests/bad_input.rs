//! Brokers that are not there, speak something else or die, and disks that are full: each is told
//! in a sentence, and no figure looks valid that is not.

mod fake;
mod harness;

use fake::{Fake, Fault};
use harness::{Folder, args, run};
use serde_json::Value;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

fn loadgen(words: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
    command.args(words).output().expect("it can be started")
}

/// Answers whatever comes with these bytes, then hangs up.
fn answering(bytes: &'static [u8]) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut asked = [0; 64];
            let _ = stream.read(&mut asked).and_then(|_| stream.write_all(bytes));
        }
    });
    address
}

#[test]
fn a_broker_that_cannot_be_used_is_told_in_a_sentence() {
    let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let nobody = free.expect("a free port").to_string();
    let newer = Fake::start(Fault::Newer);
    let rows = [
        (nobody, "cannot reach 127.0.0.1:"),
        ("no-such-host.invalid:9092".to_owned(), "cannot reach no-such-host.invalid:9092"),
        (answering(b""), "did not answer"),
        (answering(b"HTTP/1.1 400 Bad Request\r\n\r\n"), "not the Kafka protocol"),
        (answering(b"\0\0\0\x06\0\0\0\x01\0\0"), "cannot be understood"),
        (
            newer.address(),
            "does not serve Produce in a version that this program knows: it has 9 to",
        ),
    ];
    for (address, words) in rows {
        let folder = Folder::new();
        let out = folder.0.join("report");
        let place = out.display().to_string();
        let done = loadgen(&["run", "--bootstrap", &address, "--out", &place]);
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(1), "{address}: {said}");
        assert!(said.contains(words), "{words}: {said}");
        assert!(!said.contains("panicked"), "{said}");
        assert!(!out.exists(), "{words}: no report of nothing");
    }
}

#[test]
fn a_broker_that_dies_leaves_a_report_that_is_not_valid() {
    let folder = Folder::new();
    let mut broker = Command::new("sh")
        .args([
            "-c",
            "exec \"$0\" respond --listen 127.0.0.1:0 > \"$1\"",
            env!("CARGO_BIN_EXE_loadgen"),
        ])
        .arg(folder.0.join("address"))
        .spawn()
        .expect("it can be started");
    let started = Instant::now();
    let address = loop {
        let said = std::fs::read_to_string(folder.0.join("address")).unwrap_or_default();
        if let Some(address) = said.strip_prefix("listening on ").filter(|a| a.ends_with('\n')) {
            break address.trim().to_owned();
        }
        assert!(started.elapsed() < Duration::from_secs(60), "it does not say where it listens");
        std::thread::sleep(Duration::from_millis(10));
    };
    let (pid, out) = (broker.id().to_string(), folder.0.join("report"));
    let mut load = Command::new(env!("CARGO_BIN_EXE_loadgen"))
        .args(["run", "--bootstrap", &address, "--pid", &pid, "--rate", "500", "--consumers", "0"])
        .args(["--warmup", "0s", "--duration", "3s", "--timeout", "1s", "--out"])
        .arg(&out)
        .stderr(std::process::Stdio::null())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("it can be started");
    std::thread::sleep(Duration::from_millis(1_500));
    broker.kill().expect("it is there");
    broker.wait().expect("it was killed");
    let status = load.wait().expect("it ends");
    // Its records cannot be read back any more: what was measured stands.
    assert_eq!(status.code(), Some(2));
    let report = std::fs::read(out.join("report.json")).expect("there is a report");
    let report: Value = serde_json::from_slice(&report).expect("JSON");
    assert_eq!(report["valid"], false);
    let reasons = report["invalid_reasons"].to_string();
    for reason in ["ended during the run", "reading back: ", "connections were lost"] {
        assert!(reasons.contains(reason), "{reasons}");
    }
    assert!(!reasons.contains("records lost"), "{reasons}");
}

#[test]
fn a_topic_that_is_there_with_other_settings_is_used_and_told() {
    let fake = Fake::start(Fault::None);
    let mut args = args(&fake);
    (args.topic, args.keep_topic) = (Some("kept".to_owned()), true);
    args.duration = Duration::from_millis(200);
    assert!(run(&args).report.notes.iter().all(|note| !note.contains("was there already")));
    args.partitions = 8;
    let report = run(&args).report;
    let told = report.notes.iter().filter(|note| note.contains("with 3 partitions")).count();
    assert_eq!((told, report.records_verified), (1, report.records_sent), "{:?}", report.notes);
}

#[test]
fn a_disk_that_is_full_is_told() {
    let fake = Fake::start(Fault::None);
    let pid = std::process::id().to_string();
    let words = ["idle", "--bootstrap", &fake.address(), "--pid", &pid, "--settle", "1ms"];
    let more = ["--duration", "10ms", "--json", "/dev/full"];
    let done = loadgen(&[&words[..], &more].concat());
    let said = String::from_utf8_lossy(&done.stderr);
    assert_eq!(done.status.code(), Some(1), "{said}");
    assert!(said.contains("/dev/full") && said.contains("No space left"), "{said}");
    let done = loadgen(&["run", "--bootstrap", &fake.address(), "--out", "/dev/null/report"]);
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.code() == Some(1) && said.contains("/dev/null/report"), "{said}");
    assert_eq!(fake.counts().requests, 0, "a load whose report has no place is not begun");
}

#[test]
fn mistakes_on_the_command_line_are_explained() {
    let rows: [(&[&str], &str); 24] = [
        (&["run", "--bootstrap", "http://x:9092"], "is not HOST:PORT"),
        (&["run", "--bootstrap", "localhost:99999"], "is not HOST:PORT"),
        (&["compare", "a:1@x", "b:1", "--out", "o"], "'a:1@x' is not HOST:PORT"),
        (&["run", "--cpus", "0-3"], "name each, as in 0,2,3"),
        (&["run", "--fetch-wait-ms", "-5"], "-5 is not in 0.."),
        (&["run", "--linger-ms", "-5"], "--linger-ms must lie between"),
        (&["run", "--rate", "-1"], "--rate must be above 0"),
        (&["run", "--record-bytes", "17179869183g"], "beyond 1 GiB"),
        (&["run", "--connections", "4000000000"], "raise `ulimit -n`"),
        (&["run", "--fanout", "4000000000"], "raise `ulimit -n`"),
        (&["run", "--inflight", "4000000000"], "of memory"),
        (&["run", "--duration", "1000000h"], "more than a year"),
        (&["run", "--spread", "poisson"], "--spread needs --rate"),
        (&["find-max", "--acks", "0"], "find-max needs answers"),
        (&["find-max", "--schedule", "s"], "find-max chooses the rates"),
        (&["find-max", "--resolution", "0"], "--resolution must lie"),
        (&["find-max", "--slo", "p99=0ms"], "is not a bound"),
        (&["run", "--record-bytes", "5"], "identity and checksum take 32"),
        (&["run", "--linger-ms", "5"], "--linger-ms needs --rate"),
        (&["run", "--duration", "10"], "needs a unit: ms, s, m or h"),
        (&["run", "--partitioner", "keys"], "--partitioner keys needs --keys"),
        (&["run", "--sasl", "plain"], "--sasl-user"),
        (&["run", "--topic-config", "retention"], "is not KEY=VALUE"),
        (&["run", "--zookeeper", "x"], "there is no ZooKeeper here"),
    ];
    for (words, expected) in rows {
        let folder = Folder::new();
        let mut command = Command::new(env!("CARGO_BIN_EXE_loadgen"));
        let done = command.args(words).current_dir(&folder.0).output().expect("it can be started");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(matches!(done.status.code(), Some(1 | 2)), "{words:?}");
        assert!(said.contains(expected), "{words:?}: {said}");
        let left = std::fs::read_dir(&folder.0).expect("a folder").count();
        assert_eq!(left, 0, "{words:?} leaves nothing behind");
    }
}

#[test]
fn the_costs_of_a_process_that_is_not_the_broker_are_refused() {
    let fake = Fake::start(Fault::None);
    let mut other = Command::new("sleep").arg("60").spawn().expect("it is there");
    let pid = other.id().to_string();
    for command in ["run", "idle", "churn"] {
        let done = loadgen(&[command, "--bootstrap", &fake.address(), "--pid", &pid]);
        let said = String::from_utf8_lossy(&done.stderr);
        assert_eq!(done.status.code(), Some(1), "{command}: {said}");
        assert!(said.contains("(sleep) is not the broker: it listens nowhere"), "{said}");
    }
    other.kill().and_then(|()| other.wait()).expect("it is ours");
}

#[test]
fn of_an_earlier_report_nothing_stays_and_a_study_is_left_alone() {
    let (folder, fake) = (Folder::new(), Fake::start(Fault::None));
    let out = folder.0.join("out");
    let place = out.display().to_string();
    let words = ["run", "--bootstrap", &fake.address(), "--duration", "300ms", "--out", &place];
    loadgen(&[&words[..], &["--rate", "1000", "--batch-records", "1"]].concat());
    assert!(out.join("end_to_end.hgrm").exists() && out.join("report.html").exists());
    // One without consumers has no end-to-end times.
    let more = ["--warmup", "0s", "--rate", "1000", "--batch-records", "1", "--consumers", "0"];
    loadgen(&[&words[..], &more].concat());
    assert!(out.join("response.hgrm").exists() && !out.join("end_to_end.hgrm").exists());
    std::fs::create_dir(out.join("runs")).expect("a folder");
    let done = loadgen(&words);
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.code() == Some(1) && said.contains("it holds a study"), "{said}");
    assert!(out.join("report.json").exists());
}

#[test]
fn a_topic_without_records_is_not_read_validly() {
    let fake = Fake::start(Fault::None);
    let done = loadgen(&["consume", "--bootstrap", &fake.address(), "--topic", "kept"]);
    let said = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.code() != Some(0) && !said.contains("Valid:"), "{said}");
}

#[test]
fn what_asks_for_more_than_is_there_is_said_to_overload() {
    let fake = Fake::start(Fault::None);
    let mut args = args(&fake);
    (args.rate, args.batch_records, args.connections) = (Some(1e9), 1, 1);
    (args.warmup, args.duration) = (Duration::ZERO, Duration::from_millis(50));
    args.timeout = Duration::from_millis(1);
    let report = run(&args).report;
    assert!(report.overloaded, "{:?}", report.notes);
    assert!(report.notes.iter().any(|note| note.contains("did not keep up")), "{:?}", report.notes);
    // A second at one batch each is no overload because half of a batch is cut off.
    (args.rate, args.batch_records) = (Some(1000.0), 64);
    (args.duration, args.timeout) = (Duration::from_secs(1), Duration::from_secs(5));
    assert!(!run(&args).report.overloaded);
}
