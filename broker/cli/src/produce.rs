//! `millrace produce`: lines of standard input become records.

use crate::failure::{is_true, nearest, properties};
use crate::{Cluster, Failure, Printer, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use millrace_client::partitioner::partition_of;
use millrace_client::{Client, ClientError, Options, Outgoing, Producer, TopicPartition};
use millrace_wire::compression::Compression;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, BufRead, IsTerminal};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

const EXAMPLES: &str = "Examples:
  echo hello | millrace produce --topic greetings
      one record without a key
  millrace produce --topic users --property parse.key=true --property key.separator=:
      lines such as  alice:{\"age\": 7}
  millrace produce --topic t --property parse.headers=true --property parse.key=true
      lines such as  source:web,lang:de<TAB>key<TAB>value
  zcat big.gz | millrace produce --topic log --compression-codec zstd --acks 1
  millrace consume --topic a --from-beginning --timeout-ms 1000 --json | millrace produce --topic b --from-json
      a copy, with keys, headers and timestamps

Properties: parse.key, key.separator (TAB), parse.headers, headers.delimiter (TAB),
headers.separator (,), headers.key.separator (:), null.marker (a text that means null).";

const PROPERTIES: &[&str] = &[
    "parse.key",
    "key.separator",
    "parse.headers",
    "headers.delimiter",
    "headers.separator",
    "headers.key.separator",
    "null.marker",
];
/// Settings of Kafka's producer that mean something here.
const SETTINGS: &[&str] = &["acks", "compression.type", "client.id"];
/// Bytes of records that are sent together at most; a broker takes a megabyte.
const BATCH_BYTES: usize = 256 << 10;
/// How long to wait for another line before sending those that are there.
const LINGER: Duration = Duration::from_millis(2);
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// Send lines of standard input as records (Kafka: kafka-console-producer).
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(after_help = EXAMPLES)]
pub struct Produce {
    /// The topic; the broker may make it if it is missing.
    #[arg(long)]
    topic: String,
    /// How lines are read, see below; may be repeated.
    #[arg(long, alias = "reader-property", value_name = "KEY=VALUE")]
    property: Vec<String>,
    /// Each line is a record in JSON, as `consume --json` prints them; its topic, partition and
    /// offset are not looked at.
    #[arg(long, conflicts_with = "property")]
    from_json: bool,
    /// Which write to wait for: all (durable), 1 (written), 0 (none).
    #[arg(long, alias = "request-required-acks", value_parser = ["all", "-1", "1", "0"],
          allow_hyphen_values = true)]
    acks: Option<String>,
    /// Compress batches; alone it means gzip.
    #[arg(long, num_args = 0..=1, default_missing_value = "gzip",
          value_parser = ["none", "gzip", "snappy", "lz4", "zstd"])]
    compression_codec: Option<String>,
    /// The partition of all records; otherwise that of the key, or all in turn.
    #[arg(long)]
    partition: Option<i32>,
    /// acks, compression.type and client.id as settings of Kafka's producer; may be repeated.
    #[arg(long, alias = "command-property", value_name = "KEY=VALUE")]
    producer_property: Vec<String>,
    #[command(flatten)]
    cluster: Cluster,
}

impl Produce {
    pub(crate) fn run(&self, printer: &mut Printer<'_>) -> Result {
        let settings = properties("--producer-property", &self.producer_property, SETTINGS)?;
        let format = LineFormat::new(self.from_json, &self.property)?;
        let acks = self.acks.as_deref().or(settings.get("acks").copied()).unwrap_or("all");
        let codec = self.compression_codec.as_deref();
        let codec = codec.or(settings.get("compression.type").copied()).unwrap_or("none");
        let compression = (0..=4)
            .filter_map(|number| Compression::from_attributes(number).ok())
            .find(|compression| compression.name() == codec)
            .ok_or_else(|| Failure::Usage(format!("{codec} is not a compression")))?;
        let acks = match acks {
            "all" | "-1" => -1,
            "0" => 0,
            "1" => 1,
            other => return Err(Failure::Usage(format!("acks={other}: all, 1 or 0"))),
        };
        let mut options = Options::default();
        if let Some(id) = settings.get("client.id") {
            options.client_id = (*id).to_owned();
        }
        let mut client = self.cluster.connect(options)?;
        let partitions = self.partitions(&mut client, printer)?;
        let producer = Producer::new(&mut client, acks, compression)?;
        let stop = Arc::new(AtomicBool::new(false));
        crate::stop_on_signals(&stop)?;
        let progress = Progress::new(!io::stdin().is_terminal());
        Sending { command: self, client, producer, format, partitions, turn: 0, progress }
            .pass_on(&stop, printer)
    }

    /// How many partitions there are.
    fn partitions(&self, client: &mut Client, printer: &mut Printer<'_>) -> Result<usize> {
        let topic = match client.topic(&self.topic) {
            Err(ClientError::UnknownTopic { topic, known }) => {
                let made = client.topic_or_create(&self.topic);
                if made.is_ok() {
                    let near = nearest(&topic, known.iter().map(String::as_str));
                    let near =
                        near.map_or(String::new(), |near| format!(" (there is also {near})"));
                    printer.note(format_args!("note: the broker made topic {topic}{near}"));
                }
                // A broker that makes none leaves the topic unknown.
                made.map_err(|_| ClientError::UnknownTopic { topic, known })?
            }
            found => found?,
        };
        if let Some(partition) = self.partition {
            client.leader(&TopicPartition::new(&self.topic, partition))?;
        }
        Ok(topic.partitions.len())
    }
}

/// A run of the command.
struct Sending<'a> {
    command: &'a Produce,
    client: Client,
    producer: Producer,
    format: LineFormat,
    partitions: usize,
    /// The partition of records without a key; another for each batch.
    turn: usize,
    progress: Progress,
}

impl Sending<'_> {
    /// Sends lines until the input ends or a signal comes.
    fn pass_on(&mut self, stop: &AtomicBool, printer: &mut Printer<'_>) -> Result {
        let lines = read_lines();
        let is_prompting = io::stdin().is_terminal() && io::stdout().is_terminal();
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            if is_prompting {
                write!(printer.out, ">")?;
                printer.out.flush()?;
            }
            let first = loop {
                match lines.recv_timeout(Duration::from_millis(100)) {
                    Err(RecvTimeoutError::Timeout) if !stop.load(Ordering::Relaxed) => {}
                    Err(_) => {
                        self.progress.finish(printer);
                        return Ok(());
                    }
                    Ok(line) => break line,
                }
            };
            let mut batches: BTreeMap<TopicPartition, Vec<Outgoing>> = BTreeMap::new();
            let (mut line, mut bytes, mut count) = (Some(first), 0, 0);
            while let Some(text) = line.take() {
                let text = text?;
                number += 1;
                bytes += text.len();
                count += 1;
                let record = self.format.parse(&text, number)?;
                let at = TopicPartition::new(&self.command.topic, self.partition_for(&record));
                batches.entry(at).or_default().push(record);
                if bytes < BATCH_BYTES {
                    line = lines.recv_timeout(LINGER).ok();
                }
            }
            self.turn = (self.turn + 1) % self.partitions;
            if let Err(failure) = self.send(batches, printer) {
                let records = self.progress.records;
                printer.note(format_args!("{records} records were sent before this:"));
                return Err(failure);
            }
            self.progress.note(count, bytes, printer);
        }
        Ok(())
    }

    fn partition_for(&self, record: &Outgoing) -> i32 {
        match (self.command.partition, &record.key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_of(key, self.partitions),
            (None, None) => self.turn as i32,
        }
    }

    fn send(
        &mut self,
        batches: BTreeMap<TopicPartition, Vec<Outgoing>>,
        printer: &mut Printer<'_>,
    ) -> Result {
        let counts: Vec<usize> = batches.values().map(Vec::len).collect();
        let offsets = self.producer.send(&mut self.client, batches)?;
        if self.command.cluster.json {
            for ((at, offset), records) in offsets.iter().zip(counts) {
                let (topic, partition) = (&at.topic, at.partition);
                let said = json!({
                    "topic": topic, "partition": partition, "offset": offset, "records": records
                });
                printer.line(said)?;
            }
            printer.out.flush()?;
        }
        Ok(())
    }
}

/// Standard input line by line; a thread of its own waits for it.
fn read_lines() -> Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = sync_channel(4096);
    thread::spawn(move || {
        let mut input = io::stdin().lock();
        loop {
            let mut line = Vec::new();
            let read = input.read_until(b'\n', &mut line);
            if matches!(read, Ok(0)) {
                return;
            }
            for end in *b"\n\r" {
                if line.last() == Some(&end) {
                    line.pop();
                }
            }
            let is_failed = read.is_err();
            if sender.send(read.map(|_| line)).is_err() || is_failed {
                return;
            }
        }
    });
    receiver
}

/// How a line is taken apart.
#[derive(Debug)]
struct LineFormat {
    is_json: bool,
    /// What ends the headers, if there are any; what is between them; what follows their names.
    headers: Option<[Vec<u8>; 3]>,
    /// What ends the key, if there is one.
    key: Option<Vec<u8>>,
    null_marker: Option<Vec<u8>>,
}

impl LineFormat {
    fn new(is_json: bool, pairs: &[String]) -> Result<Self> {
        let given = properties("--property", pairs, PROPERTIES)?;
        let text = |key: &str, default: &str| given.get(key).copied().unwrap_or(default).into();
        let headers = is_true(&given, "parse.headers", false).then(|| {
            [
                text("headers.delimiter", "\t"),
                text("headers.separator", ","),
                text("headers.key.separator", ":"),
            ]
        });
        let key = is_true(&given, "parse.key", false).then(|| text("key.separator", "\t"));
        let null_marker = given.get("null.marker").map(|marker| marker.as_bytes().to_vec());
        if headers.iter().flatten().chain(&key).any(Vec::is_empty) {
            return Err(Failure::Usage("--property: a separator cannot be empty".into()));
        }
        Ok(Self { is_json, headers, key, null_marker })
    }

    /// Kafka: `LineMessageReader`: headers, key, value.
    fn parse(&self, line: &[u8], number: u64) -> Result<Outgoing> {
        if self.is_json {
            let parsed = parse_json(line);
            return parsed.map_err(|what| Failure::Usage(format!("line {number}: {what}")));
        }
        let mut rest = line;
        let mut cut = |separator: &[u8], what: &str| {
            let (head, tail) = split(rest, separator).ok_or_else(|| {
                let separator = separator.escape_ascii();
                Failure::Usage(format!("line {number} has no `{separator}` after its {what}"))
            })?;
            rest = tail;
            Ok::<_, Failure>(head)
        };
        let mut headers = Vec::new();
        if let Some([delimiter, between, after_name]) = &self.headers {
            let mut text = cut(delimiter, "headers")?;
            while !text.is_empty() {
                let (header, others) = split(text, between).unwrap_or((text, &[]));
                text = others;
                let (name, value) = split(header, after_name).ok_or_else(|| {
                    let header = header.escape_ascii();
                    Failure::Usage(format!("line {number}: header `{header}` has no value"))
                })?;
                let name = String::from_utf8_lossy(name).into_owned();
                headers.push((name, self.or_null(value)));
            }
        }
        let key = match &self.key {
            Some(separator) => self.or_null(cut(separator, "key")?),
            None => None,
        };
        Ok(Outgoing { key, value: self.or_null(rest), headers, timestamp: now_ms() })
    }

    fn or_null(&self, bytes: &[u8]) -> Option<Vec<u8>> {
        (self.null_marker.as_deref() != Some(bytes)).then(|| bytes.to_vec())
    }
}

/// The other direction of `consume`'s JSON. A value that is no text is taken as its JSON.
fn parse_json(line: &[u8]) -> Result<Outgoing, String> {
    let record: Value = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let bytes = |object: &Value, name: &str| match &object[format!("{name}_base64")] {
        Value::String(text) => STANDARD.decode(text).map(Some).map_err(|error| error.to_string()),
        _ => Ok(match &object[name] {
            Value::Null => None,
            Value::String(text) => Some(text.clone().into_bytes()),
            other => Some(other.to_string().into_bytes()),
        }),
    };
    if !record.is_object() {
        return Err("not a JSON object".into());
    }
    let mut headers = Vec::new();
    for header in record["headers"].as_array().into_iter().flatten() {
        let name = bytes(header, "key")?.ok_or("a header without a key")?;
        headers.push((String::from_utf8_lossy(&name).into_owned(), bytes(header, "value")?));
    }
    let timestamp = record["timestamp"].as_i64().unwrap_or_else(now_ms);
    let (key, value) = (bytes(&record, "key")?, bytes(&record, "value")?);
    Ok(Outgoing { key, value, headers, timestamp })
}

fn split<'a>(bytes: &'a [u8], separator: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes.windows(separator.len()).position(|window| window == separator)?;
    Some((&bytes[..at], &bytes[at + separator.len()..]))
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| i64::try_from(now.as_millis()).unwrap_or(i64::MAX))
}

/// Tells how far it is, when it takes long.
struct Progress {
    is_wanted: bool,
    start: Instant,
    told_at: Instant,
    has_told: bool,
    records: u64,
    bytes: usize,
}

impl Progress {
    fn new(is_wanted: bool) -> Self {
        let now = Instant::now();
        Self { is_wanted, start: now, told_at: now, has_told: false, records: 0, bytes: 0 }
    }

    fn note(&mut self, records: u64, bytes: usize, printer: &mut Printer<'_>) {
        self.records += records;
        self.bytes += bytes;
        if self.is_wanted && self.told_at.elapsed() > PROGRESS_EVERY {
            self.tell(printer);
        }
    }

    fn finish(&mut self, printer: &mut Printer<'_>) {
        if self.has_told {
            self.tell(printer);
        }
    }

    fn tell(&mut self, printer: &mut Printer<'_>) {
        let seconds = self.start.elapsed().as_secs_f64();
        let (records, megabytes) = (self.records, self.bytes as f64 / 1e6);
        let rate = records as f64 / seconds;
        printer.note(format_args!("{records} records, {megabytes:.1} MB, {rate:.0} records/s"));
        (self.told_at, self.has_told) = (Instant::now(), true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(properties: &[&str], line: &str) -> Result<String, String> {
        let pairs: Vec<String> = properties.iter().map(|&pair| pair.to_owned()).collect();
        let format = LineFormat::new(false, &pairs).map_err(|error| error.to_string())?;
        let record = format.parse(line.as_bytes(), 7).map_err(|error| error.to_string())?;
        let text = |bytes: &Option<Vec<u8>>| {
            bytes.as_ref().map_or("null".into(), |b| String::from_utf8_lossy(b).into_owned())
        };
        let headers: Vec<String> =
            record.headers.iter().map(|(name, value)| format!("{name}={}", text(value))).collect();
        Ok(format!("[{}] {} {}", headers.join(" "), text(&record.key), text(&record.value)))
    }

    #[test]
    fn lines_are_taken_apart_as_kafka_does() {
        let keyed = "parse.key=true";
        let headed = "parse.headers=true";
        let rows: [(&[&str], &str, Result<&str, &str>); 10] = [
            (&[], "a:b", Ok("[] null a:b")),
            (&[], "", Ok("[] null ")),
            (&[keyed], "a\tb", Ok("[] a b")),
            (&[keyed, "key.separator=:"], "a:b:c", Ok("[] a b:c")),
            (&[keyed, "key.separator=::"], "a::b", Ok("[] a b")),
            (&[keyed], "ab", Err("line 7 has no `\\t` after its key")),
            (&[headed, keyed], "h:1,i:2\tk\tv", Ok("[h=1 i=2] k v")),
            (&[headed], "\tv", Ok("[] null v")),
            (&[headed], "h\tv", Err("header `h` has no value")),
            (&[keyed, "null.marker=NULL"], "k\tNULL", Ok("[] k null")),
        ];
        for (properties, line, expected) in rows {
            let expected = expected.map(str::to_owned);
            match (parsed(properties, line), expected) {
                (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
                (got, expected) => {
                    assert_eq!(got, expected.map_err(str::to_owned), "{properties:?} {line}");
                }
            }
        }
    }
}
