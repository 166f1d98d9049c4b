//! Options of the commands that measure more than one run, or none: study, compare, find-max,
//! crash, idle, recover, churn, respond, results.

use super::check::{among, at_least_one, parse_cpu};
use super::{RunArgs, TargetArgs, as_seconds, parse_bytes, parse_duration};
use crate::findmax::Slo;
use clap::{Args, ValueEnum};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// The options of `loadgen study`.
#[derive(Args, Clone, Debug)]
pub struct StudyArgs {
    /// The study: a TOML file, or a preset: acks0-latency, acks1-latency, acksall-latency,
    /// acks-x-batching, throughput-1k, small-batch-cpu, many-partitions, keyed-100-producers,
    /// catchup-mix, fanout-8, group-8, idle-1000, retention-soak, churn, crash, linger, batch-size,
    /// partitions, connections, codecs, fanout
    pub file: PathBuf,
    /// A broker that runs already, besides those of the file: NAME=HOST:PORT or
    /// NAME=HOST:PORT@PID, repeatable [default: none]
    #[arg(long)]
    pub broker: Vec<String>,
    /// A broker to start, besides those of the file: NAME=COMMAND, a shell command that becomes the
    /// broker and is given PORT, DIR (an empty folder) and CPUS; repeatable [default:
    /// none]
    #[arg(long)]
    pub start: Vec<String>,
    /// CPUs for the client [default: the file's]
    #[arg(long, value_delimiter = ',', value_parser = parse_cpu)]
    pub cpus: Vec<usize>,
    /// Folder for the results; what it already holds of the same study is not measured again
    #[arg(long)]
    pub out: PathBuf,
    /// Only these rows, with semicolons between [default: all]
    #[arg(long, value_delimiter = ';')]
    pub only: Vec<String>,
    /// Measurements of each row; rows with fewer of their own keep those [default: the file's]
    #[arg(long, value_parser = at_least_one())]
    pub repeats: Option<u32>,
    /// Duration of every run, such as 1s, to try a study out; a tenth of it is the warm-up
    /// [default: the file's]
    #[arg(long, value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Warm-up of every broker, such as 10s [default: the file's]
    #[arg(long, value_parser = parse_duration)]
    pub warm_up: Option<Duration>,
    /// Variable for the shell commands in the file, NAME=VALUE, repeatable [default: those of the
    /// environment]
    #[arg(long)]
    pub set: Vec<String>,
    /// Only check the file
    #[arg(long)]
    pub check: bool,
}

/// The options of `loadgen compare`.
#[derive(Args, Clone, Debug)]
pub struct CompareArgs {
    /// The broker that is judged, HOST:PORT or HOST:PORT@PID
    pub first: String,
    /// The broker it is compared with
    pub second: String,
    /// What is demanded, such as 'broker_cpu_us_per_record ratio <= 0.5', or of a value instead of
    /// the ratio; repeatable [default: nothing]
    #[arg(long)]
    pub bound: Vec<String>,
    /// Figures to show, by their path in report.json
    #[arg(
        long,
        value_delimiter = ',',
        default_value = "records_per_second,bytes_per_second,response_us.p50,response_us.p99,\
                         broker_cpu_us_per_record,broker_cpu_s_per_gb"
    )]
    pub show: Vec<String>,
    /// Measurements of each
    #[arg(long, default_value_t = 5, value_parser = at_least_one())]
    pub repeats: u32,
    /// CPUs for the client [default: one thread, not pinned]
    #[arg(long, value_delimiter = ',', value_parser = parse_cpu)]
    pub cpus: Vec<usize>,
    /// Folder for the results; goes on with what it already holds
    #[arg(long)]
    pub out: PathBuf,
    /// Options of `loadgen run`, after -- [default: none]
    #[arg(last = true)]
    pub run: Vec<String>,
}

/// The options of `loadgen find-max`.
#[derive(Args, Clone, Debug)]
pub struct FindMaxArgs {
    /// The bound, from the intended times: p50, p90, p99, p99.9 or p99.99, such as p99=10ms
    #[arg(long, default_value = "p99=10ms", value_parser = Slo::parse, help_heading = "Search")]
    pub slo: Slo,
    /// How close to the highest rate the search ends, percent
    #[arg(long, default_value_t = 5.0, help_heading = "Search")]
    pub resolution: f64,
    /// Every try is such a run; --rate is the first one [default: 1000]
    #[command(flatten)]
    pub run: RunArgs,
}

/// What is done to a broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Failing {
    /// SIGKILL, then started again.
    Kill,
    /// SIGSTOP for up to a second.
    Freeze,
    /// In turns.
    Both,
}

/// The options of `loadgen crash`.
#[derive(Args, Clone, Debug, Serialize)]
pub struct CrashArgs {
    /// Shell command that becomes the broker; it is given PORT, DIR (empty at first) and CPUS
    #[arg(long)]
    pub start: String,
    /// The command starts the broker in the background and prints its process id last
    #[arg(long)]
    pub prints_pid: bool,
    /// CPUs of the broker [default: all]
    #[arg(long, value_delimiter = ',', value_parser = parse_cpu)]
    pub broker_cpus: Vec<usize>,
    /// Rounds; acks=all and acks=1 take turns
    #[arg(long, default_value_t = 10, value_parser = at_least_one())]
    pub rounds: u32,
    /// What is done to the broker
    #[arg(long, default_value = "kill")]
    pub failing: Failing,
    /// Load of a round, such as 3s; the broker fails somewhere in its middle, and must be back
    /// before its end
    #[arg(long, default_value = "3s", value_parser = parse_duration)]
    #[serde(serialize_with = "as_seconds")]
    pub duration: Duration,
    /// Records a second
    #[arg(long, default_value_t = 5000.0)]
    pub rate: f64,
    /// Bytes of a value
    #[arg(long, default_value = "512", value_parser = parse_bytes)]
    pub record_bytes: usize,
    /// Of the moments at which it fails
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Folder for the broker's data, which must not exist and goes away again
    #[arg(long, default_value = "loadgen-crash")]
    pub folder: PathBuf,
    /// File to write the result to as JSON, too [default: none]
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// The options of `loadgen idle`.
#[derive(Args, Clone, Debug, Serialize)]
pub struct IdleArgs {
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub target: TargetArgs,
    /// Empty partitions to make first, in one topic that is deleted after it
    #[arg(long, default_value_t = 0)]
    pub partitions: u32,
    /// Wait before measuring, such as 5s
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    #[serde(serialize_with = "as_seconds")]
    pub settle: Duration,
    /// Measured time, such as 20s, 2m
    #[arg(long, default_value = "20s", value_parser = parse_duration)]
    #[serde(serialize_with = "as_seconds")]
    pub duration: Duration,
    /// File to write the result to as JSON, too [default: none]
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// The options of `loadgen recover`.
#[derive(Args, Clone, Debug, Serialize)]
pub struct RecoverArgs {
    /// Shell command that becomes the broker; it is given PORT, DIR (an empty folder) and CPUS
    #[arg(long)]
    pub start: String,
    /// The command starts the broker in the background and prints its process id last
    #[arg(long)]
    pub prints_pid: bool,
    /// CPUs of the broker [default: all]
    #[arg(long, value_delimiter = ',', value_parser = parse_cpu)]
    pub broker_cpus: Vec<usize>,
    /// Value bytes to write before the kill
    #[arg(long, default_value_t = 20_000_000)]
    pub fill_bytes: u64,
    /// Partitions they are spread over
    #[arg(long, default_value_t = 8, value_parser = at_least_one())]
    pub partitions: u32,
    /// Folder for the broker's data, which must not exist and goes away again
    #[arg(long, default_value = "loadgen-recover")]
    pub folder: PathBuf,
    /// File to write the result to as JSON, too [default: none]
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// The options of `loadgen respond`.
#[derive(Args, Clone, Debug)]
pub struct RespondArgs {
    /// Where to listen, HOST:PORT; port 0 takes a free one, which is printed
    #[arg(long, default_value = "127.0.0.1:9999")]
    pub listen: String,
    /// Partitions of every topic
    #[arg(long, default_value_t = 8, value_parser = at_least_one())]
    pub partitions: u32,
    /// How long every answer is kept back, such as 5ms
    #[arg(long, default_value = "0ms", value_parser = parse_duration)]
    pub delay: Duration,
    /// CPUs to stay on [default: all]
    #[arg(long, value_delimiter = ',', value_parser = parse_cpu)]
    pub cpus: Vec<usize>,
}

/// What is made and ended again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Churned {
    /// Connections, until the versions and the brokers are known.
    Connections,
    /// Topics of one partition.
    Topics,
    /// Groups of one member: joined, given its partition, left.
    Groups,
}

impl Churned {
    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Topics => "topics",
            Self::Groups => "groups",
        }
    }
}

/// The options of `loadgen churn`.
#[derive(Args, Clone, Debug, Serialize)]
pub struct ChurnArgs {
    #[command(flatten)]
    #[serde(flatten)]
    #[allow(missing_docs)]
    pub target: TargetArgs,
    /// What is made and ended
    #[arg(long, default_value = "connections")]
    pub of: Churned,
    /// How many a second, on schedule whatever the broker does
    #[arg(long, default_value_t = 100.0)]
    pub rate: f64,
    /// For how long, such as 10s, 2m
    #[arg(long, default_value = "10s", value_parser = parse_duration)]
    #[serde(serialize_with = "as_seconds")]
    pub duration: Duration,
    /// How many are under way at once at most
    #[arg(long, default_value_t = 16, value_parser = among(1..=10_000))]
    pub threads: u32,
    /// File to write the result to as JSON, too [default: none]
    #[arg(long)]
    pub json: Option<PathBuf>,
}

/// The options of `loadgen results`.
#[derive(Args, Clone, Debug)]
pub struct ResultsArgs {
    /// Folder of the studies; its README.md is made, and the pictures of each study's curves
    #[arg(default_value = "bench-results")]
    pub folder: PathBuf,
    /// Page whose headline table is made, between its marks
    #[arg(long, default_value = "README.md")]
    pub page: PathBuf,
    /// Write nothing; exit with status 3 when a page is not up to date
    #[arg(long)]
    pub check: bool,
}
