//! What goes wrong on the disk: errors, full disks, refused direct writes, damaged hints, power
//! cuts in the middle of an operation.

#[allow(unreachable_pub, reason = "shared by test binaries")]
mod support;

use std::path::Path;

use millrace_io::sim::{Faults, Operation};
use millrace_io::{Io, OpenMode};
use millrace_log::{
    AppendError, CutReason, LogConfig, OpenHints, ReadPlan, ReadRequest, WriteMode,
};
use support::{BatchSpec, Bench, DIR, Got, segment_path, small_config};

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

fn filled(seed: u64, config: LogConfig, count: i64) -> (Bench, Vec<u8>) {
    let mut bench = Bench::create(seed, config);
    let mut log = Vec::new();
    for offset in 0..count {
        let spec = BatchSpec { body_bytes: 700, fill: offset as u8, ..BatchSpec::default() };
        bench.append(&spec);
        log.extend(spec.at(offset, 0));
    }
    bench.flush();
    assert_eq!(bench.log.durable_end(), count);
    (bench, log)
}

#[test]
fn a_failed_write_or_flush_stops_the_log_and_a_restart_recovers_it() {
    for (operation, flushes) in [(Operation::Write, false), (Operation::Sync, true)] {
        let (mut bench, log) = filled(1, LogConfig::default(), 10);
        bench.world.fail_next(operation, ".log", EIO);
        bench.append(&BatchSpec::default());
        let progress = if flushes { bench.flush() } else { bench.settle() };
        assert!(progress.is_poisoned, "{operation:?}");
        assert_eq!(bench.log.durable_end(), 10, "what failed is not durable");
        assert!(matches!(
            bench.try_append(&BatchSpec::default().bytes(), 0),
            Err(AppendError::Poisoned(_))
        ));
        assert!(!bench.log.submit_flush(&mut bench.io).expect("no file is touched"));
        assert!(bench.log.close(&mut bench.io, &mut bench.pool).is_err());
        for power_cut in [false, true] {
            let (mut again, _) = bench.reopen(power_cut, 3, OpenHints::default());
            assert!(again.log.appended_end() >= 10);
            let Got::Bytes(bytes) = again.try_read(0, 1 << 20, i64::MAX) else {
                panic!("ten records are durable")
            };
            assert!(bytes.starts_with(&log));
            again.append(&BatchSpec::default());
            assert!(!again.flush().is_poisoned);
        }
    }
}

#[test]
fn a_full_disk_refuses_appends_serves_readers_and_recovers() {
    for mode in [WriteMode::Auto, WriteMode::Buffered] {
        let config = LogConfig { write_mode: mode, ..LogConfig::default() };
        let (mut bench, log) = filled(2, config, 10);
        bench.world.set_capacity_bytes(Some(128 << 10));
        let large = BatchSpec { body_bytes: 40_000, ..BatchSpec::default() };
        let mut end = 10;
        let refused = loop {
            match bench.try_append(&large.bytes(), 0) {
                Ok(appended) => {
                    assert_eq!(appended.base_offset, end);
                    let progress = bench.settle();
                    assert!(!progress.is_poisoned);
                    match progress.refused_from {
                        Some(from) => break from,
                        None => end += 1,
                    }
                }
                Err(AppendError::NoSpace) => break end,
                Err(error) => panic!("{error}"),
            }
            assert!(end < 20, "the disk holds three of these");
        };
        assert_eq!(refused, end);
        assert_eq!(bench.log.appended_end(), end, "what was refused is gone");
        assert!(matches!(bench.try_append(&large.bytes(), 0), Err(AppendError::NoSpace)));
        assert_eq!(bench.try_read(0, log.len(), i64::MAX), Got::Bytes(log.clone()));
        bench.world.set_capacity_bytes(None);
        let accepted = (0..10).any(|_| {
            bench.world.advance_ms(200);
            let accepted = bench.try_append(&large.bytes(), 0).is_ok();
            bench.settle();
            accepted
        });
        assert!(accepted, "there is room again");
        assert_eq!(bench.log.written_end(), end + 1);
        let (mut again, _) = bench.reopen(false, 4, OpenHints::default());
        assert_eq!(again.log.appended_end(), end + 1);
        assert!(again.read_all(0, 1 << 20).starts_with(&log));
    }
}

#[test]
fn a_write_that_finds_no_space_is_taken_back() {
    let (mut bench, log) = filled(3, LogConfig::default(), 10);
    bench.world.fail_next(Operation::Write, ".log", ENOSPC);
    bench.append(&BatchSpec { producer: (5, 0, 0), ..BatchSpec::default() });
    let progress = bench.settle();
    assert_eq!(progress.refused_from, Some(10));
    assert_eq!(bench.log.producers().count(), 0, "its producer is unknown again");
    bench.world.advance_ms(200);
    bench.append(&BatchSpec::default());
    bench.settle();
    assert_eq!(bench.log.written_end(), 11);
    assert!(bench.read_all(0, 1 << 20).starts_with(&log));
}

#[test]
fn refused_direct_writes_go_through_the_page_cache() {
    let mut bench = Bench::create(4, small_config());
    bench.world.refuse_direct_io(true);
    let mut log = Vec::new();
    for offset in 0..100 {
        let spec = BatchSpec { body_bytes: 900, ..BatchSpec::default() };
        bench.append(&spec);
        log.extend(spec.at(offset, 0));
        bench.settle();
    }
    assert!(bench.read_all(0, 3000) == log);
    bench.flush();
    bench.log.close(&mut bench.io, &mut bench.pool).expect("all is durable");
    let hints = OpenHints { clean: true, ..OpenHints::default() };
    let (mut again, _) = bench.reopen(true, 5, hints);
    assert!(again.read_all(0, 3000) == log);
}

#[test]
fn the_log_ends_at_the_first_batch_that_is_not_whole() {
    let one = BatchSpec { body_bytes: 700, ..BatchSpec::default() };
    let bytes = one.at(10, 0).len();
    let mut huge = one.at(10, 0);
    huge[8..12].copy_from_slice(&i32::MAX.to_be_bytes());
    let mut short = one.at(10, 0);
    short[8..12].copy_from_slice(&48_i32.to_be_bytes());
    let mut torn = one.at(10, 0);
    torn[bytes - 1] ^= 1;
    let mut cut_short = one.at(10, 0);
    cut_short.truncate(200);
    let zeros_then_batch = [vec![0; 4096], one.at(11, 0)].concat();
    let good_then_zeros = [one.at(10, 0), vec![0; 100]].concat();
    let cases = [
        (huge, 10, CutReason::Length),
        (short, 10, CutReason::Length),
        (torn, 10, CutReason::Crc),
        (cut_short, 10, CutReason::Length),
        (one.at(9, 0), 10, CutReason::Offset),
        (vec![0; 30], 10, CutReason::NeverWritten),
        (zeros_then_batch, 10, CutReason::NeverWritten),
        (good_then_zeros, 11, CutReason::NeverWritten),
    ];
    for (tail, end, reason) in cases {
        let (mut bench, log) = filled(6, LogConfig::default(), 10);
        let file = bench.io.open(&segment_path(0), OpenMode::ReadWrite).expect("there");
        bench.io.set_file_bytes(&file, log.len() as u64).expect("shorter");
        bench.io.write_at(&file, log.len() as u64, &tail).expect("room");
        let (mut again, recovered) = bench.reopen(false, 7, OpenHints::default());
        let cut = recovered.cut.expect("something was cut");
        assert_eq!((again.log.appended_end(), cut.reason), (end, reason));
        assert_eq!(cut.position + cut.bytes, (log.len() + tail.len()) as u64);
        assert!(again.read_all(0, 1 << 20).starts_with(&log));
        again.append(&one);
        again.flush();
        let (again, recovered) = again.reopen(true, 8, OpenHints::default());
        assert_eq!(again.log.appended_end(), end + 1);
        assert!(!recovered.is_loss(), "{recovered:?}");
    }
}

#[test]
fn damaged_or_missing_hints_are_made_anew() {
    let names = [".index", ".timeindex", ".snapshot", "leader-epoch-checkpoint"];
    for name in names {
        for damage in ["missing", "zeros", "garbage", "short"] {
            let (mut bench, log) = filled(9, small_config(), 100);
            bench.log.close(&mut bench.io, &mut bench.pool).expect("all is durable");
            let mut damaged = 0;
            for path in bench.io.read_dir(Path::new(DIR)).expect("there") {
                let full = path.to_str().expect("plain");
                if full.ends_with(name) && !(name == ".index" && full.ends_with(".timeindex")) {
                    let bytes = bench.io.read_file(&path).expect("there").len() as u64;
                    let file = bench.io.open(&path, OpenMode::ReadWrite).expect("there");
                    let junk: Vec<u8> = (0..bytes).map(|at| (at * 37 + 5) as u8).collect();
                    match damage {
                        "missing" => bench.io.remove_file(&path),
                        "zeros" => bench.io.write_at(&file, 0, &vec![0; junk.len()]),
                        "garbage" => bench.io.write_at(&file, 0, &junk),
                        _ => bench.io.set_file_bytes(&file, bytes / 2 + 1),
                    }
                    .expect("damaged");
                    damaged += 1;
                }
            }
            assert!(damaged > 0, "{name} is written by a clean stop");
            for clean in [true, false] {
                let hints = OpenHints { clean, ..OpenHints::default() };
                let (mut again, _) = bench.reopen(false, 10, hints);
                assert_eq!(again.log.appended_end(), 100, "{name} {damage}");
                for bytes_max in [1, 5000] {
                    assert!(again.read_all(0, bytes_max) == log, "{name} {damage}");
                }
                assert_eq!(again.log.epoch_at(50), Some(0), "{name} {damage}");
            }
        }
    }
}

#[test]
fn a_device_that_lies_loses_records_but_never_invents_one() {
    for seed in 0..40 {
        let mut bench = Bench::create(seed, small_config());
        bench.world.set_faults(Faults { write_lost_ppm: 100_000, ..Faults::default() });
        let mut log = Vec::new();
        for offset in 0..60 {
            let spec = BatchSpec { body_bytes: 900, fill: offset as u8, ..BatchSpec::default() };
            bench.append(&spec);
            log.extend(spec.at(offset, 0));
            bench.flush();
        }
        let (mut again, _) = bench.reopen(true, seed, OpenHints::default());
        for offset in again.log.log_start()..again.log.appended_end() {
            let request = ReadRequest {
                offset,
                bytes_max: 1,
                at_least_one: true,
                upper_bound: i64::MAX,
                may_block: true,
            };
            let plan = again.log.read(&mut again.io, &mut again.pool, request);
            if let Ok(ReadPlan::Data(data)) = plan {
                let bytes = again.gather(&data);
                if millrace_wire::batch::validate(&bytes).is_ok() {
                    let offset = i64::from_be_bytes(bytes[..8].try_into().expect("a batch"));
                    assert!(log[offset as usize * 961..].starts_with(&bytes), "seed {seed}");
                }
            }
        }
    }
}

/// Operations with several effects on the disk each, cut off by a power failure after every one.
#[test]
fn power_may_go_in_the_middle_of_any_operation() {
    for effects in 0.. {
        let (mut bench, mut batches) = (Bench::create(11, small_config()), Vec::new());
        let mut promised = 0;
        bench.world.cut_power_after(effects);
        for step in 0..60 {
            let spec = BatchSpec { body_bytes: 3000, fill: step, ..BatchSpec::default() };
            let base = bench.log.appended_end();
            if bench.try_append(&spec.bytes(), i32::from(step) / 8).is_err() {
                break;
            }
            batches.truncate(base as usize);
            batches.push(spec.at(base, i32::from(step) / 8));
            bench.settle();
            match step % 10 {
                3 | 7 => drop(bench.log.submit_flush(&mut bench.io)),
                5 => drop(bench.log.persist_hints(&mut bench.io)),
                9 => {
                    promised = promised.min(base - 2);
                    drop(bench.log.truncate_to(&mut bench.io, &mut bench.pool, base - 2));
                }
                _ => {}
            }
            bench.settle();
            promised = match bench.world.is_power_off() {
                true => promised,
                false => bench.log.durable_end(),
            };
        }
        let was_off = bench.world.is_power_off();
        let (mut again, _) = bench.reopen(true, effects, OpenHints::default());
        let end = again.log.appended_end();
        assert!(end >= promised, "{end} is left, {promised} was promised; {effects} effects");
        let bytes = again.read_all(0, 1 << 20);
        assert!(batches.concat().starts_with(&bytes), "{effects} effects");
        if !was_off {
            break;
        }
    }
}
