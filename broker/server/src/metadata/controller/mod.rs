//! Decisions: from the picture and a request to the records that change it, and to the answer.
//! Pure, but for the ids it draws: nothing changes before the records are on disk and applied.
//!
//! Texts of refusals are those of Kafka 4.3, because users search for them.

mod configs;
mod partitions;
mod quotas;
mod spread;
mod start;
#[cfg(test)]
mod tests;
mod topics;

use millrace_wire::{ErrorCode, Uuid};

pub use configs::AlteredConfig;
pub use partitions::AddedPartitions;
pub use quotas::AlteredQuotas;
pub use spread::Spread;
pub use start::{Found, PRODUCER_ID_BLOCK, Registration};
pub use topics::{Created, CreatedTopic, DeletedTopic};

use super::image::Image;
use crate::config::Config;

/// Kafka's limit, which keeps `<topic>-<partition>` a legal file name.
const NAME_CHARACTERS_MAX: usize = 249;
/// Partitions that one request may make, as in Kafka.
const NEW_PARTITIONS_MAX: usize = 10_000;

const CORDONED: &str =
    "All brokers are currently fenced, or have all their log directories cordoned.";

/// A refusal: the protocol's error, and the text that clients show.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // the names say it
pub struct Refusal {
    pub error: ErrorCode,
    pub message: String,
}

/// What a request wants changed, one of several things, and what was decided about it.
pub trait Wanted {
    /// Refuses it, if it is not refused already.
    fn refuse(&mut self, refusal: Refusal);
}

macro_rules! wanted {
    ($($kind:ty),*) => {
        $(impl Wanted for $kind {
            fn refuse(&mut self, refusal: Refusal) {
                if self.outcome.is_ok() {
                    self.outcome = Err(refusal);
                }
            }
        })*
    };
}
wanted!(CreatedTopic, DeletedTopic, AddedPartitions, AlteredConfig, AlteredQuotas);

fn refuse<T>(error: ErrorCode, message: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal { error, message: message.into() })
}

/// What decisions are made from.
pub struct Controller<'a> {
    /// The present picture.
    pub image: &'a Image,
    /// With the dynamic settings of the picture.
    pub config: &'a Config,
    /// The data folders that new partitions go to.
    pub spread: Spread,
    /// 64 random bits.
    pub random: &'a mut dyn FnMut() -> u64,
}

/// Checks a topic's name.
///
/// # Errors
/// INVALID_TOPIC_EXCEPTION with Kafka's text.
pub fn check_name(name: &str) -> Result<(), Refusal> {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    let fault = match name {
        "" => "the empty string is not allowed".to_owned(),
        "." | ".." => format!("'{name}' is not allowed"),
        _ if name.len() > NAME_CHARACTERS_MAX => format!(
            "the length of '{name}' is longer than the max allowed length {NAME_CHARACTERS_MAX}"
        ),
        _ if !name.bytes().all(is_legal) => format!(
            "'{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' \
             and '-'"
        ),
        _ => return Ok(()),
    };
    refuse(ErrorCode::INVALID_TOPIC_EXCEPTION, format!("Topic name is invalid: {fault}"))
}

impl Controller<'_> {
    /// A new id. Its text does not begin with a dash, which would look like an option, and it is
    /// none of the lowest hundred, which Kafka keeps for special directories.
    fn new_id(&mut self) -> Uuid {
        loop {
            let id = Uuid::from_halves((self.random)(), (self.random)());
            if id > Uuid::from_halves(0, 100) && !id.to_string().starts_with('-') {
                return id;
            }
        }
    }

    /// Checks that a folder takes new partitions.
    fn check_folders(&self, before: &str) -> Result<(), Refusal> {
        match self.spread.is_closed() {
            false => Ok(()),
            true => refuse(ErrorCode::INVALID_REPLICATION_FACTOR, format!("{before}{CORDONED}")),
        }
    }

    /// Checks a list of replicas that someone has chosen.
    fn check_replicas(&self, replicas: &[i32]) -> Result<(), Refusal> {
        let fault = if replicas.is_empty() {
            "an empty replica list.".to_owned()
        } else if let Some(unknown) =
            replicas.iter().find(|id| !self.image.brokers().contains_key(id))
        {
            format!("broker {unknown}, but no such broker is registered.")
        } else if let Some(twice) =
            replicas.iter().enumerate().find(|(index, id)| replicas[..*index].contains(id))
        {
            format!("the broker {} more than once.", twice.1)
        } else {
            return Ok(());
        };
        let message = format!("The manual partition assignment includes {fault}");
        refuse(ErrorCode::INVALID_REPLICA_ASSIGNMENT, message)
    }
}
