"""kafka-python 3: a compacted topic keeps the last record of each key where it was.

Record number i has offset i, key i mod KEYS and a value that begins with i; some are tombstones.
"""

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka import errors

import expected
from expected import equal, raises

KEYS = 50
# Two MiB and a half in segments of one: two are finished.
COUNT = 2500
# The active segment, and one record of each key.
LEFT_MAX = 1100


def value_of(number):
    return None if number % KEYS == 7 else f"{number} ".encode() + b"x" * 1000


def write(bootstrap, prefix, base_ms):
    admin = KafkaAdminClient(bootstrap_servers=bootstrap)
    settings = {"cleanup.policy": "compact", "segment.bytes": "1048576",
                "min.cleanable.dirty.ratio": "0.01"}
    topic = f"{prefix}-compacted"
    admin.create_topics([NewTopic(topic, 1, 1, topic_configs=settings)])
    admin.close()
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all", compression_type="gzip",
                             enable_idempotence=True, batch_size=16384)
    unkeyed = producer.send(topic, value=b"no key")
    raises(errors.InvalidRecordError, lambda: unkeyed.get(timeout=20), "a record without key")
    producer.close()
    producer = KafkaProducer(bootstrap_servers=bootstrap, acks="all", enable_idempotence=True)
    sent = [producer.send(topic, partition=0, key=str(i % KEYS).encode(), value=value_of(i))
            for i in range(COUNT)]
    for number, future in enumerate(sent):
        equal(future.get(timeout=20).offset, number, "offset")
    producer.close()


def found(bootstrap, prefix):
    tp = TopicPartition(f"{prefix}-compacted", 0)
    consumer = KafkaConsumer(bootstrap_servers=bootstrap, enable_auto_commit=False)
    consumer.assign([tp])
    consumer.seek_to_beginning(tp)
    end = consumer.end_offsets([tp])[tp]
    records = []
    while consumer.position(tp) < end:
        for batch in consumer.poll(timeout_ms=1000).values():
            records.extend(batch)
    consumer.close()
    return records


def read(bootstrap, prefix, base_ms):
    expected.soon(lambda: len(found(bootstrap, prefix)) <= LEFT_MAX, "old records of a key go")
    records = found(bootstrap, prefix)
    for r in records:
        equal((r.key, r.value), (str(r.offset % KEYS).encode(), value_of(r.offset)),
              f"record {r.offset}")
    latest = {r.key: r.offset for r in records}
    equal(latest, {str(i % KEYS).encode(): i for i in range(COUNT - KEYS, COUNT)}, "newest of each")
    offsets = [r.offset for r in records]
    equal(offsets, sorted(set(offsets)), "in order, each once")


expected.main({f.__name__: f for f in (write, read)})
