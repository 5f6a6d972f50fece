"""Forces panics in an extension that was built with the tag `faults`. Usage: panics.py ROOT; prints each error."""

import gc
import json
import sys
import time
import traceback
from pathlib import Path

from django.conf import settings

settings.configure(INSTALLED_APPS=["storage"])

from storage import LocalStorageAdapter, StorageError, native  # noqa: E402

ROOT = Path(sys.argv[1])
DATA = b"some" * 500_000
adapter = LocalStorageAdapter(temp_dir=ROOT / "temp", final_dir=ROOT / "final")
adapter.put_final("warm", DATA)
good = adapter.put_temp_part("s", 1, DATA)
bad = adapter.put_temp_part("burst in read", 1, DATA)
for name in ("put", "get", "read", "stat"):
    (ROOT / "final" / f"burst in {name}").write_bytes(b"old")


def in_a_facade_call():
    with adapter.get_final_stream("local", "burst in read") as reader:
        reader.read()


CASES = {
    "a facade call": in_a_facade_call,
    "a put": lambda: adapter.put_final("burst in put", iter([DATA] * 10)),
    "a small put": lambda: adapter.put_final("burst in put", b"x"),
    "a get": lambda: adapter.get_final_stream("local", "burst in get"),
    "a stat": lambda: adapter.stat_final("local", "burst in stat"),
    "an assembly that reads": lambda: adapter.assemble("a", [good, bad, good]),
    "an assembly that writes": lambda: adapter.assemble("burst in put", [good, good]),
}


def usage():
    gc.collect()
    counts = native.stats()
    return {name: counts[name] for name in ("calls", "readers", "buffers", "goroutines")}


def main():
    before, result = usage(), {}
    for name, call in CASES.items():
        for _ in range(3):
            try:
                call()
            except StorageError as error:
                result[name] = {"code": error.code, "text": "".join(traceback.format_exception_only(error))}
            assert adapter.put_final("next", DATA).size == len(DATA)
            with adapter.get_final_stream("local", "next") as reader:
                assert reader.read() == DATA
        until = time.monotonic() + 5
        while more := {kind: count for kind, count in usage().items() if count > before[kind]}:
            assert time.monotonic() < until, f"left by {name}: {more}, there were {before}"
            time.sleep(0.01)
    print(json.dumps(result))


main()
