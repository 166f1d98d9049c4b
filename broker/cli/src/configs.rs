//! `millrace configs`: settings of topics and brokers, shown and changed.

use crate::print::Table;
use crate::topics::split_pair;
use crate::{Cluster, Failure, Printer, Result};
use clap::{ArgGroup, Args, ValueEnum};
use millrace_client::{Client, ClientError, Options, To, refuse};
use millrace_wire::Array;
use millrace_wire::messages::describe_configs_request::DescribeConfigsResource;
use millrace_wire::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use millrace_wire::messages::{DescribeConfigsRequest, IncrementalAlterConfigsRequest};
use serde_json::json;
use std::collections::BTreeMap;

const EXAMPLES: &str = "Examples:
  millrace configs --describe --entity-type topics --entity-name orders
      what is set for this topic; --all shows the defaults, too
  millrace configs --alter --entity-type topics --entity-name orders --add-config retention.ms=60000
      a list as a value stands in brackets: cleanup.policy=[compact,delete]
  millrace configs --alter --topic orders --delete-config retention.ms,segment.bytes
  millrace configs --describe --broker 1 --all

What the keys mean: millrace config WORD";

/// Show and change settings of topics and brokers (Kafka: kafka-configs).
#[derive(Clone, Debug, PartialEq, Eq, Args)]
#[command(after_help = EXAMPLES, group = ArgGroup::new("action").required(true))]
#[command(group = ArgGroup::new("entity").required(true))]
#[command(group = ArgGroup::new("change").multiple(true))]
pub struct Configs {
    /// Print settings.
    #[arg(long, group = "action")]
    describe: bool,
    /// Change settings.
    #[arg(long, group = "action", requires = "change")]
    alter: bool,
    /// What the name is a name of.
    #[arg(long, value_enum, group = "entity")]
    entity_type: Option<Kind>,
    /// The topic, or the number of the broker.
    #[arg(long, requires = "entity_type")]
    entity_name: Option<String>,
    /// The default of all brokers.
    #[arg(long, requires = "entity_type", conflicts_with = "entity_name")]
    entity_default: bool,
    /// Short for --entity-type topics --entity-name.
    #[arg(long, group = "entity")]
    topic: Option<String>,
    /// Short for --entity-type brokers --entity-name.
    #[arg(long, group = "entity")]
    broker: Option<String>,
    /// Also what is not set: defaults and the broker's file.
    #[arg(long, requires = "describe")]
    all: bool,
    /// Settings to make, with commas between them.
    #[arg(long, value_name = "KEY=VALUE,...", group = "change", requires = "alter")]
    add_config: Vec<String>,
    /// Settings to take back, with commas between them.
    #[arg(long, value_name = "KEY,...", value_delimiter = ',', group = "change")]
    delete_config: Vec<String>,
    #[command(flatten)]
    cluster: Cluster,
}

/// What has settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Topics.
    #[value(alias = "topic")]
    Topics,
    /// Brokers.
    #[value(alias = "broker")]
    Brokers,
}

/// One setting.
struct Setting {
    key: String,
    /// None when it is secret.
    value: Option<String>,
    source: i8,
}

const DYNAMIC_TOPIC: i8 = 1;
const DYNAMIC_BROKER: i8 = 2;
const DYNAMIC_DEFAULT: i8 = 3;

impl Kind {
    /// Its number on the wire.
    fn code(self) -> i8 {
        match self {
            Self::Topics => 2,
            Self::Brokers => 4,
        }
    }

    fn word(self) -> &'static str {
        match self {
            Self::Topics => "topic",
            Self::Brokers => "broker",
        }
    }
}

impl Configs {
    pub(crate) fn run(&self, printer: &mut Printer<'_>) -> Result {
        let (kind, name) = match (&self.topic, &self.broker, self.entity_type) {
            (Some(topic), _, _) => (Kind::Topics, Some(topic.as_str())),
            (_, Some(broker), _) => (Kind::Brokers, Some(broker.as_str())),
            (_, _, kind) => (kind.unwrap_or(Kind::Topics), self.entity_name.as_deref()),
        };
        // Without a name a broker resource is the default of all.
        let name = if self.entity_default { Some("") } else { name };
        let mut client = self.cluster.connect(Options::default())?;
        if let (Kind::Topics, Some(topic)) = (kind, name) {
            client.topic(topic)?;
        }
        if self.alter {
            let text = "--alter needs --entity-name (or --entity-default for all brokers)";
            let name = name.ok_or_else(|| Failure::Usage(text.into()))?;
            return self.alter(&mut client, kind, name, printer);
        }
        let names = match (name, kind) {
            (Some(name), _) => vec![name.to_owned()],
            (None, Kind::Topics) => client.topics()?.into_iter().map(|topic| topic.name).collect(),
            (None, Kind::Brokers) => client.nodes().keys().map(ToString::to_string).collect(),
        };
        let mut table = Table::new(&["ENTITY", "KEY", "VALUE", "SOURCE"]);
        for name in names {
            for setting in settings(&mut client, kind, &name)? {
                let is_own = match (kind, name.as_str()) {
                    (Kind::Topics, _) => setting.source == DYNAMIC_TOPIC,
                    (Kind::Brokers, "") => setting.source == DYNAMIC_DEFAULT,
                    (Kind::Brokers, _) => {
                        [DYNAMIC_BROKER, DYNAMIC_DEFAULT].contains(&setting.source)
                    }
                };
                if self.all || is_own {
                    let source = source_name(setting.source);
                    let name = if name.is_empty() { "default" } else { &name };
                    table.row([
                        json!(name),
                        json!(setting.key),
                        json!(setting.value),
                        json!(source),
                    ]);
                }
            }
        }
        match table.is_empty() && !self.cluster.json {
            true => printer.note(format_args!("nothing is set; --all shows the defaults")),
            false => printer.table(&table, self.cluster.json)?,
        }
        Ok(())
    }

    fn alter(
        &self,
        client: &mut Client,
        kind: Kind,
        name: &str,
        printer: &mut Printer<'_>,
    ) -> Result {
        let mut pairs = Vec::new();
        for text in &self.add_config {
            pairs.extend(split_list(text)?);
        }
        let set = pairs.iter().map(|(key, value)| AlterableConfig {
            name: key,
            config_operation: 0,
            value: Some(value),
            ..Default::default()
        });
        let delete = self.delete_config.iter().map(|key| AlterableConfig {
            name: key,
            config_operation: 1,
            value: None,
            ..Default::default()
        });
        let configs: Vec<AlterableConfig<'_>> = set.chain(delete).collect();
        let resource = AlterConfigsResource {
            resource_type: kind.code(),
            resource_name: name,
            configs: Array::from(&configs[..]),
            ..Default::default()
        };
        let resources = [resource];
        client.retry(|client| {
            let resources = Array::from(&resources[..]);
            let request = IncrementalAlterConfigsRequest { resources, ..Default::default() };
            let answer = client.call(To::Controller, &request, 0..=1)?;
            let result = answer.responses.first().unwrap_or_default();
            refuse(result.error_code, result.error_message, || format!("{} {name}", kind.word()))
        })?;
        if !self.cluster.json {
            let shown = if name.is_empty() { "default" } else { name };
            printer.line(format_args!("Completed updating config for {} {shown}.", kind.word()))?;
        }
        Ok(())
    }
}

/// What is set for a topic itself.
pub(crate) fn overrides(
    client: &mut Client,
    topic: &str,
) -> Result<BTreeMap<String, Option<String>>, ClientError> {
    let settings = settings(client, Kind::Topics, topic)?;
    let own = settings.into_iter().filter(|setting| setting.source == DYNAMIC_TOPIC);
    Ok(own.map(|setting| (setting.key, setting.value)).collect())
}

fn settings(client: &mut Client, kind: Kind, name: &str) -> Result<Vec<Setting>, ClientError> {
    // Only a broker itself knows its file.
    let to = match name.parse() {
        Ok(node) if kind == Kind::Brokers => To::Node(node),
        _ => To::Any,
    };
    client.retry(|client| {
        let resource = DescribeConfigsResource {
            resource_type: kind.code(),
            resource_name: name,
            configuration_keys: None,
            ..Default::default()
        };
        let resources = vec![resource].into();
        let request = DescribeConfigsRequest { resources, ..Default::default() };
        let answer = client.call(to, &request, 1..=4)?;
        let result = answer.results.first().unwrap_or_default();
        refuse(result.error_code, result.error_message, || format!("{} {name}", kind.word()))?;
        let setting = |config: millrace_wire::messages::describe_configs_response::DescribeConfigsResourceResult<'_>| Setting {
            key: config.name.to_owned(),
            value: config.value.map(str::to_owned),
            source: config.config_source,
        };
        let mut settings: Vec<Setting> = result.configs.iter().map(setting).collect();
        settings.sort_by(|left, right| left.key.cmp(&right.key));
        Ok(settings)
    })
}

/// Kafka: `ConfigEntry.ConfigSource`.
fn source_name(source: i8) -> &'static str {
    match source {
        1 => "DYNAMIC_TOPIC_CONFIG",
        2 => "DYNAMIC_BROKER_CONFIG",
        3 => "DYNAMIC_DEFAULT_BROKER_CONFIG",
        4 => "STATIC_BROKER_CONFIG",
        5 => "DEFAULT_CONFIG",
        _ => "UNKNOWN",
    }
}

/// `a=1,b=[2,3]` as pairs: a comma in brackets belongs to the value.
fn split_list(text: &str) -> Result<Vec<(String, String)>> {
    let (mut pairs, mut start, mut depth) = (Vec::new(), 0, 0);
    for (index, letter) in text.char_indices().chain([(text.len(), ',')]) {
        match letter {
            '[' => depth += 1,
            ']' => depth -= 1,
            ',' if depth == 0 || index == text.len() => {
                let (key, value) = split_pair(text[start..index].trim())?;
                let inner = value.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
                pairs.push((key.trim().to_owned(), inner.unwrap_or(value).to_owned()));
                start = index + 1;
            }
            _ => {}
        }
    }
    Ok(pairs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_settings_are_split_outside_brackets() {
        let rows: [(&str, &[(&str, &str)]); 4] = [
            ("a=1", &[("a", "1")]),
            ("a=1, b=2", &[("a", "1"), ("b", "2")]),
            ("p=[compact,delete],b=", &[("p", "compact,delete"), ("b", "")]),
            ("a=x=y", &[("a", "x=y")]),
        ];
        for (text, expected) in rows {
            let pairs = split_list(text).expect(text);
            let pairs: Vec<(&str, &str)> = pairs.iter().map(|(k, v)| (&k[..], &v[..])).collect();
            assert_eq!(pairs, expected, "{text}");
        }
        for text in ["", "a", "a=1,", "=1"] {
            assert!(split_list(text).is_err(), "{text}");
        }
    }
}
