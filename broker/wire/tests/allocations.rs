//! Nothing is allocated to decode a request, or to encode a response into a writer used before.

use allocation_counter::measure;
use millrace_wire::messages::{
    FetchRequest, FetchResponse, ProduceRequest, ProduceResponse, fetch_request, fetch_response,
    produce_request, produce_response,
};
use millrace_wire::{Message, Reader, Records, Uuid, Writer, batch};

const PARTITIONS: i32 = 50;

fn encoded<'a>(message: &impl Message<'a>, version: i16) -> Vec<u8> {
    let mut writer = Writer::new();
    message.encode(&mut writer, version).expect("it fits the version");
    writer.into_vec()
}

/// How often `f` allocates.
fn allocations(f: impl FnOnce()) -> u64 {
    measure(f).count_total
}

#[test]
fn a_produce_request_is_decoded_and_iterated() {
    let mut builder = batch::BatchBuilder::new();
    builder.append(0, None, Some(&[7; 1000]), &[("header", Some(b"value"))]);
    let records = builder.finish(&batch::BatchOptions::default()).expect("memory");
    let partition = |index| produce_request::PartitionProduceData {
        index,
        records: Some(Records::Bytes(records)),
        ..Default::default()
    };
    let topic = produce_request::TopicProduceData {
        topic_id: Uuid::from_halves(1, 2),
        partition_data: (0..PARTITIONS).map(partition).collect(),
        ..Default::default()
    };
    let request = ProduceRequest { topic_data: vec![topic].into(), ..Default::default() };
    let frame = encoded(&request, 13);
    let mut bytes = 0;
    let count = allocations(|| {
        let request = ProduceRequest::decode(&mut Reader::new(&frame), 13).expect("valid");
        for topic in &request.topic_data {
            for partition in &topic.partition_data {
                let records = partition.records.expect("records").bytes();
                let batch = batch::validate(records).expect("a batch just built");
                for record in batch.records(&mut Vec::new(), 0).expect("uncompressed") {
                    let record = record.expect("a record just built");
                    bytes += record.value.map_or(0, <[u8]>::len) + record.headers.iter().count();
                }
            }
        }
    });
    assert_eq!((count, bytes), (0, 50 * 1001));
}

#[test]
fn a_fetch_request_is_decoded_and_iterated() {
    let partition = |partition| fetch_request::FetchPartition { partition, ..Default::default() };
    let topic = fetch_request::FetchTopic {
        topic_id: Uuid::from_halves(1, 2),
        partitions: (0..PARTITIONS).map(partition).collect(),
        ..Default::default()
    };
    let request = FetchRequest { topics: vec![topic].into(), ..Default::default() };
    let frame = encoded(&request, 18);
    let mut sum = 0;
    let count = allocations(|| {
        let request = FetchRequest::decode(&mut Reader::new(&frame), 18).expect("valid");
        for topic in &request.topics {
            sum += topic.partitions.iter().map(|partition| partition.partition).sum::<i32>();
        }
    });
    assert_eq!((count, sum), (0, PARTITIONS * (PARTITIONS - 1) / 2));
}

#[test]
fn responses_are_encoded_into_a_used_writer() {
    let mut writer = Writer::new();
    let partition = |index| produce_response::PartitionProduceResponse {
        index,
        base_offset: 1 << 40,
        ..Default::default()
    };
    let topic = produce_response::TopicProduceResponse {
        topic_id: Uuid::from_halves(1, 2),
        partition_responses: (0..PARTITIONS).map(partition).collect(),
        ..Default::default()
    };
    let produce = ProduceResponse { responses: vec![topic].into(), ..Default::default() };

    // Half of the records are written here, half are spliced in by the sender.
    let partition = |partition_index| fetch_response::PartitionData {
        partition_index,
        records: Some(match partition_index % 2 {
            0 => Records::Bytes(&[7; 500]),
            _ => Records::External(1 << 20),
        }),
        ..Default::default()
    };
    let topic = fetch_response::FetchableTopicResponse {
        topic_id: Uuid::from_halves(1, 2),
        partitions: (0..PARTITIONS).map(partition).collect(),
        ..Default::default()
    };
    let fetch = FetchResponse { responses: vec![topic].into(), ..Default::default() };

    let mut encode_both = || {
        writer.clear();
        produce.encode(&mut writer, 13).expect("it fits version 13");
        fetch.encode(&mut writer, 18).expect("it fits version 18");
        assert_eq!(writer.splices().len(), PARTITIONS as usize / 2);
    };
    assert!(allocations(&mut encode_both) > 0, "the first time the writer grows");
    assert_eq!(allocations(encode_both), 0);
}
