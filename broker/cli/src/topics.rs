//! `millrace topics`: create, list, describe, enlarge and delete.

use crate::configs::overrides;
use crate::print::Table;
use crate::{Cluster, Failure, Printer, Result};
use clap::{ArgGroup, Args};
use millrace_client::{Client, ClientError, Options, To, Topic, refuse};
use millrace_wire::messages::create_partitions_request::CreatePartitionsTopic;
use millrace_wire::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use millrace_wire::messages::{CreatePartitionsRequest, CreateTopicsRequest, DeleteTopicsRequest};
use millrace_wire::{Array, ErrorCode};
use serde_json::{Value, json};

const EXAMPLES: &str = "Examples:
  millrace topics --create --topic orders --partitions 3 --config retention.ms=86400000
      a topic of three partitions whose records go after a day
  millrace topics --list
      the names, one a line
  millrace topics --describe --topic orders
      partitions, leaders, replicas and settings
  millrace topics --alter --topic orders --partitions 6
      more partitions; keys move to others then
  millrace topics --delete --topic orders

Settings of a topic that exists: millrace configs --help";

/// Create, list, describe, enlarge and delete topics (Kafka: kafka-topics).
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("action").required(true))]
pub struct Topics {
    /// Make a topic.
    #[arg(long, group = "action", requires = "topic")]
    create: bool,
    /// Print the names.
    #[arg(long, group = "action")]
    list: bool,
    /// Print partitions and settings.
    #[arg(long, group = "action")]
    describe: bool,
    /// Add partitions.
    #[arg(long, group = "action", requires = "topic")]
    alter: bool,
    /// Remove topics with all their records.
    #[arg(long, group = "action", requires = "topic")]
    delete: bool,
    /// Name of the topic; several with commas between them.
    #[arg(long, value_delimiter = ',')]
    topic: Vec<String>,
    /// How many partitions; without it the broker's num.partitions.
    #[arg(long)]
    partitions: Option<i32>,
    /// How many replicas; without it the broker's default.
    #[arg(long)]
    replication_factor: Option<i16>,
    /// A setting of the new topic; may be repeated.
    #[arg(long, value_name = "KEY=VALUE")]
    config: Vec<String>,
    #[arg(long, hide = true, alias = "deleteConfig")]
    delete_config: Vec<String>,
    /// It is no error if the topic is there already.
    #[arg(long, requires = "create")]
    if_not_exists: bool,
    /// It is no error if the topic is not there.
    #[arg(long)]
    if_exists: bool,
    /// Leave out the broker's own topics.
    #[arg(long)]
    exclude_internal: bool,
    /// Describe only partitions that lack a replica in sync.
    #[arg(long, requires = "describe")]
    under_replicated_partitions: bool,
    #[command(flatten)]
    cluster: Cluster,
}

impl Topics {
    pub(crate) fn run(&self, printer: &mut Printer<'_>) -> Result {
        if !self.create {
            self.refuse_settings()?;
        }
        let mut client = self.cluster.connect(Options::default())?;
        if self.create {
            return self.topic.iter().try_for_each(|name| self.create(&mut client, name, printer));
        }
        let topics = self.chosen(&mut client)?;
        if self.list {
            let names: Vec<&str> = topics.iter().map(|topic| topic.name.as_str()).collect();
            if self.cluster.json {
                printer.json(&json!(names))?;
            } else {
                names.iter().try_for_each(|name| printer.line(name))?;
            }
        } else if self.describe {
            self.describe(&mut client, &topics, printer)?;
        } else {
            for topic in &topics {
                match self.alter {
                    true => self.enlarge(&mut client, topic)?,
                    false => delete(&mut client, &topic.name)?,
                }
                if self.delete && !self.cluster.json {
                    printer.line(format_args!("Deleted topic {}.", topic.name))?;
                }
            }
        }
        Ok(())
    }

    /// Settings of a topic that exists are not changed here, as in Kafka since 3.0.
    fn refuse_settings(&self) -> Result {
        let change = match (&self.config[..], &self.delete_config[..]) {
            ([], []) if self.alter && self.partitions.is_none() => {
                return Err(Failure::Usage("--alter needs --partitions COUNT".into()));
            }
            ([], []) => return Ok(()),
            ([], keys) => format!("--delete-config {}", keys.join(",")),
            (pairs, _) => format!("--add-config {}", pairs.join(",")),
        };
        Err(Failure::Usage(format!(
            "settings of a topic that exists are changed by another command:\n  millrace configs \
             --alter --entity-type topics --entity-name {} {change}",
            self.topic.first().map_or("TOPIC", String::as_str),
        )))
    }

    /// The topics named, or all.
    fn chosen(&self, client: &mut Client) -> Result<Vec<Topic>> {
        let mut all = client.topics()?;
        for name in &self.topic {
            if !self.if_exists && !all.iter().any(|topic| topic.name == *name) {
                let known = all.into_iter().map(|topic| topic.name).collect();
                return Err(ClientError::UnknownTopic { topic: name.clone(), known }.into());
            }
        }
        all.retain(|topic| {
            (self.topic.is_empty() || self.topic.contains(&topic.name))
                && !(self.exclude_internal && topic.is_internal)
        });
        Ok(all)
    }

    fn create(&self, client: &mut Client, name: &str, printer: &mut Printer<'_>) -> Result {
        let pairs: Vec<(&str, &str)> =
            self.config.iter().map(|pair| split_pair(pair)).collect::<Result<_, _>>()?;
        let configs = pairs.into_iter().map(|(name, value)| CreatableTopicConfig {
            name,
            value: Some(value),
            ..Default::default()
        });
        let wanted = CreatableTopic {
            name,
            num_partitions: self.partitions.unwrap_or(-1),
            replication_factor: self.replication_factor.unwrap_or(-1),
            configs: configs.collect(),
            ..Default::default()
        };
        // -1 for the broker's own defaults is known from version 4 on.
        let knows_defaults = self.partitions.is_some() && self.replication_factor.is_some();
        let versions = if knows_defaults { 2..=7 } else { 4..=7 };
        let topics: Array<'_, _> = vec![wanted].into();
        let request = CreateTopicsRequest { topics, timeout_ms: 30_000, ..Default::default() };
        let made = client.retry(|client| {
            let answer = client.call(To::Controller, &request, versions.clone())?;
            let topic = answer.topics.first().unwrap_or_default();
            refuse(topic.error_code, topic.error_message, || format!("creating topic {name}"))?;
            Ok(json!({
                "topic": name,
                "topic_id": topic.topic_id.to_string(),
                "partitions": topic.num_partitions,
                "replication_factor": topic.replication_factor,
            }))
        });
        let exists = Some(ErrorCode::TOPIC_ALREADY_EXISTS);
        if made.is_ok() {
            client.wait_for_topic(name)?;
        }
        match made {
            Err(error) if self.if_not_exists && error.code() == exists => {}
            Err(error) => return Err(error.into()),
            Ok(made) if self.cluster.json => printer.json(&made)?,
            Ok(_) => printer.line(format_args!("Created topic {name}."))?,
        }
        Ok(())
    }

    fn describe(&self, client: &mut Client, topics: &[Topic], printer: &mut Printer<'_>) -> Result {
        let mut documents = Vec::new();
        for topic in topics {
            let mut table = Table::new(&["PARTITION", "LEADER", "REPLICAS", "ISR"]);
            for part in &topic.partitions {
                if !self.under_replicated_partitions || part.isr.len() < part.replicas.len() {
                    table.row([
                        json!(part.index),
                        Some(part.leader).filter(|leader| *leader >= 0).into(),
                        json!(part.replicas),
                        json!(part.isr),
                    ]);
                }
            }
            if self.under_replicated_partitions && table.is_empty() {
                continue;
            }
            let configs = overrides(client, &topic.name)?;
            let replicas = topic.partitions.first().map_or(0, |first| first.replicas.len());
            if self.cluster.json {
                documents.push(json!({
                    "topic": topic.name,
                    "topic_id": topic.id.to_string(),
                    "is_internal": topic.is_internal,
                    "replication_factor": replicas,
                    "configs": configs,
                    "partitions": table.to_json(),
                }));
                continue;
            }
            let pairs = configs
                .iter()
                .map(|(key, value)| format!("{key}={}", value.as_deref().unwrap_or("(secret)")));
            printer.line(format_args!(
                "Topic: {}  TopicId: {}  PartitionCount: {}  ReplicationFactor: {replicas}  \
                 Configs: {}",
                topic.name,
                topic.id,
                topic.partitions.len(),
                pairs.collect::<Vec<_>>().join(",")
            ))?;
            printer.table(&table, false)?;
        }
        if self.cluster.json {
            printer.json(&Value::Array(documents))?;
        }
        Ok(())
    }

    fn enlarge(&self, client: &mut Client, topic: &Topic) -> Result<(), ClientError> {
        let name = topic.name.as_str();
        let count = self.partitions.unwrap_or_default();
        client.retry(|client| {
            let wanted =
                CreatePartitionsTopic { name, count, assignments: None, ..Default::default() };
            let request = CreatePartitionsRequest {
                topics: Array::from(vec![wanted]),
                timeout_ms: 30_000,
                ..Default::default()
            };
            let answer = client.call(To::Controller, &request, 0..=3)?;
            let result = answer.results.first().unwrap_or_default();
            refuse(result.error_code, result.error_message, || format!("topic {name}"))
        })
    }
}

fn delete(client: &mut Client, name: &str) -> Result<(), ClientError> {
    client.retry(|client| {
        let topic_names = Array::from(vec![name]);
        let request = DeleteTopicsRequest { topic_names, timeout_ms: 30_000, ..Default::default() };
        let answer = client.call(To::Controller, &request, 1..=5)?;
        let result = answer.responses.first().unwrap_or_default();
        refuse(result.error_code, result.error_message, || format!("deleting topic {name}"))
    })
}

/// The two sides of KEY=VALUE.
pub(crate) fn split_pair(pair: &str) -> Result<(&str, &str)> {
    let split = pair.split_once('=').filter(|(key, _)| !key.is_empty());
    split.ok_or_else(|| Failure::Usage(format!("{pair}: not of the form KEY=VALUE")))
}
