"""What every client writes and every client must read back, the same in each language.

Topic PREFIX-codecs has three partitions. Partition 0 holds ten records of each codec, in the order
of CODECS; the record at an offset follows from that offset alone. Times begin at BASE_MS.
"""

import sys
import time
from collections import namedtuple

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
PER_CODEC = 10
COUNT = PER_CODEC * len(CODECS)
STEP_MS = 1000

Record = namedtuple("Record", "offset timestamp key value headers")


def record(offset, base_ms):
    codec, i = CODECS[offset // PER_CODEC], offset % PER_CODEC
    key = f"key-{codec}-{i}".encode()
    if i in (0, 8):
        key = None
    elif i == 1:
        key = b""
    value = f"{codec}-{i}-é中文-".encode() + b"\x00\xff" + b"x" * (i * 100)
    if i in (4, 9):
        value = None
    elif i == 3:
        value = b""
    headers = [[], [("a", b"1"), ("a", b"2"), ("空", b"")], [("h", b"\x00\xff")]][i % 3]
    return Record(offset, base_ms + offset * STEP_MS, key, value, headers)


def records(base_ms):
    return [record(offset, base_ms) for offset in range(COUNT)]


def equal(actual, expected, what):
    if actual != expected:
        raise AssertionError(f"{what}:\n  is        {actual!r}\n  should be {expected!r}")


def raises(error, call, what):
    try:
        result = call()
    except error:
        return
    raise AssertionError(f"{what}: no {error.__name__}, but {result!r}")


def soon(holds, what):
    """For what Apache Kafka does a moment after its answer, such as dropping a topic's name."""
    end = time.monotonic() + 10
    while not holds():
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within 10 s")
        time.sleep(0.05)


def main(phases):
    """Runs PROGRAM BOOTSTRAP PREFIX BASE_MS PHASE...; a phase is f(bootstrap, prefix, base_ms)."""
    bootstrap, prefix, base_ms, *names = sys.argv[1:]
    for name in names:
        phases[name](bootstrap, prefix, int(base_ms))
        print("passed:", name, flush=True)
