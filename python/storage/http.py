"""Final objects as HTTP responses, bodies of requests as sources, signed requests, and errors as HTTP statuses."""

from __future__ import annotations

import base64
import functools
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast
from urllib.parse import quote

from asgiref.sync import iscoroutinefunction
from django.core.exceptions import ImproperlyConfigured, PermissionDenied, RequestDataTooBig
from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseNotAllowed,
    JsonResponse,
    StreamingHttpResponse,
)
from django.utils.cache import get_conditional_response
from django.utils.http import content_disposition_header, http_date, parse_http_date_safe
from django.utils.log import log_response

from .arguments import (
    CONTROL,
    MAX_FILENAME_CHARACTERS,
    check_content_type,
    check_expected,
    check_expires,
    check_flag,
    check_key,
    check_part_number,
    check_size,
)
from .conf import accel, get_storage_adapter
from .exceptions import (
    ContentMismatch,
    ContentRejected,
    InvalidArgument,
    InvalidKey,
    ObjectExists,
    ObjectNotFound,
    StorageCancelled,
    StorageError,
    StorageFull,
    StoragePermissionError,
    StorageTimeout,
    StorageUnavailable,
)
from .s3 import S3StorageAdapter
from .steps import Steps, run
from .streams import ObjectReader, known_length
from .types import FinalObject

if TYPE_CHECKING:
    from .aio import AsyncObjectReader

__all__ = [
    "DirectUpload",
    "RequestStream",
    "aobject_response",
    "object_response",
    "request_stream",
    "sign_request",
    "storage_errors",
]

METHODS = "GET", "HEAD"

CONDITIONS = "If-Match", "If-None-Match", "If-Modified-Since", "If-Unmodified-Since", "If-Range"

COMPUTED = {"content-length", "content-range", "etag", "last-modified", "repr-digest"}
"""Headers that follow from the object: a caller cannot set them, since conditions and ranges would not fit them."""

SANDBOX = "sandbox; default-src 'none'; img-src 'self' data:; media-src 'self'; style-src 'unsafe-inline'"
"""For what a browser shows: no script, no form, no request to elsewhere, and an origin of its own."""

PLAYER = SANDBOX.replace("sandbox;", "sandbox allow-same-origin;")
"""For audio and video: the page that a browser makes around one that is opened by itself asks for it once more, which
is refused to an origin of its own. Without scripts the origin is of no use to the file."""

DECLARED = {"text/html", "text/xml"}
"""Text that may declare its charset itself, which a charset in Content-Type would override."""

UNKNOWN = 'W/"unknown"'
"""Stands for the ETag of an object without a known digest: ``*`` matches it, and no ETag that we gave."""


# ---- responses


def object_response(
    request: HttpRequest,
    final: FinalObject,
    *,
    filename: str | None = None,
    as_attachment: bool = False,
    content_type: str | None = None,
    headers: Mapping[str, str] | None = None,
    mode: Literal["stream", "redirect", "accel"] = "stream",
) -> HttpResponseBase:
    """The answer to ``request``, a GET or HEAD for a final object: 200, 206, 304, 405, 412 or 416, as RFC 9110 has it.

    ``final`` names the object, and states the size and the digest that it must have, where they are not None. Its
    adapter is that of ``final.bucket``. ``filename`` is the name in Content-Disposition, the last segment of the key if
    None. With ``as_attachment`` a browser saves the object; else it may show it, in a sandbox. ``content_type`` is told
    in place of the type of ``final``, or of the stored object; text that is shown is said to be UTF-8 where the type
    has no charset. ``headers`` are added, and replace those that are set here, but for those that follow from the
    object, such as ETag and Content-Length.

    ``mode`` says who sends the bytes. "stream": this process, 256 KiB at a time; one Range is served, for several the
    whole is sent, and more than 100 are refused. "redirect": the store, by a URL of ``url_final``; nothing is asked of
    the store before. "accel": the server in front, told by the header ``STORAGE_ACCEL_HEADER`` and a path below
    ``STORAGE_ACCEL_PREFIX``; that server also answers ranges and conditions.

    The function asks the store before it returns, so it is synchronous: in an async view await ``aobject_response``.
    Under ASGI the bytes of the response are awaited, and the event loop is never blocked.

    Raises ``Http404`` if there is no such object, ``ContentMismatch`` if it is not what ``final`` states, other
    ``StorageError``s, and ``ImproperlyConfigured`` for a bucket that no adapter has and for a mode that is not set up;
    ``TypeError`` or ``ValueError`` for impossible arguments. All that before the response begins. If the bytes turn out
    to be damaged while they are sent, the connection ends before the last of them.
    """
    return run(_answer(request, "", final, filename, as_attachment, content_type, headers, mode))


async def aobject_response(
    request: HttpRequest,
    final: FinalObject,
    *,
    filename: str | None = None,
    as_attachment: bool = False,
    content_type: str | None = None,
    headers: Mapping[str, str] | None = None,
    mode: Literal["stream", "redirect", "accel"] = "stream",
) -> HttpResponseBase:
    """The same for async views. The response is for ASGI, or for Django's asynchronous test client.

    The arguments, what is raised and what is answered are those of ``object_response``.
    """
    from .aio import carried_out

    return await carried_out(_answer(request, "a", final, filename, as_attachment, content_type, headers, mode))


Ask = Callable[..., Any]
"""Calls a method of the adapter by its name without the ``a``. It gives the result, or something to await."""


def _answer(
    request: HttpRequest,
    twin: str,
    final: FinalObject,
    filename: str | None,
    as_attachment: bool,
    content_type: str | None,
    headers: Mapping[str, str] | None,
    mode: str,
) -> Steps[HttpResponseBase]:
    """The response, by the methods of an adapter whose names begin with ``twin``."""
    if not isinstance(final, FinalObject):
        raise TypeError(f"final is a FinalObject, not {type(final).__name__}")
    if mode not in _MODES:
        raise ValueError(f"mode is one of {', '.join(map(repr, _MODES))}, not {mode!r}")
    wish = _Wish(
        final.key.rpartition("/")[2] if filename is None else filename,
        check_flag("as_attachment", as_attachment),
        check_content_type(content_type),
        dict(headers or {}),
    )
    if computed := sorted(name for name in wish.headers if name.lower() in COMPUTED):
        raise ValueError(f"{', '.join(computed)}: these headers follow from the object")
    if request.method not in METHODS:
        return HttpResponseNotAllowed(METHODS)
    adapter = get_storage_adapter(bucket=final.bucket)

    def ask(name: str, *args: Any, **kwargs: Any) -> Any:
        return getattr(adapter, twin + name)(*args, **kwargs)

    try:
        return (yield from _MODES[mode](request, ask, final, wish))
    except ObjectNotFound as error:
        raise Http404("there is no such object") from error


@dataclass(frozen=True)
class _Wish:
    """What the caller wants to be told with the object."""

    filename: str
    as_attachment: bool
    content_type: str
    headers: dict[str, str]

    def tell(self, response: HttpResponseBase, known: FinalObject) -> None:
        """Set the headers that an object has, whoever sends it."""
        filename = _encodable(self.filename)
        content_type = self.content_type or known.content_type or "application/octet-stream"
        told = {
            "Content-Type": content_type if self.as_attachment else _with_charset(content_type),
            "Content-Disposition": content_disposition_header(self.as_attachment, filename),
            "X-Content-Type-Options": "nosniff",
            "Content-Security-Policy": None if self.as_attachment else _policy(content_type),
            "Cache-Control": "private",
            "ETag": _etag(known),
            "Last-Modified": None if known.modified is None else http_date(known.modified.timestamp()),
        }
        if known.sha256:
            told["Repr-Digest"] = f"sha-256=:{base64.b64encode(bytes.fromhex(known.sha256)).decode()}:"
        self.add(response, told)

    def add(self, response: HttpResponseBase, told: Mapping[str, str | None]) -> None:
        """Set headers, and those that the caller gave in place of them."""
        for name, value in (*told.items(), *self.headers.items()):
            if value is not None:
                response.headers[name] = value


def _encodable(name: str) -> str:
    """A name without lone surrogates, which one from a file system may have: they cannot be told in UTF-8."""
    return name.encode("utf-8", "replace").decode()


def _with_charset(content_type: str) -> str:
    """The type of what is shown. A browser takes text without a charset for an old one, never for UTF-8."""
    kind, _, parameters = content_type.lower().partition(";")
    if not kind.startswith("text/") or kind.strip() in DECLARED or "charset=" in parameters:
        return content_type
    return f"{content_type}; charset=utf-8"


def _policy(content_type: str) -> str:
    return PLAYER if content_type.lower().startswith(("audio/", "video/")) else SANDBOX


def _stream(request: HttpRequest, ask: Ask, final: FinalObject, wish: _Wish) -> Steps[HttpResponseBase]:
    known, asked = final, request.headers
    if request.method == "HEAD" or any(name in asked for name in CONDITIONS):
        known = yield from _look(ask, final)
        head = HttpResponse()
        _tell_whole(head, known, wish)
        answer = get_conditional_response(request, _etag(known) or UNKNOWN, _seconds(known), head)
        if answer is not head or request.method == "HEAD":
            return cast("HttpResponseBase", answer)
    span = None
    if "Range" in asked and _is_same(asked.get("If-Range"), known):
        if known.size is None:
            known = yield from _look(ask, final)
        span = _span(asked["Range"], known.size or 0)
        if span is not None and not span:
            return _unsatisfiable((yield from _look(ask, final)))
    if span is None:
        reader = yield ask("get_final_stream", known)
    else:
        reader = yield ask("get_final_stream", known, start=span.start, length=len(span))
    try:
        return _opened(request, reader, span, known, wish)
    except BaseException:
        reader.close()
        raise


def _opened(
    request: HttpRequest,
    reader: ObjectReader | AsyncObjectReader,
    span: range | None,
    known: FinalObject,
    wish: _Wish,
) -> HttpResponseBase:
    """The response that reads an open reader, and closes it."""
    known = replace(
        known,
        size=reader.size if span is None else known.size,
        sha256=reader.sha256 or known.sha256,
        content_type=known.content_type or reader.content_type,
        modified=reader.modified,
    )
    response = StreamingHttpResponse(_pieces(request, reader), status=200 if span is None else 206)
    _tell_whole(response, known, wish)
    if span is not None:
        response.headers["Content-Length"] = str(len(span))
        response.headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{known.size}"
    return response


def _pieces(request: HttpRequest, reader: ObjectReader | AsyncObjectReader) -> Any:
    """The pieces of a stream, for ASGI as an async iterator. Their ``close`` closes the stream."""
    if not isinstance(reader, ObjectReader):
        return reader.achunks()
    if not hasattr(request, "scope"):
        return reader.chunks()
    from .aio import AsyncObjectReader

    return AsyncObjectReader(reader).achunks()


def _tell_whole(response: HttpResponseBase, known: FinalObject, wish: _Wish) -> None:
    """Set the headers of an object that is sent by this process."""
    response.headers["Accept-Ranges"] = "bytes"
    response.headers["Content-Length"] = str(known.size)
    # So that GZipMiddleware keeps off: of a range it would make a piece of nothing, and no digest would be right.
    response.headers["Content-Encoding"] = "identity"
    wish.tell(response, known)


def _unsatisfiable(known: FinalObject) -> HttpResponseBase:
    told = {"Content-Type": "text/plain", "Accept-Ranges": "bytes", "Content-Range": f"bytes */{known.size}"}
    return HttpResponse(status=416, headers=told)


def _redirect(request: HttpRequest, ask: Ask, final: FinalObject, wish: _Wish) -> Steps[HttpResponseBase]:
    url = yield ask(
        "url_final",
        final,
        method="HEAD" if request.method == "HEAD" else "GET",
        filename=_for_url(wish.filename or final.key.rpartition("/")[2]) if wish.as_attachment else None,
        content_type=wish.content_type or final.content_type or None,
    )
    # No HttpResponseRedirect, which refuses URLs as long as those with a session token are.
    response = HttpResponse(status=302)
    wish.add(response, {"Location": url, "Cache-Control": "no-store"})
    return response


def _for_url(name: str) -> str:
    """A name as a URL may have it. It keeps its end, by which systems know the type of a file."""
    return CONTROL.sub("_", _encodable(name))[-MAX_FILENAME_CHARACTERS:]


def _accel(request: HttpRequest, ask: Ask, final: FinalObject, wish: _Wish) -> Steps[HttpResponseBase]:
    header, prefix = accel()
    known = yield from _look(ask, final)
    response = HttpResponse()
    wish.tell(response, known)
    response.headers[header] = prefix + quote(known.key)
    return response


_MODES: dict[str, Callable[[HttpRequest, Ask, FinalObject, _Wish], Steps[HttpResponseBase]]] = {
    "stream": _stream,
    "redirect": _redirect,
    "accel": _accel,
}


def _look(ask: Ask, final: FinalObject) -> Steps[FinalObject]:
    """The object as it is now. Raises ``ContentMismatch`` if that is not what ``final`` states."""
    now: FinalObject = yield ask("stat_final", final)
    for name, stated in check_expected(final.size, final.sha256).items():
        found = getattr(now, name)
        if found is not None and found != stated:
            raise ContentMismatch(f"the object's {name} is {found}, not {stated}", op="stat", key=final.key)
    return replace(now, sha256=now.sha256 or final.sha256, content_type=final.content_type or now.content_type)


def _etag(known: FinalObject) -> str | None:
    return f'"sha256-{known.sha256}"' if known.sha256 else None


def _seconds(known: FinalObject) -> int | None:
    """The time in Last-Modified, in seconds since 1970."""
    return None if known.modified is None else int(known.modified.timestamp())


def _is_same(condition: str | None, known: FinalObject) -> bool:
    """Whether the condition in If-Range holds: the ETag, or exactly the time."""
    if condition is None or condition.strip() == _etag(known):
        return True
    when = parse_http_date_safe(condition.strip())
    return when is not None and when == _seconds(known)


_ONE_RANGE = re.compile("([0-9]*)-([0-9]*)")
_ENDLESS = 10**19
"""For numbers with more digits: no object is as large, and Python does not convert any number of digits."""


MAX_RANGES = 100


def _number(digits: str) -> int:
    digits = digits.lstrip("0")
    return int(digits or 0) if len(digits) < 20 else _ENDLESS


def _span(header: str, size: int) -> range | None:
    """The bytes that a Range header asks for; empty if there are none such.

    None means the whole: for several ranges, other units, and what is no range. Nobody in good faith asks for more
    than ``MAX_RANGES``: they are refused, as RFC 9110 allows.
    """
    unit, _, ranges = header.partition("=")
    listed = [one for one in (each.strip(" \t") for each in ranges.split(",")) if one]
    if unit.strip().lower() != "bytes":
        return None
    if len(listed) > MAX_RANGES:
        return range(0)
    match = _ONE_RANGE.fullmatch(listed[0]) if len(listed) == 1 else None
    if not match or listed[0] == "-":
        return None
    first, last = match.groups()
    if not first:
        if not (count := _number(last)):
            return range(0)
        return range(max(0, size - count), size) if size else None  # of nothing, the whole is the last bytes
    start, stop = _number(first), _number(last) + 1 if last else size
    if last and stop <= start:
        return None
    return range(start, min(stop, size)) if start < size else range(0)


# ---- requests


class RequestStream:
    """The body of ``request``, at most ``max_size`` bytes: see ``request_stream``.

    ``length`` is in bytes, and None if nobody has told it.
    """

    def __init__(self, request: HttpRequest, max_size: int | None = None) -> None:
        request = getattr(request, "_request", request)  # that which Django REST framework wraps
        if not isinstance(request, HttpRequest):
            raise TypeError(f"request is an HttpRequest, not {type(request).__name__}")
        self._request = request
        self.length = known_length(request)
        self._most = None if max_size is None else check_size(max_size)
        self._done = 0
        self._check_size(self.length or 0)

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to ``size`` bytes; all that is left if ``size`` is negative or None."""
        size = -1 if size is None else size
        data: bytes = self._request.read(size)
        self._done += len(data)
        self._check_size(self._done)
        ended = size < 0 or (size > 0 and not data)
        if ended and self.length is not None and self._done < self.length:
            raise ContentMismatch(f"the body ended after {self._done} of its {self.length} bytes", op="put")
        return data

    def _check_size(self, size: int) -> None:
        if self._most is not None and size > self._most:
            raise _too_large(self._most, "put")


def _too_large(most: int, op: str) -> StorageError:
    return StorageError(f"more than {most:,} bytes are not taken", code="too_large", op=op)


def request_stream(request: HttpRequest, *, max_size: int | None = None) -> RequestStream:
    """The body of ``request``, a PUT or POST, as a stream that knows its ``length``, for whatever reads streams.

    Its ``read`` raises ``ContentMismatch`` if the body ends before that. ``put_temp_part`` and ``put_final`` treat a
    request in this way by themselves.

    ``max_size`` is the most bytes that are taken.

    Raises ``StorageError``: with the code "too_large" for a larger body, at once if its length is known and else by
    ``read``; with the code "no_length" if the body is chunked and the server cannot give it, or if its length is no
    number; with the code "source" if the body was read before. Raises ``TypeError`` for other things.
    """
    return RequestStream(request, max_size)


# ---- errors

STATUSES: dict[type[StorageError], HTTPStatus] = {
    ObjectNotFound: HTTPStatus.NOT_FOUND,
    ObjectExists: HTTPStatus.CONFLICT,
    InvalidKey: HTTPStatus.BAD_REQUEST,
    InvalidArgument: HTTPStatus.BAD_REQUEST,
    ContentMismatch: HTTPStatus.BAD_REQUEST,
    ContentRejected: HTTPStatus.UNPROCESSABLE_ENTITY,
    StoragePermissionError: HTTPStatus.FORBIDDEN,
    StorageFull: HTTPStatus.INSUFFICIENT_STORAGE,
    StorageTimeout: HTTPStatus.GATEWAY_TIMEOUT,
    StorageUnavailable: HTTPStatus.SERVICE_UNAVAILABLE,
    StorageCancelled: HTTPStatus.SERVICE_UNAVAILABLE,
}

CODES = {"no_length": HTTPStatus.LENGTH_REQUIRED, "too_large": HTTPStatus.REQUEST_ENTITY_TOO_LARGE}
"""Those of errors whose code says more than their class."""

CLIENTS = {
    HTTPStatus.NOT_FOUND,
    HTTPStatus.CONFLICT,
    HTTPStatus.BAD_REQUEST,
    HTTPStatus.UNPROCESSABLE_ENTITY,
    *CODES.values(),
}
"""Statuses whose reason the client is told; what is wrong with the store is only logged."""

View = TypeVar("View", bound=Callable[..., Any])


def storage_errors(view: View) -> View:
    """Decorates a ``view``, sync or async, or the ``dispatch`` of a class.

    A ``StorageError`` of it becomes an answer in JSON, and is logged once.

    The statuses: 404 for ``ObjectNotFound``, 409 for ``ObjectExists``, 400 for ``InvalidKey``, ``InvalidArgument`` and
    ``ContentMismatch``, 422 for ``ContentRejected``, 411 for a body without a length, 413 for one that is too large,
    403 for ``StoragePermissionError``, 507 for ``StorageFull``, 504 for ``StorageTimeout``, 503 for
    ``StorageUnavailable`` and ``StorageCancelled``, 500 for others. The answer is ``{"error": text, "code": code}``.
    Other exceptions pass through. So does what happens while a response is sent.
    """

    @functools.wraps(view)
    def sync_view(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        try:
            answer = view(request, *args, **kwargs)
        except StorageError as error:
            return _error_response(request, error)
        return awaited(request, answer) if isawaitable(answer) else answer

    async def awaited(request: HttpRequest, answer: Awaitable[Any]) -> Any:
        try:
            return await answer
        except StorageError as error:
            return _error_response(request, error)

    @functools.wraps(view)
    async def async_view(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        answer = sync_view(request, *args, **kwargs)
        return await answer if isawaitable(answer) else answer

    return cast("View", async_view if iscoroutinefunction(view) else sync_view)


def _error_response(request: HttpRequest, error: StorageError) -> HttpResponse:
    kinds = (status for kind, status in STATUSES.items() if isinstance(error, kind))
    status = CODES.get(error.code) or next(kinds, HTTPStatus.INTERNAL_SERVER_ERROR)
    text = error.message if status in CLIENTS else status.phrase
    response = JsonResponse({"error": text, "code": error.code}, status=status)
    trace = error if status >= HTTPStatus.INTERNAL_SERVER_ERROR else None
    log_response("%s: %s", status.phrase, error, response=response, request=request, exception=trace)
    return response


# ---- direct uploads


@dataclass(frozen=True, slots=True)
class DirectUpload:
    """One request of an upload from a browser to S3, as the client describes it: see ``sign_request``.

    ``key`` is the whole key of the object, which is below the prefix; ``method`` PUT, POST, GET or DELETE.
    ``upload_id`` names the multipart upload that the request is about; it is None for a PUT of the whole, and for the
    POST that begins an upload. ``part_number`` is that of a part, else None. ``size`` is that of the body in bytes, or
    for the POST that begins an upload that of the file, and ``content_type`` that of the file; None if the client does
    not tell them.
    """

    key: str
    method: str
    upload_id: str | None
    part_number: int | None
    size: int | None
    content_type: str | None

    @property
    def begins(self) -> bool:
        """Whether it is the first request for an object."""
        return self.upload_id is None


def sign_request(
    request: HttpRequest,
    *,
    authorize: Callable[[HttpRequest, DirectUpload], bool],
    prefix: str = "",
    max_size: int | None = None,
    overwrite: bool = False,
    expires: int = 3600,
    alias: str = "default",
) -> HttpResponseBase:
    """A view that signs one request by which a browser uploads a file directly to S3. It speaks what Uppy speaks.

    The request is a POST of JSON: ``method`` and ``key``, and where they apply ``uploadId``, ``partNumber``,
    ``contentType`` and ``size`` (bytes). It may be a PUT of a whole file, or one of the requests of a multipart upload:
    POST begins it, PUT with a number stores a part, GET lists the parts, POST with the upload id completes it, DELETE
    aborts it. The answer is ``{"url": ..., "key": ..., "headers": {...}}``: where to send the request, the whole key,
    and the headers to send with it. What is not allowed is an answer in JSON with a status of 4xx, and nothing is
    signed.

    ``authorize(request, upload)`` is asked each time: only True allows it; False and ``PermissionDenied`` are 403.
    ``prefix`` is the folder of the final area in which all keys are. The first request for an object may name it
    without that; ``key`` in the answer then is the one to go on with.

    ``max_size`` is the most bytes that a file may have. With it, the client must tell the ``size`` with the PUT of a
    whole file. A size that is told with a PUT is signed, so S3 takes no body of another size. Nothing in S3 limits the
    sum of the parts: look at the size that ``adopt_final`` gives.

    An object that is there is not replaced (S3 answers 412), unless ``overwrite``. With the option
    ``conditional_writes="look"`` of the adapter that is looked up here, before the first request is signed. A URL is
    valid for ``expires`` seconds (1 to 604,800). ``alias`` names the adapter.

    Raises ``ImproperlyConfigured`` if that is not on S3, and ``TypeError`` or ``ValueError`` for impossible options.
    """
    folder = check_key(prefix.strip("/")) + "/" if prefix.strip("/") else ""
    limit = None if max_size is None else check_size(max_size)
    check_expires(expires)
    check_flag("overwrite", overwrite)
    if iscoroutinefunction(authorize):
        raise TypeError("authorize is a plain function: nothing awaits it")
    adapter = get_storage_adapter(alias)
    if not isinstance(adapter, S3StorageAdapter):
        raise ImproperlyConfigured(
            f"sign_request: the adapter {alias!r} is {adapter!r}, and browsers upload directly to S3 alone"
        )
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    return _signed(request, adapter, folder, limit, authorize, overwrite=overwrite, expires=expires)


@storage_errors
def _signed(
    request: HttpRequest,
    adapter: S3StorageAdapter,
    folder: str,
    limit: int | None,
    authorize: Callable[[HttpRequest, DirectUpload], bool],
    **options: Any,
) -> HttpResponseBase:
    upload = _described(_json_of(request), adapter.prefix, folder)
    if limit is not None and upload.method == "PUT" and upload.begins and upload.size is None:
        raise InvalidArgument("size is needed here: how many bytes the file has", op="sign")
    if limit is not None and upload.size is not None and upload.size > limit:
        raise _too_large(limit, "sign")
    try:
        reason = "" if check_flag("what authorize gives", authorize(request, upload)) else "this is not allowed"
    except PermissionDenied as error:
        reason = str(error) or "this is not allowed"
    if reason:
        return JsonResponse({"error": reason, "code": "denied"}, status=HTTPStatus.FORBIDDEN)
    url, headers = adapter.sign(
        upload.key,
        method=upload.method,
        upload_id=upload.upload_id or "",
        part_number=upload.part_number or 0,
        size=upload.size,
        content_type=upload.content_type or "",
        **options,
    )
    return JsonResponse({"url": url, "key": upload.key, "headers": headers}, headers={"Cache-Control": "no-store"})


def _json_of(request: HttpRequest) -> dict[str, Any]:
    try:
        body = json.loads(request.body)
    except RequestDataTooBig:
        raise StorageError("the body is larger than such a request is", code="too_large", op="sign") from None
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise InvalidArgument("the body is JSON: a method, a key, and what goes with them", op="sign")
    return body


def _described(body: dict[str, Any], area: str, folder: str) -> DirectUpload:
    """What is asked for, checked. Keys of a first request may lack the prefix of the area and the folder."""
    method, key, upload_id = _text(body, "method"), _text(body, "key") or "", _text(body, "uploadId")
    number, size, content_type = _whole(body, "partNumber"), _whole(body, "size"), _text(body, "contentType")
    if (method, upload_id is not None, number is not None) not in _REQUESTS:
        raise InvalidArgument("no request of an upload has such a method, uploadId and partNumber together", op="sign")
    if upload_id is not None and not _UPLOAD_ID.fullmatch(upload_id):
        raise InvalidArgument("uploadId is the one that S3 has given", op="sign")
    if number is not None:
        check_part_number(number, "sign")
    if not key.startswith(area + folder):
        if upload_id is not None:
            raise InvalidKey(f"the keys of uploads begin with {area + folder!r}", op="sign")
        key = area + folder + key
    check_key(key.removeprefix(area), "sign")
    return DirectUpload(
        key,
        cast("str", method),
        upload_id,
        number,
        None if size is None else check_size(size, "sign"),
        check_content_type(content_type, "sign") or None,
    )


_REQUESTS = {
    ("PUT", False, False),
    ("POST", False, False),
    ("GET", True, False),
    ("PUT", True, True),
    ("POST", True, False),
    ("DELETE", True, False),
}
"""The methods, with or without an upload id and a part number."""

_UPLOAD_ID = re.compile("[!-~]{1,1024}")


def _text(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidArgument(f"{name} is a text", op="sign")
    return value


def _whole(body: dict[str, Any], name: str) -> int | None:
    value = body.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise InvalidArgument(f"{name} is a whole number", op="sign")
    return value
