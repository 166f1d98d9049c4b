//! One partition on the simulated disk: what each operation promises.

#[allow(unreachable_pub, reason = "shared by test binaries")]
mod support;

use millrace_io::Io;
use millrace_io::sim::SimFile;
use millrace_log::{
    AppendAs, AppendError, FileRange, FlushDue, LogConfig, OpenHints, ProducerCheck,
    READ_AHEAD_BYTES, ReadData, ReadPlan, ReadRequest,
};
use millrace_wire::batch::{BatchBuilder, BatchOptions, validate};
use millrace_wire::compression::Compression;
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

#[test]
fn times_are_found_down_to_the_record_and_in_every_segment() {
    let mut bench = Bench::create(4, small_config());
    let mut builder = BatchBuilder::new();
    // Records 10 ms apart, but every fifth batch lies 1000 ms back.
    let mut stamps = Vec::new();
    for batch in 0..60_i64 {
        for record in 0..10 {
            let stamp = 10_000 + batch * 100 + record * 10 - i64::from(batch % 5 == 4) * 1000;
            builder.append(stamp, None, Some(&[batch as u8; 90]), &[]);
            stamps.push(stamp);
        }
        let compression = if batch % 2 == 0 { Compression::Lz4 } else { Compression::None };
        let options = BatchOptions { compression, ..BatchOptions::default() };
        let bytes = builder.finish(&options).expect("compressible").to_vec();
        bench.try_append(&bytes, 3).expect("taken");
    }
    bench.settle();
    assert!(bench.log.segment_count() > 1);
    let check = |bench: &mut Bench, stamp: i64| {
        let expected = stamps.iter().position(|&at| at >= stamp).map(|at| at as i64);
        let found = bench.log.offset_for_timestamp(&mut bench.io, stamp, i64::MAX);
        let found = found.expect("readable");
        assert_eq!(found.map(|found| found.offset), expected, "time {stamp}");
        if let Some(found) = found {
            assert_eq!(found.timestamp, stamps[found.offset as usize]);
            assert_eq!(found.leader_epoch, 3);
        }
    };
    let max = stamps.iter().max().copied().expect("records");
    let times = [0, 9_000, 10_000, 10_001, 10_455, 12_345, max - 1, max, max + 1];
    for stamp in times {
        check(&mut bench, stamp);
    }
    let latest = bench.log.max_timestamp(&mut bench.io).expect("readable").expect("records");
    assert_eq!(latest.timestamp, max);
    assert_eq!(Some(latest.offset as usize), stamps.iter().position(|&at| at == max));

    bench.flush();
    bench.log.close(&mut bench.io, &mut bench.pool).expect("all is durable");
    for clean in [true, false] {
        let hints = OpenHints { clean, ..OpenHints::default() };
        let (mut again, _) = bench.reopen(false, 5, hints);
        for stamp in times {
            check(&mut again, stamp);
        }
        assert_eq!(again.log.max_timestamp(&mut again.io).expect("readable"), Some(latest));
    }
    bench.log.delete_records_before(&mut bench.io, 100).expect("below the end");
    let found = bench.log.offset_for_timestamp(&mut bench.io, 0, i64::MAX).expect("readable");
    assert_eq!(found.map(|found| found.offset), Some(100), "not below the log start");
    let hidden = bench.log.offset_for_timestamp(&mut bench.io, 0, 100).expect("readable");
    assert_eq!(hidden, None, "not above the bound");
}

#[test]
fn log_append_time_is_stamped_and_counted() {
    let mut bench = Bench::create(5, LogConfig::default());
    let mut builder = BatchBuilder::new();
    builder.append(17, None, Some(b"value"), &[]);
    let bytes = builder.finish(&BatchOptions::default()).expect("plain").to_vec();
    let door = AppendAs::Leader { epoch: 2, log_append_time: Some(5_000) };
    bench.log.append(&mut bench.io, &mut bench.pool, &bytes, door).expect("taken");
    bench.settle();
    let Got::Bytes(bytes) = bench.try_read(0, 1000, i64::MAX) else { panic!("one batch") };
    let batch = validate(&bytes).expect("its CRC is new");
    assert!(batch.header().is_log_append_time());
    assert_eq!((batch.header().max_timestamp, batch.header().partition_leader_epoch), (5_000, 2));
    let latest = bench.log.max_timestamp(&mut bench.io).expect("readable").expect("one record");
    assert_eq!((latest.offset, latest.timestamp), (0, 5_000));
}

#[test]
fn a_replica_takes_batches_as_they_are_gaps_and_all() {
    let mut bench = Bench::create(6, small_config());
    let mut log = Vec::new();
    for (base, epoch) in [(5, 1), (6, 1), (900, 4), (903, 4)] {
        let bytes =
            BatchSpec { count: 3, body_bytes: 9000, ..BatchSpec::default() }.at(base, epoch);
        let result = bench.log.append(&mut bench.io, &mut bench.pool, &bytes, AppendAs::Replica);
        match base {
            6 => assert!(matches!(result, Err(AppendError::OutOfOrder { offset: 6, end: 8 }))),
            _ => {
                result.expect("it follows");
                log.extend(bytes);
            }
        }
    }
    bench.settle();
    assert_eq!(bench.log.written_end(), 906);
    assert!(bench.read_all(0, 1) == log);
    assert_eq!(bench.log.end_offset_for_epoch(1), Some((1, 900)));
    assert_eq!(bench.log.end_offset_for_epoch(3), Some((1, 900)));
    assert_eq!(bench.log.end_offset_for_epoch(4), Some((4, 906)));
    assert_eq!(bench.log.end_offset_for_epoch(5), None);
}

#[test]
fn records_without_times_age_from_when_they_were_first_seen() {
    const NOW: i64 = 1_700_000_000_000;
    let mut bench = Bench::create(7, LogConfig { retention_ms: 1_000, ..small_config() });
    let batch = BatchSpec { body_bytes: 842, timestamp: -1, ..BatchSpec::default() };
    let mut gone_at = |now: i64, appended: usize| {
        for _ in 0..appended {
            bench.append(&batch);
            bench.settle();
        }
        let Bench { log, io, pool, .. } = &mut bench;
        let retired = log.enforce_retention(io, pool, now).expect("readable");
        bench.settle();
        retired.segments
    };
    // Now, batches appended before (36 are a segment), segments gone.
    let cases = [
        (NOW, 50, 0),
        (NOW + 1_000, 1, 0),
        (NOW + 1_001, 0, 1),
        (NOW + 2_000, 0, 0),
        // The newest is finished first.
        (NOW + 2_001, 0, 0),
        (NOW + 2_001, 0, 1),
    ];
    for (now, appended, gone) in cases {
        assert_eq!(gone_at(now, appended), gone, "{now}");
    }
}

#[test]
fn retention_gives_up_whole_old_segments() {
    // Ten segments of 35 batches of 903 bytes; a batch's timestamp is its offset.
    let full = |config: LogConfig| {
        let mut bench = Bench::create(7, LogConfig { retention_ms: -1, ..config });
        for offset in 0..350 {
            bench.append(&BatchSpec { body_bytes: 842, timestamp: offset, ..BatchSpec::default() });
            bench.settle();
        }
        assert_eq!((bench.log.segment_count(), bench.log.bytes()), (10, 350 * 903));
        bench
    };
    let segment = 36 * 903;
    let cases = [
        // retention.ms, retention.bytes, now, segments gone
        (-1, -1, 1_000_000, 0),
        (1000, -1, 1_035, 0),
        (1000, -1, 1_036, 1),
        (1000, -1, 1_100, 2),
        (1000, -1, 1_000_000, 9),
        (-1, 10 * segment, 0, 0),
        (-1, 350 * 903 - segment, 0, 1),
        (-1, 2 * segment, 0, 7),
        (-1, 0, 0, 9),
        (1000, 2 * segment, 1_036, 7),
    ];
    for (retention_ms, retention_bytes, now, gone) in cases {
        let mut bench = full(small_config());
        let config = LogConfig { retention_ms, retention_bytes, ..small_config() };
        bench.log.set_config(config);
        let Bench { log, io, pool, .. } = &mut bench;
        let retired = log.enforce_retention(io, pool, now).expect("readable");
        assert_eq!(retired.segments, gone, "{retention_ms} {retention_bytes} {now}");
        assert_eq!(retired.bytes, gone as u64 * 36 * 903);
        assert_eq!(bench.log.log_start(), gone as i64 * 36);
        assert_eq!(bench.try_read(0, 1, i64::MAX) == Got::OutOfRange, gone > 0);
        assert_eq!(bench.read_all(bench.log.log_start(), 5000).len(), (350 - gone * 36) * 903);
        if now == 1_000_000 && retention_ms >= 0 {
            bench.settle();
            let Bench { log, io, pool, .. } = &mut bench;
            let retired = log.enforce_retention(io, pool, now).expect("readable");
            assert_eq!(retired.segments, 1, "the active segment went, too");
            assert_eq!((log.log_start(), log.appended_end(), log.bytes()), (350, 350, 0));
            let retired = log.enforce_retention(io, pool, now).expect("readable");
            assert_eq!(retired.segments, 0, "an empty one stays");
            assert_eq!(bench.append(&BatchSpec::default()).base_offset, 350);
        }
    }
}

#[test]
fn flushes_are_due_by_count_by_time_and_by_bytes() {
    let due = |config: LogConfig, records: i32, ms: u64| {
        let mut bench = Bench::create(8, config);
        for _ in 0..records {
            bench.append(&BatchSpec { body_bytes: 939, ..BatchSpec::default() });
        }
        bench.settle();
        let written = bench.now();
        bench.world.advance_ms(ms);
        match bench.log.flush_due(bench.now()) {
            FlushDue::At(at) => {
                assert!(at > bench.now() && at.ms_since(written) <= 100);
                "later"
            }
            FlushDue::Now => "now",
            FlushDue::Never => "never",
        }
    };
    let config = LogConfig::default();
    let cases = [
        (config.clone(), 10, 1000, "never"),
        (LogConfig { flush_messages: 10, ..config.clone() }, 9, 1000, "never"),
        (LogConfig { flush_messages: 10, ..config.clone() }, 10, 0, "now"),
        (LogConfig { flush_ms: 100, ..config.clone() }, 1, 0, "later"),
        (LogConfig { flush_ms: 100, ..config.clone() }, 1, 101, "now"),
        (LogConfig { flush_ms: 100, ..config.clone() }, 0, 1000, "never"),
        (LogConfig { unflushed_bytes_max: 10_000, ..config.clone() }, 9, 0, "never"),
        (LogConfig { unflushed_bytes_max: 10_000, ..config }, 10, 0, "now"),
    ];
    for (index, (config, records, ms, expected)) in cases.into_iter().enumerate() {
        assert_eq!(due(config, records, ms), expected, "case {index}");
    }
}

#[test]
fn large_batches_that_were_flushed_are_not_scanned_again() {
    let mut bench = Bench::create(8, LogConfig::default());
    let batch = BatchSpec { body_bytes: 1 << 20, ..BatchSpec::default() };
    for _ in 0..40 {
        bench.append(&batch);
        bench.flush();
    }
    let (again, recovered) = bench.reopen(false, 1, OpenHints::default());
    assert_eq!(again.log.appended_end(), 40);
    assert!(recovered.scanned_bytes <= 17 << 20, "{recovered:?}");
    // A checkpoint leaves nothing but the batch that its last entry points at.
    bench.log.persist_hints(&mut bench.io).expect("room for hints");
    let (_, recovered) = bench.reopen(false, 1, OpenHints::default());
    assert!(recovered.scanned_bytes <= 2 << 20, "{recovered:?}");
}

/// Reads, and brings in what is cold; returns how often something was.
fn read_cold(bench: &mut Bench, request: ReadRequest) -> (ReadData<SimFile>, usize) {
    let mut asked = 0;
    loop {
        match bench.log.read(&mut bench.io, &mut bench.pool, request).expect("readable") {
            ReadPlan::Cold(range) => {
                let token = millrace_io::Token(99 << 56);
                bench.io.submit_fetch_pages(token, &range.file, range.position, range.bytes);
                while bench.io.next_event().is_none() {
                    let deadline = bench.now().plus_ms(1000);
                    bench.io.wait(Some(deadline)).expect("the simulation waits");
                }
                asked += 1;
            }
            ReadPlan::Data(data) => return (data, asked),
            plan => panic!("{plan:?}"),
        }
    }
}

#[test]
fn cold_pages_are_named_and_then_read() {
    let mut bench = Bench::create(9, small_config());
    let mut log = Vec::new();
    for offset in 0..100 {
        let spec = BatchSpec { body_bytes: 900, ..BatchSpec::default() };
        bench.append(&spec);
        log.extend(spec.at(offset, 0));
    }
    bench.flush();
    bench.world.drop_caches();
    let request = ReadRequest {
        offset: 3,
        bytes_max: 5000,
        at_least_one: true,
        upper_bound: i64::MAX,
        may_block: false,
    };
    let (data, asked) = read_cold(&mut bench, request);
    assert!((1..5).contains(&asked), "{asked} times cold");
    assert!(bench.gather(&data) == log[3 * 961..8 * 961]);
}

#[test]
fn a_reader_who_goes_on_has_the_file_read_ahead() {
    const BATCH: usize = 61 + 100_000;
    let mut bench = Bench::create(9, LogConfig::default());
    for _ in 0..60 {
        bench.append(&BatchSpec { body_bytes: 100_000, ..BatchSpec::default() });
    }
    bench.flush();
    let mut read = |offset: i64| {
        let (bytes_max, upper_bound) = (2 * BATCH, i64::MAX);
        let rest =
            ReadRequest { offset, bytes_max, upper_bound, at_least_one: true, may_block: false };
        let data = read_cold(&mut bench, rest).0;
        let FileRange { file, position, bytes } = data.file.expect("nothing is in memory");
        assert_eq!((position, bytes), (offset as u64 * BATCH as u64, 2 * BATCH));
        let end = position + bytes as u64;
        // The last byte that is read ahead at most, and the first that is not.
        let far = end + READ_AHEAD_BYTES as u64;
        let is_read = bench.io.is_cached(&file, end, READ_AHEAD_BYTES);
        let cached = (is_read, bench.io.is_cached(&file, far + 4096, 1));
        bench.world.drop_caches();
        cached
    };
    assert_eq!(read(0), (false, false), "who begins");
    assert_eq!(read(2), (true, false), "who goes on");
    assert_eq!(read(30), (false, false), "who jumps");
}

#[test]
fn an_idle_partition_is_small_and_holds_no_file() {
    let mut bench = Bench::create(10, LogConfig::default());
    for _ in 0..2000 {
        bench.append(&BatchSpec { body_bytes: 900, ..BatchSpec::default() });
        bench.settle();
    }
    bench.flush();
    assert!(bench.log.release_idle(&mut bench.io, &mut bench.pool).expect("released"));
    assert!(bench.log.memory_bytes() <= 8 << 10, "{} bytes", bench.log.memory_bytes());
    assert_eq!(bench.log.open_files(), 0);
    bench.append(&BatchSpec::default());
    bench.settle();
    assert_eq!(bench.log.written_end(), 2001);
}

#[test]
fn producers_outlive_segments_and_restarts() {
    let mut bench = Bench::create(11, small_config());
    let of = |producer: i64, sequence: i32| BatchSpec {
        body_bytes: 3000,
        producer: (producer, 0, sequence),
        ..BatchSpec::default()
    };
    for sequence in 0..50 {
        bench.append(&of(7, sequence));
    }
    bench.flush();
    let retired = bench.log.delete_records_before(&mut bench.io, 45).expect("below the end");
    for path in &retired.paths {
        let _ = bench.io.remove_file(path);
    }
    assert!(retired.segments > 0);
    let duplicate = ProducerCheck::Duplicate { base_offset: 49, last_offset: 49, timestamp: 1000 };
    let check = |bench: &Bench| {
        assert_eq!(bench.log.check_producer(&of(7, 49).bytes()), duplicate);
        assert_eq!(bench.log.check_producer(&of(7, 50).bytes()), ProducerCheck::Append);
        let gap = bench.log.check_producer(&of(7, 52).bytes());
        assert_eq!(gap, ProducerCheck::OutOfOrder { expected: 50 });
    };
    check(&bench);
    for power_cut in [false, true] {
        let hints = OpenHints { log_start: Some(45), ..OpenHints::default() };
        let (again, _) = bench.reopen(power_cut, 12, hints);
        check(&again);
    }
}
