//! `millrace offsets`: where partitions begin, end, or stood at a time.

use crate::print::Table;
use crate::{Cluster, Failure, Printer, Result, when};
use clap::Args;
use millrace_client::{Client, Options, TopicPartition};
use serde_json::{Value, json};

const EXAMPLES: &str = "Examples:
  millrace offsets --topic orders
      the end of each partition: the offset of the next record
  millrace offsets --topic orders --time earliest
  millrace offsets --topic orders --partitions 0,1 --time 2026-11-21T14:30:00
      the first record at or after that time (UTC unless a zone follows)
  millrace offsets --topic-partitions orders:0,users --time max-timestamp";

/// Show where partitions begin and end, or stood at a time (Kafka: kafka-get-offsets).
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(after_help = EXAMPLES)]
pub struct Offsets {
    /// Only this topic; several with commas between them.
    #[arg(long, value_delimiter = ',')]
    topic: Vec<String>,
    /// Only these partitions of them.
    #[arg(long, value_name = "NUMBER,...", value_delimiter = ',')]
    partitions: Vec<i32>,
    /// Topics and partitions in one: orders:0,orders:2,users.
    #[arg(long, value_name = "TOPIC:NUMBER,...", value_delimiter = ',', conflicts_with_all = ["topic", "partitions"])]
    topic_partitions: Vec<String>,
    /// latest (-1), earliest (-2), max-timestamp (-3), earliest-local (-4), latest-tiered (-5),
    /// milliseconds since 1970, or a date and time.
    #[arg(long, default_value = "latest", value_parser = time, allow_hyphen_values = true)]
    time: i64,
    /// Leave out the broker's own topics.
    #[arg(long)]
    exclude_internal_topics: bool,
    #[command(flatten)]
    cluster: Cluster,
}

impl Offsets {
    pub(crate) fn run(&self, printer: &mut Printer<'_>) -> Result {
        let mut client = self.cluster.connect(Options::default())?;
        let mut wanted = Vec::new();
        if self.topic.is_empty() && self.topic_partitions.is_empty() {
            for topic in client.topics()? {
                if !(self.exclude_internal_topics && topic.is_internal) {
                    let all = topic.partitions.iter();
                    wanted.extend(all.map(|part| TopicPartition::new(&topic.name, part.index)));
                }
            }
            wanted
                .retain(|at| self.partitions.is_empty() || self.partitions.contains(&at.partition));
        }
        for name in &self.topic {
            wanted.extend(partitions_of(&mut client, name, &self.partitions)?);
        }
        for text in &self.topic_partitions {
            wanted.extend(partitions_in(&mut client, text)?);
        }
        let wanted: Vec<_> = wanted.into_iter().map(|at| (at, self.time)).collect();
        let known = |number: i64| if number < 0 { Value::Null } else { json!(number) };
        let mut table = Table::new(&["TOPIC", "PARTITION", "OFFSET", "TIMESTAMP"]);
        for (at, (offset, timestamp)) in client.offsets_at(&wanted)? {
            table.row([json!(at.topic), json!(at.partition), known(offset), known(timestamp)]);
        }
        Ok(printer.table(&table, self.cluster.json)?)
    }
}

/// These partitions of a topic, or all.
fn partitions_of(client: &mut Client, topic: &str, numbers: &[i32]) -> Result<Vec<TopicPartition>> {
    if numbers.is_empty() {
        let found = client.topic(topic)?;
        return Ok(found.partitions.iter().map(|p| TopicPartition::new(topic, p.index)).collect());
    }
    let named: Vec<_> = numbers.iter().map(|&number| TopicPartition::new(topic, number)).collect();
    for at in &named {
        client.leader(at)?;
    }
    Ok(named)
}

/// The partitions that `orders:0,2` names, or all of `orders`.
pub(crate) fn partitions_in(client: &mut Client, text: &str) -> Result<Vec<TopicPartition>> {
    let Some((topic, numbers)) = text.split_once(':') else {
        return partitions_of(client, text, &[]);
    };
    let numbers: Result<Vec<i32>, _> = numbers.split(',').map(str::parse).collect();
    let numbers = numbers.map_err(|_| Failure::Usage(format!("{text}: not TOPIC:NUMBER,...")))?;
    partitions_of(client, topic, &numbers)
}

fn time(text: &str) -> Result<i64, String> {
    Ok(match text {
        "latest" => -1,
        "earliest" => -2,
        "max-timestamp" => -3,
        "earliest-local" => -4,
        "latest-tiered" => -5,
        _ => match text.parse() {
            Ok(number @ -5..) => number,
            _ => when::datetime(text)?,
        },
    })
}
