//! The disk measured with the broker's own writes: how long a flush takes, and what direct writes
//! of several sizes bring. Kept in one small file, which reports of loadgen include.
//!
//! The file is `millrace/calibration.json` in `$XDG_STATE_HOME`, else in `~/.local/state`. Writes
//! go through a ring, onto prepared space, past the page cache where possible, as a segment's.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use millrace_io::ring::RingFile;
use millrace_io::{BLOCK_BYTES, ChunkPool, Event, Io, OpenMode, RingIo, Token, WritePath};
use serde_json::{Value, json};

use crate::Finding;
use crate::host::{Host, shown};
use crate::storage;

/// Sizes of the writes, and how many are in flight.
const WRITES: &[(usize, usize)] =
    &[(4 << 10, 1), (4 << 10, 32), (64 << 10, 1), (256 << 10, 1), (256 << 10, 8), (1 << 20, 1)];

/// How long it may take, and how much space.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Time for the flushes, and again for each kind of write.
    pub each: Duration,
    /// Length of the file that is written, at most a quarter of the free space.
    pub bytes: u64,
}

impl Default for Bounds {
    /// Seven measurements: 10.5 s at most, and the preparing between them.
    fn default() -> Self {
        Self { each: Duration::from_millis(1500), bytes: 512 << 20 }
    }
}

/// Quantiles of times in microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) count: usize,
}

impl Latency {
    pub(crate) fn of(mut took: Vec<f64>) -> Self {
        took.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let rank = (took.len() as f64 * share).ceil() as usize;
            took.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
        };
        Self { p50: at(0.5), p99: at(0.99), count: took.len() }
    }

    fn to_json(self) -> Value {
        let tenth = |value: f64| (value * 10.0).round() / 10.0;
        json!({ "p50": tenth(self.p50), "p99": tenth(self.p99), "count": self.count })
    }
}

pub(crate) fn micros(took: Duration) -> f64 {
    took.as_nanos() as f64 / 1e3
}

/// Measures the disk of `folder`, or of the nearest folder above it that exists, and keeps the
/// result. Its file there is removed again.
///
/// # Errors
/// Those of the ring and the file system, in words.
pub fn calibrate(folder: &Path, bounds: Bounds) -> Result<Value, String> {
    let state = state_file().ok_or("set HOME or XDG_STATE_HOME: the result is kept there")?;
    let measured = measure(folder, bounds).map_err(|error| format!("{error}"))?;
    let write = || {
        fs::create_dir_all(state.parent().expect("a file in a folder"))?;
        fs::write(&state, format!("{measured:#}\n"))
    };
    write().map_err(|error| format!("{}: {error}", state.display()))?;
    Ok(measured)
}

/// The last result, if there is one.
pub fn load() -> Option<Value> {
    serde_json::from_str(&fs::read_to_string(state_file()?).ok()?).ok()
}

fn state_file() -> Option<PathBuf> {
    let given = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let state = given("XDG_STATE_HOME").or_else(|| Some(given("HOME")?.join(".local/state")))?;
    Some(state.join("millrace/calibration.json"))
}

/// The measurement itself; keeps nothing.
///
/// # Errors
/// Those of the ring and the file system.
pub fn measure(folder: &Path, bounds: Bounds) -> io::Result<Value> {
    let place = storage::nearest(folder);
    let free = rustix::fs::statvfs(&place).map_or(0, |facts| facts.f_bavail * facts.f_frsize);
    let bytes = bounds.bytes.min(free / 4);
    let path = place.join(format!(".calibration-{}", std::process::id()));
    let mut io = RingIo::new()?;
    let opened = io.open(&path, OpenMode::Direct);
    let is_direct = opened.is_ok();
    let file = opened.or_else(|_| io.open(&path, OpenMode::ReadWrite));
    let mut disk = Disk { io, file: file?, pool: ChunkPool::new(64 << 20), is_direct, bytes };
    let measured = disk.measure(bounds.each);
    drop(disk);
    fs::remove_file(&path)?;
    let (flush, writes) = measured?;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Ok(json!({
        "folder": place.display().to_string(),
        "kernel": Host::default().text("/proc/sys/kernel/osrelease"),
        "measured_at_ms": since.as_millis() as u64,
        "writes_direct": is_direct,
        "append_and_flush_4k_us": flush.to_json(),
        "writes": writes,
    }))
}

struct Disk {
    io: RingIo,
    file: RingFile,
    pool: ChunkPool,
    is_direct: bool,
    bytes: u64,
}

impl Disk {
    fn measure(&mut self, each: Duration) -> io::Result<(Latency, Vec<Value>)> {
        self.prepare()?;
        let flush = self.flushes(each)?;
        let mut writes = Vec::new();
        for &(size, depth) in WRITES {
            self.prepare()?;
            writes.push(self.writes(size, depth, each)?);
        }
        Ok((flush, writes))
    }

    /// Fresh space, and nothing of what was before left in the device's cache.
    fn prepare(&mut self) -> io::Result<()> {
        self.io.set_file_bytes(&self.file, 0)?;
        self.io.submit_allocate(Token(0), &self.file, 0, self.bytes);
        self.completion()?;
        self.io.sync(&self.file)
    }

    /// Waits for a completion; its token.
    fn completion(&mut self) -> io::Result<usize> {
        loop {
            while let Some(event) = self.io.next_event() {
                if let Event::Completed { token, result } = event {
                    result?;
                    return Ok(token.0 as usize);
                }
            }
            self.io.wait(None)?;
        }
    }

    /// Writes `size` bytes that are not zeros.
    fn submit(&mut self, token: usize, size: usize, position: u64) {
        let mut chunk = self.pool.take(size);
        while chunk.remaining() > 0 {
            let block = [token as u8 | 1; BLOCK_BYTES];
            chunk.append(&block, |_| {});
        }
        let path = if self.is_direct { WritePath::Direct } else { WritePath::Cached };
        self.io.submit_write(Token(token as u64), &self.file, position, chunk.blocks(0), path);
        self.pool.give(chunk);
    }

    /// One block after another, each flushed before the next.
    fn flushes(&mut self, each: Duration) -> io::Result<Latency> {
        let (start, mut took, mut position) = (Instant::now(), Vec::new(), 0);
        while start.elapsed() < each && position + BLOCK_BYTES as u64 <= self.bytes {
            let began = Instant::now();
            self.submit(0, BLOCK_BYTES, position);
            self.completion()?;
            self.io.submit_sync(Token(0), &self.file);
            self.completion()?;
            took.push(micros(began.elapsed()));
            position += BLOCK_BYTES as u64;
        }
        Ok(Latency::of(took))
    }

    /// Writes one after another with `depth` of them under way, until time or space is up.
    fn writes(&mut self, size: usize, depth: usize, each: Duration) -> io::Result<Value> {
        let start = Instant::now();
        let (mut began, mut took) = (vec![start; depth], Vec::new());
        let (mut position, mut in_flight) = (0, 0);
        let mut idle: Vec<usize> = (0..depth).collect();
        loop {
            let goes_on = start.elapsed() < each && position + size as u64 <= self.bytes;
            if let (true, Some(slot)) = (goes_on, idle.pop()) {
                began[slot] = Instant::now();
                self.submit(slot, size, position);
                position += size as u64;
                in_flight += 1;
                continue;
            }
            if in_flight == 0 {
                break;
            }
            let slot = self.completion()?;
            took.push(micros(began[slot].elapsed()));
            in_flight -= 1;
            idle.push(slot);
        }
        let mb_per_second = position as f64 / 1e6 / start.elapsed().as_secs_f64();
        Ok(json!({
            "bytes": size,
            "in_flight": depth,
            "mb_per_second": mb_per_second.round(),
            "us": Latency::of(took).to_json(),
        }))
    }
}

/// The result in one line.
pub fn summary(measured: &Value) -> String {
    let writes = measured["writes"].as_array().into_iter().flatten().map(|write| {
        let size = shown(write["bytes"].as_u64().unwrap_or(0));
        format!("{size} x {} {} MB/s", write["in_flight"], write["mb_per_second"])
    });
    let flush = &measured["append_and_flush_4k_us"];
    format!(
        "{}: append and flush {} us (p99 {}), {} writes {}",
        measured["folder"].as_str().unwrap_or_default(),
        flush["p50"],
        flush["p99"],
        if measured["writes_direct"] == true { "direct" } else { "buffered" },
        writes.collect::<Vec<_>>().join(", "),
    )
}

/// The line of the doctor's report.
pub(crate) fn finding(measured: Option<&Value>) -> Finding {
    match measured {
        Some(measured) => Finding::ok("calibration", summary(measured)),
        None => Finding::advice(
            "calibration",
            "none",
            "millrace doctor --calibrate measures the disk in 15 s, for reports of loadgen",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verdict;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let latency = Latency::of((1..=200).rev().map(f64::from).collect());
        assert_eq!(latency, Latency { p50: 100.0, p99: 198.0, count: 200 });
        assert_eq!(Latency::of(Vec::new()), Latency { p50: 0.0, p99: 0.0, count: 0 });
    }

    #[test]
    fn every_kind_of_write_is_measured_and_nothing_stays() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let bounds = Bounds { each: Duration::from_secs(60), bytes: 2 << 20 };
        let measured = measure(folder.path(), bounds).expect("a folder of ours");
        assert_eq!(measured["append_and_flush_4k_us"]["count"], 512, "{measured:#}");
        let writes = measured["writes"].as_array().expect("an array");
        let counts: Vec<u64> = writes
            .iter()
            .map(|write| {
                write["us"]["count"].as_u64().expect("a count")
                    * write["bytes"].as_u64().expect("bytes")
            })
            .collect();
        assert_eq!(counts, vec![2 << 20; WRITES.len()], "{measured:#}");
        assert_eq!(fs::read_dir(folder.path()).expect("still there").count(), 0);
        let line = finding(Some(&measured)).found;
        assert!(line.contains("append and flush") && line.contains("256 KiB x 8"), "{line}");
        assert_eq!(finding(None).verdict, Verdict::Advice);
    }
}
