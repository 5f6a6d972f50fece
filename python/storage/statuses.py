"""Errors as HTTP statuses."""

from __future__ import annotations

import functools
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from inspect import isawaitable
from typing import Any, TypeVar, cast

from asgiref.sync import iscoroutinefunction
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils.log import log_response

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
