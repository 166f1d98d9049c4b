"""A proxy that keeps what clients send: capture.py LISTEN_PORT BROKER_PORT OUT_FILE.

The broker must advertise LISTEN_PORT. At the end of its input it writes one line a
request, `key version hex-of-the-frame`, at most KEEP of each key and version and client id, short
ones only. tests/captured/requests.txt was made with it, in front of Apache Kafka 4.3.1 and 3.9.2.
"""

import asyncio
import collections
import struct
import sys

KEEP = 2
FRAME_BYTES_MAX = 2000


async def pump(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    writer.close()


async def pump_frames(reader, writer, found):
    try:
        while True:
            size = await reader.readexactly(4)
            frame = await reader.readexactly(struct.unpack(">i", size)[0])
            key, version, _, name_bytes = struct.unpack_from(">hhih", frame)
            name = frame[10:10 + max(name_bytes, 0)].split(b"-")[0]
            rows = found[key, version, name]
            if len(frame) <= FRAME_BYTES_MAX and len(rows) < KEEP:
                rows.append(frame.hex())
            writer.write(size + frame)
            await writer.drain()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass
    writer.close()


async def main(listen_port, broker_port, out):
    found = collections.defaultdict(list)

    async def on_client(reader, writer):
        broker_reader, broker_writer = await asyncio.open_connection("127.0.0.1", broker_port)
        await asyncio.gather(pump_frames(reader, broker_writer, found), pump(broker_reader, writer))

    await asyncio.start_server(on_client, "127.0.0.1", listen_port)
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
    with open(out, "w", encoding="ascii") as file:
        for (key, version, _), rows in sorted(found.items()):
            for row in rows:
                print(key, version, row, file=file)


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
