"""On S3: signals reach Python within 250 ms whatever the server does or fails to do, and it is told of the undo."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import uuid

import pytest
from conftest import HERE, s3_options
from faults.adapters import OPTIONS
from servers import FaultProxy, farline
from test_interrupts import LIMIT, Running

pytestmark = [pytest.mark.slow, pytest.mark.alone]

MiB = 1024 * 1024
# What runs, and what the server does meanwhile.
SCENARIOS = {
    "put_endless": None,
    "put_endless, stalled": {"fault": "stall_up", "operation": "UploadPart", "at": MiB},
    "put_endless, no answer": {"fault": "stall_down", "operation": "UploadPart", "at": -1},
    "put_endless, creating": {"fault": "stall_down", "operation": "CreateMultipartUpload", "at": -1},
    "put_large, creating late": {"fault": "delay", "operation": "CreateMultipartUpload"},
    "put_large, completing": {"fault": "delay", "operation": "CompleteMultipartUpload"},
    "put_large, failing": {"fault": "status", "operation": "UploadPart", "status": 503, "retry_after": "10"},
    "put_then_sync, late": {"fault": "delay", "operation": "PutObject", "times": 1},
    "assemble, stalled source": {"fault": "stall_down", "operation": "GetObject", "at": MiB},
    "assemble_copies, creating": {"fault": "stall_down", "operation": "CreateMultipartUpload", "at": -1},
    "assemble_copies, no answer": {"fault": "stall_down", "operation": "UploadPartCopy", "at": -1},
    "assemble_copies, late": {"fault": "delay", "operation": "UploadPartCopy"},
    "assemble_copies, failing": {"fault": "status", "operation": "UploadPartCopy", "status": 503, "retry_after": "10"},
    "assemble_copies, completing": {"fault": "delay", "operation": "CompleteMultipartUpload"},
    "read_all, stalled": {"fault": "stall_down", "operation": "GetObject", "at": MiB},
    "read_by_chunks, stalled": {"fault": "stall_down", "operation": "GetObject", "at": MiB},
    "put_from_reader, stalled": {"fault": "stall_down", "operation": "GetObject", "at": MiB},
    "get, late": {"fault": "delay", "operation": "GetObject"},
    "stat, late": {"fault": "delay", "operation": "HeadObject"},
    "list_parts, late": {"fault": "delay", "operation": "ListObjectsV2"},
    "delete, late": {"fault": "delay", "operation": "DeleteObject"},
    "delete_parts, late": {"fault": "delay", "operation": "DeleteObjects"},
    "sweep, late": {"fault": "delay", "operation": "ListObjectsV2"},
    "sweep, deleting late": {"fault": "delay", "operation": "DeleteObjects"},
    "health, late": {"fault": "delay", "operation": "PutObject", "times": 1},
}
# Those whose interrupts must get through TLS.
SECURE = [
    "put_endless",
    "put_endless, stalled",
    "put_endless, no answer",
    "assemble, stalled source",
    "assemble_copies, no answer",
    "read_all, stalled",
    "get, late",
]
# Ctrl-C, a handler that raises, and Celery's soft time limit.
SIGNALS = {signal.SIGINT: "KeyboardInterrupt", signal.SIGALRM: "Mine", signal.SIGUSR1: "SoftTimeLimitExceeded"}


class Place:
    """Options of an adapter behind a fault proxy, and a look at what its server has."""

    def __init__(self, faults, client):
        folder = uuid.uuid4().hex
        self.options = s3_options(faults.endpoint, folder=folder)
        self.environment = {**os.environ, OPTIONS: json.dumps(self.options), "PYTHONPATH": str(HERE / "faults")}
        self.bucket, self.folder, self.client = faults.endpoint.bucket, folder, client

    def objects(self):
        found = self.client.list_objects_v2(Bucket=self.bucket, Prefix=f"{self.folder}/final/")
        return {entry["Key"].rpartition("/")[2] for entry in found.get("Contents", ())}

    def uploads(self):
        return self.client.list_multipart_uploads(Bucket=self.bucket, Prefix=self.folder).get("Uploads", [])

    def no_uploads(self, within):
        """Whether none is open, or becomes so within seconds."""
        until = time.monotonic() + within
        while self.uploads():
            if time.monotonic() > until:
                return False
            time.sleep(0.05)
        return True


@pytest.fixture
def place(versitygw, faults):
    with versitygw.client() as client:
        yield Place(faults, client)


def interrupt(name, script, place, faults, tmp_path, signals=SIGNALS):
    """Sends the signals to one process, each while it runs the operation anew."""
    running, rule = Running(script, tmp_path, name.split(",")[0], "raise", env=place.environment), SCENARIOS[name]
    for number in signals:
        with faults.rule(seconds=30, **rule) if rule else contextlib.nullcontext():
            sent, result = running.signal_while(number)
        assert result["error"] == SIGNALS[number], result
        assert result["at"] - sent <= LIMIT, (number, result["at"] - sent)
        assert place.no_uploads(within=5), number
        assert "a" not in place.objects() and "after" in place.objects(), number
        assert result["calls"] == 0 and result["threads"] == 1, (number, result)
    running.end()


@pytest.mark.parametrize("name", SCENARIOS)
def test_interrupt(name, script, place, faults, tmp_path):
    interrupt(name, script, place, faults, tmp_path)


@pytest.mark.parametrize("name", SECURE)
def test_interrupt_over_https(name, script, versitygw, tmp_path):
    with FaultProxy(versitygw, tmp_path, secure=True) as faults, versitygw.client() as client:
        interrupt(name, script, Place(faults, client), faults, tmp_path, [signal.SIGINT])


def test_interrupt_while_ranges_come_side_by_side(script, versitygw, tmp_path):
    with (
        farline(versitygw, tmp_path, bandwidth=6, delay=10) as line,
        FaultProxy(line, tmp_path) as faults,
        versitygw.client() as client,
    ):
        place = Place(faults, client)
        running = Running(script, tmp_path, "read_all", "raise", env=place.environment)
        faults.clear()
        sent, result = running.signal_while(signal.SIGINT, after=1)
        gets = faults.log("GetObject")
        assert len({entry.connection for entry in gets}) > 2 and sum(entry.sent for entry in gets) < 20 * MiB, gets
        assert result["error"] == "KeyboardInterrupt", result
        assert result["at"] - sent <= LIMIT, result["at"] - sent
        assert result["calls"] == 0 and result["threads"] == 1, result
        faults.clear()
        running.end()
        assert not faults.log("GetObject")


# ---- interpreter exit

START = """
import json, os, sys, threading, time
from django.conf import settings
settings.configure(INSTALLED_APPS=["storage"])
import adapters
adapter = adapters.make(None)
final = adapter.put_final("there", b"x" * 1_000_000)
def endless():
    while True:
        yield bytes(65536) * 4
def put():
    adapter.put_final("a", endless())
def read():
    while True:
        with adapter.get_final_stream(*final) as stream:
            stream.read()
"""
EXITS = {
    "a daemon thread": "threading.Thread(target=put, daemon=True).start()\ntime.sleep(0.5)",
    "daemon threads": (
        "for work in (put, put, read, read):\n    threading.Thread(target=work, daemon=True).start()\ntime.sleep(0.5)"
    ),
    "an interrupt": (
        "import _thread, signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "threading.Timer(0.5, _thread.interrupt_main).start()\n"
        "try:\n    put()\nexcept KeyboardInterrupt:\n    pass"
    ),
    "an exception": (
        "def broken():\n    yield bytes(20_000_000)\n    raise ZeroDivisionError\n"
        "try:\n    adapter.put_final('a', broken())\nexcept ZeroDivisionError:\n    pass"
    ),
    "nothing": "",
    "an open stream": "reader = adapter.get_final_stream(*final); reader.read(10)",
}


def leave(code, place, tmp_path):
    """Runs code in an interpreter of its own; gives the seconds from the last line to the end of the process."""
    done = subprocess.Popen(
        [sys.executable, "-X", "faulthandler", "-c", f"{START}{code}\nprint(time.monotonic(), flush=True)"],
        cwd=tmp_path,
        env=place.environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    out, err = done.communicate(timeout=30)
    seconds = time.monotonic() - float(out)
    assert done.returncode == 0 and "Fatal" not in err and "panic" not in err, err
    return seconds


@pytest.mark.parametrize("name", EXITS)
def test_exit_aborts_what_runs(name, place, tmp_path):
    seconds = leave(EXITS[name], place, tmp_path)
    assert place.objects() == {"there"}
    assert not place.uploads()
    assert seconds < (1 if name in ("nothing", "an open stream") else 2.5)


CHILD = """
def child():
    try:
        adapter.put_final("a", (bytes(1_000_000) if n < 20 else 1 / 0 for n in range(30)))
    except ZeroDivisionError:
        pass
import multiprocessing
process = multiprocessing.get_context("fork").Process(target=child)
process.start()
process.join()
assert process.exitcode == 0
"""


def test_exit_of_a_child_aborts_what_runs(place, faults, tmp_path):
    with faults.rule("delay", "AbortMultipartUpload", seconds=0.5):
        leave(CHILD, place, tmp_path)
        assert place.objects() == {"there"}
        assert not place.uploads()


@pytest.mark.parametrize("name", ["a daemon thread", "an interrupt"])
def test_exit_does_not_wait_for_ever(name, place, faults, tmp_path):
    with faults.rule("stall_down", "AbortMultipartUpload", at=-1, seconds=30):
        seconds = leave(EXITS[name], place, tmp_path)
    assert 1.5 < seconds < 3
    assert place.objects() == {"there"}


# ---- a process that is held up

SMALL = """
import json, os, random, signal, sys, time
from django.conf import settings
settings.configure(INSTALLED_APPS=["storage"])
import adapters
from storage import native

class Mine(Exception):
    pass

def interrupt(*_):
    raise Mine

adapter = adapters.make(None)
final = adapter.put_final("there", b"x" * 1000)
signal.signal(signal.SIGALRM, interrupt)
print("ready", flush=True)
end, interrupts, n = time.monotonic() + 4, 0, 0
while time.monotonic() < end:
    n += 1
    try:
        signal.setitimer(signal.ITIMER_REAL, random.uniform(0.0001, 0.006))
        with adapter.get_final_stream(*final) as stream:
            stream.read()
        adapter.put_final(f"n{n}", b"y" * 1000)
        signal.setitimer(signal.ITIMER_REAL, 0)
    except Mine:
        interrupts += 1
signal.setitimer(signal.ITIMER_REAL, 0)
adapter.close()
del adapter
end = time.monotonic() + 10
while (left := native.stats())["calls"] + left["connections"] and time.monotonic() < end:
    time.sleep(0.02)
print(json.dumps([interrupts, left]), flush=True)
"""


def test_nothing_is_left_of_interrupts_in_a_process_that_is_stopped_now_and_then(versitygw, tmp_path):
    options = s3_options(versitygw, folder=uuid.uuid4().hex)
    environment = {**os.environ, OPTIONS: json.dumps(options), "PYTHONPATH": str(HERE / "faults")}
    command = [sys.executable, "-c", SMALL]
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        for n in range(40):
            process.send_signal(signal.SIGSTOP)
            time.sleep(0.045)
            process.send_signal(signal.SIGCONT)
            time.sleep(0.001 * (n % 17))
        interrupts, left = json.loads(process.stdout.readline())
    assert interrupts > 20
    assert left["calls"] == 0 and left["connections"] == 0 and left["readers"] == 0, left
