"""Runs a long operation until a signal ends it. Usage: interrupt.py ROOT SCENARIO raise|note

Says "ready". For each line that it is told it runs the operation anew: it says "started", then {"error", "mine", "at",
"alarm"}: the exception that arrived, whether it is the handler's own, when it arrived and when the handler ran
(CLOCK_MONOTONIC, one for all processes). SIGINT and SIGUSR1 raise, SIGALRM as told: in its handler, or it only notes.
"""

import faulthandler
import hashlib
import json
import mmap
import os
import signal
import sys
import threading
import time
from datetime import timedelta

from billiard.pool import soft_timeout_sighandler
from django.conf import settings

settings.configure(INSTALLED_APPS=["storage"])

import adapters  # noqa: E402
from sources import endless  # noqa: E402

from storage import native  # noqa: E402

ROOT, SCENARIO, KIND = sys.argv[1:4]
if "faulthandler" in sys.argv:
    faulthandler.enable()
adapter = adapters.make(ROOT)
MiB = 1024 * 1024
GiB = 1024 * MiB


class Mine(Exception):
    pass


MINE = Mine()
alarms = []


def note(number, frame):
    alarms.append(time.monotonic())
    if KIND == "raise":
        raise MINE


def store_large():
    if adapter.backend == "s3":
        return adapter.put_final("large", bytes(24 * MiB))
    with open(f"{ROOT}/final/large", "wb") as file:
        file.truncate(20 * GiB)
    return adapter.stat_final("local", "large")


def put_endless():
    adapter.put_final("a", endless(bytes(MiB)))


def put_for_a_second():
    until = time.monotonic() + 1.5
    adapter.put_final("a", iter(lambda: bytes(65536) if time.monotonic() < until else b"end", b"end"))


def put_huge_bytes():
    adapter.put_final("a", memoryview(bytes(6 * GiB)))


def put_then_sync():
    adapter.put_final("a", b"x")


def put_large():
    adapter.put_final("a", bytes(12 * MiB))


def assemble():
    part = adapter.list_temp_parts("s")[0]
    adapter.assemble("a", [part] * 500)


def assemble_copies():
    part = adapter.list_temp_parts("s")[0]
    adapter.assemble("a", [part] * 2, sha256=hashlib.sha256(bytes(64 * MiB)).hexdigest())


def read_all():
    with adapter.get_final_stream(*large) as reader:
        reader.read()


def read_big():
    with adapter.get_final_stream(*large) as reader:
        reader.readinto(mmap.mmap(-1, 6 * GiB))


def read_by_chunks():
    with adapter.get_final_stream(*large) as reader:
        for _ in reader.chunks():
            pass


def put_from_reader():
    with adapter.get_final_stream(*large) as reader:
        adapter.put_final("a", reader)


def put_file():
    with open(f"{ROOT}/final/large", "rb") as file:
        adapter.put_final("a", file)


def get():
    adapter.get_final_stream(*warm).close()


def stat():
    adapter.stat_final(*warm)


def list_parts():
    adapter.list_temp_parts("s")


def delete():
    adapter.delete_final(*warm)


def delete_parts():
    adapter.delete_temp_parts("s")


def sweep():
    adapter.sweep(timedelta())


def health():
    adapter.check_health(timeout=30)


def run():
    if SCENARIO == "delete":
        adapter.put_final("warm", b"x")  # the run before may have deleted it
    base = native.stats()["calls"]
    alarms.clear()
    result = {"error": None, "mine": False, "at": None}
    os.write(1, b'"started"\n')
    try:
        globals()[SCENARIO]()
    except BaseException as error:
        result["at"] = time.monotonic()
        result["error"] = type(error).__name__
        result["mine"] = error is MINE
    until = time.monotonic() + 10
    while native.stats()["calls"] > base and time.monotonic() < until:
        time.sleep(0.02)
    result["alarm"] = alarms[0] if alarms else None
    result["calls"] = native.stats()["calls"] - base
    result["threads"] = threading.active_count()
    adapter.put_final("after", b"works")
    print(json.dumps(result), flush=True)


def main():
    global large, warm
    warm = adapter.put_final("warm", b"x")
    adapter.put_temp_part("s", 1, bytes(32 * MiB) if "assemble" in SCENARIO else b"x")
    if SCENARIO in ("read_all", "read_big", "read_by_chunks", "put_from_reader", "put_file"):
        large = store_large()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGALRM, note)
    signal.signal(signal.SIGUSR1, soft_timeout_sighandler)
    if "faulthandler-late" in sys.argv:
        faulthandler.enable()
    os.write(1, b'"ready"\n')
    for _ in sys.stdin:
        run()


main()
