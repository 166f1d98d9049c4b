//! How the program starts and stops, and what it says when it cannot start.

use std::env;
use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::process::{self, Broker};
use crate::programs::Names;

const REFUSED_WITHIN: Duration = Duration::from_secs(20);

/// A folder of its own for one start, removed when it is dropped.
pub(crate) struct Folder(pub(crate) PathBuf);

impl Folder {
    pub(crate) fn new() -> Self {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(Names::fresh().topic("start"));
        fs::create_dir_all(&path).expect("the target folder is writable");
        Self(path)
    }

    pub(crate) fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).expect("the folder was made");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Starts `millrace serve ARGUMENTS`, which must end by itself with an error; what it said.
fn refusal(arguments: &[String]) -> String {
    let mut child = Command::new(process::program())
        .arg("serve")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("cargo built the program");
    let end = Instant::now() + REFUSED_WITHIN;
    let status = loop {
        if let Some(status) = child.try_wait().expect("it is our child") {
            break status;
        }
        if Instant::now() > end {
            child.kill().expect("it is our child");
            child.wait().expect("it is our child");
            panic!("it runs, with {arguments:?}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut text = String::new();
    child.stderr.take().expect("piped").read_to_string(&mut text).expect("UTF-8");
    assert!(!status.success(), "exit status 0 with {arguments:?}:\n{text}");
    text
}

fn with(overrides: &[String]) -> Vec<String> {
    overrides.iter().flat_map(|pair| ["--override".to_owned(), pair.clone()]).collect()
}

fn check_said(text: &str, words: &[&str]) {
    assert_eq!(text.trim_end().lines().count(), 1, "one clear line, not\n{text}");
    for word in words {
        assert!(text.contains(word), "no `{word}` in {text}");
    }
}

#[test]
fn a_bad_key_or_value_is_named_with_its_file_and_line() {
    let folder = Folder::new();
    let rows: [(&str, &[&str]); 6] = [
        ("# first\nlog.dir.s=/x\n", &["log.dir.s", "server.properties", "2", "log.dirs"]),
        ("num.partition=3\n", &["num.partition", "server.properties", "1", "num.partitions"]),
        ("\n\nnum.partitions=many\n", &["num.partitions", "many", "server.properties", "3"]),
        ("num.partitions=0\n", &["num.partitions", "0"]),
        ("log.segment.bytes=1024*1024\n", &["log.segment.bytes", "1024*1024"]),
        ("listeners=HTTP://127.0.0.1:1\n", &["listeners"]),
    ];
    for (text, words) in rows {
        let file = folder.file("server.properties", text);
        check_said(&refusal(&[file.display().to_string()]), words);
    }
    check_said(&refusal(&with(&["num.partition=3".into()])), &["num.partition", "num.partitions"]);
    check_said(&refusal(&["no-such-file.properties".into()]), &["no-such-file.properties"]);
}

#[test]
fn an_address_in_use_stops_the_start() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let port = taken.local_addr().expect("it is bound").port();
    let folder = Folder::new();
    let overrides = [
        format!("listeners=PLAINTEXT://127.0.0.1:{port}"),
        format!("log.dirs={}", folder.0.display()),
    ];
    check_said(&refusal(&with(&overrides)), &[&port.to_string()]);
}

#[test]
fn a_data_folder_that_cannot_be_used_stops_the_start() {
    let broker = Broker::start(&[]);
    if !broker.is_own() {
        eprintln!("skipped: the broker's folder is not ours");
        return;
    }
    let folder = Folder::new();
    let file = folder.file("not-a-folder", "text");
    let foreign = folder.0.join("foreign");
    fs::create_dir_all(&foreign).expect("the folder was made");
    let meta = fs::read_to_string(broker.data_folder().join("meta.properties"));
    let meta = meta.expect("a data folder has meta.properties");
    let node = meta.lines().find(|line| line.starts_with("node.id=")).expect("it names the node");
    let other = meta.replace(node, "node.id=4711");
    fs::write(foreign.join("meta.properties"), other).expect("the folder was made");
    let rows: [(PathBuf, &[&str]); 3] = [
        (broker.data_folder(), &["in use"]),
        (file, &["not-a-folder"]),
        (foreign, &["4711", "node.id"]),
    ];
    for (data, words) in rows {
        let listen = "listeners=PLAINTEXT://127.0.0.1:0".to_owned();
        let text = refusal(&with(&[listen, format!("log.dirs={}", data.display())]));
        check_said(&text, words);
        let name = data.file_name().expect("it has a name").to_string_lossy().into_owned();
        assert!(text.contains(&name), "the folder `{name}` is not named in {text}");
    }
}

#[test]
fn data_folders_that_do_not_go_together_stop_the_start() {
    let folder = Folder::new();
    folder.file("file", "text");
    let rows: [(&[&str], &[&str]); 4] = [
        (&["one", "two", "one"], &["log.dirs", "/one twice"]),
        (&["one", "one/in"], &["log.dirs", "/one/in, which lies in", "/one;"]),
        (&["two/in", "two"], &["log.dirs", "/two/in, which lies in", "/two;"]),
        (&["one", "file/in"], &["log.dirs", "file/in", "cannot be written"]),
    ];
    for (names, words) in rows {
        let paths = names.iter().map(|name| folder.0.join(name).display().to_string());
        let dirs = format!("log.dirs={}", paths.collect::<Vec<_>>().join(","));
        let listen = "listeners=PLAINTEXT://127.0.0.1:0".to_owned();
        check_said(&refusal(&with(&[listen, dirs])), words);
    }
}

/// The files of the tutorials: spaces, comments, keys of ZooKeeper and of the JVM.
#[test]
fn a_server_properties_of_a_tutorial_starts_the_broker() {
    let mut broker = Broker::start(&[
        "broker.id=0",
        "num.network.threads=3",
        "num.io.threads=8",
        "socket.send.buffer.bytes=102400",
        "socket.receive.buffer.bytes=102400",
        "socket.request.max.bytes=104857600",
        "num.recovery.threads.per.data.dir=1",
        "log.retention.hours=168",
        "log.segment.bytes=1073741824",
        "log.retention.check.interval.ms=300000",
        "log.cleaner.enable=false",
        "zookeeper.connect=localhost:2181",
        "zookeeper.connection.timeout.ms=6000",
        "offsets.topic.replication.factor=3",
        "auto.leader.rebalance.enable=false",
    ]);
    if broker.is_own() {
        assert!(broker.log().contains("zookeeper.connect"), "a note about it in {}", broker.log());
        broker.restart_cleanly();
    }
}

/// The variables of the images apache/kafka and confluentinc/cp-kafka.
#[test]
fn a_containers_environment_configures_the_broker() {
    let folder = Folder::new();
    let said = |name: &str, value: &str| {
        let data = folder.0.join("data").display().to_string();
        let mut command = Command::new(process::program());
        command.env("KAFKA_LISTENERS", "PLAINTEXT://127.0.0.1:0").env("KAFKA_LOG_DIRS", data);
        command.env("KAFKA_NODE_ID", "7").env("KAFKA_HEAP_OPTS", "-Xmx1g").env(name, value);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("cargo built the program");
        let mut first = String::new();
        let stdout = child.stdout.take().expect("piped");
        BufReader::new(stdout).read_line(&mut first).expect("UTF-8");
        let _ = child.kill();
        let output = child.wait_with_output().expect("it is our child");
        (first, String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (first, notes) = said("KAFKA_BROKERS", "localhost:9092");
    assert!(first.contains("node 7"), "{first}");
    assert!(notes.contains("KAFKA_HEAP_OPTS") && notes.contains("KAFKA_BROKERS"), "{notes}");
    let (first, error) = said("KAFKA_NUM_PARTITION", "3");
    assert!(first.is_empty() && error.contains("the nearest is num.partitions"), "{first}{error}");
}
