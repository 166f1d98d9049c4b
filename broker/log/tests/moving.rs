//! A log whose files are copied while it is appended to, and opened elsewhere.

#[allow(unreachable_pub, reason = "shared by test binaries")]
mod support;

use std::path::{Path, PathBuf};

use millrace_io::Io;
use millrace_io::sim::SimIo;
use millrace_log::{Copier, Finished, LogConfig, OpenHints, PartitionLog};
use support::{BatchSpec, Bench, DIR, small_config};

const COPY: &str = "/other/orders-0";

fn copy(bench: &mut Bench, files: Vec<PathBuf>) -> std::io::Result<()> {
    let mut copier: Copier<SimIo> = Copier::new(files, COPY.into());
    while copier.step(&mut bench.io)?.is_some() {}
    Ok(())
}

fn append(bench: &mut Bench, batches: i64) {
    for _ in 0..batches {
        bench.append(&BatchSpec { body_bytes: 900, ..BatchSpec::default() });
        bench.flush();
    }
}

#[test]
fn finished_segments_and_then_the_rest_make_the_same_log() {
    let config = LogConfig { retention_bytes: 0, ..small_config() };
    let mut bench = Bench::create(3, config.clone());
    append(&mut bench, 100);
    assert!(bench.log.hold() && !bench.log.hold(), "one at a time");
    bench.io.create_dir(Path::new(COPY)).expect("an empty disk");
    let mut end = 0;
    let mut copied = Vec::new();
    for round in 0..3 {
        let Finished::Files(files, next) = bench.log.finished_from(end) else {
            panic!("round {round}: more than a segment was appended")
        };
        assert!(next > end);
        end = next;
        copied.extend(files.clone());
        copy(&mut bench, files).expect("no faults");
        append(&mut bench, 50);
        // Held: old segments stay although nothing is to be kept.
        let Bench { log, io, pool, .. } = &mut bench;
        assert_eq!(log.enforce_retention(io, pool, 0).expect("no faults").segments, 0);
    }
    let Finished::Files(files, next) = bench.log.finished_from(end) else { panic!("appended") };
    copied.extend(files.clone());
    copy(&mut bench, files).expect("no faults");
    assert!(matches!(bench.log.finished_from(next), Finished::AllBut(1..)));
    let Bench { log, io, pool, .. } = &mut bench;
    log.finish_segment(io, pool).expect("no faults");
    assert_eq!(log.finished_from(next), Finished::Soon);
    bench.settle();
    let Finished::Files(files, last) = bench.log.finished_from(next) else { panic!("finished") };
    copied.extend(files.clone());
    copy(&mut bench, files).expect("no faults");
    assert_eq!(bench.log.finished_from(last), Finished::AllBut(0));
    append(&mut bench, 1);
    let records = bench.read_all(0, 1 << 20);
    let Bench { log, io, pool, .. } = &mut bench;
    log.close(io, pool).expect("all is durable");
    let rest = io.read_dir(Path::new(DIR)).expect("it is there");
    let rest: Vec<PathBuf> = rest.into_iter().filter(|path| !copied.contains(path)).collect();
    copy(&mut bench, rest).expect("no faults");

    // The copy alone survives a power cut, and is what the log was.
    let mut io = bench.world.power_cut(9).make_io();
    let hints = OpenHints { clean: true, ..OpenHints::default() };
    let opened = PartitionLog::open(&mut io, Path::new(COPY), config, hints);
    let (log, recovered) = opened.expect("whole");
    assert!(!recovered.is_loss());
    let mut other = Bench { world: bench.world.clone(), io, pool: bench.pool, log };
    assert_eq!(other.read_all(0, 1 << 20), records);
    assert_eq!(other.log.durable_end(), 251);
}

#[test]
fn a_log_file_that_is_gone_is_an_error_and_an_index_is_not() {
    let mut bench = Bench::create(3, small_config());
    bench.io.create_dir(Path::new(COPY)).expect("an empty disk");
    let gone = |name: &str| vec![Path::new(DIR).join(name)];
    copy(&mut bench, gone("00000000000000000077.index")).expect("not every segment has one");
    copy(&mut bench, gone("00000000000000000077.log")).expect_err("records are missing");
}
