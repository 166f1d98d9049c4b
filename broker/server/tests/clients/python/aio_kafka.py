"""aiokafka: the asyncio client with its own codec."""

import asyncio

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka import errors
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

import expected
from expected import COUNT, PER_CODEC, STEP_MS, equal


def phase(function):
    def run(bootstrap, prefix, base_ms):
        asyncio.run(asyncio.wait_for(function(bootstrap, f"{prefix}-codecs", base_ms), 60))

    run.__name__ = function.__name__
    return run


async def consumer_of(bootstrap, *topics, **options):
    consumer = AIOKafkaConsumer(*topics, bootstrap_servers=bootstrap, enable_auto_commit=False,
                                **options)
    await consumer.start()
    return consumer


async def take(consumer, count):
    return [await asyncio.wait_for(consumer.getone(), 15) for _ in range(count)]


@phase
async def create(bootstrap, topic, base_ms):
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.create_topics([NewTopic(topic, 3, 1)])
    try:
        answer = await admin.create_topics([NewTopic(topic, 3, 1)])
        code = answer.topic_errors[0][1]
    except errors.TopicAlreadyExistsError:
        code = 36
    equal(code, 36, "second create")
    await admin.close()


@phase
async def write(bootstrap, topic, base_ms):
    rows = expected.records(base_ms)
    for index, codec in enumerate(expected.CODECS):
        producer = AIOKafkaProducer(
            bootstrap_servers=bootstrap, linger_ms=20, enable_idempotence=index % 2 == 1,
            compression_type=None if codec == "none" else codec)
        await producer.start()
        batch = rows[index * PER_CODEC:(index + 1) * PER_CODEC]
        sent = [await producer.send(topic, partition=0, key=r.key, value=r.value,
                                    headers=r.headers, timestamp_ms=r.timestamp) for r in batch]
        for r, future in zip(batch, sent):
            metadata = await future
            equal((metadata.partition, metadata.offset), (0, r.offset), f"metadata of {codec}")
        await producer.stop()


@phase
async def read(bootstrap, topic, base_ms):
    tp = TopicPartition(topic, 0)
    rows = expected.records(base_ms)
    consumer = await consumer_of(bootstrap)
    equal(topic in await consumer.topics(), True, "topic is listed")
    consumer.assign([tp])
    await consumer.seek_to_beginning(tp)
    for r, row in zip(await take(consumer, COUNT), rows):
        found = expected.Record(r.offset, r.timestamp, r.key, r.value, list(r.headers))
        equal(found, row, f"record {row.offset}")
    equal(await consumer.beginning_offsets([tp]), {tp: 0}, "beginning")
    equal(await consumer.end_offsets([tp]), {tp: COUNT}, "end")
    consumer.seek(tp, 23)
    equal((await take(consumer, 1))[0].offset, 23, "seek")
    hit = (await consumer.offsets_for_times({tp: base_ms + 22 * STEP_MS + 999}))[tp]
    equal((hit.offset, hit.timestamp), (23, rows[23].timestamp), "offset for a time")
    await consumer.stop()


class Assignments(ConsumerRebalanceListener):
    def __init__(self):
        self.now = set()

    def on_partitions_revoked(self, revoked):
        self.now = set()

    def on_partitions_assigned(self, assigned):
        self.now = {tp.partition for tp in assigned}


async def until(holds, what):
    for _ in range(300):
        if holds():
            return
        await asyncio.sleep(0.05)
    raise AssertionError(f"{what}: not within 15 s")


@phase
async def group(bootstrap, topic, base_ms):
    name = f"{topic}-aio"
    listeners, members = [Assignments(), Assignments()], []
    for listener in listeners:
        consumer = await consumer_of(bootstrap, group_id=name, auto_offset_reset="earliest",
                                     heartbeat_interval_ms=300, session_timeout_ms=6000)
        consumer.subscribe([topic], listener=listener)
        members.append(consumer)
    await until(lambda: len(listeners[0].now) + len(listeners[1].now) == 3, "assignment")
    equal(listeners[0].now | listeners[1].now, {0, 1, 2}, "all partitions")
    holder = members[0] if 0 in listeners[0].now else members[1]
    tp = TopicPartition(topic, 0)
    equal([r.offset for r in await take(holder, 5)], list(range(5)), "first records")
    await holder.commit({tp: (17, "note é")})
    equal(await holder.committed(tp), 17, "committed")
    await members[0].stop()
    await until(lambda: listeners[1].now == {0, 1, 2}, "the other takes over")
    equal((await take(members[1], 1))[0].offset, 17, "goes on from the commit")
    await members[1].stop()


@phase
async def delete(bootstrap, topic, base_ms):
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    await admin.delete_topics([topic])
    await admin.close()


expected.main({f.__name__: f for f in (create, write, read, group, delete)})
