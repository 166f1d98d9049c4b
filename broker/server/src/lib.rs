//! The broker itself: shards, connections, handlers, metadata, metrics, configuration.

pub mod config;
