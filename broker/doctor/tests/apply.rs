//! `tuning/apply` on a host of files: it changes what it says, and puts back what was there.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const CONGESTION: &str = "/proc/sys/net/ipv4/tcp_congestion_control";
const RECEIVE: &str = "/proc/sys/net/ipv4/tcp_rmem";
const HUGE: &str = "/sys/kernel/mm/transparent_hugepage/enabled";
const GOVERNOR: &str = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor";
const DEEP: &str = "/sys/devices/system/cpu/cpu0/cpuidle/state1/disable";
const DIRTY: &str = "/proc/sys/vm/dirty_bytes";
const DIRTY_RATIO: &str = "/proc/sys/vm/dirty_ratio";

const FILES: &[(&str, &str)] = &[
    (CONGESTION, "bbr\n"),
    ("/proc/sys/net/ipv4/tcp_available_congestion_control", "reno bbr cubic\n"),
    (RECEIVE, "4096\t131072\t1048576\n"),
    ("/proc/sys/net/ipv4/tcp_wmem", "4096\t16384\t8388608\n"),
    ("/proc/sys/net/core/somaxconn", "4096\n"),
    (HUGE, "always madvise [never]\n"),
    (GOVERNOR, "powersave\n"),
    ("/sys/devices/system/cpu/cpu0/cpuidle/state0/latency", "2\n"),
    ("/sys/devices/system/cpu/cpu0/cpuidle/state0/disable", "0\n"),
    ("/sys/devices/system/cpu/cpu0/cpuidle/state1/latency", "133\n"),
    (DEEP, "0\n"),
    (DIRTY, "0\n"),
    (DIRTY_RATIO, "20\n"),
    ("/proc/sys/vm/dirty_background_bytes", "67108864\n"),
    ("/proc/sys/vm/dirty_background_ratio", "0\n"),
    ("/proc/sys/kernel/random/boot_id", "first\n"),
];

/// The host, below a folder.
struct Sandbox(tempfile::TempDir);

impl Sandbox {
    fn new() -> Self {
        let sandbox = Self(tempfile::tempdir().expect("a folder for the test"));
        for (path, text) in FILES {
            let path = sandbox.path(path);
            fs::create_dir_all(path.parent().expect("not the root")).expect("it is ours");
            fs::write(path, text).expect("it is ours");
        }
        sandbox
    }

    fn path(&self, file: &str) -> PathBuf {
        self.0.path().join(file.trim_start_matches('/'))
    }

    fn value(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).expect("it is there").trim().to_owned()
    }

    fn set(&self, file: &str, value: &str) {
        fs::write(self.path(file), value).expect("it is ours");
    }

    fn values(&self) -> BTreeMap<&'static str, String> {
        FILES.iter().map(|(file, _)| (*file, self.value(file))).collect()
    }

    /// What the script prints, and whether it ends well.
    fn apply(&self, arguments: &str) -> (String, bool) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tuning/apply");
        let output = Command::new(script)
            .arg("--root")
            .arg(self.0.path())
            .args(arguments.split_whitespace())
            .output()
            .expect("there is a bash");
        let text = [output.stdout, output.stderr].concat();
        (String::from_utf8(text).expect("UTF-8"), output.status.success())
    }

    fn state(&self) -> PathBuf {
        self.path("/var/lib/millrace/tuning.state")
    }
}

fn says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part}: {text}");
    }
}

#[test]
fn nothing_changes_unless_it_is_told_to() {
    let sandbox = Sandbox::new();
    let before = sandbox.values();
    for arguments in ["", "--dry-run network memory dirty cpu", "--status", "--undo"] {
        sandbox.apply(arguments);
        assert_eq!(sandbox.values(), before, "{arguments}");
        assert!(!sandbox.state().exists(), "{arguments}");
    }
    let (text, is_well) = sandbox.apply("");
    says(&text, &["tcp_congestion_control: bbr, wanted cubic", "nothing was changed"]);
    assert!(is_well);
    let (text, is_well) = sandbox.apply("--undo");
    says(&text, &["nothing was changed: there is no"]);
    assert!(is_well);
    for wrong in ["--exekute", "netwerk", "--state"] {
        let (text, is_well) = sandbox.apply(wrong);
        assert!(!is_well && text.starts_with("tuning/apply: "), "{wrong}: {text}");
    }
}

#[test]
fn each_change_is_said_kept_and_put_back() {
    let sandbox = Sandbox::new();
    let before = sandbox.values();
    let (text, is_well) = sandbox.apply("--execute network memory cpu");
    assert!(is_well, "{text}");
    says(
        &text,
        &[
            "tcp_congestion_control: bbr -> cubic",
            "tcp_rmem: 4096 131072 1048576 -> 4096 131072 4194304",
            "tcp_wmem: 4096 16384 8388608, enough",
            "enabled: never -> madvise",
            "scaling_governor: powersave -> performance",
            "state1/disable: 0 -> 1",
        ],
    );
    for (file, value) in [
        (CONGESTION, "cubic"),
        (RECEIVE, "4096 131072 4194304"),
        (HUGE, "madvise"),
        (GOVERNOR, "performance"),
        (DEEP, "1"),
    ] {
        assert_eq!(sandbox.value(file), value);
    }
    assert!(sandbox.apply("--status network cpu").1);
    // A second time changes nothing, and the first former values stay those that count.
    sandbox.set(CONGESTION, "reno");
    sandbox.apply("--execute network");
    let (text, is_well) = sandbox.apply("--undo network");
    assert!(is_well, "{text}");
    says(&text, &["tcp_congestion_control: cubic -> bbr"]);
    assert_eq!(sandbox.value(CONGESTION), "bbr");
    assert_eq!(sandbox.value(GOVERNOR), "performance", "another group");
    assert!(sandbox.apply("--undo").1);
    let after = sandbox.values();
    for (file, value) in &before {
        let plain = |text: &str| {
            let chosen = text.split(['[', ']']).nth(1).unwrap_or(text);
            chosen.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(plain(&after[file]), plain(value), "{file}");
    }
    assert!(!sandbox.state().exists());
}

/// The kernel sets a ratio to 0 when its twin in bytes is set, and the other way round.
#[test]
fn where_a_ratio_counted_the_ratio_is_put_back() {
    let sandbox = Sandbox::new();
    let (text, is_well) = sandbox.apply("--execute dirty");
    assert!(is_well, "{text}");
    assert_eq!(sandbox.value(DIRTY), "1073741824");
    sandbox.set(DIRTY_RATIO, "0");
    let (text, is_well) = sandbox.apply("--undo");
    assert!(is_well, "{text}");
    says(&text, &["dirty_ratio: 0 -> 20", "dirty_background_bytes: 268435456 -> 67108864"]);
    assert_eq!(sandbox.value(DIRTY_RATIO), "20");
}

#[test]
fn after_a_start_of_the_host_nothing_is_put_back() {
    let sandbox = Sandbox::new();
    sandbox.apply("--execute network");
    sandbox.set("/proc/sys/kernel/random/boot_id", "second");
    let (text, is_well) = sandbox.apply("--undo");
    assert!(is_well && text.contains("was started since"), "{text}");
    assert_eq!(sandbox.value(CONGESTION), "cubic", "as the new start may have set it");
    assert!(!sandbox.state().exists());
}

#[test]
fn what_the_kernel_refuses_is_told_and_not_kept() {
    let sandbox = Sandbox::new();
    // A folder in the place of a file takes no value, not even from root.
    fs::remove_file(sandbox.path(HUGE)).expect("it is there");
    fs::create_dir(sandbox.path(HUGE)).expect("it is ours");
    let (text, is_well) = sandbox.apply("--execute memory network");
    assert!(!is_well, "{text}");
    says(&text, &["tcp_congestion_control: bbr -> cubic"]);
    let state = fs::read_to_string(sandbox.state()).expect("something was changed");
    assert!(state.contains(CONGESTION) && !state.contains(HUGE), "{state}");
}
