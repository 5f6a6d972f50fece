"""The portal as it is deployed: gunicorn, a Celery worker and management commands."""

import hashlib
import http.client
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
CHUNK = 5 * 1024 * 1024


@pytest.fixture(params=["local", "s3"])
def environment(request, tmp_path):
    """The same portal on a disk and on a bucket: two settings differ, and credentials come from the environment."""
    environment = {
        **os.environ,
        "DJANGO_SETTINGS_MODULE": "portal.settings",
        "PORTAL_VAR": str(tmp_path / "portal"),
        "PYTHONPATH": str(HERE),
    }
    if request.param == "s3":
        endpoint = request.getfixturevalue("versitygw")
        environment |= {
            "STORAGE_BACKEND": "s3",
            "AWS_STORAGE_BUCKET_NAME": endpoint.bucket,
            "AWS_S3_ENDPOINT_URL": endpoint.url,
            "AWS_ACCESS_KEY_ID": endpoint.access_key,
            "AWS_SECRET_ACCESS_KEY": endpoint.secret_key,
        }
    return environment


@pytest.fixture
def manage(environment, tmp_path):
    def manage(*arguments):
        return subprocess.run(
            [sys.executable, str(HERE / "portal" / "manage.py"), *arguments],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
        )

    done = manage("migrate", "--verbosity", "0")
    assert done.returncode == 0, done.stderr
    return manage


@contextmanager
def running(command, environment, log):
    """A server in a process group of its own, killed as one if it does not end when told to."""
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            env=environment,
            cwd=log.parent,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(what, log, seconds=30):
    """The first match of the pattern in the log."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if match := re.search(what, log.read_text(errors="replace")):
            return match
        time.sleep(0.05)
    raise AssertionError(log.read_text(errors="replace"))


class Client:
    def __init__(self, port):
        self.port = int(port)

    def __call__(self, method, path, body=None, **headers):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body=body, headers=headers)
        response = connection.getresponse()
        data = response.read()
        connection.close()
        return response.status, data

    def json(self, *arguments):
        status, data = self(*arguments)
        return status, json.loads(data)


@pytest.fixture(
    params=[pytest.param([], id="plain", marks=pytest.mark.newest), pytest.param(["--preload"], id="preload")]
)
def client(request, manage, environment, tmp_path):
    log = tmp_path / "gunicorn.log"
    command = ["gunicorn", "portal.wsgi", "--bind", "127.0.0.1:0", "--workers", "2"]
    with running([*command, *request.param], environment, log):
        yield Client(wait_for(r"Listening at: http://127\.0\.0\.1:(\d+)", log)[1])


def start(client, data):
    body = json.dumps({"filename": "a.bin", "size": len(data)})
    status, session = client.json("POST", "/sessions/", body)
    assert status == 201
    return session


def pieces(data):
    return {n + 1: data[n * CHUNK : (n + 1) * CHUNK] for n in range(-(-len(data) // CHUNK))}


def test_upload_over_http(client):
    data = random.Random(2).randbytes(3 * CHUNK + 7)
    session = start(client, data)
    parts = f"/sessions/{session['session']}/parts"
    numbered = pieces(data)
    assert session["total_parts"] == len(numbered) == 4
    finalize = f"/sessions/{session['session']}/finalize/"
    for number in (3, 1, 4, 1):  # out of order, one twice
        status, part = client.json("PUT", f"{parts}/{number}/", numbered[number])
        assert (status, part["sha256"]) == (200, hashlib.sha256(numbered[number]).hexdigest())
    assert client("POST", finalize)[0] == 400  # part 2 is missing
    assert client("PUT", f"{parts}/2/", b"wrong size")[0] == 400
    assert client("PUT", f"{parts}/1/", b"x" * CHUNK)[0] == 409
    assert client("PUT", f"{parts}/5/", b"x")[0] == 400
    assert client("PUT", f"{parts}/2/", numbered[2])[0] == 200
    for _ in range(2):  # finalizing again is fine
        status, file = client.json("POST", finalize)
        assert (status, file["sha256"]) == (200, hashlib.sha256(data).hexdigest())
    assert client("GET", f"/files/{session['file']}/") == (200, data)
    assert client("GET", f"/files/{session['file']}/", Range="bytes=-5") == (206, data[-5:])


def test_broken_off_upload_leaves_nothing(client):
    session = start(client, b"x" * CHUNK)
    path = f"/sessions/{session['session']}/parts/1/"
    connection = http.client.HTTPConnection("127.0.0.1", client.port, timeout=60)
    connection.putrequest("PUT", path)
    connection.putheader("Content-Length", str(CHUNK))
    connection.endheaders(b"x" * 1000)
    connection.close()
    assert client("GET", f"/parts/{session['session']}/1/")[0] == 404
    assert client("PUT", path, b"x" * CHUNK)[0] == 200


def test_bare_parts_health_and_bad_requests(client):
    assert client.json("GET", "/ready/")[1]["ready"]
    assert client("PUT", "/parts/s/1/", b"bytes")[0] == 200
    assert client("GET", "/parts/s/1/") == (200, b"bytes")
    assert client("GET", "/parts/s/2/")[0] == 404
    assert client("GET", "/parts/s/0/")[0] in (400, 404)
    assert client("DELETE", "/parts/s/1/")[0] == 200
    assert client("GET", "/parts/s/1/")[0] == 404
    good = {"filename": "a.bin", "size": 10}
    for bad in (
        *("", "[", "[]", "5", "{}", '{"size": 1' + "0" * 5000 + "}"),
        *(json.dumps(good | {"size": size}) for size in (0, -1, 2**63, 10**400, 1.5, "10", None)),
        *(json.dumps(good | {"filename": name}) for name in ("", "a" * 256, 5, None)),
        json.dumps(good | {"content_type": "a" * 101}),
    ):
        status, answer = client.json("POST", "/sessions/", bad)
        assert (status, sorted(answer)) == (400, ["code", "error"]), bad[:100]
    session = start(client, b"x")
    part = f"/sessions/{session['session']}/parts"
    for number in ("0", "2", "9" * 30):
        assert client.json("PUT", f"{part}/{number}/", b"x")[0] == 400


CELERY = """
import hashlib, io, os
from portal import tasks  # sets Django up
from portal import services
from storage import get_storage_adapter

data = os.urandom(2_500_000)
session = services.start_session("a.bin", len(data), chunk_size=1_000_000)
for n in (3, 1, 2):
    services.upload_chunk(session, n, io.BytesIO(data[(n - 1) * 1_000_000 : n * 1_000_000]))
joined = tasks.finalize.delay(str(session.pk))
trips = [tasks.round_trip.delay("trips", n, 100_000) for n in range(1, 33)]
joined = joined.get(timeout=60)
assert joined["sha256"] == hashlib.sha256(data).hexdigest()
trips = [trip.get(timeout=60) for trip in trips]
assert all(trip["ok"] for trip in trips)
print(len({trip["pid"] for trip in trips}))

live = services.start_session("b.bin", 10, chunk_size=10)
adapter = get_storage_adapter()
on_files = adapter.backend == "local"  # whose age can be changed
for name in ("forgotten", str(live.pk), "young"):
    adapter.put_temp_part(name, 1, b"0123456789")
    if on_files and name != "young":
        os.utime(f"{adapter.directories[0]}/{name}/00001", (1, 1))
swept = tasks.sweep_uploads.delay().get(timeout=60)
count = int(on_files)
assert swept == {"sessions": count, "parts": count, "uploads": 0, "size": 10 * count, "finished": True}, swept
assert adapter.list_temp_parts(live.pk) and adapter.list_temp_parts("young")
assert len(adapter.list_temp_parts("forgotten")) == 1 - count
"""


def test_celery_prefork(manage, environment, tmp_path):
    log = tmp_path / "celery.log"
    worker = ["celery", "-A", "portal.tasks", "worker", "--concurrency", "4", "--loglevel", "INFO"]
    with running(worker, environment, log):
        wait_for(r"celery@\S+ ready", log)
        done = subprocess.run(
            [sys.executable, "-c", CELERY],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr + log.read_text()


def test_demo(manage):
    done = manage("demo", "--make-size", str(2 * CHUNK + 1))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Exception ignored" not in done.stderr
    storage, hashlib_ = re.findall(r"(?:storage|hashlib) +([0-9a-f]{64})", done.stdout)
    assert storage == hashlib_
    for word in ("MB/s", "CPU ns/byte", "peak memory", "4 parts"):
        assert word in done.stdout


def test_demo_of_a_file(manage, tmp_path):
    file = tmp_path / "report.txt"
    file.write_bytes(b"one byte more than nothing")
    done = manage("demo", str(file))
    assert done.returncode == 0, done.stdout + done.stderr
    assert hashlib.sha256(file.read_bytes()).hexdigest() in done.stdout
    assert manage("demo", str(tmp_path)).returncode != 0


def test_checks_and_migrations(manage):
    for command in (["check", "--fail-level", "WARNING"], ["makemigrations", "--check"]):
        done = manage(*command)
        assert done.returncode == 0, done.stdout + done.stderr
