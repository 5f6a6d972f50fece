"""From Django settings to adapters: the only module that reads them."""

from __future__ import annotations

import difflib
import inspect
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from .base import StorageAdapter

SETTING = "STORAGE_ADAPTERS"

BACKENDS = {
    "local": "storage.LocalStorageAdapter",
    "s3": "storage.S3StorageAdapter",
    "memory": "storage.MemoryStorageAdapter",
}
"""Short names that STORAGE_BACKEND takes besides dotted paths."""

FLAT = {
    "storage.LocalStorageAdapter": {
        "STORAGE_TEMP_DIR": "temp_dir",
        "STORAGE_FINAL_DIR": "final_dir",
    },
    "storage.S3StorageAdapter": {
        "STORAGE_TEMP_PREFIX": "temp_prefix",
        "STORAGE_FINAL_PREFIX": "final_prefix",
        "AWS_STORAGE_BUCKET_NAME": "bucket_name",
        "AWS_S3_ENDPOINT_URL": "endpoint_url",
        "AWS_S3_REGION_NAME": "region_name",
        "AWS_ACCESS_KEY_ID": "access_key",
        "AWS_SECRET_ACCESS_KEY": "secret_key",
        "AWS_SESSION_TOKEN": "security_token",
        "AWS_S3_ADDRESSING_STYLE": "addressing_style",
        "AWS_S3_VERIFY": "verify",
    },
    "storage.MemoryStorageAdapter": {},
}
"""Flat settings, and the options that they are, of each adapter."""

FLAT_NAMES = (
    "STORAGE_BACKEND",
    "STORAGE_TEMP_DIR",
    "STORAGE_FINAL_DIR",
    "STORAGE_TEMP_PREFIX",
    "STORAGE_FINAL_PREFIX",
)


def _value(name: str) -> Any:
    """A flat setting; an empty string, as django-configurations gives it, means unset."""
    value = getattr(settings, name, None)
    return None if value == "" else value


def configuration() -> dict[str, tuple[str, dict[str, Any]]]:
    """The dotted path and the options of every alias. Raises ``ImproperlyConfigured``."""
    adapters = _value(SETTING)
    flat = [name for name in FLAT_NAMES if _value(name) is not None]
    if adapters is None:
        return {"default": _from_flat()}
    if flat:
        raise ImproperlyConfigured(
            f"{SETTING} and {', '.join(flat)} are both set: keep {SETTING}, and move the others into its OPTIONS"
        )
    if not isinstance(adapters, Mapping):
        raise ImproperlyConfigured(f"{SETTING} is a dict of aliases, like STORAGES")
    return {alias: _from_dict(alias, entry) for alias, entry in adapters.items()}


def _from_dict(alias: str, entry: object) -> tuple[str, dict[str, Any]]:
    where = f"{SETTING}[{alias!r}]"
    if not isinstance(entry, Mapping):
        raise ImproperlyConfigured(f"{where} is a dict with BACKEND and OPTIONS")
    for name in entry:
        if name not in ("BACKEND", "OPTIONS"):
            raise ImproperlyConfigured(
                f"{where} has an unknown key {name!r}{_nearest(str(name), ['BACKEND', 'OPTIONS'])}"
            )
    backend, options = entry.get("BACKEND"), entry.get("OPTIONS", {})
    if not isinstance(backend, str) or not backend:
        raise ImproperlyConfigured(f"{where} needs a BACKEND, such as 'storage.LocalStorageAdapter'")
    if not isinstance(options, Mapping):
        raise ImproperlyConfigured(f"{where}['OPTIONS'] is a dict")
    return _dotted(backend, f"{where}['BACKEND']"), {k: v for k, v in options.items() if v != ""}


def _from_flat() -> tuple[str, dict[str, Any]]:
    backend = _dotted(str(_value("STORAGE_BACKEND") or "local"), "STORAGE_BACKEND")
    options = {option: value for name, option in FLAT.get(backend, {}).items() if (value := _value(name)) is not None}
    if backend == BACKENDS["local"]:
        for option in ("temp_dir", "final_dir"):
            if option not in options:
                options[option] = _default_directory(option)
    return backend, options


def _default_directory(option: str) -> Path:
    base = _value("BASE_DIR")
    if base is None:
        raise ImproperlyConfigured(f"set STORAGE_{option.upper()}, or BASE_DIR, below which var/storage is the default")
    return Path(os.fspath(base)) / "var" / "storage" / option.removesuffix("_dir")


def _dotted(backend: str, where: str) -> str:
    if backend in BACKENDS:
        return BACKENDS[backend]
    if "." not in backend:
        raise ImproperlyConfigured(f"{where} is {backend!r}: no such adapter{_nearest(backend, list(BACKENDS))}")
    return backend


def _nearest(name: str, known: list[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(repr(one) for one in known)}"


def adapter_class(backend: str) -> type[StorageAdapter]:
    """Import an adapter's class. Raises ``ImproperlyConfigured``."""
    try:
        found = import_string(backend)
    except ImportError as error:
        raise ImproperlyConfigured(f"the storage BACKEND {backend!r} cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, StorageAdapter)):
        raise ImproperlyConfigured(f"the storage BACKEND {backend!r} is no subclass of storage.StorageAdapter")
    return found


def check_options(alias: str, found: type[StorageAdapter], options: Mapping[str, Any]) -> None:
    """Raises ``ImproperlyConfigured`` for options that the adapter does not take, or that it lacks."""
    parameters = inspect.signature(found).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return
    where = f"{SETTING}[{alias!r}]['OPTIONS']"
    for name in options:
        if name not in parameters:
            raise ImproperlyConfigured(f"{where} has an unknown option {name!r}{_nearest(name, list(parameters))}")
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in options:
            flat = [setting for known in FLAT.values() for setting, option in known.items() if option == name]
            raise ImproperlyConfigured(f"{where} lacks {name!r}{f' (or set {flat[0]})' if flat else ''}")


_adapters: dict[str, StorageAdapter] = {}
_lock = threading.Lock()


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)


def get_storage_adapter(alias: str = "default") -> StorageAdapter:
    """The adapter of an alias: one instance for each alias and process, made anew when a setting is overridden.

    Raises ``ImproperlyConfigured`` with the setting's name and what to do.
    """
    adapter = _adapters.get(alias)
    if adapter is None or getattr(adapter, "_closed", False):
        with _lock:
            adapter = _adapters.get(alias)
            if adapter is None or getattr(adapter, "_closed", False):
                adapter = _adapters[alias] = _make(alias)
    return adapter


def _make(alias: str) -> StorageAdapter:
    known = configuration()
    if alias not in known:
        raise ImproperlyConfigured(f"{SETTING} has no alias {alias!r}{_nearest(alias, list(known))}")
    backend, options = known[alias]
    found = adapter_class(backend)
    check_options(alias, found, options)
    try:
        return found(**options)
    except (TypeError, ValueError) as error:
        raise ImproperlyConfigured(f"the storage adapter {alias!r} refuses its options: {error}") from error


def forget_adapters(*, setting: str, **_: object) -> None:
    """Receives ``setting_changed``. Adapters that are in use go on; they are closed when nobody has them any more."""
    if setting == "BASE_DIR" or setting.startswith(("STORAGE_", "AWS_")):
        _adapters.clear()
