"""Uploads under ASGI, before Django has spooled their bodies: ``TusApplication(get_asgi_application())``.

Nothing here imports models, because asgi.py imports this before ``get_asgi_application()`` has loaded the apps.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from inspect import unwrap
from io import BytesIO
from typing import TYPE_CHECKING, Any, TypeVar, cast

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.core.handlers.exception import response_for_exception
from django.core.signals import request_started
from django.db import close_old_connections
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.urls import Resolver404, resolve, set_script_prefix
from django.utils import translation
from django.utils.cache import patch_vary_headers

from storage import get_storage_adapter
from storage.aio import carried_out
from storage.base import StorageAdapter

from .core import Ask, Receive, Slice, Step, Store
from .front import BLOCK, FAILURES, LINGER_BYTES, LINGER_SECONDS, PASSED, answered, asked, failed, told

if TYPE_CHECKING:
    from .rows import Rows

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
ASGIReceive = Callable[[], Awaitable[Message]]
ASGISend = Callable[[Message], Awaitable[None]]
T = TypeVar("T")
Application = Callable[[Scope, ASGIReceive, ASGISend], Awaitable[None]]


class TusApplication:
    """Answers requests for the URLs of ``storage.tus``, and hands on all others to ``application``.

    A request passes the project's middleware before its body is read: ``request.user`` is the same as in a view, and
    what the middleware answers by itself is the answer. For the middleware the response is an empty one with the status
    204; the headers that it adds to that are sent. No thread waits for a client.
    """

    def __init__(self, application: Application) -> None:
        self._application = application
        self._gate = _Gate()

    async def __call__(self, scope: Scope, receive: ASGIReceive, send: ASGISend) -> None:
        ours = scope["type"] == "http" and _is_ours(scope)
        await (self._gate if ours else self._application)(scope, receive, send)


def _is_ours(scope: Scope) -> bool:
    from .views import uploads

    path = scope["path"].removeprefix(get_script_prefix(scope))
    path = path if path.startswith("/") else f"/{path}"
    with translation.override(translation.get_language_from_path(path)):  # of i18n_patterns
        try:
            return unwrap(resolve(path).func) is unwrap(uploads)
        except Resolver404:
            return False


class _Gate(ASGIHandler):
    """Django's handler. What it gets from the middleware or the view is the answer, unless the request has passed."""

    async def __call__(self, scope: Scope, receive: ASGIReceive, send: ASGISend) -> None:  # type: ignore[override]
        body = _Body(receive)
        async with ThreadSensitiveContext():
            set_script_prefix(get_script_prefix(scope))
            await request_started.asend(sender=self.__class__, scope=scope)
            request, refused = self.create_request(scope, BytesIO())
            response: HttpResponseBase
            if request is None:
                response = cast("HttpResponse", refused)
            else:
                setattr(request, PASSED, True)
                response = await self.run_get_response(request)
            if response.streaming:
                await self._send(response, send, body)
            await sync_to_async(response.close)()
        if request is not None and hasattr(response, PASSED):
            response = await self._answered(request, cast("HttpResponse", response), body)
        if not response.streaming:
            await self._send(response, send, body)

    async def _answered(self, request: HttpRequest, gate: HttpResponse, body: _Body) -> HttpResponse:
        name, rows = getattr(gate, PASSED)
        try:
            adapter = get_storage_adapter()
            answer = await carried_out(answered(asked(request, name), lambda step: _take(step, rows, adapter, body)))
            response = await _in_thread(told)(request, answer, rows.response)
        except FAILURES as error:
            response = await _in_thread(failed)(request, error)
        except Exception as error:
            response = await sync_to_async(response_for_exception)(request, error)
        patch_vary_headers(response, [one for one in gate.get("Vary", "").split(", ") if one])
        for header, value in gate.headers.items():
            if header not in ("Content-Type", "Content-Length"):
                response.headers.setdefault(header, value)
        response.cookies.update(gate.cookies)
        return response

    async def _send(self, response: HttpResponseBase, send: ASGISend, body: _Body) -> None:
        """Send a response. Before one that is no success ends, something of a body that is still coming is read."""

        async def lingering(message: Mapping[str, Any]) -> None:
            last = message["type"] == "http.response.body" and not message.get("more_body")
            if last and response.status_code >= 300:
                await send({**message, "more_body": True})
                await body.linger()
                message = {"type": "http.response.body"}
            await send(dict(message))

        await self.send_response(response, lingering)


class _Body:
    """The body of a request, for a coroutine."""

    def __init__(self, receive: ASGIReceive) -> None:
        self._receive = receive
        self._pending, self._ended = memoryview(b""), False  # so that nothing is copied twice
        self.cut = False

    async def read(self, size: int) -> bytes:
        """Up to so many bytes; b"" at the end, also if the client breaks off."""
        while not self._pending and not self._ended:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self.cut = self._ended = True
            else:
                self._pending = memoryview(message.get("body", b""))
                self._ended = not message.get("more_body")
        data, self._pending = bytes(self._pending[:size]), self._pending[size:]
        return data

    async def linger(self) -> None:
        """Read on a little."""
        try:
            async with asyncio.timeout(LINGER_SECONDS):
                read = 0
                while read < LINGER_BYTES and (data := await self.read(BLOCK)):
                    read += len(data)
        except TimeoutError:
            pass


class _Part:
    """What a part takes of a body, as an asynchronous stream."""

    def __init__(self, body: _Body, taken: Slice) -> None:
        self._body, self._slice = body, taken
        self._first = b""

    async def begin(self) -> bool:
        """Whether there is a first byte."""
        self._first = await self.aread(BLOCK)
        return bool(self._first)

    async def aread(self, size: int = -1, /) -> bytes:
        if self._first:
            first, self._first = self._first, b""
            return first
        if not (wanted := self._slice.wants(BLOCK if size < 0 else size)):
            return b""
        data = await self._body.read(wanted)
        return self._slice.take(data, cut=self._body.cut)


async def _take(step: Step, rows: Rows, adapter: StorageAdapter, body: _Body) -> Any:
    match step:
        case Ask(method, arguments):
            return await _in_thread(_ask)(getattr(rows, method), arguments)
        case Store(method, arguments, options):
            return await getattr(adapter, f"a{method}")(*arguments, **options)
        case Receive(session, number, taken):
            part = _Part(body, taken)
            if not await part.begin():
                return None
            return await adapter.aput_temp_part(session, number, part, overwrite=False)


def _in_thread(function: Callable[..., T]) -> Callable[..., Awaitable[T]]:
    """The function in one of the threads that all requests share: the database, or where a log goes, may be slow."""
    return sync_to_async(function, thread_sensitive=False)


def _ask(method: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """Ask the rows, and leave no connection in the thread."""
    close_old_connections()
    try:
        return method(*arguments)
    finally:
        close_old_connections()
