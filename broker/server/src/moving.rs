//! Moving a partition to another data folder while it is served (KIP-113).
//!
//! 1. Finished segments are copied on the background thread, as long as there are new ones.
//! 2. The partition answers NOT_LEADER_OR_FOLLOWER, after which clients try again. Its log is
//!    closed, and the rest of its files copied and flushed.
//! 3. The metadata get the other folder's id: this is the moment of the move.
//! 4. The old files are renamed for deletion, the copy gets their name and is served.
//!
//! A crash before the third step leaves a copy that the next start removes; one after it, a move
//! that the next start ends (`metadata::places`).

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millrace_io::Io;
use millrace_log::{Copier, Finished};
use millrace_wire::ErrorCode;
use millrace_wire::stored::PartitionChangeRecord;

use crate::background::{Step, Work};
use crate::controller::Decision;
use crate::limits;
use crate::metadata::MetadataRecord;
use crate::metadata::data_dir::Folder;
use crate::metadata::places::{DELETED, MOVING, marked};
use crate::partitions::{Partition, PartitionId};
use crate::shard::Shard;
use crate::storage::{remove_folder, save_hints};
use crate::timers::Timer;

/// Between two looks at whether the log is ready for the next step.
const LOOK_AGAIN_MS: u64 = 5;

/// A partition on its way to another folder.
#[derive(Debug)]
pub(crate) struct Moving {
    /// Index of the folder.
    pub(crate) to: usize,
    /// Everything below this offset was copied.
    pub(crate) copied_end: i64,
    pub(crate) copied_bytes: u64,
    /// Old segments stay until the move is over.
    is_held: bool,
    /// Segments that were finished for the move.
    rounds: u32,
    /// The rest is being copied, and nobody served: bytes and end of the log.
    pub(crate) paused_at: Option<(u64, i64)>,
}

impl<I: Io> Shard<I> {
    /// Begins to move a partition of this shard; the answer of AlterReplicaLogDirs.
    pub(crate) fn begin_move(&mut self, id: PartitionId, to: usize) -> ErrorCode {
        if let Some(moving) = self.moving(id) {
            let is_same = moving.to == to;
            return if is_same { ErrorCode::NONE } else { ErrorCode::REASSIGNMENT_IN_PROGRESS };
        }
        let index = match self.open_partition(id) {
            Ok(index) => index,
            Err(error) => return error,
        };
        let partition = self.partitions.get_mut(index).expect("opened just now");
        if partition.folder == to {
            return ErrorCode::NONE;
        }
        partition.moving = Some(Moving {
            to,
            copied_end: 0,
            copied_bytes: 0,
            is_held: false,
            rounds: 0,
            paused_at: None,
        });
        let copy = self.copy_of(index).expect("it is moving");
        let new = copy.with_file_name(self.partitions.get_mut(index).expect("as above").name());
        self.in_background(move |io| {
            // What a move before this one left.
            remove_folder(io, &copy);
            let made = match io.read_dir(&new) {
                Ok(_) => Err(io::Error::other("something of its name is there")),
                Err(_) => io.create_dir(&copy),
            };
            Some(Box::new(move |shard: &mut Self| match made {
                Ok(()) => shard.continue_move(id),
                Err(error) => shard.end_move(id, &error.to_string()),
            }))
        });
        ErrorCode::NONE
    }

    /// The folder that a partition is copied to, if it is moving.
    fn copy_of(&mut self, index: u32) -> Option<PathBuf> {
        self.partitions.get_mut(index)?.copy(&self.shared.folders)
    }

    /// Takes the next step of a move, if the log is ready for it.
    pub(crate) fn continue_move(&mut self, id: PartitionId) {
        let Some(index) = self.partitions.index(id) else { return };
        let Self { partitions, io, chunks, dirty, .. } = self;
        let partition = partitions.get_mut(index).expect("an index from the table");
        let (Some(log), Some(moving)) = (&mut partition.log, &mut partition.moving) else { return };
        if log.poison().is_some() {
            return self.end_move(id, "it has stopped");
        }
        moving.is_held = moving.is_held || log.hold();
        if !moving.is_held {
            return self.look_again(id);
        }
        if moving.paused_at.is_some() {
            return self.copy_rest(id, index);
        }
        match log.finished_from(moving.copied_end) {
            Finished::Files(files, end) => self.copy(id, index, files, end),
            Finished::Soon => self.look_again(id),
            Finished::AllBut(bytes)
                if bytes > limits::MOVED_AT_ONCE_BYTES && moving.rounds < limits::MOVE_ROUNDS =>
            {
                moving.rounds += 1;
                if let Err(error) = log.finish_segment(io, chunks) {
                    return self.end_move(id, &error.to_string());
                }
                if !partition.dirty {
                    partition.dirty = true;
                    dirty.push(index);
                }
                self.look_again(id);
            }
            Finished::AllBut(_) => {
                moving.paused_at = Some((log.bytes(), log.appended_end()));
                self.look_again(id);
            }
        }
    }

    fn look_again(&mut self, id: PartitionId) {
        self.timers.add(self.now.plus_ms(LOOK_AGAIN_MS), Timer::Move(id));
    }

    /// Has files copied and flushed; then everything below `end` is.
    fn copy(&mut self, id: PartitionId, index: u32, files: Vec<PathBuf>, end: i64) {
        let mut copier = Copier::new(files, self.copy_of(index).expect("it is moving"));
        let bytes_per_ms = self.config.logs.move_bytes_per_second_max as f64 / 1000.0;
        let mut copied = 0;
        self.hand_over(Work::Long(Box::new(move |io| match copier.step(io) {
            // Between two files.
            Ok(Some(0)) => {
                let bytes = std::mem::take(&mut copied);
                Step::More(Box::new(move |shard: &mut Self| {
                    shard.moving(id).into_iter().for_each(|moving| moving.copied_bytes += bytes);
                }))
            }
            Ok(Some(bytes)) => {
                copied += bytes as u64;
                Step::Later((bytes as f64 / bytes_per_ms) as u64)
            }
            Ok(None) => Step::Done(Box::new(move |shard: &mut Self| {
                shard.moving(id).into_iter().for_each(|moving| moving.copied_end = end);
                shard.continue_move(id);
            })),
            Err(error) => Step::Done(Box::new(move |shard| shard.end_move(id, &error.to_string()))),
        })));
    }

    fn moving(&mut self, id: PartitionId) -> Option<&mut Moving> {
        let index = self.partitions.index(id)?;
        self.partitions.get_mut(index)?.moving.as_mut()
    }

    /// Closes the log once all of it is durable, and has the files copied that are left.
    fn copy_rest(&mut self, id: PartitionId, index: u32) {
        let Self { partitions, io, chunks, shared, .. } = self;
        let partition = partitions.get_mut(index).expect("it is moving");
        let log = partition.log.as_mut().expect("the caller looked");
        if log.is_dirty() || log.unwritten_bytes() > 0 || log.is_busy() {
            self.want_flush(index);
            return self.look_again(id);
        }
        if let Err(error) = log.close(io, chunks) {
            return self.end_move(id, &error.to_string());
        }
        let (durable_end, log_start) = (log.durable_end(), log.log_start());
        partition.log = None;
        let (key, dir) = (partition.key(), partition.dir(&shared.folders));
        let moving = partition.moving.as_ref().expect("it is moving");
        let (from, to, copied_end) = (partition.folder, moving.to, moving.copied_end);
        let mut hints = shared.hints(from);
        hints.recovery_points.insert(key.clone(), durable_end);
        if log_start > 0 {
            hints.log_starts.insert(key.clone(), log_start);
        }
        drop(hints);
        // Before the move is lasting: records below the start must not come back.
        shared.copy_hints(&key, from, to);
        self.forget_flush(index);
        let copy = self.copy_of(index).expect("it is moving");
        let shared = Arc::clone(&self.shared);
        self.in_background(move |io| {
            let copy_all = || {
                let mut files = io.read_dir(&dir)?;
                files.retain(|path| is_left(path, copied_end));
                let mut copier = Copier::new(files, copy);
                while copier.step(io)?.is_some() {}
                shared.save_hints_of(io, to)
            };
            let copied = copy_all();
            Some(Box::new(move |shard: &mut Self| match copied {
                Ok(()) => shard.commit_move(id, to),
                Err(error) => shard.end_move(id, &error.to_string()),
            }))
        });
    }

    /// Has the metadata say that the partition is in the other folder; `move_over` follows when
    /// they do.
    fn commit_move(&mut self, id: PartitionId, to: usize) {
        let owner = self.id;
        self.run_on(0, move |shard| {
            shard.change_metadata(move |shard| {
                let node_id = shard.shared.node_id;
                let topic = shard.image.topic_by_id(id.topic_id);
                let directory = shard.shared.folders[to].id;
                let record = topic.and_then(|topic| topic.partition(id.partition)).map(|present| {
                    let directories = present.directories_with(node_id, directory);
                    let record = PartitionChangeRecord {
                        partition_id: id.partition,
                        topic_id: id.topic_id,
                        directories: Some(directories.into()),
                        ..Default::default()
                    };
                    MetadataRecord::of(&record, 1)
                });
                let records = record.into_iter().collect();
                let done = Box::new(move |shard: &mut Self, result: Result<(), ErrorCode>| {
                    if let Err(error) = result {
                        shard.run_on(owner, move |shard| shard.end_move(id, error.name()));
                    }
                });
                Decision { records, done }
            });
        });
    }

    /// The metadata have a partition of this shard in another folder from now on.
    pub(crate) fn move_over(&mut self, index: u32, to: usize) {
        let Self { partitions, io, shared, .. } = self;
        let partition = partitions.get_mut(index).expect("the caller looked it up");
        let old = partition.dir(&shared.folders);
        let gone = old.with_file_name(partition.marked(DELETED));
        let from = std::mem::replace(&mut partition.folder, to);
        let new = partition.dir(&shared.folders);
        let copy = new.with_file_name(partition.marked(MOVING));
        let folder = |index: usize| &shared.folders[index].path;
        let moved = io
            .rename(&old, &gone)
            .and_then(|()| io.sync_dir(folder(from)))
            .and_then(|()| io.rename(&copy, &new))
            .and_then(|()| io.sync_dir(folder(to)));
        let name = partition.name();
        if let Err(error) = &moved {
            crate::log_line!("{name}: cannot be moved to {}: {error}; restart", new.display());
        }
        partition.failed = moved.is_err();
        partition.moving = None;
        shared.carry_hints(&partition.key(), from, to);
        crate::log_line!("{name}: is in {} now", folder(to).display());
        let shared = Arc::clone(shared);
        self.in_background(move |io| {
            save_hints(&shared, io);
            if moved.is_ok() {
                remove_folder(io, &gone);
            }
            None
        });
    }

    /// Gives a move up: the partition stays where it is.
    fn end_move(&mut self, id: PartitionId, why: &str) {
        let Some(index) = self.partitions.index(id) else { return };
        let Some(copy) = self.copy_of(index) else { return };
        let partition = self.partitions.get_mut(index).expect("an index from the table");
        let Some(moving) = partition.moving.take() else { return };
        if let Some(log) = partition.log.as_mut().filter(|_| moving.is_held) {
            log.end_cleaning();
        }
        crate::log_line!("{}: stays where it is, copying it failed: {why}", partition.name());
        let (key, shared) = (partition.key(), Arc::clone(&self.shared));
        self.in_background(move |io| {
            shared.forget_hints(moving.to, &key);
            remove_folder(io, &copy);
            None
        });
    }
}

impl<I: Io> Partition<I> {
    /// The name of its folder with a mark: see [`marked`].
    pub(crate) fn marked(&self, mark: &str) -> String {
        marked(&self.topic, self.id.partition, self.id.topic_id, mark)
    }

    /// The folder that it is copied to, if it is moving.
    pub(crate) fn copy(&self, folders: &[Folder]) -> Option<PathBuf> {
        let moving = self.moving.as_ref()?;
        Some(folders[moving.to].path.join(self.marked(MOVING)))
    }
}

/// Whether a file belongs to the log and to no segment below `end`.
fn is_left(path: &Path, end: i64) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let is_of_segment = [".log", ".index", ".timeindex", ".txnindex"];
    let base: Option<i64> =
        is_of_segment.iter().find_map(|suffix| name.strip_suffix(suffix)?.parse().ok());
    let is_temporary = [".deleted", ".cleaned", ".swap", ".tmp"];
    base.is_none_or(|base| base >= end) && !is_temporary.iter().any(|suffix| name.ends_with(suffix))
}
