//! Compaction on the simulated disk: what stays, where it is, and that a crash at any moment leaves
//! the log as before, as after, or with some segments exchanged.

#[allow(unreachable_pub, reason = "shared by test binaries")]
mod support;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use fastrand::Rng;
use millrace_io::Io;
use millrace_log::{
    CleanLimits, CleanStep, Cleaned, Cleaner, Compaction, LogConfig, OpenHints, ProducerCheck,
};
use millrace_wire::batch::{BatchBuilder, BatchOptions, batches};
use millrace_wire::compression::Compression;
use support::{Bench, DIR};

const RULES: Compaction = Compaction {
    dirty_ratio_min: 0.0,
    lag_ms_min: 0,
    lag_ms_max: i64::MAX,
    delete_retention_ms: 1000,
};
const LIMITS: CleanLimits = CleanLimits { map_bytes: 1 << 20, map_load: 0.9, buffer_bytes: 0 };
const NO_PRODUCER: (i64, i32) = (-1, -1);

/// Key and value by offset. No key is the empty one.
type Log = BTreeMap<i64, (String, Option<String>)>;

fn config() -> LogConfig {
    LogConfig {
        segment_bytes: 8 << 10,
        index_interval_bytes: 512,
        compaction: Some(RULES),
        ..LogConfig::default()
    }
}

/// Appends one batch; returns its base offset.
fn append(
    bench: &mut Bench,
    records: &[(&str, Option<&str>)],
    options: BatchOptions,
    producer: (i64, i32),
) -> i64 {
    let mut builder = BatchBuilder::new();
    for (number, (key, value)) in (0..).zip(records) {
        let key = (!key.is_empty()).then_some(key.as_bytes());
        let headers = [("h", Some(&b"1"[..]))];
        builder.append(1000 + number, key, value.map(str::as_bytes), &headers);
    }
    let (producer_id, base_sequence) = producer;
    let producer_epoch = if producer_id < 0 { -1 } else { 0 };
    let options = BatchOptions { producer_id, producer_epoch, base_sequence, ..options };
    let batch = builder.finish(&options).expect("every codec takes it").to_vec();
    bench.try_append(&batch, 3).expect("the log takes it").base_offset
}

/// All records; panics where one lies outside the offsets of its batch, or not above the last.
fn records(bench: &mut Bench) -> Log {
    let start = bench.log.log_start();
    let bytes = bench.read_all(start, 3000);
    let (mut found, mut scratch) = (Log::new(), Vec::new());
    let mut end = 0;
    for batch in batches(&bytes) {
        let batch = batch.expect("whole batches");
        batch.verify_crc().expect("sound batches");
        let header = *batch.header();
        assert!(header.base_offset >= end, "batches in order");
        assert_eq!(header.partition_leader_epoch, 3);
        end = header.last_offset() + 1;
        for record in batch.records(&mut scratch, 1 << 20).expect("readable") {
            let record = record.expect("readable");
            assert!((header.base_offset..end).contains(&record.offset));
            assert_eq!(record.headers.len(), 1);
            assert!((1000..1100).contains(&record.timestamp), "{}", record.timestamp);
            let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("text");
            let key = record.key.map(text).unwrap_or_default();
            found.insert(record.offset, (key, record.value.map(text)));
        }
    }
    assert_eq!(end, bench.log.appended_end(), "the end is what it was");
    found
}

fn begin(
    bench: &mut Bench,
    first_dirty: Option<i64>,
    wall_ms: i64,
    limits: CleanLimits,
) -> Option<Cleaner<millrace_io::sim::SimIo>> {
    let dirt = bench.log.dirt(&mut bench.io, first_dirty, wall_ms).expect("readable");
    bench.log.begin_cleaning(dirt?, limits, wall_ms)
}

/// Cleans as the server does; `after` is called after every step.
fn clean(
    bench: &mut Bench,
    first_dirty: Option<i64>,
    wall_ms: i64,
    limits: CleanLimits,
    mut after: impl FnMut(&Bench),
) -> io::Result<Option<Cleaned>> {
    let Some(mut cleaner) = begin(bench, first_dirty, wall_ms, limits) else { return Ok(None) };
    let mut step = |bench: &mut Bench| match cleaner.step(&mut bench.io)? {
        CleanStep::More(_) => Ok(None),
        CleanStep::Segment(segment) => {
            let gone = bench.log.swap_in(&mut bench.io, &mut bench.pool, segment);
            let gone = gone.map_err(io::Error::other)?;
            after(bench);
            gone.iter().try_for_each(|path| bench.io.remove_file(path))?;
            Ok(None)
        }
        CleanStep::Done(cleaned) => Ok(Some(cleaned)),
    };
    let done = loop {
        match step(bench) {
            Ok(None) => {}
            Ok(Some(cleaned)) => break Ok(Some(cleaned)),
            Err(error) => break Err(error),
        }
    };
    bench.log.end_cleaning();
    after(bench);
    done
}

/// Kafka's rule, for records below `end`.
fn compacted(log: &Log, end: i64) -> Log {
    let mut newest = BTreeMap::new();
    for (offset, (key, _)) in log.range(..end) {
        newest.insert(key.clone(), *offset);
    }
    let stays = |offset: i64, key: &str| offset >= end || newest[key] == offset && !key.is_empty();
    log.iter()
        .filter(|(offset, (key, _))| stays(**offset, key))
        .map(|(offset, record)| (*offset, record.clone()))
        .collect()
}

/// Appends random batches of few keys until so many bytes more are in the log.
fn fill(bench: &mut Bench, rng: &mut Rng, log: &mut Log, bytes: u64) {
    use Compression::{Gzip, Lz4, None as Plain, Snappy, Zstd};
    let end = bench.log.bytes() + bytes;
    while bench.log.bytes() < end {
        let mut batch = Vec::new();
        for _ in 0..rng.usize(1..8) {
            let key = rng.u32(..30);
            let key = if key == 0 { String::new() } else { format!("key-{key}") };
            let value =
                (rng.u32(..5) > 0).then(|| format!("{}", rng.u64(..)).repeat(rng.usize(1..9)));
            batch.push((key, value));
        }
        let compression = [Plain, Gzip, Lz4, Snappy, Zstd][rng.usize(..5)];
        let options = BatchOptions { compression, ..BatchOptions::default() };
        let view: Vec<_> =
            batch.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
        let base = append(bench, &view, options, NO_PRODUCER);
        log.extend((base..).zip(batch));
    }
    bench.flush();
    bench.flush();
}

#[test]
fn the_last_record_of_each_key_stays_where_it_was() {
    for seed in 0..8 {
        let mut rng = Rng::with_seed(seed);
        let (mut bench, mut log, mut first_dirty) =
            (Bench::create(seed, config()), Log::new(), None);
        for round in 0..4 {
            fill(&mut bench, &mut rng, &mut log, 40 << 10);
            let before = bench.log.segment_count();
            let cleaned = clean(&mut bench, first_dirty, 0, LIMITS, |_| {}).expect("a sound disk");
            let cleaned = cleaned.expect("there is much to clean");
            first_dirty = Some(cleaned.end);
            log = compacted(&log, cleaned.end);
            let whole = format!("seed {seed}, round {round}, {cleaned:?}");
            assert!(bench.log.segment_count() < before, "{whole}");
            assert_eq!(cleaned.segments.0 - cleaned.segments.1, before - bench.log.segment_count());
            assert_eq!(records(&mut bench), log, "{whole}");
            assert_eq!(clean(&mut bench, first_dirty, 0, LIMITS, |_| {}).expect("sound"), None);
            let (mut again, recovered) = bench.reopen(round % 2 == 0, seed, OpenHints::default());
            assert!(!recovered.is_loss(), "{whole}");
            assert_eq!(records(&mut again), log, "{whole}");
            bench = again;
        }
    }
}

#[test]
fn a_map_too_small_for_all_keys_cleans_part_after_part() {
    let (mut bench, mut log) = (Bench::create(1, config()), Log::new());
    fill(&mut bench, &mut Rng::with_seed(1), &mut log, 60 << 10);
    let limits = CleanLimits { map_bytes: 24 * 12, ..LIMITS };
    let (mut first_dirty, mut parts) = (None, 0);
    while let Some(cleaned) = clean(&mut bench, first_dirty, 0, limits, |_| {}).expect("sound") {
        assert!(first_dirty.is_none_or(|before| before < cleaned.end), "it goes on");
        first_dirty = Some(cleaned.end);
        parts += 1;
        let found = records(&mut bench);
        for (offset, record) in compacted(&log, i64::MAX) {
            assert_eq!(found.get(&offset), Some(&record), "the newest of all is always there");
        }
    }
    assert!(parts > 3, "{parts}");
    // Each part removes what its own keys replace, and keeps what only later parts replace.
    let left = records(&mut bench).len();
    clean(&mut bench, None, 0, LIMITS, |_| {}).expect("sound").expect("from the start again");
    assert!(records(&mut bench).len() <= left);
    let end = first_dirty.expect("there were parts");
    assert_eq!(records(&mut bench), compacted(&log, end));
}

#[test]
fn a_tombstone_goes_when_its_time_is_over() {
    let mut bench = Bench::create(2, config());
    let filler = "x".repeat(5000);
    let plain = BatchOptions::default;
    append(&mut bench, &[("a", Some("1")), ("b", Some("1"))], plain(), NO_PRODUCER);
    append(&mut bench, &[("a", None), ("c", Some("1"))], plain(), NO_PRODUCER);
    for _ in 0..3 {
        append(&mut bench, &[("filler", Some(&filler))], plain(), NO_PRODUCER);
    }
    bench.flush();
    bench.flush();
    // wall clock, tombstone still there
    let rows = [(50_000, true), (50_999, true), (51_000, false)];
    for (wall_ms, is_there) in rows {
        clean(&mut bench, None, wall_ms, LIMITS, |_| {}).expect("sound").expect("all is dirty");
        let found = records(&mut bench);
        let of_a = found.iter().filter(|(_, (key, _))| key == "a").collect::<Vec<_>>();
        let tombstone = (&2, &("a".to_owned(), None));
        assert_eq!(of_a, if is_there { vec![tombstone] } else { vec![] }, "at {wall_ms}");
        assert_eq!(found[&1].0, "b");
        assert_eq!(found[&3].0, "c");
    }
}

#[test]
fn the_last_batch_of_a_known_producer_stays_without_its_records() {
    let mut bench = Bench::create(3, config());
    let plain = BatchOptions::default;
    for round in 0..200 {
        let value = "v".repeat(100);
        let producer = if round < 3 { (7, round * 2) } else { NO_PRODUCER };
        append(&mut bench, &[("a", Some(&value)), ("b", Some("1"))], plain(), producer);
    }
    bench.flush();
    bench.flush();
    clean(&mut bench, None, 0, LIMITS, |_| {}).expect("sound").expect("all is dirty");
    assert!(records(&mut bench).keys().all(|offset| *offset > 5), "all replaced");
    // Only the batch itself can tell now.
    for path in bench.io.read_dir(Path::new(DIR)).expect("there is one") {
        if path.to_string_lossy().ends_with(".snapshot") {
            bench.io.remove_file(&path).expect("it is listed");
        }
    }
    let (again, _) = bench.reopen(false, 1, OpenHints::default());
    let mut repeated = BatchBuilder::new();
    repeated.append(0, Some(b"a"), None, &[]);
    repeated.append(0, Some(b"b"), None, &[]);
    let options = BatchOptions { producer_id: 7, producer_epoch: 0, base_sequence: 4, ..plain() };
    let repeated = repeated.finish(&options).expect("plain").to_vec();
    let check = again.log.check_producer(&repeated);
    assert!(matches!(check, ProducerCheck::Duplicate { base_offset: 4, .. }), "{check:?}");
}

#[test]
fn batches_of_transactions_stay_and_replace_nothing() {
    let mut bench = Bench::create(4, config());
    let transactional = || BatchOptions { transactional: true, ..BatchOptions::default() };
    let control = || BatchOptions { control: true, ..transactional() };
    let filler = "x".repeat(5000);
    let mut log = Log::new();
    for (options, producer, value) in [
        (BatchOptions::default(), NO_PRODUCER, "plain"),
        (transactional(), (9, 0), "in a transaction"),
        (control(), (9, -1), "a marker"),
    ] {
        let base = append(&mut bench, &[("a", Some(value))], options, producer);
        log.insert(base, ("a".to_owned(), Some(value.to_owned())));
    }
    for _ in 0..3 {
        append(&mut bench, &[("filler", Some(&filler))], BatchOptions::default(), NO_PRODUCER);
    }
    bench.flush();
    bench.flush();
    clean(&mut bench, None, 0, LIMITS, |_| {}).expect("sound").expect("all is dirty");
    let found = records(&mut bench);
    assert_eq!(found.range(..3).map(|(at, record)| (*at, record.clone())).collect::<Log>(), log);
}

#[test]
fn the_settings_say_when_a_log_is_worth_cleaning() {
    let rules = |change: fn(&mut Compaction)| {
        let mut rules = RULES;
        change(&mut rules);
        Some(rules)
    };
    // Timestamps are 1000 to 1007; half of the log was cleaned.
    let rows = [
        (None, 0, false),
        (rules(|rules| rules.dirty_ratio_min = 0.3), 0, true),
        (rules(|rules| rules.dirty_ratio_min = 0.9), 0, false),
        (rules(|rules| rules.lag_ms_min = 500), 1400, false),
        (rules(|rules| rules.lag_ms_min = 500), 1600, true),
        (rules(|rules| (rules.dirty_ratio_min, rules.lag_ms_max) = (0.9, 500)), 1400, false),
        (rules(|rules| (rules.dirty_ratio_min, rules.lag_ms_max) = (0.9, 500)), 1600, true),
    ];
    let (mut bench, mut log) = (Bench::create(5, config()), Log::new());
    fill(&mut bench, &mut Rng::with_seed(5), &mut log, 60 << 10);
    let half = *log.keys().nth(log.len() / 2).expect("not empty");
    for (row, (compaction, wall_ms, is_worth_it)) in rows.into_iter().enumerate() {
        bench.log.set_config(LogConfig { compaction, ..config() });
        let dirt = bench.log.dirt(&mut bench.io, Some(half), wall_ms).expect("readable");
        assert_eq!(dirt.is_some(), is_worth_it, "row {row}: {dirt:?}");
    }
}

#[test]
fn nothing_goes_while_a_log_is_cleaned_and_a_log_that_goes_ends_it() {
    let (mut bench, mut log) = (Bench::create(6, config()), Log::new());
    fill(&mut bench, &mut Rng::with_seed(6), &mut log, 60 << 10);
    let config = LogConfig { retention_bytes: 0, ..config() };
    bench.log.set_config(config);
    let mut cleaner = begin(&mut bench, None, 0, LIMITS).expect("all is dirty");
    let segments = bench.log.segment_count();
    let expire = |bench: &mut Bench| {
        let retired = bench.log.enforce_retention(&mut bench.io, &mut bench.pool, 0);
        retired.expect("readable").segments
    };
    assert_eq!(expire(&mut bench), 0);
    assert_eq!(bench.log.segment_count(), segments);
    assert!(cleaner.step(&mut bench.io).is_ok());
    bench.log.end_cleaning();
    let error = cleaner.step(&mut bench.io).err().expect("it was ended");
    assert_eq!(error.kind(), io::ErrorKind::Interrupted);
    assert_eq!(expire(&mut bench), segments - 1, "what was put off");
}

/// What a crash leaves: all that compaction keeps, nothing that was not there, and of each key the
/// same newest record as before.
fn check_left(bench: &mut Bench, before: &Log, after: &Log, what: &str) {
    let left = records(bench);
    for (offset, record) in &left {
        assert_eq!(before.get(offset), Some(record), "{what}: offset {offset}");
    }
    let missing = after.keys().find(|offset| !left.contains_key(offset));
    assert_eq!(missing, None, "{what}");
    let newest = |log: &Log| {
        let by_key = log.values().map(|(key, value)| (key.clone(), value.clone()));
        let mut newest: BTreeMap<_, _> = by_key.collect();
        // A key is gone whether its tombstone is still there or not. Records without one go.
        newest.retain(|key, value| value.is_some() && !key.is_empty());
        newest
    };
    assert_eq!(newest(&left), newest(before), "{what}");
}

#[test]
fn a_crash_at_any_moment_leaves_the_newest_record_of_each_key() {
    // The second cleaning removes tombstones that the first one gave their time.
    let scene = |seed| {
        let (mut bench, mut log) = (Bench::create(seed, config()), Log::new());
        let mut rng = Rng::with_seed(seed);
        fill(&mut bench, &mut rng, &mut log, 30 << 10);
        let cleaned = clean(&mut bench, None, 0, LIMITS, |_| {}).expect("sound").expect("dirty");
        log = compacted(&log, cleaned.end);
        fill(&mut bench, &mut rng, &mut log, 20 << 10);
        (bench, log)
    };
    let seeds = std::env::var("MILLRACE_LOG_SEEDS").ok().and_then(|count| count.parse().ok());
    for seed in 0..seeds.unwrap_or(1) {
        let (mut bench, before) = scene(seed);
        let start = bench.world.effects();
        clean(&mut bench, None, 5000, LIMITS, |_| {}).expect("sound").expect("dirty");
        let effects = bench.world.effects() - start;
        let after = records(&mut bench);
        assert!(after.len() < before.len() && effects > 30, "{effects} effects");
        for cut in 0..effects {
            let (mut bench, before) = scene(seed);
            bench.world.cut_power_after(cut);
            drop(clean(&mut bench, None, 5000, LIMITS, |_| {}));
            let (mut again, _) = bench.reopen(true, cut, OpenHints::default());
            check_left(&mut again, &before, &after, &format!("seed {seed}, cut after {cut}"));
            // What was left is as good as any log.
            clean(&mut again, None, 5000, LIMITS, |_| {}).expect("sound");
            check_left(&mut again, &before, &after, &format!("seed {seed}, {cut}, cleaned"));
        }
        let (mut bench, before) = scene(seed);
        let kills = |bench: &Bench| {
            let (mut again, _) = bench.reopen(false, seed, OpenHints::default());
            check_left(&mut again, &before, &after, &format!("seed {seed}, killed"));
        };
        clean(&mut bench, None, 5000, LIMITS, kills).expect("sound").expect("dirty");
    }
}
