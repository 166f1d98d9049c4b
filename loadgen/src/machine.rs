//! Facts about this host, and a probe of how quiet it is.

use crate::clock::{Clock, nanos};
use crate::histogram::Latencies;
use serde::Serialize;
use std::fs;
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;

/// What a reader needs to know about the machine.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Facts {
    /// Model of the first CPU.
    pub cpu: String,
    /// CPUs this process may use.
    pub cpus: usize,
    /// Memory of the host.
    pub memory_bytes: u64,
    /// Kernel release.
    pub kernel: String,
    /// Congestion control of new sockets.
    pub tcp_congestion: String,
    /// Clock source of the kernel.
    pub clock_source: String,
    /// Transparent huge pages.
    pub huge_pages: String,
    /// Frequency governor of CPU 0; empty in most guests.
    pub governor: String,
    /// The disk, as `millrace doctor --calibrate` last measured it on this host.
    pub disk: Option<serde_json::Value>,
}

impl Facts {
    /// Reads them; what is not there stays empty.
    pub fn read() -> Self {
        let first = |path: &str| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
        let after = |path: &str, name: &str| {
            fs::read_to_string(path)
                .unwrap_or_default()
                .lines()
                .find_map(|line| {
                    Some(line.strip_prefix(name)?.trim_start_matches([' ', '\t', ':']).to_owned())
                })
                .unwrap_or_default()
        };
        let memory = after("/proc/meminfo", "MemTotal");
        let memory_kib: u64 =
            memory.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0);
        let huge = first("/sys/kernel/mm/transparent_hugepage/enabled");
        Self {
            cpu: after("/proc/cpuinfo", "model name"),
            cpus: std::thread::available_parallelism().map_or(0, usize::from),
            memory_bytes: memory_kib * 1024,
            kernel: first("/proc/sys/kernel/osrelease"),
            tcp_congestion: first("/proc/sys/net/ipv4/tcp_congestion_control"),
            clock_source: first("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
            huge_pages: huge.split(['[', ']']).nth(1).unwrap_or_default().to_owned(),
            governor: first("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
            disk: millrace_doctor::calibrate::load(),
        }
    }
}

/// CPUs the calling thread may use.
pub fn usable_cpus() -> Vec<usize> {
    let Ok(set) = rustix::thread::sched_getaffinity(None) else { return Vec::new() };
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect()
}

const CONGESTION: &str = "/proc/sys/net/ipv4/tcp_congestion_control";

/// Another congestion control for all new sockets of the host, until it is dropped.
#[derive(Debug)]
pub struct HostCongestion {
    /// What it was before.
    pub before: String,
    is_changed: bool,
}

impl HostCongestion {
    /// Sets it, if it is not set already.
    pub fn set(wanted: &str) -> io::Result<Self> {
        let before = fs::read_to_string(CONGESTION)?.trim().to_owned();
        let is_changed = before != wanted;
        if is_changed {
            fs::write(CONGESTION, wanted)?;
        }
        Ok(Self { before, is_changed })
    }

    /// What was done, in words, if something was.
    pub fn words(&self, wanted: &str) -> Option<String> {
        let before = &self.before;
        self.is_changed.then(|| {
            format!("the host's TCP congestion control is {wanted} while this runs, then {before}")
        })
    }
}

impl Drop for HostCongestion {
    fn drop(&mut self) {
        if self.is_changed {
            let _ = fs::write(CONGESTION, &self.before);
        }
    }
}

/// How late a timer fires and how long a flush takes while nothing else of ours runs.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Noise {
    /// A sleep of 200 us: median of what it took longer, microseconds.
    pub timer_late_us_p50: Option<f64>,
    /// The largest of 100 such sleeps.
    pub timer_late_us_max: Option<f64>,
    /// 4 KiB appended and flushed in the report folder: median, microseconds.
    pub flush_us_p50: Option<f64>,
    /// The largest of 20 such flushes.
    pub flush_us_max: Option<f64>,
}

const SLEEP: Duration = Duration::from_micros(200);

impl Noise {
    /// Takes about 50 ms; `folder` must exist.
    pub fn probe(folder: &Path) -> Self {
        let clock = Clock::start();
        let mut timer = Latencies::default();
        for _ in 0..100 {
            let start = clock.now_ns();
            std::thread::sleep(SLEEP);
            timer.record((clock.now_ns() - start).saturating_sub(nanos(SLEEP)));
        }
        let mut flush = Latencies::default();
        let path = folder.join(".flush-probe");
        if let Ok(mut file) = fs::File::create(&path) {
            for _ in 0..20 {
                let start = clock.now_ns();
                if file.write_all(&[0; 4096]).and_then(|()| file.sync_data()).is_ok() {
                    flush.record(clock.now_ns() - start);
                }
            }
            // A probe file left behind does no harm.
            drop(fs::remove_file(&path));
        }
        Self {
            timer_late_us_p50: timer.quantile_us(0.5),
            timer_late_us_max: timer.max_us(),
            flush_us_p50: flush.quantile_us(0.5),
            flush_us_max: flush.max_us(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linux_host_has_a_kernel_cpus_and_memory() {
        let facts = Facts::read();
        assert!(!facts.kernel.is_empty() && facts.cpus > 0 && facts.memory_bytes > 0, "{facts:?}");
    }

    #[test]
    fn the_probe_measures_timer_and_flush_and_leaves_nothing() {
        let folder = std::env::temp_dir().join(format!("loadgen-probe-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a temporary folder");
        let noise = Noise::probe(&folder);
        assert!(noise.timer_late_us_max.is_some() && noise.flush_us_p50.is_some(), "{noise:?}");
        assert_eq!(fs::read_dir(&folder).expect("it is there").count(), 0);
        fs::remove_dir(&folder).expect("it is empty");
    }
}
