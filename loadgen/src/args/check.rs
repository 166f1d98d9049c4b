//! What is wrong with options, in words: values out of range, and those that contradict each other.

use super::{Acks, Partitioner, RunArgs, Switch};
use crate::payload::HEADER_BYTES;
use crate::schedule::Spread;
use clap::builder::TypedValueParser;
use std::ops::RangeInclusive;
use std::time::Duration;

/// Bytes around a record's value and headers in a batch, at most.
const AROUND_RECORD_BYTES: u64 = 48;
const REQUEST_BYTES_MAX: u64 = 1 << 30;
/// One record each nanosecond.
const RATE_MAX: f64 = 1e9;
const LINGER_MS_MAX: f64 = 60_000.0;
/// A year.
const SECONDS_MAX: f64 = 365.0 * 86_400.0;

impl RunArgs {
    /// What contradicts itself, in one sentence.
    pub fn check(&self) -> Result<(), String> {
        let problems = [
            self.records_problem(),
            self.load_problem(),
            self.unused_option(),
            self.reading_problem(),
        ];
        problems.into_iter().flatten().next().map_or(Ok(()), Err)
    }

    /// Bytes of a request at most.
    pub fn request_bytes_max(&self) -> u64 {
        let value_bytes = self.shape.record_bytes_max.unwrap_or(0).max(self.record_bytes) as u64;
        let record_bytes = value_bytes
            .saturating_add(self.shape.header_bytes as u64)
            .saturating_add(AROUND_RECORD_BYTES);
        let records = u64::from(self.batch_records) * u64::from(self.batches_per_request);
        record_bytes.saturating_mul(records)
    }

    fn records_problem(&self) -> Option<String> {
        if self.record_bytes < HEADER_BYTES {
            return Some(format!(
                "--record-bytes {} is too small: identity and checksum take {HEADER_BYTES}",
                self.record_bytes
            ));
        }
        if self.shape.record_bytes_max.is_some_and(|bytes| bytes < self.record_bytes) {
            return Some("--record-bytes-max is below --record-bytes".to_owned());
        }
        let request_bytes = self.request_bytes_max();
        (request_bytes > REQUEST_BYTES_MAX)
            .then(|| format!("a request of {request_bytes} bytes is beyond 1 GiB"))
    }

    fn load_problem(&self) -> Option<String> {
        let told = |words: &str| Some(words.to_owned());
        if self.idempotent == Switch::On && (self.acks != Acks::All || self.inflight > 5) {
            return told("--idempotent on needs --acks all and --inflight of at most 5");
        }
        if self.rate.is_some_and(|rate| !(rate > 0.0 && rate <= RATE_MAX)) {
            return told("--rate must be above 0 records per second, and at most 1e9");
        }
        if !(0.0..=LINGER_MS_MAX).contains(&self.linger_ms) {
            return told("--linger-ms must lie between 0 and 60000");
        }
        if self.linger_ms > 0.0 && !self.is_open() {
            return told("--linger-ms needs --rate: in a closed loop batches are always full");
        }
        if self.linger_ms > 0.0 && self.batches_per_request > 1 {
            return told("--linger-ms and --batches-per-request above 1 exclude each other");
        }
        if self.shape.partitioner == Partitioner::Keys
            && (self.keys == 0 || self.batches_per_request > 1)
        {
            return told("--partitioner keys needs --keys, and one batch a request");
        }
        if self.duration.is_zero() {
            return told("--duration must be above 0");
        }
        if self.timeout.is_zero() {
            return told("--timeout must be above 0");
        }
        let config = self.topic_config.iter().find(|config| !config.contains('='))?;
        Some(format!("--topic-config {config} is not KEY=VALUE"))
    }

    /// An option that would be passed over without a word.
    fn unused_option(&self) -> Option<String> {
        let rows = [
            (self.spread != Spread::Uniform && self.rate.is_none(), "--spread needs --rate"),
            (self.keys == 0 && self.shape.key_spread.is_chosen(), "--key-spread needs --keys"),
            (
                self.mix.backlog_bytes == 0 && self.mix.backlog_cold == Switch::On,
                "--backlog-cold on needs --backlog-bytes",
            ),
        ];
        rows.into_iter().find(|row| row.0).map(|row| row.1.to_owned())
    }

    fn reading_problem(&self) -> Option<String> {
        (self.mix.group.is_some() && (self.fanout > 1 || self.consumers == 0))
            .then(|| "--group needs --consumers, and --fanout 1".to_owned())
    }
}

/// Counts from one on.
pub(super) fn at_least_one() -> impl TypedValueParser<Value = u32> {
    clap::value_parser!(u32).range(1..)
}

/// Whole numbers of this range.
pub(super) fn among(range: RangeInclusive<i64>) -> impl TypedValueParser<Value = u32> {
    clap::value_parser!(u32).range(range)
}

/// Bytes of a fetch.
pub(super) fn fetch_bytes(least: i64) -> impl TypedValueParser<Value = i32> {
    clap::value_parser!(i32).range(least..)
}

/// 0 to 100.
pub(super) fn percent() -> impl TypedValueParser<Value = u8> {
    clap::value_parser!(u8).range(0..=100)
}

/// Parses one of a list of CPUs.
pub(super) fn parse_cpu(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| format!("'{text}' is not the number of a CPU: name each, as in 0,2,3"))
}

/// Checks HOST:PORT, or several with commas between them.
pub fn parse_address(text: &str) -> Result<String, String> {
    for address in text.split(',') {
        let is_port = |port: &str| port.parse().is_ok_and(|port: u16| port > 0);
        let is_fine = !address.contains('/')
            && match address.rsplit_once(':') {
                Some((host, port)) => !host.is_empty() && is_port(port),
                None => false,
            };
        if !is_fine {
            return Err(format!("'{address}' is not HOST:PORT, such as 127.0.0.1:9092"));
        }
    }
    Ok(text.to_owned())
}

/// Parses `500ms`, `10s`, `2m`, `1h`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let number: f64 = text[..text.len() - unit.len()]
        .parse()
        .map_err(|_| format!("'{text}' is not a duration such as 500ms, 10s, 2m"))?;
    let seconds = match unit {
        "ms" => number / 1e3,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        _ => return Err(format!("'{text}' needs a unit: ms, s, m or h")),
    };
    match seconds <= SECONDS_MAX {
        true => Ok(Duration::from_secs_f64(seconds)),
        false => Err(format!("'{text}' is more than a year")),
    }
}

/// Parses a number of bytes with an optional suffix.
pub fn parse_bytes(text: &str) -> Result<usize, String> {
    let suffix = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let number: usize = text[..text.len() - suffix.len()]
        .parse()
        .map_err(|_| format!("'{text}' is not a number of bytes such as 1024 or 1KiB"))?;
    let factor = match suffix.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        _ => {
            return Err(format!("'{text}': unknown suffix '{suffix}', use k, m, g or KiB ... GiB"));
        }
    };
    number.checked_mul(factor).ok_or_else(|| format!("'{text}' is too large"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::keys::KeySpread;

    #[test]
    fn durations_and_sizes_have_units() {
        let rows =
            [("10s", 10_000), ("500ms", 500), ("2m", 120_000), ("1h", 3_600_000), ("1.5s", 1_500)];
        for (text, ms) in rows {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["10", "s", "10 s", "-1s", "1d", "", "9000h", "1e9s"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        for (text, bytes) in [("100", 100), ("1k", 1024), ("1KiB", 1024), ("2MiB", 2 << 20)] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["", "k", "1t", "-1", "99999999999999999999"] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn addresses_have_a_host_and_a_port() {
        for text in ["a:1", "127.0.0.1:9092,b:65535", "[::1]:9092"] {
            assert_eq!(parse_address(text), Ok(text.to_owned()));
        }
        for text in ["", "a", "a:", ":9092", "a:0", "a:99999", "http://a:9092", "a:1,", "a:9092/"] {
            assert!(parse_address(text).is_err(), "{text}");
        }
        assert!(parse_cpu("0-3").is_err_and(|error| error.contains("name each")));
    }

    #[test]
    fn contradictions_are_explained() {
        type Change = fn(&mut RunArgs);
        let rows: [(Change, &str); 13] = [
            (|args| args.record_bytes = 31, "--record-bytes"),
            (|args| (args.idempotent, args.acks) = (Switch::On, Acks::Leader), "--idempotent"),
            (|args| args.rate = Some(0.0), "--rate"),
            (|args| args.rate = Some(1e18), "--rate"),
            (|args| args.linger_ms = 5.0, "--linger-ms needs --rate"),
            (|args| args.batch_records = 1 << 24, "1 GiB"),
            (|args| args.record_bytes = usize::MAX, "1 GiB"),
            (|args| args.shape.header_bytes = usize::MAX, "1 GiB"),
            (|args| args.duration = Duration::ZERO, "--duration"),
            (|args| args.timeout = Duration::ZERO, "--timeout"),
            (|args| args.spread = Spread::Poisson, "--spread needs --rate"),
            (|args| args.shape.key_spread = KeySpread::Zipf, "--key-spread needs --keys"),
            (|args| args.mix.backlog_cold = Switch::On, "needs --backlog-bytes"),
        ];
        for (change, words) in rows {
            let mut args = RunArgs::with_defaults();
            change(&mut args);
            let error = args.check().expect_err(words);
            assert!(error.contains(words), "{error}");
        }
    }
}
