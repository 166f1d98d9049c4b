//! One monotonic clock for intended times, send times and arrivals, in nanoseconds since its start.

use std::time::{Duration, Instant};

/// The clock of a run. Copies share the origin, so times of different threads can be subtracted.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock whose zero is now.
    pub fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// Nanoseconds since the origin.
    pub fn now_ns(&self) -> u64 {
        nanos(self.origin.elapsed())
    }

    /// Sleeps until `at_ns`; returns at once if that has passed.
    pub fn sleep_until(&self, at_ns: u64) {
        let wait_ns = at_ns.saturating_sub(self.now_ns());
        std::thread::sleep(Duration::from_nanos(wait_ns));
    }
}

/// Whole nanoseconds of a duration; 584 years fit.
pub fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
