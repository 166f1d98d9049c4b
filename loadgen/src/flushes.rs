//! Flushes that a process asked its file system for, counted by the kernel.
//!
//! A tracing instance of our own notes each entry into the file system's flush with the process it
//! is for. That covers fsync, fdatasync, msync, syncfs and the flushes of io_uring alike, which no
//! count of system calls does. It needs root and tracefs, and goes away with this value.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const INSTANCES: &str = "/sys/kernel/tracing/instances";
/// Entry points of the file systems: one file, whole file system.
const EVENTS: [&str; 4] =
    ["ext4/ext4_sync_file_enter", "ext4/ext4_sync_fs", "xfs/xfs_file_fsync", "xfs/xfs_fs_sync_fs"];
/// For each CPU: about 90,000 events between two readings.
const BUFFER_KIB: &str = "4096";

/// Counts from its making to its drop.
#[derive(Debug)]
pub struct FlushCounter {
    instance: PathBuf,
    process: u32,
    /// Counted in earlier readings; `None` once events were lost.
    counted: Option<u64>,
}

impl FlushCounter {
    /// Begins to count.
    pub fn start(process: u32) -> io::Result<Self> {
        let name = format!("loadgen-{}-{process}", std::process::id());
        let instance = Path::new(INSTANCES).join(name);
        fs::create_dir(&instance)?;
        let counter = Self { instance, process, counted: Some(0) };
        let set = |file: &str, value: &str| fs::write(counter.instance.join(file), value);
        set("buffer_size_kb", BUFFER_KIB)?;
        set("options/record-tgid", "1")?;
        let mut is_any = false;
        for event in EVENTS {
            is_any |= set(&format!("events/{event}/enable"), "1").is_ok();
        }
        match is_any {
            true => Ok(counter),
            false => Err(io::Error::other("no file system here can be traced")),
        }
    }

    /// Flushes since the start; `None` when there were more than the buffer holds.
    pub fn count(&mut self) -> Option<u64> {
        let trace = self.instance.join("trace");
        // Both belong together: what is read is cleared.
        let text = fs::read_to_string(&trace).ok()?;
        fs::write(&trace, "").ok()?;
        self.counted = self.counted.zip(flushes_of(&text, self.process)).map(|(a, b)| a + b);
        self.counted
    }
}

impl Drop for FlushCounter {
    fn drop(&mut self) {
        drop(fs::remove_dir(&self.instance));
    }
}

/// Counts the events of a process in a trace; `None` when some were overwritten. A line is
/// `NAME-THREAD (PROCESS) [CPU] flags time: event: ...`, and names may hold anything.
fn flushes_of(trace: &str, process: u32) -> Option<u64> {
    let kept = trace.lines().find_map(|line| line.split_once("entries-in-buffer/entries-written:"));
    let (in_buffer, rest) = kept?.1.split_once('/')?;
    if in_buffer.trim() != rest.split_whitespace().next()? {
        return None;
    }
    let events = trace.lines().filter(|line| !line.starts_with('#'));
    let of_process = |line: &&str| {
        let head = line.rsplit_once(") [").map_or("", |(head, _)| head);
        let found = head.rsplit_once('(').map_or("", |(_, number)| number.trim());
        found.parse() == Ok(process)
    };
    Some(events.filter(of_process).count() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_flushes_of_the_process_count_and_lost_events_are_no_count() {
        let trace = |written| {
            format!(
                "# tracer: nop\n#\n# entries-in-buffer/entries-written: 4/{written}   #P:2\n#\n\
                 \x20 kafka-1-raft-io-2956    (   1733) [000] ..... 1.1: ext4_sync_file_enter: a\n\
                 \x20     iou-wrk-812-900     (    812) [001] ..... 1.2: ext4_sync_file_enter: b\n\
                 \x20      a (812) [0]-7     (-------) [001] ..... 1.3: ext4_sync_file_enter: c\n\
                 \x20        millrace-812    (    812) [001] ..... 1.4: ext4_sync_fs: d\n"
            )
        };
        assert_eq!(flushes_of(&trace(4), 812), Some(2));
        assert_eq!(flushes_of(&trace(4), 1733), Some(1));
        assert_eq!(flushes_of(&trace(9), 812), None);
        assert_eq!(flushes_of("", 812), None);
    }

    #[test]
    fn the_flushes_of_this_process_are_counted_where_the_kernel_lets_us() {
        let Ok(mut counter) = FlushCounter::start(std::process::id()) else { return };
        // Not the temporary folder, which may lie in memory.
        let path = PathBuf::from(format!("flush-test-{}", std::process::id()));
        let file = fs::File::create(&path).expect("a file in the crate's folder");
        for _ in 0..5 {
            io::Write::write_all(&mut &file, b"x").expect("it is open");
            file.sync_data().expect("a disk");
        }
        fs::remove_file(&path).expect("it is there");
        // Other tests flush, too.
        assert!(counter.count().is_none_or(|count| count >= 5));
        let instance = counter.instance.clone();
        drop(counter);
        assert!(!instance.exists(), "nothing is left behind");
    }
}
