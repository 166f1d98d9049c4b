//! What all shards read and none changes while the broker runs, but for a few counters.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize};
use std::sync::{Mutex, MutexGuard, OnceLock};

use millrace_io::Io;
use millrace_log::checkpoints::{
    CLEANED, Checkpoint, LOG_START, RECOVERY_POINT, read_checkpoint, write_checkpoint,
};
use millrace_wire::Uuid;

use crate::config::{AcksAll, Config};
use crate::intake::Peers;
use crate::metadata::Partition;
use crate::metadata::data_dir::{DataDir, Folder};
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

/// Offsets that make opening quick, as the next checkpoint files of a data folder will have them.
#[derive(Default)]
pub(crate) struct Hints {
    pub(crate) recovery_points: Checkpoint,
    pub(crate) log_starts: Checkpoint,
    /// Ends of the last cleanings of compacted logs.
    pub(crate) cleaned: Checkpoint,
    /// Names taken out that the files still have.
    pub(crate) forgotten: usize,
}

/// Facts of the running broker.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) node_id: i32,
    pub(crate) cluster_id: String,
    /// The data folders, in the order of `log.dirs`.
    pub(crate) folders: Vec<Folder>,
    /// Which of them has the metadata log.
    pub(crate) metadata_folder: usize,
    /// Open connections by shard. Approximate: it only spreads new ones.
    pub(crate) connections: Vec<AtomicUsize>,
    pub(crate) peers: Peers,
    /// Offset of this broker's registration in the metadata log.
    pub(crate) broker_epoch: AtomicI64,
    /// Set once: the shards end after their present turn.
    pub(crate) stop: AtomicBool,
    endpoints: OnceLock<Vec<Endpoint>>,
    /// By folder. Touched by administration and housekeeping, never by produce or fetch. Held for
    /// no longer than a copy takes.
    hints: Vec<Mutex<Hints>>,
    /// Held by who writes the checkpoint files.
    saving: Mutex<()>,
}

impl Shared {
    pub(crate) fn new(config: Config, data_dir: &DataDir, shards: usize) -> Self {
        Self {
            node_id: config.node_id,
            cluster_id: data_dir.cluster_id.clone(),
            folders: data_dir.folders.clone(),
            metadata_folder: data_dir.metadata,
            connections: (0..shards).map(|_| AtomicUsize::new(0)).collect(),
            peers: Peers::default(),
            broker_epoch: AtomicI64::new(-1),
            stop: AtomicBool::new(false),
            endpoints: OnceLock::new(),
            hints: data_dir.folders.iter().map(|_| Mutex::default()).collect(),
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

    /// Ids of the data folders, that with the metadata log first.
    pub(crate) fn directories(&self) -> Vec<Uuid> {
        let mut ids: Vec<Uuid> = self.folders.iter().map(|folder| folder.id).collect();
        ids[..=self.metadata_folder].rotate_right(1);
        ids
    }

    /// Index of the data folder that the metadata have a partition in.
    pub(crate) fn folder_of(&self, partition: &Partition) -> usize {
        let directory = partition.directory_of(self.node_id);
        let folder = self.folders.iter().position(|folder| folder.id == directory);
        // Those of this node were found or placed at the start.
        folder.unwrap_or(self.metadata_folder)
    }

    /// Puts the hints into the checkpoint files of all folders, of all that can be written. Blocks.
    pub(crate) fn save_hints<I: Io>(&self, io: &mut I) -> io::Result<()> {
        let mut outcome = Ok(());
        for folder in 0..self.folders.len() {
            outcome = outcome.and(self.save_hints_of(io, folder));
        }
        outcome
    }

    /// As [`Shared::save_hints`], of one folder.
    pub(crate) fn save_hints_of<I: Io>(&self, io: &mut I, folder: usize) -> io::Result<()> {
        let _alone = self.saving.lock().expect("no holder of this lock panics");
        let hints = self.hints(folder);
        let forgotten = hints.forgotten;
        let files = [
            (RECOVERY_POINT, hints.recovery_points.clone()),
            (LOG_START, hints.log_starts.clone()),
            (CLEANED, hints.cleaned.clone()),
        ];
        drop(hints);
        for (name, offsets) in files {
            let entries = offsets.iter().map(|((topic, part), offset)| (&**topic, *part, *offset));
            write_checkpoint(io, &self.folders[folder].path, name, entries)?;
        }
        self.hints(folder).forgotten -= forgotten;
        Ok(())
    }

    /// Reads the checkpoint files of all folders. A damaged one only makes recovery scan more.
    pub(crate) fn load_hints<I: Io>(&self, io: &mut I) {
        for (index, folder) in self.folders.iter().enumerate() {
            let mut read = |name| read_checkpoint(io, &folder.path, name).unwrap_or_default();
            *self.hints(index) = Hints {
                recovery_points: read(RECOVERY_POINT),
                log_starts: read(LOG_START),
                cleaned: read(CLEANED),
                forgotten: 0,
            };
        }
    }

    /// A partition is in another folder than before: what is known of it goes along.
    pub(crate) fn carry_hints(&self, key: &(String, i32), from: usize, to: usize) {
        self.copy_hints(key, from, to);
        self.forget_hints(from, key);
    }

    /// A partition may be in another folder after the next start.
    pub(crate) fn copy_hints(&self, key: &(String, i32), from: usize, to: usize) {
        let known = {
            let Hints { recovery_points, log_starts, cleaned, .. } = &*self.hints(from);
            [recovery_points, log_starts, cleaned].map(|offsets| offsets.get(key).copied())
        };
        let Hints { recovery_points, log_starts, cleaned, .. } = &mut *self.hints(to);
        for (offsets, known) in [recovery_points, log_starts, cleaned].into_iter().zip(known) {
            offsets.extend(known.map(|offset| (key.clone(), offset)));
        }
    }

    /// Takes a name out of a folder's checkpoints: a topic made again under it begins at offset 0.
    /// At the next start a log start of the old one would cut off its records, and a recovery point
    /// would have them taken for flushed. Returns the recovery point.
    pub(crate) fn forget_hints(&self, folder: usize, key: &(String, i32)) -> Option<i64> {
        let mut hints = self.hints(folder);
        let recovery_point = hints.recovery_points.remove(key);
        hints.cleaned.remove(key);
        let start = hints.log_starts.remove(key);
        hints.forgotten += usize::from(recovery_point.or(start).is_some());
        recovery_point
    }

    pub(crate) fn hints(&self, folder: usize) -> MutexGuard<'_, Hints> {
        self.hints[folder].lock().expect("no holder of this lock panics")
    }
}
