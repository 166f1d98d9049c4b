//! What went wrong, and what to do next.

use crate::Result;
use millrace_client::ClientError;
use millrace_wire::ErrorCode;
use std::collections::BTreeMap;
use std::io;

/// Why a command did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The cluster or the way to it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Something in the command line or in the input.
    #[error("{0}")]
    Usage(String),
    /// A file or folder.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Standard input or output.
    #[error("standard input or output: {0}")]
    Stream(#[from] io::Error),
}

impl Failure {
    /// Whether it is only that nobody reads the output any more, such as `head`.
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Stream(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// What to do next, where there is something.
    pub fn advice(&self) -> Option<String> {
        let Self::Client(error) = self else { return None };
        match error {
            ClientError::Unreachable { named_by: None, .. } => Some(
                "Is a broker running there? `millrace` starts one on 127.0.0.1:9092; another \
                 address goes into --bootstrap-server HOST:PORT."
                    .into(),
            ),
            ClientError::Unreachable { address, named_by: Some(server), .. } => Some(format!(
                "{server} sends its clients to {address}, which cannot be reached from here: its \
                 `advertised.listeners` must name an address that can."
            )),
            ClientError::NoAnswer { what: "ApiVersionsRequest", .. } => Some(
                "Whatever listens there does not speak the Kafka protocol in plain text. TLS and \
                 SASL listeners cannot be used with this program."
                    .into(),
            ),
            ClientError::UnknownTopic { topic, known } => Some(unknown_topic(topic, known)),
            ClientError::Refused { code, .. } => advice_on(*code).map(str::to_owned),
            _ => None,
        }
    }
}

fn unknown_topic(topic: &str, known: &[String]) -> String {
    match nearest(topic, known.iter().map(String::as_str)) {
        Some(near) => format!("The nearest name is {near}."),
        None => format!(
            "`millrace topics --list` shows all; `millrace topics --create --topic {topic}` makes it."
        ),
    }
}

fn advice_on(code: ErrorCode) -> Option<&'static str> {
    Some(match code {
        ErrorCode::TOPIC_ALREADY_EXISTS => "With --if-not-exists that is no error.",
        ErrorCode::INVALID_REPLICATION_FACTOR => {
            "No more replicas than brokers: `millrace cluster` shows how many there are."
        }
        ErrorCode::INVALID_PARTITIONS => "Partitions can only become more; `topics --describe`.",
        ErrorCode::INVALID_CONFIG => "`millrace config WORD` explains the keys with that word.",
        ErrorCode::MESSAGE_TOO_LARGE | ErrorCode::RECORD_LIST_TOO_LARGE => {
            "The topic's max.message.bytes says how large a batch may be: `millrace configs \
             --alter --topic T --add-config max.message.bytes=N`."
        }
        ErrorCode::GROUP_ID_NOT_FOUND => "`millrace groups --list` shows all groups.",
        ErrorCode::NON_EMPTY_GROUP | ErrorCode::UNKNOWN_MEMBER_ID => {
            "The group has members: stop its consumers first."
        }
        ErrorCode::OFFSET_OUT_OF_RANGE => {
            "`millrace offsets --topic T --time earliest` and latest."
        }
        ErrorCode::INCONSISTENT_GROUP_PROTOCOL => {
            "Its members share out partitions by a strategy other than range and roundrobin."
        }
        _ => return None,
    })
}

/// The known name most like `name`, if one is.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|known| (strsim::normalized_damerau_levenshtein(name, known), known))
        .filter(|(likeness, _)| *likeness > 0.6)
        .max_by(|left, right| left.0.total_cmp(&right.0))
        .map(|(_, known)| known)
}

/// Texts of the form KEY=VALUE as a map; a key that is not known is named with the nearest.
pub(crate) fn properties<'a>(
    flag: &str,
    pairs: &'a [String],
    known: &[&str],
) -> Result<BTreeMap<&'a str, &'a str>> {
    let mut map = BTreeMap::new();
    for pair in pairs {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| Failure::Usage(format!("{flag} {pair}: not of the form KEY=VALUE")))?;
        if !known.contains(&key) {
            let hint = match nearest(key, known.iter().copied()) {
                Some(near) => format!("the nearest is {near}"),
                None => format!("known are {}", known.join(", ")),
            };
            return Err(Failure::Usage(format!("{flag} {pair}: {key} is not known; {hint}")));
        }
        map.insert(key, value);
    }
    Ok(map)
}

/// Whether a property is set to true, in any case of letters.
pub(crate) fn is_true(map: &BTreeMap<&str, &str>, key: &str, default: bool) -> bool {
    map.get(key).map_or(default, |value| value.trim().eq_ignore_ascii_case("true"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties_are_known_or_named_with_the_nearest() {
        let known = ["parse.key", "key.separator"];
        let check = |pair: &str, expected: Result<&str, &str>| {
            let pairs = [pair.to_owned()];
            match (properties("--property", &pairs, &known), expected) {
                (Ok(map), Ok(value)) => assert_eq!(map.values().next(), Some(&value), "{pair}"),
                (Err(error), Err(part)) => assert!(error.to_string().contains(part), "{error}"),
                (got, _) => panic!("{pair}: {got:?}"),
            }
        };
        check("parse.key=true", Ok("true"));
        check("key.separator==", Ok("="));
        check("parse.keys=true", Err("the nearest is parse.key"));
        check("x=1", Err("known are parse.key, key.separator"));
        check("parse.key", Err("KEY=VALUE"));
    }
}
