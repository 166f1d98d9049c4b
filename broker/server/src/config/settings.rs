//! What the user has set: file, environment, command line and code merged, each value checked
//! against the table.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use millrace_cli::nearest;

use super::key::{BadValue, Key, Kind, Range, Treatment};
use super::obsolete::{self, Obsolete};
use super::{broker_key, properties};

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A line of a file.
    File(PathBuf, usize),
    /// A variable of the environment.
    Environment(String),
    /// `--override` on the command line.
    Override,
    /// Settings kept in the metadata, changed while the broker runs.
    Dynamic,
    /// The program itself: tests, or an embedded broker.
    Code,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Origin::File(path, line) => write!(out, "{}:{line}", path.display()),
            Origin::Environment(name) => write!(out, "environment, {name}"),
            Origin::Override => write!(out, "--override"),
            Origin::Dynamic => write!(out, "dynamic configuration"),
            Origin::Code => write!(out, "configuration"),
        }
    }
}

/// Why the configuration stops the start. Each is one line that names place and key.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // the messages say it
pub enum ConfigError {
    #[error("{path}: cannot read it: {source}", path = path.display())]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{path}:{}: malformed \\u escape", bad.line, path = path.display())]
    BadEscape { path: PathBuf, bad: properties::BadEscape },
    #[error("--override {0}: not of the form KEY=VALUE")]
    BadOverride(String),
    #[error("{origin}: unknown key {key}{hint}")]
    UnknownKey { origin: Origin, key: String, hint: String },
    #[error("{origin}: {bad} (expected {expected})")]
    BadValue { origin: Origin, bad: Box<BadValue>, expected: String },
    #[error("{origin}: {key}={value} is refused: {reason}")]
    Refused { origin: Origin, key: String, value: String, reason: String },
}

/// One value as it was set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// Checked text.
    pub value: String,
    /// Place to name in messages.
    pub origin: Origin,
}

/// The values set, by key. Old names that stand for others are kept under the others' names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    values: BTreeMap<String, Setting>,
    notes: Vec<String>,
}

impl Settings {
    /// Adds every entry of a properties file.
    ///
    /// # Errors
    /// The first entry that is refused.
    pub(super) fn add_file(&mut self, path: &Path) -> Result<(), ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { path: path.into(), source };
        let text = std::fs::read(path).map_err(unreadable)?;
        let text = match String::from_utf8(text) {
            Ok(text) => text,
            // java.util.Properties reads Latin-1, whose bytes are the first 256 characters.
            Err(other) => other.as_bytes().iter().map(|byte| char::from(*byte)).collect(),
        };
        let entries = properties::parse(&text)
            .map_err(|bad| ConfigError::BadEscape { path: path.into(), bad })?;
        for entry in entries {
            self.add(&entry.key, &entry.value, Origin::File(path.into(), entry.line))?;
        }
        Ok(())
    }

    /// Adds one `key=value` of the command line.
    ///
    /// # Errors
    /// As [`Settings::add`], or if there is no `=`.
    pub(super) fn add_override(&mut self, pair: &str) -> Result<(), ConfigError> {
        let Some((key, value)) = pair.split_once('=') else {
            return Err(ConfigError::BadOverride(pair.into()));
        };
        self.add(key.trim(), value, Origin::Override)
    }

    /// Adds one value; a later one for the same key wins.
    ///
    /// # Errors
    /// The key is unknown, its value malformed or outside its range, or it asks for what is not
    /// built.
    pub(super) fn add(
        &mut self,
        name: &str,
        value: &str,
        origin: Origin,
    ) -> Result<(), ConfigError> {
        let value = value.trim();
        let Some(key) = broker_key(name) else { return self.add_obsolete(name, value, origin) };
        if let Err(bad) = key.check(value) {
            return Err(ConfigError::BadValue { origin, bad: bad.into(), expected: expected(key) });
        }
        match key.treatment {
            Treatment::Refused(reason) if Some(value) != key.default && !value.is_empty() => {
                let (key, value) = (name.to_owned(), shown(key, value).to_owned());
                return Err(ConfigError::Refused { origin, key, value, reason: reason.into() });
            }
            Treatment::Noted(reason) if Some(value) != key.default => {
                self.note(&origin, name, reason);
            }
            _ if name == "offsets.topic.replication.factor" && value != "1" => {
                self.note(&origin, name, "it acts as 1: there is one broker");
            }
            _ => {}
        }
        self.values.insert(name.into(), Setting { value: value.into(), origin });
        Ok(())
    }

    fn add_obsolete(&mut self, name: &str, value: &str, origin: Origin) -> Result<(), ConfigError> {
        match obsolete::find(name) {
            None => {
                let hint = nearest(name, super::BROKER_KEYS.iter().map(|key| key.name))
                    .map(|near| format!("; did you mean {near}?"))
                    .unwrap_or_else(|| "; `millrace config` lists all keys".into());
                return Err(ConfigError::UnknownKey { origin, key: name.into(), hint });
            }
            Some(Obsolete::Ignored(reason)) => self.note(&origin, name, reason),
            Some(Obsolete::Renamed(targets, factor)) => {
                let Some(number) =
                    value.parse::<i64>().ok().and_then(|value| value.checked_mul(factor))
                else {
                    let (key, value) = (name.into(), value.into());
                    let reason = "Not a number of type LONG".into();
                    let bad = Box::new(BadValue { key, value, reason });
                    return Err(ConfigError::BadValue { origin, bad, expected: "LONG".into() });
                };
                self.note(&origin, name, &format!("taken as {}", targets.join(" and ")));
                for target in targets {
                    self.add(target, &number.to_string(), origin.clone())?;
                }
            }
            Some(Obsolete::Address) if value.is_empty() => {}
            Some(Obsolete::Address) => {
                self.note(
                    &origin,
                    name,
                    "used only where listeners or advertised.listeners is unset",
                );
                self.values.insert(name.into(), Setting { value: value.into(), origin });
            }
        }
        Ok(())
    }

    pub(super) fn note(&mut self, origin: &Origin, key: &str, text: &str) {
        self.notes.push(format!("{origin}: {key}: {text}"));
    }

    /// Lines for the user about values that were accepted without their usual effect.
    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The value set for a key, if one was.
    pub(super) fn get(&self, key: &str) -> Option<&Setting> {
        self.values.get(key)
    }

    /// The error that says a value, though well formed, cannot be used.
    pub(super) fn refuse(&self, key: &str, value: &str, reason: impl Into<String>) -> ConfigError {
        let origin = self.get(key).map_or(Origin::Code, |setting| setting.origin.clone());
        ConfigError::Refused { origin, key: key.into(), value: value.into(), reason: reason.into() }
    }
}

/// What a key takes, in a few words.
pub(super) fn expected(key: &Key) -> String {
    let kind = key.kind.name();
    match key.range {
        Range::AtLeast(least) => format!("{kind}, at least {least}"),
        Range::Between(least, most) => format!("{kind}, {least} to {most}"),
        Range::BetweenOr(least, most, other) => format!("{kind}, {least} to {most}, or {other}"),
        Range::OneOf(choices) | Range::OneOfAnyCase(choices) if key.kind == Kind::List => {
            format!("LIST of {}", choices.join(", "))
        }
        Range::OneOf(choices) | Range::OneOfAnyCase(choices) => {
            format!("one of {}", choices.join(", "))
        }
        Range::ByTopic(choices) => format!("one of {}; TOPIC-PATTERN=CHOICE", choices.join(", ")),
        Range::PerAddress => "LIST of IP address:number".into(),
        Range::ThrottledReplicas => "* or LIST of partition:broker".into(),
        Range::NonEmpty => format!("{kind}, not empty"),
        Range::Any => kind.into(),
    }
}

fn shown<'a>(key: &Key, value: &'a str) -> &'a str {
    if key.kind == Kind::Password { "[hidden]" } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn added(key: &str, value: &str) -> Result<Settings, String> {
        let mut settings = Settings::default();
        let origin = Origin::File("server.properties".into(), 7);
        settings.add(key, value, origin).map_err(|error| error.to_string())?;
        Ok(settings)
    }

    #[test]
    fn says_what_is_wrong_in_one_line() {
        let rows = [
            ("log.dirz", "x", "unknown key log.dirz; did you mean log.dirs?"),
            (
                "log.segment.byte",
                "1",
                "unknown key log.segment.byte; did you mean log.segment.bytes?",
            ),
            ("qqq", "1", "unknown key qqq; `millrace config` lists all keys"),
            (
                "socket.send.buffer.bytes",
                "100*1024",
                "Invalid value 100*1024 for configuration socket.send.buffer.bytes: \
                 Not a number of type INT (expected INT)",
            ),
            (
                "log.cleanup.interval.mins",
                "5minutes",
                "Invalid value 5minutes for configuration log.cleanup.interval.mins: \
                 Not a number of type LONG (expected LONG)",
            ),
            (
                "num.partitions",
                "0",
                "Invalid value 0 for configuration num.partitions: \
                 Value must be at least 1 (expected INT, at least 1)",
            ),
            (
                "millrace.acks.all",
                "flush,logs-*=never",
                "Invalid value logs-*=never for configuration millrace.acks.all: \
                 must be one of flush, write, then any number of TOPIC-PATTERN=CHOICE \
                 (expected one of flush, write; TOPIC-PATTERN=CHOICE)",
            ),
            (
                "remote.log.storage.system.enable",
                "true",
                "remote.log.storage.system.enable=true is refused: tiered storage is not built yet",
            ),
        ];
        for (key, value, message) in rows {
            let expected = format!("server.properties:7: {message}");
            assert_eq!(added(key, value).map(|_| ()), Err(expected));
        }
    }

    #[test]
    fn old_names_stand_for_new_ones() {
        let settings = added("log.cleanup.interval.mins", "2").expect("an old name");
        let setting = settings.get("log.retention.check.interval.ms").expect("the new name is set");
        assert_eq!(setting.value, "120000");
        let settings = added("zookeeper.connect", "localhost:2181").expect("accepted");
        assert_eq!(settings.notes().len(), 1);
    }

    #[test]
    fn passwords_are_not_printed() {
        let error = added("sasl.jaas.config", "user=secret").map(|_| ());
        assert!(!format!("{error:?}").contains("secret"), "{error:?}");
    }
}
