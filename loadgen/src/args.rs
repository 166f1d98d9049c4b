//! The command line: every option with its unit and default, in one declaration.

mod access;
mod check;
mod load;
mod studies;

pub use access::{AccessArgs, Mechanism};
pub use check::{parse_address, parse_bytes, parse_duration};
pub use load::{MixArgs, Partitioner, ShapeArgs};
pub use studies::{
    ChurnArgs, Churned, CompareArgs, CrashArgs, Failing, FindMaxArgs, IdleArgs, RecoverArgs,
    RespondArgs, ResultsArgs, StudyArgs,
};

use crate::schedule::Spread;
use check::{among, at_least_one, fetch_bytes, parse_cpu, percent};
use clap::{Args, Parser, Subcommand, ValueEnum};
use millrace_wire::compression::Compression;
use serde::{Serialize, Serializer};
use std::path::PathBuf;
use std::time::Duration;

/// A load generator for Kafka brokers: latency from the intended send time, exact batching, every
/// record verified, and what a record costs the broker.
#[derive(Debug, Parser)]
#[command(name = "loadgen", version, max_term_width = 100, args_override_self = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Load a broker, measure it, verify every record, write a report folder
    Run(Box<RunArgs>),
    /// The matrix of acks and batch sizes in about 30 seconds, every record verified
    Quickstart(QuickstartArgs),
    /// Read a topic from its beginning as fast as it comes, and say what that costs the broker
    Consume(ConsumeArgs),
    /// Run a study file: several works on several brokers, interleaved, repeated, compared
    Study(StudyArgs),
    /// Compare two running brokers under one load, interleaved and repeated
    Compare(CompareArgs),
    /// The highest rate at which a bound on latency holds
    FindMax(Box<FindMaxArgs>),
    /// Rounds of load in which the broker is killed or frozen, everything compared after each
    Crash(CrashArgs),
    /// What a broker costs that nobody uses
    Idle(IdleArgs),
    /// Connections, topics or groups made and ended at a rate
    Churn(ChurnArgs),
    /// Start a broker, fill it, kill it, start it again: the time until it acknowledges
    Recover(RecoverArgs),
    /// Make the index and the pictures of a folder of studies, and the headline table of a page
    Results(ResultsArgs),
    /// Be a broker that acknowledges everything and keeps nothing, to measure a load generator
    Respond(RespondArgs),
}

/// Where the broker is and which CPUs the client uses.
#[derive(Args, Clone, Debug, Serialize)]
pub struct TargetArgs {
    /// Broker to ask first, HOST:PORT; of several with commas, the first that answers
    #[arg(
        long,
        default_value = "127.0.0.1:9092",
        value_parser = parse_address,
        help_heading = "Broker"
    )]
    pub bootstrap: String,
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub access: AccessArgs,
    /// Process id of the broker on this host, which must listen where the broker is reached: its
    /// CPU, memory and I/O go into the report [default: they are not measured]
    #[arg(long, help_heading = "Broker")]
    pub pid: Option<u32>,
    /// Count the flushes that process asks its file system for: needs --pid, root and tracefs, and
    /// makes a tracing instance for the length of the run
    #[arg(long, help_heading = "Broker")]
    pub count_flushes: bool,
    /// Congestion control asked for on client sockets; the host's own when refused
    #[arg(long, default_value = "cubic", help_heading = "Client")]
    pub tcp_congestion: String,
    /// CPUs for the client, one pinned thread each, such as 1 or 2,3 [default: one thread, not
    /// pinned]
    #[arg(long, value_delimiter = ',', value_parser = parse_cpu, help_heading = "Client")]
    pub cpus: Vec<usize>,
    /// Before sleeping until the next send, spin this long, microseconds; spun time is not counted
    /// as client CPU
    #[arg(long, default_value_t = 60, value_parser = among(0..=1_000_000), help_heading = "Client")]
    pub spin_us: u32,
}

/// How consumers fetch.
#[derive(Args, Clone, Debug, Serialize)]
pub struct FetchArgs {
    /// Bytes that a fetch waits for, at least
    #[arg(long, default_value_t = 1, value_parser = fetch_bytes(0), allow_negative_numbers = true, help_heading = "Consumers")]
    pub fetch_min_bytes: i32,
    /// Bytes of a fetch, at most
    #[arg(long, default_value_t = 8 << 20, value_parser = fetch_bytes(1), allow_negative_numbers = true, help_heading = "Consumers")]
    pub fetch_max_bytes: i32,
    /// Bytes of one partition in a fetch, at most
    #[arg(long, default_value_t = 1 << 20, value_parser = fetch_bytes(1), allow_negative_numbers = true, help_heading = "Consumers")]
    pub fetch_partition_bytes: i32,
    /// Longest time a fetch waits for its least bytes, milliseconds
    #[arg(long, default_value_t = 500, value_parser = fetch_bytes(0), allow_negative_numbers = true, help_heading = "Consumers")]
    pub fetch_wait_ms: i32,
    /// Check every record's content, order and completeness
    #[arg(long, default_value = "on", help_heading = "Consumers")]
    pub verify: Switch,
}

/// The options of `loadgen run`.
#[derive(Args, Clone, Debug, Serialize)]
pub struct RunArgs {
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub target: TargetArgs,
    /// Topic to write to; made for the run and deleted after it when it does not exist [default: a
    /// new name]
    #[arg(long, help_heading = "Topic")]
    pub topic: Option<String>,
    /// Partitions of a topic that is made; an existing topic is used as it is
    #[arg(long, default_value_t = 8, value_parser = at_least_one(), help_heading = "Topic")]
    pub partitions: u32,
    /// Configuration of a topic that is made, KEY=VALUE, repeatable [default: the broker's]
    #[arg(long, help_heading = "Topic")]
    pub topic_config: Vec<String>,
    /// Leave a topic that was made in place
    #[arg(long, help_heading = "Topic")]
    pub keep_topic: bool,

    /// Producer connections
    #[arg(long, default_value_t = 1, value_parser = at_least_one(), help_heading = "Load")]
    pub connections: u32,
    /// When a batch counts as received: 0 (no answer), 1, all
    #[arg(long, default_value = "all", allow_negative_numbers = true, help_heading = "Load")]
    pub acks: Acks,
    /// Bytes of a record's value, at least 32; suffixes k, KiB, m, MiB, g, GiB
    #[arg(long, default_value = "1024", value_parser = parse_bytes, help_heading = "Records")]
    pub record_bytes: usize,
    /// Records in a batch: exactly this many, or with --linger-ms at most this many
    #[arg(long, default_value_t = 64, value_parser = at_least_one(), help_heading = "Load")]
    pub batch_records: u32,
    /// 0: a batch's records are due together. Above 0: records are due one by one, and a batch
    /// leaves when it is full or its first record has waited this long, milliseconds
    #[arg(long, default_value_t = 0.0, allow_negative_numbers = true, help_heading = "Load")]
    pub linger_ms: f64,
    /// Batches in a request, each for another partition
    #[arg(long, default_value_t = 1, value_parser = at_least_one(), help_heading = "Load")]
    pub batches_per_request: u32,
    /// Open loop: records per second over all connections, sent on schedule whatever the broker
    /// does [default: closed loop, --inflight requests always under way on each connection]
    #[arg(long, allow_negative_numbers = true, help_heading = "Load")]
    pub rate: Option<f64>,
    /// Distances between intended times in an open loop
    #[arg(long, default_value = "uniform", help_heading = "Load")]
    pub spread: Spread,
    /// Requests under way on a connection at most
    #[arg(long, default_value_t = 5, value_parser = at_least_one(), help_heading = "Load")]
    pub inflight: u32,
    /// Distinct keys; 0: records have no key
    #[arg(long, default_value_t = 0, value_parser = among(0..=100_000_000), help_heading = "Records")]
    pub keys: u32,
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub shape: ShapeArgs,
    /// Compression of batches; each batch is then compressed anew, which costs the client CPU
    #[arg(long, default_value = "none", help_heading = "Records")]
    pub codec: Codec,
    /// Share of each body that is constant and so compresses, percent
    #[arg(long, default_value_t = 0, value_parser = percent(), help_heading = "Records")]
    pub compressible: u8,
    /// Producer ids and sequence numbers; needs --acks all and at most 5 in flight
    #[arg(long, default_value = "off", help_heading = "Load")]
    pub idempotent: Switch,
    /// How often a batch is sent again after an error that Kafka calls retriable
    #[arg(long, default_value_t = 5, help_heading = "Load")]
    pub retries: u32,
    /// Time a request may stay unanswered, and the broker's timeout for acks=all, such as 500ms,
    /// 30s
    #[arg(long, default_value = "30s", value_parser = parse_duration, help_heading = "Load")]
    #[serde(serialize_with = "as_seconds")]
    pub timeout: Duration,

    /// Measured time, such as 500ms, 10s, 2m, 1h
    #[arg(long, default_value = "10s", value_parser = parse_duration, help_heading = "Run")]
    #[serde(serialize_with = "as_seconds")]
    pub duration: Duration,
    /// End once this many records were sent, warm-up included, if that is before --duration;
    /// rounded up to whole requests of each connection [default: no limit]
    #[arg(long, help_heading = "Run")]
    pub records: Option<u64>,
    /// Load before the measured time, such as 0s, 2s
    #[arg(long, default_value = "2s", value_parser = parse_duration, help_heading = "Run")]
    #[serde(serialize_with = "as_seconds")]
    pub warmup: Duration,
    /// Seed of payloads, keys and Poisson arrivals
    #[arg(long, default_value_t = 1, help_heading = "Run")]
    pub seed: u64,
    /// Folder for the report [default: loadgen-report-TIME]
    #[arg(long, help_heading = "Run")]
    pub out: Option<PathBuf>,
    /// While it runs, serve counters and times to Prometheus here, HOST:PORT [default: nowhere]
    #[arg(long, help_heading = "Run")]
    pub prometheus: Option<String>,

    /// Consumers at the tail, which share the partitions; 0: records are read back and verified
    /// after the load
    #[arg(long, default_value_t = 1, help_heading = "Consumers")]
    pub consumers: u32,
    /// How many consumers read each partition; there are --consumers times this many
    #[arg(long, default_value_t = 1, value_parser = at_least_one(), help_heading = "Consumers")]
    pub fanout: u32,
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub mix: MixArgs,
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub fetch: FetchArgs,
}

/// The options of `loadgen quickstart`.
#[derive(Args, Clone, Debug)]
pub struct QuickstartArgs {
    /// Measure this broker, HOST:PORT [default: one of its own, inside this program]
    #[arg(long, value_parser = parse_address)]
    pub bootstrap: Option<String>,
    /// Process id of that broker on this host [default: its costs are not measured]
    #[arg(long, requires = "bootstrap")]
    pub pid: Option<u32>,
    /// CPUs for the client [default: with the embedded broker the last one; else not pinned]
    #[arg(long, value_delimiter = ',', value_parser = parse_cpu)]
    pub cpus: Vec<usize>,
    /// Measured time of each cell of the matrix at its fixed rate, such as 800ms, 10s
    #[arg(long, default_value = "800ms", value_parser = parse_duration)]
    pub duration: Duration,
    /// Folder for the report [default: loadgen-report-TIME]
    #[arg(long)]
    pub out: Option<PathBuf>,
}

/// The options of `loadgen consume`.
#[derive(Args, Clone, Debug, Serialize)]
pub struct ConsumeArgs {
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub target: TargetArgs,
    /// Topic to read
    #[arg(long)]
    pub topic: String,
    /// Consumers, which share the partitions
    #[arg(long, default_value_t = 1, value_parser = at_least_one(), help_heading = "Consumers")]
    pub consumers: u32,
    /// How many consumers read each partition
    #[arg(long, default_value_t = 1, value_parser = at_least_one(), help_heading = "Consumers")]
    pub fanout: u32,
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub fetch: FetchArgs,
    /// Bytes of batches a second to read at most; 0: as fast as it goes
    #[arg(long, default_value = "0", value_parser = parse_bytes, help_heading = "Consumers")]
    pub bytes_per_second: usize,
    /// Stop after this long even before the end, such as 30s, 5m
    #[arg(long, default_value = "5m", value_parser = parse_duration)]
    #[serde(serialize_with = "as_seconds")]
    pub timeout: Duration,
    /// File to write the result to as JSON, too [default: none]
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// Acknowledgement level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Acks {
    /// No answer.
    #[value(name = "0")]
    #[serde(rename = "0")]
    None,
    /// The leader has it.
    #[value(name = "1")]
    #[serde(rename = "1")]
    Leader,
    /// All in-sync replicas have it.
    #[value(name = "all", alias = "-1")]
    All,
}

impl Acks {
    /// The number on the wire.
    pub fn code(self) -> i16 {
        match self {
            Self::None => 0,
            Self::Leader => 1,
            Self::All => -1,
        }
    }

    /// The word on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::None => "0",
            Self::Leader => "1",
            Self::All => "all",
        }
    }
}

/// Compression of record batches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

impl Codec {
    /// What the batches' attributes say.
    pub fn compression(self) -> Compression {
        match self {
            Self::None => Compression::None,
            Self::Gzip => Compression::Gzip,
            Self::Snappy => Compression::Snappy,
            Self::Lz4 => Compression::Lz4,
            Self::Zstd => Compression::Zstd,
        }
    }
}

/// On or off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs)]
pub enum Switch {
    On,
    Off,
}

impl RunArgs {
    /// All options at their defaults.
    pub fn with_defaults() -> Self {
        match Cli::parse_from(["loadgen", "run"]).command {
            Command::Run(args) => *args,
            _ => unreachable!("`loadgen run` parses as run"),
        }
    }

    /// Whether sends have intended times that the broker cannot move.
    pub fn is_open(&self) -> bool {
        self.rate.is_some() || self.shape.schedule.is_some()
    }
}

fn as_seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_declaration_is_sound() {
        use clap::CommandFactory;
        Cli::command().debug_assert();
        assert_eq!(RunArgs::with_defaults().check(), Ok(()));
    }

    #[test]
    fn every_option_says_what_it_is_without_it() {
        use clap::CommandFactory;
        let commands = Cli::command();
        for command in commands.get_subcommands() {
            for option in
                command.get_arguments().filter(|option| option.get_action().takes_values())
            {
                let help = option.get_help().map(ToString::to_string).unwrap_or_default();
                let is_said = option.is_required_set()
                    || !option.get_default_values().is_empty()
                    || help.contains("[default: ");
                assert!(is_said, "{} {}: {help}", command.get_name(), option.get_id());
            }
        }
    }
}
