//! The commands of `millrace` that are clients: the examples of docs/cli.md as they are printed
//! there, exchange with a foreign client, and what is said about mistakes.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::foreign_clients::KAFKA_PYTHON;
use crate::process::{self, Broker};
use crate::programs::{Names, Run};

/// Generous because a loaded machine is not a fault.
const WITHIN: Duration = Duration::from_secs(30);

/// Runs a shell line with `millrace` on the path and the broker in the environment.
fn shell(bootstrap: &str, line: &str, input: &str) -> Output {
    let program = process::program();
    let folder = program.parent().expect("a program lies in a folder").to_owned();
    let path = std::env::var("PATH").unwrap_or_default();
    let mut child = Command::new("sh")
        .args(["-c", line])
        .env("PATH", format!("{}:{path}", folder.display()))
        .env("MILLRACE_BOOTSTRAP_SERVER", bootstrap)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("there is a shell");
    let mut stdin = child.stdin.take().expect("piped");
    // A command that does not read its input may be gone already.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("it is our child")
}

/// What a line prints, which must succeed.
fn printed(broker: &Broker, line: &str, input: &str) -> String {
    let output = shell(broker.bootstrap(), line, input);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{line}: {}\n{said}", output.status);
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// What a line says on standard error, which must fail.
fn complaint(bootstrap: &str, line: &str) -> String {
    let output = shell(bootstrap, line, "");
    assert!(!output.status.success(), "{line} succeeds: {output:?}");
    String::from_utf8(output.stderr).expect("UTF-8")
}

/// A `millrace consume` that runs until it is told to end.
struct Consumer {
    child: Child,
    lines: Receiver<String>,
}

impl Consumer {
    fn start(broker: &Broker, flags: &str) -> Self {
        let mut child = Command::new(process::program())
            .args(["consume", "-b", broker.bootstrap()])
            .args(flags.split(' '))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("cargo built the program");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|l| sender.send(l))
        });
        Self { child, lines }
    }

    /// The next so many lines, sorted.
    fn take(&self, count: usize) -> Vec<String> {
        let next = || self.lines.recv_timeout(WITHIN).expect("another record comes");
        let mut lines: Vec<String> = (0..count).map(|_| next()).collect();
        lines.sort();
        lines
    }

    /// Ctrl-C, twice at once as timeout(1) does it. It must end well, and print nothing more.
    fn interrupt(mut self) {
        let id = self.child.id().to_string();
        for _ in 0..2 {
            Command::new("kill").args(["-INT", &id]).status().expect("kill is installed");
        }
        let status = self.child.wait().expect("it is our child");
        assert!(status.success(), "after Ctrl-C: {status}");
        assert_eq!(self.lines.try_iter().collect::<Vec<_>>(), Vec::<String>::new());
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        // An already ended process is fine here.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until a line prints what is expected.
fn wait_for(broker: &Broker, line: &str, expected: &str) {
    let end = Instant::now() + WITHIN;
    loop {
        let output = shell(broker.bootstrap(), line, "");
        let got = String::from_utf8_lossy(&output.stdout).into_owned();
        if got == expected {
            return;
        }
        assert!(Instant::now() < end, "{line}: not {expected} but {got}");
        thread::sleep(Duration::from_millis(50));
    }
}

/// A line of the page matches when what stands around each `...` does.
fn matches(expected: &str, got: &str) -> bool {
    let mut parts = expected.split("...");
    let Some(mut rest) = got.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let mut parts = parts.peekable();
    while let Some(part) = parts.next() {
        let found = if parts.peek().is_none() { rest.rfind(part) } else { rest.find(part) };
        match found {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.is_empty()
}

/// Every `$ command` in the console blocks of the page, with the lines after it.
fn examples(page: &str) -> Vec<(String, Vec<String>)> {
    let mut examples: Vec<(String, Vec<String>)> = Vec::new();
    let mut is_inside = false;
    for line in page.lines() {
        if line.starts_with("```") {
            is_inside = line == "```console";
        } else if let (true, Some(command)) = (is_inside, line.strip_prefix("$ ")) {
            examples.push((command.to_owned(), Vec::new()));
        } else if let (true, Some((_, output))) = (is_inside, examples.last_mut()) {
            output.push(line.to_owned());
        }
    }
    examples
}

#[test]
fn the_examples_of_the_page_print_what_it_says() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/cli.md");
    let examples = examples(&fs::read_to_string(page).expect("the page is there"));
    assert!(examples.len() > 35, "only {} examples", examples.len());
    let broker = Broker::start(&["num.partitions=1"]);
    let folder = broker.is_own().then(|| broker.data_folder().display().to_string());
    for (command, expected) in examples {
        let needs_folder = command.contains("millrace-data");
        let command = match &folder {
            Some(folder) => command.replace("millrace-data", folder),
            None if needs_folder => continue,
            None => command,
        };
        let output = shell(broker.bootstrap(), &command, "");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).expect("UTF-8");
        let text = text.replace(folder.as_deref().unwrap_or("millrace-data"), "millrace-data");
        let got: Vec<&str> = text.lines().collect();
        let is_same = got.len() == expected.len()
            && expected.iter().zip(&got).all(|(expected, got)| matches(expected, got.trim_end()));
        assert!(is_same, "{command}\nexpected:\n{}\ngot:\n{text}", expected.join("\n"));
    }
}

#[test]
fn every_codec_and_acknowledgement_brings_records_back() {
    let broker = Broker::start(&[]);
    let topic = Names::fresh().topic("codecs");
    printed(&broker, &format!("millrace topics --create --topic {topic} --partitions 1"), "");
    let mut all = String::new();
    for (index, codec) in ["none", "gzip", "snappy", "lz4", "zstd"].iter().enumerate() {
        let lines: String = (0..2000).map(|n| format!("größe-{codec}-{n}\n")).collect();
        let acks = ["all", "1", "0"][index % 3];
        let flags = format!("--acks {acks} --compression-codec {codec}");
        printed(&broker, &format!("millrace produce --topic {topic} {flags}"), &lines);
        all += &lines;
    }
    let end = "--from-beginning --max-messages 10000 --timeout-ms 20000";
    let read = printed(&broker, &format!("millrace consume --topic {topic} {end}"), "");
    assert!(read == all, "{} bytes came back of {}", read.len(), all.len());
}

#[test]
fn a_batch_larger_than_the_topic_allows_is_sent_in_pieces() {
    let broker = Broker::start(&[]);
    let topic = Names::fresh().topic("small");
    let config = "--partitions 1 --config max.message.bytes=4000";
    printed(&broker, &format!("millrace topics --create --topic {topic} {config}"), "");
    let lines: String = (0..3000).map(|n| format!("record number {n}\n")).collect();
    printed(&broker, &format!("millrace produce --topic {topic}"), &lines);
    let end = "--from-beginning --max-messages 3000 --timeout-ms 20000";
    let read = printed(&broker, &format!("millrace consume --topic {topic} {end}"), "");
    assert!(read == lines, "{} bytes came back of {}", read.len(), lines.len());
    let long = "x".repeat(5000);
    let output = shell(broker.bootstrap(), &format!("millrace produce --topic {topic}"), &long);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("MESSAGE_TOO_LARGE"), "{said}");
}

#[test]
fn members_share_a_topic_and_ctrl_c_hands_over_where_it_stopped() {
    let broker = Broker::start(&[]);
    let names = Names::fresh();
    let (topic, group) = (names.topic("shared"), names.topic("group"));
    printed(&broker, &format!("millrace topics --create --topic {topic} --partitions 4"), "");
    let flags = format!("--topic {topic} --group {group} --from-beginning");
    let members = format!(
        "millrace groups --describe --group {group} --members --json | grep '\"partitions\"' | sort"
    );
    let fill = |from: u32, to: u32| {
        let lines: Vec<String> = (from..to).map(|n| format!("{n:03}\n")).collect();
        for partition in 0..4 {
            let line = format!("millrace produce --topic {topic} --partition {partition}");
            printed(&broker, &line, &lines.concat());
        }
    };
    let first = Consumer::start(&broker, &flags);
    wait_for(&broker, &members, "    \"partitions\": 4\n");
    let second = Consumer::start(&broker, &flags);
    wait_for(&broker, &members, "    \"partitions\": 2\n    \"partitions\": 2\n");
    fill(0, 100);
    let twice = |from: u32, to: u32, times: u32| -> Vec<String> {
        (from..to).flat_map(|n| (0..times).map(move |_| format!("{n:03}"))).collect()
    };
    assert_eq!(first.take(200), twice(0, 100, 2));
    assert_eq!(second.take(200), twice(0, 100, 2));
    first.interrupt();
    wait_for(&broker, &members, "    \"partitions\": 4\n");
    fill(100, 150);
    assert_eq!(second.take(200), twice(100, 150, 4));
    second.interrupt();
    let lag = format!("millrace groups --describe --group {group} --json | grep -c '\"lag\": 0'");
    assert_eq!(printed(&broker, &lag, ""), "4\n");
}

#[test]
fn commands_go_on_when_the_broker_comes_back() {
    let mut broker = Broker::start(&[]);
    if !broker.is_own() {
        eprintln!("skipped: the broker is not ours to stop");
        return;
    }
    printed(&broker, "millrace topics --create --topic back --partitions 1", "");
    let alone = Consumer::start(&broker, "--topic back --from-beginning");
    let member = Consumer::start(&broker, "--topic back --from-beginning --group back");
    let mut producer = Command::new(process::program())
        .args(["produce", "-b", broker.bootstrap(), "--topic", "back"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("cargo built the program");
    let mut input = producer.stdin.take().expect("piped");
    for round in 0..3 {
        writeln!(input, "{round}").expect("it reads");
        assert_eq!(alone.take(1), [round.to_string()]);
        assert_eq!(member.take(1), [round.to_string()]);
        match round {
            0 => broker.restart_after_kill(),
            _ => broker.restart_cleanly(),
        }
    }
    drop(input);
    assert!(producer.wait().expect("it is our child").success());
    alone.interrupt();
    member.interrupt();
    let offset = "millrace groups --describe --group back --json | grep current_offset";
    assert_eq!(printed(&broker, offset, "").trim(), "\"current_offset\": 3,");
}

#[test]
fn a_folder_is_read_offline_and_damage_in_it_is_found() {
    let mut broker = Broker::start(&[]);
    if !broker.is_own() {
        eprintln!("skipped: the broker's folder is not ours");
        return;
    }
    let config = "--config segment.bytes=1048576 --config index.interval.bytes=4096";
    printed(&broker, &format!("millrace topics --create --topic disk --partitions 1 {config}"), "");
    let lines: String = (0..30_000).map(|n| format!("{n:0>100}\n")).collect();
    printed(&broker, "millrace produce --topic disk --acks 1", &lines);
    broker.restart_cleanly();
    let folder = broker.data_folder().join("disk-0");
    let log = format!("millrace log {}", folder.display());
    let table = printed(&broker, &log, "");
    let rows: Vec<Vec<i64>> = table
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().map(|cell| cell.parse().expect(line)).collect())
        .collect();
    assert!(rows.len() >= 3, "three segments of a megabyte:\n{table}");
    assert_eq!(rows.iter().map(|row| row[3]).sum::<i64>(), 30_000, "records:\n{table}");
    assert!(rows.windows(2).all(|pair| pair[0][1] + 1 == pair[1][0]), "no gap:\n{table}");
    assert!(rows[0][7] > 0 && rows[0][8] > 0, "index entries:\n{table}");
    let payloads = printed(&broker, &format!("{log} --print-data-log | grep -o 'payload.*'"), "");
    assert_eq!(payloads.replace("payload: ", ""), lines);
    for (extension, at, part) in [("log", 300_000, "checksum"), ("index", 4, "entry 0")] {
        let file = folder.join("00000000000000000000").with_extension(extension);
        let whole = fs::read(&file).expect("the segment is there");
        let mut damaged = whole.clone();
        damaged[at] ^= 0x55;
        fs::write(&file, damaged).expect("it is ours");
        let said = complaint("", &log);
        assert!(said.contains(part) && said.contains("damaged"), "{extension}: {said}");
        fs::write(&file, whole).expect("it is ours");
    }
}

/// Bytes that are no text, nulls, empty keys, headers that occur twice, and times: what
/// kafka-python wrote, printed as JSON, sent from that JSON, is what kafka-python reads.
#[test]
fn records_of_kafka_python_come_back_to_it_through_the_commands() {
    if !KAFKA_PYTHON.is_ready() {
        return;
    }
    let broker = Broker::start(&[]);
    let theirs = Names::fresh();
    let ours = theirs.beside();
    Run::at(&broker, theirs.clone()).phases(KAFKA_PYTHON, &["create", "write"]);
    let (from, to) = (theirs.topic("codecs"), ours.topic("codecs"));
    printed(&broker, &format!("millrace topics --create --topic {to} --partitions 3"), "");
    let consume =
        format!("millrace consume --topic {from} --from-beginning --max-messages 50 --json");
    let produce = format!("millrace produce --topic {to} --partition 0 --from-json");
    printed(&broker, &format!("{consume} | {produce} --compression-codec lz4"), "");
    Run::at(&broker, ours).phases(KAFKA_PYTHON, &["read"]);
}

#[test]
fn mistakes_say_what_to_do_next() {
    let broker = Broker::start(&[]);
    let at = broker.bootstrap();
    let topic = Names::fresh().topic("words");
    printed(&broker, &format!("millrace topics --create --topic {topic} --partitions 2"), "");
    let rows = [
        (format!("millrace consume --topic {topic}x"), format!("The nearest name is {topic}.")),
        (format!("millrace consume --topic {topic} --partition 2"), "it has 2, from 0".into()),
        (format!("millrace topics --create --topic {topic}"), "--if-not-exists".into()),
        (
            format!("millrace topics --alter --topic {topic} --partitions 1"),
            "only become more".into(),
        ),
        (
            format!("millrace topics --create --topic {topic}2 --replication-factor 9"),
            "cluster".into(),
        ),
        (
            format!("millrace configs --alter --topic {topic} --add-config x=1"),
            "config WORD".into(),
        ),
        (
            format!("millrace topics --alter --topic {topic} --config retention.ms=5"),
            format!("--entity-name {topic} --add-config retention.ms=5"),
        ),
        ("millrace topics --list -b 127.0.0.1:1".into(), "`millrace` starts one".into()),
        ("millrace topics --list --zookeeper x".into(), "--bootstrap-server".into()),
        ("millrace produce --topic t --property parse.keys=true".into(), "is parse.key".into()),
        ("millrace consume --topic t --from-begining".into(), "'--from-beginning'".into()),
    ];
    for (line, part) in rows {
        let said = complaint(at, &line);
        assert!(said.contains(&part), "{line}: no `{part}` in\n{said}");
    }
}

#[test]
fn a_server_that_is_no_broker_is_said_to_be_none() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback has a free port");
    let address = listener.local_addr().expect("it is bound").to_string();
    let server = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("the command connects");
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let said = complaint(&address, "millrace topics --list");
    server.join().expect("it only writes");
    assert!(said.contains("does not speak the Kafka protocol"), "{said}");
}
