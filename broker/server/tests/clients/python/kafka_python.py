"""kafka-python 3: topics, all codecs, reading by offset and by time, groups, errors."""

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka import errors
from kafka.structs import OffsetAndMetadata, TopicPartitionReplica

import expected
from expected import COUNT, PER_CODEC, STEP_MS, equal, raises


def admin_client(bootstrap):
    return KafkaAdminClient(bootstrap_servers=bootstrap)


def consumer_of(bootstrap, **options):
    options = {"enable_auto_commit": False, **options}
    return KafkaConsumer(bootstrap_servers=bootstrap, **options)


def create(bootstrap, prefix, base_ms):
    admin = admin_client(bootstrap)
    topic = NewTopic(f"{prefix}-codecs", num_partitions=3, replication_factor=1)
    admin.create_topics([topic])
    raises(errors.TopicAlreadyExistsError, lambda: admin.create_topics([topic]), "second create")
    too_many = NewTopic(f"{prefix}-three", num_partitions=1, replication_factor=3)
    factor = errors.InvalidReplicationFactorError
    raises(factor, lambda: admin.create_topics([too_many]), "factor 3")
    bad_name = NewTopic("no/slash", num_partitions=1, replication_factor=1)
    raises(errors.InvalidTopicError, lambda: admin.create_topics([bad_name]), "bad name")
    log_dirs(admin, topic.name)
    admin.close()


def log_dirs(admin, topic):
    """A partition may go to the folder where it is."""
    node, = admin.describe_log_dirs()
    own = node["log_dirs"][0]["log_dir"]
    for name, folder, error in (
            (topic, own, errors.NoError),
            (f"{topic}-x", own, errors.UnknownTopicOrPartitionError),
            (topic, "/no/such/folder", errors.LogDirNotFoundError)):
        replica = TopicPartitionReplica(name, 0, node["broker"])
        equal(admin.alter_replica_log_dirs({replica: folder})[replica], error, folder)


def write(bootstrap, prefix, base_ms):
    topic = f"{prefix}-codecs"
    rows = expected.records(base_ms)
    for index, codec in enumerate(expected.CODECS):
        producer = KafkaProducer(
            bootstrap_servers=bootstrap, acks="all", linger_ms=20,
            compression_type=None if codec == "none" else codec)
        batch = rows[index * PER_CODEC:(index + 1) * PER_CODEC]
        sent = [producer.send(topic, partition=0, key=r.key, value=r.value, headers=r.headers,
                              timestamp_ms=r.timestamp) for r in batch]
        for r, future in zip(batch, sent):
            metadata = future.get(timeout=20)
            equal((metadata.topic, metadata.partition, metadata.offset, metadata.timestamp),
                  (topic, 0, r.offset, r.timestamp), f"metadata of {codec}")
        producer.close()


def read_plain(bootstrap, prefix, base_ms):
    """What a client of the formats before headers wrote."""
    rows = [r._replace(headers=[]) for r in expected.records(base_ms)]
    read_rows(bootstrap, prefix, base_ms, rows)


def read(bootstrap, prefix, base_ms):
    read_rows(bootstrap, prefix, base_ms, expected.records(base_ms))


def read_rows(bootstrap, prefix, base_ms, rows):
    topic = f"{prefix}-codecs"
    tp = TopicPartition(topic, 0)
    consumer = consumer_of(bootstrap, consumer_timeout_ms=10000, auto_offset_reset="earliest")
    equal(topic in consumer.topics(), True, "topic is listed")
    equal(consumer.partitions_for_topic(topic), {0, 1, 2}, "partitions")
    consumer.assign([tp])

    def from_here(count):
        found = []
        for r in consumer:
            equal((r.topic, r.partition, r.timestamp_type), (topic, 0, 0), "topic of a record")
            found.append(expected.Record(r.offset, r.timestamp, r.key, r.value, list(r.headers)))
            if len(found) == count:
                break
        return found

    consumer.seek_to_beginning(tp)
    found = from_here(COUNT)
    for r, row in zip(found, rows):
        equal(r, row, f"record {row.offset}")
    equal(len(found), COUNT, "records in all")
    equal(consumer.beginning_offsets([tp]), {tp: 0}, "beginning")
    equal(consumer.end_offsets([tp]), {tp: COUNT}, "end")
    consumer.seek_to_end(tp)
    equal(consumer.position(tp), COUNT, "position at the end")
    for offset in (0, 9, 10, 23, COUNT - 1):
        consumer.seek(tp, offset)
        equal(from_here(1), [rows[offset]], f"seek {offset}")
    within = base_ms + 22 * STEP_MS + 999
    for when, offset in ((0, 0), (base_ms, 0), (base_ms + 1, 1), (within, 23)):
        hit = consumer.offsets_for_times({tp: when})[tp]
        equal((hit.offset, hit.timestamp), (offset, rows[offset].timestamp), f"time {when}")
        consumer.seek(tp, hit.offset)
        equal(from_here(1), [rows[offset]], f"record at time {when}")
    late = base_ms + COUNT * STEP_MS
    equal(consumer.offsets_for_times({tp: late})[tp], None, "time after the last record")
    consumer.close()
    read_out_of_range(bootstrap, tp)


def read_out_of_range(bootstrap, tp):
    strict = consumer_of(bootstrap, auto_offset_reset="none")
    strict.assign([tp])
    strict.seek(tp, COUNT + 1000)

    def poll_until_error():
        for _ in range(20):
            strict.poll(timeout_ms=500)

    raises(errors.OffsetOutOfRangeError, poll_until_error, "offset beyond the end")
    strict.close()


def latest(bootstrap, prefix, base_ms):
    """Reading from the end sees only what comes afterwards; partition 1 is used, of any length."""
    topic = f"{prefix}-codecs"
    tp = TopicPartition(topic, 1)
    consumer = consumer_of(bootstrap, auto_offset_reset="latest", consumer_timeout_ms=10000)
    consumer.assign([tp])
    end = consumer.position(tp)
    equal(consumer.end_offsets([tp]), {tp: end}, "latest is the end")
    for acks in (1, "all", 0):
        producer = KafkaProducer(bootstrap_servers=bootstrap, acks=acks,
                                 enable_idempotence=acks == "all")
        metadata = producer.send(topic, partition=1, value=b"acks").get(timeout=20)
        if acks != 0:
            equal(metadata.offset, end, f"offset with acks={acks}")
        producer.close()
        equal(next(consumer).offset, end, f"record sent with acks={acks}")
        end += 1
    consumer.close()


def too_large(bootstrap, prefix, base_ms):
    topic = f"{prefix}-codecs"
    producer = KafkaProducer(bootstrap_servers=bootstrap, max_request_size=5_000_000)
    large = producer.send(topic, partition=2, value=b"y" * 1_000_000)
    large.get(timeout=20)
    refused = producer.send(topic, partition=2, value=b"y" * 1_100_000)
    raises(errors.MessageSizeTooLargeError, lambda: refused.get(timeout=20), "1.1 MB record")
    producer.close()
    consumer = consumer_of(bootstrap, consumer_timeout_ms=10000, max_partition_fetch_bytes=1000)
    tp = TopicPartition(topic, 2)
    consumer.assign([tp])
    consumer.seek_to_beginning(tp)
    equal(len(next(consumer).value), 1_000_000, "a record above the fetch limit comes whole")
    consumer.close()


def group(bootstrap, prefix, base_ms):
    topic, name = f"{prefix}-codecs", f"{prefix}-group-kp"
    tp = TopicPartition(topic, 0)
    strict = consumer_of(bootstrap, group_id=f"{name}-none", auto_offset_reset="none")
    strict.assign([tp])
    raises(errors.NoOffsetForPartitionError, lambda: strict.poll(timeout_ms=5000), "no offset")
    strict.close()

    first = consumer_of(bootstrap, group_id=name, auto_offset_reset="earliest",
                        consumer_timeout_ms=15000)
    first.subscribe([topic])
    seen = {0: [], 1: [], 2: []}
    for r in first:
        seen[r.partition].append(r.offset)
        if len(seen[0]) == COUNT:
            break
    equal(seen[0], list(range(COUNT)), "offsets of partition 0")
    equal(first.assignment(), {TopicPartition(topic, p) for p in range(3)}, "assignment")
    first.commit({tp: OffsetAndMetadata(17, "note é", -1)})
    equal(first.committed(tp), 17, "committed")
    first.close()

    second = consumer_of(bootstrap, group_id=name, auto_offset_reset="latest",
                         consumer_timeout_ms=15000)
    second.subscribe([topic])
    for r in second:
        if r.partition == 0:
            equal(r.offset, 17, "goes on from the commit")
            break
    second.close()


def delete(bootstrap, prefix, base_ms):
    topic = f"{prefix}-codecs"
    admin = admin_client(bootstrap)
    admin.delete_topics([topic])
    unknown = errors.UnknownTopicOrPartitionError
    raises(unknown, lambda: admin.delete_topics([topic]), "deleted twice")
    admin.close()
    consumer = consumer_of(bootstrap)
    expected.soon(lambda: topic not in consumer.topics(), "deleted topic is not listed")
    consumer.close()


expected.main({f.__name__: f for f in (
    create, write, read, read_plain, latest, too_large, group, delete)})
