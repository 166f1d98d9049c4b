//! What a log is told by its topic's configuration and by the broker's.

use millrace_io::{BLOCK_BYTES, Instant};

/// How a log puts bytes into its files.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum WriteMode {
    /// Past the page cache where the file system allows it, else through it.
    Auto,
    /// Through the page cache.
    Buffered,
}

/// The settings of a log whose last record of each key is kept. Names and meanings are Kafka's.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Compaction {
    /// `min.cleanable.dirty.ratio`: cleaning begins when more of the log is not cleaned yet.
    pub dirty_ratio_min: f64,
    /// `min.compaction.lag.ms`: a segment with a younger record is not cleaned.
    pub lag_ms_min: i64,
    /// `max.compaction.lag.ms`: older records are cleaned whatever the ratio; the largest never.
    pub lag_ms_max: i64,
    /// `delete.retention.ms`: how long a tombstone stays once its log was cleaned.
    pub delete_retention_ms: i64,
}

/// The settings of one partition. Names and meanings are Kafka's topic keys where there is one.
#[derive(Clone, Debug, PartialEq)]
pub struct LogConfig {
    /// `segment.bytes`: a segment is never larger, unless a single batch is.
    pub segment_bytes: u64,
    /// `segment.ms`: by record timestamps, a segment never spans more.
    pub segment_ms: i64,
    /// `index.interval.bytes`: about one index entry for this many bytes of log.
    pub index_interval_bytes: u64,
    /// `segment.index.bytes`: a segment is rolled when one of its indexes is this large.
    pub segment_index_bytes: u64,
    /// `retention.ms`; negative keeps for ever.
    pub retention_ms: i64,
    /// `retention.bytes`; negative keeps everything.
    pub retention_bytes: i64,
    /// `flush.messages`: a flush is due when this many offsets are written and not durable.
    pub flush_messages: i64,
    /// `flush.ms`: a flush is due when the oldest written and not durable byte is this old.
    pub flush_ms: i64,
    /// A flush is due when this many bytes are written and not durable: bounds what recovery scans.
    pub unflushed_bytes_max: u64,
    /// Memory of full, written chunks kept for readers at the tail while there are any.
    pub cache_bytes_max: usize,
    /// `producer.id.expiration.ms`: a producer silent for so long is forgotten.
    pub producer_expiration_ms: i64,
    /// `cleanup.policy` with `compact`.
    pub compaction: Option<Compaction>,
    /// How bytes reach the files.
    pub write_mode: WriteMode,
}

impl Default for LogConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 1 << 30,
            segment_ms: 7 * 24 * 3_600_000,
            index_interval_bytes: 4096,
            segment_index_bytes: 10 << 20,
            retention_ms: 7 * 24 * 3_600_000,
            retention_bytes: -1,
            flush_messages: i64::MAX,
            flush_ms: i64::MAX,
            unflushed_bytes_max: 64 << 20,
            cache_bytes_max: 4 << 20,
            producer_expiration_ms: 86_400_000,
            compaction: None,
            write_mode: WriteMode::Auto,
        }
    }
}

/// Chunks of a quiet partition. Five round trips of the smallest prepared space fit in one.
pub(crate) const CHUNK_BYTES_MIN: usize = 16 << 10;
/// Chunks of a busy partition: two of each of eight busy partitions stay in the CPU's caches.
pub(crate) const CHUNK_BYTES_MAX: usize = 256 << 10;
/// Bytes of one round of writes. A round is awaited as a whole, so it bounds how long the first
/// record of it waits for the last.
pub(crate) const ROUND_BYTES_MAX: usize = 1 << 20;
/// A larger write does not begin with the block that is written again, which goes separately: that
/// saves CPU. A smaller one is not worth one more operation of the device.
pub(crate) const SPLIT_BYTES_MIN: usize = 16 << 10;
/// After [`SMALL_ROUNDS`] in a row of rounds no larger than this, a partition writes through the
/// page cache: the kernel then gathers what would be a write of the device for each record.
pub(crate) const SMALL_ROUND_BYTES_MAX: u64 = 4 << 10;
/// How many small rounds lead there. The first direct write after a cached one has to wait until
/// the device has taken that, which must stay rare.
pub(crate) const SMALL_ROUNDS: u32 = 32;
/// Writing through the page cache ends with a round larger than this.
pub(crate) const CACHED_ROUND_BYTES_MAX: u64 = 64 << 10;
/// The first space prepared in a segment of a quiet partition; doubled each time it is used up.
pub(crate) const PREPARE_BYTES_MIN: u64 = 64 << 10;
/// The most space prepared at once: 64 rounds of writes.
pub(crate) const PREPARE_BYTES_MAX: u64 = 64 << 20;
/// How long a full disk is left alone before space is asked for again.
pub(crate) const REFUSAL_MS: u64 = 100;
/// A chunk that is filled sooner than this makes the next one larger.
pub(crate) const BUSY_CHUNK_MS: u64 = 25;
/// A chunk that took longer than this to fill makes the next one small again.
pub(crate) const QUIET_CHUNK_MS: u64 = 5_000;
/// Chunks are kept for readers at the tail for this long after the last one was seen there.
pub(crate) const TAIL_READER_MS: u64 = 1_000;
/// What is read from the disk ahead of a reader of old data.
pub const READ_AHEAD_BYTES: usize = 1 << 20;

const _: () = assert!(CHUNK_BYTES_MIN.is_multiple_of(BLOCK_BYTES));
const _: () = assert!(CHUNK_BYTES_MAX <= ROUND_BYTES_MAX);

impl LogConfig {
    /// The point at which data written at `since` must be flushed by `flush.ms`.
    pub(crate) fn flush_deadline(&self, since: Instant) -> Option<Instant> {
        let ms = u64::try_from(self.flush_ms).ok()?;
        (self.flush_ms != i64::MAX).then(|| since.plus_ms(ms))
    }
}
