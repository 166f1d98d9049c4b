//! The crate rskafka: no groups; every codec but none is a feature of it.

use std::collections::BTreeMap;

use rskafka::chrono::{DateTime, Utc};
use rskafka::client::error::{Error, ProtocolError};
use rskafka::client::partition::{Compression, OffsetAt, PartitionClient, UnknownTopicHandling};
use rskafka::client::{Client, ClientBuilder};

use crate::expected::{self, CODECS, COUNT, PER_CODEC, STEP_MS};

async fn client(bootstrap: &str) -> Client {
    ClientBuilder::new(vec![bootstrap.to_owned()]).build().await.expect("client")
}

async fn partition(client: &Client, topic: &str) -> PartitionClient {
    client.partition_client(topic, 0, UnknownTopicHandling::Retry).await.expect("partition")
}

fn time(ms: i64) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(ms).expect("in range")
}

/// The record of an offset; rskafka keeps headers in a map, so one of two equal keys remains.
fn record(offset: usize, base_ms: i64) -> rskafka::record::Record {
    let row = expected::record(offset, base_ms);
    let headers: BTreeMap<_, _> = row.headers.into_iter().collect();
    let timestamp = time(row.timestamp);
    rskafka::record::Record { key: row.key, value: row.value, headers, timestamp }
}

pub async fn write(bootstrap: &str, topic: &str, base_ms: i64) {
    let client = client(bootstrap).await;
    let controller = client.controller_client().expect("controller");
    controller.create_topic(topic, 3, 1, 10_000).await.expect("create");
    let again = controller.create_topic(topic, 3, 1, 10_000).await;
    let code = matches!(
        again,
        Err(Error::ServerError { protocol_error: ProtocolError::TopicAlreadyExists, .. })
    );
    assert!(code, "second create: {again:?}");
    let partition = partition(&client, topic).await;
    let compressions = [
        Compression::NoCompression,
        Compression::Gzip,
        Compression::Snappy,
        Compression::Lz4,
        Compression::Zstd,
    ];
    assert_eq!(compressions.len(), CODECS.len());
    for (index, compression) in compressions.into_iter().enumerate() {
        let first = index * PER_CODEC;
        let rows = (first..first + PER_CODEC).map(|offset| record(offset, base_ms)).collect();
        let offsets = partition.produce(rows, compression).await.expect("produce");
        let wanted: Vec<i64> = (first as i64..(first + PER_CODEC) as i64).collect();
        assert_eq!(offsets, wanted);
    }
}

pub async fn read(bootstrap: &str, topic: &str, base_ms: i64) {
    let client = client(bootstrap).await;
    let topics = client.list_topics().await.expect("topics");
    let found = topics.iter().find(|t| t.name == topic).expect("the topic is listed");
    assert_eq!(found.partitions.len(), 3);
    let partition = partition(&client, topic).await;
    let within = time(base_ms + 22 * STEP_MS + 999);
    let rows =
        [(OffsetAt::Earliest, 0), (OffsetAt::Latest, COUNT), (OffsetAt::Timestamp(within), 23)];
    for (at, offset) in rows {
        assert_eq!(partition.get_offset(at).await.expect("offset"), offset as i64, "{at:?}");
    }
    for first in [0, 9, 10, 23, COUNT - 1] {
        let mut next = first;
        while next < COUNT {
            let (records, end) = partition
                .fetch_records(next as i64, 1..1_000_000, 1000)
                .await
                .expect("fetch");
            assert_eq!(end, COUNT as i64, "high watermark");
            for found in records {
                assert_eq!(found.offset, next as i64, "from {first}");
                assert_eq!(found.record, record(next, base_ms), "record {next}");
                next += 1;
            }
        }
    }
    let beyond = partition.fetch_records(1000, 1..1_000_000, 1000).await;
    let code = matches!(
        beyond,
        Err(Error::ServerError { protocol_error: ProtocolError::OffsetOutOfRange, .. })
    );
    assert!(code, "beyond the end: {beyond:?}");
}

pub async fn delete(bootstrap: &str, topic: &str) {
    let client = client(bootstrap).await;
    let partition = partition(&client, topic).await;
    partition.delete_records(7, 10_000).await.expect("delete records");
    assert_eq!(partition.get_offset(OffsetAt::Earliest).await.expect("offset"), 7);
    client.controller_client().expect("controller").delete_topic(topic, 10_000).await.expect("delete");
}
