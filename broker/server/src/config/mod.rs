//! Kafka's `server.properties` names and our own: one table of keys, and all that is made from it.
//!
//! `broker_keys`, `topic_keys` and `group_keys` are the tables; `settings` merges file,
//! `environment`, command line and code and refuses what is wrong; `broker` and `topic` are the
//! typed values; `describe` answers DescribeConfigs; `reference` writes the documentation.

mod broker;
mod broker_keys;
mod by_topic;
mod describe;
mod environment;
mod group_keys;
pub mod key;
mod listener;
mod obsolete;
pub mod properties;
pub mod reference;
mod settings;
mod topic;
mod topic_keys;
mod typed;

pub(crate) use broker::absolute;
pub use broker::{Config, ConfigMap, Groups, Logs, MetadataLog, Own, Sockets, Topics};
pub use broker_keys::BROKER_KEYS;
pub use by_topic::{AcksAll, ByTopic, WriteMode};
pub use describe::{Described, Source, Synonym};
pub use group_keys::GROUP_KEYS;
pub use key::{BadValue, Key};
pub use listener::{Listener, Listeners};
pub use settings::{ConfigError, Origin};
pub use topic::{CleanupPolicy, StoredCodec, TimestampType, TopicConfig, check_group, check_topic};
pub use topic_keys::TOPIC_KEYS;

/// The broker key of this name.
pub fn broker_key(name: &str) -> Option<&'static Key> {
    find(BROKER_KEYS, name)
}

/// The topic key of this name.
pub fn topic_key(name: &str) -> Option<&'static Key> {
    find(TOPIC_KEYS, name)
}

/// The key of a group's settings of this name.
pub fn group_key(name: &str) -> Option<&'static Key> {
    find(GROUP_KEYS, name)
}

/// Invariant: the tables are sorted by name.
fn find(table: &'static [Key], name: &str) -> Option<&'static Key> {
    table.binary_search_by(|key| key.name.cmp(name)).ok().map(|index| &table[index])
}

#[cfg(test)]
mod tests;
