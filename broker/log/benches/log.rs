//! The append path and the read plan on a real ring, without waiting for the disk where possible.

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use millrace_io::{ChunkPool, Event, Io, RingIo};
use millrace_log::{AppendAs, LogConfig, PartitionLog, ReadPlan, ReadRequest, Uuid};
use millrace_wire::batch::{BatchBuilder, BatchOptions};

struct Bench {
    io: RingIo,
    pool: ChunkPool,
    log: PartitionLog<RingIo>,
    _folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut io = RingIo::new().expect("the benches need io_uring");
        let config = LogConfig { segment_bytes: 64 << 20, ..LogConfig::default() };
        let dir = folder.path().join("orders-0");
        let id = Uuid::from_halves(1, 2);
        let log = PartitionLog::create(&mut io, &dir, id, config).expect("an empty folder");
        Self { io, pool: ChunkPool::new(16 << 20), log, _folder: folder }
    }

    fn append(&mut self, batch: &[u8]) {
        let door = AppendAs::Leader { epoch: 0, log_append_time: None };
        self.log.append(&mut self.io, &mut self.pool, batch, door).expect("taken");
    }

    /// Writes what was appended and drops segments that are no longer needed.
    fn settle(&mut self) {
        self.log.submit_writes(&mut self.io);
        while self.log.written_end() < self.log.appended_end() {
            self.io.wait(None).expect("the ring waits");
            while let Some(event) = self.io.next_event() {
                if let Event::Completed { token, result } = event {
                    self.log.on_completed(&mut self.io, &mut self.pool, token, result);
                }
            }
        }
        let end = self.log.written_end();
        let retired = self.log.delete_records_before(&mut self.io, end).expect("written");
        for path in retired.paths {
            let _ = self.io.remove_file(&path);
        }
    }

    fn read(&mut self, offset: i64) -> usize {
        let request = ReadRequest {
            offset,
            bytes_max: 1 << 20,
            at_least_one: true,
            upper_bound: i64::MAX,
            may_block: true,
        };
        match self.log.read(&mut self.io, &mut self.pool, request).expect("readable") {
            ReadPlan::Data(data) => data.bytes,
            plan => panic!("{plan:?}"),
        }
    }
}

fn batch(record_bytes: usize, count: usize) -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    let value = vec![b'x'; record_bytes];
    (0..count).for_each(|at| builder.append(at as i64, None, Some(&value), &[]));
    builder.finish(&BatchOptions::default()).expect("plain").to_vec()
}

fn append(c: &mut Criterion) {
    let mut group = c.benchmark_group("append");
    for (name, record_bytes, count) in [("100 B", 30, 1), ("1 KiB", 960, 1), ("64 KiB", 1010, 63)] {
        let bytes = batch(record_bytes, count);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(name, |bencher| {
            let mut bench = Bench::new();
            bencher.iter_custom(|iterations| {
                let mut spent = Duration::ZERO;
                let per_turn = ((1 << 20) / bytes.len() as u64).clamp(1, 256);
                let mut left = iterations;
                while left > 0 {
                    let now = left.min(per_turn);
                    let start = std::time::Instant::now();
                    (0..now).for_each(|_| bench.append(&bytes));
                    spent += start.elapsed();
                    bench.settle();
                    left -= now;
                }
                spent
            });
        });
    }
}

fn read_plan(c: &mut Criterion) {
    let mut group = c.benchmark_group("read plan");
    let bytes = batch(960, 1);
    let mut bench = Bench::new();
    for _ in 0..40 {
        (0..256).for_each(|_| bench.append(&bytes));
        bench.log.submit_writes(&mut bench.io);
        while bench.log.written_end() < bench.log.appended_end() {
            bench.io.wait(None).expect("the ring waits");
            while let Some(event) = bench.io.next_event() {
                if let Event::Completed { token, result } = event {
                    bench.log.on_completed(&mut bench.io, &mut bench.pool, token, result);
                }
            }
        }
    }
    let end = bench.log.written_end();
    group.bench_function("tail, from memory", |bencher| bencher.iter(|| bench.read(end - 1)));
    group.bench_function("going on in a file", |bencher| {
        let mut offset = 0;
        bencher.iter(|| {
            // 1,021 bytes a batch: 1 MiB holds 1,027 of them.
            let bytes = bench.read(offset);
            offset = (offset + bytes as i64 / 1021) % (end - 2000);
            bytes
        });
    });
    let mut offset = 0;
    group.bench_function("anywhere in a file", |bencher| {
        bencher.iter(|| {
            offset = (offset + 7_919) % (end - 2000);
            bench.read(offset)
        });
    });
}

criterion_group! {
    name = benches;
    config = Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2));
    targets = append, read_plan
}
criterion_main!(benches);
