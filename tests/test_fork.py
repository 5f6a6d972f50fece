"""A forked child works, whatever its parent had loaded; import alone loads nothing native."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import pytest
from conftest import HERE

SCENARIOS = [
    "before_load",
    "busy_parent",
    "closed_descriptors",
    "from_a_thread",
    "interrupted",
    "interrupted_child_of_a_thread",
    "many_children",
    "memory_is_empty_in_a_child",
    "pool",
    "spawned",
    "streams_belong_to_the_parent",
    "transfers_belong_to_the_parent",
    "while_another_thread_loads",
]
NOT_LOADED = """
import sys
assert not [name for name in sys.modules if "_gostorage" in name], "imported"
assert "gostorage" not in open("/proc/self/maps").read(), "mapped"
"""


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_fork(scenario, run, tmp_path):
    assert run("fork", tmp_path, scenario, timeout=60) == "well"


@contextmanager
def server(tmp_path, *command):
    """Runs command in tests/faults; yields (process, log file), and ends it the polite way."""
    log = tmp_path / "log"
    with open(log, "w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *map(str, command)],
            cwd=HERE / "faults",
            env={**os.environ, "TEST_ROOT": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process, log
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0, log.read_text()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def wait_for(condition, log, seconds=20):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.05)


@pytest.mark.slow
def test_gunicorn_preload(tmp_path):
    options = ["--preload", "-w", "4", "-b", "127.0.0.1:0", "-t", "15", "--log-level", "info"]
    with server(tmp_path, "gunicorn", *options, "wsgi:application") as (process, log):
        wait_for(lambda: log.read_text().count("Booting worker") == 4, log)
        address = log.read_text().split("Listening at: ")[1].split()[0]

        def post(n):
            body = bytes([n]) * 500_000
            with urllib.request.urlopen(f"{address}/k{n}", body, timeout=20) as response:
                answer = json.load(response)
            assert answer["sha256"] == sha256(body).hexdigest()
            assert answer["master"] == process.pid != answer["pid"]
            return answer["pid"]

        with ThreadPoolExecutor(8) as pool:
            pids = set(pool.map(post, range(60)))
            assert len(pids) > 1
            os.kill(min(pids), signal.SIGKILL)
            wait_for(lambda: log.read_text().count("Booting worker") == 5, log)
            again = set(pool.map(post, range(60)))
        assert min(pids) not in again
    assert "WORKER TIMEOUT" not in log.read_text() and "Traceback" not in log.read_text()


@pytest.mark.slow
def test_celery_prefork(tmp_path, monkeypatch):
    for name in ("results", "queue", "control"):
        (tmp_path / name).mkdir()
    options = ["worker", "-P", "prefork", "-c", "2", "--max-tasks-per-child", "4", "-l", "info"]
    options += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    with server(tmp_path, "celery", "-A", "tasks", *options) as (_, log):
        send = (
            "import json, tasks\n"
            "results = [tasks.store.delay(f'key{n}') for n in range(20)]\n"
            "forever = tasks.forever.delay('forever')\n"
            "print(json.dumps([forever.get(timeout=40), *(r.get(timeout=40) for r in results)]))"
        )
        client = subprocess.run(
            [sys.executable, "-c", send],
            cwd=HERE / "faults",
            env={**os.environ, "TEST_ROOT": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert client.returncode == 0, client.stderr + log.read_text()
        undone, *answers = json.loads(client.stdout)
        assert undone == "undone", log.read_text()
        expected = sha256(b"\1" * 300_000 + b"\2" * 300_000).hexdigest()
        assert {answer["sha256"] for answer in answers} == {expected}
        assert len({answer["pid"] for answer in answers}) > 2
        assert all(answer["pid"] != answer["parent"] for answer in answers)


def python(code, tmp_path, **env):
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_import_loads_no_extension(tmp_path):
    python("import storage, storage.native, storage.base, storage.streams" + NOT_LOADED, tmp_path)
    python(
        "from django.conf import settings\n"
        "settings.configure(INSTALLED_APPS=['storage'])\n"
        "import django; django.setup()\n"
        "from storage import get_storage_adapter, LocalStorageAdapter, MemoryStorageAdapter\n"
        "LocalStorageAdapter(temp_dir='temp', final_dir='final'); MemoryStorageAdapter()\n" + NOT_LOADED,
        tmp_path,
    )


def test_check_loads_no_extension(tmp_path):
    code = (
        "from django.conf import settings\n"
        "from pathlib import Path\n"
        "settings.configure(INSTALLED_APPS=['storage'], BASE_DIR=Path('.').absolute(),"
        " STORAGE_BACKEND='local', STORAGE_TEMP_DIR='/nowhere/a', STORAGE_FINAL_DIR='/nowhere/b')\n"
        "import django; django.setup()\n"
        "from django.core.management import call_command\n"
        "call_command('check')\n"
        "from storage import get_storage_adapter; get_storage_adapter()\n"
    )
    python(code + NOT_LOADED, tmp_path)
    assert not Path("/nowhere").exists()
