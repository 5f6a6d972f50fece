"""A forked child works, whatever its parent had loaded; import alone loads nothing native."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from hashlib import sha256
from pathlib import Path

import pytest
from conftest import FULL, HERE, Place, place_on
from servers import STORES

from storage import S3StorageAdapter

SCENARIOS = [
    "before_load",
    "busy_parent",
    "closed_descriptors",
    "closed_while_a_thread_reads",
    "from_a_thread",
    "garbage_of_the_parent",
    "interrupted",
    "interrupted_child_of_a_thread",
    "many_children",
    "pool",
    "signals_are_left_to_python",
    "spawned",
    "streams_belong_to_the_parent",
    "timers_are_left_alone",
    "transfers_belong_to_the_parent",
    "watched_by_faulthandler",
    "while_another_thread_loads",
]
NOT_LOADED = """
import sys
assert not [name for name in sys.modules if "_gostorage" in name], "imported"
assert "gostorage" not in open("/proc/self/maps").read(), "mapped"
"""


@pytest.fixture(params=["local", *STORES])
def place(request):
    if request.param == "local":
        return Place(dict(os.environ))
    return place_on(request.getfixturevalue(request.param))


# What a server forks with is one thing, and where its children store another: test_fork has each with each.
ON_ONE_SERVER = pytest.mark.parametrize(
    "place", ["local", *(server for server in STORES if FULL or server != "minio")], indirect=True
)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_fork(scenario, place, run, tmp_path):
    assert run("fork", tmp_path, scenario, timeout=100, env=place.environment) == "well"
    assert not place.uploads("a") and not place.uploads("b")


def test_memory_is_empty_in_a_child(run, tmp_path):
    assert run("fork", tmp_path, "memory_is_empty_in_a_child") == "well"


def test_greenlets(place, run, tmp_path):
    """Transfers of one thread that wait in turn, as under gunicorn's gevent workers: none keeps the others."""
    found = run("greenlets", tmp_path, timeout=100, env=place.environment)
    assert found.pop("beats") > 10
    assert found == {"calls": 0, "readers": 0, "lent": 0}


def environment(place, tmp_path):
    """Of the applications in tests/faults."""
    return {**place.environment, "TEST_ROOT": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}


def ended_well(process):
    try:
        return process.wait(20) == 0
    except subprocess.TimeoutExpired:
        # Celery's pool takes a lock in the end that a child may have kept: without this library too, in 1 of 32 runs.
        children = [file.read_text() for file in Path(f"/proc/{process.pid}/task").glob("*/children")]
        return "celery" in process.args and not any(children) and waits_for_other_processes(process.pid)


def waits_for_other_processes(pid):
    """For a lock that they share: it is the only futex(2) without FUTEX_PRIVATE_FLAG (128)."""
    call = Path(f"/proc/{pid}/syscall").read_text().split()
    return call[0] in ("202", "98") and not int(call[2], 16) & 128  # on x86-64, on aarch64


@contextmanager
def server(place, tmp_path, *command):
    """Runs command in tests/faults; yields (process, log file), and ends it the polite way."""
    log = tmp_path / "log"
    with open(log, "w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *map(str, command)],
            cwd=HERE / "faults",
            env=environment(place, tmp_path),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process, log
        process.send_signal(signal.SIGTERM)
        assert ended_well(process), log.read_text()
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
@ON_ONE_SERVER
def test_gunicorn_preload(place, tmp_path):
    options = ["--preload", "-w", "4", "-b", "127.0.0.1:0", "-t", "60", "--log-level", "info"]
    with server(place, tmp_path, "gunicorn", *options, "wsgi:application") as (process, log):
        wait_for(lambda: log.read_text().count("Booting worker") == 4, log)
        address = log.read_text().split("Listening at: ")[1].split()[0]

        def post(n):
            body = bytes([n]) * 500_000
            with urllib.request.urlopen(f"{address}/k{n}", body, timeout=60) as response:
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


@contextmanager
def worker(place, tmp_path, *options):
    """A Celery worker of tests/faults/tasks.py; yields what runs Python code that sends to it, and its log file."""
    for name in ("results", "queue", "control"):
        (tmp_path / name).mkdir()
    options = ["-P", "prefork", "-c", "2", "-l", "info", *options]
    options += ["--without-gossip", "--without-mingle", "--without-heartbeat"]
    with server(place, tmp_path, "celery", "-A", "tasks", "worker", *options) as (_, log):

        def send(code):
            client = subprocess.run(
                [sys.executable, "-c", f"import json, tasks\n{code}"],
                cwd=HERE / "faults",
                env=environment(place, tmp_path),
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert client.returncode == 0, client.stderr + log.read_text()
            return json.loads(client.stdout)

        yield send, log


@pytest.mark.slow
@ON_ONE_SERVER
def test_celery_prefork(place, tmp_path):
    with worker(place, tmp_path, "--max-tasks-per-child", "4") as (send, _):
        answers = send(
            "results = [tasks.store.delay(f'key{n}') for n in range(20)]\n"
            "print(json.dumps([result.get(timeout=40) for result in results]))"
        )
    expected = sha256(b"\1" * 300_000 + b"\2" * 300_000).hexdigest()
    assert {answer["sha256"] for answer in answers} == {expected}
    assert len({answer["pid"] for answer in answers}) > 2
    assert all(answer["pid"] != answer["parent"] for answer in answers)


def limited(place, tmp_path, tasks):
    """Runs (operation, key) tasks until their soft time limit, each in a worker process of its own."""
    with worker(place, tmp_path, "--max-tasks-per-child", "1") as (send, log):
        answers = send(
            f"results = [tasks.until_limit.delay(*task) for task in {tasks!r}]\n"
            "print(json.dumps([result.get(timeout=40) for result in results]))"
        )
        late = [answer for answer in answers if answer["seconds"] > 0.25]
        assert not late, log.read_text()
    return answers


@pytest.mark.slow
@pytest.mark.alone
def test_celerys_soft_time_limit(tmp_path):
    """The first two processes are forked from the main thread, the next ones from another."""
    place = Place(dict(os.environ))
    answers = limited(place, tmp_path, [("put", f"key{n}") for n in range(4)])
    assert not any(answer["visible"] for answer in answers)


# The operation, and what the server does meanwhile to requests for its key.
STALLS = {
    "stalled-put": ("put", {"fault": "stall_up", "operation": "UploadPart", "at": 1_000_000}),
    "unanswered-put": ("put", {"fault": "stall_down", "operation": "UploadPart", "at": -1}),
    "stalled-read": ("read", {"fault": "stall_down", "operation": "GetObject", "at": 1_000_000}),
    "unanswered-read": ("read", {"fault": "stall_down", "operation": "GetObject", "at": -1}),
}


@pytest.mark.slow
@pytest.mark.alone
def test_celerys_soft_time_limit_on_s3(faults, tmp_path):
    """There too, and the server hears of the end of the uploads."""
    place = place_on(faults.endpoint)
    reads = [key for key, (operation, _) in STALLS.items() if operation == "read"]
    with closing(S3StorageAdapter(**place.options)) as adapter:
        for key in reads:
            adapter.put_final(key, bytes(12_000_000))
    tasks = [("put", "put"), *((operation, key) for key, (operation, _) in STALLS.items()), ("put", "another-put")]
    with ExitStack() as rules:
        for key, (_, rule) in STALLS.items():
            rules.enter_context(faults.rule(key_contains=key, seconds=60, **rule))
        answers = limited(place, tmp_path, tasks)
    assert {key for (_, key), answer in zip(tasks, answers, strict=True) if answer["visible"]} == set(reads)
    log = faults.log()
    for operation, key in tasks:
        requests = [entry for entry in log if entry.key.endswith(f"/{key}")]
        expected = {STALLS[key][1]["fault"]} if key in STALLS else set()
        assert {entry.fault for entry in requests if entry.fault} == expected, key
        if operation == "put":
            assert any(entry.operation == "CreateMultipartUpload" for entry in requests), key
            assert not place.uploads(key), key


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


GIVEN_UP = """
import os, signal, socket, threading
from django.conf import settings
settings.configure(INSTALLED_APPS=["storage"])
from storage import S3StorageAdapter, StorageTimeout

listener = socket.create_server(("127.0.0.1", 0))
listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)  # what follows stays with the client's system
port = listener.getsockname()[1]
given_up, arrived = threading.Event(), []

def serve():
    connection, _ = listener.accept()
    connection.settimeout(5)
    connection.recv(65536)
    connection.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\nETag: "e"\\r\\n\\r\\n')
    given_up.wait()
    try:
        while piece := connection.recv(65536):
            arrived.append(len(piece))
    except OSError:
        pass

thread = threading.Thread(target=serve)
thread.start()
adapter = S3StorageAdapter(
    bucket_name="tests", access_key="a", secret_key="s", region_name="us-east-1",
    endpoint_url=f"http://127.0.0.1:{port}", read_timeout=1, max_attempts=1,
)
adapter.stat_final("tests", "final/a")
if not (child := os.fork()):
    signal.pause()
try:
    adapter.put_final("a", bytes(60_000))
except StorageTimeout:
    given_up.set()
    thread.join()
    print(sum(arrived))
finally:
    given_up.set()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
"""


def test_what_was_given_up_never_arrives_where_a_child_holds_the_connection(tmp_path):
    assert int(python(GIVEN_UP, tmp_path)) < 60_000


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
