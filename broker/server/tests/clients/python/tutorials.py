"""kafka-python 1.3.3, 1.4.7, 2.0.2: programs of the tutorials, row by row (docs/tutorials.md)."""

import json
import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import kafka
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka import errors
from kafka.client_async import KafkaClient
from kafka.protocol.admin import CreateTopicsRequest_v0

import expected
from expected import equal, raises

DEAD = ["127.0.0.1:1", "127.0.0.1:2"]
IS_1_3 = kafka.__version__.startswith("1.3")


def consumer_of(bootstrap, *topics, **options):
    return KafkaConsumer(*topics, **{"bootstrap_servers": bootstrap, "enable_auto_commit": False,
                                     "consumer_timeout_ms": 10000, **options})


def producer_of(bootstrap, **options):
    return KafkaProducer(bootstrap_servers=bootstrap, **options)


def admin_of(bootstrap):
    from kafka import KafkaAdminClient
    return KafkaAdminClient(bootstrap_servers=bootstrap)


def take(consumer, count, what):
    found = []
    for record in consumer:
        found.append(record)
        if len(found) == count:
            return found
    raise AssertionError(f"{what}: {len(found)} of {count} records")


def fill(bootstrap, topic, values, **options):
    producer = producer_of(bootstrap, **options)
    sent = [producer.send(topic, value) for value in values]
    producer.flush()
    metadata = [future.get(timeout=20) for future in sent]
    producer.close()
    return metadata


def create_by_hand(client, topic, partitions, configs=()):
    """CreateTopics v0 to the one broker, as the tutorials do it with the client's inner parts."""
    expected.soon(lambda: client.poll(timeout_ms=50) is None or client.cluster.brokers(), "broker")
    node = next(iter(client.cluster.brokers())).nodeId
    expected.soon(lambda: client.poll(timeout_ms=50) is None or client.ready(node), "connection")
    request = CreateTopicsRequest_v0(
        create_topic_requests=[(topic, partitions, -1, [], list(configs))], timeout=10000)
    future = client.send(node, request)
    no_sleep = {"sleep": False} if IS_1_3 else {}
    while not future.is_done:
        client.poll(timeout_ms=100, future=future, **no_sleep)
    value = future.value
    return (value.topic_error_codes if IS_1_3 else value.topic_errors)[0][1]


def by_hand(bootstrap, prefix, base_ms):
    """001-122 to 126: names without internal topics, a topic with a setting, then error 36."""
    client = KafkaClient(bootstrap_servers=bootstrap)
    topic = f"{prefix}-by-hand"
    configs = [("retention.ms", "3600000")]
    equal(create_by_hand(client, topic, 1, configs), 0, "created by CreateTopics v0")
    equal(create_by_hand(client, topic, 1, configs), 36, "created again")
    future = client.cluster.request_update()
    while not future.is_done:
        client.poll(timeout_ms=100, future=future)
    names = client.cluster.topics(exclude_internal_topics=True)
    equal((topic in names, "__consumer_offsets" in names), (True, False), "names")
    client.close()


def by_hand_seen(bootstrap, prefix, base_ms):
    from kafka.admin import ConfigResource, ConfigResourceType
    admin = admin_of(bootstrap)
    topic = ConfigResource(ConfigResourceType.TOPIC, f"{prefix}-by-hand")
    answer = admin.describe_configs([topic])
    answer = answer[0] if isinstance(answer, list) else answer
    values = {entry[0]: entry[1] for entry in answer.resources[0][4]}
    equal(values["retention.ms"], "3600000", "the setting given at creation")
    admin.close()


def sends(bootstrap, prefix, base_ms):
    """001-97 to 103, 002-07 to 10, 004-11: results, callbacks, serializers, dead servers."""
    topic = f"{prefix}-sends"
    producer = KafkaProducer(bootstrap_servers=DEAD + [bootstrap], retries=5)
    metadata = producer.send(topic, b"raw_bytes").get(timeout=20)
    equal((metadata.topic, metadata.partition, metadata.offset), (topic, 0, 0), "metadata")
    metadata = producer.send(topic, key=b"foo", value=b"bar").get(timeout=20)
    equal((metadata.offset, metadata.serialized_key_size), (1, 3), "metadata with a key")
    done, failed = [], []
    for i in range(100):
        future = producer.send(topic, b"%d" % i)
        future.add_callback(done.append).add_errback(failed.append)
    producer.flush()
    equal(([m.offset for m in done], failed), (list(range(2, 102)), []), "callbacks in order")
    producer.close()
    values = [{"id": i, "name": f"名 {i}"} for i in range(6)]
    for name, encode, decode in (
            ("json", lambda v: json.dumps(v, ensure_ascii=False).encode(), json.loads),
            ("binary", pickle.dumps, pickle.loads)):
        fill(bootstrap, f"{topic}-{name}", values, value_serializer=encode, acks="all",
             retries=3, batch_size=16384, linger_ms=10, buffer_memory=33554432)
        consumer = consumer_of(bootstrap, f"{topic}-{name}", auto_offset_reset="earliest",
                               value_deserializer=decode)
        equal([r.value for r in take(consumer, 6, name)], values, name)
        consumer.close()
    consumer = consumer_of(bootstrap, topic, auto_offset_reset="smallest")
    records = take(consumer, 102, "all")
    equal([r.value for r in records[2:]], [b"%d" % i for i in range(100)], "values in order")
    if IS_1_3:
        equal(metadata.checksum, records[1].checksum, "checksum of a converted record")
    consumer.close()
    # A producer and a consumer that do nothing leave nothing behind.
    idle = consumer_of(bootstrap, group_id=f"{prefix}-idle-group")
    idle.close()
    producer_of(bootstrap).close()


def keys(bootstrap, prefix, base_ms):
    """001-10, 001-11, 002-22: a key has one partition, no key spreads; three members, one each."""
    topic, group = f"{prefix}-keys", f"{prefix}-keys-group"
    client = KafkaClient(bootstrap_servers=bootstrap)
    equal(create_by_hand(client, topic, 3), 0, "topic of three partitions")
    client.close()
    producer = producer_of(bootstrap)

    def partitions(key):
        sent = [producer.send(topic, key=key(i), value=b"v") for i in range(60)]
        return [future.get(timeout=20).partition for future in sent]

    first = partitions(lambda i: b"key-%d" % i)
    equal(first, partitions(lambda i: b"key-%d" % i), "partitions of the same keys")
    equal((set(first), set(partitions(lambda i: None))), ({0, 1, 2},) * 2, "all are used")
    producer.close()
    members = [Member(bootstrap, topic, group) for _ in range(3)]
    expected.soon(lambda: [len(m.assigned) for m in members] == [1, 1, 1], "one each")
    expected.soon(lambda: sum(len(m.seen) for m in members) == 180, "every record once")
    for member in members:
        member.stop()


def tour(bootstrap, prefix, base_ms):
    """001-105 to 121 one after another: what a consumer can do without a group."""
    topic, other = f"{prefix}-test", f"{prefix}-test0"
    tp = TopicPartition(topic, 0)
    fill(bootstrap, topic, [b"%d" % i for i in range(10)])
    fill(bootstrap, other, [b"other"])
    plain = consumer_of(bootstrap, topic, consumer_timeout_ms=1000)
    equal(plain.partitions_for_topic(topic), {0}, "partitions")
    equal({topic, other} <= plain.topics(), True, "topics")
    equal((plain.subscription(), plain.assignment()), ({topic}, {tp}), "no group: assigned at once")
    equal(list(plain), [], "a consumer without a group begins at the end, and its loop ends")
    fill(bootstrap, topic, [b"10"])
    equal([r.offset for r in plain], [10], "what comes later is seen")
    if hasattr(plain, "beginning_offsets"):
        equal(plain.beginning_offsets(plain.assignment()), {tp: 0}, "beginning")
    plain.seek(tp, 5)
    equal(take(plain, 1, "seek")[0].offset, 5, "after seek")
    plain.seek(tp, 5000)
    equal([r.offset for r in plain], [], "an offset beyond the end is reset to the end")
    plain.close()

    both = consumer_of(bootstrap, auto_offset_reset="largest", fetch_max_wait_ms=1000)
    both.subscribe(topics=(topic, other))
    equal({topic, other} <= both.topics(), True, "topics of a subscriber")
    equal(both.position(tp), 11, "position without a group is the end")
    # A poll shorter than the fetch: its answer is found by a later one.
    equal(both.poll(timeout_ms=5), {}, "nothing yet")
    fill(bootstrap, topic, [b"11"])
    expected.soon(lambda: [[r.value for r in rs] for rs in both.poll(timeout_ms=5).values()]
                  == [[b"11"]], "found by short polls")
    both.pause(tp)
    equal(both.paused(), {tp}, "paused")
    fill(bootstrap, topic, [b"12"])
    equal([both.poll(timeout_ms=100) for _ in range(5)], [{}] * 5, "nothing while paused")
    both.resume(tp)
    equal(take(both, 1, "after resume")[0].value, b"12", "everything afterwards")
    both.close()

    pattern = consumer_of(bootstrap, auto_offset_reset="earliest", metadata_max_age_ms=500)
    fill(bootstrap, f"{prefix}-awesome-1", [b"one"])
    pattern.subscribe(pattern=f"^{prefix}-awesome.*")
    equal(take(pattern, 1, "pattern")[0].value, b"one", "a topic that matches")
    fill(bootstrap, f"{prefix}-awesome-2", [b"two"])
    # Without a group these clients begin anew where the subscription changes.
    equal(any(r.value == b"two" for r in pattern), True, "one made after subscribing")
    pattern.close()

    earliest = consumer_of(bootstrap, topic, auto_offset_reset="earliest", fetch_min_bytes=1024,
                           fetch_max_wait_ms=500, max_partition_fetch_bytes=1048576)
    equal([r.offset for r in take(earliest, 13, "all")], list(range(13)), "offsets in order")
    earliest.close()


class Member:
    """A consumer in a thread of its own; it commits when it is stopped."""

    def __init__(self, bootstrap, topic, group, **options):
        self.seen, self.assigned, self.stopping = [], set(), False
        options = {"auto_offset_reset": "earliest", "metadata_max_age_ms": 500, **options}
        self.consumer = KafkaConsumer(
            topic, bootstrap_servers=bootstrap, group_id=group, heartbeat_interval_ms=300,
            session_timeout_ms=6000, **options)
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


def members(bootstrap, prefix, base_ms):
    """000-11, 000-33, 001-28, 001-76, 002-15: more members than partitions, a topic made later."""
    topic, group = f"{prefix}-spare", f"{prefix}-spare-group"
    # The subscription comes first: it, or the first record, makes the topic.
    pair = [Member(bootstrap, topic, group) for _ in range(2)]
    fill(bootstrap, topic, [b"%d" % i for i in range(20)])
    expected.soon(lambda: sorted(len(m.assigned) for m in pair) == [0, 1], "one of them owns it")
    owner, spare = sorted(pair, key=lambda m: -len(m.assigned))
    expected.soon(lambda: len(owner.seen) == 20, "the owner reads all")
    equal(spare.seen, [], "the other nothing")
    owner.stop()
    expected.soon(lambda: len(spare.assigned) == 1, "the spare one takes over")
    fill(bootstrap, topic, [b"more"])
    expected.soon(lambda: spare.seen == [b"more"], "and goes on where the other stopped")
    spare.stop()
    # A restart begins after what was committed, whatever the reset says.
    for reset in ("earliest", "latest"):
        again = consumer_of(bootstrap, topic, group_id=group, auto_offset_reset=reset,
                            consumer_timeout_ms=1500)
        equal(list(again), [], f"with {reset}")
        again.close()


def members_of_later(bootstrap, prefix, base_ms):
    """000-10, 000-15, 000-21, 000-26, 000-32, 002-06, 002-07: what needs the admin client."""
    from kafka.admin import NewPartitions, NewTopic
    admin = admin_of(bootstrap)
    topic, group = f"{prefix}-grows", f"{prefix}-grows-group"
    tp = TopicPartition(topic, 0)
    admin.create_topics([NewTopic(topic, 1, 1)])
    member = Member(bootstrap, topic, group, client_id="python-kafka-client")
    expected.soon(lambda: len(member.assigned) == 1, "one partition")
    described = admin.describe_consumer_groups([group])[0]
    text = str(described)
    equal(("python-kafka-client" in text, "Stable" in text), (True, True), f"described: {text}")
    admin.create_partitions({topic: NewPartitions(3)})
    expected.soon(lambda: len(member.assigned) == 3, "the new partitions are picked up")
    member.stop()
    # A member that is too slow leaves, rejoins and goes on.
    fill(bootstrap, topic, [b"%d" % i for i in range(30)])
    slow = consumer_of(bootstrap, topic, group_id=f"{group}-slow", auto_offset_reset="earliest",
                       max_poll_interval_ms=700, session_timeout_ms=6000,
                       heartbeat_interval_ms=200, max_poll_records=10)
    found, pauses = set(), 0
    end = time.monotonic() + 30
    while len(found) < 30 and time.monotonic() < end:
        for part, records in slow.poll(timeout_ms=500).items():
            found.update((part.partition, r.offset) for r in records)
            if pauses < 2:
                pauses += 1
                time.sleep(1.5)
    equal((len(found), pauses), (30, 2), "records of a slow member")
    slow.close(autocommit=False)
    # A group that only commits: listed with an empty type; a fresh one begins at the end.
    simple = consumer_of(bootstrap, group_id=f"{group}-simple")
    simple.assign([tp])
    equal(simple.position(tp), simple.end_offsets([tp])[tp], "position of a fresh group")
    simple.commit()
    simple.close()
    equal((f"{group}-simple", "") in admin.list_consumer_groups(), True, "a simple group")
    equal(admin.list_consumer_group_offsets(f"{group}-nobody"), {}, "offsets of no group")
    names = [name for name, _ in admin.list_consumer_groups()]
    equal(f"{prefix}-idle-group" in names, False, "a consumer without a topic makes no group")
    admin.close()


def commit_in_tens(bootstrap, prefix, base_ms):
    """000-31, 001-21, 001-29, 002-13: kill -9 between commits; fewer than ten records repeat."""
    topic, group = f"{prefix}-tens", f"{prefix}-tens-group"
    fill(bootstrap, topic, [b"%d" % i for i in range(95)])
    command = [sys.executable, "-B", __file__, bootstrap, prefix, str(base_ms), "tens_until_killed"]
    child = subprocess.Popen(command, stdout=subprocess.PIPE)
    seen = [int(child.stdout.readline()) for _ in range(57)]
    child.send_signal(signal.SIGKILL)
    child.wait()
    equal(seen, list(range(57)), "the first run")
    # Its session has to end first.
    second = consumer_of(bootstrap, topic, group_id=group, auto_offset_reset="earliest",
                         session_timeout_ms=6000, consumer_timeout_ms=20000)
    rest = [int(r.value) for r in take(second, 45, "the second run")]
    equal(rest, list(range(50, 95)), "goes on after the fifth commit")
    second.close()


def tens_until_killed(bootstrap, prefix, base_ms):
    consumer = consumer_of(bootstrap, f"{prefix}-tens", group_id=f"{prefix}-tens-group",
                           auto_offset_reset="earliest", session_timeout_ms=6000)
    for count, record in enumerate(consumer, 1):
        print(record.value.decode(), flush=True)
        if count == 57:
            time.sleep(60)
        if count % 10 == 0:
            consumer.commit()


def auto_commit(bootstrap, prefix, base_ms):
    """001-20, 001-116, 001-117, 004-12, 004-13: commits by time, at close, and none at all."""
    topic, group = f"{prefix}-auto", f"{prefix}-auto-group"
    tp = TopicPartition(topic, 0)
    fill(bootstrap, topic, [b"%d" % i for i in range(6)])
    none = consumer_of(bootstrap, topic, group_id=f"{group}-none", auto_offset_reset="earliest")
    take(none, 6, "without commits")
    equal(none.committed(tp), None, "no commit")
    none.close()
    by_time = consumer_of(bootstrap, topic, group_id=group, auto_offset_reset="earliest",
                          enable_auto_commit=True, auto_commit_interval_ms=200)
    take(by_time, 6, "committed by time")
    expected.soon(lambda: by_time.poll(timeout_ms=100) == {} and by_time.committed(tp) == 6, "time")
    by_time.close()
    fill(bootstrap, topic, [b"6"])
    at_close = consumer_of(bootstrap, topic, group_id=group, auto_offset_reset="latest",
                           enable_auto_commit=True)
    equal(take(at_close, 1, "goes on")[0].offset, 6, "after the commit")
    at_close.close()
    look = consumer_of(bootstrap, group_id=group)
    equal(look.committed(tp), 7, "committed at close")
    look.close()


expected.main({f.__name__: f for f in (
    by_hand, by_hand_seen, sends, keys, tour, members, members_of_later, commit_in_tens,
    tens_until_killed, auto_commit)})
