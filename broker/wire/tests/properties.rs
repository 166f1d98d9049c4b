//! Properties over arbitrary and damaged input: round trips, no panic, no memory for mere claims.

use std::sync::LazyLock;

use allocation_counter::measure;
use millrace_wire::batch::{self, BatchBuilder, BatchOptions, Record, Summary};
use millrace_wire::compression::Compression;
use millrace_wire::message_set::{self, SetOptions};
use millrace_wire::{Message, Reader, Writer, for_each_message, for_each_stored};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::{Index, select};

mod support;

/// Decodes without allocating, whatever the bytes, and encodes what there was.
fn encoded<'a, M: Message<'a>>(version: i16, body: &'a [u8]) -> Option<Vec<u8>> {
    let mut decoded = None;
    let allocations = measure(|| decoded = M::decode(&mut Reader::new(body), version).ok());
    assert_eq!(allocations.count_total, 0, "{} {version}", M::NAME);
    let mut writer = Writer::new();
    decoded?.encode(&mut writer, version).expect("what a version brought, it can carry");
    Some(writer.into_vec())
}

struct Row {
    name: &'static str,
    versions: std::ops::RangeInclusive<i16>,
    /// What decodes has one encoding, and that decodes again.
    check: fn(i16, &[u8]),
}

static ROWS: LazyLock<Vec<Row>> = LazyLock::new(|| {
    let mut rows = Vec::new();
    macro_rules! row {
        ($message:path, $name:ident) => {{
            fn check(version: i16, body: &[u8]) {
                let Some(first) = encoded::<$message>(version, body) else { return };
                assert_eq!(encoded::<$message>(version, &first).as_ref(), Some(&first));
            }
            fn versions<'a, M: Message<'a>>() -> std::ops::RangeInclusive<i16> {
                M::VERSIONS
            }
            rows.push(Row { name: stringify!($name), versions: versions::<$message>(), check });
        }};
    }
    for_each_message!(row);
    for_each_stored!(row);
    rows
});

/// Name, version and bytes of every vector.
static VECTORS: LazyLock<Vec<(String, i16, Vec<u8>)>> = LazyLock::new(|| {
    let messages = support::vectors().into_iter().filter(|(of, _)| of != "records");
    let version =
        |vector: &serde_json::Value| vector["version"].as_i64().expect("a version") as i16;
    messages.map(|(of, v)| (of, version(&v), support::unhex(&v["hex"]))).collect()
});

/// A record as the strategies make it.
type Parts = (i64, Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Option<Vec<u8>>)>);

fn records() -> impl Strategy<Value = Vec<Parts>> {
    let bytes = || option::of(vec(any::<u8>(), 0..300));
    let headers = vec((".{0,5}", bytes()), 0..3);
    vec((any::<i64>(), bytes(), bytes(), headers), 1..20)
}

fn compression() -> impl Strategy<Value = Compression> {
    select(vec![
        Compression::None,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ])
}

fn build(records: &[Parts], compression: Compression) -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    for (timestamp, key, value, headers) in records {
        let headers: Vec<_> =
            headers.iter().map(|(key, value)| (key.as_str(), value.as_deref())).collect();
        builder.append(*timestamp, key.as_deref(), value.as_deref(), &headers);
    }
    let options = BatchOptions { compression, ..BatchOptions::default() };
    builder.finish(&options).expect("memory is no failing writer").to_vec()
}

fn parts(record: &Record<'_>) -> Parts {
    let text = |key: &[u8]| String::from_utf8(key.to_vec()).expect("it was text");
    let headers = record.headers.iter().map(|(key, value)| (text(key), value.map(<[u8]>::to_vec)));
    let bytes = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
    (record.timestamp, bytes(record.key), bytes(record.value), headers.collect())
}

const BYTES_MAX: usize = 1 << 20;

/// Reads whatever there is in `bytes`, as every format; more than the limit is never decompressed.
fn read_as_records(bytes: &[u8]) {
    let (mut scratch, mut out) = (Vec::new(), Vec::new());
    let _ = batch::validate(bytes);
    for found in batch::batches(bytes).map_while(Result::ok) {
        let _ = found.summary(&mut scratch, BYTES_MAX);
        let _ = message_set::write_batch(&found, 1, 0, &mut scratch, BYTES_MAX, &mut out);
    }
    for message in message_set::messages(bytes).map_while(Result::ok) {
        if let Ok(records) = message.records(&mut scratch, BYTES_MAX) {
            records.for_each(drop);
        }
    }
    assert!(scratch.len() <= BYTES_MAX);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes_are_decoded_or_refused(
        row in any::<Index>(),
        version in any::<Index>(),
        body in vec(any::<u8>(), 0..200),
    ) {
        let row = row.get(&ROWS);
        let version = row.versions.start() + version.index(row.versions.clone().count()) as i16;
        (row.check)(version, &body);
    }

    #[test]
    fn damaged_vectors_are_decoded_or_refused(
        vector in any::<Index>(),
        damage in vec((any::<Index>(), any::<u8>()), 1..5),
    ) {
        let (name, version, mut body) = vector.get(&VECTORS).clone();
        let row = ROWS.iter().find(|row| row.name == name).expect("every vector has its message");
        for (place, byte) in damage.into_iter().filter(|_| !body.is_empty()).collect::<Vec<_>>() {
            *place.get_mut(&mut body) = byte;
        }
        (row.check)(version, &body);
    }

    #[test]
    fn batches_round_trip(records in records(), compression in compression()) {
        let bytes = build(&records, compression);
        let batch = batch::validate(&bytes).expect("a batch just built");
        let mut scratch = Vec::new();
        batch.summary(&mut scratch, BYTES_MAX).expect("consecutive offsets");
        let found: Result<Vec<_>, _> =
            batch.records(&mut scratch, BYTES_MAX).expect("under a megabyte").collect();
        let found: Vec<Parts> = found.expect("records").iter().map(parts).collect();
        let max_timestamp = records.iter().map(|record| record.0).max();
        prop_assert_eq!(Some(batch.header().max_timestamp), max_timestamp);
        prop_assert_eq!(found, records);
    }

    #[test]
    fn message_sets_round_trip(
        records in records(),
        compression in compression().prop_filter("not in these formats", |c| *c != Compression::Zstd),
        magic in 0..=1i8,
    ) {
        let bytes = build(&records, compression);
        let batch = batch::validate(&bytes).expect("a batch just built");
        let (mut scratch, mut set) = (Vec::new(), Vec::new());
        message_set::write_batch(&batch, magic, 0, &mut scratch, BYTES_MAX, &mut set).expect("memory");
        let mut builder = BatchBuilder::new();
        let found = message_set::append_to_builder(&set, &mut builder, &mut scratch, BYTES_MAX);
        prop_assert_eq!(found.expect("what was written"), compression);
        let without: Vec<Parts> = records
            .into_iter()
            .map(|(time, key, value, _)| (if magic == 0 { -1 } else { time }, key, value, vec![]))
            .collect();
        let options = BatchOptions { compression, ..BatchOptions::default() };
        let again = builder.finish(&options).expect("memory").to_vec();
        prop_assert_eq!(again, build(&without, compression));
    }

    #[test]
    fn validation_finds_what_reading_every_record_finds(
        records in records(),
        damage in vec((any::<Index>(), any::<u8>()), 0..3),
        cuts in any::<[Index; 2]>(),
    ) {
        let mut bytes = build(&records, Compression::None);
        for (place, byte) in damage {
            *place.get_mut(&mut bytes[batch::HEADER_BYTES..]) = byte;
        }
        let (batch, _) = batch::Batch::parse(&bytes).expect("the header is whole");
        let (mut scratch, mut scratch2) = (Vec::new(), Vec::new());
        let found = batch.records(&mut scratch, BYTES_MAX).expect("not compressed");
        let found: Option<Vec<_>> = found.collect::<Result<_, _>>().ok();
        let base = batch.header().base_offset;
        let expected = found.filter(|found| (base..).zip(found).all(|(at, r)| r.offset == at));
        let expected = expected.map(|found| Summary {
            timestamp_min: found.iter().map(|r| r.timestamp).min().unwrap_or(i64::MAX),
            timestamp_max: found.iter().map(|r| r.timestamp).max().unwrap_or(-1).max(-1),
            is_keyed: found.iter().all(|r| r.key.is_some()),
        });
        prop_assert_eq!(batch.summary(&mut scratch2, BYTES_MAX).ok(), expected);
        // The same in pieces, wherever they end. What only `validate` refuses is made right first.
        batch::patch_crc(&mut bytes);
        let middle = batch::HEADER_BYTES..bytes.len() + 1;
        let mut ends = cuts.map(|cut| cut.index(middle.len()) + middle.start);
        ends.sort_unstable();
        let pieces = [&bytes[..ends[0]], &bytes[ends[0]..ends[1]], &bytes[ends[1]..]];
        let found = batch::validate_pieces(&pieces, &mut scratch).ok();
        prop_assert_eq!(found.map(|(_, summary)| summary), expected);
    }

    #[test]
    fn damaged_records_are_read_or_refused(
        records in records(),
        compression in compression(),
        as_set in any::<bool>(),
        repair in any::<bool>(),
        damage in vec((any::<Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = build(&records, compression);
        if as_set && compression != Compression::Zstd {
            let batch = batch::validate(&bytes).expect("a batch just built");
            let options = SetOptions { magic: 1, compression, log_append_time: false };
            let (mut scratch, mut set) = (Vec::new(), Vec::new());
            let records = batch.records(&mut scratch, BYTES_MAX).expect("under a megabyte");
            message_set::write(records.flatten(), options, &mut set).expect("memory");
            bytes = set;
        }
        for (place, byte) in damage {
            *place.get_mut(&mut bytes) = byte;
        }
        if repair && bytes.len() >= batch::HEADER_BYTES {
            batch::patch_crc(&mut bytes);
        }
        read_as_records(&bytes);
    }
}
