"""A program that uses everything public in storage, storage.files, storage.http and storage.urls.

It is not run: test_typing.py lets mypy and pyright check it, and tells what is missing. An `assert_type` is what an
editor shows.
"""

import io
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, assert_type

from django.core.files.base import ContentFile
from django.db import models
from django.http import FileResponse, HttpRequest, HttpResponse, HttpResponseBase, JsonResponse
from django.urls import include, path

import storage
import storage.urls
from storage import (
    Assembled,
    AsyncObjectReader,
    ContentMismatch,
    ContentRejected,
    FinalObject,
    InvalidArgument,
    InvalidKey,
    LocalStorageAdapter,
    MemoryStorageAdapter,
    ObjectExists,
    ObjectNotFound,
    ObjectReader,
    S3StorageAdapter,
    StorageAdapter,
    StorageCancelled,
    StorageError,
    StorageFull,
    StoragePermissionError,
    StorageTimeout,
    StorageUnavailable,
    SweepReport,
    TempPart,
    get_storage_adapter,
)
from storage.files import AdapterStorage, AdapterUpload, AdapterUploadHandler, StoredFile, UploadTooLarge
from storage.http import (
    DirectUpload,
    RequestStream,
    aobject_response,
    object_response,
    request_stream,
    sign_request,
    storage_errors,
)


def adapters() -> list[StorageAdapter]:
    local = LocalStorageAdapter(temp_dir="/srv/temp", final_dir=Path("/srv/final"), bucket="disk", durable=False)
    temp, final = local.directories
    assert_type((temp, final), tuple[str, str])
    return [
        local,
        MemoryStorageAdapter(bucket="memory"),
        S3StorageAdapter(bucket_name="uploads", region_name="eu-central-1", part_size=8 * 1024 * 1024, verify=True),
        assert_type(get_storage_adapter(), StorageAdapter),
        get_storage_adapter("archive"),
        get_storage_adapter(bucket="uploads"),
    ]


def progress(done: int, total: int | None) -> None:
    if isinstance(done, Assembled):
        print(assert_type(done.copied, int), assert_type(done.read, int))
    print(done, total)


def pieces() -> Iterator[bytes]:
    yield b"a piece"


def parts(adapter: StorageAdapter, session_id: uuid.UUID) -> list[TempPart]:
    part = adapter.put_temp_part(session_id, 1, io.BytesIO(b"first"), size=5, sha256="0" * 64, progress=progress)
    assert_type(part, TempPart)
    adapter.put_temp_part(session_id, 2, pieces(), overwrite=False)
    adapter.put_temp_part(session_id, 3, ContentFile(b"of Django"))
    adapter.put_temp_part("a session", 4, bytearray(b"bytes"))
    with adapter.get_temp_part_stream(part) as reader:
        assert_type(reader, ObjectReader)
    assert_type(adapter.extend_digest(session_id, max_seconds=1.5), int)
    assert_type(TempPart.from_dict(part.as_dict()), TempPart)
    names: tuple[str, int, int | None, str | None] = (part.key, part.part_number, part.size, part.sha256)
    print(*names)
    return adapter.list_temp_parts(session_id)


def objects(adapter: StorageAdapter, session_id: uuid.UUID) -> FinalObject:
    final = adapter.assemble(
        "a/b.txt", parts(adapter, session_id), content_type="text/plain", metadata={"By": "me"}, progress=progress
    )
    adapter.put_final(7, b"bytes", overwrite=False)
    bucket, key = final
    assert_type((bucket, key), tuple[str, str])
    described = adapter.stat_final(bucket, key)
    modified: datetime | None = described.modified
    metadata: Mapping[str, str] | None = described.metadata
    print(final.bucket, final.key, final.size, final.sha256, described.content_type, modified, metadata)
    for one in adapter.list_final("a/", start_after=final):
        assert_type(one, FinalObject)
    adapter.copy_final(final, "c", overwrite=False)
    adapter.copy_final(bucket, key, "c")
    assert_type(adapter.adopt_final("d"), FinalObject)
    assert_type(adapter.url_final(final, expires=60, filename="b.txt", method="HEAD"), str)
    adapter.delete_final(final)
    adapter.delete_temp_part(parts(adapter, session_id)[0])
    assert_type(adapter.delete_temp_parts(session_id), int)
    return FinalObject.from_dict(final.as_dict())


def reading(adapter: StorageAdapter, final: FinalObject) -> None:
    with adapter.get_final_stream(final, start=1, length=10, size=100, sha256="0" * 64) as reader:
        assert_type(reader.size, int)
        assert_type(reader.name, str)
        assert_type(reader.content_type, str)
        assert_type(reader.modified, datetime | None)
        assert_type(reader.metadata, dict[str, str])
        assert_type(reader.seek(0, io.SEEK_END), int)
        assert_type(reader.tell(), int)
        assert_type(reader.read(), bytes)
        assert_type(reader.read1(5), bytes)
        assert_type(reader.readline(), bytes)
        assert_type(reader.readlines(), list[bytes])
        assert_type(reader.peek(), bytes)
        assert_type(reader.readinto(bytearray(5)) + reader.readinto1(memoryview(bytearray(5))), int)
        for line in reader:
            assert_type(line, bytes)
        for piece in reader.chunks(1024):
            assert_type(piece, bytes)
        text = io.TextIOWrapper(reader, encoding="utf-8")
        text.detach()
    with adapter.get_final_stream("bucket", "key") as again:
        adapter.put_final("copy", again)
        again.close()


def no_virus(reader: ObjectReader) -> None:
    if b"virus" in reader.read(1000):
        raise ContentRejected(f"{reader.name} has a virus")


def inspected(adapter: StorageAdapter) -> None:
    adapter.put_final("a", b"bytes", inspect=no_virus)
    adapter.assemble("b", ["session/00001"], inspect=[no_virus])


async def apieces() -> AsyncIterator[bytes]:
    yield b"a piece"


async def twins(adapter: StorageAdapter, session_id: uuid.UUID) -> None:
    part = assert_type(await adapter.aput_temp_part(session_id, 1, apieces(), size=7), TempPart)
    async with await adapter.aget_temp_part_stream(part) as reader:
        assert_type(reader, AsyncObjectReader)
        print(reader.size, reader.name, reader.sha256, reader.content_type, reader.modified, reader.metadata)
        assert_type(reader.seek(5) + reader.tell(), int)
        assert_type(await reader.aread(5), bytes)
        async for piece in reader.achunks(1024):
            assert_type(piece, bytes)
        await reader.aclose()
        assert_type(reader.closed, bool)
    assert_type(await adapter.alist_temp_parts(session_id), list[TempPart])
    assert_type(await adapter.aextend_digest(session_id), int)
    final = assert_type(await adapter.aassemble("a", [part], progress=progress), FinalObject)
    await adapter.aput_final("b", b"bytes", overwrite=False)
    async for piece in await adapter.aget_final_stream(final, start=1):
        assert_type(piece, bytes)
    assert_type(await adapter.astat_final(final), FinalObject)
    async for one in adapter.alist_final("a"):
        assert_type(one, FinalObject)
    assert_type(await adapter.acopy_final(final, "c"), FinalObject)
    assert_type(await adapter.aadopt_final("c"), FinalObject)
    assert_type(await adapter.aurl_final(final), str)
    await adapter.adelete_final(final)
    await adapter.adelete_temp_part(part)
    assert_type(await adapter.adelete_temp_parts(session_id), int)

    async def keep(session_id: str) -> bool:
        return session_id == "live"

    assert_type(await adapter.asweep(timedelta(days=1), keep=keep), SweepReport)
    await adapter.acheck_health()
    await adapter.aclose()


def upkeep(adapter: StorageAdapter) -> None:
    def keep(session_id: str) -> bool:
        return session_id == "live"

    report = adapter.sweep(timedelta(days=1), keep=keep, dry_run=True, max_seconds=10)
    assert_type(report, SweepReport)
    counts: list[int] = [report.sessions, report.parts, report.uploads, report.size]
    print(counts, report.unseen, assert_type(report.finished, bool))
    adapter.check_health(timeout=2)
    print(assert_type(adapter.backend, str), storage.__version__)
    adapter.close()


def errors(adapter: StorageAdapter) -> str:
    try:
        adapter.stat_final("bucket", "key")
    except (ObjectNotFound, ObjectExists, InvalidKey, InvalidArgument, ContentMismatch, ContentRejected) as error:
        return error.code
    except (StoragePermissionError, StorageFull, StorageTimeout, StorageUnavailable, StorageCancelled) as error:
        return f"{error.errno}" if isinstance(error, OSError) else error.op
    except StorageError as error:
        details: tuple[str, str, bool, int | None, str | None] = (
            error.key,
            error.message,
            error.retryable,
            error.status,
            error.request_id,
        )
        return f"{details}"
    return ""


# ---- storage.files

media = AdapterStorage(location="media", base_url="/media/")
static = AdapterStorage("default", "static", None, 60, skip_unchanged=True)


def place() -> AdapterStorage:
    return media


class Document(models.Model):
    file = models.FileField(upload_to="documents", storage=media)
    copy = models.FileField(upload_to="copies", storage=place)

    def __str__(self) -> str:
        return str(self.file.name)


def files(document: Document) -> list[str]:
    document.file.save("a.txt", ContentFile(b"text"))
    name = assert_type(media.save("a.txt", ContentFile(b"text"), max_length=50), str)
    with media.open(name) as file:
        print(file.size, file.read(), file.readline(), *file.chunks())
    with StoredFile(media, name, "wb") as written:
        written.write(b"bytes")
    assert_type(written.size, int)
    assert_type(written.open("rb"), StoredFile)
    written.close()
    assert_type(media.exists(name) and media.is_name_available(name, max_length=5), bool)
    assert_type(media.size(name), int)
    assert_type(media.get_modified_time(name), datetime)
    folders, names = media.listdir("")
    assert_type(folders + names, list[str])
    assert_type(media.path(name), str)
    media.adapter.check_health()
    with media.stream(name, "rb") as stream:
        stream.tell()
    media.delete(name)
    return [media.url(name), static.alias, static.location, str(static.base_url), str(static.querystring_expire)]


class Uploads(AdapterUploadHandler):
    alias = "archive"
    max_size = 100 * 1024 * 1024

    def inspect(self, reader: ObjectReader) -> None:
        no_virus(reader)


def forms(request: HttpRequest) -> HttpResponse:
    request.upload_handlers.insert(0, Uploads(request))
    try:
        file = request.FILES["f"]
    except UploadTooLarge as error:
        return HttpResponse(error.message, status=413)
    if not isinstance(file, AdapterUpload):
        return HttpResponse(status=400)
    with file.open() as upload:
        print(upload.read(5), upload.closed, file.sha256, file.size, file.content_type)
    final = assert_type(file.save_final("a", overwrite=False, progress=progress), FinalObject)
    file.delete()
    return JsonResponse(final.as_dict())


# ---- storage.http and storage.urls

urlpatterns = [path("objects/", include("storage.urls")), path("signed/", include(storage.urls))]


@storage_errors
def upload(request: HttpRequest, name: str) -> HttpResponse:
    body = assert_type(request_stream(request, max_size=1000), RequestStream)
    final = get_storage_adapter().put_final(name, body)
    print(RequestStream.read(body, 5))
    return JsonResponse(final.as_dict())


@storage_errors
async def asynchronous(request: HttpRequest, key: str) -> HttpResponseBase:
    final = await get_storage_adapter().astat_final("uploads", key)
    return await aobject_response(request, final, filename="a")


def may_upload(request: HttpRequest, upload: DirectUpload) -> bool:
    print(upload.method, upload.upload_id, upload.part_number, upload.size, upload.content_type)
    return upload.begins and upload.key.endswith(".txt")


def signed(request: HttpRequest) -> HttpResponseBase:
    return sign_request(request, authorize=may_upload, prefix="direct", max_size=10**9, expires=60)


def download(request: HttpRequest, values: dict[str, Any]) -> HttpResponseBase:
    final = FinalObject.from_dict(values)
    if request.GET:
        return FileResponse(media.open("a.txt"))
    options = {"Cache-Control": "public"}
    object_response(request, final, mode="redirect")
    return object_response(request, final, filename="a", as_attachment=True, content_type="a/b", headers=options)
