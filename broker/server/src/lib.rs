//! The broker itself: shards, connections, handlers, metadata, configuration.
//!
//! [`start`] is the one entry for the `millrace` program, the tests and loadgen's embedded broker.
//! `docs/ARCHITECTURE.md` follows a request through these modules.

mod admission;
mod background;
pub mod banner;
mod cleaning;
pub mod cli;
pub mod config;
mod connection;
mod controller;
mod fetch;
mod fetch_reply;
mod fetch_session;
mod flush;
mod gather;
mod groups;
mod handlers;
mod intake;
mod landing;
mod lifecycle;
mod limits;
mod logging;
mod mailbox;
pub mod metadata;
mod moving;
mod old_format;
mod partitions;
mod produce;
mod request;
mod retention;
mod send_queue;
mod serve;
mod shard;
mod shared;
#[cfg(test)]
mod simulated;
mod start;
mod storage;
mod timers;
mod token;

pub use shared::Endpoint;
pub use start::{RunningBroker, StartError, start, subject};
