//! What a topic's settings make of the records sent to it, as its readers see them.

use crate::process::Broker;
use crate::programs::Names;
use crate::raw::{
    Connection, batch, create_topic_with, fetch, i16_at, i64_at, produce_when_ready, spoilt,
};

const NONE: i16 = 0;
const MESSAGE_TOO_LARGE: i16 = 10;
const INVALID_TIMESTAMP: i16 = 32;
const INVALID_RECORD: i16 = 87;

/// Positions in a batch.
const ATTRIBUTES: usize = 21;
const BASE_TIMESTAMP: usize = 27;
const MAX_TIMESTAMP: usize = 35;

#[test]
fn records_are_refused_or_stored_as_the_topic_says() {
    let far_ahead = i64::MAX / 4;
    let ahead = spoilt(BASE_TIMESTAMP, &[far_ahead.to_be_bytes(); 2].concat());
    let long_ago = spoilt(BASE_TIMESTAMP, &[1_i64.to_be_bytes(); 2].concat());
    let claims_append_time = spoilt(ATTRIBUTES, &8_i16.to_be_bytes());
    let wrong_max = spoilt(MAX_TIMESTAMP, &far_ahead.to_be_bytes());
    let sent = batch(b"value");
    const APPEND_TIME: (&str, &str) = ("message.timestamp.type", "LogAppendTime");
    const BEFORE: (&str, &str) = ("message.timestamp.before.max.ms", "60000");
    const AFTER: (&str, &str) = ("message.timestamp.after.max.ms", "60000");
    // settings, batch, error, attributes as stored
    type Row<'a> = (&'a [(&'a str, &'a str)], &'a [u8], i16, i16);
    let rows: &[Row<'_>] = &[
        (&[], &sent, NONE, 0),
        (&[("compression.type", "producer")], &sent, NONE, 0),
        (&[("compression.type", "uncompressed")], &sent, NONE, 0),
        (&[("compression.type", "gzip")], &sent, NONE, 1),
        (&[("compression.type", "snappy")], &sent, NONE, 2),
        (&[("compression.type", "lz4")], &sent, NONE, 3),
        (&[("compression.type", "zstd")], &sent, NONE, 4),
        (&[("compression.type", "gzip"), APPEND_TIME], &sent, NONE, 9),
        (&[APPEND_TIME], &sent, NONE, 8),
        (&[APPEND_TIME], &claims_append_time, INVALID_TIMESTAMP, 0),
        (&[], &claims_append_time, NONE, 0),
        (&[], &wrong_max, NONE, 0),
        (&[], &ahead, INVALID_TIMESTAMP, 0),
        (&[AFTER], &ahead, INVALID_TIMESTAMP, 0),
        (&[], &long_ago, NONE, 0),
        (&[BEFORE], &long_ago, INVALID_TIMESTAMP, 0),
        (&[BEFORE, AFTER, APPEND_TIME], &long_ago, NONE, 8),
        (&[("max.message.bytes", "60")], &sent, MESSAGE_TOO_LARGE, 0),
        (&[("cleanup.policy", "compact")], &sent, INVALID_RECORD, 0),
    ];
    let broker = Broker::start(&[]);
    let mut client = Connection::open(broker.bootstrap());
    let mut wrong = Vec::new();
    for (number, (settings, records, error, attributes)) in rows.iter().enumerate() {
        let topic = Names::fresh().topic(&format!("settings-{number}"));
        assert_eq!(create_topic_with(&mut client, &topic, settings), 0, "{settings:?}");
        let found = produce_when_ready(&mut client, &topic, records).0;
        if found != *error {
            wrong.push(format!("{settings:?}: error {found}, expected {error}"));
            continue;
        }
        if found != NONE {
            continue;
        }
        // Fetch v4: Apache Kafka up to 3.9 refuses its readers zstd, 4.3 does not.
        let (error, stored) = fetch(&mut client, &topic, 0);
        assert_eq!(error, NONE, "{settings:?}");
        let (bits, max) = (i16_at(&stored, ATTRIBUTES), i64_at(&stored, MAX_TIMESTAMP));
        if bits != *attributes || max == far_ahead {
            wrong.push(format!("{settings:?}: stored with {bits} and time {max}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
