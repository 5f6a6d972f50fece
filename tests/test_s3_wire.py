"""What goes over the wire: how many requests and bytes, what covers them, and that options reach the server."""

import base64
import contextlib
import http.server
import io
import threading
import uuid
import zlib
from collections import Counter
from datetime import timedelta
from hashlib import sha256
from urllib.parse import parse_qs, urlsplit

import pytest
from conftest import BYTES, FULL, knows_conditions, make_s3
from servers import FaultProxy
from test_contract import Reads, digest, read_final

from storage import ObjectExists, S3StorageAdapter, StorageError

MiB = 1024 * 1024
PART = 5 * MiB
SMALL, LARGE = BYTES[:100_000], BYTES[: 2 * PART + MiB]
UNSIGNED = "UNSIGNED-PAYLOAD"


@pytest.fixture
def adapter(faults):
    with contextlib.closing(make_s3(faults.endpoint, part_size=PART)) as adapter:
        yield adapter


@pytest.fixture
def wire(faults):
    """Carries out a call and gives the requests that it made, oldest first."""

    def wire(call, *args, **kwargs):
        faults.clear()
        call(*args, **kwargs)
        return faults.log()

    return wire


def operations(entries):
    return [entry.operation for entry in entries]


def base64_of(data):
    return base64.b64encode(data).decode()


# ---- how much


def test_conditions_are_tried_once(adapter, wire):
    """Beside the first put of each kind that must replace nothing."""
    for data, expected in ((SMALL, ["DeleteObject", "PutObject", "PutObject", "PutObject"]), (LARGE, None)):
        first, second = (wire(adapter.put_final, f"a{n}{len(data)}", data, overwrite=False) for n in (1, 2))
        assert expected in (None, sorted(operations(first)))
        assert len(first) > len(second)
        assert not any("gostorage-probe" in entry.key for entry in second)


def test_one_request_for_what_is_small(adapter, wire):
    knows_conditions(adapter)
    final = adapter.put_final("a", SMALL)
    calls = {
        "PutObject": lambda: adapter.put_final("a", Reads(SMALL)),
        "GetObject": lambda: read_final(adapter, final),
        "HeadObject": lambda: adapter.stat_final(*final),
        "ListObjectsV2": lambda: adapter.list_temp_parts("s"),
        "DeleteObject": lambda: adapter.delete_final(*final),
    }
    for operation, call in calls.items():
        assert operations(wire(call)) == [operation]
    assert operations(wire(adapter.put_temp_part, "s", 1, io.BytesIO(SMALL))) == ["PutObject"]
    assert operations(wire(adapter.put_final, "a", b"", overwrite=False)) == ["PutObject"]
    assert operations(wire(adapter.delete_temp_parts, "s")) == ["ListObjectsV2", "DeleteObjects"]


def test_a_sweep_asks_for_pages(adapter, wire, faults):
    for session in range(10):
        for number in range(1, 11):
            adapter.put_temp_part(session, number, b"x")
    uploads = "ListMultipartUploads"
    look = [uploads, uploads, "ListObjectsV2"]  # where no upload is found below the prefix, the bucket is asked
    assert operations(wire(adapter.sweep, timedelta(hours=1))) == [*look, uploads, uploads]
    entries = wire(adapter.sweep, timedelta(), keep=lambda session: session == "7")
    assert operations(entries) == [*look, *look, "DeleteObjects", uploads, uploads]
    with faults.endpoint.client() as client:
        key = f"{adapter.prefix}a"
        client.create_multipart_upload(Bucket=faults.endpoint.bucket, Key=key)
    entries = wire(adapter.sweep, timedelta())
    assert operations(entries) == [*look, "DeleteObjects", uploads, "ListParts", "AbortMultipartUpload"]
    assert operations(wire(adapter.sweep, timedelta())) == [uploads, "ListObjectsV2", uploads]  # once that is known
    assert all("prefix" in entry.query for entry in wire(adapter.sweep, timedelta()) if entry.operation == uploads)


@pytest.mark.parametrize("data", [b"", SMALL, LARGE[:PART], LARGE[: PART + 1], LARGE], ids=len)
@pytest.mark.parametrize("known", [False, True], ids=["unknown", "known"])
def test_bytes_are_sent_once(data, known, adapter, wire):
    expected = {"size": len(data), "sha256": digest(data)} if known else {}
    entries = wire(adapter.put_final, "a", Reads(data), **expected)
    assert sum(entry.received for entry in entries) <= 1.01 * len(data) + 1000 * (len(data) > PART)
    if len(data) <= PART:
        assert operations(entries) == ["PutObject"]
    else:
        parts = operations(entries)[1:-1]
        assert (operations(entries)[0], operations(entries)[-1]) == ("CreateMultipartUpload", "CompleteMultipartUpload")
        assert parts == ["UploadPart"] * -(-len(data) // PART)
    assert all(entry.sent == 0 for entry in entries if entry.operation in ("PutObject", "UploadPart"))


@pytest.mark.parametrize("size", [None, len(LARGE)], ids=["unknown", "known"])
def test_parts_are_equal(size, adapter, wire):
    entries = wire(adapter.put_final, "a", Reads(LARGE, 100_001), size=size)
    parts = {int(e.query["partNumber"]): e.received for e in entries if e.operation == "UploadPart"}
    assert parts == {1: PART, 2: PART, 3: MiB}


def test_a_range_moves_no_more_than_itself(adapter, wire):
    final = adapter.put_final("a", LARGE)

    def read(start, length):
        with adapter.get_final_stream(*final, start=start, length=length) as reader:
            assert reader.read() == LARGE[start : start + length]

    for start, length in ((0, 10), (5, MiB), (6 * MiB, 3 * MiB), (len(LARGE) - 7, 7)):
        (entry,) = wire(read, start, length)
        assert (entry.operation, entry.status, entry.sent) == ("GetObject", 206, length)
    assert operations(wire(read, 5, 0)) == ["HeadObject"]


def test_a_seek_downloads_nothing_that_is_skipped(adapter, wire):
    final = adapter.put_final("a", LARGE)

    def jump():
        with adapter.get_final_stream(*final, length=9 * MiB) as reader:
            for place in (8 * MiB, 4 * MiB, 10):
                reader.seek(place)
                assert reader.read(100) == LARGE[place : place + 100]

    first, *jumps = wire(jump)
    assert [entry.headers["range"] for entry in jumps] == [
        f"bytes={place}-{place + MiB - 1}" for place in (8 * MiB, 4 * MiB, 10)
    ]
    assert sum(entry.sent for entry in jumps) <= 3 * MiB
    assert first.headers["range"] == f"bytes=0-{9 * MiB - 1}"


def test_a_cut_download_goes_on_where_it_was(adapter, wire, faults):
    final = adapter.put_final("a", LARGE)

    def read():
        with faults.rule("reset_down", "GetObject", at=7 * MiB, times=1):
            assert read_final(adapter, final) == LARGE

    first, second = wire(read)
    start = int(second.headers["range"].removeprefix("bytes=").partition("-")[0])
    assert 0 < start <= 7 * MiB and second.sent == len(LARGE) - start
    assert "if-match" not in first.headers and second.headers["if-match"]


def test_connections_are_used_again(adapter, wire):
    def work():
        for n in range(10):
            final = adapter.put_final(f"a/{n}", SMALL)
            assert read_final(adapter, final) == SMALL
            adapter.delete_final(*final)

    assert len({entry.connection for entry in wire(work)}) == 1
    assert len({entry.connection for entry in wire(adapter.put_final, "a", LARGE)}) <= 4


# ---- assembling


def put_parts(adapter, *contents, session="s"):
    return [adapter.put_temp_part(session, n + 1, io.BytesIO(data)) for n, data in enumerate(contents)]


def moved(entries):
    """The bytes of all bodies, both ways."""
    return sum(entry.received + entry.sent for entry in entries)


def requests_of(entries):
    """How often each was made."""
    return dict(Counter(operations(entries)))


def test_parts_are_copied_by_the_server(adapter, wire):
    knows_conditions(adapter)
    parts = put_parts(adapter, LARGE[:PART], LARGE[PART : 2 * PART], LARGE[2 * PART :])
    entries = wire(adapter.assemble, "a", parts, overwrite=False)
    assert requests_of(entries) == {
        "ListObjectsV2": 1,
        "HeadObject": 4,  # three parts, and what must not be overwritten
        "CreateMultipartUpload": 1,
        "UploadPartCopy": 3,
        "CompleteMultipartUpload": 1,
    }
    assert moved(entries) < 10_000
    copies = {int(entry.query["partNumber"]): entry.headers for entry in entries if entry.operation == "UploadPartCopy"}
    for number, part in enumerate(parts, 1):
        assert copies[number]["x-amz-copy-source"].endswith(f"/temp/{part.key}")
        assert copies[number]["x-amz-copy-source-if-match"]
        assert "x-amz-copy-source-range" not in copies[number]
    assert entries[-1].headers["if-none-match"] == "*"
    assert read_final(adapter, adapter.stat_final(adapter.bucket, f"{adapter.prefix}a")) == LARGE


@pytest.mark.slow
def test_assembling_much_moves_less_than_a_mebibyte(wire, faults):
    """In order, so that the parts carry the digest of the whole. It is a gibibyte in `make test-full`."""
    parts, size, expected, count = [], 64 * MiB, sha256(), 16 if FULL else 6
    with contextlib.closing(make_s3(faults.endpoint, part_size=size)) as adapter:
        for n in range(1, count + 1):
            data = bytes([n]) * size
            expected.update(data)
            parts.append(adapter.put_temp_part("s", n, data))
        finals = []
        assert moved(wire(lambda: finals.append(adapter.assemble("a", parts)))) < MiB
        (final,) = finals
        assert (final.size, final.sha256) == (count * size, expected.hexdigest())
        with adapter.get_final_stream(*final) as reader:  # which compares the digest
            for n in range(1, count + 1):
                assert reader.read(size) == bytes([n]) * size
            assert reader.read() == b""
        adapter.delete_final(*final)
        adapter.delete_temp_parts("s")


def test_small_parts_are_sent_as_one(adapter, wire):
    """And of a large one that follows no more is read than is missing to the least part; twice, over plain http."""
    first, last = SMALL[:1000], BYTES[: 11 * MiB]
    entries = wire(adapter.assemble, "a", put_parts(adapter, first, last, SMALL))
    assert requests_of(entries) == {
        "ListObjectsV2": 1,
        "HeadObject": 3,
        "CreateMultipartUpload": 1,
        "GetObject": 3 + 1,  # one of them is the sidecar of the part that came as an upload
        "UploadPart": 1,
        "UploadPartCopy": 2,
        "ListParts": 1,  # once: that the server has copied a range shows in the size
        "CompleteMultipartUpload": 1,
    }
    (sent,) = (entry for entry in entries if entry.operation == "UploadPart")
    assert sent.received == PART
    ranges = {entry.headers.get("x-amz-copy-source-range") for entry in entries if entry.operation == "UploadPartCopy"}
    assert ranges == {f"bytes={PART - len(first)}-{len(last) - 1}", None}
    assert moved(entries) < 3 * PART + 10_000
    assert read_final(adapter, adapter.stat_final(adapter.bucket, f"{adapter.prefix}a")) == first + last + SMALL


def test_one_part_is_one_copy(adapter, wire):
    """Once the server has shown that it copies: to one that does not this would be a put of nothing."""
    knows_conditions(adapter)
    parts = put_parts(adapter, SMALL)
    described = {"ListObjectsV2": 1, "HeadObject": 1}
    upload = {"CreateMultipartUpload": 1, "UploadPartCopy": 1, "CompleteMultipartUpload": 1}
    assert requests_of(wire(adapter.assemble, "a", parts)) == described | upload
    assert requests_of(wire(adapter.assemble, "a", parts)) == described | {"CopyObject": 1}
    described = {"ListObjectsV2": 1, "HeadObject": 2}  # the second is of what must not be overwritten
    assert requests_of(wire(adapter.assemble, "b", parts, overwrite=False)) == described | upload
    assert requests_of(wire(adapter.assemble, "b", parts, overwrite=False)) == described
    assert read_final(adapter, adapter.stat_final(adapter.bucket, f"{adapter.prefix}a")) == SMALL


def test_many_small_parts_share_connections(adapter, wire):
    parts = put_parts(adapter, *[b"x"] * 200)
    entries = wire(adapter.assemble, "a", parts)
    assert requests_of(entries) == {"ListObjectsV2": 1, "HeadObject": 200, "GetObject": 200, "PutObject": 1}
    assert len({entry.connection for entry in entries}) <= 33


def test_what_is_copied_is_covered(faults, wire):
    with contextlib.closing(make_s3(faults.endpoint, part_size=PART)) as adapter:
        parts = put_parts(adapter, LARGE[:PART], SMALL)
        begun, *_, end = wire(adapter.assemble, "a", parts)[3:]
        final = adapter.stat_final(adapter.bucket, f"{adapter.prefix}a")
        read_final(adapter, final)
    assert begun.headers["x-amz-checksum-algorithm"] == "CRC64NVME"
    assert begun.headers["x-amz-meta-gostorage-sha256"] == digest(LARGE[:PART] + SMALL)
    assert set(checksums(end)) == {"crc64nvme"}


def test_options_reach_the_server_with_a_copy(faults):
    options = {"server_side_encryption": "aws:kms", "kms_key_id": "alias/mine", "storage_class": "STANDARD_IA"}
    described = {"content_type": "text/x-own", "metadata": {"By": "Zoë | %\n"}}
    folder = uuid.uuid4().hex
    with (
        contextlib.closing(make_s3(faults.endpoint, folder=folder)) as plain,
        contextlib.closing(make_s3(faults.endpoint, folder=folder, **options)) as adapter,
    ):
        part = plain.put_temp_part("s", 1, SMALL)
        for operation in ("CreateMultipartUpload", "CopyObject"):
            headers = asked(faults, operation, lambda: adapter.assemble("a", [part], **described))
            assert headers["x-amz-server-side-encryption"] == "aws:kms"
            assert headers["x-amz-server-side-encryption-aws-kms-key-id"] == "alias/mine"
            assert headers["x-amz-storage-class"] == "STANDARD_IA"
            assert headers["content-type"] == "text/x-own"
            assert headers["x-amz-meta-by"].isascii()
            adapter.assemble("a", [part])  # now it knows that the server copies
    assert headers["x-amz-metadata-directive"] == "REPLACE"


def test_a_copy_moves_no_bytes(faults):
    with contextlib.closing(make_s3(faults.endpoint)) as adapter:
        final = adapter.put_final("a", LARGE, size=len(LARGE), sha256=sha256(LARGE).hexdigest())
        faults.clear()
        adapter.copy_final(final, "b")  # this shows that the store knows copies
        adapter.copy_final(final, "b")
        assert [entry.operation for entry in faults.log()] == [
            "HeadObject",
            *("CreateMultipartUpload", "UploadPartCopy", "CompleteMultipartUpload"),
            *("HeadObject", "CopyObject"),
        ]


@pytest.mark.parametrize(
    ("options", "begins"),
    [
        ({}, "https://uploads.s3.eu-central-1.amazonaws.com/final/a/b%20c?"),
        ({"endpoint_url": "http://minio:9000"}, "http://minio:9000/uploads/final/a/b%20c?"),
        (
            {"endpoint_url": "http://minio:9000", "public_endpoint_url": "https://s3.example.com/"},
            "https://s3.example.com/uploads/final/a/b%20c?",
        ),
        (
            {"public_endpoint_url": "https://s3.example.com/at", "addressing_style": "virtual"},
            "https://uploads.s3.example.com/at/final/a/b%20c?",
        ),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD", "PUT"])
def test_the_host_of_a_url(options, begins, method):
    keys = {"access_key": "AKID", "secret_key": "hidden", "security_token": "the+token"}
    with contextlib.closing(
        S3StorageAdapter(bucket_name="uploads", region_name="eu-central-1", final_prefix="final", **keys, **options)
    ) as adapter:
        url = adapter.url_final("uploads", "final/a/b c", method=method, expires=604_800)
    assert url.startswith(begins) and "hidden" not in url
    query = parse_qs(urlsplit(url).query)
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"] and query["X-Amz-Expires"] == ["604800"]
    assert query["X-Amz-SignedHeaders"] == ["host"] and query["X-Amz-Security-Token"] == ["the+token"]
    assert query["X-Amz-Credential"][0].startswith("AKID/") and "/eu-central-1/s3/" in query["X-Amz-Credential"][0]


# ---- what covers it

# For each option: headers of a small put, of the beginning, of a part and of the end of a large one, and of a read.
CHECKSUMS = {
    "auto": ({}, "CRC64NVME", "crc64nvme", "crc64nvme"),
    "crc64nvme": ("crc64nvme", "CRC64NVME", "crc64nvme", "crc64nvme"),
    "crc32": ("crc32", "CRC32", "crc32", "crc32"),
    "sha256": ("sha256", "SHA256", "sha256", None),
    "off": ({}, None, None, None),
}
SUMS = {
    "crc32": lambda data: base64_of(zlib.crc32(data).to_bytes(4, "big")),
    "sha256": lambda data: base64_of(sha256(data).digest()),
}


def checksums(entry):
    """The headers of a request that have a checksum, by algorithm; not those that speak of one."""
    names = ("crc32", "crc32c", "crc64nvme", "sha1", "sha256")
    found = {name: entry.headers.get(f"x-amz-checksum-{name}") for name in names}
    return {name: value for name, value in found.items() if value}


@pytest.mark.parametrize("option", CHECKSUMS)
def test_every_body_is_covered(option, faults, wire):
    small, begun, on_part, on_end = CHECKSUMS[option]
    with contextlib.closing(make_s3(faults.endpoint, part_size=PART, checksum=option)) as adapter:
        (put,) = wire(adapter.put_final, "a", SMALL)
        first, *parts, last = wire(adapter.put_final, "a", LARGE)
        final = adapter.stat_final(adapter.bucket, f"{adapter.prefix}a")
        get, *_ = wire(read_final, adapter, final)
    for entry in (put, first, *parts, last):
        assert "content-encoding" not in entry.headers
        assert int(entry.headers.get("content-length", 0)) == entry.received
    signed = put.headers["x-amz-content-sha256"]
    assert signed == (UNSIGNED if option == "off" else digest(SMALL))
    assert set(checksums(put)) == ({small} if small else set())
    assert first.headers.get("x-amz-checksum-algorithm") == begun
    for part in parts:
        number = int(part.query["partNumber"])
        data = LARGE[PART * (number - 1) : PART * number]
        assert set(checksums(part)) == ({on_part} if on_part else set())
        if on_part in SUMS:
            assert checksums(part)[on_part] == SUMS[on_part](data)
        assert part.headers["x-amz-content-sha256"] == (digest(data) if option == "sha256" else UNSIGNED)
    assert set(checksums(last)) == ({on_end} if on_end else set())
    assert len(last.headers["x-amz-content-sha256"]) == len(first.headers["x-amz-content-sha256"]) == 64
    assert get.headers.get("x-amz-checksum-mode") == (None if option == "off" else "ENABLED")


def test_parts_are_signed_where_checksums_are_refused(adapter, wire, faults):
    with faults.rule("no_checksums"):
        adapter.put_final("a", LARGE)
        _, *parts, _ = wire(adapter.put_final, "a", LARGE)
    assert len(parts) == 3
    for part in parts:
        start = PART * (int(part.query["partNumber"]) - 1)
        assert part.headers["x-amz-content-sha256"] == digest(LARGE[start : start + PART])


def test_a_batch_of_deletes_is_covered(adapter, wire):
    adapter.put_temp_part("s", 1, b"x")
    _, batch = wire(adapter.delete_temp_parts, "s")
    assert batch.headers["content-md5"] and len(batch.headers["x-amz-content-sha256"]) == 64


# ---- what is asked for


@pytest.mark.parametrize("data", [SMALL, LARGE], ids=["small", "large"])
def test_a_condition_is_sent_with_the_commit(data, adapter, wire):
    knows_conditions(adapter)
    commit = {"PutObject", "CompleteMultipartUpload"}
    for overwrite in (False, True):
        entries = wire(adapter.put_final, f"a/{overwrite}", data, overwrite=overwrite)
        asked = {entry.operation for entry in entries if entry.headers.get("if-none-match") == "*"}
        assert asked == (set() if overwrite else commit & set(operations(entries)))


def asked(faults, operation, call):
    """The headers of a request that the server never sees."""
    faults.clear()
    with faults.rule("status", operation, status=403), pytest.raises(StorageError):
        call()
    return faults.log(operation)[0].headers


@pytest.mark.parametrize(("operation", "data"), [("PutObject", SMALL), ("CreateMultipartUpload", LARGE)])
def test_options_reach_the_server(operation, data, faults):
    options = {
        "server_side_encryption": "aws:kms",
        "kms_key_id": "alias/mine",
        "storage_class": "STANDARD_IA",
        "security_token": "token",
    }
    described = {"content_type": "text/x-own", "metadata": {"By": "Zoë | %\n"}}
    with contextlib.closing(make_s3(faults.endpoint, part_size=PART, **options)) as adapter:
        final = asked(faults, operation, lambda: adapter.put_final("a", data, **described))
        temp = asked(faults, operation, lambda: adapter.put_temp_part("s", 1, data))
    for headers in (final, temp):
        assert headers["x-amz-server-side-encryption"] == "aws:kms"
        assert headers["x-amz-server-side-encryption-aws-kms-key-id"] == "alias/mine"
        assert headers["x-amz-security-token"] == "token"
    assert final["x-amz-storage-class"] == "STANDARD_IA"
    assert "x-amz-storage-class" not in temp  # parts are read soon
    assert final["content-type"] == "text/x-own"
    assert final["x-amz-meta-by"].isascii()


def test_metadata_arrives(adapter, versitygw):
    final = adapter.put_final("a", SMALL, content_type="image/png", metadata={"by": "Zoë", "plain": "as it is"})
    with versitygw.client() as client:
        found = client.head_object(Bucket=final.bucket, Key=final.key)
    assert found["ContentType"] == "image/png"
    assert found["Metadata"] == {"by": "=?utf-8?b?Wm/Dqw==?=", "plain": "as it is", "gostorage-sha256": digest(SMALL)}


def test_a_large_body_that_may_be_refused_is_announced(minio, tmp_path):
    """Then it is not sent in vain. (versitygw asks for it before it looks.)"""
    with (
        FaultProxy(minio, tmp_path) as faults,
        contextlib.closing(make_s3(faults.endpoint, part_size=PART)) as adapter,
    ):
        adapter.put_final("a", LARGE[:PART], overwrite=False)
        with pytest.raises(ObjectExists):
            adapter.put_final("a", LARGE[1 : PART + 1], overwrite=False)
        for data in (LARGE[:PART], LARGE):
            adapter.put_final("a", data)
        log = faults.log()
    stored, refused = (entry for entry in log if "expect" in entry.headers)
    assert (stored.operation, stored.status, stored.received) == ("PutObject", 200, PART)
    assert (refused.operation, refused.status, refused.received) == ("PutObject", 412, 0)


# ---- where it goes


class Proxy(http.server.BaseHTTPRequestHandler):
    """Notes where requests would go. It answers those that it can read, and refuses connections."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.append((self.path, self.headers["Host"]))
        self.send_response(200)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_CONNECT(self):
        self.server.seen.append((self.path, self.headers["Host"]))
        self.close_connection = True
        self.send_response(403)
        self.end_headers()

    def log_message(self, *_):
        pass


def test_keys_with_the_default_prefixes(faults):
    with contextlib.closing(make_s3(faults.endpoint, folder="")) as adapter:
        part, final = adapter.put_temp_part("s", 1, SMALL), adapter.put_final("a/b", SMALL)
        assert [entry.key for entry in faults.log("PutObject")] == ["temp/s/00001", "final/a/b"]
        adapter.delete_temp_part(part)
        adapter.delete_final(*final)


@pytest.fixture
def forward():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
        server.seen = []
        server.url = "http://127.0.0.1:{1}".format(*server.server_address)
        threading.Thread(target=server.serve_forever).start()
        yield server
        server.shutdown()


@pytest.mark.parametrize(
    ("style", "bucket", "host", "path"),
    [
        ("path", "mine", "store.example:9000", "/base/mine/f/final/a%20%C3%A9"),
        ("virtual", "mine", "mine.store.example:9000", "/base/f/final/a%20%C3%A9"),
        ("auto", "mine", "store.example:9000", "/base/mine/f/final/a%20%C3%A9"),
        ("path", "with.dots", "store.example:9000", "/base/with.dots/f/final/a%20%C3%A9"),
    ],
)
def test_addressing_styles(style, bucket, host, path, versitygw, forward):
    options = {
        "endpoint_url": "http://store.example:9000/base",
        "proxy": forward.url,
        "bucket_name": bucket,
        "addressing_style": style,
    }
    with contextlib.closing(make_s3(versitygw, folder="f", **options)) as adapter:
        adapter.put_final("a é", SMALL)
    ((url, sent_host),) = forward.seen
    assert (urlsplit(url).netloc, urlsplit(url).path, sent_host) == (host, path, host)


@pytest.mark.parametrize(
    ("style", "bucket", "region", "host"),
    [
        ("auto", "mine", "eu-west-1", "mine.s3.eu-west-1.amazonaws.com"),
        ("auto", "with.dots", "eu-west-1", "s3.eu-west-1.amazonaws.com"),
        ("path", "mine", "eu-west-1", "s3.eu-west-1.amazonaws.com"),
        ("auto", "mine", "cn-north-1", "mine.s3.cn-north-1.amazonaws.com.cn"),
    ],
)
def test_hosts_of_aws(style, bucket, region, host, versitygw, forward):
    options = {"endpoint_url": None, "bucket_name": bucket, "region_name": region, "addressing_style": style}
    with (
        contextlib.closing(make_s3(versitygw, proxy=forward.url, max_attempts=1, **options)) as adapter,
        pytest.raises(StorageError),
    ):
        adapter.put_final("a", SMALL)
    assert {address for address, _ in forward.seen} == {f"{host}:443"}
