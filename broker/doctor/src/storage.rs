//! A data folder: its file system, what lies below it, and how long a flush takes there.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use millrace_io::probe;
use rustix::fs::{major, minor, statvfs};

use crate::Finding;
use crate::calibrate::{self, Latency};
use crate::host::{Host, shown};

const FLUSHES: usize = 50;

/// All checks of one folder of `log.dirs`. Whether it will be written directly.
pub(crate) fn examine(
    host: &Host,
    folder: &Path,
    wants_direct: bool,
    findings: &mut Vec<Finding>,
) -> bool {
    let place = nearest(folder);
    let device = match fs::metadata(&place) {
        Ok(facts) => (major(facts.dev()), minor(facts.dev())),
        Err(error) => {
            findings.push(unusable(&place, &error));
            return false;
        }
    };
    let mount = Mount::of(host, &place, device);
    findings.push(file_system(folder, &mount, space(&place)));
    let is_direct = match probe::data_dir(&place) {
        Err(error) => {
            findings.push(unusable(&place, &error));
            return false;
        }
        Ok(facts) if !wants_direct => {
            let found = format!("not wanted (millrace.io.write.mode); {facts}");
            findings.push(Finding::ok("direct I/O", found));
            false
        }
        Ok(facts) if facts.is_usable() => {
            findings.push(Finding::ok("direct I/O", facts.to_string()));
            true
        }
        Ok(facts) => {
            let to_do =
                "flushes cost about twice the CPU: a folder on ext4 or xfs takes direct writes";
            findings.push(Finding::advice("direct I/O", facts.to_string(), to_do));
            false
        }
    };
    let queue = queue(host, device, &mount.source);
    findings.extend(queue.as_deref().map(|queue| write_cache(host, queue)));
    findings.push(match flush_latency(&place) {
        Ok(latency) => flush(latency, &mount.kind),
        Err(error) => unusable(&place, &error),
    });
    findings.extend(queue.as_deref().map(|queue| scheduler(host, queue)));
    is_direct
}

/// The folder, or the first above it that exists.
pub(crate) fn nearest(folder: &Path) -> PathBuf {
    let folder = std::path::absolute(folder).unwrap_or_else(|_| folder.into());
    folder.ancestors().find(|path| path.is_dir()).unwrap_or(Path::new("/")).into()
}

fn unusable(place: &Path, error: &io::Error) -> Finding {
    let found = format!("{}: {error}", place.display());
    Finding::problem("data folder", found, "choose a folder that can be written with log.dirs")
}

/// Bytes of the file system that may still be used, and all it has.
pub fn space(place: &Path) -> Option<(u64, u64)> {
    let facts = statvfs(place).ok()?;
    Some((facts.f_bavail * facts.f_frsize, facts.f_blocks * facts.f_frsize))
}

/// A line of /proc/self/mountinfo.
#[derive(Debug, Default, PartialEq)]
struct Mount {
    /// Name of the file system.
    kind: String,
    /// What is mounted, such as /dev/vda1.
    source: String,
    /// Those of the mount, then those of the file system.
    options: Vec<String>,
}

impl Mount {
    /// The mount of this device that `place` lies in.
    fn of(host: &Host, place: &Path, (major, minor): (u32, u32)) -> Self {
        let device = format!("{major}:{minor}");
        let mounts = host.text("/proc/self/mountinfo").unwrap_or_default();
        let here = mounts.lines().filter_map(|line| {
            let (head, tail) = line.split_once(" - ")?;
            let head: Vec<&str> = head.split(' ').collect();
            let [_, _, number, _, point, own, ..] = head[..] else { return None };
            let [kind, source, shared] = tail.split(' ').collect::<Vec<_>>()[..] else {
                return None;
            };
            // Blanks in names are written as octal numbers.
            let point = point.replace("\\040", " ");
            if number != device || !place.starts_with(&point) {
                return None;
            }
            let options = own.split(',').chain(shared.split(',')).map(str::to_owned).collect();
            let mount = Self { kind: kind.into(), source: source.into(), options };
            Some((point.len(), mount))
        });
        here.max_by_key(|(length, _)| *length).map(|(_, mount)| mount).unwrap_or_default()
    }

    fn has(&self, options: &[&str]) -> bool {
        self.options.iter().any(|option| options.contains(&option.as_str()))
    }
}

fn file_system(folder: &Path, mount: &Mount, free: Option<(u64, u64)>) -> Finding {
    let name = "file system";
    let Mount { kind, source, .. } = mount;
    let kept = ["noatime", "relatime", "discard", "data=journal", "nobarrier", "barrier=0", "sync"];
    let options = mount.options.iter().filter(|option| kept.contains(&option.as_str()));
    let options: Vec<&str> = options.map(String::as_str).collect();
    let space = free.map_or("unknown".into(), |(bytes, _)| shown(bytes));
    let found =
        format!("{}: {kind} on {source} ({}), {space} free", folder.display(), options.join(","));
    if mount.has(&["ro"]) {
        return Finding::problem(name, found, "mounted read-only: remount it, or move log.dirs");
    }
    if mount.has(&["nobarrier", "barrier=0"]) {
        let to_do = "a flush does not reach the device, so acks=all does not survive a power cut: \
                     remount with barrier=1";
        return Finding::problem(name, found, to_do);
    }
    if free.is_some_and(|(bytes, all)| bytes < all / 20) {
        return Finding::advice(
            name,
            found,
            "nearly full: free some space, or lower log.retention",
        );
    }
    match kind.as_str() {
        "tmpfs" | "ramfs" => {
            Finding::problem(name, found, "the records are gone at the next start of the machine")
        }
        "ext4" | "xfs" if mount.has(&["data=journal", "sync"]) => {
            Finding::advice(name, found, "every write is made twice, or waited for: data=ordered")
        }
        "ext4" | "xfs" => Finding::ok(name, found),
        "overlay" => {
            Finding::advice(name, found, "a container's layer is gone with it: mount a volume")
        }
        _ => Finding::advice(name, found, "ext4 and xfs are those that were tried"),
    }
}

/// The folder in /sys with the queue of the disk below the file system.
fn queue(host: &Host, (major, minor): (u32, u32), source: &str) -> Option<String> {
    let by_name = source.strip_prefix("/dev/").unwrap_or("none");
    let devices =
        [format!("/sys/dev/block/{major}:{minor}"), format!("/sys/class/block/{by_name}")];
    // A partition has no queue, the disk above it has.
    let folders = devices.iter().flat_map(|d| [format!("{d}/queue"), format!("{d}/../queue")]);
    folders.into_iter().find(|folder| host.text(&format!("{folder}/scheduler")).is_some())
}

fn write_cache(host: &Host, queue: &str) -> Finding {
    let name = "write cache";
    match host.text(&format!("{queue}/write_cache")).as_deref() {
        Some("write back") => Finding::ok(name, "write back: a flush empties it"),
        Some("write through") => Finding::ok(
            name,
            "write through: the device says that what it has acknowledged survives a power cut",
        ),
        _ => Finding::ok(name, "not visible here"),
    }
}

/// What a block appended and flushed takes. The file is removed again.
fn flush_latency(place: &Path) -> io::Result<Latency> {
    use std::io::Write as _;
    let path = place.join(format!(".flush-probe-{}", std::process::id()));
    let flush = || {
        let mut file = fs::File::create(&path)?;
        let mut took = Vec::new();
        for _ in 0..FLUSHES {
            let start = std::time::Instant::now();
            file.write_all(&[1; millrace_io::BLOCK_BYTES])?;
            file.sync_data()?;
            took.push(calibrate::micros(start.elapsed()));
        }
        Ok(Latency::of(took))
    };
    let outcome = flush();
    // Where it could not be made there is nothing to remove.
    let _ = fs::remove_file(&path);
    outcome
}

fn flush(latency: Latency, kind: &str) -> Finding {
    let name = "flush";
    let Latency { p50, p99, count } = latency;
    let found =
        format!("4 KiB appended and flushed: median {p50:.0} us, p99 {p99:.0} us of {count}");
    let is_memory = ["tmpfs", "ramfs"].contains(&kind);
    if p50 < 15.0 && !is_memory {
        let to_do = "quicker than disks are: make sure that the device, or the hypervisor below \
                     it, does not ignore flushes";
        return Finding::advice(name, found, to_do);
    }
    match p50 > 5_000.0 {
        true => Finding::advice(
            name,
            found,
            "acks=all waits this long: a device with power-loss protection answers in 0.1 ms; or \
             millrace.acks.all=write for topics that may lose their end in a power cut",
        ),
        false => Finding::ok(name, found),
    }
}

fn scheduler(host: &Host, queue: &str) -> Finding {
    match host.choice(&format!("{queue}/scheduler")) {
        None => Finding::ok("scheduler", "not visible here"),
        Some(choice) if choice == "bfq" => Finding::advice(
            "scheduler",
            choice,
            format!("made for desktops: echo none > {queue}/scheduler"),
        ),
        Some(choice) => Finding::ok("scheduler", choice),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verdict::{self, Advice, Ok, Problem};
    use crate::host::tests::root;

    const MOUNTS: &str = "\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,discard
30 27 254:0 /data /mnt/my\\040data rw,noatime - ext4 /dev/vda1 rw,barrier=0
31 27 0:40 / /mnt/fast rw - tmpfs tmpfs rw";

    #[test]
    fn the_innermost_mount_of_the_device_counts() {
        let (_kept, host) = root(&[("/proc/self/mountinfo", MOUNTS)]);
        for (place, device, kind, option) in [
            ("/var/data", (254, 0), "ext4", "discard"),
            ("/mnt/my data/x", (254, 0), "ext4", "barrier=0"),
            ("/mnt/fast", (0, 40), "tmpfs", "rw"),
            ("/elsewhere", (9, 9), "", ""),
        ] {
            let mount = Mount::of(&host, Path::new(place), device);
            assert!(mount.kind == kind && (option.is_empty() || mount.has(&[option])), "{mount:?}");
        }
    }

    fn check(finding: &Finding, verdict: Verdict, part: &str) {
        let line = crate::as_text(std::slice::from_ref(finding));
        assert!(finding.verdict == verdict && line.contains(part), "{part}: {line}");
    }

    #[test]
    fn file_systems_that_lose_records_are_problems() {
        let plenty = Some((500 << 30, 1000 << 30));
        for (kind, options, free, verdict, part) in [
            ("ext4", "rw,relatime", plenty, Ok, "/d: ext4 on /dev/x (relatime), 500 GiB free"),
            ("xfs", "rw", plenty, Ok, "xfs"),
            ("xfs", "rw", Some((9 << 30, 1000 << 30)), Advice, "nearly full"),
            ("ext4", "ro", plenty, Problem, "read-only"),
            ("ext4", "rw,nobarrier", plenty, Problem, "power cut"),
            ("ext4", "rw,data=journal", plenty, Advice, "data=ordered"),
            ("tmpfs", "rw", plenty, Problem, "next start"),
            ("overlay", "rw", plenty, Advice, "volume"),
            ("btrfs", "rw", None, Advice, "ext4 and xfs"),
        ] {
            let options = options.split(',').map(str::to_owned).collect();
            let mount = Mount { kind: kind.into(), source: "/dev/x".into(), options };
            check(&file_system(Path::new("/d"), &mount, free), verdict, part);
        }
    }

    #[test]
    fn the_queue_of_the_disk_is_found_from_a_partition_and_by_name() {
        let (_kept, host) = root(&[
            ("/sys/dev/block/254:0/queue/write_cache", "write back"),
            ("/sys/dev/block/254:0/queue/scheduler", "none mq-deadline [bfq]"),
            ("/sys/dev/block/queue/scheduler", "[none] mq-deadline"),
            ("/sys/dev/block/8:1/partition", "1"),
            ("/sys/class/block/sda/queue/scheduler", "none [bfq]"),
        ]);
        let disk = queue(&host, (254, 0), "/dev/vda").expect("it is there");
        check(&write_cache(&host, &disk), Ok, "write back");
        check(&scheduler(&host, &disk), Advice, "echo none");
        let partition = queue(&host, (8, 1), "/dev/sdb1").expect("its disk's");
        check(&scheduler(&host, &partition), Ok, "none");
        let by_name = queue(&host, (0, 30), "/dev/sda").expect("btrfs names its device");
        check(&scheduler(&host, &by_name), Advice, "bfq");
        assert_eq!(queue(&host, (0, 40), "tmpfs"), None);
    }

    #[test]
    fn flushes_that_are_too_slow_or_too_quick_are_told() {
        for (p50, kind, verdict, part) in [
            (180.0, "ext4", Ok, "median 180 us"),
            (4.0, "ext4", Advice, "ignore flushes"),
            (1.0, "tmpfs", Ok, "median 1 us"),
            (9_000.0, "xfs", Advice, "power-loss protection"),
        ] {
            check(&flush(Latency { p50, p99: p50 * 2.0, count: 50 }, kind), verdict, part);
        }
    }
}
