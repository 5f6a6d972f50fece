"""Signals reach Python within 250 ms in any call, what it did is undone, and exit is clean."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import litter, marked
from test_crash import Agent

pytestmark = [pytest.mark.slow, pytest.mark.python]

LIMIT = 0.25
# What runs, and the system call that strace makes slow meanwhile. Never `write`: the Go runtime wakes threads by it.
SCENARIOS = {
    "put_endless": None,
    "put_endless, slow disk": "sync_file_range",
    "put_huge_bytes": None,
    "put_huge_bytes, slow disk": "sync_file_range",
    "put_then_sync, slow disk": "fsync",
    "assemble": None,
    "assemble, slow disk": "sync_file_range",
    "read_all": None,
    "read_all, slow disk": "pread64",
    "read_big": None,
    "read_by_chunks": None,
    "put_from_reader": None,
    "put_file": None,
    "put_file, slow disk": "pread64",
    "get, slow disk": "openat",
    "delete, slow disk": "unlinkat",
    "health, slow disk": "fsync",
}


class Running(Agent):
    """A process of tests/faults/interrupt.py."""

    def __init__(self, script, *args, **options):
        self.process = script("interrupt", *args, stdin=subprocess.PIPE, **options)
        assert self.hear() == "ready", self.process.stderr.read()

    def signal_while(self, number, after=0.3):
        """Sends the signal while it runs; gives the time of sending and what came of it.

        How long its threads waited for a processor is the machine's matter: the longest wait counts as before sending.
        """
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        assert self.hear() == "started"
        time.sleep(after)
        before, sent = self.waits(), time.monotonic()
        self.process.send_signal(number)
        result = self.hear()
        assert result, self.process.stderr.read()
        waited = [wait - before.get(thread, 0) for thread, wait in self.waits().items()]
        return sent + max(waited, default=0), result

    def waits(self):
        """For how many seconds each of its threads has waited for a processor."""
        waits = {}
        for thread in Path(f"/proc/{self.process.pid}/task").iterdir():
            with contextlib.suppress(OSError):  # it has ended
                waits[thread.name] = int((thread / "schedstat").read_text().split()[1]) / 1e9
        return waits

    def run(self, number, slow, log):
        if not slow:
            return self.signal_while(number)
        faults = f"inject={slow}:delay_enter=800000", "inject=preadv2:error=EOPNOTSUPP"  # it does not say what is slow
        with self.strace(log, f"trace={slow},preadv2", *faults):
            return self.signal_while(number)

    def end(self):
        super().end()
        assert self.process.returncode == 0, self.process.stderr.read()


def undone(tmp_path, sent, result):
    assert result["at"] - sent <= LIMIT, result["at"] - sent
    assert not (tmp_path / "final/a").exists()
    assert result["calls"] == 0 and result["threads"] == 1
    assert not litter(tmp_path)


# How a signal reaches Python differs by Python; how slow a disk is does not, and one is enough to see it.
NEWEST = [name for name, slow in SCENARIOS.items() if slow and name != "put_then_sync, slow disk"]


@pytest.mark.alone
@pytest.mark.parametrize("name", marked(SCENARIOS, newest=NEWEST))
def test_an_exception_of_a_handler(name, script, tmp_path):
    """Ctrl-C, then a handler that raises what is its own."""
    running = Running(script, tmp_path, name.split(",")[0], "raise")
    sent, result = running.run(signal.SIGINT, SCENARIOS[name], tmp_path / "strace.log")
    assert result["error"] == "KeyboardInterrupt", result
    undone(tmp_path, sent, result)
    sent, result = running.run(signal.SIGALRM, SCENARIOS[name], tmp_path / "strace.log")
    assert result["mine"], result
    undone(tmp_path, sent, result)
    running.end()


@pytest.mark.alone
@pytest.mark.parametrize("name", ["put_for_a_second", "put_then_sync, slow disk"])
def test_a_handler_that_returns(name, script, tmp_path):
    """It runs at once, and the transfer goes on to its end."""
    running = Running(script, tmp_path, name.split(",")[0], "note")
    sent, result = running.run(signal.SIGALRM, SCENARIOS.get(name), tmp_path / "strace.log")
    assert result["error"] is None, result
    assert result["alarm"] - sent <= LIMIT, result["alarm"] - sent
    running.end()
    assert (tmp_path / "final/a").exists()


@pytest.mark.alone
@pytest.mark.parametrize("when", ["faulthandler", "faulthandler-late"])
def test_faulthandler(when, script, tmp_path):
    running = Running(script, tmp_path, "put_endless", "raise", when)
    sent, result = running.signal_while(signal.SIGINT)
    assert result["error"] == "KeyboardInterrupt", result
    undone(tmp_path, sent, result)
    running.end()


@pytest.mark.skipif(sys.version_info < (3, 12), reason="it steps through the package by sys.monitoring")
@pytest.mark.timeout(420)  # "load" makes a process for each of two hundred places
@pytest.mark.parametrize(
    "operation",
    ["load", "put", "put_over", "put_part", "assemble", "get", "open_only", "delete", "first", "undo"],
)
def test_a_signal_anywhere(operation, run, tmp_path):
    """At each place where the interpreter may run a handler, its exception arrives and nothing is left behind. Of a
    loop one round or two are tried: the others come to the same places in the same way."""
    places = run("anywhere", tmp_path, operation, timeout=400)
    assert min(places) >= (5 if operation == "undo" else 20)


START = """
import sys, threading, time
from django.conf import settings
settings.configure(INSTALLED_APPS=["storage"])
from storage import LocalStorageAdapter
adapter = LocalStorageAdapter(temp_dir="temp", final_dir="final")
final = adapter.put_final("there", b"x" * 1_000_000)
reader = adapter.get_final_stream(*final)
assert reader.read(10)
def endless():
    while True:
        for size in (65536,) * 4 + (262144,) * 8:
            yield b"x" * size
def put():
    adapter.put_final("a", endless())
def read():
    while True:
        with adapter.get_final_stream(*final) as stream:
            stream.read()
"""
EXITS = {
    "an open stream": "",
    "an open stream in a cycle": "cycle = [reader]; cycle.append(cycle); del reader, cycle",
    "daemon threads": (
        "for work in (put, put, read, read):\n    threading.Thread(target=work, daemon=True).start()\ntime.sleep(0.3)"
    ),
    "a daemon thread, sys.exit": ("threading.Thread(target=put, daemon=True).start()\ntime.sleep(0.2); sys.exit(0)"),
    "a suspended source": (
        "def source():\n    yield bytes(1_000_000)\n    yield time.sleep(1000)\n"
        "threading.Thread(target=adapter.put_final, args=('a', source()), daemon=True).start()\n"
        "time.sleep(0.2)"
    ),
    "a thread that goes on during shutdown": (
        "def late():\n    time.sleep(0.3)\n    adapter.put_final('late', [b'x'] * 100)\n"
        "    reader.read()\n"
        "threading.Thread(target=late).start()"
    ),
    "work in atexit": "import atexit\natexit.register(adapter.put_final, 'late', b'x')",
    "closed before": "adapter.close(); adapter.close()",
}


@pytest.mark.parametrize("name", EXITS)
def test_exit(name, tmp_path):
    done = subprocess.run(
        [sys.executable, "-X", "faulthandler", "-c", START + EXITS[name]],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 0, done.stderr
    assert "Fatal" not in done.stderr and "panic" not in done.stderr
    assert done.stderr == "" or "daemon" in name, done.stderr
    assert not (tmp_path / "final/a").exists()
    assert (tmp_path / "final/late").exists() == ("late" in EXITS[name])


def test_sigterm_keeps_its_meaning(tmp_path):
    process = subprocess.Popen(
        [sys.executable, "-c", START + "print('on', flush=True); put()"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "on\n"
    time.sleep(0.2)
    process.terminate()
    assert process.wait(5) == -signal.SIGTERM
    process.stdout.close()
    assert not (tmp_path / "final/a").exists()
    for name in litter(tmp_path):  # as after any kill
        os.unlink(name)


def test_handlers_are_left_alone(tmp_path):
    """Loading the extension changes no signal handler of Python."""
    code = (
        "import json, signal\n"
        "numbers = [int(s) for s in signal.valid_signals()]\n"
        "before = {n: repr(signal.getsignal(n)) for n in numbers}\n"
        + START
        + "print(json.dumps(before == {n: repr(signal.getsignal(n)) for n in numbers}))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=20)
    assert json.loads(done.stdout)
