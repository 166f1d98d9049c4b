"""librdkafka through confluent-kafka: topics, all codecs, reading by offset and time, groups."""

import time

from confluent_kafka import (OFFSET_BEGINNING, OFFSET_END, OFFSET_INVALID, Consumer, KafkaError,
                             KafkaException, Producer, TopicPartition)
from confluent_kafka.admin import AdminClient, ConfigResource, NewPartitions, NewTopic

import expected
from expected import COUNT, PER_CODEC, STEP_MS, equal


def code_of(call):
    try:
        call()
    except KafkaException as error:
        return error.args[0].code()
    return None


def admin_client(bootstrap):
    return AdminClient({"bootstrap.servers": bootstrap})


def consumer_of(bootstrap, **options):
    options = {name.replace("_", "."): value for name, value in options.items()}
    return Consumer({"bootstrap.servers": bootstrap, "group.id": "assigned-only",
                     "enable.auto.commit": False, "broker.address.family": "v4", **options})


def poll(consumer, what):
    end = time.monotonic() + 15
    while time.monotonic() < end:
        message = consumer.poll(1.0)
        if message is not None:
            return message
    raise AssertionError(f"{what}: no record within 15 s")


def row_of(message):
    if message.error():
        raise AssertionError(f"{message.error()}")
    return expected.Record(message.offset(), message.timestamp()[1], message.key(), message.value(),
                           list(message.headers() or []))


def create(bootstrap, prefix, base_ms):
    admin = admin_client(bootstrap)

    def create_one(name, partitions, factor, **config):
        topic = NewTopic(name, partitions, factor, config=config)
        return code_of(lambda: admin.create_topics([topic])[name].result(20))

    name = f"{prefix}-codecs"
    equal(create_one(name, 3, 1), None, "create")
    equal(create_one(name, 3, 1), KafkaError.TOPIC_ALREADY_EXISTS, "second create")
    equal(create_one(f"{prefix}-f", 1, 3), KafkaError.INVALID_REPLICATION_FACTOR, "factor 3")
    equal(create_one(f"{prefix}-p", 0, 1), KafkaError.INVALID_PARTITIONS, "no partitions")
    equal(create_one("no/slash", 1, 1), KafkaError.TOPIC_EXCEPTION, "bad name")
    bad = create_one(f"{prefix}-c", 1, 1, **{"no.such.key": "1"})
    equal(bad, KafkaError.INVALID_CONFIG, "unknown key")


def write(bootstrap, prefix, base_ms):
    topic = f"{prefix}-codecs"
    rows = expected.records(base_ms)
    delivered = []

    def on_delivery(error, message):
        equal(error, None, "delivery")
        delivered.append((message.partition(), message.offset(), message.timestamp()[1]))

    for index, codec in enumerate(expected.CODECS):
        producer = Producer({"bootstrap.servers": bootstrap, "compression.type": codec,
                             "linger.ms": 20, "acks": "all"})
        for r in rows[index * PER_CODEC:(index + 1) * PER_CODEC]:
            producer.produce(topic, partition=0, key=r.key, value=r.value, headers=r.headers,
                             timestamp=r.timestamp, on_delivery=on_delivery)
        equal(producer.flush(20), 0, f"unsent records of {codec}")
    equal(delivered, [(0, r.offset, r.timestamp) for r in rows], "deliveries")


def read(bootstrap, prefix, base_ms):
    topic = f"{prefix}-codecs"
    rows = expected.records(base_ms)
    consumer = consumer_of(bootstrap, check_crcs=True)
    listed = consumer.list_topics(timeout=10)
    equal(sorted(listed.topics[topic].partitions), [0, 1, 2], "partitions")
    partition = listed.topics[topic].partitions[0]
    equal(partition.replicas == partition.isrs == [partition.leader], True, "replicas")

    def at(offset):
        consumer.assign([TopicPartition(topic, 0, offset)])

    at(OFFSET_BEGINNING)
    for row in rows:
        equal(row_of(poll(consumer, f"offset {row.offset}")), row, f"record {row.offset}")
    for offset in (0, 9, 10, 23, COUNT - 1):
        at(offset)
        equal(row_of(poll(consumer, f"offset {offset}")), rows[offset], f"seek {offset}")
    tp = TopicPartition(topic, 0)
    equal(consumer.get_watermark_offsets(tp, timeout=10), (0, COUNT), "watermarks")
    late = base_ms + COUNT * STEP_MS
    for when, offset in ((base_ms, 0), (base_ms + 1, 1), (base_ms + 22 * STEP_MS + 999, 23),
                         (late, OFFSET_END)):
        found = consumer.offsets_for_times([TopicPartition(topic, 0, when)], timeout=10)
        equal(found[0].offset, offset, f"offset for time {when}")
    consumer.close()
    strict = consumer_of(bootstrap, auto_offset_reset="error")
    strict.assign([TopicPartition(topic, 0, COUNT + 1000)])
    error = poll(strict, "offset beyond the end").error()
    equal(error.code(), KafkaError._AUTO_OFFSET_RESET, "offset beyond the end")
    strict.close()


def latest(bootstrap, prefix, base_ms):
    topic = f"{prefix}-codecs"
    consumer = consumer_of(bootstrap)
    end = consumer.get_watermark_offsets(TopicPartition(topic, 1), timeout=10)[1]
    consumer.assign([TopicPartition(topic, 1, OFFSET_END)])
    # The position is known once the first fetch has come back empty.
    equal(consumer.poll(2.0), None, "nothing before the write")
    for acks, idempotent in ((1, False), ("all", True), (0, False)):
        producer = Producer({"bootstrap.servers": bootstrap, "acks": acks,
                             "enable.idempotence": idempotent})
        producer.produce(topic, partition=1, value=b"acks", headers=[("null", None)])
        equal(producer.flush(20), 0, f"unsent with acks={acks}")
        message = poll(consumer, f"acks={acks}")
        equal((message.offset(), message.headers()), (end, [("null", None)]), f"acks={acks}")
        end += 1
    consumer.close()


def too_large(bootstrap, prefix, base_ms):
    topic = f"{prefix}-codecs"
    errors = []
    producer = Producer({"bootstrap.servers": bootstrap, "message.max.bytes": 5_000_000})
    for size in (1_000_000, 1_100_000):
        producer.produce(topic, partition=2, value=b"y" * size,
                         on_delivery=lambda error, _: errors.append(error and error.code()))
        producer.flush(20)
    equal(errors, [None, KafkaError.MSG_SIZE_TOO_LARGE], "1.0 and 1.1 MB")
    consumer = consumer_of(bootstrap, max_partition_fetch_bytes=1000, fetch_max_bytes=1000,
                           message_max_bytes=1000)
    consumer.assign([TopicPartition(topic, 2, OFFSET_BEGINNING)])
    message = poll(consumer, "a record above the fetch limit")
    equal(len(message.value()), 1_000_000, "a record above the fetch limit comes whole")
    consumer.close()


def group(bootstrap, prefix, base_ms):
    topic, name = f"{prefix}-codecs", f"{prefix}-group-rd"
    consumer = consumer_of(bootstrap, group_id=name, auto_offset_reset="earliest")
    consumer.subscribe([topic])
    offsets = []
    while len(offsets) < COUNT:
        message = poll(consumer, "group")
        if message.partition() == 0:
            offsets.append(message.offset())
    equal(offsets, list(range(COUNT)), "offsets of partition 0")
    commit = [TopicPartition(topic, 0, 17, "note é")]
    committed = consumer.commit(offsets=commit, asynchronous=False)
    equal(committed[0].error, None, "commit")
    back = consumer.committed([TopicPartition(topic, 0), TopicPartition(topic, 1)], timeout=10)
    back = [(p.offset, p.metadata) for p in back]
    equal(back, [(17, "note é"), (OFFSET_INVALID, None)], "commits")
    consumer.close()
    second = consumer_of(bootstrap, group_id=name, auto_offset_reset="latest")
    second.subscribe([topic])
    message = poll(second, "group, again")
    equal((message.partition(), message.offset()), (0, 17), "goes on from the commit")
    second.close()


def configs(bootstrap, prefix, base_ms):
    admin = admin_client(bootstrap)
    topic = f"{prefix}-codecs"
    resource = ConfigResource(ConfigResource.Type.TOPIC, topic)
    entries = admin.describe_configs([resource])[resource].result(20)
    for key, value in (("cleanup.policy", "delete"), ("retention.ms", "604800000"),
                       ("max.message.bytes", "1048588")):
        equal(entries[key].value, value, key)
        equal(entries[key].is_default, True, f"{key} is a default")
    missing = ConfigResource(ConfigResource.Type.TOPIC, f"{prefix}-missing")
    code = code_of(lambda: admin.describe_configs([missing])[missing].result(20))
    equal(code, KafkaError.UNKNOWN_TOPIC_OR_PART, "configuration of a missing topic")
    cluster = admin.describe_cluster().result(20)
    equal((len(cluster.nodes), bool(cluster.cluster_id)), (1, True), "cluster")


def partitions(bootstrap, prefix, base_ms):
    admin = admin_client(bootstrap)
    topic = f"{prefix}-codecs"

    def grow(count):
        request = [NewPartitions(topic, count)]
        return code_of(lambda: admin.create_partitions(request)[topic].result(20))

    equal(grow(5), None, "three to five")
    equal(grow(4), KafkaError.INVALID_PARTITIONS, "five to four")
    listed = admin.list_topics(topic, timeout=10).topics[topic].partitions
    equal(sorted(listed), [0, 1, 2, 3, 4], "partitions")


def delete(bootstrap, prefix, base_ms):
    admin = admin_client(bootstrap)
    topic = f"{prefix}-codecs"

    def delete_one():
        return code_of(lambda: admin.delete_topics([topic])[topic].result(20))

    equal(delete_one(), None, "delete")
    equal(delete_one(), KafkaError.UNKNOWN_TOPIC_OR_PART, "deleted twice")
    listed = lambda: admin.list_topics(timeout=10).topics
    expected.soon(lambda: topic not in listed(), "deleted topic is not listed")


expected.main({f.__name__: f for f in (
    create, write, read, latest, too_large, group, configs, partitions, delete)})
