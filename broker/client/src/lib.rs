//! A small blocking client of Kafka brokers, for programs that ask one thing at a time.
//!
//! | module | what |
//! |---|---|
//! | [`connection`] | one connection: frames and versions |
//! | [`client`] | [`Client`]: whom to ask, metadata, offsets, asking again |
//! | [`producer`] | records into batches, to the leaders, once |
//! | [`fetcher`] | records from the leaders |
//! | [`membership`] | a member of a classic consumer group |
//! | [`partitioner`] | the partition of a key, as Kafka's Java client chooses it |
//!
//! Requests are sent in versions that name topics by name and that Apache Kafka 3 and 4 both speak.

pub mod client;
pub mod connection;
pub mod fetcher;
pub mod membership;
pub mod partitioner;
pub mod producer;

pub use client::{Client, Options, Partition, To, Topic, TopicPartition};
pub use connection::Versions;
pub use fetcher::{Fetched, Fetcher};
pub use membership::Member;
pub use producer::{Outgoing, Producer};

use millrace_wire::ErrorCode;
use std::io;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No connection.
    #[error("cannot reach {address}: {source}")]
    Unreachable {
        /// Host and port.
        address: String,
        /// Which server named this address, if it was not the user.
        named_by: Option<String>,
        /// Why.
        source: io::Error,
    },
    /// The connection ended, or nothing came in time.
    #[error("{address} did not answer {what}: {source}")]
    NoAnswer {
        /// Host and port.
        address: String,
        /// The request.
        what: &'static str,
        /// Why.
        source: io::Error,
    },
    /// An answer against the protocol.
    #[error("the answer to {what} cannot be understood: {problem}")]
    Malformed {
        /// The request.
        what: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// No version in common.
    #[error("the broker at {address} does not serve {what} in a version that this program knows")]
    Version {
        /// Host and port.
        address: String,
        /// The request.
        what: &'static str,
    },
    /// An error code in an answer.
    #[error("{what}: {}{}", .code.name(), .message.as_ref().map(|m| format!(": {m}")).unwrap_or_default())]
    Refused {
        /// What was wanted.
        what: String,
        /// The answer.
        code: ErrorCode,
        /// The broker's words.
        message: Option<String>,
    },
    /// A topic that is not there.
    #[error("there is no topic {topic}")]
    UnknownTopic {
        /// The name asked for.
        topic: String,
        /// Those that are there.
        known: Vec<String>,
    },
    /// A partition that is not there.
    #[error("topic {topic} has no partition {partition}: it has {count}, from 0")]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// The number asked for.
        partition: i32,
        /// How many there are.
        count: usize,
    },
    /// The caller's flag was raised, see [`Options::stop`].
    #[error("stopped")]
    Stopped,
}

impl ClientError {
    /// Whether asking again may help.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::NoAnswer { .. } | Self::Unreachable { .. } => true,
            Self::Refused { code, .. } => code.is_retriable(),
            _ => false,
        }
    }

    /// The code, if a broker gave one.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// An error if `code` is one.
pub fn refuse(
    code: i16,
    message: Option<&str>,
    what: impl FnOnce() -> String,
) -> Result<(), ClientError> {
    match ErrorCode(code) {
        ErrorCode::NONE => Ok(()),
        code => {
            Err(ClientError::Refused { what: what(), code, message: message.map(str::to_owned) })
        }
    }
}
