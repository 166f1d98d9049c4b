//! `millrace doctor`: looks at the host that a broker is to run on, and changes nothing.
//!
//! | module | what it looks at |
//! |---|---|
//! | [`host`] | files of /proc and /sys, below a root that tests put elsewhere |
//! | `system` | kernel, io_uring, limits, cgroup, clock, CPU, network |
//! | `storage` | file system, device and flush latency of each data folder |
//! | [`calibrate`] | the disk measured with the broker's own writes, and where that is kept |
//!
//! A check is a function from what is read to a [`Finding`]. Effects of the settings, as measured,
//! are in `tuning/README.md`.

pub mod calibrate;
pub mod host;
mod storage;
mod system;

use std::path::PathBuf;

pub use storage::space;

use host::Host;
use serde_json::{Value, json};

/// How good a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verdict {
    /// Nothing to do, or nothing to be seen from here.
    Ok,
    /// It works, and could be better.
    Advice,
    /// The broker does not start, is not durable, or is much slower than it needs to be.
    Problem,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Advice => "advice",
            Self::Problem => "problem",
        }
    }
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at.
    pub name: &'static str,
    /// How good it is.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do; empty if it is well.
    pub to_do: String,
}

impl Finding {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, found: found.into(), to_do: String::new() }
    }

    fn advice(name: &'static str, found: impl Into<String>, to_do: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Advice, found: found.into(), to_do: to_do.into() }
    }

    fn problem(name: &'static str, found: impl Into<String>, to_do: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Problem, found: found.into(), to_do: to_do.into() }
    }
}

/// What the broker would run with.
#[derive(Clone, Debug)]
pub struct Subject {
    /// `log.dirs`. They need not exist yet.
    pub folders: Vec<PathBuf>,
    /// Threads that serve.
    pub shards: usize,
    /// Writes go past the page cache where the file system allows it.
    pub wants_direct: bool,
}

/// Looks at everything. Makes a small file in each data folder, or in the nearest folder above it
/// that exists, and removes it.
pub fn examine(subject: &Subject) -> Vec<Finding> {
    let host = Host::default();
    let mut disks = Vec::new();
    let mut is_direct = subject.wants_direct;
    for folder in &subject.folders {
        is_direct &= storage::examine(&host, folder, subject.wants_direct, &mut disks);
    }
    let mut findings = system::examine(&host, subject.shards, is_direct);
    findings.append(&mut disks);
    findings.push(calibrate::finding(calibrate::load().as_ref()));
    findings
}

/// The findings a line each, and how many there are of each kind.
pub fn as_text(findings: &[Finding]) -> String {
    let mut text = String::new();
    for Finding { name, verdict, found, to_do } in findings {
        let separator = if to_do.is_empty() { "" } else { ": " };
        text += &format!("{:<8} {name:<12} {found}{separator}{to_do}\n", verdict.name());
    }
    let count = |verdict| findings.iter().filter(|finding| finding.verdict == verdict).count();
    let (advice, problems) = (count(Verdict::Advice), count(Verdict::Problem));
    text + &format!("{} ok, {advice} advice, {problems} problems", count(Verdict::Ok))
}

/// The findings for programs, with the last calibration.
pub fn as_json(findings: &[Finding]) -> Value {
    let findings: Vec<Value> = findings
        .iter()
        .map(|Finding { name, verdict, found, to_do }| {
            json!({ "name": name, "verdict": verdict.name(), "found": found, "to_do": to_do })
        })
        .collect();
    json!({ "findings": findings, "calibration": calibrate::load() })
}

/// Whether something is in the way.
pub fn has_problem(findings: &[Finding]) -> bool {
    findings.iter().any(|finding| finding.verdict == Verdict::Problem)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_to_do_and_the_last_one_counts() {
        let findings = [
            Finding::ok("kernel", "Linux 6.18"),
            Finding::advice("scheduler", "bfq", "none"),
            Finding::problem("io_uring", "none", "allow it"),
        ];
        let text = "\
ok       kernel       Linux 6.18
advice   scheduler    bfq: none
problem  io_uring     none: allow it
1 ok, 1 advice, 1 problems";
        assert_eq!(as_text(&findings), text);
        assert!(has_problem(&findings) && !has_problem(&findings[..2]));
        assert_eq!(as_json(&findings)["findings"][2]["verdict"], "problem");
    }

    #[test]
    fn this_host_is_examined_and_left_as_it_was() {
        let folder = tempfile::tempdir().expect("a folder for the test");
        let folders = vec![folder.path().join("not/there/yet")];
        let findings = examine(&Subject { folders, shards: 1, wants_direct: true });
        for name in ["kernel", "io_uring", "memlock", "clock", "file system", "flush", "direct I/O"]
        {
            let found = findings.iter().filter(|finding| finding.name == name).count();
            assert_eq!(found, 1, "{name}: {findings:?}");
        }
        assert_eq!(std::fs::read_dir(folder.path()).expect("still there").count(), 0);
    }
}
