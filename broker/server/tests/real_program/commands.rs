//! The commands of `millrace` that are clients: the examples of docs/cli.md as they are printed
//! there, exchange with a foreign client, and what is said about mistakes.

use std::fs;
use std::io::Write as _;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use crate::process::{self, Broker};
use crate::programs::Names;

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
    assert!(examples.len() > 15, "only {} examples", examples.len());
    let broker = Broker::start(&["num.partitions=1"]);
    let folder = broker.is_own().then(|| broker.data_folder());
    for (command, expected) in examples {
        let needs_folder = command.contains("millrace-data");
        let command = match &folder {
            Some(folder) => command.replace("millrace-data", &folder.display().to_string()),
            None if needs_folder => continue,
            None => command,
        };
        let output = shell(broker.bootstrap(), &command, "");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8(text).expect("UTF-8");
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
