//! Changing settings of topics, brokers and groups (`ConfigurationControlManager`,
//! `DynamicBrokerConfig`).

use std::collections::{BTreeMap, BTreeSet};

use millrace_wire::ErrorCode;
use millrace_wire::messages::{AlterConfigsRequest, IncrementalAlterConfigsRequest};

use super::{Controller, Refusal, refuse};
use crate::config::key::{Dynamic, Kind, split_list};
use crate::config::{
    Config, ConfigMap, Key, broker_key, check_group, check_topic, group_key, topic_key,
};
use crate::metadata::checkpoint::config_record;
use crate::metadata::record::{MetadataRecord, ResourceType};

/// What was decided on one resource.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub struct AlteredConfig {
    pub resource_type: i8,
    pub resource_name: String,
    pub outcome: Result<(), Refusal>,
}

/// One change of one key.
enum Operation<'a> {
    Set(&'a str),
    Delete,
    Append(&'a str),
    Subtract(&'a str),
}

type Operations<'a> = Vec<(&'a str, Operation<'a>)>;

impl Controller<'_> {
    /// Decides an IncrementalAlterConfigs request: all changes of a resource, or none.
    pub fn incremental_alter_configs(
        &self,
        request: &IncrementalAlterConfigsRequest<'_>,
    ) -> (Vec<MetadataRecord>, Vec<AlteredConfig>) {
        let resources = request.resources.iter().map(|resource| {
            let mut operations: Result<Operations<'_>, Refusal> = Ok(Vec::new());
            for config in resource.configs.iter() {
                let operation = operation(config.name, config.config_operation, config.value);
                match (&mut operations, operation) {
                    (Ok(list), Ok(operation)) => list.push((config.name, operation)),
                    (Ok(_), Err(refusal)) => operations = Err(refusal),
                    (Err(_), _) => {}
                }
            }
            (resource.resource_type, resource.resource_name, operations)
        });
        self.alter(resources, request.validate_only, true)
    }

    /// Decides an AlterConfigs request: what is not named goes back to its default.
    pub fn alter_configs(
        &self,
        request: &AlterConfigsRequest<'_>,
    ) -> (Vec<MetadataRecord>, Vec<AlteredConfig>) {
        let resources = request.resources.iter().map(|resource| {
            let operations = resource.configs.iter().map(|config| match config.value {
                Some(value) => Ok((config.name, Operation::Set(value))),
                None => null_value(config.name),
            });
            (resource.resource_type, resource.resource_name, operations.collect())
        });
        self.alter(resources, request.validate_only, false)
    }

    fn alter<'a>(
        &self,
        resources: impl Iterator<Item = (i8, &'a str, Result<Operations<'a>, Refusal>)> + Clone,
        validate_only: bool,
        incremental: bool,
    ) -> (Vec<MetadataRecord>, Vec<AlteredConfig>) {
        let mut counts: BTreeMap<(i8, &str), usize> = BTreeMap::new();
        for (kind, name, _) in resources.clone() {
            *counts.entry((kind, name)).or_default() += 1;
        }
        let mut records = Vec::new();
        let mut answers = Vec::new();
        for (resource_type, name, operations) in resources {
            let outcome = if counts[&(resource_type, name)] > 1 {
                refuse(ErrorCode::INVALID_REQUEST, "Each resource must appear at most once.")
            } else {
                operations.and_then(|operations| {
                    self.alter_one(resource_type, name, &operations, incremental)
                })
            };
            let outcome = outcome.map(|changes| {
                if !validate_only {
                    records.extend(changes);
                }
            });
            let resource_name = name.to_owned();
            answers.push(AlteredConfig { resource_type, resource_name, outcome });
        }
        (records, answers)
    }

    fn alter_one(
        &self,
        resource_type: i8,
        name: &str,
        operations: &Operations<'_>,
        incremental: bool,
    ) -> Result<Vec<MetadataRecord>, Refusal> {
        let keys: BTreeSet<&str> = operations.iter().map(|(key, _)| *key).collect();
        if keys.len() != operations.len() {
            return refuse(ErrorCode::INVALID_REQUEST, "Error due to duplicate config keys");
        }
        let kind = ResourceType::from_code(resource_type);
        let present = match kind {
            Some(ResourceType::Topic) => self.topic_configs(name)?,
            Some(ResourceType::Broker) => self.broker_configs(name)?,
            Some(ResourceType::BrokerLogger) => {
                let logger = operations.first().map_or("", |(key, _)| key);
                let message = format!("Logger {logger} does not exist!");
                return refuse(ErrorCode::INVALID_CONFIG, message);
            }
            Some(ResourceType::Group) => self.group_configs(name)?,
            Some(ResourceType::ClientMetrics) => {
                let message = "Settings of client metrics are not built.";
                return refuse(ErrorCode::INVALID_CONFIG, message);
            }
            None => {
                let message = format!("Unexpected resource type {resource_type}.");
                return refuse(ErrorCode::INVALID_REQUEST, message);
            }
        };
        let kind = kind.expect("none was refused");
        let table = match kind {
            ResourceType::Topic => topic_key,
            ResourceType::Group => group_key,
            _ => broker_key,
        };
        let mut new = if incremental { present.clone() } else { ConfigMap::new() };
        for (key, operation) in operations {
            apply(&mut new, key, operation, table(key))?;
        }
        let invalid = |message| refuse(ErrorCode::INVALID_CONFIG, message);
        match kind {
            ResourceType::Topic => {
                let given = new.iter().map(|(key, value)| (key.as_str(), Some(value.as_str())));
                check_topic(self.config, given).map(drop).or_else(invalid)?;
            }
            ResourceType::Group => check_group(self.config, &new).or_else(invalid)?,
            _ => check_broker(self.config, &new, &present)?,
        }
        let gone = present.keys().filter(|key| !new.contains_key(*key));
        let gone = gone.map(|key| config_record(kind, name, key, None));
        let changed = new.iter().filter(|(key, value)| present.get(*key) != Some(*value));
        let changed = changed.map(|(key, value)| config_record(kind, name, key, Some(value)));
        Ok(gone.chain(changed).collect())
    }

    fn topic_configs(&self, name: &str) -> Result<ConfigMap, Refusal> {
        if name.is_empty() {
            let message = "Default topic resources are not allowed.";
            return refuse(ErrorCode::INVALID_REQUEST, message);
        }
        match self.image.topic(name) {
            Some(topic) => Ok(topic.config.clone()),
            None => {
                super::check_name(name)?;
                let message = format!("The topic '{name}' does not exist.");
                refuse(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION, message)
            }
        }
    }

    fn group_configs(&self, name: &str) -> Result<ConfigMap, Refusal> {
        if name.is_empty() {
            let message = "Default group resources are not allowed.";
            return refuse(ErrorCode::INVALID_REQUEST, message);
        }
        Ok(self.image.configs(ResourceType::Group, name).cloned().unwrap_or_default())
    }

    fn broker_configs(&self, name: &str) -> Result<ConfigMap, Refusal> {
        let own = self.config.node_id.to_string();
        if !name.is_empty() && name != own {
            let message = format!(
                "Unexpected broker id, expected {own} or empty string, but received {name}"
            );
            return refuse(ErrorCode::INVALID_REQUEST, message);
        }
        Ok(self.image.configs(ResourceType::Broker, name).cloned().unwrap_or_default())
    }
}

fn null_value<T>(key: &str) -> Result<T, Refusal> {
    refuse(ErrorCode::INVALID_REQUEST, format!("Null value not supported for : {key}"))
}

fn operation<'a>(key: &str, code: i8, value: Option<&'a str>) -> Result<Operation<'a>, Refusal> {
    let value = || value.map_or_else(|| null_value(key), Ok);
    match code {
        0 => value().map(Operation::Set),
        1 => Ok(Operation::Delete),
        2 => value().map(Operation::Append),
        3 => value().map(Operation::Subtract),
        _ => refuse(ErrorCode::INVALID_REQUEST, format!("Unknown operation type {code}")),
    }
}

fn apply(
    configs: &mut ConfigMap,
    name: &str,
    operation: &Operation<'_>,
    key: Option<&Key>,
) -> Result<(), Refusal> {
    let (verb, change) = match operation {
        Operation::Set(value) => {
            configs.insert(name.to_owned(), (*value).to_owned());
            return Ok(());
        }
        Operation::Delete => {
            configs.remove(name);
            return Ok(());
        }
        Operation::Append(value) => ("APPEND", *value),
        Operation::Subtract(value) => ("SUBTRACT", *value),
    };
    if key.is_none_or(|key| key.kind != Kind::List) {
        let message = format!("Can't {verb} to key {name} because its type is not LIST.");
        return refuse(ErrorCode::INVALID_CONFIG, message);
    }
    let default = key.and_then(|key| key.default).unwrap_or_default();
    let present = configs.get(name).map_or(default, String::as_str);
    let mut elements: Vec<&str> = split_list(present).collect();
    for element in split_list(change) {
        let is_there = elements.contains(&element);
        match operation {
            Operation::Append(_) if !is_there => elements.push(element),
            Operation::Subtract(_) => elements.retain(|other| *other != element),
            _ => {}
        }
    }
    let value = elements.join(",");
    configs.insert(name.to_owned(), value);
    Ok(())
}

/// Checks the new dynamic settings of a broker, or of all.
fn check_broker(config: &Config, new: &ConfigMap, present: &ConfigMap) -> Result<(), Refusal> {
    let changed = || new.iter().filter(|(key, value)| present.get(*key) != Some(*value));
    let known = |key: &str| broker_key(key);
    let fixed: Vec<&str> = changed()
        .map(|(key, _)| key.as_str())
        .filter(|key| known(key).is_some_and(|key| key.dynamic == Dynamic::No))
        .collect();
    if !fixed.is_empty() {
        let message = format!("Cannot update these configs dynamically: [{}]", fixed.join(", "));
        return refuse(ErrorCode::INVALID_REQUEST, message);
    }
    for (name, value) in changed() {
        // Kafka keeps unknown keys for plug-ins; there are none here, so a typo is told.
        let Some(key) = known(name) else {
            let message = format!("Unknown broker config name: {name}");
            return refuse(ErrorCode::INVALID_REQUEST, message);
        };
        if let Err(bad) = key.check(value) {
            return refuse(ErrorCode::INVALID_REQUEST, bad.to_string());
        }
        if name == "cordoned.log.dirs"
            && let Some(dir) = config.unknown_folder(value)
        {
            let message = format!(
                "All entries in {name} must be present in log.dirs or log.dir. Missing entries : \
                 {dir}"
            );
            return refuse(ErrorCode::INVALID_REQUEST, message);
        }
    }
    Ok(())
}
