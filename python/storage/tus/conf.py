"""The settings ``STORAGE_TUS_…``, or ``STORAGE_TUS = {…}``. No other module reads them.

All functions raise ``ImproperlyConfigured``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from inspect import signature
from typing import Any
from urllib.parse import urlsplit

from asgiref.sync import async_to_sync, iscoroutinefunction
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from storage.inspection import Inspector, check_inspect

GROUP = "STORAGE_TUS"
MAX_SIZE = "STORAGE_TUS_MAX_SIZE"
EXPIRES = "STORAGE_TUS_EXPIRES"
AUTHORIZE = "STORAGE_TUS_AUTHORIZE"
FILE_ID = "STORAGE_TUS_FILE_ID"
INSPECT = "STORAGE_TUS_INSPECT"
CORS_ORIGINS = "STORAGE_TUS_CORS_ORIGINS"
NAMES = (MAX_SIZE, EXPIRES, AUTHORIZE, FILE_ID, INSPECT, CORS_ORIGINS)

DEFAULT_EXPIRES = timedelta(days=7)
MOST_EXPIRES = timedelta(days=1_000_000)  # below what dates can tell; None means for ever


def group() -> Mapping[str, Any]:
    """The options in ``STORAGE_TUS``, by the names that they have as settings of their own."""
    given = getattr(settings, GROUP, {})
    if not isinstance(given, Mapping):
        raise ImproperlyConfigured(f'{GROUP} is a dict, such as {{"MAX_SIZE": 20 * 1024**3}}, not {given!r}')
    options = {f"{GROUP}_{key}": value for key, value in given.items()}
    for name, key in zip(options, given, strict=True):
        if name not in NAMES:
            known = ", ".join(name.removeprefix(f"{GROUP}_") for name in NAMES)
            raise ImproperlyConfigured(f"{GROUP} has {key!r}, which is no option: there are {known}")
        if hasattr(settings, name):
            raise ImproperlyConfigured(f"{name} and {_told(name, options)} are the same option: set one of them")
    return options


def _told(name: str, options: Mapping[str, Any]) -> str:
    """What the project calls an option."""
    return f'{GROUP}["{name.removeprefix(f"{GROUP}_")}"]' if name in options else name


def option(name: str, default: Any = None) -> tuple[str, Any]:
    """What the project calls an option, and its value. One that is "", from the environment, is not set."""
    options = group()
    value = options[name] if name in options else getattr(settings, name, default)
    return _told(name, options), default if value == "" else value


def max_size() -> int | None:
    """The most bytes of an upload; None means what the store can have, 5 TiB."""
    name, value = option(MAX_SIZE)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise ImproperlyConfigured(f"{name} is a number of bytes, such as 20 * 1024**3, not {value!r}")
    return value


def expires() -> timedelta | None:
    """How long after its last byte an upload can be resumed; None means for ever."""
    name, value = option(EXPIRES, DEFAULT_EXPIRES)
    if value is not None and (not isinstance(value, timedelta) or not timedelta() < value < MOST_EXPIRES):
        raise ImproperlyConfigured(f"{name} is a timedelta, such as timedelta(days=1), or None, not {value!r}")
    return value


def authorize() -> Callable[..., Any] | None:
    """The function that says who may create which upload."""
    return _function(AUTHORIZE, "authorize", "request", "upload")


def file_id() -> Callable[..., Any] | None:
    """The function that names the final object of an upload."""
    return _function(FILE_ID, "file_id", "upload")


def inspect() -> tuple[Inspector, ...]:
    """The functions of a reader that see the bytes of an upload before they are stored."""
    name, value = option(INSPECT)
    several = value if isinstance(value, list | tuple) else [] if value is None else [value]
    try:
        found = check_inspect([_imported(name, one) for one in several])
    except TypeError as error:
        raise ImproperlyConfigured(f"{name}: {error}") from None
    for one, function in zip(several, found, strict=True):
        _check_call(name, one, function, "inspect", "reader")
    return found


def _imported(name: str, value: Any) -> Any:
    """What a dotted path names; anything else is itself."""
    try:
        return import_string(value) if isinstance(value, str) else value
    except ImportError as error:
        raise ImproperlyConfigured(f"{name} is {value!r}, which cannot be imported: {error}") from None


def _function(setting: str, called: str, *arguments: str) -> Callable[..., Any] | None:
    name, value = option(setting)
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
    name, value = option(CORS_ORIGINS)
    if value is None:
        return []
    if isinstance(value, str) or not isinstance(value, list | tuple | set | frozenset):
        raise ImproperlyConfigured(f"{name} is a list of origins, such as ['https://app.example.com']")
    for origin in value:
        parts = urlsplit(origin) if isinstance(origin, str) else None
        if origin != "*" and not (parts and parts.netloc and origin == f"{parts.scheme}://{parts.netloc}"):
            raise ImproperlyConfigured(
                f"{name} has {origin!r}: an origin is a scheme and a host, such as 'https://app.example.com'"
            )
    return list(value)
