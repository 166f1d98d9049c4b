//! Keys that Kafka had and 4.3 has not, so that an old `server.properties` still starts the broker.

/// What becomes of a key that Kafka 4.3 no longer has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Obsolete {
    /// Accepted without effect; why that changes nothing.
    Ignored(&'static str),
    /// Stands for these keys, with the factor to their unit.
    Renamed(&'static [&'static str], i64),
    /// Part of an address from before `listeners`; used where that is not set.
    Address,
}
use Obsolete::{Address, Ignored, Renamed};

const ZOOKEEPER: &str = "there is no ZooKeeper: the metadata is a log in the data folder";
const NEVER: &str = "it has had no effect for several releases of Kafka";
const ALWAYS: &str = "it is always so here";
const CLUSTER: &str = super::broker_keys::CLUSTER;

const KEYS: &[(&str, Obsolete)] = &[
    ("advertised.host.name", Address),
    ("advertised.port", Address),
    ("alter.config.policy.kraft.compatibility.enable", Ignored(NEVER)),
    ("auto.include.jmx.reporter", Ignored("metrics are not gathered the Java way")),
    ("broker.id.generation.enable", Ignored(ZOOKEEPER)),
    ("control.plane.listener.name", Ignored(ZOOKEEPER)),
    ("controlled.shutdown.max.retries", Ignored(CLUSTER)),
    ("controlled.shutdown.retry.backoff.ms", Ignored(CLUSTER)),
    ("controller.message.queue.size", Ignored(CLUSTER)),
    ("eligible.leader.replicas.enable", Ignored(CLUSTER)),
    ("group.coordinator.new.enable", Ignored(NEVER)),
    ("group.share.enable", Ignored("share groups are not built yet")),
    ("group.share.max.groups", Ignored("share groups are not built yet")),
    ("host.name", Address),
    ("inter.broker.protocol.version", Ignored(CLUSTER)),
    ("leader.imbalance.per.broker.percentage", Ignored(CLUSTER)),
    ("log.cleanup.interval.mins", Renamed(&["log.retention.check.interval.ms"], 60_000)),
    ("log.delete.delay.ms", Renamed(&["log.segment.delete.delay.ms"], 1)),
    ("log.message.downconversion.enable", Ignored(ALWAYS)),
    ("log.message.format.version", Ignored("records are stored in the newest format")),
    (
        "log.message.timestamp.difference.max.ms",
        Renamed(&["log.message.timestamp.before.max.ms", "log.message.timestamp.after.max.ms"], 1),
    ),
    ("metadata.log.segment.min.bytes", Ignored(NEVER)),
    ("offsets.commit.required.acks", Ignored(NEVER)),
    ("port", Address),
    ("replica.lag.max.messages", Ignored(CLUSTER)),
    ("reserved.broker.max.id", Ignored(ZOOKEEPER)),
];

/// Families of keys that belong to something that is not here.
const PREFIXES: &[(&str, &str)] = &[
    ("zookeeper.", ZOOKEEPER),
    ("password.encoder.", ZOOKEEPER),
    ("listener.name.", "settings of single listeners are for TLS and SASL, not built yet"),
    ("rlmm.config.", super::broker_keys::TIER),
    ("rsm.config.", super::broker_keys::TIER),
    ("confluent.", "it belongs to another distribution of Kafka"),
    ("log4j.", "it belongs to a Java logging library"),
];

/// Looks a key up among the old ones.
pub(super) fn find(key: &str) -> Option<Obsolete> {
    let by_name = KEYS.iter().find(|(name, _)| *name == key).map(|(_, what)| *what);
    by_name.or_else(|| {
        let prefix = PREFIXES.iter().find(|(prefix, _)| key.starts_with(prefix))?;
        Some(Ignored(prefix.1))
    })
}

/// All names, then all prefixes with `*`, for the reference.
pub(super) fn all() -> impl Iterator<Item = (String, Obsolete)> {
    let prefixes = PREFIXES.iter().map(|(prefix, why)| (format!("{prefix}*"), Ignored(why)));
    KEYS.iter().map(|(name, what)| ((*name).to_owned(), *what)).chain(prefixes)
}
