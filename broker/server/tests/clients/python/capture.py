"""A proxy that keeps what clients send: capture.py LISTEN_PORT BROKER_PORT OUT_FILE [SESSION].

The broker must advertise LISTEN_PORT. At the end of its input it writes one line a
request, `key version hex-of-the-frame`, at most KEEP of each key and version and client id, short
ones only. tests/captured/requests.txt was made with it, in front of Apache Kafka 4.3.1 and 3.9.2.

With the name of a SESSION it keeps all that was sent, in its order, and appends it to OUT_FILE; the
form is told in real_program/differential/session.rs. tests/captured/sessions.zst is such a file.
"""

import asyncio
import collections
import struct
import sys

KEEP = 2
FRAME_BYTES_MAX = 2000
JOIN_GROUP = 11


async def pump(reader, writer, keep):
    try:
        while True:
            size = await reader.readexactly(4)
            frame = await reader.readexactly(struct.unpack(">i", size)[0])
            keep(frame)
            writer.write(size + frame)
            await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    writer.close()


class Requests:
    """A few of each kind."""

    def __init__(self):
        self.found = collections.defaultdict(list)

    def on_request(self, connection, frame):
        key, version, _, name_bytes = struct.unpack_from(">hhih", frame)
        rows = self.found[key, version, frame[10:10 + max(name_bytes, 0)].split(b"-")[0]]
        if len(frame) <= FRAME_BYTES_MAX and len(rows) < KEEP:
            rows.append(frame.hex())

    def on_answer(self, connection, frame):
        pass

    def write(self, out):
        with open(out, "w", encoding="ascii") as file:
            for (key, version, _), rows in sorted(self.found.items()):
                for row in rows:
                    print(key, version, row, file=file)


class Session:
    """Everything, in its order."""

    def __init__(self, name):
        self.name, self.events, self.asked = name, [], {}

    def on_request(self, connection, frame):
        key, _, correlation = struct.unpack_from(">hhi", frame)
        # The mark becomes `>` when the answer comes.
        event = [connection, "!", frame.hex()]
        self.asked[connection, correlation] = key, event
        self.events.append(event)

    def on_answer(self, connection, frame):
        key, event = self.asked[connection, struct.unpack_from(">i", frame)[0]]
        event[1] = ">"
        self.events.append([connection, "<", frame.hex() if key == JOIN_GROUP else ""])

    def write(self, out):
        with open(out, "a", encoding="ascii") as file:
            print("==", self.name, file=file)
            for connection, mark, frame in self.events:
                print(f"{connection}{mark} {frame}".strip(), file=file)


async def main(listen_port, broker_port, out, *session):
    kept = Session(*session) if session else Requests()
    count = 0

    async def on_client(reader, writer):
        nonlocal count
        connection, count = count, count + 1
        broker_reader, broker_writer = await asyncio.open_connection("127.0.0.1", broker_port)
        await asyncio.gather(
            pump(reader, broker_writer, lambda frame: kept.on_request(connection, frame)),
            pump(broker_reader, writer, lambda frame: kept.on_answer(connection, frame)))

    await asyncio.start_server(on_client, "127.0.0.1", listen_port)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    kept.write(out)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
