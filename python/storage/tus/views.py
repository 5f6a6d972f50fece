"""The view of uploads, for any server. It reads the stream of the request, never its ``body``."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Callable
from typing import Any

from django.core.handlers.asgi import ASGIRequest
from django.db import close_old_connections, connections, transaction
from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt

from storage import get_storage_adapter
from storage.base import StorageAdapter
from storage.steps import run

from .core import Ask, Receive, Refused, Slice, Step, Store
from .front import BLOCK, FAILURES, LINGER_BYTES, LINGER_SECONDS, PASSED, answered, asked, failed, told
from .rows import Rows

logger = logging.getLogger("storage.tus")


# The header Tus-Resumable, which no form can send, protects from forged requests.
@csrf_exempt
def uploads(request: HttpRequest, name: str = "", **_: Any) -> HttpResponse:
    """Answer a request of tus, for the list of uploads or for one. Other parts of the URL are for hooks."""
    body = _Body(request)
    try:
        rows = Rows(request)
        if hasattr(request, PASSED):
            response = HttpResponse(status=204)
            setattr(response, PASSED, (name, rows))
            return response
        _warn_of_server(request)
        adapter = get_storage_adapter()
        answer = run(answered(asked(request, name), lambda step: _take(step, rows, adapter, body)))
        response = told(request, answer, rows.response)
    except FAILURES as error:
        response = failed(request, error)
    except Exception:
        body.linger()  # Django answers it
        raise
    if response.status_code >= 400:  # when it is sent, something of a body that is still coming is read
        response._resource_closers.append(body.linger)  # type: ignore[attr-defined]
    return response


# A transaction would last as long as a client takes, and hide the row from the requests beside it.
for database in connections:
    transaction.non_atomic_requests(database)(uploads)


def _warn_of_server(request: HttpRequest) -> None:
    meta = request.META
    if isinstance(request, ASGIRequest):
        _warn(
            "Under ASGI, Django keeps the body of a request in a file until it has come whole, and drops it if the"
            " client goes away. In asgi.py, set application = storage.tus.asgi.TusApplication(get_asgi_application())."
        )
    elif str(meta.get("SERVER_SOFTWARE", "")).startswith("gunicorn") and not meta.get("wsgi.multithread"):
        _warn(
            "gunicorn kills its sync workers while they receive a large upload: start it with -k gthread --threads 64."
        )


@functools.cache
def _warn(text: str) -> None:
    """Warn once in each process."""
    logger.warning(text)


class _Body:
    """The body of a request, for a thread that waits."""

    def __init__(self, request: HttpRequest) -> None:
        self.cut = False
        self._read: Callable[[int], bytes] = request.read
        length = str(request.META.get("CONTENT_LENGTH") or "")
        self._left: int | None = int(length) if length.isascii() and length.isdigit() else 0
        self.unreadable = False
        environ = getattr(request, "environ", {})
        self._connection = environ.get("gunicorn.socket")
        if not length and "HTTP_TRANSFER_ENCODING" in request.META:
            self.unreadable = bool(environ) and not environ.get("wsgi.input_terminated")
            self._left = None  # chunked
            if environ and not self.unreadable:
                self._read = environ["wsgi.input"].read  # which Django takes for empty

    def read(self, size: int) -> bytes:
        """Up to so many bytes; b"" at the end, also if the client breaks off."""
        if self.unreadable:
            raise Refused(411, "the body is chunked, and the server cannot read it: send a Content-Length")
        if self.cut or self._left == 0:
            return b""
        try:
            data = self._read(min(size, BLOCK))
        except Exception:  # servers have their own for a chunked body that ends within a chunk
            data = b""
            self.cut = True
        if self._left is not None:
            self._left -= len(data)
            self.cut = self.cut or (not data and self._left > 0)
        return data

    def linger(self) -> None:
        """Read on a little."""
        self._wait_at_most(LINGER_SECONDS)
        until, read = time.monotonic() + LINGER_SECONDS, 0
        while not self.unreadable and read < LINGER_BYTES and time.monotonic() < until:
            if not (data := self.read(BLOCK)):
                break
            read += len(data)
        self._wait_at_most(None)

    def _wait_at_most(self, seconds: float | None) -> None:
        """Let a client that sends nothing hold the thread no longer, if the server lends its connection."""
        if self._connection is not None:
            self._connection.settimeout(seconds)


class _Part:
    """What a part takes of a body, as a stream."""

    def __init__(self, body: _Body, taken: Slice) -> None:
        self._body, self._slice = body, taken
        self._first = self._next(BLOCK)

    def __bool__(self) -> bool:
        return bool(self._first)

    def read(self, size: int = -1, /) -> bytes:
        first, self._first = self._first, b""
        return first or self._next(BLOCK if size < 0 else size)

    def _next(self, most: int) -> bytes:
        if not (wanted := self._slice.wants(most)):
            return b""
        data = self._body.read(wanted)
        return self._slice.take(data, cut=self._body.cut)


def _take(step: Step, rows: Rows, adapter: StorageAdapter, body: _Body) -> Any:
    if isinstance(step, Ask):
        return getattr(rows, step.method)(*step.arguments)
    close_old_connections()  # this may take long, and some databases close a connection that rests
    try:
        match step:
            case Store(method, arguments, options):
                return getattr(adapter, method)(*arguments, **options)
            case Receive(session, number, taken):
                part = _Part(body, taken)
                return adapter.put_temp_part(session, number, part, overwrite=False) if part else None
    finally:
        close_old_connections()
