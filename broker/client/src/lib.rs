//! A small blocking client of Kafka brokers, for programs that ask one thing at a time.
//!
//! | module | what |
//! |---|---|
//! | [`frame`] | messages as frames |
//! | [`connection`] | one connection: a request out, its answer in |
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
pub mod frame;
pub mod membership;
pub mod partitioner;
pub mod producer;

pub use client::{Client, Options, Partition, To, Topic, TopicPartition};
pub use connection::{Secure, Stream, Versions};
pub use fetcher::{Fetched, Fetcher};
pub use membership::Member;
pub use producer::{Outgoing, Producer};

use millrace_wire::ErrorCode;
use std::io;
use std::ops::RangeInclusive;

/// An answer, or why there is none.
pub type Result<T, E = ClientError> = std::result::Result<T, E>;

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "each says what it is in its message")]
pub enum ClientError {
    #[error("cannot reach {address}: {source}")]
    Unreachable {
        address: String,
        /// Which server named this address, if it was not the user.
        named_by: Option<String>,
        source: io::Error,
    },
    #[error("{address} did not answer {what}: {source}")]
    NoAnswer { address: String, what: &'static str, source: io::Error },
    #[error("{what} cannot be understood: {problem}")]
    Malformed { what: &'static str, problem: String },
    #[error(
        "the broker at {address} does not serve {what} in a version that this program knows: it \
         has {}, this program {} to {}",
        .theirs.as_ref().map_or("none".to_owned(), |all| format!("{} to {}", all.start(), all.end())),
        .ours.start(), .ours.end()
    )]
    Version {
        address: String,
        what: &'static str,
        theirs: Option<RangeInclusive<i16>>,
        ours: RangeInclusive<i16>,
    },
    #[error("{what}: {}{}", .code.name(), .message.as_ref().map(|m| format!(": {m}")).unwrap_or_default())]
    Refused { what: String, code: ErrorCode, message: Option<String> },
    #[error("there is no topic {topic}")]
    UnknownTopic { topic: String, known: Vec<String> },
    #[error("topic {topic} has no partition {partition}: it has {count}, from 0")]
    UnknownPartition { topic: String, partition: i32, count: usize },
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
pub fn refuse(code: i16, message: Option<&str>, what: impl FnOnce() -> String) -> Result<()> {
    match ErrorCode(code) {
        ErrorCode::NONE => Ok(()),
        code => {
            Err(ClientError::Refused { what: what(), code, message: message.map(str::to_owned) })
        }
    }
}
