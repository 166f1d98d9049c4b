//! Random operations on the simulated disk against a simple model. In the thorough mode the log is
//! reopened after every step, as a kill and as a power cut would leave it.
//!
//! `MILLRACE_LOG_SEEDS=1000` runs a thousand seeds, `MILLRACE_LOG_SEED=17` one of them.

#![allow(clippy::print_stderr, reason = "a failing seed is named")]

#[allow(unreachable_pub, reason = "shared by test binaries")]
mod support;

use std::collections::HashMap;

use fastrand::Rng;
use millrace_io::sim::Faults;
use millrace_io::{Event, Io, Token};
use millrace_log::{
    FlushTicket, LogConfig, LogError, LogProgress, OpenHints, ProducerCheck, WriteMode,
};
use support::{BatchSpec, Bench, Got};

#[derive(Clone, Debug, PartialEq)]
struct Batch {
    base: i64,
    last: i64,
    epoch: i32,
    bytes: Vec<u8>,
    /// Producer id and first sequence number.
    producer: (i64, i32),
}

/// What the log should hold. `batches` goes up to the appended end.
#[derive(Clone, Default)]
struct Model {
    batches: Vec<Batch>,
    log_start: i64,
    epoch: i32,
    sequences: HashMap<i64, i32>,
}

impl Model {
    fn end(&self) -> i64 {
        self.batches.last().map_or(self.log_start, |batch| batch.last + 1)
    }

    fn cut(&mut self, end: i64) {
        self.batches.retain(|batch| batch.last < end);
        self.recount();
    }

    fn recount(&mut self) {
        self.sequences.clear();
        for batch in self.batches.iter().filter(|batch| batch.producer.0 >= 0) {
            let count = (batch.last - batch.base + 1) as i32;
            self.sequences.insert(batch.producer.0, batch.producer.1 + count);
        }
    }
}

const GROUP_FLUSH: u64 = 200 << 56;

struct Run {
    bench: Bench,
    model: Model,
    rng: Rng,
    group_flush: Option<FlushTicket>,
    thorough: bool,
    steps: u32,
}

impl Run {
    fn new(seed: u64, thorough: bool) -> Self {
        let mut rng = Rng::with_seed(seed);
        let config = LogConfig {
            segment_bytes: [8 << 10, 40 << 10, 300 << 10][rng.usize(..3)],
            index_interval_bytes: [0, 300, 4096][rng.usize(..3)],
            cache_bytes_max: [0, 64 << 10][rng.usize(..2)],
            write_mode: [WriteMode::Auto, WriteMode::Auto, WriteMode::Buffered][rng.usize(..3)],
            ..LogConfig::default()
        };
        let bench = Bench::create(seed, config);
        let slow = rng.u32(..500_000);
        bench.world.set_faults(Faults {
            slow_ppm: slow,
            torn_blocks: rng.bool(),
            cache_miss_ppm: rng.u32(..300_000),
            ..Faults::default()
        });
        Self { bench, model: Model::default(), rng, group_flush: None, thorough, steps: 0 }
    }

    fn step(&mut self) {
        self.steps += 1;
        match self.rng.u32(..100) {
            0..40 => self.append(),
            40..55 => self.bench.log.submit_writes(&mut self.bench.io),
            55..72 => {
                self.collect();
            }
            72..77 => {
                let submitted = self.bench.log.submit_flush(&mut self.bench.io);
                submitted.expect("the file opens");
            }
            77..80 => self.begin_group_flush(),
            80..85 => self.read(),
            85..87 => self.truncate(),
            87..89 => self.delete_records(),
            89..91 => self.release(),
            91 => self.bench.world.drop_caches(),
            92..94 => self.bench.log.persist_hints(&mut self.bench.io).expect("room for hints"),
            94 => self.model.epoch += 1,
            95..97 => self.settle(),
            97 => self.close_and_open(),
            98 => self.crash(),
            _ => self.restart_at(),
        }
        self.check_ends();
        if self.thorough {
            let seed = self.rng.u64(..);
            self.check_reopened(false, seed);
            self.check_reopened(true, seed);
        }
    }

    fn append(&mut self) {
        for _ in 0..self.rng.u32(1..6) {
            let count = self.rng.i32(1..4);
            let producer = if self.rng.bool() { self.rng.i64(0..3) } else { -1 };
            let sequence = self.next_sequence(producer);
            let large = self.rng.u32(..30) == 0;
            let spec = BatchSpec {
                count,
                body_bytes: if large { self.rng.usize(..60_000) } else { self.rng.usize(..1500) },
                fill: self.rng.u8(1..),
                timestamp: self.rng.i64(0..10_000),
                producer: (producer, if producer < 0 { -1 } else { 0 }, sequence),
            };
            let epoch = self.model.epoch;
            let base = self.bench.log.appended_end();
            let bytes = spec.bytes();
            assert_eq!(self.bench.log.check_producer(&bytes), ProducerCheck::Append);
            let start = self.rng.usize(61..=bytes.len());
            let appended = match self.rng.u8(..4) {
                0 => self.bench.try_land(&bytes, start, epoch),
                1 => {
                    // Reserved, filled with something, and given up.
                    let Bench { log, io, pool, .. } = &mut self.bench;
                    let pieces = log.reserve(io, pool, &bytes[..start], epoch).expect("room");
                    pieces.into_iter().for_each(|piece| piece.fill(0xab));
                    log.forget_reserved(pool);
                    self.bench.try_append(&bytes, epoch)
                }
                _ => self.bench.try_append(&bytes, epoch),
            };
            match appended {
                Ok(appended) => assert_eq!(appended.base_offset, base),
                Err(error) => panic!("{error}"),
            }
            let last = base + i64::from(count) - 1;
            let bytes = spec.at(base, epoch);
            self.model.batches.push(Batch {
                base,
                last,
                epoch,
                bytes,
                producer: (producer, sequence),
            });
            if producer >= 0 {
                self.model.sequences.insert(producer, sequence + count);
            }
        }
    }

    /// The sequence number that the producer must use. One whose records are all gone may be known
    /// to the log by a snapshot, or not.
    fn next_sequence(&self, producer: i64) -> i32 {
        if producer < 0 {
            return -1;
        }
        self.model.sequences.get(&producer).copied().unwrap_or_else(|| {
            let probe = BatchSpec { producer: (producer, 0, 1 << 30), ..BatchSpec::default() };
            match self.bench.log.check_producer(&probe.bytes()) {
                ProducerCheck::OutOfOrder { expected } => expected,
                check => {
                    assert_eq!(check, ProducerCheck::Append);
                    0
                }
            }
        })
    }

    /// Takes the completions that are there.
    fn collect(&mut self) -> bool {
        let deadline = self.bench.now().plus_ms(1_000);
        self.bench.io.wait(Some(deadline)).expect("the simulation waits");
        let mut any = false;
        while let Some(event) = self.bench.io.next_event() {
            if let Event::Completed { token, result } = event {
                any = true;
                self.complete(token, result);
            }
        }
        any
    }

    fn complete(&mut self, token: Token, result: std::io::Result<usize>) {
        let bench = &mut self.bench;
        let progress = if token.0 == GROUP_FLUSH {
            let ticket = self.group_flush.take().expect("one was begun");
            bench.log.on_flushed(&mut bench.io, ticket, result.as_ref().map(|_| ()))
        } else {
            bench.log.on_completed(&mut bench.io, &mut bench.pool, token, result)
        };
        let LogProgress { is_poisoned, refused_from, .. } = progress;
        assert!(!is_poisoned && refused_from.is_none(), "no faults here");
    }

    fn settle(&mut self) {
        self.bench.log.submit_writes(&mut self.bench.io);
        while self.collect() {}
    }

    fn begin_group_flush(&mut self) {
        if self.group_flush.is_some() {
            return;
        }
        let begun = self.bench.log.begin_flush(&mut self.bench.io).expect("the file opens");
        if let Some((file, ticket)) = begun {
            self.group_flush = Some(ticket);
            self.bench.io.submit_sync_all(Token(GROUP_FLUSH), &file);
        }
    }

    fn read(&mut self) {
        let end = self.model.end();
        let offset = self.rng.i64(self.model.log_start..=end + 1);
        let upper = if self.rng.bool() { i64::MAX } else { self.rng.i64(0..=end) };
        let bytes_max = [1, 700, 5000, 1 << 20][self.rng.usize(..4)];
        let got = self.bench.try_read(offset, bytes_max, upper);
        let visible = upper.min(self.bench.log.written_end());
        let Got::Bytes(bytes) = got else {
            let expected = if offset > end { Got::OutOfRange } else { Got::Nothing };
            assert_eq!(got, expected, "offset {offset}, visible below {visible}");
            let first = self.model.batches.iter().find(|batch| batch.last >= offset);
            let hidden = first.is_none_or(|batch| batch.last >= visible) || offset >= visible;
            assert!(hidden, "offset {offset} should be seen below {visible}");
            return;
        };
        let from = self.model.batches.iter().position(|batch| batch.last >= offset);
        let mut rest = &bytes[..];
        for batch in &self.model.batches[from.expect("the model holds it")..] {
            if rest.is_empty() {
                break;
            }
            assert!(batch.last < visible, "{} is not visible below {visible}", batch.last);
            assert!(rest.starts_with(&batch.bytes), "batch {} differs", batch.base);
            rest = &rest[batch.bytes.len()..];
        }
        assert!(rest.is_empty(), "more than the log holds");
    }

    fn truncate(&mut self) {
        let offset = self.rng.i64(self.model.log_start..=self.model.end());
        let bench = &mut self.bench;
        match bench.log.truncate_to(&mut bench.io, &mut bench.pool, offset) {
            Ok(()) => self.model.cut(offset),
            Err(LogError::Busy) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn restart_at(&mut self) {
        let offset = self.rng.i64(0..1000);
        let bench = &mut self.bench;
        match bench.log.truncate_fully_and_start_at(&mut bench.io, &mut bench.pool, offset) {
            Ok(()) => {
                let epoch = self.model.epoch;
                self.model = Model { log_start: offset, epoch, ..Model::default() };
            }
            Err(LogError::Busy) => {}
            Err(error) => panic!("{error}"),
        }
    }

    fn delete_records(&mut self) {
        let offset = self.rng.i64(self.model.log_start..=self.bench.log.high_watermark());
        let retired = self.bench.log.delete_records_before(&mut self.bench.io, offset);
        for path in retired.expect("below the high watermark").paths {
            let _ = self.bench.io.remove_file(&path);
        }
        self.model.log_start = offset;
        self.model.batches.retain(|batch| batch.last >= offset);
    }

    fn release(&mut self) {
        let bench = &mut self.bench;
        bench.log.release_idle(&mut bench.io, &mut bench.pool).expect("released");
    }

    fn flush_all(&mut self) {
        self.settle();
        for _ in 0..4 {
            self.bench.log.submit_flush(&mut self.bench.io).expect("the file opens");
            self.settle();
        }
        assert_eq!(self.bench.log.durable_end(), self.model.end());
    }

    fn close_and_open(&mut self) {
        self.flush_all();
        let bench = &mut self.bench;
        bench.log.close(&mut bench.io, &mut bench.pool).expect("all is durable");
        let log_start = Some(self.model.log_start);
        let hints = OpenHints { clean: true, log_start, ..OpenHints::default() };
        let (bench, recovered) = self.bench.reopen(false, self.rng.u64(..), hints);
        assert_eq!(recovered, Default::default(), "a clean start recovers nothing");
        assert_eq!(bench.log.appended_end(), self.model.end());
        assert_eq!(bench.log.durable_end(), self.model.end());
        self.bench = bench;
    }

    /// The process ends or the power goes, and what is left becomes the log.
    fn crash(&mut self) {
        let power_cut = self.rng.bool();
        let seed = self.rng.u64(..);
        let (bench, left) = self.check_reopened(power_cut, seed);
        self.bench = bench;
        self.group_flush = None;
        self.model.batches = left;
        self.model.recount();
        self.model.epoch += 1;
    }

    fn check_ends(&self) {
        let log = &self.bench.log;
        assert_eq!(log.appended_end(), self.model.end(), "appended end");
        assert_eq!(log.log_start(), self.model.log_start, "log start");
        assert_eq!(log.poison(), None);
    }

    /// Opens what a crash now would leave, and compares it with what may be left. Returns the log
    /// and its batches.
    fn check_reopened(&mut self, power_cut: bool, seed: u64) -> (Bench, Vec<Batch>) {
        let log_start = Some(self.model.log_start);
        let hints = OpenHints { log_start, ..OpenHints::default() };
        let (mut again, _) = self.bench.reopen(power_cut, seed, hints);
        let end = again.log.appended_end();
        let log = &self.bench.log;
        let least = if power_cut { log.durable_end() } else { log.written_end() };
        assert!(end >= least, "{end} is left, {least} was promised (power cut: {power_cut})");
        let bytes = again.read_all(self.model.log_start, 1 << 20);
        let seen = self.model.log_start..end;
        let left = self.model.batches.iter().filter(|batch| seen.contains(&batch.last));
        let left: Vec<Batch> = left.cloned().collect();
        let joined: Vec<u8> = left.iter().flat_map(|batch| batch.bytes.clone()).collect();
        assert!(
            joined == bytes,
            "power cut {power_cut}: {:?} are left of {:?}",
            support::batches(&bytes),
            left.iter().map(|batch| (batch.base, batch.last)).collect::<Vec<_>>()
        );
        for batch in &left {
            let offset = batch.base.max(self.model.log_start);
            assert_eq!(again.log.epoch_at(offset), Some(batch.epoch), "epoch of {offset}");
        }
        let mut last = HashMap::new();
        for batch in left.iter().filter(|batch| batch.producer.0 >= 0) {
            last.insert(batch.producer.0, batch);
        }
        for batch in last.values() {
            let check = again.log.check_producer(&batch.bytes);
            let base_offset = match check {
                ProducerCheck::Duplicate { base_offset, .. } => Some(base_offset),
                _ => None,
            };
            assert!(
                base_offset == Some(batch.base),
                "{check:?} for batch {} of producer {}",
                batch.base,
                batch.producer.0
            );
        }
        (again, left)
    }
}

fn seeds(few: u64) -> Vec<u64> {
    let number = |name| std::env::var(name).ok().and_then(|value: String| value.parse().ok());
    match (number("MILLRACE_LOG_SEED"), number("MILLRACE_LOG_SEEDS")) {
        (Some(seed), _) => vec![seed],
        (None, count) => (0..count.unwrap_or(few)).collect(),
    }
}

fn run(seed: u64, thorough: bool, steps: u32) {
    let mut run = Run::new(seed, thorough);
    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        for _ in 0..steps {
            run.step();
        }
        run.flush_all();
        run.close_and_open();
    }));
    if let Err(panic) = outcome {
        eprintln!("seed {seed}, step {}, thorough {thorough}", run.steps);
        std::panic::resume_unwind(panic);
    }
}

#[test]
fn random_operations_agree_with_the_model() {
    for seed in seeds(12) {
        run(seed, false, 400);
    }
}

#[test]
fn every_step_survives_a_kill_and_a_power_cut() {
    for seed in seeds(4) {
        run(seed, true, 120);
    }
}
