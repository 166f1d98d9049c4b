//! What all shards read and none changes while the broker runs, but for a few counters.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize};
use std::sync::{Mutex, MutexGuard, OnceLock};

use millrace_io::Io;
use millrace_log::checkpoints::{CLEANED, Checkpoint, LOG_START, RECOVERY_POINT, write_checkpoint};
use millrace_wire::Uuid;

use crate::config::{AcksAll, Config};
use crate::metadata::data_dir::DataDir;
use crate::partitions::Durability;

/// Address that clients are told to use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Name of the listener, such as `PLAINTEXT`.
    pub listener: String,
    /// Host name or address.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// Offsets that make opening quick, as the next checkpoint files will have them.
#[derive(Default)]
pub(crate) struct Hints {
    pub(crate) recovery_points: Checkpoint,
    pub(crate) log_starts: Checkpoint,
    /// Ends of the last cleanings of compacted logs.
    pub(crate) cleaned: Checkpoint,
    /// Log starts taken out that the file still has.
    pub(crate) starts_forgotten: usize,
}

/// Facts of the running broker.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) node_id: i32,
    pub(crate) cluster_id: String,
    /// The first of `log.dirs`: where all partitions are.
    pub(crate) data_dir: PathBuf,
    /// Ids of the data folders.
    pub(crate) directories: Vec<Uuid>,
    /// The last broker here stopped cleanly.
    pub(crate) was_clean: bool,
    /// Open connections by shard. Approximate: it only spreads new ones.
    pub(crate) connections: Vec<AtomicUsize>,
    /// Offset of this broker's registration in the metadata log.
    pub(crate) broker_epoch: AtomicI64,
    /// Set once: the shards end after their present turn.
    pub(crate) stop: AtomicBool,
    endpoints: OnceLock<Vec<Endpoint>>,
    /// Touched by administration and housekeeping, never by produce or fetch. Held for no longer
    /// than a copy takes.
    hints: Mutex<Hints>,
    /// Held by who writes the checkpoint files.
    saving: Mutex<()>,
}

impl Shared {
    pub(crate) fn new(config: Config, data_dir: &DataDir, shards: usize) -> Self {
        Self {
            node_id: config.node_id,
            cluster_id: data_dir.cluster_id.clone(),
            data_dir: data_dir.path().to_owned(),
            directories: data_dir.folders.iter().map(|folder| folder.id).collect(),
            was_clean: data_dir.folders.iter().all(|folder| folder.was_clean),
            connections: (0..shards).map(|_| AtomicUsize::new(0)).collect(),
            broker_epoch: AtomicI64::new(-1),
            stop: AtomicBool::new(false),
            endpoints: OnceLock::new(),
            hints: Mutex::default(),
            saving: Mutex::default(),
            config,
        }
    }

    /// Where clients are told to go, once the listeners are bound: port 0 stands for the bound one.
    pub(crate) fn set_endpoints(&self, bound: &[SocketAddr]) {
        let advertised = &self.config.listeners.advertised;
        let endpoints = advertised.iter().zip(bound).map(|(listener, bound)| Endpoint {
            listener: listener.name.clone(),
            host: listener.host.clone(),
            port: if listener.port == 0 { bound.port() } else { listener.port },
        });
        self.endpoints.set(endpoints.collect()).expect("set once, by shard 0");
    }

    /// One for each listener.
    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        self.endpoints.get().expect("set before anybody is served")
    }

    /// The advertised address of the listener that a client came in on.
    pub(crate) fn endpoint(&self, listener: usize) -> &Endpoint {
        &self.endpoints()[listener]
    }

    /// What acks=all waits for in a topic.
    pub(crate) fn acks_all(&self, topic: &str) -> Durability {
        match self.config.own.acks_all.of(topic) {
            AcksAll::Flush => Durability::Flushed,
            AcksAll::Write => Durability::Written,
        }
    }

    /// Puts the hints into the checkpoint files. Blocks.
    pub(crate) fn save_hints<I: Io>(&self, io: &mut I) -> io::Result<()> {
        let _alone = self.saving.lock().expect("no holder of this lock panics");
        let hints = self.hints();
        let forgotten = hints.starts_forgotten;
        let files = [
            (RECOVERY_POINT, hints.recovery_points.clone()),
            (LOG_START, hints.log_starts.clone()),
            (CLEANED, hints.cleaned.clone()),
        ];
        drop(hints);
        for (name, offsets) in files {
            let entries = offsets.iter().map(|((topic, part), offset)| (&**topic, *part, *offset));
            write_checkpoint(io, &self.data_dir, name, entries)?;
        }
        self.hints().starts_forgotten -= forgotten;
        Ok(())
    }

    pub(crate) fn hints(&self) -> MutexGuard<'_, Hints> {
        self.hints.lock().expect("no holder of this lock panics")
    }
}
