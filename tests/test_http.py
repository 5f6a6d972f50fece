"""storage.http: what RFC 9110 says of responses, bodies as sources, errors as statuses; then through real servers."""

import asyncio
import base64
import contextlib
import gzip
import hashlib
import http.client
import inspect
import io
import json
import os
import random
import re
import socket
import subprocess
import sys
from dataclasses import replace

import pytest
from asgiref.sync import sync_to_async
from conftest import configured, make_local, s3_options
from django.core.exceptions import ImproperlyConfigured
from django.http import Http404, HttpResponse
from django.middleware.gzip import GZipMiddleware
from django.middleware.http import ConditionalGetMiddleware
from django.test import AsyncClient, AsyncRequestFactory, Client, RequestFactory, override_settings
from django.urls import path
from django.utils.decorators import method_decorator
from django.utils.http import content_disposition_header, http_date
from django.views import View
from hypothesis import given
from hypothesis import strategies as st
from servers import web

from storage import (
    ContentMismatch,
    ContentRejected,
    FinalObject,
    InvalidArgument,
    InvalidKey,
    MemoryStorageAdapter,
    ObjectExists,
    ObjectNotFound,
    StorageCancelled,
    StorageError,
    StorageFull,
    StoragePermissionError,
    StorageTimeout,
    StorageUnavailable,
    conf,
    get_storage_adapter,
    native,
)
from storage.http import aobject_response, object_response, request_stream, storage_errors

DATA = bytes(range(100))
SHA = hashlib.sha256(DATA).hexdigest()
ETAG = f'"sha256-{SHA}"'
MIB = 1024 * 1024
MEMORY = "storage.MemoryStorageAdapter"


@pytest.fixture(scope="module", autouse=True)
def asynchronous():
    """asgiref keeps one thread: it is there, and known to the Go side, before threads are counted."""
    asyncio.run(sync_to_async(native.stats)())


@pytest.fixture
def adapter(uploads):
    return uploads


@pytest.fixture
def final(adapter):
    return adapter.put_final("a/b.bin", DATA, content_type="image/png")


def asked(method="GET", **headers):
    return getattr(RequestFactory(), method.lower())("/", headers=headers)


def answered(final, method="GET", *, options=None, **headers):
    """The response to a request with headers, its body read and its stream closed."""
    response = object_response(asked(method, **headers), final, **(options or {}))
    response.body = b"".join(response) if response.streaming else response.content
    response.close()
    return response


def bare(final):
    """The name alone, with nothing stated."""
    return FinalObject(final.bucket, final.key, None, None)


# ---- responses


@pytest.mark.parametrize("stated", [True, False])
def test_the_whole(adapter, final, stated):
    response = answered(final if stated else bare(final))
    assert (response.status_code, response.body) == (200, DATA)
    digest = base64.b64encode(bytes.fromhex(SHA)).decode()
    modified = adapter.stat_final(final).modified
    assert dict(response.headers) == {
        "Accept-Ranges": "bytes",
        "Cache-Control": "private",
        "Content-Disposition": 'inline; filename="b.bin"',
        "Content-Encoding": "identity",
        "Content-Length": "100",
        "Content-Security-Policy": response["Content-Security-Policy"],
        "Content-Type": "image/png",
        "ETag": ETAG,
        "Last-Modified": http_date(modified.timestamp()),
        "Repr-Digest": f"sha-256=:{digest}:",
        "X-Content-Type-Options": "nosniff",
    }
    assert response["Content-Security-Policy"].startswith("sandbox; default-src 'none';")
    head = answered(final if stated else bare(final), "HEAD")
    assert (head.status_code, head.body, dict(head.headers)) == (200, b"", dict(response.headers))


RANGES = {
    "bytes=0-9": (0, 10),
    "bytes=0-0": (0, 1),
    "bytes=99-": (99, 100),
    "bytes=0-": (0, 100),
    "bytes=-1": (99, 100),
    "bytes=-100": (0, 100),
    "bytes=-1000": (0, 100),
    "bytes=90-1000": (90, 100),
    "bytes= 5-6 ": (5, 7),
    "bytes=,5-6,": (5, 7),
    "BYTES=5-6": (5, 7),
    "bytes=0000000000000000000000000000005-6": (5, 7),
    "bytes=50-" + "9" * 5000: (50, 100),
    "bytes=-" + "9" * 5000: (0, 100),
    # nothing of it is there
    "bytes=100-": (),
    "bytes=100-200": (),
    "bytes=-0": (),
    f"bytes={'9' * 19}-": (),
    f"bytes={'9' * 5000}-": (),
    f"bytes={2**64}-{2**64 + 1}": (),
    "bytes=" + "0-1," * 999 + "0-1": (),
    "bytes=" + "-," * 101: (),
    # ignored
    "": None,
    "bytes": None,
    "bytes=": None,
    "bytes=-": None,
    "bytes=--1": None,
    "bytes=1": None,
    "bytes=9-5": None,
    f"bytes={'9' * 5000}-5": None,
    "bytes=a-b": None,
    "bytes=0x0-0x9": None,
    "bytes=+1-2": None,
    "bytes=1 - 2": None,
    "bytes=1_0-20": None,
    "bytes=\u0663-\u0665": None,
    "bytes=0-9\x00": None,
    "bytes=\xff-": None,
    "items=0-9": None,
    "bytes=0-1,2-3": None,
    "bytes=200-300,0-1": None,
    "bytes=" + "0-1," * 99 + "0-1": None,
    "items=" + "0-1," * 999: None,
    "bytes=" + "," * 5000: None,
}


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize(("header", "expected"), RANGES.items(), ids=range(len(RANGES)))
def test_ranges(final, header, expected, stated):
    response = answered(final if stated else bare(final), Range=header)
    if expected is None:
        assert (response.status_code, response.body) == (200, DATA)
        assert "Content-Range" not in response
    elif not expected:
        assert (response.status_code, response.body) == (416, b"")
        assert response["Content-Range"] == "bytes */100"
        assert not {"ETag", "Repr-Digest", "Content-Disposition"} & set(response.headers)
    else:
        start, stop = expected
        assert (response.status_code, response.body) == (206, DATA[start:stop])
        assert response["Content-Range"] == f"bytes {start}-{stop - 1}/100"
        assert response["Content-Length"] == str(stop - start)
        assert (response["ETag"], response["Accept-Ranges"]) == (ETAG, "bytes")
    head = answered(final, "HEAD", Range=header)
    assert (head.status_code, head["Content-Length"], "Content-Range" in head) == (200, "100", False)


@pytest.mark.parametrize(
    ("header", "status"), [("bytes=0-", 416), ("bytes=0-9", 416), ("bytes=-0", 416), ("bytes=-5", 200), ("x", 200)]
)
def test_ranges_of_nothing(adapter, header, status):
    final = adapter.put_final("empty", b"")
    response = answered(final, Range=header)
    assert (response.status_code, response.body) == (status, b"")
    assert response.get("Content-Range") == ("bytes */0" if status == 416 else None)


@given(st.one_of(st.text("0123456789-, \t=bytes"), st.from_regex(r"bytes=[0-9]{0,30}-[0-9]{0,30}", fullmatch=True)))
def test_any_range_is_one_of_three_answers(header):
    with configured(default={"BACKEND": MEMORY}):
        final = get_storage_adapter().put_final("a", DATA)
        response = answered(final, Range=header)
        if response.status_code == 206:
            first, last, size = map(int, re.fullmatch(r"bytes (\d+)-(\d+)/(\d+)", response["Content-Range"]).groups())
            assert response.body == DATA[first : last + 1] and first <= last and size == 100
        else:
            assert (response.status_code, response.body) in [(200, DATA), (416, b"")]


OLD, NEW = "Sat, 01 Jan 2000 00:00:00 GMT", "Fri, 01 Jan 2100 00:00:00 GMT"
CONDITIONS = [
    ({"If-None-Match": ETAG}, 304),
    ({"If-None-Match": f'"x", W/{ETAG}'}, 304),
    ({"If-None-Match": "*"}, 304),
    ({"If-None-Match": '"x"'}, 200),
    ({"If-None-Match": '"x"', "If-Modified-Since": NEW}, 200),
    ({"If-Modified-Since": NEW}, 304),
    ({"If-Modified-Since": OLD}, 200),
    ({"If-Modified-Since": "yesterday"}, 200),
    ({"If-Match": ETAG}, 200),
    ({"If-Match": "*"}, 200),
    ({"If-Match": '"x"'}, 412),
    ({"If-Match": f"W/{ETAG}"}, 412),
    ({"If-Match": ETAG, "If-Unmodified-Since": OLD}, 200),
    ({"If-Match": ETAG, "If-None-Match": ETAG}, 304),
    ({"If-Unmodified-Since": OLD}, 412),
    ({"If-Unmodified-Since": NEW}, 200),
    ({"If-Unmodified-Since": "99999999999999999999"}, 200),
]


@pytest.mark.parametrize(("headers", "status"), CONDITIONS)
def test_conditions(final, headers, status):
    for method in ("GET", "HEAD"):
        response = answered(final, method, **headers)
        assert response.status_code == status
        assert response.body == (DATA if (status, method) == (200, "GET") else b"")
    if status == 304:
        assert {"ETag", "Last-Modified", "Cache-Control"} <= set(response.headers)
        assert not {"Content-Length", "Content-Type", "Repr-Digest"} & set(response.headers)
    ranged = answered(final, Range="bytes=0-9", **headers)  # conditions come before the range
    assert ranged.status_code == {200: 206}.get(status, status)
    past = answered(final, Range="bytes=100-", **headers)
    assert past.status_code == {200: 416}.get(status, status)


def test_if_range(adapter, final):
    modified = adapter.stat_final(final).modified
    for condition, status in {
        ETAG: 206,
        f"W/{ETAG}": 200,
        '"x"': 200,
        "*": 200,
        "": 200,
        http_date(modified.timestamp()): 206,
        http_date(modified.timestamp() - 1): 200,
        NEW: 200,
        "soon": 200,
    }.items():
        response = answered(final, Range="bytes=0-9", **{"If-Range": condition})
        assert (response.status_code, len(response.body)) == (status, 10 if status == 206 else 100), condition
        past = answered(final, Range="bytes=100-", **{"If-Range": condition})
        assert past.status_code == {206: 416, 200: 200}[status]
    assert answered(final, **{"If-Range": '"x"'}).status_code == 200


class Unknowing(MemoryStorageAdapter):
    """Knows no digests, as a bucket to which others write."""

    def stat_final(self, *args):
        return replace(super().stat_final(*args), sha256=None)

    def get_final_stream(self, *args, **options):
        reader = super().get_final_stream(*args, **options)
        reader.sha256 = None
        return reader


def test_an_object_without_a_digest():
    with configured(default={"BACKEND": f"{__name__}.Unknowing"}):
        final = get_storage_adapter().put_final("a", DATA)
        response = answered(bare(final))
        assert response.status_code == 200 and "Last-Modified" in response
        assert not {"ETag", "Repr-Digest"} & set(response.headers)
        assert answered(final)["ETag"] == ETAG  # that of the row
        modified = response["Last-Modified"]
        assert answered(bare(final), Range="bytes=0-9", **{"If-Range": modified}).status_code == 206
        assert answered(bare(final), Range="bytes=0-9", **{"If-Range": "None"}).status_code == 200
        for headers, status in [
            ({"If-Match": "*"}, 200),
            ({"If-Match": ETAG}, 412),
            ({"If-None-Match": ETAG}, 200),
            ({"If-None-Match": "*"}, 304),
        ]:
            assert answered(bare(final), **headers).status_code == status, headers


def test_other_methods(final):
    for method in ("POST", "PUT", "DELETE", "OPTIONS", "PATCH"):
        response = answered(final, method)
        assert (response.status_code, response["Allow"]) == (405, "GET, HEAD")


@pytest.mark.parametrize(
    ("method", "headers"),
    [
        ("GET", {}),
        ("HEAD", {}),
        ("GET", {"Range": "bytes=0-9"}),
        ("GET", {"Range": "bytes=100-"}),
        ("GET", {"If-None-Match": "*"}),
    ],
)
def test_what_is_missing_or_has_changed_is_known_before_the_response(adapter, final, method, headers):
    for wrong in (replace(final, size=99), replace(final, sha256="0" * 64)):
        with pytest.raises(ContentMismatch):
            object_response(asked(method, **headers), wrong)
    adapter.delete_final(final)
    for missing in (final, bare(final)):
        with pytest.raises(Http404) as caught:
            object_response(asked(method, **headers), missing)
        assert isinstance(caught.value.__cause__, ObjectNotFound)


def test_a_range_of_a_known_size_is_one_call(final, monkeypatch):
    monkeypatch.delattr("storage.adapter.NativeAdapter.stat_final")
    assert answered(final, Range="bytes=0-9").body == DATA[:10]
    assert answered(final).body == DATA


@pytest.mark.parametrize(
    "name",
    [
        "a.txt",
        'quo"te\\.txt',
        "Zoë 报告.pdf",
        "../../etc/passwd",
        "new\r\nline: x",
        "<script>alert(1)</script>.html",
        "nul\0tab\t",
        "\u202efdp.exe",
        "x" * 3000,
    ],
)
def test_names(final, name):
    for attached in (True, False):
        response = answered(final, options={"filename": name, "as_attachment": attached})
        assert response["Content-Disposition"] == content_disposition_header(attached, name)
        assert "\n" not in response["Content-Disposition"]
    assert "udc" not in answered(final, options={"filename": "\udcff"})["Content-Disposition"]


def test_a_name_with_a_percent_sign(final):
    """Browsers decode it in the plain form, and curl knows no other one."""
    response = answered(final, options={"filename": "%41 b.txt"})
    assert response["Content-Disposition"] == "inline; filename=\"%41 b.txt\"; filename*=utf-8''%2541%20b.txt"
    assert "filename=" not in answered(final, options={"filename": "Zoë 5%.txt"})["Content-Disposition"]


def test_what_the_caller_wants_to_be_told(final):
    options = {"as_attachment": True, "content_type": "text/plain", "headers": {"cache-control": "public", "X-A": "b"}}
    response = answered(final, options=options)
    assert response["Content-Disposition"] == 'attachment; filename="b.bin"'
    assert "Content-Security-Policy" not in response
    assert (response["Content-Type"], response["Cache-Control"], response["X-A"]) == ("text/plain", "public", "b")
    assert "Content-Disposition" not in answered(final, options={"filename": ""})
    assert answered(replace(final, content_type="a/b"))["Content-Type"] == "a/b"
    csp = answered(final, options={"headers": {"Content-Security-Policy": "sandbox allow-scripts"}})
    assert csp["Content-Security-Policy"] == "sandbox allow-scripts"


@pytest.mark.parametrize(
    ("content_type", "shown"),
    [
        ("text/plain", "text/plain; charset=utf-8"),
        ("Text/CSV; header=present", "Text/CSV; header=present; charset=utf-8"),
        ('text/plain; Charset="latin1"', 'text/plain; Charset="latin1"'),
        ("text/html", "text/html"),
        ("TEXT/XML ; a=b", "TEXT/XML ; a=b"),
        ("application/json", "application/json"),
    ],
)
def test_text_that_is_shown_has_a_charset(final, content_type, shown):
    for mode in ("stream", "accel"):
        with override_settings(STORAGE_ACCEL_PREFIX="/protected/"):
            wish = {"content_type": content_type, "mode": mode}
            assert answered(final, options=wish)["Content-Type"] == shown
            assert answered(final, options={**wish, "as_attachment": True})["Content-Type"] == content_type


@pytest.mark.parametrize("content_type", ["audio/wav", "Video/MP4", "text/html", "image/svg+xml", "x/video/mp4"])
def test_only_audio_and_video_keep_their_origin(final, content_type):
    policy = answered(replace(final, content_type=content_type))["Content-Security-Policy"]
    sandbox = policy.partition(";")[0]
    assert sandbox == ("sandbox allow-same-origin" if content_type[:5].lower() in {"audio", "video"} else "sandbox")


def test_arguments(final):
    for options, error in [
        ({"headers": {"etag": "x"}}, ValueError),
        ({"headers": {"Content-Length": "1"}}, ValueError),
        ({"headers": {"X-A": "b\nc"}}, ValueError),
        ({"mode": "other"}, ValueError),
        ({"content_type": "a\nb"}, ValueError),
        ({"as_attachment": 1}, TypeError),
    ]:
        with pytest.raises(error):
            object_response(asked(), final, **options)
    with pytest.raises(TypeError, match="FinalObject"):
        object_response(asked(), final.key)
    with pytest.raises(ImproperlyConfigured, match="nowhere"):
        object_response(asked(), replace(final, bucket="nowhere"))


def test_pieces(adapter):
    data = random.Random(3).randbytes(3 * MIB + 1)
    final = adapter.put_final("large", data)
    response = object_response(asked(), final)
    pieces = list(response)
    response.close()
    assert b"".join(pieces) == data
    assert all(256 * 1024 <= len(piece) <= MIB for piece in pieces[:-1])
    response = object_response(asked(), final)
    iterator = iter(response)
    next(iterator)
    response.close()
    with pytest.raises(ValueError, match="closed"):
        next(iterator)


def test_async_pieces(adapter):
    data = random.Random(3).randbytes(3 * MIB + 1)
    final = adapter.put_final("large", data)

    async def serve(**headers):
        response = object_response(AsyncRequestFactory().get("/", headers=headers), final)
        assert response.is_async
        pieces = [piece async for piece in response]
        response.close()
        return pieces

    pieces = asyncio.run(serve())
    assert b"".join(pieces) == data
    assert all(256 * 1024 <= len(piece) <= MIB for piece in pieces[:-1])
    assert b"".join(asyncio.run(serve(Range="bytes=5-1000000"))) == data[5:1_000_001]


HEADERS = {
    "all": {},
    "a range": {"Range": "bytes=5-1000000"},
    "nothing of it": {"Range": "bytes=9999999-"},
    "not changed": {"If-None-Match": "*"},
    "another": {"If-Match": '"other"'},
}


@pytest.mark.parametrize("method", ["get", "head", "post"])
@pytest.mark.parametrize("name", HEADERS)
def test_the_asynchronous_response_is_the_same(adapter, method, name):
    data = random.Random(3).randbytes(MIB + 1)
    final = adapter.put_final("a", data, content_type="text/plain")

    async def told(response):
        content = b"".join([piece async for piece in response]) if response.streaming else response.content
        response.close()
        return response.status_code, dict(response.items()), content

    async def serve():
        request = getattr(AsyncRequestFactory(), method)("/", headers=HEADERS[name])
        expected = await told(await sync_to_async(object_response)(request, final, filename="b.txt"))
        assert await told(await aobject_response(request, final, filename="b.txt")) == expected
        with pytest.raises(Http404):
            await aobject_response(AsyncRequestFactory().get("/"), FinalObject(final.bucket, "none", None, None))

    asyncio.run(serve())


def test_the_asynchronous_response_in_other_modes(adapter):
    final = adapter.put_final("a", b"bytes")
    request = AsyncRequestFactory().get("/")
    with override_settings(STORAGE_ACCEL_PREFIX="/protected/"):
        response = asyncio.run(aobject_response(request, final, mode="accel"))
    assert response["X-Accel-Redirect"] == f"/protected/{final.key}"
    for mode, error in (("redirect", ImproperlyConfigured), ("other", ValueError)):
        with pytest.raises(error):
            asyncio.run(aobject_response(request, final, mode=mode))


@pytest.mark.parametrize("uploads", ["local"], indirect=True)
def test_damage_ends_the_response_early(tmp_path, uploads):
    data = random.Random(3).randbytes(3 * MIB)
    final = uploads.put_final("large", data)
    path = tmp_path / "final" / "large"
    path.chmod(0o600)
    with open(path, "r+b") as file:
        file.seek(MIB)
        file.write(bytes(10))
    response = object_response(asked(), final)
    with contextlib.closing(response), pytest.raises(ContentMismatch):
        list(response)


def test_middlewares_that_change_responses(final):
    def view(request):
        return object_response(request, final)

    for middleware in (GZipMiddleware(view), ConditionalGetMiddleware(view)):
        for headers, status, body in [({}, 200, DATA), ({"Range": "bytes=1-2"}, 206, DATA[1:3])]:
            response = middleware(asked(**{"Accept-Encoding": "gzip", **headers}))
            assert (response.status_code, b"".join(response)) == (status, body)
            assert response["ETag"] == ETAG and response["Content-Length"] == str(len(body))
            response.close()

    packed = gzip.compress(DATA)
    stored = get_storage_adapter().put_final("packed", packed)
    assert answered(stored, options={"headers": {"Content-Encoding": "gzip"}})["Content-Encoding"] == "gzip"


def test_the_store_sends(tmp_path):
    options = {
        "bucket_name": "there",
        "access_key": "key",
        "secret_key": "secret",
        "security_token": "t" * 3000,
        "region_name": "eu-west-1",
        "endpoint_url": "http://127.0.0.1:1",
        "public_endpoint_url": "https://files.example",
    }
    with configured(default={"BACKEND": "storage.S3StorageAdapter", "OPTIONS": options}):
        final = FinalObject("there", "final/a.bin", 5, None)
        urls = set()
        for method in ("GET", "HEAD"):
            wish = {"mode": "redirect", "filename": "Ö.pdf", "as_attachment": True, "content_type": "text/plain"}
            response = answered(final, method, options=wish)
            assert (response.status_code, response["Cache-Control"]) == (302, "no-store")
            url = response["Location"]
            assert url.startswith("https://files.example/") and "X-Amz-Signature=" in url
            assert "attachment" in url and "text%2Fplain" in url
            urls.add(url.rpartition("Signature=")[2])
        assert len(urls) == 2  # the method is signed
        plain = answered(final, options={"mode": "redirect", "headers": {"Cache-Control": "private"}})
        assert "disposition" not in plain["Location"] and plain["Cache-Control"] == "private"
        assert answered(final, "POST", options={"mode": "redirect"}).status_code == 405


@pytest.mark.newest
def test_on_a_bucket(versitygw):
    entry = {"BACKEND": "storage.S3StorageAdapter", "OPTIONS": s3_options(versitygw)}
    with configured(default=entry):
        data = random.Random(6).randbytes(12 * MIB)
        adapter = get_storage_adapter()
        final = adapter.put_final("a.bin", (data[n : n + MIB] for n in range(0, len(data), MIB)))
        for known in (final, bare(final)):
            assert answered(known).body == data
            ranged = answered(known, Range="bytes=-1000")
            assert (ranged.status_code, ranged.body) == (206, data[-1000:])
            head = answered(known, "HEAD")
            assert (head["Content-Length"], head["Accept-Ranges"]) == (str(len(data)), "bytes")
        etag = f'"sha256-{final.sha256}"'
        assert answered(final, **{"If-None-Match": etag}).status_code == 304
        wish = {"mode": "redirect", "as_attachment": True, "filename": "Zoë.bin"}
        url = answered(final, options=wish)["Location"]
        status, headers, body = curl("-r", "5-9", url)
        assert (status, body) == (206, data[5:10])
        assert headers["content-disposition"] == "attachment; filename*=utf-8''Zo%C3%AB.bin"
        adapter.delete_final(final)
        with pytest.raises(Http404):
            object_response(asked(), final)


NAMES_IN_URLS = {
    "": '"a.bin"',
    "new\r\nline.txt": '"new__line.txt"',
    "x" * 3000 + ".pdf": '"' + "x" * 251 + '.pdf"',
    "\udcff": '"?"',
    "100%25.txt": "\"100%25.txt\"; filename*=utf-8''100%2525.txt",
}
"""What S3 is not told as it is, or told twice."""


@pytest.mark.parametrize("name", NAMES_IN_URLS, ids=lambda name: ascii(name[-9:]))
@pytest.mark.newest
def test_names_that_the_store_tells(versitygw, name):
    entry = {"BACKEND": "storage.S3StorageAdapter", "OPTIONS": s3_options(versitygw)}
    with configured(default=entry):
        final = get_storage_adapter().put_final("folder/a.bin", b"x")
        wish = {"mode": "redirect", "as_attachment": True, "filename": name}
        status, headers, _ = curl(answered(final, options=wish)["Location"])
    assert (status, headers["content-disposition"]) == (200, f"attachment; filename={NAMES_IN_URLS[name]}")


def test_objects_without_a_url_are_not_redirected_to(final):
    with pytest.raises(ImproperlyConfigured, match=r"storage\.urls"):
        object_response(asked(), final, mode="redirect")


def test_the_server_in_front_sends(adapter, final):
    odd = adapter.put_final("Zoë/100% ?#.txt", DATA)
    with pytest.raises(ImproperlyConfigured, match="STORAGE_ACCEL_PREFIX"):
        object_response(asked(), final, mode="accel")
    for prefix in ("/protected/", "/protected"):
        with override_settings(STORAGE_ACCEL_PREFIX=prefix):
            response = answered(odd, Range="bytes=0-9", options={"mode": "accel"}, **{"If-Match": '"theirs"'})
            assert (response.status_code, response.body) == (200, b"")
            assert response["X-Accel-Redirect"] == "/protected/Zo%C3%AB/100%25%20%3F%23.txt"
            assert response["X-Content-Type-Options"] == "nosniff" and "Content-Security-Policy" in response
            assert "Content-Length" not in response and "X-Sendfile" not in response
    with override_settings(STORAGE_ACCEL_PREFIX="/srv/final", STORAGE_ACCEL_HEADER="X-Sendfile"):
        response = answered(final, options={"mode": "accel"})
        assert response["X-Sendfile"] == "/srv/final/a/b.bin" and "X-Accel-Redirect" not in response
        adapter.delete_final(final)
        with pytest.raises(Http404):
            object_response(asked(), final, mode="accel")
    for wrong in ({"STORAGE_ACCEL_PREFIX": "protected/"}, {"STORAGE_ACCEL_PREFIX": "/a", "STORAGE_ACCEL_HEADER": "X"}):
        with override_settings(**wrong), pytest.raises(ImproperlyConfigured, match=list(wrong)[-1]):
            object_response(asked(), odd, mode="accel")


def test_a_misspelt_setting_is_reported():
    with override_settings(STORAGE_ACCEL_PREFX="/protected/", STORAGE_ACCEL_PREFIX="/protected/"):
        assert [name for name, *_ in conf.unread()] == ["STORAGE_ACCEL_PREFX"]


# ---- requests


def put_request(body, length, **meta):
    request = RequestFactory().put("/", b"", content_type="application/octet-stream")
    environ = request.environ | {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(length)} | meta
    return type(request)(environ)


def test_request_stream(adapter):
    stream = request_stream(put_request(DATA, 100))
    assert stream.length == 100
    assert (stream.read(30), stream.read(0), stream.read(), stream.read(5)) == (DATA[:30], b"", DATA[30:], b"")
    assert adapter.put_final("a", request_stream(put_request(DATA, 100))).sha256 == SHA
    assert request_stream(put_request(DATA + b"next", 100)).read(None) == DATA
    empty = request_stream(put_request(b"", ""))
    assert (empty.length, empty.read()) == (None, b"")
    asynchronous = AsyncRequestFactory().put("/", DATA, content_type="application/octet-stream")
    assert adapter.put_final("b", request_stream(asynchronous)).sha256 == SHA


def test_a_body_that_is_cut(adapter):
    for sizes in ([-1], [30, 100, 1], [None], [10] * 11):
        stream = request_stream(put_request(DATA, 1000))
        with pytest.raises(ContentMismatch, match="100 of its 1000"):
            for size in sizes:
                stream.read(size)
    with pytest.raises(ContentMismatch):
        adapter.put_final("a", request_stream(put_request(DATA, 1000)))
    with pytest.raises(ObjectNotFound):
        adapter.stat_final("uploads", "a")


def test_a_body_without_a_length():
    for length, meta in [("", {"HTTP_TRANSFER_ENCODING": "chunked"}), ("1e3", {}), ("-1", {}), ("\u0663", {})]:
        with pytest.raises(StorageError) as caught:
            request_stream(put_request(DATA, length, **meta))
        assert caught.value.code == "no_length"
    with pytest.raises(TypeError, match="HttpRequest"):
        request_stream(io.BytesIO())


def test_a_body_that_is_too_large(adapter):
    assert request_stream(put_request(DATA, 100), max_size=100).read() == DATA
    with pytest.raises(StorageError, match="more than 99 bytes") as caught:
        request_stream(put_request(DATA, 100), max_size=99)
    assert caught.value.code == "too_large"
    request = put_request(b"", "", HTTP_TRANSFER_ENCODING="chunked")
    request._stream = io.BytesIO(DATA)  # as from a server that gives what is chunked
    stream = request_stream(request, max_size=99)
    with pytest.raises(StorageError, match="more than 99 bytes"):
        adapter.put_final("a", stream)
    for length in (str(5 * 1024**4 + 1), "9" * 23, "9" * 5000):
        for put in (request_stream, lambda request: adapter.put_final("a", request)):
            with pytest.raises(StorageError) as caught:
                put(put_request(DATA, length))
            assert caught.value.code == "too_large", length
    assert request_stream(put_request(DATA, "0" * 30 + "100")).length == 100
    assert list(adapter.list_final()) == []
    with pytest.raises(ValueError):
        request_stream(put_request(DATA, 100), max_size=-1)


# ---- errors

SECRET = "the endpoint http://internal:9000"
STATUSES = {
    "not_found": (ObjectNotFound("no such object"), 404),
    "exists": (ObjectExists("another one is there"), 409),
    "invalid_key": (InvalidKey("no key"), 400),
    "invalid_argument": (InvalidArgument("no digest"), 400),
    "mismatch": (ContentMismatch("another size"), 400),
    "rejected": (ContentRejected("a virus"), 422),
    "too_large": (ContentRejected("too large", code="too_large"), 413),
    "no_length": (StorageError("chunked", code="no_length"), 411),
    "permission": (StoragePermissionError(SECRET), 403),
    "full": (StorageFull(SECRET), 507),
    "timeout": (StorageTimeout(SECRET), 504),
    "unavailable": (StorageUnavailable(SECRET), 503),
    "cancelled": (StorageCancelled(SECRET), 503),
    "internal": (StorageError(SECRET), 500),
    "forked": (StorageError(SECRET, code="forked"), 500),
}


@storage_errors
def sync_view(request, code):
    raise STATUSES[code][0]


@storage_errors
async def async_view(request, code):
    raise STATUSES[code][0]


@storage_errors
def fine(request, *, code):
    if code == "other":
        raise LookupError(code)
    return HttpResponse(code)


urlpatterns = [path("sync/<code>", sync_view), path("async/<code>", async_view), path("fine/<code>", fine)]


@pytest.mark.parametrize("code", STATUSES)
@pytest.mark.parametrize("kind", ["sync", "async"])
@override_settings(ROOT_URLCONF=__name__)
def test_errors_are_answers_and_logged_once(code, kind, caplog):
    error, status = STATUSES[code]

    async def get():
        return await AsyncClient().get(f"/{kind}/{code}")

    for response in (Client().get(f"/{kind}/{code}"), asyncio.run(get())):
        assert response.status_code == status
        told = json.loads(response.content)
        assert told["code"] == code and "internal:9000" not in told["error"]
        assert (told["error"] == error.message) == (error.message != SECRET)
    assert [(record.name, record.status_code) for record in caplog.records] == [("django.request", status)] * 2
    assert all(str(error) in record.getMessage() for record in caplog.records)
    assert all(bool(record.exc_info) == (status >= 500) for record in caplog.records)


@pytest.mark.parametrize("name", ["get", "dispatch"])
def test_errors_of_classes(name):
    class Sync(View):
        def get(self, request):
            raise ObjectExists("there")

    class Async(View):
        async def get(self, request):
            raise ObjectExists("there")

    for kind in (Sync, Async):
        response = method_decorator(storage_errors, name=name)(kind).as_view()(asked())
        response = asyncio.run(response) if kind is Async else response
        assert (response.status_code, json.loads(response.content)["code"]) == (409, "exists")


@override_settings(ROOT_URLCONF=__name__)
def test_what_is_no_storage_error_passes():
    assert Client().get("/fine/a").content == b"a"
    with pytest.raises(LookupError):
        Client().get("/fine/other")
    assert (sync_view.__name__, inspect.iscoroutinefunction(sync_view)) == ("sync_view", False)
    assert async_view.__name__ == "async_view"


def test_nothing_else_imports_it():
    modules = {f"storage.{name}" for name in ("http", "responses", "bodies", "statuses", "direct")}
    code = f"import sys, storage, storage.apps, storage.checks; sys.exit(bool({modules} & {{*sys.modules}}))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


# ---- real servers


@pytest.fixture(params=web.SERVERS)
def server(request, tmp_path):
    """The URL of a server of one process, with the objects below ``tmp_path``, and its log."""
    with web.serving(request.param, tmp_path) as served:
        yield served


def curl(*args):
    """The statuses and headers that curl was given, and the body."""
    done = subprocess.run(["curl", "-sS", "-D", "/dev/stderr", *args], capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    lines = done.stderr.decode().splitlines()
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int([line for line in lines if line.startswith("HTTP/")][-1].split()[1]), headers, done.stdout


@pytest.fixture
def store(tmp_path):
    """Stores what the server serves."""

    def store(name, data, **options):
        adapter = make_local(tmp_path)
        with contextlib.closing(adapter):
            return adapter.put_final(name, data, **options)

    return store


@pytest.mark.newest
def test_clients(server, store, tmp_path):
    url, log = server
    data = random.Random(4).randbytes(3 * MIB)
    store("a.bin", data, content_type="video/mp4")
    url += "/a.bin"
    status, headers, body = curl(url)
    assert (status, body, headers["content-length"]) == (200, data, str(len(data)))
    for spec, expected in {"0-99": data[:100], "-5": data[-5:], "3145720-": data[3145720:]}.items():
        status, headers, body = curl("-r", spec, url)
        assert (status, body, headers["content-length"]) == (206, expected, str(len(expected)))
    assert curl("-r", "0-1,5-6", url)[::2] == (200, data)
    assert curl("-H", "Range: bytes=" + "0-1," * 1000, url)[0] == 416
    assert curl("-r", f"{len(data)}-", url)[::2] == (416, b"")
    assert curl("-H", "Range: bytes=99999999999999999999999999999-", url)[0] == 416
    assert curl("--compressed", "-r", "1-2", url)[::2] == (206, data[1:3])
    assert curl("--compressed", url)[::2] == (200, data)
    status, headers, body = curl("-I", url)
    assert (status, headers["content-length"], headers["content-type"]) == (200, str(len(data)), "video/mp4")
    assert curl("-H", f"If-None-Match: {headers['etag']}", url)[::2] == (304, b"")
    assert curl("-H", 'If-Match: "x"', url)[0] == 412
    assert curl("-H", f"If-Range: {headers['last-modified']}", "-r", "0-0", url)[::2] == (206, data[:1])
    assert curl("-H", 'If-Range: "x"', "-r", "0-0", url)[::2] == (200, data)
    assert curl(url + ".none")[0] == 404
    assert curl("-X", "DELETE", url)[0] == 405
    assert "Traceback" not in log.read_text()


@pytest.mark.newest
def test_downloads(server, store, tmp_path, monkeypatch):
    """Files as people download them: goes on after a break, and does not send what they have."""
    url, log = server
    data = random.Random(7).randbytes(MIB)
    store("a.bin", data)
    url += "/a.bin"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    file = tmp_path / "here" / "a.bin"

    def run(*command):
        environment = {**os.environ, "LC_ALL": "C.UTF-8"}  # wget escapes what the locale does not have
        done = subprocess.run([*command, url], check=True, timeout=60, capture_output=True, env=environment)
        return done.stdout.decode()

    for resume in (["curl", "-sS", "-C", "-", "-o", "a.bin"], ["wget", "-q", "-c"]):
        for there in (0, 1000, MIB - 1, MIB):
            file.write_bytes(data[:there])
            run(*resume)
            assert file.read_bytes() == data
    again = ["curl", "-sS", "-w", "%{http_code} %{size_download}", "-o", "a.bin"]
    run(*again, "--etag-save", "etag")
    assert run(*again, "--etag-compare", "etag") == "304 0"
    assert run(*again, "-R") == f"200 {MIB}"  # with the time of the object
    assert run(*again, "-z", "a.bin") == "304 0"
    file.unlink()
    run("wget", "-q", "-N")
    assert file.read_bytes() == data
    damaged = bytes(MIB)
    times = file.stat()
    file.write_bytes(damaged)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    run("wget", "-q", "-N")
    assert file.read_bytes() == damaged  # the same size and time: not sent again
    run("wget", "-q", "--spider")
    url += "?filename=Zo%C3%AB%20%E6%8A%A5%E5%91%8A.bin"
    run("wget", "-q", "--content-disposition")
    assert (tmp_path / "here" / "Zoë 报告.bin").read_bytes() == data
    assert "Traceback" not in log.read_text()


@pytest.mark.newest
def test_uploads(server, tmp_path):
    url, log = server
    source = tmp_path / "source"
    source.write_bytes(DATA)
    status, _, body = curl("-T", str(source), f"{url}/up")
    assert (status, json.loads(body)["sha256"]) == (200, SHA)
    assert curl("-T", str(source), "--path-as-is", f"{url}/a/%2e%2e/b")[0] == 400
    assert curl("-T", str(source), f"{url}/a%5Cb")[0] == 400
    status, _, body = curl("-T", str(source), "-H", "Transfer-Encoding: chunked", f"{url}/chunked")
    if "gunicorn" in log.read_text():  # WSGI gives nothing of it
        assert (status, json.loads(body)["code"]) == (411, "no_length")
        assert not (tmp_path / "final" / "chunked").exists()
    else:
        assert (status, json.loads(body)["sha256"]) == (200, SHA)
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as liar:
        liar.sendall(b"PUT /cut HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + DATA)
        liar.shutdown(socket.SHUT_WR)
        answer = liar.recv(1000)
        assert not answer or answer.split()[1] == b"400"  # uvicorn closes the connection
    assert not (tmp_path / "final" / "cut").exists()


TEN = "Content-Length: 10"
BAD = {  # method, name, header, body: the status, and what the log has of it
    "too short": (("PUT", "a", "Content-Length: 1000", DATA), 400, "of its 1000"),
    "no digest": (("PUT", "a", f"{TEN}\r\nX-SHA256: zzz", DATA[:10]), 400, "64 hex digits"),
    "no ASCII": (("PUT", "a", f"{TEN}\r\nX-SHA256: \xff", DATA[:10]), 400, "64 hex digits"),
    "another digest": (("PUT", "a", f"{TEN}\r\nX-SHA256: {SHA}", DATA[:10]), 400, SHA),
    "too large": (("PUT", "a", "Content-Length: 1000001", b"x" * 1_000_001), 413, "more than 1,000,000"),
    "in pieces": (
        ("PUT", "a", "Transfer-Encoding: chunked", b"f4241\r\n%b\r\n0\r\n\r\n" % (b"x" * 1_000_001)),
        413,
        "000",
    ),
    "a path": (("PUT", "%2e%2e/%2e%2e/b", TEN, DATA[:10]), 400, "segment"),
    "from the root": (("PUT", "/etc/passwd", TEN, DATA[:10]), 400, "segment"),
    "control": (("PUT", "a%0D%00b", TEN, DATA[:10]), 400, "control character"),
    "HTML": (("PUT", "%3Cscript%3Ealert(1)%3C/script%3E%5C", TEN, DATA[:10]), 400, "backslash"),
    "ranges": (("GET", "there", "Range: bytes=" + "0-1," * 1000, b""), 416, "/there"),
    "overflow": (("GET", "there", f"Range: bytes={'9' * 5000}-", b""), 416, "/there"),
    "a forged URL": (("GET", "files/a:b/there", "X: y", b""), 403, "/files/a:b/there"),
}
# These the servers themselves refuse, as far as they do; nobody logs them.
LENGTHS = "abc", "-1", "1e3", "+10", "1_0", "9" * 23, "9" * 5000, "5\r\nContent-Length: 10"


@pytest.mark.newest
def test_bad_input(server, tmp_path):
    url, log = server
    host, _, port = url.removeprefix("http://").partition(":")

    def answered(method, name, header, body):
        """The status, the content type and the body of the answer; "" of one that has closed the connection."""
        with socket.create_connection((host, int(port)), timeout=60) as client:
            client.sendall(f"{method} /{name} HTTP/1.1\r\nHost: x\r\n{header}\r\n\r\n".encode("latin-1") + body)
            if header == "Content-Length: 1000":
                client.shutdown(socket.SHUT_WR)
            answer = http.client.HTTPResponse(client)
            try:
                answer.begin()
                return answer.status, answer.headers.get_content_type(), answer.read()
            except (http.client.HTTPException, ConnectionError):
                return "", "", b""

    def logged():
        return [line for line in log.read_text().splitlines() if line.startswith("LOG")]

    assert curl("-X", "PUT", "--data-binary", "x", f"{url}/there")[0] == 200
    for name, (sent, status, says) in BAD.items():
        before = len(logged())
        found, kind, body = answered(*sent)
        if "gunicorn" in log.read_text() and name == "in pieces":
            status, says = 411, "chunked"  # WSGI gives nothing of it
        if not found:  # uvicorn closes the connection
            assert name == "too short"
            continue
        assert (found, kind) == (status, "text/html" if status == 403 else kind), name
        assert kind in ("application/json", "text/plain") or status == 403, name
        assert b"<script" not in body and b"Traceback" not in body, name
        (record,) = web.wait(lambda before=before: logged()[before:], log)
        assert record.startswith(f"LOG django.request {status} ") and says in record, name
    for length in LENGTHS:
        found, _, body = answered("PUT", "a", f"Content-Length: {length}", DATA)
        assert found in ("", 400, 411, 413), length
    stored = [path.name for path in (tmp_path / "final").rglob("*") if path.is_file()]
    assert stored == ["there"] and not list((tmp_path / "temp").rglob("*.*"))


@pytest.mark.newest
def test_signed_urls(server, tmp_path):
    url, _ = server
    source = tmp_path / "source"
    source.write_bytes(DATA)
    assert curl("-T", str(source), f"{url}/up/a.bin")[0] == 200
    signed = url + json.loads(curl(f"{url}/link/up/a.bin")[2])["url"]
    status, headers, body = curl("-r", "5-9", signed)
    assert (status, body) == (206, DATA[5:10])
    assert headers["content-disposition"] == "attachment; filename*=utf-8''Zo%C3%AB.txt"
    status, headers, body = curl("-I", signed)
    assert (status, headers["content-length"], headers["etag"]) == (200, "100", ETAG)
    assert curl("-H", f"If-None-Match: {ETAG}", signed)[0] == 304
    assert curl("-X", "POST", signed)[0] == 405
    assert curl(signed.replace("/files/", "/files/x"))[0] == 403


@pytest.mark.newest
def test_memory_and_clients_that_go_away(server, tmp_path, store):
    url, log = server
    size = 256 * MIB
    piece = random.Random(5).randbytes(MIB)
    stored = store("large", (piece for _ in range(size // MIB)), content_type="video/mp4")
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)

    def process():
        connection.request("GET", "/process/")
        return json.loads(connection.getresponse().read())

    with contextlib.closing(connection):
        assert curl("-r", "0-99", f"{url}/large")[0] == 206
        web.wait(lambda: process()["readers"] == 0, log)
        before = process()
        connection.request("GET", "/large")
        answer, digest = connection.getresponse(), hashlib.sha256()
        while data := answer.read(MIB):
            digest.update(data)
        assert digest.hexdigest() == stored.sha256
        grown = process()["VmHWM"] - before["VmRSS"]
        print(f"{grown / MIB:.1f} MiB more")
        assert grown < 40 * MIB
        leaver = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
        leaver.request("GET", "/large")
        assert len(leaver.getresponse().read(MIB)) == MIB
        assert process()["readers"] == 1
        leaver.close()
        web.wait(lambda: process()["readers"] == 0, log)
