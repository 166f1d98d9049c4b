//! What the broker says when it has started: a few lines of facts, made from facts alone.

use std::fmt::Write;
use std::path::PathBuf;

use crate::config::AcksAll;

/// What is true of the running broker.
#[derive(Clone, Debug)]
#[allow(missing_docs)] // the names say it
pub struct Facts {
    pub version: &'static str,
    pub node_id: i32,
    pub cluster_id: String,
    /// Name of the I/O backend, and why it was chosen.
    pub io_backend: String,
    /// One for each shard.
    pub cpus: Vec<usize>,
    pub data_dirs: Vec<PathBuf>,
    /// Past the page cache, or through it.
    pub writes_direct: bool,
    pub acks_all: AcksAll,
    /// Each as `NAME://host:port`, bound.
    pub listeners: Vec<String>,
    /// The first address told to clients, as `host:port`.
    pub advertised: String,
    pub started_in_ms: u128,
}

/// The lines, without a newline at the end.
pub fn banner(facts: &Facts) -> String {
    let Facts { version, node_id, cluster_id, io_backend, advertised, .. } = facts;
    let dirs: Vec<String> = facts.data_dirs.iter().map(|dir| dir.display().to_string()).collect();
    let writes = match facts.writes_direct {
        true => "written directly, past the page cache",
        false => "written through the page cache",
    };
    let acks = match facts.acks_all {
        AcksAll::Flush => "answered when flushed to the device: survives a power cut",
        AcksAll::Write => "answered when written: survives a crash of the broker, not a power cut",
    };
    let mut text = format!("millrace {version}, node {node_id} of cluster {cluster_id}\n");
    let mut line = |name: &str, value: &str| {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {name:<10} {value}");
    };
    line("I/O", io_backend);
    line("shards", &format!("{} on CPU {}", facts.cpus.len(), cpu_list(&facts.cpus)));
    line("data", &format!("{}, {writes}", dirs.join(", ")));
    line("acks=all", acks);
    line("listening", &facts.listeners.join(", "));
    line(
        "try it",
        &format!("kafka-topics.sh --bootstrap-server {advertised} --create --topic first"),
    );
    let _ = write!(text, "ready in {} ms; Ctrl-C stops it", facts.started_in_ms);
    text
}

/// Runs of neighbours as `0-3`.
fn cpu_list(cpus: &[usize]) -> String {
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for cpu in cpus {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == *cpu => *last = *cpu,
            _ => runs.push((*cpu, *cpu)),
        }
    }
    let shown = runs.iter().map(|(first, last)| match first == last {
        true => first.to_string(),
        false => format!("{first}-{last}"),
    });
    shown.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_was_chosen() {
        let facts = Facts {
            version: "0.1.0",
            node_id: 1,
            cluster_id: "C".into(),
            io_backend: "io_uring".into(),
            cpus: vec![0, 1, 2, 5],
            data_dirs: vec!["./millrace-data".into()],
            writes_direct: true,
            acks_all: AcksAll::Flush,
            listeners: vec!["PLAINTEXT://127.0.0.1:9092".into()],
            advertised: "127.0.0.1:9092".into(),
            started_in_ms: 12,
        };
        let expected = "\
millrace 0.1.0, node 1 of cluster C
  I/O        io_uring
  shards     4 on CPU 0-2,5
  data       ./millrace-data, written directly, past the page cache
  acks=all   answered when flushed to the device: survives a power cut
  listening  PLAINTEXT://127.0.0.1:9092
  try it     kafka-topics.sh --bootstrap-server 127.0.0.1:9092 --create --topic first
ready in 12 ms; Ctrl-C stops it";
        assert_eq!(banner(&facts), expected);
    }
}
