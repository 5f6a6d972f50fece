"""How many requests each operation on S3 makes, and how many round trips one after another.

A server answers each request after a pause. A request that comes after the answer to another one is one round trip
behind it; requests that come before it run beside it. So a figure is that of the operation, and not that of a line.

    cd tests; ../build/venv-3.13/bin/python bench/roundtrips.py [word]
"""

import itertools
import sys
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import django
from django.conf import settings

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

from servers import lying  # noqa: E402
from servers.lying import Habit, Lying, Object, Upload  # noqa: E402

from storage import S3StorageAdapter  # noqa: E402

PAUSE = 0.04
"""Seconds: long beside what a request costs the server, which is in Python."""
LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
KIB = 1024
DATA = b"x" * 64 * KIB
COPIED = b"x" * 5 * KIB * KIB


class Counting:
    """Counts the requests to a server, and the longest chain of them in which each came after the one before it."""

    def __init__(self):
        self._lock = threading.Lock()
        self.restart()

    def restart(self):
        self.requests, self.in_a_row = Counter(), 0
        self._depth = {}

    def habit(self):
        return Habit("far", instead=self._came, answered=self._answered)

    def _came(self, _, request):
        with self._lock:
            self.requests[request.operation] += 1
            self._depth[id(request)] = self.in_a_row + 1

    def _answered(self, _, request, answer):
        def later(pieces):
            yield PAUSE
            with self._lock:
                self.in_a_row = max(self.in_a_row, self._depth[id(request)])
            yield from pieces

        answer.wrap(later)


def stored(server, key, data=b"x"):
    described = {"content-type": "application/octet-stream", "x-amz-meta-gostorage-sha256": sha256(data).hexdigest()}
    server.objects[key] = Object(data, lying.etag_of(data), described, None, LONG_AGO)


def parts(server, sessions, each, data=b"x"):
    for session, number in itertools.product(range(sessions), range(1, each + 1)):
        stored(server, f"temp/{session:05d}/{number:05d}", data)


def finals(server, number, data=b"x"):
    for one in range(number):
        stored(server, f"final/{one:05d}", data)


def uploads(server, number):
    for one in range(number):
        key = f"temp/{one:05d}/00001"
        server.uploads[f"upload-{one:05d}"] = Upload(
            key, {}, False, LONG_AGO, {1: Object(b"x", '"x"', {}, None, LONG_AGO)}
        )


def put(adapter, numbers, threads=1):
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda number: adapter.put_temp_part("00000", number, DATA), numbers))


def joined(adapter):
    adapter.assemble("joined", adapter.list_temp_parts("00000"))


AGE = timedelta(days=1)
OPERATIONS = {
    "put_final, 64 KiB": (None, lambda adapter: adapter.put_final("a", DATA)),
    "put_final, 30 MiB": (None, lambda adapter: adapter.put_final("a", COPIED * 6)),
    "copy_final, first and second": (
        lambda server: finals(server, 1),
        lambda adapter: [adapter.copy_final(adapter.bucket, "final/00000", to) for to in "ab"],
    ),
    "copy_final, 30 MiB": (
        lambda server: finals(server, 1, COPIED * 6),
        lambda adapter: adapter.copy_final(adapter.bucket, "final/00000", "a"),
    ),
    "check_health": (None, lambda adapter: adapter.check_health()),
    "list_final of 10,000": (lambda server: finals(server, 10000), lambda adapter: list(adapter.list_final())),
    "put_temp_part, 200 in order": (None, lambda adapter: put(adapter, range(1, 201))),
    "put_temp_part, 200 in reverse": (None, lambda adapter: put(adapter, range(200, 0, -1))),
    "put_temp_part, 200 by 8 threads": (None, lambda adapter: put(adapter, range(1, 201), 8)),
    "list_temp_parts of 1,000": (
        lambda server: parts(server, 1, 1000),
        lambda adapter: adapter.list_temp_parts("00000"),
    ),
    "list_temp_parts of 10,000": (
        lambda server: parts(server, 1, 10000),
        lambda adapter: adapter.list_temp_parts("00000"),
    ),
    "delete_temp_part": (lambda server: parts(server, 1, 2), lambda adapter: adapter.delete_temp_part("00000/00001")),
    "delete_temp_parts of 1,000": (
        lambda server: parts(server, 1, 1000),
        lambda adapter: adapter.delete_temp_parts("00000"),
    ),
    "delete_temp_parts of 10,000": (
        lambda server: parts(server, 1, 10000),
        lambda adapter: adapter.delete_temp_parts("00000"),
    ),
    "extend_digest of 1,000 x 64 KiB": (
        lambda server: parts(server, 1, 1000, DATA),
        lambda adapter: adapter.extend_digest("00000"),
    ),
    "assemble of 1,000 x 64 KiB, put in order": (lambda server: None, joined),
    "assemble of 1,000 x 64 KiB, uncovered": (lambda server: parts(server, 1, 1000, DATA), joined),
    "assemble of 32 x 5 MiB, uncovered": (lambda server: parts(server, 1, 32, COPIED), joined),
    "sweep of 10,000 parts, one session": (lambda server: parts(server, 1, 10000), lambda adapter: adapter.sweep(AGE)),
    "sweep of 10,000 parts, 1,000 sessions": (
        lambda server: parts(server, 1000, 10),
        lambda adapter: adapter.sweep(AGE),
    ),
    "sweep of 10,000 parts, 1,000 sessions, max_seconds": (
        lambda server: parts(server, 1000, 10),
        lambda adapter: adapter.sweep(AGE, max_seconds=200),
    ),
    "sweep of 10,000 parts, 1,000 sessions, keep": (
        lambda server: parts(server, 1000, 10),
        lambda adapter: adapter.sweep(AGE, keep=lambda session: False),
    ),
    "sweep of 10,000 parts, 1,000 sessions, dry_run": (
        lambda server: parts(server, 1000, 10),
        lambda adapter: adapter.sweep(AGE, dry_run=True),
    ),
    "sweep of 1,000 unfinished uploads": (lambda server: uploads(server, 1000), lambda adapter: adapter.sweep(AGE)),
}


def main(only):
    settings.configure()
    django.setup()
    for name, (prepare, work) in OPERATIONS.items():
        if only not in name:
            continue
        counting = Counting()
        with Lying(counting.habit()) as server:
            end = server.endpoint
            adapter = S3StorageAdapter(
                bucket_name=end.bucket, endpoint_url=end.url, access_key=end.access_key, secret_key=end.secret_key
            )
            if prepare:
                prepare(server)
            if name.endswith("put in order"):
                server.become()
                put(adapter, range(1, 1001))
                server.become(counting.habit())
            work(adapter)
            adapter.close()
        named = ", ".join(f"{count} {operation}" for operation, count in sorted(counting.requests.items()))
        print(f"{name:52} {counting.requests.total():5} requests, {counting.in_a_row:4} in a row: {named}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "")
