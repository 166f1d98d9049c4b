//! The rows of DescribeConfigs: every key with its value, where that comes from, and what would be
//! in force without it. Order and sources follow Kafka's `ConfigHelper`.

use super::broker::{Config, ConfigMap, Layers};
use super::key::{Dynamic, Key, Kind};
use super::topic::{own_value, public_topic_keys};
use super::{BROKER_KEYS, GROUP_KEYS, broker_key};

/// Where a value comes from, with the protocol's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub enum Source {
    Topic = 1,
    DynamicBroker = 2,
    DynamicDefaultBroker = 3,
    StaticBroker = 4,
    Default = 5,
    Group = 8,
}

/// One value of a key or of a key it inherits from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub struct Synonym {
    pub name: &'static str,
    pub value: Option<String>,
    pub source: Source,
}

/// One row of the answer.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // the names say it
pub struct Described {
    pub key: &'static Key,
    /// `None` is null; always so for passwords.
    pub value: Option<String>,
    pub source: Source,
    pub is_read_only: bool,
    pub is_sensitive: bool,
    /// From the value in force to the default.
    pub synonyms: Vec<Synonym>,
}

/// Keys that share one meaning in different units; describing one shows all.
const UNITS: &[&[&str]] = &[
    &["log.roll.ms", "log.roll.hours"],
    &["log.roll.jitter.ms", "log.roll.jitter.hours"],
    &["log.flush.interval.ms", "log.flush.scheduler.interval.ms"],
    &["log.retention.ms", "log.retention.minutes", "log.retention.hours"],
];

fn broker_synonyms(layers: &Layers, name: &'static str) -> Vec<Synonym> {
    let single = [name];
    let names = UNITS.iter().copied().find(|names| names.contains(&name)).unwrap_or(&single);
    let of_settings = |name: &str| layers.settings.get(name).map(|setting| setting.value.clone());
    let of_table = |name: &str| broker_key(name)?.default.map(str::to_owned);
    type Find<'a> = &'a dyn Fn(&str) -> Option<String>;
    let sources: [(Source, Find<'_>); 4] = [
        (Source::DynamicBroker, &|name| layers.dynamic_broker.get(name).cloned()),
        (Source::DynamicDefaultBroker, &|name| layers.dynamic_default.get(name).cloned()),
        (Source::StaticBroker, &of_settings),
        (Source::Default, &of_table),
    ];
    let all = sources.iter().flat_map(|(source, find)| {
        names.iter().filter_map(move |name| {
            Some(Synonym { name, value: Some(find(name)?), source: *source })
        })
    });
    // Kafka drops what stands before the key's own first entry.
    all.skip_while(|synonym| synonym.name != name).collect()
}

impl Config {
    /// Rows for a topic with these settings of its own.
    pub fn describe_topic(&self, own: &ConfigMap) -> Vec<Described> {
        self.describe_own(public_topic_keys(), own, Source::Topic)
    }

    /// Rows for a group with these settings of its own.
    pub fn describe_group(&self, own: &ConfigMap) -> Vec<Described> {
        self.describe_own(GROUP_KEYS.iter(), own, Source::Group)
    }

    fn describe_own(
        &self,
        keys: impl Iterator<Item = &'static Key>,
        own: &ConfigMap,
        source: Source,
    ) -> Vec<Described> {
        keys.map(|key| {
            let value = own_value(&self.layers, own, key).map(|v| v.into_owned());
            let mut synonyms = key
                .inherits
                .first()
                .map(|(name, _)| broker_synonyms(&self.layers, name))
                .unwrap_or_default();
            if let Some(value) = own.get(key.name) {
                let value = Some(value.clone());
                synonyms.insert(0, Synonym { name: key.name, value, source });
            }
            row(key, value, false, synonyms)
        })
        .collect()
    }

    /// Rows for this broker.
    pub fn describe_broker(&self) -> Vec<Described> {
        // Rates are listed where they are set: they have no static form in Kafka.
        let is_set = |key: &Key| {
            let Layers { dynamic_broker, dynamic_default, .. } = &self.layers;
            dynamic_broker.contains_key(key.name) || dynamic_default.contains_key(key.name)
        };
        let is_rate = |key: &Key| {
            key.name.ends_with("throttled.rate")
                || key.name.ends_with("dirs.io.max.bytes.per.second")
        };
        let public =
            BROKER_KEYS.iter().filter(|key| !key.is_internal() && (!is_rate(key) || is_set(key)));
        public
            .map(|key| {
                let value = self.layers.value(key.name).map(|value| value.into_owned());
                let read_only = key.dynamic == Dynamic::No;
                row(key, value, read_only, broker_synonyms(&self.layers, key.name))
            })
            .collect()
    }

    /// Rows for the settings of all brokers: only those that are set.
    pub fn describe_all_brokers(&self) -> Vec<Described> {
        let is_set = |key: &Key| self.layers.dynamic_default.contains_key(key.name);
        self.describe_broker()
            .into_iter()
            .filter(|row| is_set(row.key))
            .map(|mut row| {
                row.synonyms.retain(|synonym| synonym.source == Source::DynamicDefaultBroker);
                row.source = Source::DynamicDefaultBroker;
                let value = self.layers.dynamic_default.get(row.key.name);
                row.value = value.filter(|_| !row.is_sensitive).cloned();
                row
            })
            .collect()
    }
}

fn row(
    key: &'static Key,
    value: Option<String>,
    is_read_only: bool,
    mut synonyms: Vec<Synonym>,
) -> Described {
    let is_sensitive = key.kind == Kind::Password;
    if is_sensitive {
        synonyms.iter_mut().for_each(|synonym| synonym.value = None);
    }
    let source = synonyms.first().map_or(Source::Default, |synonym| synonym.source);
    let value = value.filter(|_| !is_sensitive);
    Described { key, value, source, is_read_only, is_sensitive, synonyms }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_value_source_and_synonyms() {
        let mut config =
            Config::of([("log.retention.hours", "1"), ("log.segment.bytes", "2000000")])
                .expect("legal values");
        let default = ConfigMap::from([("log.segment.bytes".to_owned(), "3000000".to_owned())]);
        config = config.with_dynamic(&default, &ConfigMap::new()).expect("a legal value");
        let own = ConfigMap::from([("flush.messages".to_owned(), "1".to_owned())]);
        let rows = config.describe_topic(&own);
        let found = |name: &str| {
            let row = rows.iter().find(|row| row.key.name == name).expect("every key is listed");
            let synonyms: Vec<_> = row
                .synonyms
                .iter()
                .map(|s| {
                    format!("{}={}:{}", s.name, s.value.clone().unwrap_or_default(), s.source as i8)
                })
                .collect();
            (row.value.clone().unwrap_or_default(), row.source as i8, synonyms.join(" "))
        };
        let rows = [
            ("retention.ms", "3600000", 5, ""),
            (
                "segment.bytes",
                "3000000",
                3,
                "log.segment.bytes=3000000:3 log.segment.bytes=2000000:4 log.segment.bytes=1073741824:5",
            ),
            (
                "flush.messages",
                "1",
                1,
                "flush.messages=1:1 log.flush.interval.messages=9223372036854775807:5",
            ),
            ("remote.storage.enable", "false", 5, ""),
            ("min.insync.replicas", "1", 5, "min.insync.replicas=1:5"),
        ];
        for (name, value, source, synonyms) in rows {
            assert_eq!(found(name), (value.to_owned(), source, synonyms.to_owned()), "{name}");
        }
        assert_eq!(config.describe_all_brokers().len(), 1);
    }

    #[test]
    fn lists_the_topic_keys_of_kafka_4_3() {
        assert_eq!(public_topic_keys().count(), 33);
        let rows = Config::default().describe_topic(&ConfigMap::new());
        assert!(rows.iter().all(|row| row.source == Source::Default));
    }
}
