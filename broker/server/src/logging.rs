//! The broker's log: one line an event, on standard error, written where the event ends.

use std::fmt::Arguments;
use std::time::{SystemTime, UNIX_EPOCH};

/// Writes one line with the time in UTC. A standard error that is gone is no reason to fail.
pub(crate) fn write(line: Arguments<'_>) {
    use std::io::Write;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let day_seconds = since.as_secs() % 86_400;
    let (hour, minute, second) = (day_seconds / 3600, day_seconds / 60 % 60, day_seconds % 60);
    let ms = since.subsec_millis();
    let mut out = std::io::stderr().lock();
    let _ = writeln!(out, "{hour:02}:{minute:02}:{second:02}.{ms:03}Z {line}");
}

/// Writes one line to the broker's log.
#[macro_export]
macro_rules! log_line {
    ($($part:tt)*) => { $crate::logging::write(format_args!($($part)*)) };
}
