//! Every upper bound of the broker that is not a configuration key, with its reason.

use std::ops::RangeInclusive;

/// Bytes taken from one socket in one turn of the shard, so that a fast sender cannot starve the
/// others. A frame larger than this arrives over several turns.
pub(crate) const RECEIVE_BYTES_PER_TURN: usize = 1 << 20;

/// Room offered to one `recv`. Large enough that 64 KiB batches come in one call, small enough to
/// stay in the CPU's second-level cache together with the tail chunk it is copied to.
pub(crate) const RECEIVE_BYTES: usize = 128 << 10;

/// Missing bytes of a frame that may land in a log without a stop in the receive buffer: from what
/// does not stay in the CPU's second-level cache between the two copies, to what a socket's buffer
/// holds at once with the kernel's usual settings (`net.ipv4.tcp_rmem`).
pub(crate) const LANDING_BYTES: RangeInclusive<usize> = 128 << 10..=2 << 20;

/// Frames that are received as usual after one that could not land for what it is: such as a
/// request for several partitions, whose like will follow.
pub(crate) const LANDING_PAUSE: u8 = 16;

/// Received of a frame that may land, to see where it belongs: names of the usual length, and the
/// header of the batch.
pub(crate) const LANDING_START_BYTES: usize = 512;

/// Receive buffers kept for reuse by a shard. Connections hold one only while a frame is
/// incomplete.
pub(crate) const SPARE_BUFFERS: usize = 8;

/// A spare buffer grown beyond this by a large frame is freed instead of kept.
pub(crate) const SPARE_BUFFER_BYTES: usize = 4 << 20;

/// Requests of one connection that may be in progress; further ones stay in the socket. Kafka
/// serves one at a time; clients send five (`max.in.flight.requests.per.connection`) and more.
pub(crate) const REQUESTS_IN_FLIGHT: usize = 256;

/// Bytes of appended, not yet written records of one shard, above which it stops reading produce
/// requests. Twice what the disk takes in 20 ms.
pub(crate) const UNWRITTEN_BYTES: u64 = 48 << 20;

/// Bytes written by one shard, and not flushed, that recovery may have to scan: 0.2 s of a disk
/// that reads 0.6 GB/s. At 2 GB/s that is 16 flushes a second.
pub(crate) const UNFLUSHED_BYTES: u64 = 128 << 20;

/// Durable bytes of a partition from which on a checkpoint saves recovery from scanning them.
pub(crate) const UNHINTED_BYTES: u64 = 256 << 10;

/// Bytes of replies queued on one connection above which its next request waits. One fetch
/// reply may be larger: the limit is checked between requests.
pub(crate) const QUEUED_REPLY_BYTES: usize = 4 << 20;

/// Bytes handed to one `sendfile`: long enough to amortise the call, short enough (about 20 us) not
/// to hold the shard up.
pub(crate) const SEND_FILE_BYTES: usize = 256 << 10;

/// Bytes sent to one connection in one turn, so that a fast reader cannot starve the others.
pub(crate) const SEND_BYTES_PER_TURN: usize = 2 << 20;

/// Messages that fit in the queue from one shard to another. What does not fit waits with the
/// sender, which is bounded by the requests in flight.
pub(crate) const MAILBOX_MESSAGES: usize = 1024;

/// Memory for large requests that are being received where `queued.max.request.bytes` sets no
/// limit: ten of the largest (`socket.request.max.bytes`) at once.
pub(crate) const LARGE_FRAME_BYTES: usize = 1 << 30;

/// Bytes of group records after which a batch of them is full: as a producer's of ordinary size.
pub(crate) const GROUP_BATCH_BYTES: usize = 256 << 10;

/// Records of one batch whose faults a produce answer lists.
pub(crate) const RECORD_ERRORS: usize = 1_000;

/// Settings that one answer describes: those of more than 25,000 topics, which have fewer than 40
/// each.
pub(crate) const DESCRIBED_SETTINGS: usize = 1_000_000;

/// Received on a connection whose request waits for something, so that its end is seen.
pub(crate) const RECEIVE_AHEAD_BYTES: usize = 4 << 10;

/// Partitions in all fetch sessions of one shard: about 100 MiB.
pub(crate) const SESSION_PARTITIONS: usize = 500_000;

/// Memory of chunks that a shard keeps for reuse.
pub(crate) const IDLE_CHUNK_BYTES: usize = 8 << 20;

/// Bytes of a stored topic read at once while its state is loaded.
pub(crate) const LOAD_BYTES: usize = 1 << 20;

/// Bytes of a moving partition's newest segment that are copied while it is not served: some tens
/// of milliseconds of a disk.
pub(crate) const MOVED_AT_ONCE_BYTES: u64 = 4 << 20;

/// Segments finished for a move before the rest is copied, however large: somebody produces faster
/// than the disk copies.
pub(crate) const MOVE_ROUNDS: u32 = 8;

/// What the records of one batch may grow to when decompressed: the largest that a consumer with
/// default settings takes (`fetch.max.bytes`), doubled. Guards against decompression bombs.
pub(crate) const DECOMPRESSED_BYTES: usize = 100 << 20;

const _: () = assert!(RECEIVE_BYTES <= RECEIVE_BYTES_PER_TURN);
const _: () = assert!(SEND_FILE_BYTES <= SEND_BYTES_PER_TURN);
