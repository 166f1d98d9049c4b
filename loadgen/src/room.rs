//! Whether a load fits this host: files that may be open, memory for what is under way.

use crate::args::RunArgs;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs;

/// Files that are open besides connections.
const OTHER_FILES: u64 = 64;

/// Takes as many open files as the process may have.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    // Where that is refused, the limit stays, and a load beyond it is explained.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit });
}

/// What is too much, in words.
pub fn check(args: &RunArgs) -> Result<(), String> {
    let readers = u64::from(args.consumers) * u64::from(args.fanout);
    let connections = u64::from(args.connections) + readers + u64::from(args.mix.cold_readers);
    let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    if connections.saturating_add(OTHER_FILES) > files {
        return Err(format!(
            "{connections} connections are more than the {files} files that this process may have \
             open: raise `ulimit -n`, or take fewer --connections, --consumers or --fanout"
        ));
    }
    let under_way = u64::from(args.connections) * u64::from(args.inflight);
    let bytes = under_way.saturating_mul(args.request_bytes_max());
    match available_bytes().filter(|available| bytes > available / 2) {
        Some(available) => Err(format!(
            "{under_way} requests of up to {} bytes under way are more than half of the {available} \
             bytes of memory that are free: take fewer --connections or --inflight, or smaller \
             batches",
            args.request_bytes_max()
        )),
        None => Ok(()),
    }
}

fn available_bytes() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_that_do_not_fit_are_refused_before_they_begin() {
        type Change = fn(&mut RunArgs);
        let rows: [(Change, &str); 4] = [
            (|_| (), ""),
            (|args| args.connections = u32::MAX, "raise `ulimit -n`"),
            (|args| args.fanout = u32::MAX, "raise `ulimit -n`"),
            (|args| args.inflight = u32::MAX, "of memory"),
        ];
        for (change, words) in rows {
            let mut args = RunArgs::with_defaults();
            change(&mut args);
            let said = check(&args).err().unwrap_or_default();
            assert_eq!(said.is_empty(), words.is_empty(), "{said}");
            assert!(said.contains(words), "{said}");
        }
    }
}
