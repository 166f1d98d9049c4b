//! Batches and message sets that Kafka wrote: read with their content, and written again.

use millrace_wire::batch::{self, Batch, BatchBuilder, BatchOptions, Record};
use millrace_wire::compression::Compression;
use millrace_wire::message_set::{self, LegacyMessage, SetOptions};
use serde_json::{Value, json};

mod support;

const BYTES_MAX: usize = 4 << 20;

fn record_vectors() -> impl Iterator<Item = (String, Value, Vec<u8>)> {
    let vectors = support::vectors().into_iter().filter(|(of, _)| of == "records");
    vectors.map(|(_, vector)| {
        let bytes = support::unhex(&vector["hex"]);
        (vector["name"].as_str().expect("a name").to_owned(), vector, bytes)
    })
}

/// Long runs of one byte are written as `{"repeat", "times"}`.
fn bytes_value(bytes: Option<&[u8]>) -> Value {
    let Some(bytes) = bytes else { return Value::Null };
    match bytes.split_first() {
        Some((first, rest)) if rest.len() > 1000 && rest.iter().all(|byte| byte == first) => {
            json!({"repeat": hex(&[*first]), "times": bytes.len()})
        }
        _ => Value::from(hex(bytes)),
    }
}

fn record_value(record: &Record<'_>, with_headers: bool) -> Value {
    let mut value = json!({
        "offset": record.offset,
        "timestamp": record.timestamp,
        "key": bytes_value(record.key),
        "value": bytes_value(record.value),
    });
    if with_headers {
        let text = |key| std::str::from_utf8(key).expect("the vectors have such keys");
        let headers =
            record.headers.iter().map(|(key, value)| json!([text(key), bytes_value(value)]));
        value["headers"] = headers.collect();
    }
    value
}

fn time_type(magic: i8, log_append_time: bool) -> &'static str {
    match (magic, log_append_time) {
        (0, _) => "NoTimestampType",
        (_, true) => "LogAppendTime",
        (_, false) => "CreateTime",
    }
}

fn batch_value(batch: &Batch<'_>) -> Value {
    batch.verify_crc().expect("a right checksum");
    let header = batch.header();
    let mut scratch = Vec::new();
    let records: Vec<Value> = batch
        .records(&mut scratch, BYTES_MAX)
        .expect("they can be decompressed")
        .map(|record| record_value(&record.expect("a record"), true))
        .collect();
    let mut value = json!({
        "magic": 2,
        "baseOffset": header.base_offset,
        "lastOffset": header.last_offset(),
        "sizeInBytes": header.bytes(),
        "compression": header.compression().expect("a known one").name(),
        "timestampType": time_type(2, header.is_log_append_time()),
        "maxTimestamp": header.max_timestamp,
        "crc": header.crc,
        "baseTimestamp": header.base_timestamp,
        "partitionLeaderEpoch": header.partition_leader_epoch,
        "producerId": header.producer_id,
        "producerEpoch": header.producer_epoch,
        "baseSequence": header.base_sequence,
        "lastSequence": header.last_sequence(),
        "count": header.record_count,
        "transactional": header.is_transactional(),
        "control": header.is_control(),
        "records": records,
    });
    if header.attributes & batch::DELETE_HORIZON != 0 {
        value["deleteHorizonMs"] = header.base_timestamp.into();
    }
    value
}

fn message_value(message: &LegacyMessage<'_>) -> Value {
    message.verify_crc().expect("a right checksum");
    let mut scratch = Vec::new();
    let records: Vec<Record<'_>> =
        message.records(&mut scratch, BYTES_MAX).expect("they can be decompressed").collect();
    json!({
        "magic": message.magic,
        "baseOffset": records.first().expect("a message is a record").offset,
        "lastOffset": message.offset,
        "sizeInBytes": message.bytes().len(),
        "compression": message.compression().expect("a known one").name(),
        "timestampType": time_type(message.magic, message.is_log_append_time()),
        "maxTimestamp": message.timestamp,
        "records": records.iter().map(|record| record_value(record, false)).collect::<Value>(),
    })
}

#[test]
fn batches_and_messages_have_the_content_kafka_wrote() {
    let mut count = 0;
    for (name, vector, bytes) in record_vectors() {
        count += 1;
        if vector["valid"] == false {
            assert!(batch::validate(&bytes).is_err(), "{name}");
            continue;
        }
        let batches: Vec<Value> = match message_set::magic(&bytes) {
            Some(2) => batch::batches(&bytes).map(|b| batch_value(&b.expect(&name))).collect(),
            _ => message_set::messages(&bytes).map(|m| message_value(&m.expect(&name))).collect(),
        };
        assert_eq!(Value::from(batches), vector["batches"], "{name}");
    }
    assert!(count >= 40, "{count} vectors");
}

#[test]
fn uncompressed_batches_are_built_to_the_same_bytes() {
    let mut count = 0;
    for (name, vector, bytes) in record_vectors() {
        // Compaction leaves gaps at the end that no builder makes, and log append time hides the
        // times the batch was built from.
        let is_batch = vector["valid"].is_null() && message_set::magic(&bytes) == Some(2);
        if !is_batch || name == "v2-compacted-gaps" {
            continue;
        }
        for batch in batch::batches(&bytes) {
            let batch = batch.expect(&name);
            let header = batch.header();
            let hidden = batch::DELETE_HORIZON | batch::LOG_APPEND_TIME;
            let compression = header.compression().expect("a known one");
            if compression == Compression::None
                && header.attributes & hidden == 0
                && header.record_count > 0
            {
                assert_eq!(rebuild(&batch), batch.bytes(), "{name}");
                count += 1;
            }
        }
    }
    assert!(count >= 13, "{count} batches");
}

fn rebuild(batch: &Batch<'_>) -> Vec<u8> {
    let header = batch.header();
    let mut scratch = Vec::new();
    let mut builder = BatchBuilder::new();
    for record in batch.records(&mut scratch, BYTES_MAX).expect("uncompressed") {
        let Record { offset, timestamp, key, value, headers } = record.expect("a record");
        let delta = (offset - header.base_offset) as i32;
        let headers: Vec<_> = headers.iter().collect();
        builder.append_at(delta, timestamp, key, value, headers.into_iter());
    }
    let options = BatchOptions {
        base_offset: header.base_offset,
        partition_leader_epoch: header.partition_leader_epoch,
        producer_id: header.producer_id,
        producer_epoch: header.producer_epoch,
        base_sequence: header.base_sequence,
        transactional: header.is_transactional(),
        control: header.is_control(),
        ..BatchOptions::default()
    };
    builder.finish(&options).expect("memory").to_vec()
}

#[test]
fn messages_are_written_again_and_convert_to_batches_and_back() {
    for (name, _, bytes) in record_vectors() {
        let Some(magic @ (0 | 1)) = message_set::magic(&bytes) else { continue };
        let mut scratch = Vec::new();
        let mut written = Vec::new();
        let mut compression = Compression::None;
        for message in message_set::messages(&bytes) {
            let message = message.expect(&name);
            compression = message.compression().expect("a known one");
            let log_append_time = message.is_log_append_time();
            let options = SetOptions { magic, compression, log_append_time };
            let records = message.records(&mut scratch, BYTES_MAX).expect("readable");
            message_set::write(records, options, &mut written).expect("memory");
        }
        let contents = |bytes: &[u8]| -> Vec<Value> {
            let messages = message_set::messages(bytes).map(|m| m.expect(&name));
            messages.map(|m| message_value(&m)["records"].clone()).collect()
        };
        assert_eq!(contents(&written), contents(&bytes), "{name}");
        if compression == Compression::None {
            assert_eq!(written, bytes, "{name}");
        }

        let mut builder = BatchBuilder::new();
        let first = message_set::append_to_builder(&bytes, &mut builder, &mut scratch, BYTES_MAX);
        assert_eq!(first.expect(&name), compression);
        let options = BatchOptions { base_offset: 40, compression, ..BatchOptions::default() };
        let batch = builder.finish(&options).expect("memory");
        let batch = batch::validate(batch).expect("what a producer sends");
        let mut down = Vec::new();
        message_set::write_batch(&batch, magic, 0, &mut scratch, BYTES_MAX, &mut down)
            .expect(&name);
        let starts_elsewhere = ["tiny-magic0", "tiny-magic1", "magic1-gzip-gaps"];
        if !starts_elsewhere.contains(&name.as_str()) {
            assert_eq!(flat(contents(&down)), flat(contents(&bytes)), "{name}");
        }
    }
}

/// Records whatever the messages they are in.
fn flat(messages: Vec<Value>) -> Vec<Value> {
    messages.iter().flat_map(|list| list.as_array().expect("records").clone()).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
