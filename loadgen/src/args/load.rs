//! Options of a load beyond its rate and batches: what records look like, where they go, who else
//! reads.

use super::{Switch, as_seconds, parse_bytes, parse_duration};
use crate::keys::KeySpread;
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// Records, keys and arrivals.
#[derive(Args, Clone, Debug, Serialize)]
pub struct ShapeArgs {
    /// Values of many sizes in bytes, spread evenly from --record-bytes to this; the n-th record of
    /// every batch has the same [default: all have --record-bytes]
    #[arg(long, value_parser = parse_bytes, help_heading = "Records")]
    pub record_bytes_max: Option<usize>,
    /// Bytes of one header in each record; 0: no header
    #[arg(long, default_value = "0", value_parser = parse_bytes, help_heading = "Records")]
    pub header_bytes: usize,
    /// How often each key comes
    #[arg(long, default_value = "uniform", help_heading = "Records")]
    pub key_spread: KeySpread,
    /// Which partition a batch goes to: the next one, with keys that Kafka's clients would put
    /// there; or as often as keys of that partition come
    #[arg(long, default_value = "next", help_heading = "Records")]
    pub partitioner: Partitioner,
    /// Instead of --rate: send when this file says, a line for each request (with --linger-ms each
    /// record): seconds from the start of the warm-up, in order; what lies beyond --warmup and
    /// --duration is not sent [default: none]
    #[arg(long, conflicts_with = "rate", help_heading = "Load")]
    pub schedule: Option<PathBuf>,
    /// With --spread bursts: how many are due at once on a connection
    #[arg(long, default_value_t = 10, value_parser = super::check::at_least_one(), help_heading = "Load")]
    pub burst: u32,
}

/// Which partition the next batch goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Partitioner {
    /// One after the other.
    Next,
    /// By the keys.
    Keys,
}

/// Readers besides those at the tail, and how those at the tail find their partitions.
#[derive(Args, Clone, Debug, Serialize)]
pub struct MixArgs {
    /// The consumers are members of this group: it shares out the partitions, and they commit
    /// [default: none, each has its partitions]
    #[arg(long, help_heading = "Consumers")]
    pub group: Option<String>,
    /// How often members commit, such as 1s
    #[arg(long, default_value = "1s", value_parser = parse_duration, help_heading = "Consumers")]
    #[serde(serialize_with = "as_seconds")]
    pub commit_every: Duration,
    /// Consumers that read the topic from its beginning while the load runs
    #[arg(long, default_value_t = 0, help_heading = "Consumers")]
    pub cold_readers: u32,
    /// Bytes of batches a second that they read together at most, so that they leave the client's
    /// CPU to the load; 0: as fast as it goes
    #[arg(long, default_value = "0", value_parser = parse_bytes, help_heading = "Consumers")]
    pub cold_bytes_per_second: usize,
    /// Value bytes to write before the load, for them; suffixes k to GiB
    #[arg(long, default_value = "0", value_parser = parse_bytes, help_heading = "Consumers")]
    pub backlog_bytes: usize,
    /// Empty the host's page cache after the backlog was written, so that it is read from the disk:
    /// needs root
    #[arg(long, default_value = "off", help_heading = "Consumers")]
    pub backlog_cold: Switch,
}
