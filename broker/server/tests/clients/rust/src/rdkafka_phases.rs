//! The crate rdkafka: admin, producers of each codec, assigned consumers, a group.

use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::consumer::{CommitMode, Consumer, StreamConsumer};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders};
use rdkafka::producer::{FutureProducer, FutureRecord};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;

use crate::expected::{self, CODECS, COUNT, PER_CODEC, Record};

const WITHIN: Duration = Duration::from_secs(20);

fn config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", bootstrap).set("group.id", "assigned-only");
    config.set("enable.auto.commit", "false").set("broker.address.family", "v4");
    config
}

pub async fn write(bootstrap: &str, topic: &str, base_ms: i64) {
    let admin: AdminClient<DefaultClientContext> = config(bootstrap).create().expect("admin");
    let wanted = NewTopic::new(topic, 3, TopicReplication::Fixed(1));
    let options = AdminOptions::new();
    let made = admin.create_topics([&wanted], &options).await.expect("create");
    assert_eq!(made[0], Ok(topic.to_owned()));
    let again = admin.create_topics([&wanted], &options).await.expect("create");
    assert_eq!(again[0], Err((topic.to_owned(), RDKafkaErrorCode::TopicAlreadyExists)));
    for (index, codec) in CODECS.iter().enumerate() {
        let mut config = config(bootstrap);
        config.set("compression.type", *codec).set("enable.idempotence", "true");
        let producer: FutureProducer = config.create().expect("producer");
        for offset in index * PER_CODEC..(index + 1) * PER_CODEC {
            let row = expected::record(offset, base_ms);
            let mut headers = OwnedHeaders::new();
            for (key, value) in &row.headers {
                headers = headers.insert(Header { key, value: Some(value) });
            }
            let mut record = FutureRecord::to(topic).partition(0).timestamp(row.timestamp);
            record.key = row.key.as_ref();
            record.payload = row.value.as_ref();
            let delivery = producer.send(record.headers(headers), WITHIN).await.expect("delivery");
            assert_eq!((delivery.partition, delivery.offset), (0, offset as i64));
        }
    }
}

async fn next(consumer: &StreamConsumer) -> (i64, Record) {
    let received = tokio::time::timeout(WITHIN, consumer.recv()).await;
    let message = received.expect("a message in time").expect("a message and no error");
    let mut headers = Vec::new();
    for header in message.headers().map(|h| h.iter().collect::<Vec<_>>()).unwrap_or_default() {
        headers.push((header.key.to_owned(), header.value.expect("not null").to_vec()));
    }
    let record = Record {
        timestamp: message.timestamp().to_millis().expect("a time"),
        key: message.key().map(<[u8]>::to_vec),
        value: message.payload().map(<[u8]>::to_vec),
        headers,
    };
    (message.offset(), record)
}

pub async fn read(bootstrap: &str, topic: &str, base_ms: i64) {
    let consumer: StreamConsumer = config(bootstrap).create().expect("consumer");
    let marks = consumer.fetch_watermarks(topic, 0, WITHIN).expect("watermarks");
    assert_eq!(marks, (0, COUNT as i64));
    for first in [0, 9, 10, 23, COUNT - 1] {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, 0, Offset::Offset(first as i64)).expect("a list");
        consumer.assign(&list).expect("assign");
        for offset in first..COUNT {
            let wanted = (offset as i64, expected::record(offset, base_ms));
            assert_eq!(next(&consumer).await, wanted, "from {first}");
        }
    }
}

pub async fn group(bootstrap: &str, topic: &str) {
    for round in 0..2 {
        let mut config = config(bootstrap);
        config.set("group.id", format!("{topic}-rust")).set("auto.offset.reset", "earliest");
        let consumer: StreamConsumer = config.create().expect("consumer");
        consumer.subscribe(&[topic]).expect("subscribe");
        for offset in round * 20..(round + 1) * 20 {
            assert_eq!(next(&consumer).await.0, offset, "round {round}");
        }
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, 0, Offset::Offset(20 * (round + 1))).expect("a list");
        consumer.commit(&list, CommitMode::Sync).expect("commit");
    }
}
