//! One partition on the simulated disk: what each operation promises.

#[allow(unreachable_pub, reason = "shared by test binaries")]
mod support;

use millrace_log::{LogConfig, OpenHints};
use support::{BatchSpec, Bench, Got, segment_path, small_config};

#[test]
fn what_was_appended_is_read_back_at_every_stage() {
    let mut bench = Bench::create(1, LogConfig::default());
    let mut log = Vec::new();
    for offset in 0..50 {
        let spec = BatchSpec { body_bytes: 1000 + offset as usize * 13, ..BatchSpec::default() };
        assert_eq!(bench.append(&spec).base_offset, offset);
        log.extend(spec.at(offset, 0));
    }
    assert_eq!(bench.try_read(0, 1 << 20, i64::MAX), Got::Nothing, "nothing is written yet");
    bench.settle();
    assert_eq!(bench.log.written_end(), 50);
    assert_eq!(bench.log.durable_end(), 0);
    assert_eq!(bench.try_read(0, 1 << 20, i64::MAX), Got::Bytes(log.clone()), "from memory");
    bench.flush();
    assert_eq!(bench.log.durable_end(), 50);
    assert!(bench.log.release_idle(&mut bench.io, &mut bench.pool).expect("released"));
    assert!(bench.read_all(0, 5000) == log, "from the file");
    bench.log.close(&mut bench.io, &mut bench.pool).expect("nothing is in flight");
    assert!(bench.world.content(&segment_path(0)).expect("there") == log, "exact length");

    for (power_cut, clean) in [(false, true), (true, true), (false, false), (true, false)] {
        let hints = OpenHints { clean, ..OpenHints::default() };
        let (mut again, recovered) = bench.reopen(power_cut, 9, hints);
        assert_eq!(recovered.cut, None);
        assert_eq!(again.log.appended_end(), 50);
        assert!(again.read_all(0, 1 << 20) == log);
        let spec = BatchSpec { fill: 9, ..BatchSpec::default() };
        assert_eq!(again.append(&spec).base_offset, 50);
        again.settle();
        let mut longer = log.clone();
        longer.extend(spec.at(50, 0));
        assert!(again.read_all(0, 1 << 20) == longer);
    }
}

#[test]
fn segments_roll_and_are_finished_before_the_next_is_written() {
    let mut bench = Bench::create(2, small_config());
    let mut log = Vec::new();
    for offset in 0..200 {
        let spec = BatchSpec { body_bytes: 900, ..BatchSpec::default() };
        bench.append(&spec);
        log.extend(spec.at(offset, 0));
        if offset % 7 == 0 {
            bench.log.submit_writes(&mut bench.io);
        }
    }
    bench.settle();
    assert_eq!(bench.log.written_end(), 200);
    assert_eq!(bench.log.segment_count(), 200_usize.div_ceil((32 << 10) / 961));
    assert!(bench.log.durable_end() >= 165, "all but the last segment is durable");
    for bytes_max in [1, 1000, 3000, 1 << 20] {
        assert!(bench.read_all(0, bytes_max) == log);
    }
}

#[test]
fn a_large_batch_crosses_chunks() {
    let mut bench = Bench::create(3, LogConfig::default());
    let mut log = Vec::new();
    for offset in 0..4 {
        let spec = BatchSpec { body_bytes: 300_000, fill: offset as u8, ..BatchSpec::default() };
        bench.append(&spec);
        log.extend(spec.at(offset, 0));
    }
    bench.settle();
    assert!(bench.read_all(0, 1) == log);
    assert_eq!(bench.try_read(2, 1 << 20, 3), Got::Bytes(log[600_122..900_183].to_vec()));
}
