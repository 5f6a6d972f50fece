"""What both front ends share: requests of Django become those of the protocol, and its answers become responses."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from http import HTTPStatus
from typing import Any

from django.conf import settings
from django.db import InterfaceError, OperationalError
from django.http import HttpRequest, HttpResponse
from django.utils.cache import patch_vary_headers
from django.utils.encoding import escape_uri_path
from django.utils.http import escape_leading_slashes
from django.utils.log import log_response

from storage.exceptions import StorageCancelled, StorageError, StorageFull, StorageTimeout, StorageUnavailable
from storage.steps import Steps

from . import conf, core
from .core import Answer, Request, Step

BLOCK = 64 * 1024
"""The bytes of a body that are read at once. What a broken connection has not filled of them may be lost."""

LINGER_BYTES = 64 * 1024 * 1024
LINGER_SECONDS = 10.0
"""How much of a body that is refused is still read after the answer: a client that is sending would else see only that
the connection is reset."""

PASSED = "storage_tus_passed"
"""The attribute of a request that the ASGI application takes over once it has passed the middleware. What it needs for
that, the name in the URL and the rows, is the attribute of the response."""

REASONS = {460: "Checksum Mismatch"}

EXPOSED = (
    "Location, Tus-Resumable, Tus-Version, Tus-Extension, Tus-Max-Size, Tus-Checksum-Algorithm, Upload-Concat,"
    " Upload-Defer-Length, Upload-Expires, Upload-Length, Upload-Metadata, Upload-Offset"
)
ALLOWED = (
    "Authorization, Content-Type, Tus-Resumable, Upload-Checksum, Upload-Concat, Upload-Defer-Length, Upload-Length,"
    " Upload-Metadata, Upload-Offset, X-CSRFToken, X-HTTP-Method-Override, X-Request-ID, X-Requested-With"
)


def asked(request: HttpRequest, name: str) -> Request:
    """The request as the protocol sees it. A name that no upload has is one that it does not find."""
    known = core.as_name(name) or NOBODYS if name else ""
    headers = {key.lower(): value.strip(" \t") for key, value in request.headers.items()}  # some servers leave blanks
    return Request(request.method or "", known, headers)


NOBODYS = "0" * 32


def answered(request: Request, take: Callable[[Step], Any]) -> Steps[Answer]:
    """The answer of the protocol. ``take`` takes a step of it, or gives something to await that does."""
    protocol = core.respond(request, conf.max_size())
    try:
        step = next(protocol)
        while True:
            try:
                value = yield take(step)
            except Exception as error:
                step = protocol.throw(error)
            else:
                step = protocol.send(value)
    except StopIteration as done:
        answer: Answer = done.value
        return answer


def told(request: HttpRequest, answer: Answer, own: HttpResponse | None) -> HttpResponse:
    """The response that gives an answer, in which a success takes what the project's ``own`` response has to say."""
    if own is not None and answer.status < 400:
        return _joined(request, answer, own)
    return _response(request, answer)


def _response(request: HttpRequest, answer: Answer, error: Exception | None = None) -> HttpResponse:
    """A response of our own. It is logged if it is a refusal, with the ``error`` that is the reason."""
    text = f"{answer.text}\n" if answer.text and request.method != "HEAD" else ""
    response = HttpResponse(text, status=answer.status, reason=REASONS.get(answer.status))
    del response.headers["Content-Type"]
    if answer.text:
        response.headers["Content-Type"] = "text/plain; charset=utf-8"
        response.headers["X-Content-Type-Options"] = "nosniff"
    _tell(request, response, answer)
    if answer.status >= 400:
        why, level = (answer.text, None) if error is None else (error, "error")
        log_response("%s: %s", why, request.path, response=response, request=request, level=level, exception=error)
    return response


def _joined(request: HttpRequest, answer: Answer, own: HttpResponse) -> HttpResponse:
    """The project's own response, with the headers of the protocol."""
    if own.status_code < 400:
        own.status_code = 200 if answer.status == 204 and own.content else answer.status
    if request.method == "HEAD":
        own.content = b""
    if not own.content:
        del own.headers["Content-Type"]
    _tell(request, own, answer)
    if own.status_code >= 400:
        log_response("%s: %s", own.reason_phrase, request.path, response=own, request=request)
    return own


def _tell(request: HttpRequest, response: HttpResponse, answer: Answer) -> None:
    """Set the headers of an answer."""
    if response.status_code != 204:
        response.headers["Content-Length"] = str(len(response.content))
    for name, value in answer.headers.items():
        response.headers[name] = value
    if answer.location:
        response.headers["Location"] = _url(request, answer.location)
    if answer.concat:
        urls = " ".join(_url(request, name) for name in answer.concat)
        response.headers["Upload-Concat"] = f"final;{urls}"
    _tell_origin(request, response)


FAILURES = (StorageError, OperationalError, InterfaceError, core.Unfinished)
"""What a store or a database raises that does not answer as it should, and a HEAD that cannot finish an upload."""


def failed(request: HttpRequest, error: Exception) -> HttpResponse:
    """The response to one of the ``FAILURES``. The client is not told why: it can only try again.

    A HEAD gets 423, Locked: after another status common clients begin the upload anew (docs/decisions.md).
    """
    head = core.method_of(asked(request, "")) == "HEAD"
    status = HTTPStatus.LOCKED if head else _status_of(error)
    return _response(request, Answer(status, core.HEADERS, status.phrase), error)


def _status_of(error: Exception) -> HTTPStatus:
    if isinstance(error, StorageFull):
        return HTTPStatus.INSUFFICIENT_STORAGE
    if isinstance(error, StorageTimeout):
        return HTTPStatus.GATEWAY_TIMEOUT
    if not isinstance(error, StorageError) or error.retryable:
        return HTTPStatus.SERVICE_UNAVAILABLE
    if isinstance(error, StorageUnavailable | StorageCancelled):
        return HTTPStatus.SERVICE_UNAVAILABLE
    return HTTPStatus.INTERNAL_SERVER_ERROR


def _url(request: HttpRequest, name: str) -> str:
    """The URL of an upload as the client sees it."""
    match = request.resolver_match
    own = match.kwargs.get("name", "") if match else ""
    uploads = request.META["SCRIPT_NAME"].rstrip("/") + request.path_info.removesuffix(own)
    path = escape_leading_slashes(escape_uri_path(uploads + name))
    meta = request.META
    unheard = ("HTTP_X_FORWARDED_PROTO" in meta and not settings.SECURE_PROXY_SSL_HEADER) or (
        "HTTP_X_FORWARDED_HOST" in meta and not settings.USE_X_FORWARDED_HOST
    )
    if not unheard and "HTTP_FORWARDED" not in meta and "HTTP_X_FORWARDED_PREFIX" not in meta:
        return request.build_absolute_uri(path)
    # A proxy tells what the client sees, and Django is told not to believe it. What is relative is right all the same:
    # a path for a browser, which sends its Origin, because there tus-js-client resolves nothing if its endpoint is a
    # path; else a name, because aiotus takes no path.
    if "HTTP_ORIGIN" in meta or not uploads.endswith("/"):
        return _prefix(meta, path) + path
    return name


def _prefix(meta: Mapping[str, Any], path: str) -> str:
    """What a proxy has taken from the beginning of a path, unless Django has put it back."""
    prefix = str(meta.get("HTTP_X_FORWARDED_PREFIX", "")).rstrip("/")
    known = path.startswith(f"{prefix}/") or not re.fullmatch(r"(/[\w.~-]+)+", prefix, re.ASCII)
    return "" if known else prefix


def _tell_origin(request: HttpRequest, response: HttpResponse) -> None:
    """Let pages of other origins see the answer, if the settings name them."""
    origins = conf.cors_origins()
    if not origins:
        return
    patch_vary_headers(response, ["Origin"])
    origin = request.headers.get("Origin", "")
    if not origin or not (origin in origins or "*" in origins):
        return
    response.headers["Access-Control-Allow-Origin"] = origin if origin in origins else "*"
    response.headers["Access-Control-Expose-Headers"] = EXPOSED
    if origin in origins:
        response.headers["Access-Control-Allow-Credentials"] = "true"
    if request.method == "OPTIONS":
        response.headers["Access-Control-Allow-Methods"] = "POST, HEAD, PATCH, DELETE, OPTIONS"
        wanted = request.headers.get("Access-Control-Request-Headers", "")  # also those of the project
        response.headers["Access-Control-Allow-Headers"] = f"{ALLOWED}, {wanted}" if wanted else ALLOWED
        response.headers["Access-Control-Max-Age"] = "86400"
