//! Chance from one seed (splitmix64), and how often each fault is to happen.

use std::ops::Range;

/// Numbers that follow from a seed alone.
#[derive(Clone, Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`; 0 when `end` is 0.
    pub(super) fn below(&mut self, end: u64) -> u64 {
        if end == 0 { 0 } else { self.next() % end }
    }

    pub(super) fn within(&mut self, range: &Range<u64>) -> u64 {
        range.start + self.below(range.end.saturating_sub(range.start))
    }

    /// Whether something that happens `ppm` times in a million happens now.
    pub(super) fn hits(&mut self, ppm: u32) -> bool {
        ppm > 0 && self.below(1_000_000) < u64::from(ppm)
    }
}

/// How often each fault happens, per million operations of its kind. The default has none.
#[derive(Clone, Debug)]
pub struct Faults {
    /// A write fails with EIO; any of its blocks may have reached the disk.
    pub write_error_ppm: u32,
    /// A write fails with ENOSPC and leaves nothing.
    pub write_no_space_ppm: u32,
    /// A write stops after some of its blocks and completes with `WriteZero`.
    pub write_short_ppm: u32,
    /// A write completes well and some of its blocks never reach the disk: the device lies.
    pub write_lost_ppm: u32,
    /// A flush fails with EIO. What it should have made durable may be lost for good, even when a
    /// later flush succeeds, as on Linux.
    pub sync_error_ppm: u32,
    /// An allocation fails with ENOSPC.
    pub allocate_no_space_ppm: u32,
    /// A blocking read or a fetch of pages fails with EIO.
    pub read_error_ppm: u32,
    /// [`crate::Io::is_cached`] says no, and means it.
    pub cache_miss_ppm: u32,
    /// A file operation takes up to a second.
    pub slow_ppm: u32,
    /// A send or a receive finds the connection reset by the client.
    pub reset_ppm: u32,
    /// A send takes only a part of what fits.
    pub short_send_ppm: u32,
    /// At a power cut, a block may also be torn: some of its 512-byte sectors new, the others old.
    pub torn_blocks: bool,
    /// Microseconds that a file operation takes. Its width is what reorders completions.
    pub file_latency_us: Range<u64>,
    /// Microseconds until bytes, connections and free buffer space are noticed.
    pub network_latency_us: Range<u64>,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            write_error_ppm: 0,
            write_no_space_ppm: 0,
            write_short_ppm: 0,
            write_lost_ppm: 0,
            sync_error_ppm: 0,
            allocate_no_space_ppm: 0,
            read_error_ppm: 0,
            cache_miss_ppm: 0,
            slow_ppm: 0,
            reset_ppm: 0,
            short_send_ppm: 0,
            torn_blocks: true,
            file_latency_us: 20..400,
            network_latency_us: 0..50,
        }
    }
}

impl Faults {
    /// Faults that a correct broker survives without losing what it acknowledged: all but a device
    /// that lies about its writes.
    pub fn rough() -> Self {
        Self {
            write_error_ppm: 200,
            write_no_space_ppm: 200,
            write_short_ppm: 200,
            sync_error_ppm: 500,
            allocate_no_space_ppm: 500,
            read_error_ppm: 100,
            cache_miss_ppm: 100_000,
            slow_ppm: 5_000,
            reset_ppm: 500,
            short_send_ppm: 200_000,
            ..Self::default()
        }
    }
}
