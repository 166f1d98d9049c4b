//! One monotonic clock for intended times, send times and arrivals, in nanoseconds since its start.

use rustix::time::{ClockId, clock_gettime};
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

/// Milliseconds since 1970 by the wall clock.
pub fn wall_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Tells afterwards what happened to the host's other clocks meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    at: Instant,
    wall_ms: i64,
    boot_ns: u64,
}

impl Watch {
    /// From now on.
    pub fn start() -> Self {
        Self { at: Instant::now(), wall_ms: wall_ms(), boot_ns: boot_ns() }
    }

    /// By how much the wall clock was set forward or back, and how long the host slept,
    /// milliseconds.
    pub fn jumps_ms(&self) -> (i64, u64) {
        let awake_ms = self.at.elapsed().as_millis() as i64;
        let boot_ms = (boot_ns().saturating_sub(self.boot_ns) / 1_000_000) as i64;
        // The wall clock goes on while the host sleeps.
        let wall_ms = wall_ms() - self.wall_ms - boot_ms;
        (wall_ms, (boot_ms - awake_ms).max(0).unsigned_abs())
    }
}

/// Nanoseconds since boot, sleep included.
pub fn boot_ns() -> u64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs()
}

/// Wall-clock milliseconds as UTC: (year, month, day, hour, minute, second).
pub fn utc(ms: i64) -> [i64; 6] {
    let (days, second) = (ms.div_euclid(86_400_000), ms.rem_euclid(86_400_000) / 1000);
    // Days are counted from 1 March of year 0, so that leap days end their years.
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    [year, month, day, second / 3600, second / 60 % 60, second % 60]
}

/// The same as `2026-11-21T18:02:00Z`.
pub fn utc_words(ms: i64) -> String {
    let [year, month, day, hour, minute, second] = utc(ms);
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn utc_knows_leap_years() {
        let rows = [
            (0, [1970, 1, 1, 0, 0, 0]),
            (951_782_400_000, [2000, 2, 29, 0, 0, 0]),
            (1_709_251_199_999, [2024, 2, 29, 23, 59, 59]),
            (1_735_689_600_000, [2025, 1, 1, 0, 0, 0]),
            (-1, [1969, 12, 31, 23, 59, 59]),
        ];
        for (ms, expected) in rows {
            assert_eq!(utc(ms), expected, "{ms}");
        }
    }

    #[test]
    fn clocks_that_jumped_are_told_from_those_that_did_not() {
        let watch = Watch::start();
        let (wall_ms, slept_ms) = watch.jumps_ms();
        assert!(wall_ms.abs() < 1_000 && slept_ms < 1_000, "{wall_ms} {slept_ms}");
        let set_forward = Watch { wall_ms: watch.wall_ms - 3_600_000, ..watch };
        assert!((3_599_000..3_601_000).contains(&set_forward.jumps_ms().0));
        // An hour since boot of which the monotonic clock knows nothing, and the wall clock does.
        let hour_ns = 3_600_000_000_000;
        let wall_ms = watch.wall_ms - 3_600_000;
        let asleep = Watch { wall_ms, boot_ns: watch.boot_ns.saturating_sub(hour_ns), ..watch };
        let expected_ms = watch.boot_ns.min(hour_ns) / 1_000_000;
        assert!(asleep.jumps_ms().1.abs_diff(expected_ms) < 1_000);
    }

    #[test]
    fn the_clock_never_goes_back() {
        let clock = Clock::start();
        let first = clock.now_ns();
        clock.sleep_until(first + 1_000);
        assert!(clock.now_ns() > first);
    }
}
