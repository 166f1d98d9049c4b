//! A topic's settings: its own, else what the broker's keys give, else Kafka's defaults.

use std::borrow::Cow;
use std::cmp::Ordering;

use millrace_wire::compression::Compression;

use super::broker::{Config, ConfigMap, Layers};
use super::key::{Key, Treatment};
use super::typed::{FromText, typed};
use super::{TOPIC_KEYS, group_key, topic_key};

/// Codec in which batches are stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum StoredCodec {
    /// Whatever the client sent.
    Producer,
    Uncompressed,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl FromText for StoredCodec {
    fn from_text(text: Option<&str>) -> Option<Self> {
        Some(match text? {
            "producer" => Self::Producer,
            "uncompressed" => Self::Uncompressed,
            "gzip" => Self::Gzip,
            "snappy" => Self::Snappy,
            "lz4" => Self::Lz4,
            "zstd" => Self::Zstd,
            _ => return None,
        })
    }
}

impl TopicConfig {
    /// How a batch that came in with `source` is stored, and at which level if that is not the
    /// usual one.
    pub fn stored_compression(&self, source: Compression) -> (Compression, Option<i32>) {
        match self.compression {
            StoredCodec::Producer => (source, None),
            StoredCodec::Uncompressed => (Compression::None, None),
            StoredCodec::Gzip => (Compression::Gzip, Some(self.gzip_level)),
            StoredCodec::Snappy => (Compression::Snappy, None),
            StoredCodec::Lz4 => (Compression::Lz4, None),
            StoredCodec::Zstd => (Compression::Zstd, Some(self.zstd_level)),
        }
    }
}

/// Whose clock stamps records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimestampType {
    /// The producer's.
    CreateTime,
    /// The broker's, when it appends.
    LogAppendTime,
}

impl FromText for TimestampType {
    fn from_text(text: Option<&str>) -> Option<Self> {
        match text? {
            "CreateTime" => Some(Self::CreateTime),
            "LogAppendTime" => Some(Self::LogAppendTime),
            _ => None,
        }
    }
}

/// What happens to old segments: either, both or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanupPolicy {
    /// They go by time and size.
    pub delete: bool,
    /// The last record of each key stays.
    pub compact: bool,
}

impl FromText for CleanupPolicy {
    fn from_text(text: Option<&str>) -> Option<Self> {
        let has = |policy| super::key::split_list(text.unwrap_or_default()).any(|p| p == policy);
        Some(Self { delete: has("delete"), compact: has("compact") })
    }
}

typed! {
    /// Settings of one topic, all decided.
    pub struct TopicConfig {
        cleanup_policy: CleanupPolicy = "cleanup.policy",
        compression: StoredCodec = "compression.type",
        gzip_level: i32 = "compression.gzip.level",
        lz4_level: i32 = "compression.lz4.level",
        zstd_level: i32 = "compression.zstd.level",
        delete_retention_ms: i64 = "delete.retention.ms",
        file_delete_delay_ms: i64 = "file.delete.delay.ms",
        flush_messages: i64 = "flush.messages",
        flush_ms: i64 = "flush.ms",
        index_interval_bytes: i32 = "index.interval.bytes",
        internal_segment_bytes: Option<i32> = "internal.segment.bytes",
        max_compaction_lag_ms: i64 = "max.compaction.lag.ms",
        max_message_bytes: i32 = "max.message.bytes",
        timestamp_after_max_ms: i64 = "message.timestamp.after.max.ms",
        timestamp_before_max_ms: i64 = "message.timestamp.before.max.ms",
        timestamp_type: TimestampType = "message.timestamp.type",
        min_cleanable_ratio: f64 = "min.cleanable.dirty.ratio",
        min_compaction_lag_ms: i64 = "min.compaction.lag.ms",
        min_insync_replicas: i32 = "min.insync.replicas",
        retention_bytes: i64 = "retention.bytes",
        retention_ms: i64 = "retention.ms",
        segment_bytes: i32 = "segment.bytes",
        segment_index_bytes: i32 = "segment.index.bytes",
        segment_jitter_ms: i64 = "segment.jitter.ms",
        segment_ms: i64 = "segment.ms",
    }
}

impl Config {
    /// The settings of a topic that has these of its own. They were checked by [`check_topic`]
    /// when they were stored.
    pub fn topic(&self, own: &ConfigMap) -> TopicConfig {
        let mut config = TopicConfig::read(|name| topic_value(&self.layers, own, name));
        if let Some(bytes) = config.internal_segment_bytes {
            config.segment_bytes = bytes;
        }
        config
    }
}

/// The value in force for a topic key.
pub(super) fn topic_value<'a>(
    layers: &'a Layers,
    own: &'a ConfigMap,
    name: &str,
) -> Option<Cow<'a, str>> {
    own_value(layers, own, topic_key(name)?)
}

/// The value in force for a key of a topic or of a group.
pub(super) fn own_value<'a>(
    layers: &'a Layers,
    own: &'a ConfigMap,
    key: &Key,
) -> Option<Cow<'a, str>> {
    let set = own.get(key.name).map(|value| Cow::Borrowed(value.as_str()));
    set.or_else(|| inherited(layers, key)).or_else(|| key.default.map(Cow::Borrowed))
}

fn inherited<'a>(layers: &'a Layers, key: &Key) -> Option<Cow<'a, str>> {
    let (value, factor) = key
        .inherits
        .iter()
        .find_map(|(broker_key, factor)| Some((layers.value(broker_key)?, *factor)))?;
    if key.name != "retention.ms" && factor == 1 {
        return Some(value);
    }
    let number: i64 = value.trim().parse().ok()?;
    // Kafka keeps any negative retention as -1.
    let number = if key.name == "retention.ms" && number < 0 { -1 } else { number * factor };
    Some(Cow::Owned(number.to_string()))
}

const TIERED_REFUSAL: &str = "Tiered Storage functionality is disabled in the broker. Topic \
                              cannot be configured with remote log storage.";

/// Checks settings that someone wants to give to a topic; `None` is a null value.
///
/// # Errors
/// Text for INVALID_CONFIG (40), as Kafka words it.
pub fn check_topic<'a>(
    config: &Config,
    own: impl IntoIterator<Item = (&'a str, Option<&'a str>)>,
) -> Result<ConfigMap, String> {
    let mut map = ConfigMap::new();
    let mut nulls = Vec::new();
    for (name, value) in own {
        match value {
            Some(value) => drop(map.insert(name.to_owned(), value.to_owned())),
            None => nulls.push(name),
        }
    }
    if !nulls.is_empty() {
        return Err(format!("Null value not supported for topic configs: {}", nulls.join(",")));
    }
    for (name, value) in &map {
        let Some(key) = topic_key(name) else {
            return Err(format!("Unknown topic config name: {name}"));
        };
        key.check(value).map_err(|bad| bad.to_string())?;
        let is_default = key.default == Some(value.trim());
        if let (Treatment::Refused(reason), false) = (key.treatment, is_default) {
            return Err(match name.as_str() {
                "remote.storage.enable" => TIERED_REFUSAL.into(),
                _ => format!("Invalid value {value} for configuration {name}: {reason}"),
            });
        }
    }
    let decided = config.topic(&map);
    let (least, most) = (decided.min_compaction_lag_ms, decided.max_compaction_lag_ms);
    if least > most {
        return Err(format!(
            "conflict topic config setting min.compaction.lag.ms ({least}) > \
             max.compaction.lag.ms ({most})"
        ));
    }
    Ok(map)
}

/// Checks settings that someone wants to give to a group, also against the broker's bounds.
///
/// # Errors
/// Text for INVALID_CONFIG (40), as Kafka words it.
pub fn check_group(config: &Config, own: &ConfigMap) -> Result<(), String> {
    for (name, value) in own {
        let key = group_key(name).ok_or_else(|| format!("Unknown group config name: {name}"))?;
        key.check(value).map_err(|bad| bad.to_string())?;
        let (kind, rest) = name.split_once('.').expect("each key is of one kind of group");
        let number = |text: &str| text.trim().parse::<i64>().ok();
        for (bound, order, than) in
            [("min", Ordering::Less, "greater"), ("max", Ordering::Greater, "less")]
        {
            let bound = format!("group.{kind}.{bound}.{rest}");
            let limit = config.layers.value(&bound).and_then(|limit| number(&limit));
            if number(value).zip(limit).is_some_and(|(value, limit)| value.cmp(&limit) == order) {
                return Err(format!("{name} must be {than} than or equal to {bound}"));
            }
        }
    }
    Ok(())
}

/// Names of the topic keys that DescribeConfigs lists.
pub(super) fn public_topic_keys() -> impl Iterator<Item = &'static Key> {
    TOPIC_KEYS.iter().filter(|key| !key.is_internal())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_in_kafkas_words() {
        // Texts printed by LogConfig.validate of Kafka 4.3.1 for the same values.
        let rows = [
            (
                "retention.ms",
                "abc",
                "Invalid value abc for configuration retention.ms: Not a number of type LONG",
            ),
            (
                "retention.ms",
                "-2",
                "Invalid value -2 for configuration retention.ms: Value must be at least -1",
            ),
            (
                "retention.ms",
                "",
                "Invalid value  for configuration retention.ms: Not a number of type LONG",
            ),
            (
                "compression.type",
                "x",
                "Invalid value x for configuration compression.type: String must be one of: uncompressed, zstd, lz4, snappy, gzip, producer",
            ),
            (
                "cleanup.policy",
                "delete,x",
                "Invalid value x for configuration cleanup.policy: String must be one of: compact, delete",
            ),
            (
                "min.insync.replicas",
                "0",
                "Invalid value 0 for configuration min.insync.replicas: Value must be at least 1",
            ),
            (
                "segment.bytes",
                "13",
                "Invalid value 13 for configuration segment.bytes: Value must be at least 1048576",
            ),
            (
                "segment.bytes",
                "1.5",
                "Invalid value 1.5 for configuration segment.bytes: Not a number of type INT",
            ),
            (
                "segment.bytes",
                "0x10",
                "Invalid value 0x10 for configuration segment.bytes: Not a number of type INT",
            ),
            (
                "max.message.bytes",
                "2147483648",
                "Invalid value 2147483648 for configuration max.message.bytes: Not a number of type INT",
            ),
            (
                "min.cleanable.dirty.ratio",
                "2",
                "Invalid value 2.0 for configuration min.cleanable.dirty.ratio: Value must be no more than 1",
            ),
            (
                "min.cleanable.dirty.ratio",
                "x",
                "Invalid value x for configuration min.cleanable.dirty.ratio: Not a number of type DOUBLE",
            ),
            (
                "preallocate",
                "yes",
                "Invalid value yes for configuration preallocate: Expected value to be either true or false",
            ),
            (
                "compression.gzip.level",
                "0",
                "Invalid value 0 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1",
            ),
            (
                "compression.lz4.level",
                "18",
                "Invalid value 18 for configuration compression.lz4.level: Value must be no more than 17",
            ),
            (
                "follower.replication.throttled.replicas",
                "x",
                "Invalid value [x] for configuration follower.replication.throttled.replicas: follower.replication.throttled.replicas must be the literal '*' or a list of replicas in the following format: [partitionId]:[brokerId],[partitionId]:[brokerId],...",
            ),
            (
                "local.retention.ms",
                "-3",
                "Invalid value -3 for configuration local.retention.ms: Value must be at least -2",
            ),
            ("foo", "1", "Unknown topic config name: foo"),
            (
                "max.compaction.lag.ms",
                "0",
                "Invalid value 0 for configuration max.compaction.lag.ms: Value must be at least 1",
            ),
        ];
        let config = Config::default();
        for (key, value, text) in rows {
            assert_eq!(check_topic(&config, [(key, Some(value))]), Err(text.to_owned()));
        }
        let both = [("min.compaction.lag.ms", Some("10")), ("max.compaction.lag.ms", Some("5"))];
        let text =
            "conflict topic config setting min.compaction.lag.ms (10) > max.compaction.lag.ms (5)";
        assert_eq!(check_topic(&config, both), Err(text.into()));
        let text = "Null value not supported for topic configs: flush.ms";
        assert_eq!(check_topic(&config, [("flush.ms", None)]), Err(text.into()));
    }

    #[test]
    fn takes_what_kafka_takes() {
        let config = Config::default();
        for (key, value) in [
            ("cleanup.policy", ""),
            ("cleanup.policy", "delete,compact"),
            ("preallocate", "TRUE"),
            ("max.message.bytes", " 64000 "),
            ("segment.bytes", "+5000000"),
            ("retention.bytes", "-5"),
            ("follower.replication.throttled.replicas", "*"),
            ("follower.replication.throttled.replicas", "0:1,2:3"),
            ("internal.segment.bytes", "100"),
            ("compression.gzip.level", "-1"),
        ] {
            let own = check_topic(&config, [(key, Some(value))]);
            config.topic(&own.expect("Kafka takes it"));
        }
    }

    #[test]
    fn inherits_from_the_broker_in_kafkas_order() {
        let rows: &[(&[(&str, &str)], i64)] = &[
            (&[], 604_800_000),
            (&[("log.retention.hours", "1")], 3_600_000),
            (&[("log.retention.hours", "1"), ("log.retention.minutes", "1")], 60_000),
            (&[("log.retention.minutes", "1"), ("log.retention.ms", "1")], 1),
            (&[("log.retention.hours", "-1")], -1),
        ];
        for (set, expected) in rows {
            let config = Config::of(set.iter().copied()).expect("legal values");
            assert_eq!(config.topic(&ConfigMap::new()).retention_ms, *expected, "{set:?}");
        }
        let config = Config::of([("message.max.bytes", "5")]).expect("a legal value");
        assert_eq!(config.topic(&ConfigMap::new()).max_message_bytes, 5);
        let default = ConfigMap::from([("message.max.bytes".to_owned(), "6".to_owned())]);
        let node = ConfigMap::from([("message.max.bytes".to_owned(), "7".to_owned())]);
        let dynamic = config.with_dynamic(&default, &ConfigMap::new()).expect("a legal value");
        assert_eq!(dynamic.topic(&ConfigMap::new()).max_message_bytes, 6);
        let dynamic = config.with_dynamic(&default, &node).expect("a legal value");
        assert_eq!(dynamic.topic(&ConfigMap::new()).max_message_bytes, 7);
        let own = ConfigMap::from([("max.message.bytes".to_owned(), "8".to_owned())]);
        assert_eq!(dynamic.topic(&own).max_message_bytes, 8);
    }
}
