//! The broker's configuration as typed values, read from defaults, file, command line and the
//! dynamic settings kept in the metadata.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::broker_key;
use super::by_topic::{AcksAll, ByTopic, WriteMode};
use super::key::PerAddress;
use super::listener::{self, Listeners};
use super::settings::{ConfigError, Origin, Settings};
use super::typed::typed;

/// Values by key, as the metadata keeps them.
pub type ConfigMap = BTreeMap<String, String>;

/// All sources of broker values; the first that has one wins: this broker's dynamic settings, those
/// of all brokers, what the user set, the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Layers {
    pub(super) dynamic_broker: ConfigMap,
    pub(super) dynamic_default: ConfigMap,
    pub(super) settings: Settings,
}

impl Layers {
    /// The value in force; `None` is Kafka's null.
    pub(super) fn value(&self, key: &str) -> Option<Cow<'_, str>> {
        let dynamic = self.dynamic_broker.get(key).or_else(|| self.dynamic_default.get(key));
        let set = dynamic.or_else(|| self.settings.get(key).map(|setting| &setting.value));
        set.map(|value| Cow::Borrowed(value.as_str()))
            .or_else(|| Some(Cow::Borrowed(broker_key(key)?.default?)))
    }
}

typed! {
    /// Sockets and connections.
    pub struct Sockets {
        request_bytes_max: i32 = "socket.request.max.bytes",
        queued_bytes_max: i64 = "queued.max.request.bytes",
        connections_max: i32 = "max.connections",
        connections_per_ip_max: i32 = "max.connections.per.ip",
        connections_per_ip_overrides: PerAddress = "max.connections.per.ip.overrides",
        idle_ms_max: i64 = "connections.max.idle.ms",
    }
}
typed! {
    /// How topics come and go, and what a request may ask for.
    pub struct Topics {
        auto_create: bool = "auto.create.topics.enable",
        delete_enabled: bool = "delete.topic.enable",
        partitions: i32 = "num.partitions",
        replication_factor: i32 = "default.replication.factor",
        fetch_bytes_max: i32 = "fetch.max.bytes",
        fetch_sessions_max: i32 = "max.incremental.fetch.session.cache.slots",
    }
}
typed! {
    /// Housekeeping of logs that is not a matter of single topics.
    pub struct Logs {
        retention_check_ms: i64 = "log.retention.check.interval.ms",
        cleaner_enabled: bool = "log.cleaner.enable",
        cleaner_backoff_ms: i64 = "log.cleaner.backoff.ms",
        cleaner_map_bytes: i64 = "log.cleaner.dedupe.buffer.size",
        cleaner_map_load: f64 = "log.cleaner.io.buffer.load.factor",
        cleaner_buffer_bytes: i32 = "log.cleaner.io.buffer.size",
        cleaner_bytes_per_second_max: f64 = "log.cleaner.io.max.bytes.per.second",
        cordoned_dirs: Vec<String> = "cordoned.log.dirs",
        move_bytes_per_second_max: i64 = "replica.alter.log.dirs.io.max.bytes.per.second",
        recovery_checkpoint_ms: i32 = "log.flush.offset.checkpoint.interval.ms",
        start_offset_checkpoint_ms: i32 = "log.flush.start.offset.checkpoint.interval.ms",
        producer_id_expiration_ms: i32 = "producer.id.expiration.ms",
    }
}
typed! {
    /// Classic consumer groups and their committed offsets.
    pub struct Groups {
        initial_rebalance_delay_ms: i32 = "group.initial.rebalance.delay.ms",
        session_timeout_ms_min: i32 = "group.min.session.timeout.ms",
        session_timeout_ms_max: i32 = "group.max.session.timeout.ms",
        members_max: i32 = "group.max.size",
        offset_metadata_bytes_max: i32 = "offset.metadata.max.bytes",
        offsets_retention_minutes: i32 = "offsets.retention.minutes",
        offsets_retention_check_ms: i64 = "offsets.retention.check.interval.ms",
        offsets_topic_partitions: i32 = "offsets.topic.num.partitions",
        offsets_topic_replication_factor: i16 = "offsets.topic.replication.factor",
        offsets_topic_segment_bytes: i32 = "offsets.topic.segment.bytes",
    }
}
typed! {
    /// The metadata log.
    pub struct MetadataLog {
        snapshot_bytes: i64 = "metadata.log.max.record.bytes.between.snapshots",
        snapshot_interval_ms: i64 = "metadata.log.max.snapshot.interval.ms",
        segment_bytes: i32 = "metadata.log.segment.bytes",
        segment_ms: i64 = "metadata.log.segment.ms",
    }
}
typed! {
    /// What only Millrace has.
    pub struct Own {
        shards: usize = "millrace.shards",
        cluster_id: Option<String> = "millrace.cluster.id",
        lost_dirs: Vec<String> = "millrace.lost.log.dirs",
        write_mode: ByTopic<WriteMode> = "millrace.io.write.mode",
        acks_all: ByTopic<AcksAll> = "millrace.acks.all",
    }
}
typed! {
    /// Fields that need more than their own key to be understood.
    pub(super) struct Raw {
        node_id: i32 = "node.id",
        broker_id: i32 = "broker.id",
        roles: Vec<String> = "process.roles",
        log_dirs: Vec<String> = "log.dirs",
        log_dir: Vec<String> = "log.dir",
        rack: Option<String> = "broker.rack",
        cpus: String = "millrace.cpus",
    }
}

/// The whole configuration. Immutable once the broker runs: a dynamic change makes a new one.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // each field is a type that says it
pub struct Config {
    pub node_id: i32,
    pub rack: Option<String>,
    pub listeners: Listeners,
    /// At least one; the first gets the metadata log of a new broker.
    pub log_dirs: Vec<PathBuf>,
    /// CPUs named by the user, sorted; empty: all that the process may use.
    pub cpus: Vec<usize>,
    pub sockets: Sockets,
    pub topics: Topics,
    pub logs: Logs,
    pub groups: Groups,
    pub metadata_log: MetadataLog,
    pub own: Own,
    pub(super) layers: Layers,
}

impl Default for Config {
    fn default() -> Self {
        Self::read(Layers::default()).expect("a test shows that the defaults are accepted")
    }
}

impl Config {
    /// Reads a properties file, if there is one, and what the environment and then the command
    /// line put above it.
    ///
    /// # Errors
    /// One line that names place and key.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (String, String)>,
        overrides: &[String],
    ) -> Result<Self, ConfigError> {
        let mut settings = Settings::default();
        if let Some(file) = file {
            settings.add_file(file)?;
        }
        settings.add_environment(environment)?;
        for pair in overrides {
            settings.add_override(pair)?;
        }
        Self::read(Layers { settings, ..Layers::default() })
    }

    /// The defaults with some values changed.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn of<'a>(
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, ConfigError> {
        let mut settings = Settings::default();
        for (key, value) in pairs {
            settings.add(key, value, Origin::Code)?;
        }
        Self::read(Layers { settings, ..Layers::default() })
    }

    /// Changes one value; for tests and embedded brokers.
    ///
    /// # Errors
    /// As [`Config::load`]; the configuration is then as before.
    pub fn set(&mut self, key: &str, value: &str) -> Result<&mut Self, ConfigError> {
        let mut layers = self.layers.clone();
        layers.settings.add(key, value, Origin::Code)?;
        *self = Self::read(layers)?;
        Ok(self)
    }

    /// The configuration with other dynamic settings: those of all brokers, then of this one.
    /// Unknown keys among them are kept and ignored.
    ///
    /// # Errors
    /// A value does not fit; the metadata's own checks refuse it before it is stored.
    pub fn with_dynamic(
        &self,
        default: &ConfigMap,
        broker: &ConfigMap,
    ) -> Result<Self, ConfigError> {
        for (name, value) in default.iter().chain(broker) {
            let Some(key) = broker_key(name) else { continue };
            let origin = Origin::Dynamic;
            let expected = super::settings::expected(key);
            key.check(value).map_err(|bad| ConfigError::BadValue {
                origin,
                bad: bad.into(),
                expected,
            })?;
        }
        let settings = self.layers.settings.clone();
        let (dynamic_default, dynamic_broker) = (default.clone(), broker.clone());
        Self::read(Layers { dynamic_broker, dynamic_default, settings })
    }

    /// The first element of a value for `cordoned.log.dirs` that is no data folder.
    pub fn unknown_folder<'a>(&self, value: &'a str) -> Option<&'a str> {
        unknown_folder(&self.log_dirs, value)
    }

    /// Whether a data folder, by its absolute path, gets no new partitions.
    pub fn is_cordoned(&self, folder: &Path) -> bool {
        let names = &self.logs.cordoned_dirs;
        names.iter().any(|name| name == "*" || absolute(Path::new(name)) == folder)
    }

    /// Lines for the user about values that were accepted without their usual effect.
    pub fn notes(&self) -> &[String] {
        self.layers.settings.notes()
    }

    fn read(layers: Layers) -> Result<Self, ConfigError> {
        let value = |key: &str| layers.value(key);
        let raw = Raw::read(value);
        let refuse = |key: &str, reason: &str| {
            let value = layers.value(key).unwrap_or_default();
            Err(layers.settings.refuse(key, &value, reason))
        };
        let node_id = match (layers.settings.get("node.id"), layers.settings.get("broker.id")) {
            (Some(_), Some(_)) if raw.node_id != raw.broker_id && raw.broker_id >= 0 => {
                return refuse("broker.id", "node.id has another value");
            }
            (None, Some(_)) if raw.broker_id >= 0 => raw.broker_id,
            _ => raw.node_id,
        };
        if !raw.roles.is_empty()
            && !["broker", "controller"]
                .iter()
                .all(|role| raw.roles.iter().any(|given| given == role))
        {
            return refuse(
                "process.roles",
                "a node of its own has both roles, broker,controller; joining other controllers \
                 is not built yet",
            );
        }
        let Some(cpus) = parse_cpus(&raw.cpus) else {
            return refuse("millrace.cpus", "CPUs are written as 0,2-5");
        };
        let dirs = if raw.log_dirs.is_empty() { raw.log_dir } else { raw.log_dirs };
        let log_dirs: Vec<PathBuf> = dirs.into_iter().map(PathBuf::from).collect();
        if log_dirs.is_empty() {
            return refuse("log.dirs", "at least one data folder is needed");
        }
        let cordoned = layers.settings.get("cordoned.log.dirs").map_or("", |set| &set.value);
        if let Some(dir) = unknown_folder(&log_dirs, cordoned) {
            let reason = format!("{dir} is none of log.dirs");
            return refuse("cordoned.log.dirs", &reason);
        }
        Ok(Self {
            node_id,
            rack: raw.rack,
            listeners: listener::read(&layers, &hostname())?,
            log_dirs,
            cpus,
            sockets: Sockets::read(value),
            topics: Topics::read(value),
            logs: Logs::read(value),
            groups: Groups::read(value),
            metadata_log: MetadataLog::read(value),
            own: Own::read(value),
            layers,
        })
    }
}

fn unknown_folder<'a>(folders: &[PathBuf], value: &'a str) -> Option<&'a str> {
    let folders: Vec<PathBuf> = folders.iter().map(|folder| absolute(folder)).collect();
    super::key::split_list(value)
        .find(|name| *name != "*" && !folders.contains(&absolute(Path::new(name))))
}

/// The path as it is shown, as by Java: absolute, without "." and without a slash at the end.
pub(crate) fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.into()).components().collect()
}

/// `0,2-5` as sorted numbers.
fn parse_cpus(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for element in super::key::split_list(text) {
        let (first, last) = element.split_once('-').unwrap_or((element, element));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        if last < first || last - first >= 1024 {
            return None;
        }
        cpus.extend(first..=last);
    }
    cpus.sort_unstable();
    cpus.dedup();
    Some(cpus)
}

fn hostname() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let name = name.trim();
    if name.is_empty() { "localhost".into() } else { name.into() }
}
