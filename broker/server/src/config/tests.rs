//! Facts about the tables and the typed configuration as a whole.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::key::Treatment;
use super::*;

fn read(text: &str) -> Result<Config, String> {
    let entries = properties::parse(text).expect("well formed");
    Config::of(entries.iter().map(|entry| (entry.key.as_str(), entry.value.as_str())))
        .map_err(|error| error.to_string())
}

#[test]
fn tables_are_sorted_and_their_defaults_legal() {
    for table in [BROKER_KEYS, TOPIC_KEYS, GROUP_KEYS] {
        for pair in table.windows(2) {
            assert!(pair[0].name < pair[1].name, "{} before {}", pair[0].name, pair[1].name);
        }
        for key in table {
            if let Some(default) = key.default {
                key.check(default).expect(key.name);
            }
            for (name, factor) in key.inherits {
                assert!(broker_key(name).is_some() && *factor > 0, "{}", key.name);
            }
        }
    }
}

#[test]
fn only_keys_that_are_read_are_called_honoured() {
    let listeners = [
        "listeners",
        "advertised.listeners",
        "controller.listener.names",
        "inter.broker.listener.name",
        "listener.security.protocol.map",
    ];
    let inherited = TOPIC_KEYS
        .iter()
        .filter(|key| key.treatment == Treatment::Honoured)
        .flat_map(|key| key.inherits.iter().map(|(name, _)| *name));
    let read: BTreeSet<&str> = [
        broker::Raw::KEYS,
        Sockets::KEYS,
        Topics::KEYS,
        Logs::KEYS,
        Groups::KEYS,
        MetadataLog::KEYS,
        Own::KEYS,
        &listeners,
    ]
    .into_iter()
    .flatten()
    .copied()
    .chain(inherited)
    .collect();
    let honoured = |keys: &'static [Key]| -> BTreeSet<&str> {
        keys.iter().filter(|key| key.treatment == Treatment::Honoured).map(|key| key.name).collect()
    };
    let of_topics: BTreeSet<&str> = TopicConfig::KEYS.iter().copied().collect();
    let unread = |honoured: BTreeSet<&'static str>, read: &BTreeSet<&str>| -> Vec<&str> {
        honoured.into_iter().filter(|key| !read.contains(key)).collect()
    };
    assert_eq!(unread(honoured(BROKER_KEYS), &read), [""; 0]);
    assert_eq!(unread(honoured(TOPIC_KEYS), &of_topics), [""; 0]);
}

#[test]
fn defaults_are_those_a_new_user_meets() {
    let config = Config::default();
    assert_eq!(config.listeners.bound[0].to_string(), "PLAINTEXT://127.0.0.1:9092");
    assert_eq!(config.log_dirs, [PathBuf::from("./millrace-data")]);
    assert_eq!(config.own.acks_all.of("any"), AcksAll::Flush);
    assert!(config.notes().is_empty());
}

#[test]
fn reads_the_server_properties_of_kafka_4_3() {
    let config = read(
        "process.roles=broker,controller\nnode.id=1\n\
         controller.quorum.bootstrap.servers=localhost:9093\n\
         listeners=PLAINTEXT://:9092,CONTROLLER://:9093\n\
         inter.broker.listener.name=PLAINTEXT\n\
         advertised.listeners=PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093\n\
         controller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL\n\
         num.network.threads=3\nnum.io.threads=8\nsocket.send.buffer.bytes=102400\n\
         log.dirs=/tmp/kraft-combined-logs\nnum.partitions=1\n\
         num.recovery.threads.per.data.dir=1\noffsets.topic.replication.factor=1\n\
         share.coordinator.state.topic.replication.factor=1\n\
         share.coordinator.state.topic.min.isr=1\n\
         transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
         log.retention.hours=168\nlog.segment.bytes=1073741824\n\
         log.retention.check.interval.ms=300000\n",
    )
    .expect("Kafka's own file");
    assert_eq!(config.listeners.bound.len(), 1);
    assert_eq!(config.listeners.advertised[0].to_string(), "PLAINTEXT://localhost:9092");
}

#[test]
fn reads_old_server_properties() {
    let config = read(
        "broker.id=3\nport=6667\nhost.name=\nadvertised.host.name=\n\
         zookeeper.connect=localhost:2181,localhost:2185\nzookeeper.session.timeout.ms=6000\n\
         zookeeper.connection.timeout.ms=6000\nzookeeper.sync.time.ms=2000\n\
         log.dirs=/tmp/kafka-logs-1,/tmp/kafka-logs-2\nmessage.max.bytes=1000000\n\
         num.network.threads=3\nbackground.threads=4\nqueued.max.requests=500\n\
         log.cleanup.interval.mins=1\nlog.cleaner.enable=false\nlog.delete.delay.ms=60000\n\
         log.cleaner.dedupe.buffer.size=524288000\nlog.flush.scheduler.interval.ms=3000\n\
         controller.message.queue.size=10\nreplica.lag.max.messages=4000\n\
         controlled.shutdown.enable=false\ncontrolled.shutdown.max.retries=3\n\
         controlled.shutdown.retry.backoff.ms=5000\nauto.leader.rebalance.enable=false\n\
         leader.imbalance.per.broker.percentage=10\n\
         leader.imbalance.check.interval.seconds=300\nlog.roll.hours=168\n",
    )
    .expect("a file of the tutorials");
    assert_eq!(config.node_id, 3);
    assert_eq!(config.listeners.bound[0].port, 6667);
    assert_eq!(config.log_dirs.len(), 2);
    assert_eq!(config.topic(&ConfigMap::new()).flush_ms, 3000);
    assert_eq!(config.logs.retention_check_ms, 60_000);
}

#[test]
fn an_address_told_and_none_to_bind_means_all_interfaces() {
    let config = read("advertised.listeners=PLAINTEXT://localhost:9092").expect("as in containers");
    assert_eq!(config.listeners.bound[0].to_string(), "PLAINTEXT://:9092");
}

#[test]
fn listeners_follow_kafkas_rules() {
    let told = |text: &str| {
        read(text).map(|config| {
            let all: Vec<_> = config.listeners.advertised.iter().map(|l| l.to_string()).collect();
            all.join(",")
        })
    };
    for (text, expected) in [
        ("listeners=plaintext://192.168.180.128:9092", "PLAINTEXT://192.168.180.128:9092"),
        ("listeners=PLAINTEXT://[::1]:1", "PLAINTEXT://[::1]:1"),
        (
            "listeners=A://:1,B://127.0.0.1:2\nlistener.security.protocol.map=A:PLAINTEXT,B:PLAINTEXT\n\
             advertised.listeners=B://b:22,A://a:11",
            "A://a:11,B://b:22",
        ),
        ("port=7000\nadvertised.host.name=x\nadvertised.port=8", "PLAINTEXT://x:8"),
    ] {
        assert_eq!(told(text).as_deref(), Ok(expected), "{text}");
    }
    for (text, part) in [
        ("listeners=localhost:9092", "an address has the form NAME://host:port"),
        ("listeners=PLAINTEXT://::1:9092", "an address has the form NAME://host:port"),
        ("listeners=PLAINTEXT://:99999", "an address has the form NAME://host:port"),
        ("listeners=SSL://:9092", "security protocol SSL is not built yet"),
        ("listeners=MINE://:9092", "MINE is missing in listener.security.protocol.map"),
        ("listeners=PLAINTEXT://:1,PLAINTEXT://:2", "each listener name may stand there once"),
        ("listeners=", "at least one listener for clients is needed"),
        ("advertised.listeners=PLAINTEXT://0.0.0.0:1", "clients cannot connect"),
        ("advertised.listeners=OTHER://a:1", "listeners has no listener of this name"),
        ("inter.broker.listener.name=X", "listeners has no listener of this name"),
        ("broker.id=1\nnode.id=2", "node.id has another value"),
        ("process.roles=broker", "a node of its own has both roles"),
        ("millrace.cpus=3-1", "CPUs are written as 0,2-5"),
        ("cordoned.log.dirs=*,/other", "/other is none of log.dirs"),
        ("authorizer.class.name=x.Y", "access control is not built yet"),
    ] {
        let error = told(text).expect_err(text);
        assert!(error.contains(part) && !error.contains('\n'), "{error}");
    }
}

/// What becomes of a key with a value as the tutorials print it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    /// It does what it says.
    Honoured,
    /// Accepted, and a note says why it has no effect or what it is taken as.
    Noted,
    /// Notation of the tutorial, which Kafka refuses, too.
    Malformed,
}

use Fate::{Honoured, Malformed, Noted};

const OF_TUTORIALS: &[(&str, &str, Fate)] = &[
    ("broker.id", "1", Honoured),
    ("listeners", "plaintext://192.168.180.128:9092", Honoured),
    ("listeners", "PLAINTEXT://:9092", Honoured),
    ("advertised.listeners", "PLAINTEXT://127.0.0.1:9092", Honoured),
    ("log.dirs", "/tmp/kafka-logs-1,/tmp/kafka-logs-2", Honoured),
    ("log.dir", "/tmp/kafka-logs", Honoured),
    ("port", "6667", Noted),
    ("host.name", "", Honoured),
    ("host.name", "localhost", Noted),
    ("advertised.host.name", "localhost", Noted),
    ("advertised.port", "6667", Noted),
    ("message.max.bytes", "1000000", Honoured),
    ("num.network.threads", "4", Noted),
    ("num.io.threads", "9", Noted),
    ("background.threads", "4", Noted),
    ("queued.max.requests", "400", Noted),
    ("socket.send.buffer.bytes", "100*1024", Malformed),
    ("socket.receive.buffer.bytes", "100*1024", Malformed),
    ("socket.request.max.bytes", "100*1024*1024", Malformed),
    ("socket.request.max.bytes", "104857600", Honoured),
    ("log.segment.bytes", "1024*1024*1024", Malformed),
    ("log.segment.bytes", "1073741824", Honoured),
    ("log.roll.hours", "24*7", Malformed),
    ("log.roll.hours", "168", Honoured),
    ("log.cleanup.policy", "delete", Honoured),
    ("log.retention.minutes", "7days", Malformed),
    ("log.retention.minutes", "10080", Honoured),
    ("log.cleanup.interval.mins", "1", Noted),
    ("log.retention.bytes", "-1", Honoured),
    ("log.retention.check.interval.ms", "5minutes", Malformed),
    ("log.retention.check.interval.ms", "300000", Honoured),
    ("log.cleaner.enable", "false", Honoured),
    ("log.cleaner.threads", "2", Noted),
    ("log.cleaner.io.max.bytes.per.second", "None", Malformed),
    ("log.cleaner.dedupe.buffer.size", "500*1024*1024", Malformed),
    ("log.cleaner.io.buffer.size", "512*1024", Malformed),
    ("log.cleaner.io.buffer.load.factor", "0.8", Honoured),
    ("log.cleaner.backoff.ms", "16000", Honoured),
    ("log.cleaner.min.cleanable.ratio", "0.4", Honoured),
    ("log.cleaner.delete.retention.ms", "1day", Malformed),
    ("log.index.size.max.bytes", "10*1024*1024", Malformed),
    ("log.index.size.max.bytes", "10485760", Honoured),
    ("log.index.interval.bytes", "4096", Honoured),
    ("log.flush.interval.messages", "None", Malformed),
    ("log.flush.interval.messages", "1", Honoured),
    ("log.flush.interval.ms", "None", Malformed),
    ("log.flush.interval.ms", "1000", Honoured),
    ("log.flush.scheduler.interval.ms", "3000", Honoured),
    ("log.delete.delay.ms", "60000", Noted),
    ("log.flush.offset.checkpoint.interval.ms", "60001", Noted),
    ("auto.create.topics.enable", "true", Honoured),
    ("default.replication.factor", "1", Honoured),
    ("num.partitions", "1", Honoured),
    ("delete.topic.enable", "true", Honoured),
    ("controller.socket.timeout.ms", "30001", Noted),
    ("controller.message.queue.size", "10", Noted),
    ("replica.lag.time.max.ms", "10000", Noted),
    ("replica.lag.max.messages", "4000", Noted),
    ("replica.socket.timeout.ms", "30*1000", Malformed),
    ("replica.socket.receive.buffer.bytes", "64*1024", Malformed),
    ("replica.fetch.max.bytes", "1024*1024", Malformed),
    ("replica.fetch.wait.max.ms", "501", Noted),
    ("replica.fetch.min.bytes", "2", Noted),
    ("num.replica.fetchers", "2", Noted),
    ("replica.high.watermark.checkpoint.interval.ms", "5001", Noted),
    ("controlled.shutdown.enable", "false", Noted),
    ("controlled.shutdown.max.retries", "3", Noted),
    ("controlled.shutdown.retry.backoff.ms", "5000", Noted),
    ("auto.leader.rebalance.enable", "false", Noted),
    ("leader.imbalance.per.broker.percentage", "10", Noted),
    ("leader.imbalance.check.interval.seconds", "301", Noted),
    ("offset.metadata.max.bytes", "4096", Honoured),
    ("offsets.topic.replication.factor", "1", Honoured),
    ("offsets.topic.replication.factor", "3", Noted),
    ("zookeeper.connect", "localhost:2181,localhost:2185", Noted),
    ("zookeeper.session.timeout.ms", "6000", Noted),
    ("zookeeper.connection.timeout.ms", "6000", Noted),
    ("zookeeper.sync.time.ms", "2000", Noted),
];

#[test]
fn every_broker_key_of_the_tutorials_is_honoured_noted_or_refused() {
    for &(key, value, fate) in OF_TUTORIALS {
        let found = match Config::of([(key, value)]) {
            Ok(config) if config.notes().is_empty() => {
                assert!(value.is_empty() || is_honoured(key), "{key}: accepted without a word");
                Honoured
            }
            Ok(config) => {
                assert!(config.notes().iter().all(|note| note.contains(key)), "{key}");
                Noted
            }
            Err(error) => {
                let error = error.to_string();
                assert!(error.contains(key) && error.contains(value), "{error}");
                Malformed
            }
        };
        assert_eq!(found, fate, "{key}={value}");
    }
}

fn is_honoured(name: &str) -> bool {
    let inherits = |key: &Key| key.inherits.iter().any(|(broker_key, _)| *broker_key == name);
    broker_key(name).is_some_and(|key| key.treatment == Treatment::Honoured)
        && (TOPIC_KEYS.iter().all(|key| !inherits(key) || key.treatment == Treatment::Honoured))
}

#[test]
fn every_topic_key_of_the_tutorials_is_taken() {
    let rows = [
        ("max.message.bytes", "64000"),
        ("flush.messages", "1"),
        ("segment.bytes", "1048576"),
        ("segment.ms", "60000"),
        ("cleanup.policy", "compact"),
        ("retention.ms", "-1"),
        ("retention.bytes", "1000000"),
        ("min.cleanable.dirty.ratio", "0.1"),
        ("delete.retention.ms", "100"),
        ("segment.index.bytes", "1000"),
    ];
    for (key, value) in rows {
        let taken = check_topic(&Config::default(), [(key, Some(value))]);
        assert_eq!(taken.map(|own| own[key].clone()).as_deref(), Ok(value), "{key}");
    }
}

/// Keys of producers and consumers in a broker's file are mistakes.
#[test]
fn keys_of_clients_are_unknown() {
    for key in ["bootstrap.servers", "metadata.broker.list", "group.id", "request.required.acks"] {
        let error = Config::of([(key, "1")]).expect_err(key).to_string();
        assert!(error.contains("unknown key"), "{error}");
    }
}
