//! `KAFKA_*` variables, with which containers configure a broker: the names of the images
//! apache/kafka, confluentinc/cp-kafka and bitnami/kafka.

use millrace_cli::nearest;
use strsim::normalized_damerau_levenshtein;

use super::settings::{ConfigError, Origin, Settings};
use super::{BROKER_KEYS, broker_key, obsolete};

/// An unknown name as near as this to that of a key is a slip of the pen.
const SLIP: f64 = 0.85;

const JVM: &str = "it is for the Java virtual machine, and there is none here";
const IMAGE: &str = "it belongs to a container image of Kafka";
const KUBERNETES: &str = "Kubernetes sets it for a service named kafka";

/// Variables that are no keys: how they begin, and what they are.
const OTHERS: &[(&str, &str)] = &[
    ("KAFKA_CREATE_TOPICS", "make topics with `millrace topics --create`"),
    ("KAFKA_DEBUG", JVM),
    ("KAFKA_GC_LOG_OPTS", JVM),
    ("KAFKA_HEAP_OPTS", JVM),
    ("KAFKA_HOME", IMAGE),
    ("KAFKA_JMX_", JVM),
    ("KAFKA_JVM_", JVM),
    ("KAFKA_LOG4J", JVM),
    ("KAFKA_OPTS", JVM),
    ("KAFKA_PORT_", KUBERNETES),
    ("KAFKA_SERVICE_", KUBERNETES),
    ("KAFKA_TOOLS_LOG4J", JVM),
    ("KAFKA_VERSION", IMAGE),
];

/// The key that a variable stands for: `_` is a dot, `__` an underscore, `___` a hyphen.
fn key_of(name: &str) -> Option<String> {
    let name = name.strip_prefix("KAFKA_CFG_").or_else(|| name.strip_prefix("KAFKA_"))?;
    let parts = name.split("___").map(|part| {
        let words: Vec<String> = part.split("__").map(|word| word.replace('_', ".")).collect();
        words.join("_")
    });
    Some(parts.collect::<Vec<_>>().join("-").to_lowercase())
}

impl Settings {
    /// Adds what the environment sets. Empty variables count as unset. An unknown key stops the
    /// start if it is nearly that of a known one; other variables of this prefix may belong to
    /// clients, and are only named.
    ///
    /// # Errors
    /// As [`Settings::add`].
    pub(super) fn add_environment(
        &mut self,
        variables: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(), ConfigError> {
        let mut variables: Vec<_> =
            variables.into_iter().filter(|(_, value)| !value.trim().is_empty()).collect();
        variables.sort_unstable();
        let mut sets_keys = false;
        for (name, value) in &variables {
            let Some(key) = key_of(name) else { continue };
            let origin = Origin::Environment(name.clone());
            let other = OTHERS.iter().find(|(start, _)| name.starts_with(start));
            let is_service = key == "port" && value.starts_with("tcp://");
            let what = other.map(|(_, what)| *what).or(is_service.then_some(KUBERNETES));
            if let Some(what) = what {
                self.note(&origin, &key, what);
            } else if broker_key(&key).is_some() || obsolete::find(&key).is_some() {
                sets_keys = true;
                self.add(&key, value, origin)?;
            } else {
                let near = nearest(&key, BROKER_KEYS.iter().map(|known| known.name));
                let hint = near.map_or(String::new(), |near| format!("; the nearest is {near}"));
                if near.is_some_and(|near| normalized_damerau_levenshtein(&key, near) >= SLIP) {
                    return Err(ConfigError::UnknownKey { origin, key, hint });
                }
                self.note(&origin, &key, &format!("ignored: there is no key of this name{hint}"));
            }
        }
        // The images format a new data folder with this one.
        match variables.iter().find(|(name, _)| name == "CLUSTER_ID") {
            Some((name, id)) if sets_keys && self.get("millrace.cluster.id").is_none() => {
                self.add("millrace.cluster.id", id, Origin::Environment(name.clone()))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(rows: &[(&str, &str)]) -> Result<Settings, String> {
        let mut settings = Settings::default();
        let rows = rows.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        settings.add_environment(rows).map_err(|error| error.to_string())?;
        Ok(settings)
    }

    #[test]
    fn variables_stand_for_keys() {
        let rows = [
            ("KAFKA_NODE_ID", "7", "node.id"),
            ("KAFKA_BROKER_ID", "7", "broker.id"),
            ("KAFKA_LOG_DIRS", "/data", "log.dirs"),
            ("KAFKA_ADVERTISED_LISTENERS", "PLAINTEXT://localhost:9092", "advertised.listeners"),
            ("KAFKA_LOG_RETENTION_HOURS", "1", "log.retention.hours"),
            ("KAFKA_OFFSETS_TOPIC_REPLICATION_FACTOR", "1", "offsets.topic.replication.factor"),
            ("KAFKA_CFG_NUM_PARTITIONS", "3", "num.partitions"),
            ("KAFKA_MILLRACE_ACKS_ALL", "write", "millrace.acks.all"),
            ("KAFKA_PORT", "6667", "port"),
        ];
        for (name, value, key) in rows {
            let settings = read(&[(name, value)]).expect(name);
            assert_eq!(settings.get(key).map(|setting| &*setting.value), Some(value), "{name}");
        }
        assert_eq!(key_of("KAFKA_A_B__C___D"), Some("a.b_c-d".into()));
        assert_eq!(key_of("PATH"), None);
    }

    #[test]
    fn other_variables_are_named_and_do_no_harm() {
        let rows = [
            ("KAFKA_HEAP_OPTS", "-Xmx1g", "Java virtual machine"),
            ("KAFKA_OPTS", "-D", "Java virtual machine"),
            ("KAFKA_LOG4J_ROOT_LOGLEVEL", "INFO", "Java virtual machine"),
            ("KAFKA_JMX_PORT", "9101", "Java virtual machine"),
            ("KAFKA_PORT", "tcp://10.0.0.1:9092", "Kubernetes"),
            ("KAFKA_PORT_9092_TCP_ADDR", "10.0.0.1", "Kubernetes"),
            ("KAFKA_CREATE_TOPICS", "a:1:1", "millrace topics --create"),
            ("KAFKA_BROKERS", "localhost:9092", "the nearest is broker.id"),
            ("KAFKA_ZOOKEEPER_CONNECT", "zookeeper:2181", "there is no ZooKeeper"),
        ];
        for (name, value, note) in rows {
            let settings = read(&[(name, value)]).expect(name);
            let [found] = settings.notes() else { panic!("{name}: {:?}", settings.notes()) };
            assert!(found.contains(name) && found.contains(note), "{found}");
        }
        assert!(read(&[("KAFKA_LISTENERS", " ")]).expect("empty").notes().is_empty());
    }

    #[test]
    fn slips_and_bad_values_stop_the_start() {
        let rows = [
            ("KAFKA_LOG_DIRZ", "/x", "unknown key log.dirz; the nearest is log.dirs"),
            ("KAFKA_NUM_PARTITIONS", "many", "Invalid value many"),
            ("KAFKA_AUTHORIZER_CLASS_NAME", "a.B", "is refused"),
        ];
        for (name, value, text) in rows {
            let error = read(&[(name, value)]).expect_err(name);
            assert!(error.starts_with(&format!("environment, {name}: ")), "{error}");
            assert!(error.contains(text), "{error}");
        }
    }

    #[test]
    fn the_cluster_id_of_the_images_is_taken_with_their_keys() {
        const ID: (&str, &str) = ("CLUSTER_ID", "MkU3OEVBNTcwNTJENDM2Qg");
        for (rows, taken) in [(vec![ID], false), (vec![ID, ("KAFKA_NODE_ID", "1")], true)] {
            let settings = read(&rows).expect("accepted");
            assert_eq!(settings.get("millrace.cluster.id").is_some(), taken);
        }
    }
}
