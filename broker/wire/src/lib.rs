//! The Kafka protocol: bytes to messages and back. Pure: no I/O, no clock, no unsafe.
//!
//! | module | what |
//! |---|---|
//! | [`messages`], [`stored`] | requests, responses and stored records, generated from `schemas/` |
//! | [`codec`] | what they are made of: [`Reader`], [`Writer`], [`Array`], [`Records`], [`Uuid`] |
//! | [`batch`], [`compression`] | record batches: views, checks, building |
//! | [`message_set`] | the formats before batches, and conversion |
//! | [`api`], [`ErrorCode`] | the tables of keys, header versions and error codes |
//! | `json` | any message as a JSON value (feature `json`) |
//!
//! A decoded message borrows from its frame and owns nothing: an [`Array`] is a checked piece of
//! the frame, read again while it is iterated. Nothing is allocated for what a length claims.

pub mod api;
mod array;
pub mod batch;
pub mod codec;
pub mod compression;
mod error_code;
#[cfg(feature = "json")]
pub mod json;
pub mod message_set;
mod reader;
pub mod stored;
mod tags;
mod uuid;
mod values;
mod writer;

pub use api::ApiKey;
pub use array::{Array, Iter};
pub use batch::crc32c;
pub use codec::{Message, Request, Wire};
pub use error_code::ErrorCode;
pub use reader::{DecodeError, Reader};
pub use tags::UnknownTags;
pub use uuid::{Uuid, UuidError};
pub use values::Records;
pub use writer::{EncodeError, Splice, Writer};

/// Requests, responses and their headers: a module per message, generated from `schemas/messages`.
#[allow(clippy::all, reason = "generated")]
pub mod messages {
    include!(concat!(env!("OUT_DIR"), "/messages.rs"));
}
