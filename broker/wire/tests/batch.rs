//! Record batches: built, read, patched, and refused.

use millrace_wire::batch::{
    self, Batch, BatchBuilder, BatchError, BatchOptions, HEADER_BYTES, position,
};
use millrace_wire::compression::Compression;

const HEADERS: &[(&str, Option<&[u8]>)] = &[("h", Some(b"1")), ("", None)];

fn two_records(options: &BatchOptions) -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    builder.append(1000, Some(b"k"), Some(b"v"), &[]);
    builder.append(990, None, None, HEADERS);
    builder.finish(options).expect("memory is no failing writer").to_vec()
}

#[test]
fn what_is_built_is_read() {
    for compression in [
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ] {
        let options = BatchOptions { base_offset: 40, compression, ..BatchOptions::default() };
        let bytes = two_records(&options);
        let batch = batch::validate(&bytes).expect("a batch just built");
        let header = batch.header();
        assert_eq!((header.base_offset, header.last_offset()), (40, 41));
        assert_eq!((header.base_timestamp, header.max_timestamp), (1000, 1000));
        assert_eq!(header.bytes(), bytes.len());
        let mut scratch = Vec::new();
        batch.summary(&mut scratch, 1000).expect("consecutive offsets");
        let records: Result<Vec<_>, _> =
            batch.records(&mut scratch, 1000).expect("1000 bytes suffice").collect();
        let records = records.expect("records just built");
        assert_eq!(records.len(), 2);
        assert_eq!((records[0].offset, records[0].timestamp), (40, 1000));
        assert_eq!((records[0].key, records[0].value), (Some(&b"k"[..]), Some(&b"v"[..])));
        assert!(records[0].headers.is_empty());
        assert_eq!((records[1].offset, records[1].timestamp), (41, 990));
        assert_eq!((records[1].key, records[1].value), (None, None));
        let headers: Vec<_> = records[1].headers.iter().collect();
        assert_eq!(headers, [(&b"h"[..], Some(&b"1"[..])), (b"", None)]);
        if compression != Compression::None {
            let refused = batch.records(&mut scratch, 10);
            assert!(matches!(refused, Err(BatchError::Compression(_))), "{compression:?}");
        }
    }
}

#[test]
fn a_builder_is_used_again() {
    let mut builder = BatchBuilder::new();
    builder.append(5, None, Some(b"first"), &[]);
    builder.finish(&BatchOptions::default()).expect("memory");
    builder.append(6, None, Some(b"dropped"), &[]);
    builder.clear();
    builder.append(1000, Some(b"k"), Some(b"v"), &[]);
    builder.append(990, None, None, HEADERS);
    assert_eq!(builder.record_count(), 2);
    let size = builder.bytes();
    let bytes = builder.finish(&BatchOptions::default()).expect("memory");
    assert_eq!((bytes.len(), bytes), (size, &two_records(&BatchOptions::default())[..]));
}

#[test]
fn offset_and_epoch_are_outside_the_checksum_and_append_time_renews_it() {
    let mut bytes = two_records(&BatchOptions::default());
    batch::patch_base_offset(&mut bytes, 77);
    batch::patch_leader_epoch(&mut bytes, 5);
    let batch = batch::validate(&bytes).expect("the checksum does not cover what was patched");
    assert_eq!((batch.header().base_offset, batch.header().partition_leader_epoch), (77, 5));
    assert!(!batch.header().is_log_append_time());

    batch::patch_log_append_time(&mut bytes, 123_456);
    let batch = batch::validate(&bytes).expect("the checksum was renewed");
    assert!(batch.header().is_log_append_time());
    let mut scratch = Vec::new();
    for record in batch.records(&mut scratch, 0).expect("uncompressed") {
        assert_eq!(record.expect("valid").timestamp, 123_456);
    }
}

#[test]
fn attributes_and_sequences() {
    let options = BatchOptions {
        producer_id: 7,
        producer_epoch: 1,
        base_sequence: i32::MAX,
        transactional: true,
        log_append_time: Some(9),
        ..BatchOptions::default()
    };
    let bytes = two_records(&options);
    let header = *batch::validate(&bytes).expect("valid").header();
    assert!(header.is_transactional() && header.is_log_append_time() && header.has_producer());
    assert!(!header.is_control());
    assert_eq!((header.base_sequence, header.last_sequence()), (i32::MAX, 0));
    assert_eq!(header.max_timestamp, 9);
}

/// Two records, changed by `change` and given a right checksum, are refused with this message.
fn check(change: impl FnOnce(&mut Vec<u8>), expected: &str) {
    let mut bytes = two_records(&BatchOptions::default());
    change(&mut bytes);
    if bytes.len() > HEADER_BYTES {
        batch::patch_crc(&mut bytes);
    }
    let refused = batch::validate(&bytes)
        .and_then(|batch| batch.summary(&mut Vec::new(), 1000))
        .expect_err("it is refused");
    assert_eq!(refused.to_string(), expected);
}

fn set<const N: usize>(position: usize, value: [u8; N]) -> impl FnOnce(&mut Vec<u8>) {
    move |bytes| bytes[position..position + N].copy_from_slice(&value)
}

#[test]
fn what_no_client_may_produce_is_refused() {
    let bytes = two_records(&BatchOptions::default()).len();
    check(|bytes| bytes.clear(), "a batch of 61 bytes, 0 there");
    check(|bytes| bytes.truncate(60), "a batch of 61 bytes, 60 there");
    check(|bytes| bytes.truncate(70), &format!("a batch of {bytes} bytes, 70 there"));
    check(|bytes| bytes.push(0), "1 bytes after the batch");
    check(set(position::MAGIC, [1]), "magic 1");
    check(set(position::BATCH_LENGTH, 48i32.to_be_bytes()), "a length of 48");
    check(set(position::BATCH_LENGTH, (-1i32).to_be_bytes()), "a length of -1");
    check(set(position::ATTRIBUTES + 1, [5]), "no compression has the number 5 here");
    check(set(position::ATTRIBUTES + 1, [batch::CONTROL as u8]), "a control batch");
    check(
        set(position::RECORD_COUNT, 3i32.to_be_bytes()),
        "3 records with a last offset delta of 1",
    );
    check(set(position::RECORD_COUNT, [0; 4]), "0 records with a last offset delta of 1");
    check(
        set(position::PRODUCER_ID, 9i64.to_be_bytes()),
        "producer 9 with epoch -1 and sequence -1",
    );
    // The offset delta of the second record, after a record of 8 bytes and its length.
    check(set(HEADER_BYTES + 9 + 3, [4]), "a record: its offset is not the next");
    check(set(HEADER_BYTES, [1]), "a record: a negative length");
    let count_one = |bytes: &mut Vec<u8>| {
        set(position::RECORD_COUNT, 1i32.to_be_bytes())(bytes);
        set(position::LAST_OFFSET_DELTA, [0; 4])(bytes);
    };
    check(count_one, "a record: bytes after the last record");
    let mut damaged = two_records(&BatchOptions::default());
    *damaged.last_mut().expect("not empty") ^= 1;
    assert!(matches!(batch::validate(&damaged), Err(BatchError::Crc { .. })));
}

#[test]
fn batches_lie_back_to_back() {
    let one = two_records(&BatchOptions::default());
    let mut bytes = [&one[..], &one[..]].concat();
    let sizes = |bytes: &[u8]| -> Vec<Option<usize>> {
        batch::batches(bytes).map(|batch| batch.ok().map(|batch| batch.bytes().len())).collect()
    };
    assert_eq!(sizes(&bytes), [Some(one.len()); 2]);
    bytes.pop();
    assert_eq!(sizes(&bytes), [Some(one.len()), None]);
    let (batch, rest) = Batch::parse(&bytes).expect("the first is whole");
    assert_eq!(rest.len(), bytes.len() - batch.bytes().len());
}
