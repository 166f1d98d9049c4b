//! Options of the commands that measure more than one run: study, compare, idle, recover.

use super::{TargetArgs, as_seconds, at_least_one, parse_duration};
use clap::Args;
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;

/// The options of `loadgen study`.
#[derive(Args, Clone, Debug)]
pub struct StudyArgs {
    /// The study: a TOML file
    pub file: PathBuf,
    /// Folder for the results; what it already holds of the same study is not measured again
    #[arg(long)]
    pub out: PathBuf,
    /// Only these rows
    #[arg(long, value_delimiter = ';')]
    pub only: Vec<String>,
    /// Instead of the file's repeats; rows with fewer of their own keep those
    #[arg(long, value_parser = at_least_one())]
    pub repeats: Option<u32>,
    /// Instead of the duration of every run, to try a study out; a tenth of it is the warm-up
    #[arg(long, value_parser = parse_duration)]
    pub duration: Option<Duration>,
    /// Instead of the warm-up of every broker
    #[arg(long, value_parser = parse_duration)]
    pub warm_up: Option<Duration>,
    /// Variable for the shell commands in the file, NAME=VALUE, repeatable
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
    /// What is demanded, such as 'broker_cpu_us_per_record ratio <= 0.5'; repeatable
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
    /// CPUs for the client
    #[arg(long, value_delimiter = ',')]
    pub cpus: Vec<usize>,
    /// Folder for the results; goes on with what it already holds
    #[arg(long)]
    pub out: PathBuf,
    /// Options of `loadgen run`, after --
    #[arg(last = true)]
    pub run: Vec<String>,
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
    /// Wait before measuring
    #[arg(long, default_value = "5s", value_parser = parse_duration)]
    #[serde(serialize_with = "as_seconds")]
    pub settle: Duration,
    /// Measured time
    #[arg(long, default_value = "20s", value_parser = parse_duration)]
    #[serde(serialize_with = "as_seconds")]
    pub duration: Duration,
    /// Also write the result as JSON here
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
    /// CPUs of the broker; default: all
    #[arg(long, value_delimiter = ',')]
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
    /// Also write the result as JSON here
    #[arg(long)]
    pub json: Option<PathBuf>,
}
