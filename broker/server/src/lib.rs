//! The broker itself: shards, connections, handlers, metadata, metrics, configuration.

pub mod banner;
pub mod cli;
pub mod config;
pub mod metadata;
