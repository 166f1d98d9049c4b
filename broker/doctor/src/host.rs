//! Files of /proc and /sys.

use std::fs;
use std::path::{Path, PathBuf};

/// The host, below a root: `/`, or a folder of a test.
#[derive(Clone, Debug)]
pub struct Host {
    root: PathBuf,
}

impl Default for Host {
    fn default() -> Self {
        Self { root: "/".into() }
    }
}

impl Host {
    /// One whose files lie elsewhere.
    pub fn below(root: &Path) -> Self {
        Self { root: root.into() }
    }

    /// The file's text without white space around it; nothing if it is not there or not readable.
    pub fn text(&self, path: &str) -> Option<String> {
        let path = self.root.join(path.trim_start_matches('/'));
        Some(fs::read_to_string(path).ok()?.trim().to_owned())
    }

    /// The file's number.
    pub fn number(&self, path: &str) -> Option<u64> {
        self.text(path)?.parse().ok()
    }

    /// Of `a [b] c` the chosen `b`; otherwise the whole text.
    pub fn choice(&self, path: &str) -> Option<String> {
        let text = self.text(path)?;
        let chosen = text.split(['[', ']']).nth(1).map(str::to_owned);
        Some(chosen.unwrap_or(text))
    }

    /// The rest of the line that begins with `name`, such as `MemTotal:` in /proc/meminfo.
    pub fn field(&self, path: &str, name: &str) -> Option<String> {
        let text = self.text(path)?;
        text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
    }

    /// The names in a folder, sorted.
    pub fn names(&self, path: &str) -> Vec<String> {
        let folder = fs::read_dir(self.root.join(path.trim_start_matches('/')));
        let entries = folder.into_iter().flatten().flatten();
        let mut names: Vec<String> =
            entries.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// What the cgroup of this process and those above it say in a file of `controller`, whose
    /// name differs between the two versions of cgroups.
    pub fn cgroup(&self, controller: &str, v1: &str, v2: &str) -> Vec<String> {
        let groups = self.text("/proc/self/cgroup").unwrap_or_default();
        let mut values = Vec::new();
        for line in groups.lines() {
            let mut parts = line.splitn(3, ':').skip(1);
            let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
            let (base, file) = if controllers.is_empty() {
                ("/sys/fs/cgroup".to_owned(), v2)
            } else if controllers.split(',').any(|name| name == controller) {
                (format!("/sys/fs/cgroup/{controller}"), v1)
            } else {
                continue;
            };
            for folder in Path::new(path).ancestors() {
                let folder = folder.display().to_string();
                let folder = folder.trim_end_matches('/');
                values.extend(self.text(&format!("{base}{folder}/{file}")));
            }
        }
        values
    }
}

/// Bytes as people read them.
pub(crate) fn shown(bytes: u64) -> String {
    let (unit, name) = match bytes {
        0..0x10_0000 => (1 << 10, "KiB"),
        0x10_0000..0x4000_0000 => (1 << 20, "MiB"),
        _ => (1 << 30, "GiB"),
    };
    let text = format!("{:.1}", bytes as f64 / f64::from(unit));
    format!("{} {name}", text.strip_suffix(".0").unwrap_or(&text))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A root with these files.
    pub(crate) fn root(files: &[(&str, &str)]) -> (tempfile::TempDir, Host) {
        let folder = tempfile::tempdir().expect("a folder for the test");
        for (path, text) in files {
            let path = folder.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().expect("not the root")).expect("it is ours");
            fs::write(path, text).expect("it is ours");
        }
        let host = Host::below(folder.path());
        (folder, host)
    }

    #[test]
    fn the_limits_of_all_groups_above_are_found() {
        let (_kept, host) = root(&[
            ("/proc/self/cgroup", "4:memory:/a/b\n1:cpu,cpuacct:/\n0::/u\n"),
            ("/sys/fs/cgroup/memory/a/b/limit", "5\n"),
            ("/sys/fs/cgroup/memory/limit", "7\n"),
            ("/sys/fs/cgroup/cpu/quota", "-1\n"),
            ("/sys/fs/cgroup/u/max", "max 100000\n"),
        ]);
        assert_eq!(host.cgroup("memory", "limit", "none"), ["5", "7"]);
        assert_eq!(host.cgroup("cpu", "quota", "max"), ["-1", "max 100000"]);
    }

    #[test]
    fn bytes_are_shown_short() {
        for (bytes, text) in
            [(0, "0 KiB"), (65_536, "64 KiB"), (8 << 20, "8 MiB"), (0x6_1000_0000, "24.2 GiB")]
        {
            assert_eq!(shown(bytes), text);
        }
    }
}
