"""How many requests operations make, as docs/s3.md has it: counted at a server. bench/roundtrips.py counts more."""

import contextlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from conftest import make_s3
from servers.lying import Lying, Object, Upload, etag_of

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)
DATA = b"some bytes"
DIGEST = {"x-amz-meta-gostorage-sha256": sha256(DATA).hexdigest()}


class Far:
    def __init__(self, server, adapter):
        self.server, self.adapter = server, adapter

    def parts(self, sessions, each):
        for session in range(sessions):
            for number in range(1, each + 1):
                key = f"f/temp/{session:05d}/{number:05d}"
                self.server.objects[key] = Object(DATA, etag_of(DATA), DIGEST, None, LONG_AGO)

    def asked(self, work):
        """What work gives, and how often it made each request."""
        self.server.log.clear()
        done = work()
        return done, dict(Counter(request.operation for request in self.server.log))


@pytest.fixture(params=[16, 3, 1], ids="{} connections".format)
def far(request):
    with (
        Lying() as server,
        contextlib.closing(make_s3(server.endpoint, folder="f", max_connections=request.param)) as adapter,
    ):
        yield Far(server, adapter)


def test_parts_in_any_order_take_a_request_each(far):
    numbers = {"forth": range(1, 101), "back": range(100, 0, -1)}
    for session, order in numbers.items():
        _, asked = far.asked(lambda: [far.adapter.put_temp_part(session, n, DATA) for n in order])  # noqa: B023
        assert asked.pop("PutObject") == 100
        assert asked.get("HeadObject", 0) <= (0 if session == "forth" else 8), session
    with ThreadPoolExecutor(8) as pool:
        work = lambda number: far.adapter.put_temp_part("threads", number, DATA)  # noqa: E731
        _, asked = far.asked(lambda: list(pool.map(work, numbers["forth"])))
    assert asked.pop("PutObject") == 100
    assert asked.get("HeadObject", 0) <= 30  # a part may begin before the one that comes before it
    whole = sha256(DATA * 100).hexdigest()
    for session in (*numbers, "threads"):
        assert far.adapter.assemble("whole", far.adapter.list_temp_parts(session)).sha256 == whole


def test_pages_and_batches(far):
    far.parts(1, 2500)
    listed, asked = far.asked(lambda: far.adapter.list_temp_parts("00000"))
    assert len(listed) == 2500 and asked == {"ListObjectsV2": 3}
    deleted, asked = far.asked(lambda: far.adapter.delete_temp_parts("00000"))
    assert deleted == 2500 and asked == {"ListObjectsV2": 3, "DeleteObjects": 3}
    assert not far.server.objects
    _, asked = far.asked(lambda: far.adapter.delete_temp_part("00000/00001"))
    assert asked == {"DeleteObjects": 1}


def test_final_objects(far):
    adapter, objects = far.adapter, far.server.objects
    for number in range(2500):
        objects[f"f/final/{number:05d}"] = Object(DATA, etag_of(DATA), DIGEST, None, LONG_AGO)
    listed, asked = far.asked(lambda: list(adapter.list_final()))
    assert len(listed) == 2500 and asked == {"ListObjectsV2": 4}  # the second page is asked for twice
    _, asked = far.asked(adapter.check_health)
    assert asked == {"PutObject": 2, "DeleteObject": 2}
    adapter.copy_final(listed[0], "first")  # the server shows that it copies
    _, asked = far.asked(lambda: adapter.copy_final(listed[0], "copied"))
    assert asked == {"HeadObject": 1, "CopyObject": 1}
    objects["f/final/bare"] = Object(DATA, etag_of(DATA), {}, None, LONG_AGO)
    _, asked = far.asked(lambda: adapter.adopt_final(f"{adapter.prefix}bare"))
    assert asked == {"HeadObject": 1, "GetObject": 1, "CopyObject": 1}
    data = bytes(11 * 2**20)
    adapter.put_final("large", data)  # the server is asked for the checksum of an object in parts
    _, asked = far.asked(lambda: adapter.put_final("large", data))
    assert asked.pop("UploadPart") in (2, 3) and asked == {"CreateMultipartUpload": 1, "CompleteMultipartUpload": 1}
    data = bytes(17 * 2**20)
    large = adapter.put_final("large", data, sha256=sha256(data).hexdigest())
    _, asked = far.asked(lambda: adapter.copy_final(large, "larger"))
    assert asked == {"HeadObject": 1, "CreateMultipartUpload": 1, "UploadPartCopy": 1, "CompleteMultipartUpload": 1}


def test_a_sweep_takes_more_at_a_time(far):
    far.parts(400, 10)
    for n in range(50):
        key = f"f/temp/{n:05d}/00001"
        part = Object(DATA, etag_of(DATA), {}, None, LONG_AGO)
        far.server.uploads[f"upload-{n}"] = Upload(key, {}, False, LONG_AGO, {1: part})
    report, asked = far.asked(lambda: far.adapter.sweep(timedelta(days=1)))
    assert (report.sessions, report.parts, report.uploads, report.finished) == (400, 4000, 50, True)
    assert not far.server.objects and not far.server.uploads
    assert asked["ListParts"] == asked["AbortMultipartUpload"] == 50
    assert asked["ListObjectsV2"] + asked["ListMultipartUploads"] + asked["DeleteObjects"] <= 20, asked


def test_extend_and_assemble(far):
    far.parts(1, 100)
    covered, asked = far.asked(lambda: far.adapter.extend_digest("00000"))
    assert covered == 100
    assert asked == {"ListObjectsV2": 1, "HeadObject": 100, "GetObject": 100, "PutObject": 1}
    parts = far.adapter.list_temp_parts("00000")
    final, asked = far.asked(lambda: far.adapter.assemble("whole", parts))
    assert final.sha256 == sha256(DATA * 100).hexdigest()
    # The record of the whole lies beside the last part.
    assert asked == {"ListObjectsV2": 1, "HeadObject": 100, "GetObject": 101, "PutObject": 1}
