//! `millrace consume`: prints records, as a member of a group or on its own.

use crate::failure::{is_true, properties};
use crate::{Cluster, Failure, Printer, Result};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use millrace_client::{Client, ClientError, Fetched, Fetcher, Member, Options, TopicPartition};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

const EXAMPLES: &str = "Examples:
  millrace consume --topic greetings --from-beginning
      everything there is, then what comes; Ctrl-C ends it
  millrace consume --topic greetings --group readers
      as a member of a group: goes on where the group was, and shares the work
  millrace consume --topic users --from-beginning --property print.key=true --property key.separator=:
  millrace consume --topic users --partition 2 --offset 41 --max-messages 1
      one record
  millrace consume --topic users --from-beginning --timeout-ms 1000 --json | jq .value

Properties: print.timestamp, print.partition, print.offset, print.headers, print.key, print.value
(true or false), key.separator (TAB), line.separator, headers.separator (,), null.literal (null).";

const PROPERTIES: &[&str] = &[
    "print.timestamp",
    "print.partition",
    "print.offset",
    "print.headers",
    "print.key",
    "print.value",
    "key.separator",
    "line.separator",
    "headers.separator",
    "null.literal",
];
/// Settings of Kafka's consumer that mean something here.
const SETTINGS: &[&str] = &["group.id", "client.id", "auto.offset.reset", "enable.auto.commit"];
const COMMIT_EVERY: Duration = Duration::from_secs(5);
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;

/// Print the records of a topic (Kafka: kafka-console-consumer).
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(after_help = EXAMPLES)]
pub struct Consume {
    /// The topic; several with commas between them.
    #[arg(long, value_delimiter = ',', required = true)]
    topic: Vec<String>,
    /// Start with the oldest record, unless the group has read on already.
    #[arg(long)]
    from_beginning: bool,
    /// Read as a member of this group, and commit what was printed.
    #[arg(long)]
    group: Option<String>,
    /// Only this partition.
    #[arg(long, conflicts_with = "group")]
    partition: Option<i32>,
    /// Start at this offset of the partition: a number, earliest or latest.
    #[arg(long, requires = "partition", conflicts_with = "from_beginning")]
    offset: Option<String>,
    /// End after so many records.
    #[arg(long, value_name = "COUNT")]
    max_messages: Option<u64>,
    /// End when no record came for so long.
    #[arg(long, value_name = "MILLISECONDS")]
    timeout_ms: Option<u64>,
    /// What is printed, see below; may be repeated.
    #[arg(long, alias = "formatter-property", value_name = "KEY=VALUE")]
    property: Vec<String>,
    /// group.id, client.id, auto.offset.reset, enable.auto.commit as settings of Kafka's consumer.
    #[arg(long, alias = "command-property", value_name = "KEY=VALUE")]
    consumer_property: Vec<String>,
    #[command(flatten)]
    cluster: Cluster,
}

impl Consume {
    pub(crate) fn run(&self, printer: &mut Printer<'_>) -> Result {
        let settings = properties("--consumer-property", &self.consumer_property, SETTINGS)?;
        let format = Format::new(self.cluster.json, &self.property)?;
        let start = match (self.from_beginning, settings.get("auto.offset.reset").copied()) {
            (true, _) | (false, Some("earliest")) => EARLIEST,
            (false, None | Some("latest")) => LATEST,
            (_, Some(other)) => {
                let text = format!("auto.offset.reset={other}: earliest or latest");
                return Err(Failure::Usage(text));
            }
        };
        let mut options = Options::default();
        if let Some(id) = settings.get("client.id") {
            options.client_id = (*id).to_owned();
        }
        crate::stop_on_signals(&options.stop)?;
        let client = self.cluster.connect(options)?;
        let group = self.group.as_deref().or(settings.get("group.id").copied());
        let is_committing = is_true(&settings, "enable.auto.commit", true);
        let mut reading = Reading {
            command: self,
            client,
            member: None,
            fetcher: Fetcher::new(BTreeMap::new(), Some(start)),
            start,
            is_committing,
            format,
            count: 0,
        };
        let outcome = reading.until_told(group, printer);
        let outcome = match outcome {
            Err(Failure::Client(ClientError::Stopped)) => Ok(()),
            outcome => outcome,
        };
        let ended = reading.end();
        let flushed = printer.out.flush();
        if outcome.is_ok() {
            printer.note(format_args!("Processed a total of {} messages", reading.count));
        }
        outcome?;
        ended?;
        Ok(flushed?)
    }
}

/// A run of the command.
struct Reading<'a> {
    command: &'a Consume,
    client: Client,
    member: Option<Member>,
    fetcher: Fetcher,
    /// Where to begin without a committed offset: a time of the protocol.
    start: i64,
    is_committing: bool,
    format: Format,
    count: u64,
}

impl Reading<'_> {
    fn until_told(&mut self, group: Option<&str>, printer: &mut Printer<'_>) -> Result {
        for topic in &self.command.topic {
            self.client.topic(topic)?;
        }
        match group {
            Some(group) => {
                self.member = Some(Member::new(group, &self.command.topic));
                self.join()?;
            }
            None => self.assign()?,
        }
        let (mut committed_at, mut came_at) = (Instant::now(), Instant::now());
        let count_max = self.command.max_messages.unwrap_or(u64::MAX);
        let quiet_max = self.command.timeout_ms.map(Duration::from_millis);
        self.fetcher.wait = quiet_max.unwrap_or(self.fetcher.wait).min(self.fetcher.wait);
        while self.count < count_max && !self.client.options().is_stopped() {
            let before = self.count;
            let (format, count) = (&self.format, &mut self.count);
            let out = &mut *printer.out;
            self.fetcher.poll::<Failure>(&mut self.client, &mut |fetched| {
                format.write(&fetched, out)?;
                *count += 1;
                let is_enough = *count >= count_max;
                Ok(if is_enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
            })?;
            printer.out.flush()?;
            if self.count > before {
                came_at = Instant::now();
            } else if quiet_max.is_some_and(|most| came_at.elapsed() >= most) {
                return Ok(());
            }
            if committed_at.elapsed() >= COMMIT_EVERY {
                self.commit()?;
                committed_at = Instant::now();
            }
            self.stay_in_group()?;
            if self.fetcher.positions.is_empty() {
                std::thread::sleep(Duration::from_millis(100));
            }
        }
        Ok(())
    }

    /// Reads on its own: all partitions, or one.
    fn assign(&mut self) -> Result {
        let mut wanted = Vec::new();
        let mut positions = BTreeMap::new();
        for name in &self.command.topic {
            for partition in self.client.topic(name)?.partitions {
                wanted.push((TopicPartition::new(name, partition.index), self.start));
            }
            if let Some(partition) = self.command.partition {
                let at = TopicPartition::new(name, partition);
                self.client.leader(&at)?;
                wanted.retain(|(other, _)| other.topic != *name || *other == at);
                match self.command.offset.as_deref().map(|text| (text, text.parse::<i64>())) {
                    None => {}
                    Some(("earliest", _)) => wanted = vec![(at, EARLIEST)],
                    Some(("latest", _)) => wanted = vec![(at, LATEST)],
                    Some((_, Ok(offset @ 0..))) => {
                        wanted.clear();
                        positions.insert(at, offset);
                    }
                    Some((text, _)) => {
                        let what = format!("--offset {text}: a number, earliest or latest");
                        return Err(Failure::Usage(what));
                    }
                }
            }
        }
        for (at, (offset, _)) in self.client.offsets_at(&wanted)? {
            positions.insert(at, offset);
        }
        self.fetcher.positions = positions;
        Ok(())
    }

    /// As a member: takes its share, and goes on where the group was.
    fn join(&mut self) -> Result {
        let Some(member) = &mut self.member else { return Ok(()) };
        member.join(&mut self.client)?;
        let mut positions = member.committed(&mut self.client)?;
        let missing: Vec<_> = member
            .assigned()
            .iter()
            .filter(|at| !positions.contains_key(at))
            .map(|at| (at.clone(), self.start))
            .collect();
        for (at, (offset, _)) in self.client.offsets_at(&missing)? {
            positions.insert(at, offset);
        }
        self.fetcher.positions = positions;
        Ok(())
    }

    fn stay_in_group(&mut self) -> Result {
        let Some(member) = &mut self.member else { return Ok(()) };
        if member.must_rejoin(&mut self.client)? {
            self.commit()?;
            self.join()?;
        }
        Ok(())
    }

    fn commit(&mut self) -> Result {
        if let (Some(member), true) = (&mut self.member, self.is_committing) {
            member.commit(&mut self.client, &self.fetcher.positions)?;
        }
        Ok(())
    }

    /// Commits and leaves, also after Ctrl-C.
    fn end(&mut self) -> Result {
        self.client.options_mut().stop = Arc::default();
        self.commit()?;
        match self.member.take() {
            Some(member) => Ok(member.leave(&mut self.client)?),
            None => Ok(()),
        }
    }
}

/// What is printed of a record.
struct Format {
    is_json: bool,
    timestamp: bool,
    partition: bool,
    offset: bool,
    headers: bool,
    key: bool,
    value: bool,
    separator: String,
    line_end: String,
    between_headers: String,
    null: String,
}

impl Format {
    fn new(is_json: bool, pairs: &[String]) -> Result<Self> {
        let given = properties("--property", pairs, PROPERTIES)?;
        let flag = |key, default| is_true(&given, key, default);
        let text = |key, default: &str| given.get(key).copied().unwrap_or(default).to_owned();
        Ok(Self {
            is_json,
            timestamp: flag("print.timestamp", false),
            partition: flag("print.partition", false),
            offset: flag("print.offset", false),
            headers: flag("print.headers", false),
            key: flag("print.key", false),
            value: flag("print.value", true),
            separator: text("key.separator", "\t"),
            line_end: text("line.separator", "\n"),
            between_headers: text("headers.separator", ","),
            null: text("null.literal", "null"),
        })
    }

    /// Kafka: `DefaultMessageFormatter`, in its order.
    fn write(&self, fetched: &Fetched<'_>, out: &mut dyn Write) -> io::Result<()> {
        if self.is_json {
            return writeln!(out, "{}", as_json(fetched));
        }
        let record = &fetched.record;
        let mut fields: Vec<Vec<u8>> = Vec::new();
        if self.timestamp {
            let text = match (record.timestamp, fetched.is_append_time) {
                (-1, _) => "NO_TIMESTAMP".into(),
                (time, true) => format!("LogAppendTime:{time}"),
                (time, false) => format!("CreateTime:{time}"),
            };
            fields.push(text.into());
        }
        if self.partition {
            fields.push(format!("Partition:{}", fetched.at.partition).into());
        }
        if self.offset {
            fields.push(format!("Offset:{}", record.offset).into());
        }
        let bytes = |bytes: Option<&[u8]>| bytes.unwrap_or(self.null.as_bytes()).to_vec();
        if self.headers {
            let headers: Vec<Vec<u8>> = record
                .headers
                .iter()
                .map(|(name, value)| [name, b":", &bytes(value)[..]].concat())
                .collect();
            let none = headers.is_empty().then(|| b"NO_HEADERS".to_vec());
            fields.push(none.unwrap_or_else(|| headers.join(self.between_headers.as_bytes())));
        }
        if self.key {
            fields.push(bytes(record.key));
        }
        if self.value {
            fields.push(bytes(record.value));
        }
        out.write_all(&fields.join(self.separator.as_bytes()))?;
        out.write_all(self.line_end.as_bytes())
    }
}

/// One record as one object. Bytes that are no UTF-8 are base64 under a name that says so.
fn as_json(fetched: &Fetched<'_>) -> Value {
    let record = &fetched.record;
    let mut object = json!({
        "topic": fetched.at.topic,
        "partition": fetched.at.partition,
        "offset": record.offset,
        "timestamp": record.timestamp,
        "timestamp_type": if fetched.is_append_time { "LogAppendTime" } else { "CreateTime" },
    });
    let put = |object: &mut Value, name: &str, bytes: Option<&[u8]>| match bytes {
        None => object[name] = Value::Null,
        Some(bytes) => match std::str::from_utf8(bytes) {
            Ok(text) => object[name] = text.into(),
            Err(_) => object[format!("{name}_base64")] = STANDARD.encode(bytes).into(),
        },
    };
    put(&mut object, "key", record.key);
    put(&mut object, "value", record.value);
    let headers = record.headers.iter().map(|(name, value)| {
        let mut header = json!({});
        put(&mut header, "key", Some(name));
        put(&mut header, "value", value);
        header
    });
    object["headers"] = headers.collect();
    object
}
