//! Decoding and encoding per partition, on the paths of produce and fetch.
//! `cargo bench -p millrace-wire`; one element is one partition, or one byte where records count.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use millrace_wire::messages::{
    FetchRequest, FetchResponse, ProduceRequest, ProduceResponse, fetch_request, fetch_response,
    produce_request, produce_response,
};
use millrace_wire::{DecodeError, Message, Reader, Records, Uuid, Writer, batch};

const PARTITION_COUNTS: [i32; 3] = [1, 10, 100];

fn encoded<'a>(message: &impl Message<'a>, version: i16) -> Vec<u8> {
    let mut writer = Writer::new();
    message.encode(&mut writer, version).expect("it fits the version");
    writer.into_vec()
}

type Partitions<'a> = Vec<(i32, &'a [u8])>;

/// The alternative to views of the frame: each array in a `Vec`, read once. Only what version 13
/// without tagged fields needs, so it is the least that such a decoder costs.
fn decode_into_vecs(frame: &[u8]) -> Result<Vec<(Uuid, Partitions<'_>)>, DecodeError> {
    let mut r = Reader::new(frame);
    let _transactional_id = r.uvarint()?;
    let (_acks, _timeout_ms) = (r.i16()?, r.i32()?);
    let topic_count = r.uvarint()? - 1;
    let mut topics = Vec::with_capacity(topic_count as usize);
    for _ in 0..topic_count {
        let id: Uuid = r.read()?;
        let partition_count = r.uvarint()? - 1;
        let mut partitions = Vec::with_capacity(partition_count as usize);
        for _ in 0..partition_count {
            let index = r.i32()?;
            let bytes = r.uvarint()? - 1;
            partitions.push((index, r.take(bytes as usize)?));
            r.uvarint()?;
        }
        r.uvarint()?;
        topics.push((id, partitions));
    }
    r.uvarint()?;
    Ok(topics)
}

fn produce(c: &mut Criterion) {
    let mut group = c.benchmark_group("produce");
    for count in PARTITION_COUNTS {
        group.throughput(Throughput::Elements(count as u64));
        let partition = |index| produce_request::PartitionProduceData {
            index,
            records: Some(Records::Bytes(&[7; 1000])),
            ..Default::default()
        };
        let topic = produce_request::TopicProduceData {
            topic_id: Uuid::from_halves(1, 2),
            partition_data: (0..count).map(partition).collect(),
            ..Default::default()
        };
        let request = ProduceRequest { topic_data: vec![topic].into(), ..Default::default() };
        let frame = encoded(&request, 13);
        group.bench_function(format!("decode request, {count} partitions"), |b| {
            b.iter(|| {
                let frame = black_box(&frame[..]);
                let request = ProduceRequest::decode(&mut Reader::new(frame), 13).expect("valid");
                let mut bytes = 0;
                for topic in &request.topic_data {
                    for partition in &topic.partition_data {
                        bytes += partition.records.map_or(0, |records| records.len());
                    }
                }
                bytes
            });
        });

        group.bench_function(
            format!("decode request by hand into Vecs, {count} partitions"),
            |b| {
                b.iter(|| {
                    let topics = decode_into_vecs(black_box(&frame)).expect("valid");
                    let partitions = topics.iter().flat_map(|(_, partitions)| partitions);
                    partitions.map(|(_, records)| records.len()).sum::<usize>()
                });
            },
        );

        let partition = |index| produce_response::PartitionProduceResponse {
            index,
            base_offset: 1 << 40,
            ..Default::default()
        };
        let topic = produce_response::TopicProduceResponse {
            topic_id: Uuid::from_halves(1, 2),
            partition_responses: (0..count).map(partition).collect(),
            ..Default::default()
        };
        let response = ProduceResponse { responses: vec![topic].into(), ..Default::default() };
        let mut writer = Writer::new();
        group.bench_function(format!("encode response, {count} partitions"), |b| {
            b.iter(|| {
                writer.clear();
                black_box(&response).encode(&mut writer, 13).expect("it fits version 13");
                writer.bytes().len()
            });
        });
    }
}

fn fetch(c: &mut Criterion) {
    let mut group = c.benchmark_group("fetch");
    for count in PARTITION_COUNTS {
        group.throughput(Throughput::Elements(count as u64));
        let partition =
            |partition| fetch_request::FetchPartition { partition, ..Default::default() };
        let topic = fetch_request::FetchTopic {
            topic_id: Uuid::from_halves(1, 2),
            partitions: (0..count).map(partition).collect(),
            ..Default::default()
        };
        let request = FetchRequest { topics: vec![topic].into(), ..Default::default() };
        let frame = encoded(&request, 18);
        group.bench_function(format!("decode request, {count} partitions"), |b| {
            b.iter(|| {
                let frame = black_box(&frame[..]);
                let request = FetchRequest::decode(&mut Reader::new(frame), 18).expect("valid");
                let mut offsets = 0;
                for topic in &request.topics {
                    for partition in &topic.partitions {
                        offsets += partition.fetch_offset;
                    }
                }
                offsets
            });
        });

        let partition = |partition_index| fetch_response::PartitionData {
            partition_index,
            records: Some(Records::External(1 << 20)),
            ..Default::default()
        };
        let topic = fetch_response::FetchableTopicResponse {
            topic_id: Uuid::from_halves(1, 2),
            partitions: (0..count).map(partition).collect(),
            ..Default::default()
        };
        let response = FetchResponse { responses: vec![topic].into(), ..Default::default() };
        let mut writer = Writer::new();
        group.bench_function(format!("encode response, {count} partitions"), |b| {
            b.iter(|| {
                writer.clear();
                black_box(&response).encode(&mut writer, 18).expect("it fits version 18");
                writer.splices().len()
            });
        });
    }
}

fn batches(c: &mut Criterion) {
    let mut group = c.benchmark_group("batch");
    for (records, record_bytes) in [(1, 1024), (64, 1024), (1024, 1024)] {
        let mut builder = batch::BatchBuilder::new();
        let fill = |builder: &mut batch::BatchBuilder| {
            for index in 0..records {
                builder.append(index, None, Some(&[7; 1024][..record_bytes]), &[]);
            }
        };
        fill(&mut builder);
        let bytes = builder.finish(&batch::BatchOptions::default()).expect("memory").to_vec();
        group.throughput(Throughput::Bytes(bytes.len() as u64));
        group.bench_function(format!("validate, {records} records"), |b| {
            b.iter(|| batch::validate(black_box(&bytes)).expect("valid").header().last_offset());
        });
        group.bench_function(format!("read, {records} records"), |b| {
            let (batch, _) = batch::Batch::parse(&bytes).expect("valid");
            b.iter(|| batch.summary(&mut Vec::new(), 0).expect("valid"));
        });
        group.bench_function(format!("build, {records} records"), |b| {
            b.iter(|| {
                fill(&mut builder);
                builder.finish(&batch::BatchOptions::default()).expect("memory").len()
            });
        });
    }
}

criterion_group!(benches, produce, fetch, batches);
criterion_main!(benches);
