"""What callers pass is judged before anything is sent, with one verdict for all adapters."""

import datetime
import email.header
import http.server
import math
import threading
import uuid
from decimal import Decimal

import pytest
from conftest import CONTRACT, make_local, make_memory, make_s3
from django.db import models
from django.utils.safestring import SafeString
from servers import Endpoint

from storage import (
    ContentMismatch,
    FinalObject,
    InvalidArgument,
    InvalidKey,
    MemoryStorageAdapter,
    StorageAdapter,
    StorageError,
    TempPart,
    arguments,
)

KIND = {"local": make_local, "memory": make_memory}
TIB = 1024**4
HEX = "0" * 64


class Listening(http.server.BaseHTTPRequestHandler):
    """A store of nothing: keeps what it is sent, and answers as to a put."""

    protocol_version = "HTTP/1.1"

    def do_PUT(self):
        self.server.seen.append(self.headers)
        self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.send_response(200)
        self.send_header("ETag", '"e"')
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_GET(self):
        self.server.seen.append(self.headers)
        self.send_response(500)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_HEAD = do_POST = do_DELETE = do_GET

    def log_message(self, *_):
        pass


@pytest.fixture
def listener():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Listening)
    server.daemon_threads = True
    server.seen = []
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def on_listener(listener, **options):
    endpoint = Endpoint(f"http://127.0.0.1:{listener.server_port}", "AKID", "SECRET", "b", "us-east-1")
    return make_s3(endpoint, **{"max_attempts": 1} | options)


@pytest.fixture
def adapters(tmp_path, listener):
    """One of each kind; the store of S3 counts what it is asked."""
    adapters = [make_local(tmp_path), make_memory(tmp_path), on_listener(listener)]
    yield adapters
    for adapter in adapters:
        adapter.close()


def source():
    raise AssertionError("the stream was read")
    yield b""


def final(adapter, **fields):
    given = {"bucket": adapter.bucket, "key": f"{adapter.prefix}a", "size": 1, "sha256": HEX}
    return FinalObject(**given | fields)


def part(**fields):
    return TempPart(**{"key": "s/00001", "part_number": 1, "size": 1, "sha256": HEX} | fields)


class Row(models.Model):
    class Meta:
        app_label = "storage"

    def __str__(self):
        return "a row"


class Text(str):
    def __str__(self):
        return "another"


PUTS = {
    "put_final": lambda adapter, **options: adapter.put_final("a", source(), **options),
    "put_temp_part": lambda adapter, **options: adapter.put_temp_part("s", 1, source(), **options),
    "assemble": lambda adapter, **options: adapter.assemble("a", ["s/00001"], **options),
}
READS = {
    "get_final_stream": lambda adapter, value: adapter.get_final_stream(value),
    "stat_final": lambda adapter, value: adapter.stat_final(value),
    "delete_final": lambda adapter, value: adapter.delete_final(value),
    "copy_final": lambda adapter, value: adapter.copy_final(value, "b"),
    "adopt_final": lambda adapter, value: adapter.adopt_final(value),
    "url_final": lambda adapter, value: adapter.url_final(value),
    "get_final_stream by key": lambda adapter, value: adapter.get_final_stream(adapter.bucket, value),
}
PARTS = {
    "get_temp_part_stream": lambda adapter, value: adapter.get_temp_part_stream(value),
    "delete_temp_part": lambda adapter, value: adapter.delete_temp_part(value),
    "assemble": lambda adapter, value: adapter.assemble("a", [value]),
}
BY_FILE_ID = {
    "put_final": lambda adapter, value: adapter.put_final(value, source()),
    "assemble": lambda adapter, value: adapter.assemble(value, ["s/00001"]),
    "copy_final": lambda adapter, value: adapter.copy_final(final(adapter), value),
}
BY_SESSION = {
    "put_temp_part": lambda adapter, value: adapter.put_temp_part(value, 1, source()),
    "list_temp_parts": lambda adapter, value: adapter.list_temp_parts(value),
    "delete_temp_parts": lambda adapter, value: adapter.delete_temp_parts(value),
    "extend_digest": lambda adapter, value: adapter.extend_digest(value),
}
SECONDS = {
    "check_health": lambda adapter, value: adapter.check_health(timeout=value),
    "sweep": lambda adapter, value: adapter.sweep(datetime.timedelta(1), max_seconds=value),
    "extend_digest": lambda adapter, value: adapter.extend_digest("s", value),
}
IDS = [None, True, 1.5, math.nan, b"a", bytearray(b"a"), Decimal(1), ["a"], object(), Row(pk=1), Row, str]
NUMBERS = [True, 1.0, "5", b"5", [1]]
HEADERS = ["a\r\nX-Evil: 1", "a\n", "\x00", "a\x7f", "a\x85b"]


def table():
    """Each row: what it is about, a call that must be refused, and how."""
    for bad in IDS:
        for name, call in (BY_FILE_ID | BY_SESSION).items():
            yield f"{name} of {bad!r:.40}", lambda adapter, call=call, bad=bad: call(adapter, bad), TypeError, "its pk"
    for bad in ["", "..", "a/../b", "a\nb", "a\x00", "a\\b", "/a", "a" * 501, "\ud800", ".gostorage-staging"]:
        for name, call in (BY_FILE_ID | BY_SESSION | PARTS).items():
            yield f"{name} of {bad!a:.40}", lambda adapter, call=call, bad=bad: call(adapter, bad), InvalidKey, "key"
        for name, call in READS.items():
            yield (
                f"{name} of {bad!a:.40}",
                lambda adapter, call=call, bad=bad: call(adapter, final(adapter, key=adapter.prefix + bad)),
                InvalidKey,
                "key",
            )
    for name, call in BY_SESSION.items():
        yield f"{name} of a/b", lambda adapter, call=call: call(adapter, "a/b"), InvalidKey, "slash"
    for bad in [0, -1, 10_001, 2**63, 10**5000]:
        yield (
            f"part {len(str(bad)) if bad < 2**64 else 'huge'} {bad % 97}",
            lambda adapter, bad=bad: adapter.put_temp_part("s", bad, source()),
            ValueError,
            "part_number is 1 to 10,000",
        )
    for bad in [*NUMBERS, None]:
        call = lambda adapter, bad=bad: adapter.put_temp_part("s", bad, source())  # noqa: E731
        yield f"part {bad!r}", call, TypeError, "part_number is an int"
    for name, call in PUTS.items():
        rows = [
            *(("size", bad, ValueError, "5 TiB") for bad in (5 * TIB + 1, 2**63 - 1, 2**63, 2**70)),
            *(("size", bad, ValueError, "not negative") for bad in (-1, -(2**70))),
            *(("size", bad, TypeError, "size is an int") for bad in NUMBERS),
            *(
                ("sha256", bad, ValueError, "64 hex digits")
                for bad in ("", "xyz", "0" * 63, "0" * 65, "g" * 64, HEX + "\n")
            ),
            *(("sha256", bad, TypeError, "64 hex digits") for bad in (bytes(32), 5, True)),
            *(("overwrite", bad, TypeError, "overwrite is True or False") for bad in (None, 0, 1, "False", [])),
            *(("progress", bad, TypeError, "progress is a function") for bad in (5, "print", True)),
        ]
        if name != "put_temp_part":
            rows += [
                *(
                    ("content_type", bad, ValueError, "visible ASCII")
                    for bad in (*HEADERS, " a", "a ", "text/plain\t", "é")
                ),
                ("content_type", "a" * 256, ValueError, "255"),
                *(("content_type", bad, TypeError, "content_type is a str") for bad in (b"text/plain", 5, True)),
                *(("metadata", bad, TypeError, "dict of str to str") for bad in (["k"], "k", 5, [("k", "v")])),
                *(("metadata", bad, TypeError, "str to str") for bad in ({"k": 1}, {1: "v"}, {"k": None}, {"k": b"v"})),
                *(
                    ("metadata", {bad: "v"}, ValueError, "token")
                    for bad in ("", "a b", "a:b", "é", "a\r\nb", "a\x00", "(a)")
                ),
                *(
                    ("metadata", {bad: "v"}, ValueError, "for this package")
                    for bad in ("gostorage-sha256", "GoStorage-x", "GOSTORAGE-")
                ),
                ("metadata", {"k": "\ud800"}, ValueError, "Unicode"),
                ("metadata", {"Name": "a", "name": "b"}, ValueError, "only in case"),
                ("metadata", {"k": "v" * 1920}, ValueError, "1,920"),
                ("metadata", {"k": "é" * 710}, ValueError, "1,920"),
            ]
        for option, bad, error, says in rows:
            yield (
                f"{name}({option}={bad!a:.40})",
                lambda adapter, call=call, option=option, bad=bad: call(adapter, **{option: bad}),
                error,
                says,
            )
    for option in ("start", "length", "size"):
        for bad, error in [*((bad, TypeError) for bad in NUMBERS), (-1, ValueError), (-(2**70), ValueError)]:
            yield (
                f"get_final_stream({option}={bad!r})",
                lambda adapter, option=option, bad=bad: adapter.get_final_stream(final(adapter), **{option: bad}),
                error,
                option,
            )
    yield (
        "a range without a start",
        lambda adapter: adapter.get_final_stream(final(adapter), start=None),
        TypeError,
        "start",
    )
    for option in ("prefix", "start_after"):
        for bad, error in [
            *((bad, TypeError) for bad in (None, 5, b"a", True)),
            *((bad, InvalidKey) for bad in ("a\x00", "a\\b", "\n", "\ud800", "a" * 2000)),
        ]:
            yield (
                f"list_final ({option}={bad!a:.40})",
                lambda adapter, option=option, bad=bad: adapter.list_final(**{option: bad}),
                error,
                option,
            )
    for bad in ("/", "a//", "../", "a/./b", ".gostorage-staging/a", "a" * 256 + "/"):
        yield (
            f"list_final of {bad:.40}",
            lambda adapter, bad=bad: adapter.list_final(adapter.prefix + bad),
            InvalidKey,
            "not a legal key",
        )
    yield (
        "list_final after one of another bucket",
        lambda adapter: adapter.list_final(start_after=final(adapter, bucket="other")),
        StorageError,
        "not 'other'",
    )
    for bad in (None, 0, 1, "False"):
        yield (
            f"copy_final (overwrite={bad!r})",
            lambda adapter, bad=bad: adapter.copy_final(final(adapter), "b", overwrite=bad),
            TypeError,
            "overwrite is True or False",
        )
    for option, bad, error, says in [
        *(("expires", bad, ValueError, "604,800") for bad in (0, -1, 604_801)),
        *(("expires", bad, TypeError, "expires is an int") for bad in (*NUMBERS, None)),
        *(("method", bad, ValueError, "GET, HEAD or PUT") for bad in ("get", "POST", "")),
        *(("method", bad, TypeError, "method is a str") for bad in (None, b"GET")),
        *(("filename", bad, ValueError, "255 characters") for bad in (*HEADERS, "", "\ud800", "a" * 256)),
        *(("filename", bad, TypeError, "filename is a str") for bad in (b"a", 5)),
        *(("content_type", bad, ValueError, "visible ASCII") for bad in (*HEADERS, "é")),
        ("content_type", 5, TypeError, "content_type is a str"),
    ]:
        yield (
            f"url_final ({option}={bad!a:.40})",
            lambda adapter, option=option, bad=bad: adapter.url_final(final(adapter), **{option: bad}),
            error,
            says,
        )
    yield (
        "url_final (PUT with a filename)",
        lambda adapter: adapter.url_final(final(adapter), method="PUT", filename="a"),
        ValueError,
        "filename",
    )
    yield "a digest", lambda adapter: adapter.get_final_stream(final(adapter), sha256="x"), ValueError, "64 hex digits"
    for name, call in SECONDS.items():
        for bad, error in [
            *((bad, TypeError) for bad in ("5", True, b"5", [], Decimal(5), datetime.timedelta(1))),
            *((bad, ValueError) for bad in (-1, -0.5, math.nan, -math.inf)),
            *([(math.inf, ValueError), (None, TypeError)] if name == "check_health" else []),
        ]:
            yield (
                f"{name} for {bad!r} s",
                lambda adapter, call=call, bad=bad: call(adapter, bad),
                error,
                "is a number of seconds",
            )
    for bad, error in [(5, TypeError), (None, TypeError), (datetime.timedelta(-1), ValueError)]:
        yield f"older than {bad!r}", lambda adapter, bad=bad: adapter.sweep(bad), error, "older_than is"
    for option, bad in (("keep", 5), ("keep", "all"), ("dry_run", None), ("dry_run", "False")):
        yield (
            f"sweep({option}={bad!r})",
            lambda adapter, option=option, bad=bad: adapter.sweep(datetime.timedelta(1), **{option: bad}),
            TypeError,
            option,
        )
    impossible = [
        ("size", -5, ValueError),
        ("size", 2**63 - 1, ValueError),
        ("size", 2**70, ValueError),
        ("size", "x", TypeError),
        ("size", True, TypeError),
        ("sha256", "xyz", ValueError),
        ("sha256", 5, TypeError),
        ("key", b"s/00001", TypeError),
        ("key", None, TypeError),
        ("key", 5, TypeError),
    ]
    for field, bad, error in impossible:
        for name, call in READS.items():
            yield (
                f"{name} of a FinalObject with {field}={bad!r}",
                lambda adapter, call=call, field=field, bad=bad: call(adapter, final(adapter, **{field: bad})),
                error,
                "",
            )
    for field, bad, error in [
        *impossible,
        ("part_number", 0, ValueError),
        ("part_number", 10_001, ValueError),
        ("part_number", None, TypeError),
        ("part_number", "1", TypeError),
        ("part_number", True, TypeError),
    ]:
        for name, call in PARTS.items():
            yield (
                f"{name} of a TempPart with {field}={bad!r}",
                lambda adapter, call=call, field=field, bad=bad: call(adapter, part(**{field: bad})),
                error,
                "",
            )
    for bad in (b"bucket", 5, None):
        yield (
            f"the bucket {bad!r}",
            lambda adapter, bad=bad: adapter.stat_final(bad, f"{adapter.prefix}a"),
            TypeError,
            "a bucket is a str",
        )
    yield "another bucket", lambda adapter: adapter.stat_final("other\n", f"{adapter.prefix}a"), StorageError, r"\n"
    yield "no key", lambda adapter: adapter.stat_final(adapter.bucket), TypeError, "a bucket and a key"
    for bad in (None, 5, "s/00001", part()):
        yield f"to join {bad!r:.40}", lambda adapter, bad=bad: adapter.assemble("a", bad), TypeError, "list of parts"
    yield "to join nothing", lambda adapter: adapter.assemble("a", []), ValueError, "at least one"


TABLE = {name: row for name, *row in table()}
REFUSALS = TypeError, ValueError, InvalidArgument, InvalidKey, StorageError
OPS = {
    "put_final": "put",
    "put_temp_part": "put",
    "assemble": "assemble",
    "list_temp_parts": "list",
    "delete_temp_parts": "delete_all",
    "extend_digest": "extend",
    "get_final_stream": "get",
    "get_temp_part_stream": "get",
    "stat_final": "stat",
    "delete_final": "delete",
    "delete_temp_part": "delete",
    "list_final": "list",
    "copy_final": "copy",
    "adopt_final": "adopt",
    "url_final": "url",
}


def message(adapter, error):
    text = error.message if isinstance(error, StorageError) else str(error)
    if adapter.prefix:
        text = text.replace(repr(adapter.prefix), "''")
    return text.replace(f"bucket {adapter.bucket!r}", "bucket")


def test_the_same_is_refused_everywhere_before_anything_is_sent(adapters, listener, tmp_path):
    for name, (call, expected, says) in TABLE.items():
        found = []
        for adapter in adapters:
            with pytest.raises((TypeError, ValueError, StorageError)) as caught:
                call(adapter)
            error = caught.value
            assert isinstance(error, expected) and type(error) in REFUSALS, name
            found.append((type(error), message(adapter, error)))
            assert says in str(error), (name, str(error))
            assert not arguments.CONTROL.search(str(error)), name
            if isinstance(error, StorageError) and name.split(" ")[0] in OPS:
                assert error.op == OPS[name.split(" ")[0]], name
        assert len(set(found)) == 1, (name, found)
    assert listener.seen == []
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_what_is_fine(adapters):
    for adapter in adapters[:2]:
        text = SafeString("safe")
        for given, key in [
            (text, "safe"),
            (7, "7"),
            (-1, "-1"),
            (uuid.UUID(int=7), str(uuid.UUID(int=7))),
            (Text("t"), "t"),
        ]:
            stored = adapter.put_final(given, b"x", size=1, content_type="", metadata={})
            assert (stored.key, type(stored.key)) == (adapter.prefix + key, str)
            assert adapter.put_temp_part(given, 10_000, b"x").key == f"{key}/10000"
        adapter.put_final("a", b"x", content_type="text/plain; charset=utf-8", metadata={"a-B_c.1": "é" * 500})
        adapter.put_final("a", b"x", content_type="a" * 255, metadata={"k": "v" * 1919})
        assert adapter.extend_digest("safe", math.inf) == adapter.extend_digest("safe", 10**400) == 0
        assert adapter.sweep(datetime.timedelta(1), max_seconds=math.inf).finished
        adapter.check_health(timeout=10**400)
        blank = FinalObject(stored.bucket, stored.key, None, "")
        assert adapter.stat_final(blank).size == 1


def test_a_size_that_a_store_can_have(adapters):
    """It is judged by the bytes that come; on S3 it needs larger parts than these."""
    for adapter in adapters:
        with pytest.raises(StorageError if adapter.backend == "s3" else ContentMismatch):
            adapter.put_final("a", b"x", size=5 * TIB)


@pytest.mark.parametrize("huge", [5 * TIB, 2**62, 2**63 - 1, 2**63, 2**64, 2**70, 10**400])
@pytest.mark.parametrize("adapter", ["local", "memory", "s3-versitygw"], indirect=True)
def test_a_range_beyond_the_end(adapter, huge):
    stored = adapter.put_final("a", b"0123456789")
    for start, length, expected in [
        (huge, None, b""),
        (huge, huge, b""),
        (3, huge, b"3456789"),
        (0, huge, b"0123456789"),
    ]:
        with adapter.get_final_stream(stored, start=start, length=length) as reader:
            assert reader.read() == expected


VALUES = [
    "",
    "plain",
    "é",
    "Zoë",
    "ü" * 22,
    "ü" * 23,
    "a" * 44 + "é",
    "é" * 400,
    "€" * 100,
    "\U0001f600" * 60,
    "aé€" * 70,
]
VALUES += [
    "~" * 100,
    "a?=_ b",
    "\u00a0",
    "é" + "a" * 200,
    "a" * 46 + "\U0001f600" + "é" * 21,
    "a\r\nX-Evil: 1",
    "\x7f" * 50,
    "a\tb",
    " a",
    "a ",
    "=?utf-8?b?YQ==?=",
    "\x85",
]


def test_the_limit_counts_what_is_sent(listener):
    """In the form that Go really gives each value."""
    adapter = on_listener(listener)
    for value in VALUES:
        adapter.put_final("a", b"x", metadata={"k": value})
        sent = listener.seen[-1]["x-amz-meta-k"]
        assert arguments._sent_bytes(value) == len(sent), value
        assert sent.isprintable() and sent == sent.strip(), value
        words = email.header.decode_header(sent)
        assert "".join(text if charset is None else text.decode(charset) for text, charset in words) == value
    adapter.close()


def test_every_method_is_judged():
    """A method that is added has a row."""
    names = {name for name in vars(StorageAdapter) if not name.startswith("_")} - {"backend", "close"}
    twins = {f"a{name}" for name in names | {"close"}} & names
    assert names - twins == set(OPS) | {"check_health", "sweep"}
    assert twins == {f"a{name}" for name in names - twins | {"close"}}  # and each has a twin


def test_keys_of_the_contract_say_what_was_tried():
    adapter = MemoryStorageAdapter()
    for key in CONTRACT["illegal_keys"]:
        with pytest.raises(InvalidKey) as caught:
            adapter.put_final(key, b"")
        assert caught.value.op == "put" and not arguments.CONTROL.search(str(caught.value))
    adapter.close()
