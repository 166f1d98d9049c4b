//! What the broker spends: CPU, memory, context switches and I/O of a process, read from /proc.

use crate::flushes::FlushCounter;
use serde::Serialize;
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::path::PathBuf;

/// One reading; all but `rss_bytes` only grow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Usage {
    /// CPU time of all threads, nanoseconds.
    pub cpu_ns: u64,
    /// Resident memory.
    pub rss_bytes: u64,
    /// Voluntary and involuntary context switches of all threads.
    pub context_switches: u64,
    /// Bytes the process caused to be read from storage.
    pub read_bytes: u64,
    /// Bytes the process caused to be written to storage.
    pub write_bytes: u64,
    /// Flushes it asked the file system for, when they are counted.
    pub flushes: Option<u64>,
}

impl Usage {
    /// What was used since `earlier`; memory stays as it is now.
    pub fn since(&self, earlier: &Self) -> Self {
        Self {
            cpu_ns: self.cpu_ns.saturating_sub(earlier.cpu_ns),
            rss_bytes: self.rss_bytes,
            context_switches: self.context_switches.saturating_sub(earlier.context_switches),
            read_bytes: self.read_bytes.saturating_sub(earlier.read_bytes),
            write_bytes: self.write_bytes.saturating_sub(earlier.write_bytes),
            flushes: self.flushes.zip(earlier.flushes).map(|(now, then)| now - then),
        }
    }
}

/// What can be read of a process at next to no cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Glance {
    /// CPU time, to 10 ms.
    pub cpu_ns: u64,
    /// Resident memory.
    pub rss_bytes: u64,
}

/// Reads the usage of one process, or of some threads of this one.
///
/// Sums over threads because the process-wide CPU time has a resolution of 10 ms only. A thread
/// that ends between two readings keeps its last value, so sums never fall; what it used after its
/// last reading is in the process-wide time.
#[derive(Debug)]
pub struct Meter {
    folder: PathBuf,
    threads: HashMap<u32, (u64, u64)>,
    /// Threads of the load generator itself, which are not the broker's.
    excluded: BTreeSet<u32>,
    /// CPU time of threads that had ended before the first reading.
    ended_ns: Option<u64>,
    flushes: Option<FlushCounter>,
}

impl Meter {
    /// A meter of another process; `None` when there is no such process.
    pub fn of_process(pid: u32) -> Option<Self> {
        let folder = PathBuf::from(format!("/proc/{pid}"));
        folder.join("task").is_dir().then(|| Self {
            folder,
            threads: HashMap::new(),
            excluded: BTreeSet::new(),
            ended_ns: None,
            flushes: None,
        })
    }

    /// A meter of an embedded broker: all threads of this process but `excluded`.
    pub fn of_this_process_without(excluded: impl IntoIterator<Item = u32>) -> Self {
        Self {
            folder: PathBuf::from("/proc/self"),
            threads: HashMap::new(),
            excluded: excluded.into_iter().collect(),
            ended_ns: None,
            flushes: None,
        }
    }

    /// Also counts flushes.
    pub fn with_flushes(mut self, counter: FlushCounter) -> Self {
        self.flushes = Some(counter);
        self
    }

    /// Adds a thread that is not the broker's.
    pub fn exclude(&mut self, thread: u32) {
        self.excluded.insert(thread);
        self.threads.remove(&thread);
    }

    /// Reads the counters; what cannot be read counts as unchanged.
    pub fn read(&mut self) -> Usage {
        for thread in fs::read_dir(self.folder.join("task")).into_iter().flatten().flatten() {
            let Some(id) = thread.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            if self.excluded.contains(&id) {
                continue;
            }
            let path = thread.path();
            let cpu_ns = fs::read_to_string(path.join("schedstat"))
                .ok()
                .and_then(|text| text.split_whitespace().next()?.parse().ok());
            let switches = fs::read_to_string(path.join("status")).ok().map(|text| {
                field(&text, "voluntary_ctxt_switches:")
                    + field(&text, "nonvoluntary_ctxt_switches:")
            });
            let last = self.threads.entry(id).or_default();
            *last = (cpu_ns.unwrap_or(last.0), switches.unwrap_or(last.1));
        }
        let status = fs::read_to_string(self.folder.join("status")).unwrap_or_default();
        let io = fs::read_to_string(self.folder.join("io")).unwrap_or_default();
        let of_threads: u64 = self.threads.values().map(|thread| thread.0).sum();
        Usage {
            cpu_ns: self.with_ended(of_threads),
            flushes: self.flushes.as_mut().and_then(FlushCounter::count),
            rss_bytes: field(&status, "VmRSS:") * 1024,
            context_switches: self.threads.values().map(|thread| thread.1).sum(),
            read_bytes: field(&io, "read_bytes:"),
            write_bytes: field(&io, "write_bytes:"),
        }
    }

    /// Adds what threads used that ended after the first reading.
    fn with_ended(&mut self, of_threads: u64) -> u64 {
        /// User and system time are each cut to 10 ms, and the readings are not simultaneous.
        const ROUNDING_NS: u64 = 30_000_000;
        if !self.excluded.is_empty() {
            return of_threads;
        }
        let stat = fs::read_to_string(self.folder.join("stat")).unwrap_or_default();
        let of_process = stat_cpu_ns(&stat);
        let ended = *self.ended_ns.get_or_insert(of_process.saturating_sub(of_threads));
        match of_process.saturating_sub(ended) {
            more if more > of_threads + ROUNDING_NS => more,
            _ => of_threads,
        }
    }

    /// A cheap reading for a chart: CPU time to 10 ms, and resident memory.
    pub fn glance(&self) -> Glance {
        let stat = fs::read_to_string(self.folder.join("stat")).unwrap_or_default();
        let own: u64 = self.excluded.iter().map(|&thread| thread_cpu_ns(thread)).sum();
        let status = fs::read_to_string(self.folder.join("status")).unwrap_or_default();
        Glance {
            cpu_ns: stat_cpu_ns(&stat).saturating_sub(own),
            rss_bytes: field(&status, "VmRSS:") * 1024,
        }
    }

    /// Whether the process is still there.
    pub fn is_alive(&self) -> bool {
        self.folder.join("task").is_dir()
    }
}

/// CPU nanoseconds of one thread of this process.
pub fn thread_cpu_ns(thread: u32) -> u64 {
    fs::read_to_string(format!("/proc/self/task/{thread}/schedstat"))
        .ok()
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .unwrap_or(0)
}

/// Nanoseconds all CPUs of the machine were busy since boot, and those that the hypervisor gave to
/// others, to 10 ms.
pub fn machine_ns() -> (u64, u64) {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields: Vec<u64> = text
        .lines()
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .skip(1)
        .filter_map(|field| field.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal; guest time is part of user.
    let busy: u64 = [0, 1, 2, 5, 6].iter().filter_map(|&index| fields.get(index)).sum();
    (busy * 10_000_000, fields.get(7).unwrap_or(&0) * 10_000_000)
}

/// CPU nanoseconds of the kernel's own threads since boot, to 10 ms: writing back pages and the
/// like, which the load causes but no process is charged for.
pub fn kernel_threads_ns() -> u64 {
    /// `kthreadd`, the parent of them all.
    const PARENT: &str = "2";
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    let stats =
        processes.filter_map(|process| fs::read_to_string(process.path().join("stat")).ok());
    stats
        .map(|stat| if stat_fields(&stat).nth(1) == Some(PARENT) { stat_cpu_ns(&stat) } else { 0 })
        .sum()
}

/// The fields of /proc/PID/stat behind the name, which may hold spaces: state, parent ...
fn stat_fields(stat: &str) -> impl Iterator<Item = &str> {
    stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ')
}

/// User and system time of /proc/PID/stat.
fn stat_cpu_ns(stat: &str) -> u64 {
    let ticks = stat_fields(stat).skip(11).take(2).filter_map(|field| field.parse::<u64>().ok());
    ticks.sum::<u64>() * 10_000_000
}

fn field(text: &str, name: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix(name))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spin_until_cpu(thread: u32, ns: u64) {
        let mut value = 0_u64;
        while thread_cpu_ns(thread) < ns {
            for _ in 0..100_000 {
                value = std::hint::black_box(value.wrapping_add(1));
            }
        }
    }

    #[test]
    fn counts_the_cpu_of_all_threads_even_after_they_end() {
        let me = std::process::id();
        let mut meter = Meter::of_process(me).expect("this process exists");
        let before = meter.read();
        let (send, receive) = std::sync::mpsc::channel();
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let worker = std::thread::spawn(move || {
            let thread = rustix::thread::gettid().as_raw_nonzero().get() as u32;
            spin_until_cpu(thread, 30_000_000);
            send.send(thread).expect("the test waits");
            ended.recv().expect("the test says so");
        });
        let thread = receive.recv().expect("the worker sends");
        let during = meter.read();
        end.send(()).expect("the worker waits");
        worker.join().expect("the worker ends well");
        let after = meter.read();
        assert!(during.since(&before).cpu_ns >= 30_000_000);
        assert!(after.cpu_ns >= during.cpu_ns && after.rss_bytes > 0);
        let glance = meter.glance();
        assert!(glance.cpu_ns >= 10_000_000 && glance.rss_bytes > 0, "{glance:?}");

        let mut others = Meter::of_this_process_without([thread]);
        others.exclude(me);
        assert!(others.is_alive());
    }

    #[test]
    fn a_process_that_is_not_there_has_no_meter() {
        assert!(Meter::of_process(u32::MAX).is_none());
    }

    #[test]
    fn the_machine_has_been_busy_and_its_kernel_less() {
        let kernel = kernel_threads_ns();
        assert!(machine_ns().0 > kernel);
    }

    #[test]
    fn a_name_with_spaces_and_brackets_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 2 0 0 0 -1 69238880 0 0 0 0 3 4 0 0 20 0 1 0 12";
        assert_eq!(stat_fields(stat).nth(1), Some("2"));
        assert_eq!(stat_cpu_ns(stat), 70_000_000);
    }
}
