"""`AdapterUploadHandler`: the files of forms go into the temp area while they are parsed. And the recipe for clamd."""

import base64
import bz2
import contextlib
import csv
import gc
import hashlib
import http.client
import io
import json
import os
import re
import socket
import subprocess
import sys
import tarfile
import zipfile
from datetime import timedelta

import pytest
from conftest import BYTES, HERE, place_on, s3_options
from django import forms
from django.core.exceptions import ImproperlyConfigured, RequestDataTooBig, SuspiciousFileOperation, TooManyFieldsSent
from django.core.files.base import ContentFile
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.files.uploadhandler import (
    FileUploadHandler,
    MemoryFileUploadHandler,
    SkipFile,
    StopUpload,
    TemporaryFileUploadHandler,
)
from django.http import JsonResponse
from django.http.multipartparser import MultiPartParserError
from django.test import Client, RequestFactory, override_settings
from django.urls import path
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from servers.clamd import EICAR, Clamd
from servers.lying import Lying
from servers.web import wait
from test_files import adapters, adapters_of, believes_all_names_are_free
from test_http import curl
from test_readme import ROOT, blocks

from storage import (
    ContentRejected,
    ObjectExists,
    StorageError,
    StorageUnavailable,
    get_storage_adapter,
    native,
)
from storage.files import AdapterStorage, AdapterUpload, AdapterUploadHandler, UploadTooLarge
from storage.http import storage_errors
from storage.signatures import HEAD, UNKNOWN, content_type_of

MIB = 1024 * 1024


@pytest.fixture(params=["memory", "local", "versitygw"])
def adapter(request):
    with adapters_of(request.param, request) as adapter:
        yield adapter


@pytest.fixture
def in_memory():
    with adapters("MemoryStorageAdapter") as adapter:
        yield adapter


def digest(data):
    return hashlib.sha256(data).hexdigest()


def posted(fields, handlers=None, **options):
    """A request with a form, and its handlers."""
    request = RequestFactory().post("/", fields)
    handlers = handlers or [lambda request: AdapterUploadHandler(request, **options)]
    request.upload_handlers = [make(request) for make in handlers]
    return request


def uploaded(data=b"some bytes", name="a.txt", content_type="text/plain", **options):
    return posted({"f": SimpleUploadedFile(name, data, content_type)}, **options).FILES["f"]


def left(adapter):
    """How many parts and unfinished writes there are, when what is undone is undone."""
    native.settle(10)
    report = adapter.sweep(timedelta(), dry_run=True)
    return report.parts, report.uploads


def keys(adapter):
    return [final.key.removeprefix(adapter.prefix) for final in adapter.list_final()]


# ---- an upload


@pytest.mark.parametrize("size", [0, HEAD, 11 * MIB])
def test_an_upload(adapter, size):
    data = BYTES[:size]
    upload = uploaded(data, "ä b.bin", "application/x-mine; charset=latin-1")
    assert type(upload) is AdapterUpload and upload
    assert (upload.name, upload.size, len(upload), upload.sha256) == ("ä b.bin", size, size, digest(data))
    assert (upload.content_type, upload.content_type_extra) == ("application/x-mine", {"charset": b"latin-1"})
    assert upload.part == adapter.list_temp_parts(upload.part.key.partition("/")[0])[0] or upload.part.sha256
    assert left(adapter) == (1, 0) and keys(adapter) == []
    assert upload.read() == data and upload.read(5) == b""
    assert upload.seek(0, io.SEEK_END) == upload.tell() == size
    assert b"".join(upload.chunks()) == b"".join(upload.chunks(1000 if size < MIB else MIB)) == data
    assert b"".join(upload) == data
    assert upload.multiple_chunks() == (size > 256 * 1024)
    upload.close()
    assert upload.closed
    with pytest.raises(ValueError, match="closed"):
        upload.read()
    with upload.open() as again:
        assert again.read(7) == data[:7]
    upload.open("rb").seek(3)
    final = upload.save_final("x/y", metadata={"a": "b"}, overwrite=False)
    assert (final.size, final.sha256, upload.final) == (size, digest(data), final)
    stated = adapter.stat_final(final)
    assert (stated.content_type, stated.metadata) == ("application/x-mine", {"a": "b"})
    assert left(adapter) == (0, 0) and keys(adapter) == ["x/y"]
    assert upload.read() == data[3:]
    assert upload.open().read() == data
    with pytest.raises(ValueError, match="already"):
        upload.save_final("z")
    upload.close()


def test_a_form_with_everything(adapter):
    pictures = [SimpleUploadedFile(f"{number}.png", BYTES[: number * 70_000], "image/x") for number in range(4)]
    request = posted({"name": "süß", "many": pictures, "none": "", "other": SimpleUploadedFile("o", b"other")})
    assert request.POST.dict() == {"name": "süß", "none": ""}
    many = request.FILES.getlist("many")
    assert [(one.name, one.size, one.sha256) for one in many] == [
        (one.name, one.size, digest(BYTES[: one.size])) for one in pictures
    ]
    assert request.FILES["other"].read() == b"other" and set(request.FILES) == {"many", "other"}
    assert left(adapter) == (5, 0)
    for one in many:
        one.delete()
        one.delete()
    request.close()
    assert left(adapter) == (1, 0)
    assert adapter.sweep(timedelta()).sessions == 1


def test_a_field_without_a_file(in_memory):
    body = b'--b\r\nContent-Disposition: form-data; name="f"; filename=""\r\n\r\n\r\n--b--\r\n'
    request = RequestFactory().post("/", body, "multipart/form-data; boundary=b")
    request.upload_handlers = [AdapterUploadHandler(request)]
    assert not request.FILES and left(in_memory) == (0, 0)


def test_base64_and_headers_of_any_length(in_memory):
    for fill in (0, 500, 800):
        head = f'--b\r\nX-Fill: {"x" * fill}\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n'
        for encoding, sent in (("", PNG), ("Content-Transfer-Encoding: base64\r\n", base64.b64encode(PNG))):
            body = f"{head}{encoding}\r\n".encode() + sent + b"\r\n--b--\r\n"
            request = RequestFactory().post("/", body, "multipart/form-data; boundary=b")
            request.upload_handlers = [AdapterUploadHandler(request)]
            upload = request.FILES["f"]
            assert (upload.read(), upload.content_type) == (PNG, "image/png")


def test_saving_fails(adapter):
    adapter.put_final("a", b"another")
    upload = uploaded()
    with pytest.raises(ObjectExists):
        upload.save_final("a", overwrite=False)
    assert left(adapter) == (1, 0) and upload.read() == b"some bytes"
    upload.save_final("b")
    assert keys(adapter) == ["a", "b"] and left(adapter) == (0, 0)


def test_as_a_source_and_a_text_file(in_memory):
    upload = uploaded("ä,b\n".encode())
    with io.TextIOWrapper(upload.file, encoding="utf-8") as text:
        assert list(csv.reader(text)) == [["ä", "b"]]
    assert upload.closed and upload.open().read() == "ä,b\n".encode()
    upload.seek(2)
    assert in_memory.put_final("a", upload).size == 3
    with pytest.raises(ValueError, match="'rb'"):
        upload.open("wb")


def test_what_a_view_may_be_refused(in_memory):
    for wrong in ("5", 1.5, True):
        with pytest.raises(TypeError, match="size is an int"):
            AdapterUploadHandler(max_size=wrong)
    with pytest.raises(ValueError, match="not negative"):
        AdapterUploadHandler(max_size=-1)
    with pytest.raises(TypeError, match="inspect is a"):
        AdapterUploadHandler(inspect=5)
    with pytest.raises(ImproperlyConfigured, match="nowhere"):
        uploaded(alias="nowhere")


# ---- limits and inspections


@pytest.mark.parametrize("size", [10, 6 * MIB])
def test_the_largest_file(adapter, size):
    assert uploaded(BYTES[:size], max_size=size).size == size
    assert adapter.sweep(timedelta()).parts == 1
    many = {"first": SimpleUploadedFile("1", b"x"), "second": SimpleUploadedFile("2", BYTES[: size + 1])}
    request = posted(many, max_size=size)
    with pytest.raises(RequestDataTooBig, match=f"at most {size:,} bytes") as caught:
        _ = request.FILES
    assert type(caught.value) is UploadTooLarge and isinstance(caught.value, StorageError)
    assert left(adapter) == (0, 0)


@pytest.mark.parametrize("error", [ContentRejected("a virus"), LookupError("x"), KeyboardInterrupt()], ids=repr)
def test_an_upload_is_inspected(adapter, error):
    seen = []

    def look(reader):
        seen.append((reader.name, reader.size, reader.sha256, reader.read()))
        if reader.name == "bad":
            raise error

    good, bad = SimpleUploadedFile("good", BYTES[:MIB]), SimpleUploadedFile("bad", b"bad")
    posted({"f": good}, inspect=[look, look]).FILES["f"].delete()
    assert seen == [("good", MIB, digest(BYTES[:MIB]), BYTES[:MIB])] * 2
    with pytest.raises(type(error)) as caught:
        _ = posted({"1": good, "2": bad, "3": good}, inspect=look).FILES
    assert caught.value is error and left(adapter) == (0, 0)


def no_virus(reader):
    if reader.read(5) == b"virus":
        raise ContentRejected("a virus")


@pytest.mark.parametrize(
    "attribute", [no_virus, staticmethod(no_virus), [no_virus], lambda self, reader: no_virus(reader)]
)
def test_what_a_class_has_as_inspect(in_memory, attribute):
    handler = type("Uploads", (AdapterUploadHandler,), {"inspect": attribute})
    file = SimpleUploadedFile("f", b"some bytes")
    assert posted({"f": file}, [handler]).FILES["f"].size == 10
    with pytest.raises(ContentRejected, match="a virus"):
        _ = posted({"f": SimpleUploadedFile("f", b"virus")}, [handler]).FILES


class Limited(AdapterUploadHandler):
    max_size = 100

    def inspect(self, reader):
        no_virus(reader)


def plain_view(request):
    return JsonResponse({"size": request.FILES["f"].size})


urlpatterns = [path("plain", plain_view), path("errors", storage_errors(plain_view))]


@pytest.mark.parametrize("csrf", [True, False])
def test_what_the_client_is_answered(in_memory, csrf, caplog):
    handlers = [f"{__name__}.Limited"]
    middleware = ["django.middleware.csrf.CsrfViewMiddleware"] if csrf else []  # it parses before the view
    client = Client(enforce_csrf_checks=csrf, raise_request_exception=False)
    client.cookies["csrftoken"] = token = "t" * 32
    with override_settings(
        ROOT_URLCONF=__name__, FILE_UPLOAD_HANDLERS=handlers, MIDDLEWARE=middleware, ALLOWED_HOSTS=["*"]
    ):
        statuses = {
            name: [
                client.post(f"/{where}", {"csrfmiddlewaretoken": token, "f": SimpleUploadedFile("f", data)}).status_code
                for where in ("plain", "errors")
            ]
            for name, data in {"good": b"good", "virus": b"virus", "large": bytes(101)}.items()
        }
    assert statuses["good"] == [200, 200]
    assert statuses["virus"] == ([400, 400] if csrf else [400, 422])
    assert statuses["large"] == ([400, 400] if csrf else [400, 413])
    assert left(in_memory) == (2, 0)


# ---- what does not arrive


BOUNDARY = "0123456789abcdef"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


def multipart(*files):
    heads = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="f{n}"; filename="f{n}"\r\n\r\n'.encode()
        for n in range(len(files))
    ]
    body = b"".join(head + data + b"\r\n" for head, data in zip(heads, files, strict=True))
    return body + f"--{BOUNDARY}--\r\n".encode()


def cut(body, source=None):
    """A request whose body ends early, or raises."""
    request = RequestFactory().post("/", body, FORM)
    if source:
        request.META["CONTENT_LENGTH"], request._stream = "1000", source
    request.upload_handlers = [AdapterUploadHandler(request)]
    return request


@pytest.mark.parametrize("size", [10, 11 * MIB])
def test_a_request_that_is_cut(adapter, size):
    body = multipart(b"first", BYTES[:size])
    for short in (1, 20, size // 2):
        request = cut(body[: -len(BOUNDARY) - 8 - short])
        assert set(request.FILES) == {"f0"}
        assert left(adapter) == (1, 0) and native.stats()["calls"] == 0
        request.FILES["f0"].delete()


@pytest.mark.parametrize("size", [10, 11 * MIB])
def test_a_request_that_breaks(adapter, size):
    class Broken(io.BytesIO):
        def read(self, n=-1):
            if not (data := super().read(n)):
                raise OSError("the client went away")
            return data

    request = cut(b"x", Broken(multipart(BYTES[:size])[:-20]))
    with pytest.raises(OSError, match="went away"):
        _ = request.FILES
    del request
    gc.collect()
    assert left(adapter) == (0, 0)


def test_a_form_that_is_none(adapter):
    with override_settings(DATA_UPLOAD_MAX_NUMBER_FIELDS=1), pytest.raises(TooManyFieldsSent):
        _ = posted({"f": SimpleUploadedFile("f", b"x"), **{f"{n}": "x" for n in range(9)}}).FILES
    request = RequestFactory().post("/", b"x", "multipart/form-data")
    request.upload_handlers = [AdapterUploadHandler(request)]
    with pytest.raises(MultiPartParserError):
        _ = request.FILES
    gc.collect()
    assert left(adapter)[1] == 0


def test_a_store_that_fails(in_memory):
    class Closes(Counts):
        def receive_data_chunk(self, raw_data, start):
            if start > MIB:
                in_memory.close()
            return super().receive_data_chunk(raw_data, start)

    request = posted({"f": SimpleUploadedFile("f", BYTES[: 3 * MIB])}, [Closes, AdapterUploadHandler])
    with pytest.raises(StorageError):
        _ = request.FILES


def test_forgotten_uploads_are_swept(in_memory):
    for _ in range(3):
        uploaded()
    gc.collect()
    assert in_memory.sweep(timedelta(hours=1)).parts == 0
    assert in_memory.sweep(timedelta()).parts == 3


# ---- beside other handlers


class Counts(FileUploadHandler):
    def __init__(self, request, error=None):
        super().__init__(request)
        self.error, self.count = error, 0

    def receive_data_chunk(self, raw_data, start):
        self.count += len(raw_data)
        if self.error:
            raise self.error
        return raw_data

    def file_complete(self, file_size):
        return None


def test_other_handlers(in_memory, tmp_path):
    data, seen = BYTES[: 3 * MIB], []

    def counting(request):
        seen.append(Counts(request))
        return seen[-1]

    def fields():
        return {"f": SimpleUploadedFile("f", data)}

    ours = AdapterUploadHandler
    with override_settings(FILE_UPLOAD_TEMP_DIR=tmp_path / "nowhere"):
        upload = posted(fields(), [counting, ours, MemoryFileUploadHandler, TemporaryFileUploadHandler]).FILES["f"]
    assert type(upload) is AdapterUpload and seen[0].count == len(data) and upload.sha256 == digest(data)
    small = posted({"f": SimpleUploadedFile("f", b"small")}, [MemoryFileUploadHandler, ours])
    assert type(small.FILES["f"]) is not AdapterUpload and left(in_memory) == (1, 0)
    assert type(posted(fields(), [MemoryFileUploadHandler, ours]).FILES["f"]) is AdapterUpload
    in_memory.sweep(timedelta())
    for error in (SkipFile(), StopUpload(), StopUpload(connection_reset=True)):
        request = posted({"a": "b", **fields()}, [lambda request, error=error: Counts(request, error), ours])
        assert not request.FILES and request.POST["a"] == "b"
    assert left(in_memory) == (0, 0)


# ---- storages and forms


def test_a_storage_saves_an_upload(adapter):
    storage, data = AdapterStorage(location="media"), BYTES[: 6 * MIB]
    uploads = [uploaded(data, "a.png") for _ in range(3)]
    uploads[1].read(7)
    with believes_all_names_are_free(storage):
        names = [storage.save("a.png", upload) for upload in uploads[:2]]
    names.append(storage.save(None, uploads[2]))
    assert names[0] == "a.png" and len(set(names)) == 3 and left(adapter) == (0, 0)
    storage.delete(names[0])
    for name, upload in list(zip(names, uploads, strict=True))[1:]:
        assert upload.final.key == f"{adapter.prefix}media/{name}"
        assert upload.read() == (data[7:] if upload is uploads[1] else data)
    assert storage.save("again.png", uploads[1]) == "again.png"
    with storage.open("again.png") as file:
        assert file.read() == data
    with pytest.raises(SuspiciousFileOperation):
        storage.save("../a", uploaded())
    for upload in uploads:
        upload.close()


def test_another_storage_reads_it(in_memory, tmp_path):
    entries = {
        "default": {"BACKEND": "storage.MemoryStorageAdapter"},
        "other": {"BACKEND": "storage.MemoryStorageAdapter", "OPTIONS": {"bucket": "other"}},
    }
    with override_settings(STORAGE_ADAPTERS=entries):
        upload = uploaded(BYTES[:MIB], alias="other")
        assert AdapterStorage().save("a", upload) == "a" and left(get_storage_adapter("other")) == (1, 0)
        with AdapterStorage().open("a") as file:
            assert file.read() == BYTES[:MIB]
        for alias in entries:
            get_storage_adapter(alias).close()


@pytest.mark.parametrize("size", [10, 11 * MIB])
def test_no_byte_moves_twice(size):
    with Lying() as server, adapters("S3StorageAdapter", **s3_options(server.endpoint)):
        AdapterStorage().save("warm", ContentFile(b""))
        uploaded(BYTES[:size]).save_final("warm up")
        for save in (
            lambda: uploaded(BYTES[:size]).save_final("a"),
            lambda: AdapterStorage().save("b", uploaded(BYTES[:size])),
        ):
            server.log.clear()
            save()
            sent = sum(len(request.body) for request in server.log if request.operation in ("PutObject", "UploadPart"))
            assert size <= sent < size + 10_000
            assert all(".digest" in request.target for request in server.log if request.operation == "GetObject")
        assert [name for name in server.objects if "/temp" in name] == []


def test_fields_of_forms(in_memory):
    class Form(forms.Form):
        image = forms.ImageField()
        file = forms.FileField(max_length=5)

    good = posted({"image": SimpleUploadedFile("a.png", PNG), "file": SimpleUploadedFile("a", b"x")})
    form = Form(good.POST, good.FILES)
    assert form.is_valid(), form.errors
    assert form.cleaned_data["image"].image.size == (3, 2) and form.cleaned_data["image"].read() == PNG
    bad = posted({"image": SimpleUploadedFile("a.png", b"x"), "file": SimpleUploadedFile("a" * 6, b"")})
    assert set(Form(bad.POST, bad.FILES).errors) == {"image", "file"}
    good.close()


# ---- content types


def picture(kind):
    made = io.BytesIO()
    Image.new("RGB", (3, 2), "red").save(made, kind)
    return made.getvalue()


def archive(kind):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") if kind == "zip" else tarfile.open(fileobj=made, mode="w") as archive:
        if kind == "zip":
            archive.writestr("a", b"x")
        else:
            archive.addfile(tarfile.TarInfo("a"))
    return made.getvalue()


PNG = picture("PNG")
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
PROVEN = {
    "png": (PNG, "text/html", "image/png"),
    "jpeg": (picture("JPEG"), None, "image/jpeg"),
    "gif": (picture("GIF"), "image/png", "image/gif"),
    "webp": (picture("WEBP"), "", "image/webp"),
    "tiff": (picture("TIFF"), "x/y", "image/tiff"),
    "bmp": (picture("BMP"), "x/y", "image/bmp"),
    "zip": (archive("zip"), "text/plain", "application/zip"),
    "docx": (archive("zip"), DOCX, DOCX),
    "tar": (archive("tar"), "", "application/x-tar"),
    "pdf": (b"%PDF-1.7\n", "application/PDF", "application/pdf"),
    "mp4": (b"\0\0\0\x20ftypisom", "", "video/mp4"),
    "m4a": (b"\0\0\0\x20ftypM4A ", "", "audio/mp4"),
    "webm": (b"\x1aE\xdf\xa3\x01\0\0\0\0\0\0\x1fB\x82\x84webm", "", "video/webm"),
    "html": (b"\xef\xbb\xbf \n<!-- x -->\n<!DOCTYPE HTML>", "text/plain", "text/html"),
    "svg": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg">', "image/png", "image/svg+xml"),
    "xml": (b'<?xml version="1.0"?><a/>', "application/atom+xml", "application/atom+xml"),
    "program": (b"MZ\x90\0\3", "image/png", "application/vnd.microsoft.portable-executable"),
    "text like a program": (b"MZ,BM,BZh\n", "text/csv", "text/csv"),
    "bzip2": (bz2.compress(b"x"), "text/plain", "application/x-bzip2"),
    "no bzip2 in bzip2": (bz2.compress(b""), "", "application/x-bzip2"),
    "text": (b"a,b\n", "text/csv; charset=utf-8", "text/csv; charset=utf-8"),
    "unknown": (b"\1\2\3", "", UNKNOWN),
    "no picture": (b"text", "image/png", UNKNOWN),
    "no office": (b"text", DOCX, UNKNOWN),
    "nothing": (b"", "image/jpeg", UNKNOWN),
    "impossible": (b"text", "ü\n", UNKNOWN),
}


@pytest.mark.parametrize("kind", PROVEN)
def test_the_content_type_by_the_first_bytes(kind):
    data, stated, expected = PROVEN[kind]
    assert content_type_of(data[:HEAD], stated) == expected


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=HEAD), st.none() | st.text())
def test_any_bytes_have_a_content_type(head, stated):
    assert content_type_of(head, stated).isascii()


# ---- the admin, Django REST framework, and real servers


def test_the_admin(run, tmp_path, versitygw):
    seen = run("forms", env={**place_on(versitygw).environment, "TEST_ROOT": str(tmp_path)})
    red, blue = seen.pop("names")
    assert red == "pictures/a_picture.png" and re.fullmatch(r"pictures/a_picture_\w+\.png", blue)
    assert seen == {
        **dict.fromkeys(("red", "blue", "change", "delete"), 302),
        "measures": [70, 50],
        "types": ["image/png", "text/plain"],
        "color": [255, 0, 0],
        "changed": [10, 10],
        "no picture": True,
        "virus": 400,
        "pictures": 2,  # Django leaves that which was replaced
        "sessions": 1,  # of the form that was not valid
    }


SERVERS = {
    "gunicorn": ["gunicorn", "-b", "127.0.0.1:0", "--threads", "4", "forms:wsgi"],
    "uvicorn": ["uvicorn", "--host", "127.0.0.1", "--port", "0", "--lifespan", "off", "forms:asgi"],
}


def process(url):
    return json.loads(curl(f"{url}/process/")[2])


@pytest.mark.parametrize("name", SERVERS)
def test_real_servers(name, tmp_path):
    log = tmp_path / "log"
    with open(log, "w") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", *SERVERS[name]],
            cwd=HERE / "faults",
            env={**os.environ, "TEST_ROOT": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait(lambda: "Booting worker" in log.read_text() or "running on" in log.read_text(), log)
        url = re.search(r"http://127\.0\.0\.1:\d+", log.read_text())[0]
        real_requests(name, url, tmp_path)
        assert "Traceback" not in log.read_text()
        cut_requests(url, tmp_path, log)
        if name == "gunicorn":  # under ASGI Django itself has a file of the body
            memory_of_an_upload(url)
    finally:
        server.terminate()
        server.wait(20)


def real_requests(server, url, tmp_path):
    large = tmp_path / "large.png"
    large.write_bytes(PNG + BYTES[: 20 * MIB])
    sha256 = digest(PNG + BYTES[: 20 * MIB])
    told = {"name": "large.png", "size": large.stat().st_size, "sha256": sha256, "content_type": "image/png"}
    empty = tmp_path / "empty"
    empty.touch()
    status, _, body = curl(
        *("-F", f"a=@{large}", "-F", f"a=@{empty}", "-F", "keep=a", "-F", f"b=@{large};type=text/plain", f"{url}/form/")
    )
    answer = json.loads(body)
    assert status == 200 and answer["fields"] == {"keep": "a"} and answer["files"]["b"] == [told]
    assert answer["files"]["a"][0] == told and answer["files"]["a"][1]["size"] == 0
    assert (tmp_path / "final" / "kept" / "empty").read_bytes() == b""  # the last of a name
    assert len(process(url)["parts"]) == 2
    virus = tmp_path / "virus"
    virus.write_bytes(b"a virus")
    status, _, body = curl("-F", f"a=@{large}", "-F", f"b=@{virus}", f"{url}/form/")
    assert (status, json.loads(body)) == (422, {"error": "virus has a virus", "code": "rejected"})
    # Django REST framework
    status, _, body = curl("-T", str(large), f"{url}/body/x.png")
    assert (status, json.loads(body)) == (200, {**told, "name": "x.png", "key": "bodies/x.png"})
    assert digest((tmp_path / "final" / "bodies" / "x.png").read_bytes()) == sha256
    assert curl("-T", str(virus), f"{url}/body/v")[0] == 422
    if server == "gunicorn":  # under ASGI Django waits for all of the body
        assert curl("-T", str(empty), "-H", "Content-Length: 200000000", f"{url}/body/l")[0] == 413
    assert json.loads(curl("-F", f"f=@{large}", f"{url}/multi/")[2]) == told
    assert len(process(url)["parts"]) == 3 and process(url)["calls"] == 0


def sent(url, request, body):
    """The status that is answered to a request whose client stops sending; 0 for none."""
    host, _, port = url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=60) as leaver:
        leaver.sendall(request.encode() + body)
        leaver.shutdown(socket.SHUT_WR)
        answer = leaver.recv(1000)
        return int(answer.split()[1]) if answer else 0


def cut_requests(url, tmp_path, log):
    before = len(process(url)["parts"])
    body = multipart(b"first", BYTES[: 2 * MIB])[:-20]
    head = f"POST /form/ HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body) + 20}\r\n"
    sent(url, f"{head}Content-Type: {FORM}\r\n\r\n", body)
    sent(url, f"PUT /body/cut HTTP/1.1\r\nHost: x\r\nContent-Length: {3 * MIB}\r\n\r\n", BYTES[: 2 * MIB])
    wait(lambda: process(url)["calls"] == 0, log)
    assert len(process(url)["parts"]) <= before + 1  # the first file, which a view may have used
    assert not (tmp_path / "final" / "bodies" / "cut").exists()


def memory_of_an_upload(url):
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=60)
    size = 90 * MIB
    head = b'--b\r\nContent-Disposition: form-data; name="f"; filename="f"\r\n\r\n'
    before = process(url)
    with contextlib.closing(connection):
        connection.putrequest("POST", "/form/")
        connection.putheader("Content-Type", "multipart/form-data; boundary=b")
        connection.putheader("Content-Length", str(len(head) + size + 9))
        connection.endheaders(head)
        for _ in range(size // MIB):
            connection.send(BYTES[:MIB])
        connection.send(b"\r\n--b--\r\n")
        answer = json.loads(connection.getresponse().read())
    assert answer["files"]["f"][0]["size"] == size
    grown = process(url)["VmHWM"] - before["VmRSS"]
    print(f"{grown / MIB:.1f} MiB more")
    assert grown < 40 * MIB  # the budget is 16 MiB


# ---- clamd


@pytest.fixture(scope="module")
def recipe():
    """The function of the document, and the names that it uses."""
    ((_, code),) = (block for block in blocks(ROOT / "docs/uploads.md") if block[0] == "clamd")
    names = {}
    exec(compile(code, "uploads.md", "exec"), names)
    return names


@pytest.mark.parametrize("prefix", [0, 256 * 1024 - 5, 11 * MIB])
def test_clamd(adapter, recipe, prefix):
    virus = BYTES[:prefix] + EICAR
    with Clamd() as clamd:
        recipe["CLAMD"] = clamd.address
        scan = recipe["scan"]
        clean = adapter.put_final("clean", BYTES[:prefix], inspect=scan)
        parts = [adapter.put_temp_part("s", 1, virus[: prefix + 9]), adapter.put_temp_part("s", 2, virus[prefix + 9 :])]
        for upload in (
            lambda: adapter.put_final("virus", virus, inspect=scan),
            lambda: adapter.assemble("virus", parts, inspect=scan),
            lambda: uploaded(virus, inspect=scan),
        ):
            with pytest.raises(ContentRejected, match="the virus scanner found Eicar-Test-Signature"):
                upload()
        assert clamd.scanned == [prefix, *[len(virus)] * 3] and clamd.largest <= 256 * 1024
    assert keys(adapter) == ["clean"] and adapter.stat_final(clean).size == prefix
    assert adapter.delete_temp_parts("s") == 2 and left(adapter) == (0, 0)


def test_clamd_that_does_not_say_that_it_is_clean(in_memory, recipe):
    scan = recipe["scan"]
    with Clamd(limit=MIB) as clamd:
        recipe["CLAMD"] = clamd.address
        # A connection that is closed before all was read may lose the answer.
        for size in (8 * MIB, MIB + 1):
            with pytest.raises(StorageError, match=r"answered '(INSTREAM size limit exceeded\. ERROR)?'"):
                in_memory.put_final("a", BYTES[:size], inspect=scan)
    with pytest.raises(StorageUnavailable, match="does not answer"):
        in_memory.put_final("a", b"x", inspect=scan)
    assert keys(in_memory) == [] and left(in_memory) == (0, 0)
