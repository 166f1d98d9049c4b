//! The host without its disks.

use std::hint::black_box;
use std::time::Instant;

use crate::Finding;
use crate::host::{Host, shown};

/// All checks. `is_direct`: no data folder is written through the page cache.
pub(crate) fn examine(host: &Host, shards: usize, is_direct: bool) -> Vec<Finding> {
    let ring = millrace_io::probe::ring();
    let is_ring = ring.is_ok();
    let ring = match ring {
        Ok(facts) if facts.features.is_empty() => Finding::ok("io_uring", "works"),
        Ok(facts) => Finding::ok("io_uring", format!("works; {}", facts.features.join(", "))),
        Err(problem) => Finding::problem("io_uring", "unusable", problem.to_string()),
    };
    vec![
        kernel(host),
        ring,
        io_uring_sysctl(host),
        seccomp(host, is_ring),
        memlock(host, is_ring),
        open_files(host),
        cpus(host, shards),
        memory(host),
        clock(host, clock_ns()),
        congestion(host),
        socket_buffers(host),
        huge_pages(host),
        dirty_pages(host, is_direct),
        governor(host),
        idle_states(host),
    ]
}

fn kernel(host: &Host) -> Finding {
    let release = host.text("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let found = format!("Linux {release}");
    match version {
        (6.., 1..) | (7.., _) => Finding::ok("kernel", found),
        _ => Finding::problem("kernel", found, "6.1 or newer is needed"),
    }
}

fn io_uring_sysctl(host: &Host) -> Finding {
    let (name, key) = ("sysctl", "kernel.io_uring_disabled");
    let group = host.text("/proc/sys/kernel/io_uring_group").unwrap_or_default();
    match host.number("/proc/sys/kernel/io_uring_disabled") {
        None => Finding::ok(name, format!("{key} is not in this kernel")),
        Some(0) => Finding::ok(name, format!("{key}=0")),
        Some(1) => Finding::advice(
            name,
            format!("{key}=1"),
            format!("run the broker in group {group} (io_uring_group), or sysctl {key}=0"),
        ),
        Some(value) => Finding::problem(name, format!("{key}={value}"), format!("sysctl {key}=0")),
    }
}

fn seccomp(host: &Host, is_ring: bool) -> Finding {
    match host.field("/proc/self/status", "Seccomp:").as_deref() {
        None | Some("0") => Finding::ok("seccomp", "no filter"),
        Some(_) if is_ring => Finding::ok("seccomp", "a filter that lets io_uring pass"),
        Some(_) => Finding::problem(
            "seccomp",
            "a filter",
            "allow io_uring_setup, io_uring_enter and io_uring_register in the container's profile",
        ),
    }
}

/// The soft limit of this name; `None` is unlimited.
fn limit(host: &Host, name: &str) -> Option<u64> {
    let line = host.field("/proc/self/limits", name)?;
    line.split_whitespace().next()?.parse().ok()
}

fn memlock(host: &Host, is_ring: bool) -> Finding {
    let to_do = "raise it to 8 MiB: ulimit -l 8192, LimitMEMLOCK=8M";
    match limit(host, "Max locked memory") {
        None => Finding::ok("memlock", "unlimited"),
        Some(bytes) if bytes >= 8 << 20 => Finding::ok("memlock", shown(bytes)),
        // Privileged processes are not held to it.
        Some(bytes) if is_ring => Finding::advice("memlock", shown(bytes), to_do),
        Some(bytes) => Finding::problem("memlock", shown(bytes), to_do),
    }
}

fn open_files(host: &Host) -> Finding {
    let to_do = "a connection takes one, a partition up to four: ulimit -n 1000000, LimitNOFILE";
    match limit(host, "Max open files") {
        None => Finding::ok("open files", "unlimited"),
        Some(count) if count < 1024 => Finding::problem("open files", count.to_string(), to_do),
        Some(count) if count < 10_000 => Finding::advice("open files", count.to_string(), to_do),
        Some(count) => Finding::ok("open files", count.to_string()),
    }
}

/// CPUs in a list such as `0-3,6`.
fn count_cpus(list: &str) -> usize {
    let count = |run: &str| {
        let (first, last) = run.split_once('-').unwrap_or((run, run));
        let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
        Some((last + 1).saturating_sub(first))
    };
    list.split(',').filter_map(count).sum()
}

/// CPUs that the cgroups give: the least of their quotas.
fn cpu_quota(host: &Host) -> Option<f64> {
    let period = host.cgroup("cpu", "cpu.cfs_period_us", "none");
    let period: f64 = period.first().and_then(|text| text.parse().ok()).unwrap_or(100_000.0);
    let quotas = host.cgroup("cpu", "cpu.cfs_quota_us", "cpu.max");
    let cpus = quotas.iter().filter_map(|text| {
        let mut parts = text.split_whitespace().map(str::parse::<f64>);
        let quota = parts.next()?.ok().filter(|quota| *quota > 0.0)?;
        Some(quota / parts.next().and_then(Result::ok).unwrap_or(period))
    });
    cpus.min_by(f64::total_cmp)
}

fn cpus(host: &Host, shards: usize) -> Finding {
    let list = host.field("/proc/self/status", "Cpus_allowed_list:").unwrap_or_default();
    let (count, quota) = (count_cpus(&list), cpu_quota(host));
    let quota_shown = quota.map_or("no cgroup quota".into(), |cpus| format!("quota of {cpus:.1}"));
    let found = format!("{list} usable, {quota_shown}, {shards} shards");
    let held = quota.filter(|cpus| *cpus < shards as f64);
    match held {
        Some(cpus) => Finding::advice(
            "cpus",
            found,
            format!(
                "a throttled shard stalls all its clients: set millrace.shards={}, or raise the \
                 quota",
                (cpus.floor() as usize).max(1)
            ),
        ),
        None if shards > count => {
            Finding::advice("cpus", found, "more shards than CPUs only take turns")
        }
        None => Finding::ok("cpus", found),
    }
}

fn memory_bytes(host: &Host) -> u64 {
    let field = host.field("/proc/meminfo", "MemTotal:").unwrap_or_default();
    field.split(' ').next().and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) * 1024
}

fn memory(host: &Host) -> Finding {
    let total = memory_bytes(host);
    let limits = host.cgroup("memory", "memory.limit_in_bytes", "memory.max");
    // Without a limit version 1 says the largest number of pages.
    let limits = limits.iter().filter_map(|text| text.parse().ok()).filter(|bytes| *bytes < total);
    let (bytes, by) = match limits.min() {
        Some(bytes) => (bytes, ", by the cgroup's limit"),
        None => (total, ", no cgroup limit"),
    };
    let found = format!("{}{by}", shown(bytes));
    match bytes < 512 << 20 {
        true => Finding::advice(
            "memory",
            found,
            "readers are served from the page cache, which counts here: give 512 MiB or more",
        ),
        false => Finding::ok("memory", found),
    }
}

/// Nanoseconds of one reading of the monotonic clock.
fn clock_ns() -> u64 {
    const READINGS: u32 = 10_000;
    let start = Instant::now();
    for _ in 0..READINGS {
        black_box(Instant::now());
    }
    (start.elapsed() / READINGS).as_nanos() as u64
}

fn clock(host: &Host, ns: u64) -> Finding {
    let folder = "/sys/devices/system/clocksource/clocksource0";
    let source = host.text(&format!("{folder}/current_clocksource")).unwrap_or_default();
    let found = format!("{source}, {ns} ns a reading");
    match source.as_str() {
        "hpet" | "acpi_pm" | "jiffies" | "refined-jiffies" | "pit" => Finding::advice(
            "clock",
            found,
            format!(
                "each reading is a system call: choose another of `{}` in {folder}/\
                 current_clocksource",
                host.text(&format!("{folder}/available_clocksource")).unwrap_or_default()
            ),
        ),
        _ => Finding::ok("clock", found),
    }
}

fn congestion(host: &Host) -> Finding {
    let name = "congestion";
    let of = |setting: &str| host.text(&format!("/proc/sys/net/ipv4/tcp_{setting}"));
    let Some(current) = of("congestion_control") else {
        return Finding::ok(name, "not visible here");
    };
    let available = of("available_congestion_control").unwrap_or_default();
    if !current.starts_with("bbr") {
        return Finding::ok(name, current);
    }
    let own = match available.split_whitespace().any(|name| name == "cubic") {
        true => "the broker's connections take cubic",
        false => "and there is no cubic for the broker's connections (modprobe tcp_cubic)",
    };
    Finding::advice(
        name,
        format!("{current}, {own}"),
        "clients of this host send with it: within a data centre sysctl \
         net.ipv4.tcp_congestion_control=cubic",
    )
}

fn socket_buffers(host: &Host) -> Finding {
    let most = |name: &str| {
        let text = host.text(&format!("/proc/sys/net/ipv4/tcp_{name}"))?;
        text.split_whitespace().nth(2)?.parse().ok()
    };
    match (most("rmem"), most("wmem")) {
        (Some(receive), Some(send)) if receive < 4 << 20 || send < 4 << 20 => Finding::advice(
            "tcp buffers",
            format!("up to {} to receive, {} to send", shown(receive), shown(send)),
            "one connection over a long way is limited to this per round trip: raise the third \
             number of net.ipv4.tcp_rmem and tcp_wmem to 4194304 or more",
        ),
        (Some(receive), Some(send)) => {
            let found = format!("up to {} to receive, {} to send", shown(receive), shown(send));
            Finding::ok("tcp buffers", found)
        }
        _ => Finding::ok("tcp buffers", "not visible here"),
    }
}

fn huge_pages(host: &Host) -> Finding {
    let path = "/sys/kernel/mm/transparent_hugepage/enabled";
    match host.choice(path) {
        None => Finding::ok("huge pages", "not in this kernel"),
        Some(choice) if choice == "never" => Finding::advice(
            "huge pages",
            choice,
            format!("handing memory to the disk costs a look-up a page: echo madvise > {path}"),
        ),
        Some(choice) => Finding::ok("huge pages", choice),
    }
}

fn dirty_pages(host: &Host, is_direct: bool) -> Finding {
    let of = |name: &str| host.number(&format!("/proc/sys/vm/dirty_{name}")).unwrap_or(0);
    let bytes_of = |prefix: &str| match of(&format!("{prefix}bytes")) {
        0 => memory_bytes(host) / 100 * of(&format!("{prefix}ratio")),
        bytes => bytes,
    };
    let (background, limit) = (bytes_of("background_"), bytes_of(""));
    let found =
        format!("written back from {}, writers wait at {}", shown(background), shown(limit));
    match (is_direct, background > 1 << 30) {
        (true, _) => Finding::ok("dirty pages", found + "; of little matter to direct writes"),
        (false, false) => Finding::ok("dirty pages", found),
        (false, true) => Finding::advice(
            "dirty pages",
            found,
            "with buffered writes a flush may find this much unwritten: sysctl \
             vm.dirty_background_bytes=268435456 vm.dirty_bytes=1073741824",
        ),
    }
}

fn governor(host: &Host) -> Finding {
    let folder = "/sys/devices/system/cpu/cpu0/cpufreq";
    let Some(governor) = host.text(&format!("{folder}/scaling_governor")) else {
        return Finding::ok("governor", "not visible here; in a guest its host decides");
    };
    let driver = host.text(&format!("{folder}/scaling_driver")).unwrap_or_default();
    // In their active mode these drivers choose the frequency by load under either name.
    let is_own = driver == "intel_pstate" || driver.starts_with("amd-pstate");
    let found = format!("{governor} ({driver})");
    match governor.as_str() {
        "powersave" | "ondemand" | "conservative" if !is_own => Finding::advice(
            "governor",
            found,
            "short bursts of requests run at a low frequency: cpupower frequency-set -g performance",
        ),
        _ => Finding::ok("governor", found),
    }
}

fn idle_states(host: &Host) -> Finding {
    let folder = "/sys/devices/system/cpu/cpu0/cpuidle";
    let states = host.names(folder).into_iter().filter_map(|state| {
        let of = |file: &str| host.text(&format!("{folder}/{state}/{file}"));
        let is_on = of("disable").is_none_or(|disabled| disabled == "0");
        Some((of("latency")?.parse::<u64>().ok()?, of("name")?)).filter(|_| is_on)
    });
    let Some((latency_us, name)) = states.max() else {
        return Finding::ok("idle states", "not visible here; in a guest its host decides");
    };
    let found = format!("{name} takes {latency_us} us to wake from");
    match latency_us > 50 {
        true => Finding::advice(
            "idle states",
            found,
            "where latency matters more than power: cpupower idle-set -D 50",
        ),
        false => Finding::ok("idle states", found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Verdict::{self, Advice, Ok, Problem};
    use crate::host::tests::root;

    type Row<'a> = (&'a [(&'a str, &'a str)], Verdict, &'a str);

    fn check(examine: impl Fn(&Host) -> Finding, rows: &[Row<'_>]) {
        for (files, verdict, part) in rows {
            let (_kept, host) = root(files);
            let finding = examine(&host);
            let line = crate::as_text(std::slice::from_ref(&finding));
            assert!(finding.verdict == *verdict && line.contains(part), "{part}: {line}");
        }
    }

    #[test]
    fn the_kernel_must_have_the_rings_we_need() {
        let file = "/proc/sys/kernel/osrelease";
        check(
            kernel,
            &[
                (&[(file, "6.1.0-13-amd64\n")], Ok, "Linux 6.1.0-13-amd64"),
                (&[(file, "6.18.44")], Ok, ""),
                (&[(file, "10.0.1")], Ok, ""),
                (&[(file, "6.0.9")], Problem, "6.1 or newer"),
                (&[(file, "5.15.0")], Problem, ""),
                (&[], Problem, ""),
            ],
        );
        let file = "/proc/sys/kernel/io_uring_disabled";
        check(
            io_uring_sysctl,
            &[
                (&[], Ok, "not in this kernel"),
                (&[(file, "0")], Ok, "0"),
                (&[(file, "1"), ("/proc/sys/kernel/io_uring_group", "7")], Advice, "group 7"),
                (&[(file, "2")], Problem, "sysctl kernel.io_uring_disabled=0"),
            ],
        );
    }

    #[test]
    fn limits_of_the_process_are_read() {
        let limits = |locked: &str, files: &str| {
            format!(
                "Limit                     Soft Limit           Hard Limit           Units\n\
                 Max open files            {files}                20000      files\n\
                 Max locked memory         {locked}              8388608              bytes\n"
            )
        };
        let file = "/proc/self/limits";
        let (low, high) = (limits("65536", "1000"), limits("8388608", "20000"));
        let (none, mid) = (limits("unlimited", "unlimited"), limits("0", "4096"));
        check(
            |host| memlock(host, false),
            &[
                (&[(file, &low)], Problem, "64 KiB"),
                (&[(file, &high)], Ok, "8 MiB"),
                (&[(file, &none)], Ok, "unlimited"),
            ],
        );
        check(|host| memlock(host, true), &[(&[(file, &low)], Advice, "LimitMEMLOCK")]);
        check(
            open_files,
            &[
                (&[(file, &low)], Problem, "1000"),
                (&[(file, &mid)], Advice, "LimitNOFILE"),
                (&[(file, &high)], Ok, "20000"),
                (&[(file, &none)], Ok, "unlimited"),
            ],
        );
        let status = "/proc/self/status";
        check(|host| seccomp(host, true), &[(&[(status, "Seccomp:\t2\n")], Ok, "lets io_uring")]);
        check(
            |host| seccomp(host, false),
            &[
                (&[(status, "Seccomp:\t0\n")], Ok, "no filter"),
                (&[(status, "Seccomp:\t2\n")], Problem, "io_uring_setup"),
            ],
        );
    }

    #[test]
    fn a_cgroup_that_gives_less_than_the_shards_want_is_told() {
        let status = ("/proc/self/status", "Cpus_allowed_list:\t0-2,5\n");
        let v1 = ("/proc/self/cgroup", "3:cpu,cpuacct:/a\n2:memory:/a\n");
        let v2 = ("/proc/self/cgroup", "0::/a/b\n");
        let (quota, period) = ("/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us", "cpu.cfs_period_us");
        let period = format!("/sys/fs/cgroup/cpu/a/{period}");
        check(
            |host| cpus(host, 4),
            &[
                (&[status], Ok, "0-2,5 usable, no cgroup quota, 4 shards"),
                (&[status, v1, (quota, "-1"), (&period, "100000")], Ok, "no cgroup quota"),
                (&[status, v1, (quota, "75000"), (&period, "50000")], Advice, "shards=1,"),
                (&[status, v2, ("/sys/fs/cgroup/a/b/cpu.max", "max 100000")], Ok, "no cgroup"),
                (&[status, v2, ("/sys/fs/cgroup/a/cpu.max", "250000 100000")], Advice, "shards=2,"),
                (&[("/proc/self/status", "Cpus_allowed_list:\t0\n")], Advice, "take turns"),
            ],
        );
        let total = ("/proc/meminfo", "MemTotal:       2097152 kB\nMemFree: 1 kB\n");
        let limit = "/sys/fs/cgroup/memory/a/memory.limit_in_bytes";
        check(
            memory,
            &[
                (&[total], Ok, "2 GiB, no cgroup limit"),
                (&[total, v1, (limit, "9223372036854771712")], Ok, "no cgroup limit"),
                (&[total, v1, (limit, "1073741824")], Ok, "1 GiB, by the cgroup"),
                (&[total, v2, ("/sys/fs/cgroup/a/memory.max", "268435456")], Advice, "256 MiB"),
            ],
        );
    }

    #[test]
    fn settings_that_cost_speed_are_told_with_their_remedy() {
        let tcp = "/proc/sys/net/ipv4/tcp_";
        let (current, available) =
            (format!("{tcp}congestion_control"), format!("{tcp}available_congestion_control"));
        check(
            congestion,
            &[
                (&[(&current, "cubic\n")], Ok, "cubic"),
                (&[(&current, "bbr"), (&available, "reno bbr cubic")], Advice, "take cubic"),
                (&[(&current, "bbr"), (&available, "reno bbr")], Advice, "modprobe"),
                (&[], Ok, "not visible"),
            ],
        );
        let (rmem, wmem) = (format!("{tcp}rmem"), format!("{tcp}wmem"));
        check(
            socket_buffers,
            &[
                (&[(&rmem, "4096 1 6291456"), (&wmem, "4096\t1\t4194304")], Ok, "6 MiB to receive"),
                (&[(&rmem, "4096 1 6291456"), (&wmem, "4096\t1\t212992")], Advice, "208 KiB"),
            ],
        );
        let source = "/sys/devices/system/clocksource/clocksource0/current_clocksource";
        check(
            |host| clock(host, 25),
            &[(&[(source, "tsc")], Ok, "tsc, 25 ns"), (&[(source, "hpet")], Advice, "system call")],
        );
        let thp = "/sys/kernel/mm/transparent_hugepage/enabled";
        check(
            huge_pages,
            &[
                (&[(thp, "always [madvise] never")], Ok, "madvise"),
                (&[(thp, "always madvise [never]")], Advice, "echo madvise"),
            ],
        );
        let vm = |name: &str| format!("/proc/sys/vm/dirty_{name}");
        let (background, ratio, bytes) =
            (vm("background_ratio"), vm("ratio"), vm("background_bytes"));
        let files = [
            ("/proc/meminfo", "MemTotal: 26214400 kB"),
            (background.as_str(), "10"),
            (ratio.as_str(), "20"),
        ];
        let set = [files[0], files[1], files[2], (bytes.as_str(), "268435456")];
        check(
            |host| dirty_pages(host, true),
            &[(&files, Ok, "from 2.5 GiB, writers wait at 5 GiB")],
        );
        let rows: [Row<'_>; 2] = [(&files, Advice, "sysctl vm.dirty"), (&set, Ok, "from 256 MiB")];
        check(|host| dirty_pages(host, false), &rows);
    }

    #[test]
    fn what_the_cpu_saves_is_told_where_it_is_visible() {
        let cpu = |file: &str| format!("/sys/devices/system/cpu/cpu0/{file}");
        let (governor_file, driver) =
            (cpu("cpufreq/scaling_governor"), cpu("cpufreq/scaling_driver"));
        check(
            governor,
            &[
                (&[], Ok, "not visible"),
                (&[(&governor_file, "performance"), (&driver, "acpi-cpufreq")], Ok, "performance"),
                (&[(&governor_file, "powersave"), (&driver, "intel_pstate")], Ok, "powersave"),
                (&[(&governor_file, "ondemand"), (&driver, "acpi-cpufreq")], Advice, "cpupower"),
            ],
        );
        let state = |n: u32, file: &str| cpu(&format!("cpuidle/state{n}/{file}"));
        let (l0, n0, l1, n1, off) = (
            state(0, "latency"),
            state(0, "name"),
            state(1, "latency"),
            state(1, "name"),
            state(1, "disable"),
        );
        let files = [(l0.as_str(), "2"), (&n0, "C1"), (&l1, "133"), (&n1, "C6")];
        let disabled = [files[0], files[1], files[2], files[3], (off.as_str(), "1")];
        check(
            idle_states,
            &[(&[], Ok, "not visible"), (&files, Advice, "C6 takes 133 us"), (&disabled, Ok, "C1")],
        );
    }
}
