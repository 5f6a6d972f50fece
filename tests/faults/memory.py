"""Peak memory of transfers. Usage: memory.py ROOT one|inspected|many|failures [MIB]; prints JSON, in bytes."""

import gc
import hashlib
import json
import os
import sys
from concurrent.futures import ThreadPoolExecutor

from django.conf import settings

settings.configure(INSTALLED_APPS=["storage"])

import adapters  # noqa: E402

from storage import StorageError, native  # noqa: E402

MiB = 1024 * 1024
OWN = 64 * 1024  # bytes that the script has in hand at once: what it takes itself is not what is measured
PIECE = os.urandom(MiB)


def memory(field):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith(field))


def start_measuring():
    gc.collect()
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak starts anew
    return memory("VmRSS")


class Stream:
    """Of `size` bytes, readable once and forwards, hashed on the way."""

    def __init__(self, size):
        self.left, self.hash = size, hashlib.sha256()

    def read(self, n):
        piece = PIECE[: min(n, self.left, OWN)]
        self.left -= len(piece)
        self.hash.update(piece)
        return piece


def drain(reader):
    hash, buffer = hashlib.sha256(), bytearray(OWN)
    with reader, memoryview(buffer) as view:
        while n := reader.readinto(buffer):
            hash.update(view[:n])
    return hash.hexdigest()


def one(adapter, size):
    stream = Stream(size)
    final = adapter.put_final("a", stream)
    put = memory("VmHWM")
    expected = stream.hash.hexdigest()
    assert (final.size, final.sha256) == (size, expected)
    assert drain(adapter.get_final_stream(*final)) == expected
    adapter.delete_final(*final)
    return put


def inspected(adapter, size):
    """Of a put and an assembly that are inspected."""
    digests = []
    stream = Stream(size)
    final = adapter.put_final("a", stream, inspect=lambda reader: digests.append(drain(reader)))
    parts = [adapter.put_temp_part("s", number, Stream(size // 2)) for number in (1, 2)]
    joined = adapter.assemble("b", parts, inspect=lambda reader: digests.append(drain(reader)))
    assert digests == [final.sha256, joined.sha256] and digests[0] == stream.hash.hexdigest()
    adapter.delete_temp_parts("s")


def many(adapter, size):
    def put(n):
        stream = Stream(size)
        final = adapter.put_final(str(n), stream)
        assert drain(adapter.get_final_stream(*final)) == final.sha256 == stream.hash.hexdigest()
        adapter.delete_final(*final)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(put, range(8)))


def failing(adapter, times):
    def broken():
        yield PIECE[:1000]
        raise KeyError

    calls = [
        lambda: adapter.put_final("a", broken()),
        lambda: adapter.put_final("a", b"x", size=2),
        lambda: adapter.put_final("a", b"x", sha256="0" * 64),
        lambda: adapter.put_final("there", b"x", overwrite=False),
        lambda: adapter.put_final("there/a", b"x"),
        lambda: adapter.get_final_stream("local", "none"),
        lambda: adapter.stat_final("local", "none"),
        lambda: adapter.assemble("a", ["s/00001"]),
        lambda: adapter.put_final("../a", b"x"),
        lambda: adapter.put_final("a", [b"x", None]),
    ]
    for i in range(times):
        try:
            calls[i % len(calls)]()
        except (StorageError, KeyError):
            continue
        raise AssertionError(f"call {i % len(calls)} should have failed")


def main():
    adapter = adapters.make(sys.argv[1])
    drain(adapter.get_final_stream(*adapter.put_final("there", Stream(MiB))))
    result = {}
    if sys.argv[2] == "failures":
        failing(adapter, 2_000)
        gc.collect()
        before = memory("VmRSS"), len(os.listdir("/proc/self/fd")), native.stats()
        failing(adapter, 10_000)
        gc.collect()
        result["fds"] = len(os.listdir("/proc/self/fd")) - before[1]
        result["stats"] = [before[2], native.stats()]
        result["grown"] = memory("VmRSS") - before[0]
    else:
        base = start_measuring()
        put = {"one": one, "inspected": inspected, "many": many}[sys.argv[2]](adapter, int(sys.argv[3]) * MiB)
        result["grown"] = memory("VmHWM") - base
        result["grown_put"] = put and put - base
    print(json.dumps(result))


main()
