"""The protocol tus 1.0.0 without I/O: requests in, steps to take, and an answer out.

``respond`` is a generator. It yields what has to be done (``Ask`` the rows, call the ``Store``, ``Receive`` a part of
the body), and is sent what came of it, or thrown the exception. So one protocol serves threads and coroutines, and a
test can stop every request anywhere.

The parts in the store are the truth: the offset of an upload is their size, and no part is ever replaced or deleted
while the upload can go on. What decides between requests is the ``turn`` of the row: each look at it changes it, and
fails if another request has looked meanwhile. A request looks before it reads, after each part, and so before it
answers.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import itertools
import re
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any, Protocol, TypeVar
from uuid import UUID

from storage.arguments import MAX_PART_NUMBER, MAX_SIZE
from storage.exceptions import ContentMismatch, ContentRejected, ObjectExists, ObjectNotFound, StorageError
from storage.types import FinalObject, TempPart

from .checksums import ALGORITHMS, Checksum

VERSION = "1.0.0"

HEADERS = {"Tus-Resumable": VERSION, "Cache-Control": "no-store"}
"""What every answer has."""

EXTENSIONS = (
    "creation",
    "creation-with-upload",
    "creation-defer-length",
    "termination",
    "checksum",
    "expiration",
    "concatenation",
)

PART = 8 * 1024 * 1024
"""The least size in bytes at which a body is cut into parts: S3 copies parts from 5 MiB without reading them."""

_PARTS = 9_000
"""At most so many whole parts has an upload of known size; what cuts leave comes on top."""

MAX_HEADER = 8_190
"""The most characters of Upload-Metadata: what common servers take of one header."""

TYPE = "application/offset+octet-stream"

UPLOADING, FINISHING, FINISHED, EXPIRED = "uploading", "finishing", "finished", "expired"
"""The states of an upload. From ``FINISHING`` on its parts are complete, and whoever asks for it finishes it."""


class Upload(Protocol):
    """A row, as it was when it was last looked at."""

    @property
    def name(self) -> str:
        """Its id in URLs, and the session of its parts."""

    @property
    def size(self) -> int | None:
        """Bytes; None while deferred."""

    @property
    def metadata(self) -> Mapping[str, str]: ...
    @property
    def partial(self) -> bool: ...
    @property
    def concat(self) -> Sequence[str]:
        """The names of the uploads that it joins."""

    @property
    def state(self) -> str: ...
    @property
    def expired(self) -> bool: ...
    @property
    def expires(self) -> datetime | None: ...
    @property
    def turn(self) -> int: ...
    @property
    def file_id(self) -> str: ...
    @property
    def content_type(self) -> str | None: ...
    @property
    def final(self) -> FinalObject | None:
        """What is stored, once it is finished."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a client asks. Names of headers are in lower case. ``name`` is the upload's of the URL, "" for the list."""

    method: str
    name: str
    headers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the client is told. The URLs of ``location`` and ``concat``, names of uploads, are for the front end."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    text: str = ""
    location: str = ""
    concat: Sequence[str] = ()


class Refused(Exception):
    """A request that is not carried out, with the status and the reason that the client is told."""

    def __init__(self, status: int, text: str, **headers: str) -> None:
        super().__init__(text)
        self.status, self.text, self.headers = status, text, headers


class Taken(Refused):
    """An upload cannot be finished while another object has its name."""


class Unfinished(Exception):
    """A HEAD cannot finish the upload, because an inspector of the project, or the database, has failed."""


# ---- steps


@dataclass(frozen=True, slots=True)
class Ask:
    """Call a method of the rows: see ``storage.tus.rows.Rows``."""

    method: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Store:
    """Call a method of the adapter, or its twin for coroutines."""

    method: str
    arguments: tuple[Any, ...]
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Receive:
    """Store a part that takes what ``slice`` takes of the body, and replaces nothing. None if not a byte comes."""

    session: str
    number: int
    slice: Slice


Step = Ask | Store | Receive
T = TypeVar("T")
Steps = Generator[Step, Any, T]


class Slice:
    """What one part takes of a body: up to ``size`` bytes, or all that comes.

    Ask it how many bytes to read, and give it what was read; b"" is the end of the body. With ``last`` nothing may
    come after them. With a ``checksum`` the body must be whole, and have it. Else what it raises undoes the part.
    """

    def __init__(self, size: int, *, last: bool, checksum: Checksum | None = None) -> None:
        self._left, self._last, self._checksum = size, last, checksum
        self.size = 0
        self.ended = False

    def wants(self, most: int) -> int:
        """How many bytes to read, 0 if that was all."""
        if self.ended:
            return 0
        return min(self._left, most) or (1 if self._last else 0)

    def take(self, data: bytes, *, cut: bool = False) -> bytes:
        """What of the bytes belongs to the part. ``cut`` says that the client broke off."""
        if not data:
            self.ended = True
            if self._checksum is not None:
                if cut:
                    raise Refused(400, "the body ended early, and with a checksum it counts only whole")
                if not self._checksum.matches():
                    raise Refused(460, "the body does not have the checksum that was sent with it: send it again")
        if len(data) > self._left:
            raise Refused(413, "the body is longer than what is left of the upload")
        self._left -= len(data)
        self.size += len(data)
        if self._checksum is not None:
            self._checksum.update(data)
        return data


# ---- requests


def respond(request: Request, max_size: int | None = None) -> Steps[Answer]:
    """Answer a request. ``max_size`` is the most bytes of an upload.

    Raises ``StorageError`` if the store fails, and what the rows and inspectors raise; then the client may ask again.
    """
    most = MAX_SIZE if max_size is None else min(max_size, MAX_SIZE)
    try:
        answer = yield from _respond(request, most)
    except Refused as refused:
        answer = Answer(refused.status, refused.headers, refused.text)
    return Answer(answer.status, {**HEADERS, **answer.headers}, answer.text, answer.location, answer.concat)


def method_of(request: Request) -> str:
    """The method that a client means: some can send only GET and POST."""
    return request.headers.get("x-http-method-override", "").strip().upper() or request.method


def _respond(request: Request, most: int) -> Steps[Answer]:
    method = method_of(request)
    handlers = _OF_AN_UPLOAD if request.name else _OF_THE_LIST
    if method == "OPTIONS":
        return _options(most)
    if method not in handlers:
        raise Refused(405, f"{method[:20]!a} is not allowed here", Allow=", ".join([*handlers, "OPTIONS"]))
    if request.headers.get("tus-resumable") != VERSION:
        raise Refused(412, f"the header Tus-Resumable must be {VERSION}", **{"Tus-Version": VERSION})
    return (yield from handlers[method](request, most))


def _options(most: int) -> Answer:
    return Answer(
        204,
        {
            "Tus-Version": VERSION,
            "Tus-Extension": ",".join(EXTENSIONS),
            "Tus-Max-Size": str(most),
            "Tus-Checksum-Algorithm": ",".join(ALGORITHMS),
        },
    )


def _create(request: Request, most: int) -> Steps[Answer]:
    headers = request.headers
    metadata = parse_metadata(headers.get("upload-metadata", ""))
    kind, _, urls = headers.get("upload-concat", "").partition(";")
    if kind not in ("", "partial", "final") or (kind != "final" and ";" in headers.get("upload-concat", "")):
        raise Refused(400, "Upload-Concat is 'partial', or 'final;' and the URLs of partial uploads")
    if kind == "final":
        return (yield from _join(request, metadata, _names(urls), most))
    size = _declared(headers)
    if size is not None and size > most:
        raise _too_large(most)
    # By HTTP/2 a body may come without a length. One that has no bytes may have a checksum, which must be right.
    with_body = _is_typed(headers) and (_length(headers) != 0 or "upload-checksum" in headers)
    checksum = _checksum(headers) if with_body else None
    if with_body:
        _check_length(_length(headers), 0, size, most)
    upload: Upload = yield Ask("create", (size, metadata, kind == "partial"))
    offset = 0
    try:
        if with_body:
            upload, offset = yield from _receive(upload, [], checksum, most)
        upload = yield from _finished_if_complete(upload, offset)
    except Refused:
        # The client was never told where it is: nobody could go on with it.
        left: Upload | None = yield Ask("find", (upload.name,))
        if left is not None:
            yield from _remove(left)
        raise
    told = {"Upload-Offset": str(offset)} if with_body else {}
    return Answer(201, {**told, **_expiry(upload)}, location=upload.name)


def _join(request: Request, metadata: dict[str, str], names: list[str], most: int) -> Steps[Answer]:
    if _has_bytes(request.headers):
        raise Refused(400, "a final upload has no body: its bytes are those of the partial uploads")
    if "upload-length" in request.headers or "upload-defer-length" in request.headers:
        raise Refused(400, "a final upload has no Upload-Length: it is as long as its partial uploads")
    joined: Upload | None = yield Ask("joined", (metadata, names))
    if joined is None:
        try:
            joined = yield from _new_join(metadata, names, most)
        except Refused:
            joined = yield Ask("joined", (metadata, names))  # by the same request, that was sent twice
            if joined is None:
                raise
    try:
        yield from _finish(joined)
    except Refused:
        yield from _remove(joined)
        raise
    return Answer(201, location=joined.name)


def _new_join(metadata: dict[str, str], names: list[str], most: int) -> Steps[Upload]:
    size = 0
    for name in names:
        size += yield from _size_of_partial(name)
    if size > most:
        raise _too_large(most)
    joined: Upload = yield Ask("join", (size, metadata, names))
    return joined


def _size_of_partial(name: str) -> Steps[int]:
    upload: Upload | None = yield Ask("find", (name,))
    if upload is None:
        raise Refused(404, "there is no such partial upload")
    if not upload.partial:
        raise Refused(400, "only uploads that were created with 'Upload-Concat: partial' can be joined")
    if upload.state == FINISHED:
        raise Refused(410, "a partial upload was joined before")
    if upload.expired:
        raise Refused(410, "a partial upload has expired")
    parts = yield from _parts(upload)
    if upload.size is None or _size(parts) != upload.size:
        raise Refused(400, "a partial upload is not complete")
    # So that it does not expire while it is joined.
    yield Ask("look", (upload,))
    return upload.size


def _head(request: Request, most: int) -> Steps[Answer]:
    upload = yield from _found(request)
    offset = yield from _offset(upload)
    if offset != upload.size:
        # Look again: if it is over by now, its parts were gone when they were counted.
        upload = yield from _found(request)
        offset = (upload.size or 0) if upload.state == FINISHED else offset
    if upload.final is not None:
        yield from _check_final(upload.final)
    else:
        try:
            upload = yield from _finished_if_complete(upload, offset)
        except Taken as taken:
            # Locked: after 409 to a HEAD, common clients would send all the bytes again.
            raise Refused(423, taken.text) from None
        except (Refused, StorageError):
            raise
        except Exception as error:
            raise Unfinished(f"the upload cannot be finished: {error!r}") from error
    told = {"Upload-Offset": str(offset), **_expiry(upload)}
    if upload.size is None:
        told["Upload-Defer-Length"] = "1"
    else:
        told["Upload-Length"] = str(upload.size)
    if upload.metadata:
        told["Upload-Metadata"] = tell_metadata(upload.metadata)
    if upload.partial:
        told["Upload-Concat"] = "partial"
    return Answer(200, told, concat=upload.concat)


def _patch(request: Request, most: int) -> Steps[Answer]:
    headers = request.headers
    _check_type(headers)
    claimed = _number("Upload-Offset", headers.get("upload-offset"))
    checksum = _checksum(headers)
    upload = yield from _found(request)
    if upload.concat:
        raise Refused(403, "the bytes of this upload are those of its partial uploads")
    parts = [] if upload.state == FINISHED else (yield from _parts(upload))
    offset = (upload.size or 0) if upload.state == FINISHED else _size(parts)
    if claimed != offset:
        raise Refused(409, f"the upload is at offset {offset}, not {claimed}: ask by HEAD, and go on there")
    size = _declared(headers) if "upload-length" in headers else upload.size
    if upload.size is not None and size != upload.size:
        raise Refused(400, f"the upload's length is {upload.size}, and cannot be changed")
    if size is not None and size > most:
        raise _too_large(most)
    if size is not None and size < offset:
        raise Refused(400, f"Upload-Length is less than the {offset} bytes that are there")
    _check_length(_length(headers), offset, size, most)
    if upload.state == UPLOADING:
        if size != upload.size:
            upload = (yield Ask("set_size", (upload, size))) or (yield from _lost(upload, offset))
        upload, offset = yield from _receive(upload, parts, checksum, most)
    else:
        yield Receive(upload.name, 1, Slice(0, last=True, checksum=checksum))  # which refuses any byte
    upload = yield from _finished_if_complete(upload, offset)
    return Answer(204, {"Upload-Offset": str(offset), **_expiry(upload)})


def _delete(request: Request, most: int) -> Steps[Answer]:
    upload: Upload | None = yield Ask("find", (request.name,))
    if upload is None:
        raise _no_such_upload()
    while upload is not None:
        if upload.state == FINISHING:
            # Somebody may be about to finish it, so that it cannot be undone any more, only be forgotten.
            with contextlib.suppress(Exception):  # the store may be away, and an inspector may fail
                upload = yield from _finish(upload)
        if (yield from _remove(upload)):
            break
        upload = yield Ask("find", (request.name,))
    return Answer(204)


Handler = Callable[[Request, int], Steps[Answer]]
_OF_THE_LIST: dict[str, Handler] = {"POST": _create}
_OF_AN_UPLOAD: dict[str, Handler] = {"HEAD": _head, "PATCH": _patch, "DELETE": _delete}


# ---- uploads


def _found(request: Request) -> Steps[Upload]:
    upload: Upload | None = yield Ask("find", (request.name,))
    if upload is None:
        raise _no_such_upload()
    if upload.expired:
        raise Refused(410, "the upload has expired: begin it anew")
    return upload


def session_of(name: str, part: int) -> tuple[str, int]:
    """The session of the part with this index, and its number in it. A session has at most 10,000 parts."""
    full, index = divmod(part, MAX_PART_NUMBER)
    return f"{name}-{full}" if full else name, index + 1


def sessions_of(name: str) -> Iterator[str]:
    """The sessions of an upload, in order. Each but the last one that has parts is full."""
    return (session_of(name, full * MAX_PART_NUMBER)[0] for full in itertools.count())


def name_of(session: str) -> str:
    """The name of the upload whose session it may be."""
    return session.partition("-")[0]


def _parts(upload: Upload) -> Steps[list[TempPart]]:
    """The parts without a gap, in their order."""
    parts: list[TempPart] = []
    for session in sessions_of(upload.name):
        listed: list[TempPart] = yield Store("list_temp_parts", (session,))
        for number, part in enumerate(listed, 1):
            if part.part_number != number:
                return parts
            parts.append(part)
        if len(listed) < MAX_PART_NUMBER:
            break
    return parts


def _size(parts: list[TempPart]) -> int:
    return sum(part.size or 0 for part in parts)


def _offset(upload: Upload) -> Steps[int]:
    if upload.state == FINISHED or upload.concat:
        return upload.size or 0
    return _size((yield from _parts(upload)))


def part_size(offset: int, size: int | None) -> int:
    """How many bytes a part takes: so many that the parts of the largest upload can be joined by a store."""
    return max(PART, offset // 1000 if size is None else -(-size // _PARTS))


def _receive(upload: Upload, parts: list[TempPart], checksum: Checksum | None, most: int) -> Steps[tuple[Upload, int]]:
    """Store the body behind the parts that are there. Returns the upload as it is then, and its offset."""
    offset, count = _size(parts), len(parts)
    upload = yield from _look(upload, offset)
    while True:
        left = (most if upload.size is None else upload.size) - offset
        # With a checksum the body is one part: that is there whole or not at all.
        wanted = left if checksum is not None else min(left, part_size(offset, upload.size))
        taken = Slice(wanted, last=wanted == left, checksum=checksum)
        session, number = session_of(upload.name, count)
        try:
            part: TempPart | None = yield Receive(session, number, taken)
        except ObjectExists:
            raise Refused(409, "another request has stored these bytes: ask by HEAD, and go on there") from None
        if part is not None:
            offset, count = offset + taken.size, count + 1
            upload = yield from _look(upload, offset)
        if taken.ended:
            return upload, offset


def _look(upload: Upload, offset: int) -> Steps[Upload]:
    """Look whether the upload is still this request's."""
    mine: Upload | None = yield Ask("look", (upload,))
    if mine is not None:
        return mine
    return (yield from _lost(upload, offset))


def _lost(upload: Upload, offset: int) -> Steps[Upload]:
    """Raises ``Refused``, unless the upload is complete, and another request only finishes it."""
    now: Upload | None = yield Ask("find", (upload.name,))
    if now is not None and now.turn == upload.turn and now.size == offset and now.state in (FINISHING, FINISHED):
        return now
    if now is None or now.state in (FINISHED, EXPIRED):
        # Nobody needs its parts any more, and what this request has stored since would stay.
        yield from _delete_parts([upload.name])
    if now is None:
        raise _no_such_upload()
    if now.state == EXPIRED:
        raise Refused(410, "the upload has expired: begin it anew")
    raise Refused(409, "another request goes on with this upload: ask by HEAD where it is")


def _finished_if_complete(upload: Upload, offset: int) -> Steps[Upload]:
    if upload.partial or upload.size is None or offset != upload.size:
        return upload
    return (yield from _finish(upload))


def _finish(upload: Upload) -> Steps[Upload]:
    """Make the final object, unless it is there. Several requests may do this at once."""
    if upload.state == FINISHED:
        return upload
    if not (yield Ask("begin_finish", (upload,))):
        return (yield from _as_finished(upload))
    parts = yield from _all_parts(upload)
    if _size(parts) != upload.size:
        return (yield from _as_finished(upload))
    try:
        final = yield from _make_final(upload, parts)
    except (ObjectNotFound, ContentMismatch):
        return (yield from _as_finished(upload))
    except ObjectExists:
        raise Taken(409, "there is a different file of this name") from None
    except ContentRejected as rejected:
        return (yield from _reject(upload, rejected.message))
    finished: Upload | None = yield Ask("finish", (upload, final))
    if finished is None:
        raise _no_such_upload()
    yield from _delete_parts(upload.concat or [upload.name])
    return finished


def _all_parts(upload: Upload) -> Steps[list[TempPart]]:
    """The parts of an upload, or of those that it joins."""
    parts: list[TempPart] = []
    for name in upload.concat or [upload.name]:
        source: Upload | None = yield Ask("find", (name,))
        if source is not None:
            parts += yield from _parts(source)
    return parts


def _make_final(upload: Upload, parts: list[TempPart]) -> Steps[FinalObject]:
    described = {
        "size": upload.size,
        "overwrite": False,
        "content_type": upload.content_type,
        "inspect": (yield Ask("inspect", ())),
    }
    method, source = ("assemble", parts) if parts else ("put_final", b"")
    final: FinalObject = yield Store(method, (upload.file_id, source), described)
    return final


def _reject(upload: Upload, reason: str) -> Steps[Upload]:
    """Remove an upload whose bytes are not wanted. Raises ``Refused``, unless another request has finished it."""
    if not (yield Ask("reject", (upload,))):
        return (yield from _as_finished(upload))
    yield from _delete_parts(upload.concat or [upload.name])
    raise Refused(422, reason or "this file is not wanted here")


def _check_final(final: FinalObject) -> Steps[None]:
    """See that an object is still there: a client to whom a file was sent before asks for it, and sends nothing."""
    try:
        yield Store("stat_final", (final.bucket, final.key))
    except ObjectNotFound:
        raise Refused(410, "the file has been removed: begin it anew") from None
    except StorageError as error:
        if error.code != "bucket":  # that of the settings before
            raise


def _as_finished(upload: Upload) -> Steps[Upload]:
    """The upload that another request has finished, and whose parts are gone. Raises ``Refused`` if it is not."""
    now: Upload | None = yield Ask("find", (upload.name,))
    if now is None:
        raise _no_such_upload()
    if now.state == FINISHED:
        return now
    raise Refused(409, "the bytes of this upload are not there any more: begin it anew")


def _remove(upload: Upload) -> Steps[bool]:
    """Remove a row and its parts. False if it is in another state by now."""
    removed: bool = yield Ask("remove", (upload,))
    if removed:
        yield from _delete_parts([upload.name])
    return removed


def _delete_parts(names: Sequence[str]) -> Steps[None]:
    """Delete the parts of uploads that are over. What cannot be deleted is left to a sweep."""
    for name in names:
        with contextlib.suppress(StorageError):
            for session in sessions_of(name):
                if (yield Store("delete_temp_parts", (session,))) < MAX_PART_NUMBER:
                    break


def _no_such_upload() -> Refused:
    return Refused(404, "there is no such upload")


def _too_large(most: int) -> Refused:
    return Refused(413, f"an upload has at most {most} bytes", **{"Tus-Max-Size": str(most)})


def _expiry(upload: Upload) -> dict[str, str]:
    if upload.expires is None or upload.state != UPLOADING:
        return {}
    return {"Upload-Expires": format_datetime(upload.expires.astimezone(UTC), usegmt=True)}


# ---- headers


def _number(name: str, text: str | None) -> int:
    if text is None:
        raise Refused(400, f"the header {name} is missing")
    if not re.fullmatch("[0-9]+", text):
        raise Refused(400, f"{name} is a number of bytes, and nothing but digits")
    digits = text.lstrip("0")
    return int(digits or 0) if len(digits) < 20 else 10**19


def _length(headers: Mapping[str, str]) -> int | None:
    text = headers.get("content-length", "")
    return _number("Content-Length", text) if text else None


def _declared(headers: Mapping[str, str]) -> int | None:
    """The size of a new upload, None if it comes later."""
    if "upload-defer-length" not in headers:
        return _number("Upload-Length", headers.get("upload-length"))
    if headers["upload-defer-length"] != "1":
        raise Refused(400, "Upload-Defer-Length is 1")
    if "upload-length" in headers:
        raise Refused(400, "there is either an Upload-Length or an Upload-Defer-Length")
    return None


def _checksum(headers: Mapping[str, str]) -> Checksum | None:
    if "upload-checksum" not in headers:
        return None
    try:
        return Checksum.parse(headers["upload-checksum"])
    except ValueError as error:
        raise Refused(400, str(error)) from None


def _is_typed(headers: Mapping[str, str]) -> bool:
    return headers.get("content-type", "").partition(";")[0].strip().lower() == TYPE


def _has_bytes(headers: Mapping[str, str]) -> bool:
    """Whether a POST has bytes of the upload. Many clients send some other body, which means nothing."""
    return _is_typed(headers) and (_length(headers) not in (0, None) or "transfer-encoding" in headers)


def _check_type(headers: Mapping[str, str]) -> None:
    if not _is_typed(headers):
        raise Refused(415, f"the Content-Type of the body must be {TYPE}")


def _check_length(length: int | None, offset: int, size: int | None, most: int) -> None:
    """Refuse a body that is too long before a byte of it is read."""
    if size is None:
        if offset + (length or 0) > most:
            raise _too_large(most)
    elif offset + (length or 0) > size:
        raise Refused(413, f"the body has {length} bytes, and only {size - offset} are left of the upload")


_KEY = re.compile("[!-+\\--~]+")


def parse_metadata(header: str) -> dict[str, str]:
    """The metadata of an upload. Raises ``Refused``."""
    if len(header) > MAX_HEADER:
        raise Refused(431, f"Upload-Metadata has at most {MAX_HEADER} characters")
    metadata: dict[str, str] = {}
    for pair in header.split(",") if header.strip() else ():
        key, _, encoded = pair.strip(" ").partition(" ")
        if not _KEY.fullmatch(key):
            raise Refused(400, "a key of Upload-Metadata is visible ASCII, without commas")
        if key in metadata:
            raise Refused(400, f"Upload-Metadata has the key {key!a} twice")
        try:
            value = base64.b64decode(encoded.encode("ascii"), validate=True).decode()
        except (binascii.Error, ValueError):
            raise Refused(400, f"the value of {key!a} in Upload-Metadata is no base64 of a UTF-8 text") from None
        if "\0" in value:  # which no database takes
            raise Refused(400, f"the value of {key!a} in Upload-Metadata has a NUL")
        metadata[key] = value
    return metadata


def tell_metadata(metadata: Mapping[str, str]) -> str:
    """The header for metadata."""
    pairs = ((key, base64.b64encode(value.encode()).decode()) for key, value in metadata.items())
    return ",".join(f"{key} {value}".strip() for key, value in pairs)


_LAST = re.compile("([^/?#]+)/?(?:[?#].*)?")


def _names(urls: str) -> list[str]:
    """The names of uploads from their URLs, absolute or relative, with blanks between."""
    names = []
    for url in urls.split():
        match = _LAST.fullmatch(url[url.rstrip("/").rfind("/") + 1 :])
        if (name := as_name(match[1] if match else "")) is None:
            raise Refused(400, "Upload-Concat has the URLs of uploads, with blanks between them")
        names.append(name)
    if not names:
        raise Refused(400, "Upload-Concat names no partial uploads")
    return names


def as_name(text: str) -> str | None:
    """The name of an upload in a URL, None if it is none."""
    try:
        return UUID(text).hex if len(text) in (32, 36) else None
    except ValueError:
        return None
