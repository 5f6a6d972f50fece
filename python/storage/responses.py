"""Final objects as HTTP responses."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, cast
from urllib.parse import quote

from django.http import (
    Http404,
    HttpRequest,
    HttpResponse,
    HttpResponseBase,
    HttpResponseNotAllowed,
    StreamingHttpResponse,
)
from django.utils.cache import get_conditional_response
from django.utils.http import http_date, parse_http_date_safe

from .arguments import CONTROL, MAX_FILENAME_CHARACTERS, check_content_type, check_expected, check_flag
from .conf import accel, get_storage_adapter
from .disposition import content_disposition
from .exceptions import ContentMismatch, ObjectNotFound
from .steps import Steps, run
from .streams import ObjectReader
from .types import FinalObject

if TYPE_CHECKING:
    from .aio import AsyncObjectReader

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
            "Content-Disposition": content_disposition(self.as_attachment, filename),
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
