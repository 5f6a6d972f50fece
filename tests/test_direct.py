"""storage.http.sign_request: what Uppy asks for and sends (@uppy/aws-s3 6.3.1), and what nobody may ask for."""

import contextlib
import hashlib
import json
import random
import re
import ssl
from urllib.error import HTTPError, URLError
from urllib.parse import parse_qs, urlsplit
from urllib.request import Request, urlopen

import pytest
from conftest import s3_options
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.http import HttpResponse
from django.middleware.csrf import CsrfViewMiddleware
from django.test import Client, RequestFactory, override_settings
from django.urls import path

from storage import FinalObject, ObjectNotFound, get_storage_adapter
from storage.http import sign_request

MIB = 1024 * 1024
NO_COPY = {"X-Amz-Copy-Source-If-Match": '"none"'}
FILE = random.Random(7).randbytes(11 * MIB)
OFFLINE = {
    "bucket_name": "uploads",
    "access_key": "AKID",
    "secret_key": "hidden",
    "region_name": "eu-central-1",
    "endpoint_url": "http://127.0.0.1:1",
    "public_endpoint_url": "https://s3.example.com",
}


@contextlib.contextmanager
def configured(options):
    entry = {"BACKEND": "storage.S3StorageAdapter", "OPTIONS": options}
    with override_settings(STORAGE_ADAPTERS={"default": entry}, ROOT_URLCONF=__name__):
        yield get_storage_adapter()
        get_storage_adapter().close()


@pytest.fixture
def offline():
    with configured(OFFLINE) as adapter:
        yield adapter


@pytest.fixture(params=["versitygw", "minio"])
def bucket(request):
    with configured(s3_options(request.getfixturevalue(request.param))) as adapter:
        yield adapter


asked = []
"""What the hook was asked for."""


def allow(request, upload):
    asked.append(upload)
    if "forbidden" in upload.key:
        raise PermissionDenied("you have no space left")
    return request.headers.get("X-User") != "stranger"


def nonsense(request, upload):
    return None


async def awaitable(request, upload):
    return False


options = {"authorize": allow, "prefix": "uploads/7"}
urlpatterns = [
    path("sign/", sign_request, options),
    path("small/", sign_request, options | {"max_size": 8 * MIB}),
    path("over/", sign_request, options | {"overwrite": True, "expires": 60}),
    path("nonsense/", sign_request, {"authorize": nonsense}),
    path("async/", sign_request, {"authorize": awaitable}),
]


def sign(body, view="sign", **headers):
    body = body if isinstance(body, str | bytes) else json.dumps(body)
    return Client().post(f"/{view}/", body, content_type="application/json", headers=headers)


class Uppy:
    """Does by plain HTTP what the S3 client of Uppy does: s3-client/S3mini.ts."""

    def __init__(self, adapter, view="sign"):
        self.adapter, self.view = adapter, view

    def send(self, request, data=None, content_type=None):
        signed = sign(request, self.view)
        assert signed.status_code == 200, signed.content
        answer = signed.json()
        headers = ({"Content-Type": content_type} if content_type else {}) | answer["headers"]
        status, told, body = self.http(answer["url"], request["method"], headers, data)
        return answer.get("key", "").strip() or request["key"], status, told, body

    def http(self, url, method, headers, data):
        context = ssl.create_default_context(cafile=self.adapter._ca_bundle) if self.adapter._ca_bundle else None
        for _ in range(10):
            try:
                with urlopen(Request(url, data, headers, method=method), context=context, timeout=30) as answer:
                    return answer.status, answer.headers, answer.read().decode()
            except HTTPError as error:
                with error:
                    return error.code, error.headers, error.read().decode()
            except URLError as error:  # a server that refuses a body may leave before it was sent
                if not isinstance(error.reason, ConnectionResetError | BrokenPipeError):
                    raise
        raise AssertionError("no answer")

    def put_object(self, key, data, content_type, **told):
        request = {"method": "PUT", "key": key, "contentType": content_type, **told}
        return self.send(request, data, content_type)

    def create(self, key, content_type="application/octet-stream"):
        key, status, _, body = self.send({"method": "POST", "key": key}, None, content_type)
        assert status == 200, body
        return key, re.search("<UploadId>(.+)</UploadId>", body)[1]

    def upload_part(self, key, upload_id, number, data, **told):
        request = {"method": "PUT", "key": key, "uploadId": upload_id, "partNumber": number, **told}
        _, status, headers, _ = self.send(request, data)
        return status, (headers["ETag"] or "").strip('"')

    def list_parts(self, key, upload_id):
        _, status, _, body = self.send({"method": "GET", "key": key, "uploadId": upload_id})
        numbers = re.findall("<PartNumber>([0-9]+)</PartNumber>", body)
        return status, list(map(int, numbers))

    def complete(self, key, upload_id, etags):
        parts = (f"<Part><PartNumber>{n}</PartNumber><ETag>{etag}</ETag></Part>" for n, etag in enumerate(etags, 1))
        xml = f"<CompleteMultipartUpload>{''.join(parts)}</CompleteMultipartUpload>".encode()
        _, status, _, body = self.send({"method": "POST", "key": key, "uploadId": upload_id}, xml, "application/xml")
        return status, body

    def abort(self, key, upload_id):
        return self.send({"method": "DELETE", "key": key, "uploadId": upload_id})[1]


def test_one_put(bucket):
    uppy = Uppy(bucket)
    key, status, *_ = uppy.put_object("Zoë 1.png", FILE[:1000], "image/png")
    assert (key, status) == (f"{bucket.prefix}uploads/7/Zoë 1.png", 200)
    final = bucket.adopt_final(key)
    assert final == FinalObject(bucket.bucket, key, 1000, hashlib.sha256(FILE[:1000]).hexdigest())
    assert bucket.stat_final(final).content_type == "image/png"
    assert uppy.put_object("Zoë 1.png", b"other", "image/png")[1] == 412  # nothing is replaced
    with bucket.get_final_stream(final) as stream:
        assert stream.read() == FILE[:1000]
    assert Uppy(bucket, "over").put_object("Zoë 1.png", b"other", "image/png")[1] == 200


def test_a_multipart_upload(bucket):
    uppy = Uppy(bucket)
    key, upload_id = uppy.create("clip.mp4", "video/mp4")
    assert key == f"{bucket.prefix}uploads/7/clip.mp4"
    status, first = uppy.upload_part(key, upload_id, 1, FILE[: 5 * MIB])
    assert status == 200 and uppy.list_parts(key, upload_id) == (200, [1])  # as after a pause
    status, second = uppy.upload_part(key, upload_id, 2, FILE[5 * MIB : 10 * MIB])
    status, third = uppy.upload_part(key, upload_id, 3, FILE[10 * MIB :])
    with pytest.raises(ObjectNotFound):
        bucket.adopt_final(key)
    status, body = uppy.complete(key, upload_id, [first, second, third])
    assert status == 200 and "<Location>" in body and f"<Key>{key}</Key>" in body
    final = bucket.adopt_final(key)
    assert final == FinalObject(bucket.bucket, key, len(FILE), hashlib.sha256(FILE).hexdigest())
    assert bucket.stat_final(final).content_type == "video/mp4"
    with bucket.get_final_stream(final, start=10 * MIB - 5, length=10) as stream:
        assert stream.read() == FILE[10 * MIB - 5 : 10 * MIB + 5]


def test_a_multipart_upload_replaces_nothing(bucket):
    uppy = Uppy(bucket)
    there = bucket.put_final("uploads/7/a", b"there")
    key, upload_id = uppy.create("a")
    _, etag = uppy.upload_part(key, upload_id, 1, b"other")
    assert uppy.complete(key, upload_id, [etag])[0] == 412
    assert bucket.stat_final(there) == there
    assert Uppy(bucket, "over").complete(key, upload_id, [etag])[0] == 200
    assert bucket.adopt_final(key).size == 5


def test_an_abort(bucket):
    uppy = Uppy(bucket)
    key, upload_id = uppy.create("a")
    assert uppy.upload_part(key, upload_id, 1, b"other")[0] == 200
    assert uppy.abort(key, upload_id) == 204
    assert uppy.list_parts(key, upload_id)[0] == 404
    with pytest.raises(ObjectNotFound):
        bucket.adopt_final(key)


def test_a_size_that_was_told_is_the_size(bucket):
    uppy = Uppy(bucket, "small")
    for told, data in [(5, b"123456"), (5, b"1234"), (0, b"1"), (8 * MIB, b"12")]:
        status = uppy.put_object("a", data, "text/plain", size=told)[1]
        assert status in (400, 403), (told, len(data))
        with pytest.raises(ObjectNotFound):
            bucket.adopt_final(f"{bucket.prefix}uploads/7/a")
    assert uppy.put_object("a", b"12345", "text/plain", size=5)[1] == 200
    assert uppy.put_object("empty", b"", "text/plain", size=0)[1] == 200
    assert bucket.adopt_final(f"{bucket.prefix}uploads/7/empty").size == 0
    key, upload_id = uppy.create("b")
    assert uppy.upload_part(key, upload_id, 1, b"123456", size=5)[0] in (400, 403)
    assert uppy.upload_part(key, upload_id, 1, b"12345", size=5)[0] == 200
    assert uppy.abort(key, upload_id) == 204


def test_nobody_reads_by_a_copy(bucket):
    """MinIO takes a source of a copy that is not signed."""
    uppy = Uppy(bucket)
    secret = bucket.put_final("others/secret", b"secret")
    source = {"x-amz-copy-source": f"/{bucket.bucket}/{secret.key}"}
    key, upload_id = uppy.create("parts")
    for request in (
        {"method": "PUT", "key": "a", "contentType": "image/png"},
        {"method": "PUT", "key": "a", "contentType": "image/png", "size": 6},
        {"method": "PUT", "key": key, "uploadId": upload_id, "partNumber": 1},
    ):
        answer = sign(request).json()
        without = {name: value for name, value in answer["headers"].items() if name not in NO_COPY}
        for headers in (answer["headers"], without):
            assert uppy.http(answer["url"], "PUT", headers | source, b"123456")[0] in (400, 403, 412)
    assert uppy.list_parts(key, upload_id) == (200, []) and uppy.abort(key, upload_id) == 204
    assert [final.key for final in bucket.list_final()] == [secret.key]


def test_a_url_is_for_one_request(bucket):
    answer = sign({"method": "PUT", "key": "a", "contentType": "image/png"}).json()
    assert answer["headers"] == {"Content-Type": "image/png", "If-None-Match": "*"} | NO_COPY
    send = Uppy(bucket).http
    url, headers = answer["url"], answer["headers"]
    assert send(url.replace("uploads/7", "uploads/8"), "PUT", headers, b"x")[0] == 403
    assert send(url, "GET", headers, None)[0] == 403
    assert send(url, "PUT", headers | {"Content-Type": "text/html"}, b"x")[0] == 403
    for name in headers:  # without one of them it might replace, say
        fewer = {other: value for other, value in headers.items() if other != name}
        assert send(url, "PUT", fewer, b"x")[0] in (400, 403), name
    assert send(url + "&uploads=", "POST", headers, b"")[0] in (400, 403)
    with pytest.raises(ObjectNotFound):
        bucket.adopt_final(answer["key"])
    assert send(url, "PUT", headers, b"x")[0] == 200


REQUESTS = {
    "put": (
        {"method": "PUT", "key": "a", "contentType": "a/b", "size": 5},
        "content-length;content-type;host;if-none-match",
    ),
    "put of anything": ({"method": "PUT", "key": "a"}, "host;if-none-match"),
    "put of nothing": ({"method": "PUT", "key": "a", "size": 0}, "content-md5;host;if-none-match"),
    "create": ({"method": "POST", "key": "a", "contentType": "a/b", "size": 5}, "content-type;host"),
    "list": ({"method": "GET", "key": "final/uploads/7/a", "uploadId": "u~+/="}, "host"),
    "part": ({"method": "PUT", "key": "final/uploads/7/a", "uploadId": "u", "partNumber": 10_000}, "host"),
    "complete": ({"method": "POST", "key": "final/uploads/7/a", "uploadId": "u"}, "host;if-none-match"),
    "abort": ({"method": "DELETE", "key": "final/uploads/7/a", "uploadId": "u"}, "host"),
    "nulls": ({"method": "PUT", "key": "a", "uploadId": None, "partNumber": None, "other": 1}, "host;if-none-match"),
    "whole key": ({"method": "PUT", "key": "final/uploads/7/a"}, "host;if-none-match"),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_what_is_signed(offline, name):
    request, signed = REQUESTS[name]
    asked.clear()
    response = sign(request)
    assert (response.status_code, response["Cache-Control"]) == (200, "no-store")
    answer = response.json()
    assert sorted(answer) == ["headers", "key", "url"] and answer["key"] == "final/uploads/7/a"
    assert answer["url"].startswith("https://s3.example.com/uploads/final/uploads/7/a?")
    query = parse_qs(urlsplit(answer["url"]).query, keep_blank_values=True)
    if request["method"] == "PUT":
        signed += ";x-amz-copy-source-if-match"
    assert query["X-Amz-SignedHeaders"] == [signed] and query["X-Amz-Expires"] == ["3600"]
    assert query.get("uploadId", [None]) == [request.get("uploadId")] and ("uploads" in query) == (name == "create")
    names = {"host", "content-length", *(name.lower() for name in answer["headers"])}
    assert names >= set(signed.split(";")) and "content-length" not in answer["headers"]
    (upload,) = asked
    assert (upload.key, upload.method) == ("final/uploads/7/a", request["method"])
    assert (upload.upload_id, upload.part_number) == (request.get("uploadId"), request.get("partNumber"))
    assert (upload.size, upload.content_type) == (request.get("size"), request.get("contentType"))
    assert upload.begins == ("uploadId" not in request or name == "nulls")
    over = sign(request, "over").json()
    assert "If-None-Match" not in over["headers"] and "X-Amz-Expires=60&" in over["url"]


PART = {"method": "PUT", "key": "final/uploads/7/a", "uploadId": "u", "partNumber": 1}
REFUSED = [
    *((body, 400) for body in ("", "{", "[]", "null", '"PUT"', b"\xff", "[" * 100_000, "method=PUT&key=a")),
    *(({"method": method, "key": "a"}, 400) for method in (None, "", "put", "GET", "HEAD", "DELETE", "PATCH", 5, [])),
    *(
        ({"method": "PUT", "key": key}, 400)
        for key in (None, "", 5, "/a", "../a", "a/../../b", "a\nb", "a\\b", "a//b", "a" * 501, "\ud800", "a/", ".", {})
    ),
    *(
        (PART | {"key": key}, 400)
        for key in ("a", "final/uploads/8/a", "final/a", "temp/a", "final/uploads/7/../8/a", "final/uploads/7/")
    ),
    *((PART | {"uploadId": upload_id}, 400) for upload_id in ("", "a b", "é", "a" * 1025, 5, None)),
    *((PART | {"partNumber": number}, 400) for number in (0, -1, 10_001, 1.5, "1", True, 10**400, None)),
    *((PART | {"method": method}, 400) for method in ("GET", "POST", "DELETE")),
    *(({"method": "PUT", "key": "a", "size": size}, 400) for size in (-1, 2**63, 10**400, 1.5, "1", True)),
    ('{"method": "PUT", "key": "a", "size": ' + "9" * 5000 + "}", 400),
    ('{"method": "PUT", "key": "a", "size": Infinity}', 400),
    *(({"method": "PUT", "key": "a", "contentType": kind}, 400) for kind in ("a\r\nb", "é", "a" * 256, 5)),
    ({"method": "PUT", "key": "forbidden"}, 403),
    ("x" * 3_000_000, 413),
]


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_what_is_refused(offline, number, caplog):
    body, status = REFUSED[number]
    response = sign(body)
    assert (response.status_code, response["Content-Type"]) == (status, "application/json"), response.content
    assert sorted(response.json()) == ["code", "error"] and "http" not in response.content.decode()
    assert [record.name for record in caplog.records] == ["django.request"]


def test_a_largest_size(offline):
    for body, status in [
        ({"method": "PUT", "key": "a"}, 400),
        ({"method": "PUT", "key": "a", "size": 8 * MIB}, 200),
        ({"method": "PUT", "key": "a", "size": 8 * MIB + 1}, 413),
        ({"method": "POST", "key": "a"}, 200),
        ({"method": "POST", "key": "a", "size": 8 * MIB + 1}, 413),
        (PART, 200),
        (PART | {"size": 8 * MIB + 1}, 413),
    ]:
        assert sign(body, "small").status_code == status, body


def test_who_may(offline):
    denied = sign({"method": "PUT", "key": "a"}, **{"X-User": "stranger"})
    assert (denied.status_code, denied.json()["code"]) == (403, "denied")
    assert sign({"method": "PUT", "key": "forbidden"}).json()["error"] == "you have no space left"
    for view, says in [("nonsense", "True or False"), ("async", "plain function")]:
        with pytest.raises(TypeError, match=says):
            sign({"method": "PUT", "key": "a"}, view)
    for method in ("get", "put", "head"):
        assert getattr(Client(), method)("/sign/").status_code == 405
    request = RequestFactory().post("/", "{}", content_type="application/json")
    assert CsrfViewMiddleware(HttpResponse).process_view(request, sign_request, (), {}).status_code == 403


def test_the_prefix_is_a_folder(offline):
    post = RequestFactory().post
    request = json.dumps({"method": "PUT", "key": "71/a"})
    for prefix, key in [("", "71/a"), ("u/7", "u/7/71/a"), ("/u/7/", "u/7/71/a")]:
        answer = sign_request(post("/", request, content_type="application/json"), authorize=allow, prefix=prefix)
        assert json.loads(answer.content)["key"] == f"final/{key}"
    for wrong in ({"prefix": "../a"}, {"prefix": "a\nb"}, {"max_size": -1}, {"expires": 0}, {"expires": 604_801}):
        with pytest.raises(ValueError):
            sign_request(post("/"), authorize=allow, **wrong)
    with pytest.raises(TypeError, match="authorize"):
        sign_request(post("/"))


def test_only_on_s3():
    with (
        override_settings(STORAGE_ADAPTERS={"default": {"BACKEND": "storage.MemoryStorageAdapter"}}),
        pytest.raises(ImproperlyConfigured, match="S3"),
    ):
        sign_request(RequestFactory().post("/"), authorize=allow)


def test_a_store_without_conditions_is_looked_at(versitygw):
    with configured(s3_options(versitygw, conditional_writes="look")) as adapter:
        uppy = Uppy(adapter)
        assert "If-None-Match" not in sign({"method": "PUT", "key": "a"}).json()["headers"]
        assert uppy.put_object("a", b"x", "text/plain")[1] == 200
        for method in ("PUT", "POST"):
            assert sign({"method": method, "key": "a"}).status_code == 409
        assert sign({"method": "PUT", "key": "a"}, "over").status_code == 200
