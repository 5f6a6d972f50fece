"""The settings ``STORAGE_TUS_…``. No other module reads them. All functions raise ``ImproperlyConfigured``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from inspect import signature
from typing import Any
from urllib.parse import urlsplit

from asgiref.sync import async_to_sync, iscoroutinefunction
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from storage.inspection import Inspector, check_inspect

MAX_SIZE = "STORAGE_TUS_MAX_SIZE"
EXPIRES = "STORAGE_TUS_EXPIRES"
AUTHORIZE = "STORAGE_TUS_AUTHORIZE"
FILE_ID = "STORAGE_TUS_FILE_ID"
INSPECT = "STORAGE_TUS_INSPECT"
CORS_ORIGINS = "STORAGE_TUS_CORS_ORIGINS"
NAMES = (MAX_SIZE, EXPIRES, AUTHORIZE, FILE_ID, INSPECT, CORS_ORIGINS)

DEFAULT_EXPIRES = timedelta(days=7)
MOST_EXPIRES = timedelta(days=1_000_000)  # below what dates can tell; None means for ever


def _value(name: str) -> Any:
    value = getattr(settings, name, None)
    return None if value == "" else value


def max_size() -> int | None:
    """The most bytes of an upload; None means what the store can have, 5 TiB."""
    value = _value(MAX_SIZE)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise ImproperlyConfigured(f"{MAX_SIZE} is a number of bytes, such as 20 * 1024**3, not {value!r}")
    return value


def expires() -> timedelta | None:
    """How long after its last byte an upload can be resumed; None means for ever."""
    value = getattr(settings, EXPIRES, DEFAULT_EXPIRES)
    if value is not None and (not isinstance(value, timedelta) or not timedelta() < value < MOST_EXPIRES):
        raise ImproperlyConfigured(f"{EXPIRES} is a timedelta, such as timedelta(days=1), or None, not {value!r}")
    return value


def authorize() -> Callable[..., Any] | None:
    """The function that says who may create which upload."""
    return _function(AUTHORIZE, "authorize", "request", "upload")


def file_id() -> Callable[..., Any] | None:
    """The function that names the final object of an upload."""
    return _function(FILE_ID, "file_id", "upload")


def inspect() -> tuple[Inspector, ...]:
    """The functions of a reader that see the bytes of an upload before they are stored."""
    value = _value(INSPECT)
    several = value if isinstance(value, list | tuple) else [] if value is None else [value]
    try:
        found = check_inspect([_imported(INSPECT, one) for one in several])
    except TypeError as error:
        raise ImproperlyConfigured(f"{INSPECT}: {error}") from None
    for one, function in zip(several, found, strict=True):
        _check_call(INSPECT, one, function, "inspect", "reader")
    return found


def _imported(name: str, value: Any) -> Any:
    """What a dotted path names; anything else is itself."""
    try:
        return import_string(value) if isinstance(value, str) else value
    except ImportError as error:
        raise ImproperlyConfigured(f"{name} is {value!r}, which cannot be imported: {error}") from None


def _function(name: str, called: str, *arguments: str) -> Callable[..., Any] | None:
    value = _value(name)
    if value is None:
        return None
    found = _imported(name, value)
    if not callable(found):
        raise ImproperlyConfigured(
            f"{name} is the dotted path of a function {called}({', '.join(arguments)}), not {value!r}"
        )
    _check_call(name, value, found, called, *arguments)
    waits = iscoroutinefunction(found) or iscoroutinefunction(type(found).__call__)
    return async_to_sync(found) if waits else found


def _check_call(name: str, value: Any, found: Callable[..., Any], called: str, *arguments: str) -> None:
    try:
        signature(found).bind(*arguments)
    except TypeError as error:
        call = f"{called}({', '.join(arguments)})"
        raise ImproperlyConfigured(f"{name} is called as {call}, which {value!r} does not take: {error}") from None
    except ValueError:  # something compiled, which tells no signature
        pass


def cors_origins() -> list[str]:
    """The origins, such as ``https://app.example.com``, whose pages may upload; ``*`` for all, without cookies."""
    value = _value(CORS_ORIGINS)
    if value is None:
        return []
    if isinstance(value, str) or not isinstance(value, list | tuple | set | frozenset):
        raise ImproperlyConfigured(f"{CORS_ORIGINS} is a list of origins, such as ['https://app.example.com']")
    for origin in value:
        parts = urlsplit(origin) if isinstance(origin, str) else None
        if origin != "*" and not (parts and parts.netloc and origin == f"{parts.scheme}://{parts.netloc}"):
            raise ImproperlyConfigured(
                f"{CORS_ORIGINS} has {origin!r}: an origin is a scheme and a host, such as 'https://app.example.com'"
            )
    return list(value)
