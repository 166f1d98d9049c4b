//! The commands of `millrace` that are clients of a broker, Millrace or Apache Kafka.
//!
//! | module | instead of |
//! |---|---|
//! | [`topics`] | kafka-topics |
//! | [`produce`], [`consume`] | kafka-console-producer, kafka-console-consumer |
//! | [`groups`], [`offsets`] | kafka-consumer-groups, kafka-get-offsets |
//! | [`configs`], [`cluster`] | kafka-configs, kafka-cluster |
//! | [`log`] | kafka-dump-log |
//! | [`failure`] | what went wrong, and what to do next |
//! | [`print`] | tables for people, JSON for programs |
//!
//! A command is a `clap` structure whose `run` asks and prints. Flags have the names of Kafka's
//! tools.

pub mod cluster;
pub mod configs;
pub mod consume;
pub mod failure;
pub mod groups;
pub mod log;
pub mod offsets;
pub mod print;
pub mod produce;
pub mod topics;
mod when;

pub use failure::{Failure, nearest};
pub use print::Printer;

use clap::{Args, Subcommand};
use millrace_client::{Client, Options};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

/// What came of a command.
pub type Result<T = (), E = Failure> = std::result::Result<T, E>;

/// What `millrace` can do as a client.
#[derive(Clone, Debug, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Create, list, describe, enlarge and delete topics.
    Topics(topics::Topics),
    /// Send lines of standard input as records.
    Produce(produce::Produce),
    /// Print the records of a topic.
    Consume(consume::Consume),
    /// Show, move and delete consumer groups.
    Groups(groups::Groups),
    /// Show and change settings of topics and brokers.
    Configs(configs::Configs),
    /// Show where partitions begin and end, or stood at a time.
    Offsets(offsets::Offsets),
    /// Print the segments, batches and indexes of a partition's folder.
    Log(log::Log),
    /// Show the cluster's id, brokers and API versions.
    Cluster(cluster::ShowCluster),
}

impl Command {
    /// Does it. Results go to `printer`.
    pub fn run(&self, printer: &mut Printer<'_>) -> Result {
        match self {
            Self::Topics(topics) => topics.run(printer),
            Self::Produce(produce) => produce.run(printer),
            Self::Consume(consume) => consume.run(printer),
            Self::Groups(groups) => groups.run(printer),
            Self::Configs(configs) => configs.run(printer),
            Self::Offsets(offsets) => offsets.run(printer),
            Self::Log(log) => log.run(printer),
            Self::Cluster(cluster) => cluster.run(printer),
        }
    }
}

/// Which cluster.
#[derive(Clone, Debug, PartialEq, Eq, Args)]
pub struct Cluster {
    /// Brokers to reach first, one that answers is enough; otherwise those of the environment
    /// variable MILLRACE_BOOTSTRAP_SERVER, or 127.0.0.1:9092.
    #[arg(long, short = 'b', alias = "broker-list", value_name = "HOST:PORT,...")]
    bootstrap_server: Option<String>,
    /// JSON for programs instead of text for people.
    #[arg(long)]
    json: bool,
}

impl Cluster {
    /// A client of it.
    fn connect(&self, options: Options) -> Result<Client> {
        let given = self.bootstrap_server.clone();
        let server = given.or_else(|| std::env::var("MILLRACE_BOOTSTRAP_SERVER").ok());
        let server = server.filter(|server| !server.is_empty());
        Ok(Client::connect(server.as_deref().unwrap_or("127.0.0.1:9092"), options)?)
    }
}

/// Ctrl-C and SIGTERM raise the flag; another one, if it is not the same sent twice (as by
/// timeout(1), to the process and to its group), ends the process at once.
pub(crate) fn stop_on_signals(stop: &Arc<AtomicBool>) -> io::Result<()> {
    let is_waiting_long = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, 130, Arc::clone(&is_waiting_long))?;
        flag::register(signal, Arc::clone(stop))?;
    }
    let stop = Arc::clone(stop);
    thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            thread::sleep(Duration::from_millis(100));
        }
        thread::sleep(Duration::from_millis(300));
        is_waiting_long.store(true, Ordering::Relaxed);
    });
    Ok(())
}
