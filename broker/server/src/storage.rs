//! Opening and closing of a shard's partitions, and the housekeeping of their files.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millrace_io::{ChunkPool, Instant, Io, is_shortage};
use millrace_log::{
    Compaction, DeleteError, FlushDue, LogConfig, LogError, OpenHints, PartitionLog, ReadPlan,
    ReadRequest, WriteMode as LogWriteMode,
};
use millrace_wire::ErrorCode;
use std::io;

use crate::config::{Config, TopicConfig, WriteMode};
use crate::limits;
use crate::metadata::places::DELETED;
use crate::partitions::{Partition, PartitionId};
use crate::shard::Shard;
use crate::shared::Shared;
use crate::timers::Timer;

/// Housekeeping comes so long after a partition was used: long enough to be free, short enough that
/// recovery has little to scan.
const HOUSEKEEPING_MS: u64 = 1_000;

/// Housekeepings without use after which a partition gives back its memory and descriptors.
const IDLE_ROUNDS: u32 = 5;

/// Recovery points go to disk after so many appended bytes, or after so much time.
const CHECKPOINT_BYTES: u64 = 256 << 20;
const CHECKPOINT_MS: u64 = 5_000;

/// When recovery points were last written by this shard.
#[derive(Default)]
pub(crate) struct CheckpointState {
    pub(crate) bytes: u64,
    at: Instant,
    moved: bool,
}

impl<I: Io> Shard<I> {
    /// The index of a partition of this shard with its log open, opened or made now if need be.
    pub(crate) fn open_partition(&mut self, id: PartitionId) -> Result<u32, ErrorCode> {
        let index = self.partitions.index(id).ok_or(ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)?;
        let partition = self.partitions.get_mut(index).expect("an index from the table");
        if partition.moving.as_ref().is_some_and(|moving| moving.paused_at.is_some()) {
            return Err(ErrorCode::NOT_LEADER_OR_FOLLOWER);
        }
        if partition.log.is_some() {
            return Ok(index);
        }
        if partition.failed {
            return Err(ErrorCode::KAFKA_STORAGE_ERROR);
        }
        if let Err(error) = self.open_log(index) {
            let (passes, advice) = match &error {
                LogError::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                    (true, "free some space")
                }
                LogError::Io { source, .. } if is_shortage(source) => {
                    (true, "see `ulimit -n`; the next request tries again")
                }
                _ => (false, "restart the broker to try again"),
            };
            let partition = self.partitions.get_mut(index).expect("an index from the table");
            partition.failed = !passes;
            let name = partition.name();
            crate::log_line!("cannot open {name}: {error}; {advice}");
            return Err(ErrorCode::KAFKA_STORAGE_ERROR);
        }
        Ok(index)
    }

    fn open_log(&mut self, index: u32) -> Result<(), LogError> {
        let partition = self.partitions.get_mut(index).expect("an index from the table");
        let (name, id, folder) = (partition.name(), partition.id, partition.folder);
        let (key, dir) = (partition.key(), partition.dir(&self.shared.folders));
        let found = PartitionLog::read_topic_id(&mut self.io, &dir);
        if !found.as_ref().is_ok_and(|found| *found == id.topic_id) {
            let had = self.shared.forget_hints(folder, &key).unwrap_or(0);
            let is_gone = matches!(&found, Err(LogError::Io { source, .. })
                if source.kind() == io::ErrorKind::NotFound);
            if is_gone && had > 0 {
                crate::log_line!("{name}: its folder is gone, and its records up to {had} with it");
            }
            if self.shared.hints(folder).forgotten > 0 {
                // Before the first record of the new log, which the old start would cut off.
                let failed = |source| LogError::Io { path: dir.clone(), source };
                self.shared.save_hints_of(&mut self.io, folder).map_err(failed)?;
            }
        }
        let Self { partitions, io, shared, config, .. } = self;
        let partition = partitions.get_mut(index).expect("an index from the table");
        let config = log_config(config, id, &partition.topic, &partition.config);
        let mut log = match found {
            Ok(found) if found == id.topic_id => {
                let hints = {
                    let hints = shared.hints(folder);
                    OpenHints {
                        clean: shared.folders[folder].was_clean,
                        recovery_point: hints.recovery_points.get(&key).copied(),
                        log_start: hints.log_starts.get(&key).copied(),
                    }
                };
                let (log, recovered) = PartitionLog::open(io, &dir, config, hints)?;
                if recovered.is_loss() {
                    crate::log_line!(
                        "{name}: recovery cut off what was not written whole: {recovered:?}"
                    );
                }
                log
            }
            Ok(other) => {
                // Another topic of this name lived here: set aside, for a person to look at.
                let data_dir = &shared.folders[folder].path;
                let aside = data_dir.join(format!("{name}.{other}-stray"));
                let failed = |source| LogError::Io { path: dir.clone(), source };
                io.rename(&dir, &aside).and_then(|()| io.sync_dir(data_dir)).map_err(failed)?;
                crate::log_line!(
                    "{name}: a folder of another topic was moved to {}",
                    aside.display()
                );
                PartitionLog::create(io, &dir, id.topic_id, config)?
            }
            Err(LogError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                PartitionLog::create(io, &dir, id.topic_id, config)?
            }
            Err(error) => return Err(error),
        };
        log.set_index(index);
        partition.log = Some(log);
        Ok(())
    }

    /// Notes that a partition was used, so that housekeeping looks at it.
    pub(crate) fn note_use(&mut self, index: u32) {
        let Some(partition) = self.partitions.get_mut(index) else { return };
        partition.idle_rounds = 0;
        if partition.used {
            return;
        }
        partition.used = true;
        if self.used.is_empty() {
            self.schedule_housekeeping();
        }
        self.used.push(index);
    }

    /// Flushes by the topics' settings, moves recovery points on, lets idle partitions rest.
    pub(crate) fn keep_house(&mut self) {
        let now = self.now;
        let mut due = Vec::new();
        let mut still = Vec::with_capacity(self.used.len());
        for index in std::mem::take(&mut self.used) {
            let Self { partitions, io, chunks, .. } = self;
            let Some(partition) = partitions.get_mut(index) else { continue };
            let Some(log) = &mut partition.log else { continue };
            partition.idle_rounds += 1;
            if log.is_dirty() || matches!(log.flush_due(now), FlushDue::Now) {
                due.push(index);
            }
            let durable = log.durable_end();
            self.checkpoint.moved |= partition.checkpointed != Some(durable);
            let rests = partition.idle_rounds >= IDLE_ROUNDS
                && !log.is_dirty()
                && log.release_idle(io, chunks).unwrap_or(true);
            partition.used = !rests;
            if !rests {
                still.push(index);
            }
        }
        // Checkpoints written below read what this round left in the table.
        self.used = still;
        due.into_iter().for_each(|index| self.want_flush(index));
        let waited = now.ms_since(self.checkpoint.at) >= CHECKPOINT_MS;
        if self.checkpoint.moved && (waited || self.checkpoint.bytes >= CHECKPOINT_BYTES) {
            self.write_checkpoints();
        }
        if !self.used.is_empty() || self.checkpoint.moved {
            self.schedule_housekeeping();
        }
    }

    /// Sets the next housekeeping, in the place of one that was set.
    fn schedule_housekeeping(&mut self) {
        self.timers.cancel(self.housekeeping);
        let at = self.now.plus_ms(HOUSEKEEPING_MS);
        self.housekeeping = Some(self.timers.add(at, Timer::Housekeeping));
    }

    /// Has this shard's recovery points and log starts entered into the data folders' checkpoints.
    pub(crate) fn write_checkpoints(&mut self) {
        self.note_hints();
        self.checkpoint = CheckpointState { at: self.now, ..CheckpointState::default() };
        let shared = Arc::clone(&self.shared);
        self.in_background(move |io| {
            save_hints(&shared, io);
            None
        });
    }

    /// Brings the hints that the checkpoints are made of up to date.
    fn note_hints(&mut self) {
        let Self { partitions, io, shared, .. } = self;
        for (_, partition) in partitions.iter_mut() {
            let Some(durable) = partition.log.as_ref().map(PartitionLog::durable_end) else {
                continue;
            };
            if partition.checkpointed.replace(durable) == Some(durable) {
                continue;
            }
            let key = partition.key();
            let log = partition.log.as_mut().expect("looked at above");
            if log.unhinted_bytes() >= limits::UNHINTED_BYTES {
                // Without hints recovery scans more, that is all.
                let _ = log.persist_hints(io);
            }
            let mut hints = shared.hints(partition.folder);
            hints.recovery_points.insert(key.clone(), durable);
            if log.log_start() > 0 {
                hints.log_starts.insert(key, log.log_start());
            }
        }
    }

    /// Has the log of a partition that is open begin at `offset` or, if it does already, later.
    /// Returns the start, which is lasting when the hints are saved, and the files that may be
    /// removed from then on.
    pub(crate) fn start_log_at(
        &mut self,
        index: u32,
        offset: i64,
    ) -> Result<(i64, Vec<PathBuf>), DeleteError> {
        let Self { partitions, io, shared, .. } = self;
        let partition = partitions.get_mut(index).expect("the caller has opened it");
        let key = partition.key();
        let log = partition.log.as_mut().expect("the caller has opened it");
        let retired = log.delete_records_before(io, offset)?;
        shared.hints(partition.folder).log_starts.insert(key, log.log_start());
        Ok((log.log_start(), retired.paths))
    }

    /// Removes folders whose deletion a crash has interrupted.
    pub(crate) fn remove_leftovers(&mut self) {
        let shared = Arc::clone(&self.shared);
        self.in_background(move |io| {
            for folder in &shared.folders {
                let entries = io.read_dir(&folder.path).unwrap_or_default();
                let is_gone = |path: &&PathBuf| path.to_string_lossy().ends_with(DELETED);
                entries.iter().filter(is_gone).for_each(|path| remove_folder(io, path));
            }
            None
        });
    }

    /// Asks for what is needed to bring everything to disk. Returns whether something is under way.
    pub(crate) fn flush_everything(&mut self) -> bool {
        let mut busy = Vec::new();
        for (index, partition) in self.partitions.iter_mut() {
            let Some(log) = &partition.log else { continue };
            if log.poison().is_none() && (log.is_dirty() || log.unwritten_bytes() > 0) {
                busy.push(index);
            }
        }
        busy.iter().for_each(|index| self.want_flush(*index));
        self.submit_writes();
        self.start_due_flushes();
        !busy.is_empty()
    }

    /// Closes all logs and writes their checkpoints.
    pub(crate) fn close_logs(&mut self) -> io::Result<()> {
        self.note_hints();
        save_hints(&self.shared, &mut self.io);
        let Self { partitions, io, chunks, .. } = self;
        let mut outcome = Ok(());
        for (_, partition) in partitions.iter_mut() {
            let name = partition.name();
            let Some(log) = &mut partition.log else { continue };
            if let Err(error) = log.close(io, chunks) {
                outcome = Err(io::Error::other(format!("{name}: {error}")));
            }
        }
        outcome
    }

    /// Has the folder of a partition whose topic is gone deleted.
    pub(crate) fn delete_folder(&mut self, partition: Partition<I>) {
        let dir = partition.dir(&self.shared.folders);
        let gone = dir.with_file_name(partition.marked(DELETED));
        if let Some(copy) = partition.copy(&self.shared.folders) {
            self.in_background(move |io| {
                remove_folder(io, &copy);
                None
            });
        }
        let (key, folder) = (partition.key(), partition.folder);
        drop(partition);
        self.shared.forget_hints(folder, &key);
        // The name is free at once for a topic made again.
        match self.io.rename(&dir, &gone) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return,
            Err(error) => return crate::log_line!("cannot delete {}: {error}", dir.display()),
            Ok(()) => {}
        }
        let shared = Arc::clone(&self.shared);
        self.in_background(move |io| {
            // A folder half empty must not come back under its old name.
            match io.sync_dir(&shared.folders[folder].path) {
                Ok(()) => remove_folder(io, &gone),
                Err(error) => crate::log_line!("cannot delete {}: {error}", gone.display()),
            }
            if shared.hints(folder).forgotten > 0 {
                save_hints(&shared, io);
            }
            None
        });
    }
}

/// Removes a folder, if it is there, with all that is in it.
pub(crate) fn remove_folder<I: Io>(io: &mut I, path: &Path) {
    match io.remove_dir(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            crate::log_line!("cannot delete {}: {error}", path.display());
        }
        _ => {}
    }
}

/// Saves the hints; an old checkpoint only makes recovery scan more.
pub(crate) fn save_hints<I: Io>(shared: &Shared, io: &mut I) {
    if let Err(error) = shared.save_hints(io) {
        crate::log_line!("cannot write the checkpoints: {error}");
    }
}

/// Reads batches from `offset` on, for loading state: may block on the disk.
pub(crate) fn read_blocking<I: Io>(
    log: &mut PartitionLog<I>,
    io: &mut I,
    chunks: &mut ChunkPool,
    offset: i64,
    bytes_max: usize,
) -> io::Result<Vec<u8>> {
    let upper_bound = log.written_end();
    let request =
        ReadRequest { offset, bytes_max, at_least_one: true, upper_bound, may_block: true };
    let plan = log.read(io, chunks, request).map_err(io::Error::other)?;
    let ReadPlan::Data(data) = plan else { return Ok(Vec::new()) };
    let mut bytes = Vec::with_capacity(data.bytes);
    if let Some(range) = data.file {
        bytes.resize(range.bytes, 0);
        let count = io.read_at(&range.file, range.position, &mut bytes)?;
        bytes.truncate(count);
    }
    data.memory.iter().for_each(|slice| bytes.extend_from_slice(slice));
    Ok(bytes)
}

/// The log's settings of a partition.
pub(crate) fn log_config(
    config: &Config,
    id: PartitionId,
    topic: &str,
    settings: &TopicConfig,
) -> LogConfig {
    let bytes = |value: i32| u64::try_from(value).unwrap_or(0);
    let compaction = settings.cleanup_policy.compact.then_some(Compaction {
        dirty_ratio_min: settings.min_cleanable_ratio,
        lag_ms_min: settings.min_compaction_lag_ms,
        lag_ms_max: settings.max_compaction_lag_ms,
        delete_retention_ms: settings.delete_retention_ms,
    });
    // Only finished segments are compacted (Kafka: LogConfig.maxSegmentMs).
    let segment_ms_max = compaction.map_or(i64::MAX, |rules| rules.lag_ms_max);
    let segment_ms = settings.segment_ms.min(segment_ms_max);
    LogConfig {
        segment_bytes: bytes(settings.segment_bytes),
        segment_ms: segment_ms - jitter_ms(id, settings.segment_jitter_ms.min(segment_ms)),
        index_interval_bytes: bytes(settings.index_interval_bytes),
        segment_index_bytes: bytes(settings.segment_index_bytes),
        retention_ms: settings.retention_ms,
        retention_bytes: settings.retention_bytes,
        flush_messages: settings.flush_messages,
        flush_ms: settings.flush_ms,
        compaction,
        producer_expiration_ms: i64::from(config.logs.producer_id_expiration_ms),
        write_mode: match config.own.write_mode.of(topic) {
            WriteMode::Auto | WriteMode::Direct => LogWriteMode::Auto,
            WriteMode::Buffered => LogWriteMode::Buffered,
        },
        ..LogConfig::default()
    }
}

/// How much sooner than others this partition begins a new segment, so that not all do it at once.
fn jitter_ms(id: PartitionId, most: i64) -> i64 {
    let mut hasher = DefaultHasher::new();
    id.hash(&mut hasher);
    // Below `most`, which is positive.
    if most <= 0 { 0 } else { (hasher.finish() % most.unsigned_abs()).cast_signed() }
}

/// Whether topics are written past the page cache: the setting, and the file system.
pub(crate) fn writes_direct(config: &Config, folder: &Path) -> bool {
    config.own.write_mode.default_choice() != WriteMode::Buffered
        && millrace_io::probe::data_dir(folder).is_ok_and(|direct| direct.is_usable())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::ConfigMap;

    #[test]
    fn partitions_roll_at_different_times_if_asked() {
        let config = Config::of([]).expect("defaults");
        let roll = |partition, jitter_ms| {
            let id = PartitionId { topic_id: millrace_wire::Uuid::ZERO, partition };
            let mut settings = config.topic(&ConfigMap::new());
            (settings.segment_ms, settings.segment_jitter_ms) = (1000, jitter_ms);
            log_config(&config, id, "t", &settings).segment_ms
        };
        assert!((0..100).all(|partition| roll(partition, 0) == 1000));
        let rolls: std::collections::HashSet<i64> = (0..100).map(|id| roll(id, 500)).collect();
        assert!(rolls.len() > 50 && rolls.iter().all(|ms| (501..=1000).contains(ms)), "{rolls:?}");
        assert!((0..100).all(|partition| roll(partition, i64::MAX) > 0));
    }
}
