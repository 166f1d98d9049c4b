//! One partition on disk and in memory: segments, tail, flushes, recovery.
