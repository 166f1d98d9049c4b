//! What a request and a sample cost the client: filling and sealing a batch, recording a time,
//! checking what was read. `cargo bench -p loadgen`.

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use loadgen::batch::{self, Fill, RecordShape, Template};
use loadgen::histogram::Latencies;
use loadgen::payload::Stamp;
use loadgen::verify::Tracker;
use std::hint::black_box;

fn template(value_bytes: usize, records: usize) -> Template {
    let shape = RecordShape {
        value_bytes,
        value_bytes_max: value_bytes,
        header_bytes: 0,
        records_max: records,
        keyed: false,
        constant_percent: 0,
    };
    Template::new(shape, 1)
}

fn fill(sequence: u64) -> Fill<'static> {
    let first = Stamp { run: 1, producer: 0, partition: 0, sequence, intended_ns: 0 };
    let producer = (-1, -1, -1);
    Fill { first, intended_ns: &[5], timestamp_ms: 1_700_000_000_000, producer, keys: None }
}

fn batches(c: &mut Criterion) {
    let mut group = c.benchmark_group("fill and seal a batch");
    for (value_bytes, records) in [(100, 1), (1024, 64), (1024, 250)] {
        let template = template(value_bytes, records);
        let mut bytes = template.batch(records).to_vec();
        let mut random = fastrand::Rng::with_seed(1);
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(format!("{records} of {value_bytes} bytes"), |b| {
            let mut sequence = 0;
            b.iter(|| {
                template.patch(&mut bytes, records, &fill(sequence), &mut random);
                batch::seal(black_box(&mut bytes));
                sequence += records as u64;
            });
        });
    }
    group.finish();
}

fn times(c: &mut Criterion) {
    let mut latencies = Latencies::default();
    let mut random = fastrand::Rng::with_seed(1);
    c.bench_function("record a time", |b| b.iter(|| latencies.record(random.u64(1_000..1 << 30))));
    c.bench_function("the percentiles of a report", |b| b.iter(|| latencies.percentiles()));
}

fn values(c: &mut Criterion) {
    let template = template(1024, 1);
    let mut bytes = template.batch(1).to_vec();
    let mut random = fastrand::Rng::with_seed(1);
    let mut tracker = Tracker::new(Some(1), 0);
    let mut sequence = 0;
    c.bench_function("fill and check a value of 1 KiB", |b| {
        b.iter(|| {
            template.patch(&mut bytes, 1, &fill(sequence), &mut random);
            sequence += 1;
            // The value is the last thing but the count of headers.
            let value = &bytes[bytes.len() - 1025..bytes.len() - 1];
            assert!(tracker.on_value(0, black_box(value)).is_some());
        });
    });
}

criterion_group!(benches, batches, times, values);
criterion_main!(benches);
