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
import sqlite3
import subprocess
import sys
import threading
import time
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
import requests
from conftest import FULL, HERE, s3_options

aiotus = pytest.importorskip("aiotus", reason="its aiohttp has no wheel for this Python yet")

from tusclient.client import TusClient  # noqa: E402
from tusclient.exceptions import TusCommunicationError, TusUploadFailed  # noqa: E402

MIB = 1024 * 1024
DATA = random.Random(17).randbytes(20 * MIB + 7)
VIRUS = b"X5O!" + DATA[4:]
TYPE = "application/offset+octet-stream"
TUS = {"Tus-Resumable": "1.0.0"}

SERVERS = {
    "gunicorn": "gunicorn -k gthread --threads 8 -b 127.0.0.1:{port} uploads:wsgi",
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

    def process_holds(self):
        return requests.get(f"{self.url}/process/", timeout=30).json()


@contextlib.contextmanager
def site_of(server, root, endpoint=None, **more):
    if endpoint is None:
        options = {"temp_dir": str(root / "temp"), "final_dir": str(root / "final")}
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


# ---- clients


def tuspy(site, data, **options):
    return TusClient(site.files).uploader(file_stream=io.BytesIO(data), **options)


@pytest.mark.newest
@pytest.mark.filterwarnings("ignore:Sending a large body directly with raw bytes")  # of aiotus
def test_clients(anywhere):
    """tuspy and aiotus: whole, in pieces, resumed after a cut, parallel, wrong checksums."""
    with anywhere(inspect="uploads.inspect") as site:
        whole = tuspy(site, DATA, metadata={"filename": "ä b.bin"})  # one PATCH
        whole.upload()
        assert site.finished(whole.url) == [sha256(DATA)]
        assert site.parts(whole.url) == []
        pieces = tuspy(site, DATA, chunk_size=6 * MIB, upload_checksum=True)
        pieces.upload()
        assert site.finished(pieces.url) == [sha256(DATA)]
        resumed = tuspy(site, DATA, chunk_size=9 * MIB)
        resumed.upload_chunk()
        cut(resumed.url, 9 * MIB, DATA[9 * MIB : 12 * MIB])
        at(site, resumed.url, 12 * MIB, patches=2)
        again = TusClient(site.files).uploader(file_stream=io.BytesIO(DATA), url=resumed.url)
        assert again.offset == 12 * MIB
        again.upload()
        assert site.finished(resumed.url) == [sha256(DATA)]
        wrong = tuspy(site, DATA[:MIB], upload_checksum=True)
        wrong.set_url(wrong.create_url())
        answer = patch(wrong.url, 0, DATA[:MIB], **{"Upload-Checksum": checksum(b"")})
        assert (answer.status_code, offset_of(wrong.url)) == (460, 0)
        wrong.upload()
        assert site.finished(wrong.url) == [sha256(DATA[:MIB])]
        empty = tuspy(site, b"")
        empty.upload()
        assert site.finished(empty.url) == [sha256(b"")]
        asyncio.run(by_aiotus(site))
        expired(site)
        rejected(site)


def expired(site):
    upload = tuspy(site, DATA, chunk_size=MIB)
    upload.upload_chunk()
    with contextlib.closing(sqlite3.connect(site.root / "db")) as rows, rows:
        rows.execute("UPDATE storage_tus_upload SET expires = '2000-01-01' WHERE id = ?", [name_of(upload.url)])
    with pytest.raises(TusUploadFailed) as failed:
        upload.upload_chunk()
    assert failed.value.status_code == 410
    with pytest.raises(TusCommunicationError) as unknown:
        upload.get_offset()
    assert unknown.value.status_code == 410
    assert requests.delete(upload.url, headers=TUS, timeout=30).status_code == 204
    assert site.parts(upload.url) == []


def rejected(site):
    virus = tuspy(site, VIRUS, chunk_size=9 * MIB, retries=2, retry_delay=0)
    with pytest.raises(TusCommunicationError) as gone:  # of the offset that it asks for to try again
        virus.upload()
    assert gone.value.status_code == 404
    assert "LOG django.request 422 'this may be a virus: " in site.log.read_text()
    assert site.parts(virus.url) == [] and site.finished(virus.url) == []


async def by_aiotus(site):
    metadata = {"filename": "ä.bin".encode()}
    url = await aiotus.upload(site.files, io.BytesIO(DATA), metadata)
    assert site.finished(str(url)) == [sha256(DATA)]
    assert await aiotus.metadata(url) == metadata
    url = await aiotus.upload_multiple(site.files, [io.BytesIO(DATA[: 9 * MIB]), io.BytesIO(DATA[9 * MIB :])])
    assert site.finished(str(url)) == [sha256(DATA)]


def test_behind_a_proxy_that_is_not_believed(site):
    """Neither client is told a whole URL then, and each makes one of what it is told."""
    proxied = {"X-Forwarded-Proto": "https"}
    url = asyncio.run(aiotus.upload(site.files, io.BytesIO(b"a"), headers=proxied))
    assert site.finished(str(url)) == [sha256(b"a")]
    upload = TusClient(site.files, headers=proxied).uploader(file_stream=io.BytesIO(b"b"))
    upload.upload()
    assert site.finished(upload.url) == [sha256(b"b")]


NPM = HERE.parent / "build" / "tools" / "npm"


@pytest.mark.newest
@pytest.mark.skipif(not (NPM / "installed").exists(), reason="there is no npm")
def test_tus_js_client(anywhere, tmp_path):
    file = tmp_path / "data"
    file.write_bytes(DATA)
    virus = tmp_path / "virus"
    virus.write_bytes(VIRUS)
    with anywhere(inspect="uploads.inspect") as site:
        command = ["node", HERE / "clients" / "upload.mjs", NPM, site.files, file, virus]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stderr + site.log.read_text()
        urls = json.loads(done.stdout)
        assert urls.pop("refused") == 403
        assert urls.pop("rejected") == [["POST", 201], ["PATCH", 422]]
        assert urls.pop("rejectedParallel") == 422
        assert head(urls.pop("gone")).status_code == 404
        for way, url in urls.items():
            assert site.finished(url) == [sha256(DATA)], way
            assert site.parts(url) == [], way


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


def test_bad_input(site):
    url = create(site, 100, **{"X-User": "alice"})
    mine = {"X-User": "alice"}
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
    assert huge.status_code in (400, 431)
    forged = {"Upload-Metadata": "filename " + base64.b64encode(b"a.exe").decode(), "Upload-Length": "1"}
    refused = requests.post(site.files, headers={**TUS, **forged}, timeout=30)
    assert (refused.status_code, refused.text) == (403, "no programs, please\n")
    assert requests.post(site.files, headers={"Upload-Length": "1"}, timeout=30).status_code == 412
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


def test_slow_clients_hold_nobody_up(tmp_path):
    with site_of("uvicorn", tmp_path) as site:
        slow = []
        for _ in range(30):
            url = create(site, 1000)
            slow.append((url, begin(url, 0, 1000, b"x" * 10)))
        before = site.process_holds()["threads"]
        fast = tuspy(site, DATA)
        fast.upload()
        assert site.finished(fast.url) == [sha256(DATA)]
        assert before < 20, "a thread for each of them"
        for url, connection in slow:
            connection.send(b"x" * 990)
            assert connection.getresponse().status == 204
            connection.close()
            assert site.finished(url) == [sha256(b"x" * 1000)]


MANY, EACH = (50, 64 * MIB) if FULL else (6, 10 * MIB)


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
                        time.sleep(0.1 if slow else 0)
                    connection.getresponse().read()
        time.sleep(0.1)
    raise AssertionError(f"{url} does not end")


def workers_of(process):
    done = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True)
    return [int(pid) for pid in done.stdout.split()]


@pytest.mark.newest
@pytest.mark.timeout(580)
@pytest.mark.parametrize("server", ["workers", "uvicorn"])
def test_many_at_once(server, tmp_path):
    """Slow and fast clients; with several workers, these are killed at random."""
    chance = random.Random(3)
    with site_of(server, tmp_path) as site:
        before = site.process_holds()["memory"]
        threads, expected = [], {}
        for number in range(MANY):
            url, block = create(site, EACH), chance.randbytes(MIB)
            expected[url] = sha256(block * (EACH // MIB))
            threads.append(threading.Thread(target=upload_somehow, args=[url, block, number % 5 == 0]))
        for thread in threads:
            thread.start()
        for _ in range(4 if server == "workers" else 0):
            time.sleep(0.5 + (4 if FULL else 0))
            if workers := workers_of(site.process):
                os.kill(chance.choice(workers), 9)
        for thread in threads:
            thread.join()
        site.tell()
        for url, digest in expected.items():
            assert head(url).status_code == 200
            assert set(site.finished(url)) == {digest} and (server == "workers" or len(site.finished(url)) == 1)
        with site.adapter() as adapter:
            if server == "workers":
                adapter.sweep(timedelta())  # what was killed before it had deleted its parts
            assert not any(adapter.list_temp_parts(name_of(url)) for url in expected)
        if server == "uvicorn":
            # The budget of the adapter, and for each client two blocks of its connection and what Python needs.
            assert site.process_holds()["memory"] - before < 64 * MIB + 20 * MIB + MANY * MIB
