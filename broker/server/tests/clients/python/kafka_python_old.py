"""kafka-python 1.4.7 and 2.0.2: what the tutorials of their time do."""

import hashlib
import json
import threading

import kafka
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka import errors
from kafka.admin import ConfigResource, ConfigResourceType, NewPartitions, NewTopic
from kafka.consumer import fetcher

import expected
from expected import COUNT, PER_CODEC, STEP_MS, equal, raises

HAS_ZSTD = kafka.__version__ >= "2"


def consumer_of(bootstrap, **options):
    options = {"enable_auto_commit": False, "consumer_timeout_ms": 10000, **options}
    return KafkaConsumer(bootstrap_servers=bootstrap, **options)


def producer_of(bootstrap, **options):
    return KafkaProducer(bootstrap_servers=bootstrap, **options)


def take(consumer, count, what):
    found = []
    for record in consumer:
        found.append(record)
        if len(found) == count:
            return found
    raise AssertionError(f"{what}: {len(found)} of {count} records")


def create(bootstrap, prefix, base_ms):
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    topic = NewTopic(f"{prefix}-codecs", 3, 1)
    admin.create_topics([topic])
    try:
        admin.create_topics([topic])
    except errors.TopicAlreadyExistsError as error:
        equal(error.message, "TOPIC_ALREADY_EXISTS", "message of the error")
    else:
        raise AssertionError("the topic was created twice")
    factor = errors.InvalidReplicationFactorError
    raises(factor, lambda: admin.create_topics([NewTopic(f"{prefix}-f", 8, 3)]), "factor 3")
    admin.close()


def write(bootstrap, prefix, base_ms):
    topic = f"{prefix}-codecs"
    rows = expected.records(base_ms)
    for index, codec in enumerate(expected.CODECS):
        usable = codec != "none" and (codec != "zstd" or HAS_ZSTD)
        producer = producer_of(bootstrap, linger_ms=20, acks="all",
                               compression_type=codec if usable else None)
        batch = rows[index * PER_CODEC:(index + 1) * PER_CODEC]
        sent = [producer.send(topic, partition=0, key=r.key, value=r.value, headers=r.headers,
                              timestamp_ms=r.timestamp) for r in batch]
        for r, future in zip(batch, sent):
            metadata = future.get(timeout=20)
            equal((metadata.partition, metadata.offset, metadata.timestamp),
                  (0, r.offset, r.timestamp), f"metadata of {codec}")
        producer.close()


def read(bootstrap, prefix, base_ms):
    topic = f"{prefix}-codecs"
    tp = TopicPartition(topic, 0)
    rows = expected.records(base_ms)
    consumer = consumer_of(bootstrap)
    equal(topic in consumer.topics(), True, "topic is listed")
    equal(consumer.partitions_for_topic(topic), {0, 1, 2}, "partitions")
    equal(consumer.partitions_for_topic(f"{prefix}-missing"), None, "partitions of a missing topic")
    consumer.assign([tp])
    consumer.seek_to_beginning(tp)
    for r, row in zip(take(consumer, COUNT, "all"), rows):
        found = expected.Record(r.offset, r.timestamp, r.key, r.value, list(r.headers))
        equal(found, row, f"record {row.offset}")
    equal(consumer.beginning_offsets([tp]), {tp: 0}, "beginning")
    equal(consumer.end_offsets([tp]), {tp: COUNT}, "end")
    for offset in (0, 5, 23, COUNT - 1):
        consumer.seek(tp, offset)
        equal(take(consumer, 1, "seek")[0].offset, offset, f"seek {offset}")
    hit = consumer.offsets_for_times({tp: base_ms + 22 * STEP_MS + 999})[tp]
    equal((hit.offset, hit.timestamp), (23, rows[23].timestamp), "offset for a time")
    late = base_ms + COUNT * STEP_MS
    equal(consumer.offsets_for_times({tp: late})[tp], None, "time after the last record")
    consumer.seek_to_end(tp)
    equal(consumer.position(tp), COUNT, "position at the end")
    equal(topic in consumer.topics(), True, "topic is listed")
    equal("__consumer_offsets" in consumer.topics(), False, "internal topics are hidden")
    consumer.close()


def four_records(bootstrap, prefix, base_ms):
    """Tutorial 000-A: a missing topic is made by the first send; commits are kept."""
    topic, group = f"{prefix}-four", f"{prefix}-four-group"
    texts = [{"序号": i, "文字": "你好，卡夫卡"} for i in range(8)]

    def encode(value):
        return json.dumps(value, ensure_ascii=False).encode()

    producer = producer_of(bootstrap, value_serializer=encode)
    for i, text in enumerate(texts):
        metadata = producer.send(topic, text, partition=0).get(timeout=20)
        equal(metadata.offset, i, "offset")
    producer.close()

    tp = TopicPartition(topic, 0)
    for wanted in (texts, []):
        consumer = consumer_of(bootstrap, group_id=group, auto_offset_reset="earliest",
                               value_deserializer=json.loads, consumer_timeout_ms=1500)
        consumer.assign([tp])
        found = []
        for record in consumer:
            found.append(record.value)
            consumer.commit()
            equal(consumer.committed(tp), record.offset + 1, "committed")
        equal(found, wanted, "records of this run")
        equal(consumer.position(tp), 8, "position")
        consumer.close()

    strict = consumer_of(bootstrap, group_id=f"{group}-none", auto_offset_reset="none")
    strict.assign([tp])
    missing = fetcher.NoOffsetForPartitionError
    raises(missing, lambda: strict.poll(timeout_ms=5000), "no offset")
    strict.close()


def groups(bootstrap, prefix, base_ms):
    """Tutorial 000-B: a queue within a group, a broadcast to another, and taking over."""
    topic = f"{prefix}-queue"
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    admin.create_topics([NewTopic(topic, 2, 1)])
    members = [Member(bootstrap, topic, f"{prefix}-queue-{name}") for name in ("a", "a", "b")]
    expected.soon(lambda: [len(m.assigned) for m in members] == [1, 1, 2], "assignment")
    producer = producer_of(bootstrap)
    for i in range(100):
        producer.send(topic, value=b"%d" % i, partition=i % 2)
    producer.flush()
    expected.soon(lambda: len(members[0].seen) + len(members[1].seen) == 100, "queue")
    expected.soon(lambda: len(members[2].seen) == 100, "broadcast")
    equal(len(set(members[0].seen) | set(members[1].seen)), 100, "no record twice")
    names = admin.list_consumer_groups()
    equal((f"{prefix}-queue-a", "consumer") in names, True, "the group is listed")
    busy = consumer_of(bootstrap, group_id=f"{prefix}-queue-a")
    busy.assign([TopicPartition(topic, 0)])
    busy.seek(TopicPartition(topic, 0), 1)
    raises(errors.CommitFailedError, busy.commit, "a commit from outside while it has members")
    busy.close()
    members[0].stop()
    expected.soon(lambda: len(members[1].assigned) == 2, "the other takes over")
    before = len(members[1].seen)
    for i in range(100, 200):
        producer.send(topic, value=b"%d" % i, partition=i % 2)
    producer.close()
    expected.soon(lambda: len(members[1].seen) - before == 100, "queue of one")
    members[1].stop()
    members[2].stop()
    offsets = admin.list_consumer_group_offsets(f"{prefix}-queue-a")
    equal({tp.partition: o.offset for tp, o in offsets.items()}, {0: 100, 1: 100}, "committed")
    admin.close()


class Member:
    """A consumer in a thread of its own; it commits when it is stopped."""

    def __init__(self, bootstrap, topic, group):
        self.seen, self.assigned, self.stopping = [], set(), False
        self.consumer = KafkaConsumer(
            topic, bootstrap_servers=bootstrap, group_id=group, auto_offset_reset="earliest",
            heartbeat_interval_ms=300, session_timeout_ms=6000)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.stopping:
            for records in self.consumer.poll(timeout_ms=100).values():
                self.seen.extend(r.value for r in records)
            self.assigned = self.consumer.assignment()
        self.consumer.close()

    def stop(self):
        self.stopping = True
        self.thread.join()


def admin(bootstrap, prefix, base_ms):
    """Tutorial 000-C."""
    topic = f"{prefix}-codecs"
    client = KafkaAdminClient(bootstrap_servers=bootstrap)
    answer = client.describe_configs([ConfigResource(ConfigResourceType.TOPIC, topic)])
    answer = answer[0] if isinstance(answer, list) else answer
    error, _, _, name, entries = answer.resources[0][:5]
    equal((error, name), (0, topic), "describe_configs")
    values = {entry[0]: entry[1] for entry in entries}
    for key, value in (("cleanup.policy", "delete"), ("retention.ms", "604800000"),
                       ("max.message.bytes", "1048588")):
        equal(values.get(key), value, key)
    equal("min.insync.replicas" in values, True, "min.insync.replicas")
    client.alter_configs([ConfigResource(ConfigResourceType.TOPIC, topic, {"retention.ms": "9"})])
    client.create_partitions({topic: NewPartitions(5)})
    consumer = consumer_of(bootstrap)
    expected.soon(lambda: len(consumer.partitions_for_topic(topic)) == 5, "five partitions")
    consumer.close()
    client.close()


def partitioner(bootstrap, prefix, base_ms):
    """Tutorial 002-B: an own partitioner, acks=all, then snappy with five requests in flight."""
    topic = f"{prefix}-codecs"

    def by_digest(key, every, available):
        return every[int(hashlib.md5(key).hexdigest(), 16) % len(every)]

    producer = producer_of(bootstrap, partitioner=by_digest, acks="all")
    sent = [(k, producer.send(topic, key=b"%d" % k, value=b"v")) for k in range(300)]
    for k, future in sent:
        wanted = int(hashlib.md5(b"%d" % k).hexdigest(), 16) % 3
        equal(future.get(timeout=20).partition, wanted, f"partition of key {k}")
    producer.close()
    producer = producer_of(bootstrap, compression_type="snappy", acks=1, batch_size=1000,
                           max_in_flight_requests_per_connection=5)
    sent = [producer.send(topic, partition=1, value=b"%d" % i * 20) for i in range(1000)]
    offsets = [future.get(timeout=20).offset for future in sent]
    equal(offsets, list(range(offsets[0], offsets[0] + 1000)), "offsets in order")
    producer.close()
    consumer = consumer_of(bootstrap, fetch_min_bytes=1024)
    consumer.assign([TopicPartition(topic, 1)])
    consumer.seek(TopicPartition(topic, 1), offsets[0])
    values = [r.value for r in take(consumer, 1000, "snappy")]
    equal(values, [b"%d" % i * 20 for i in range(1000)], "values in order")
    consumer.close()


def delete(bootstrap, prefix, base_ms):
    topic = f"{prefix}-codecs"
    client = KafkaAdminClient(bootstrap_servers=bootstrap)
    client.delete_topics([topic])
    unknown = errors.UnknownTopicOrPartitionError
    raises(unknown, lambda: client.delete_topics([topic]), "deleted twice")
    client.close()


expected.main({f.__name__: f for f in (
    create, write, read, four_records, groups, admin, partitioner, delete)})
