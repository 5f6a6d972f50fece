"""System checks of the settings. They use neither the network nor the extension."""

from __future__ import annotations

import os
from collections.abc import Mapping
from ipaddress import ip_address
from itertools import permutations
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from . import conf
from .base import StorageAdapter
from .local import LocalStorageAdapter
from .shadow import other_packages

PATHS = {"local": ("temp_dir", "final_dir"), "s3": ("ca_bundle", "verify")}
"""Options that are paths, or may be."""


SEE = "See the settings page of the documentation."


def check_settings(**_: Any) -> list[CheckMessage]:
    """E001: settings are wrong. E002: the backend cannot be used. E003: its options are wrong. E004: two adapters have
    one bucket. W001 to W013: allowed, but probably not intended; W001 to W004 only in production."""
    known, problems = conf.read()
    found: list[CheckMessage] = [Error(_sentence(problem), id="storage.E001", hint=SEE) for problem in problems]
    for entry in known.values():
        found += _check_alias(entry)
    if not found and not settings.DEBUG:
        for entry in known.values():
            found += _check_production(entry)
    made = conf.made(known)
    found += _check_default() + _check_buckets(known, made) + _check_areas(known, made)
    found += [
        Warning(
            f"{name} is None{conf.FROM_ENVIRONMENT}. It counts as not set.",
            id="storage.W007",
            hint=f"Set {name}, or remove it.",
        )
        for name in conf.unset()
    ]
    found += [
        Warning(_sentence(f"Nothing reads {name}: {why}"), id="storage.W005", hint=hint)
        for name, why, hint in conf.unread()
    ]
    return found + _check_storages() + _check_urls(made) + _check_name()


def _sentence(text: str) -> str:
    return text if text.endswith("?") else f"{text}."


def _check_default() -> list[CheckMessage]:
    adapters = getattr(settings, conf.SETTING, None)
    if not isinstance(adapters, Mapping) or "default" in adapters:
        return []
    return [
        Warning(
            f"{conf.SETTING} has no alias 'default': get_storage_adapter() without an alias fails.",
            id="storage.W010",
            hint="Call the most used one 'default', or silence this check and name an alias at each call.",
        )
    ]


def _check_buckets(known: Mapping[str, conf.Entry], made: Mapping[str, StorageAdapter]) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    buckets: dict[str, list[str]] = {}
    for alias, adapter in made.items():
        buckets.setdefault(getattr(adapter, "bucket", ""), []).append(alias)
    for bucket, aliases in buckets.items():
        if len(aliases) > 1:
            names = [
                known[alias].written("bucket_name" if made[alias].backend == "s3" else "bucket") for alias in aliases
            ]
            hint = f"Give each alias a bucket of its own: set {' or '.join(names)}."
            found.append(Error(f"{conf.shared_bucket(bucket, aliases)}.", id="storage.E004", hint=hint))
    return found


def _check_areas(known: Mapping[str, conf.Entry], made: Mapping[str, StorageAdapter]) -> list[CheckMessage]:
    """Directories of different aliases, one in the other: a sweep of the one removes what is the other's."""
    areas = [
        (known[alias].written(option), Path(os.path.realpath(directory)))
        for alias, adapter in made.items()
        if isinstance(adapter, LocalStorageAdapter)
        for option, directory in zip(conf.DIRECTORIES, adapter.directories, strict=True)
    ]
    return [
        Warning(
            f"{other} is {'the same directory as' if path == below else 'a directory in'} {one}: each adapter takes"
            " what it finds there for its own.",
            id="storage.W012",
            hint="Give each alias directories of its own, neither inside the other.",
        )
        for (one, path), (other, below) in permutations(areas, 2)
        if path in below.parents or (path == below and one < other)
    ]


def _check_name() -> list[CheckMessage]:
    """Another package of our name that comes first where ``sys.path`` has another order, as under ``manage.py``."""
    return [
        Warning(
            f"There is another package named 'storage' in {where}. Where that comes first in sys.path, import storage"
            " gives it instead of django-gostorage.",
            id="storage.W011",
            hint="Rename that package, or move it into a package of your project.",
        )
        for where in other_packages([settings.BASE_DIR] if hasattr(settings, "BASE_DIR") else [])
    ]


def _check_storages() -> list[CheckMessage]:
    """Django's STORAGES take storages: an adapter has neither ``save`` nor ``url``."""
    found: list[CheckMessage] = []
    for alias, entry in settings.STORAGES.items():
        backend = entry.get("BACKEND") if isinstance(entry, Mapping) else None
        try:
            conf.adapter_class(str(backend))
        except ImproperlyConfigured:  # it is no adapter
            continue
        found.append(
            Warning(
                f"STORAGES[{alias!r}] has the adapter {backend!r}, which is no storage of Django.",
                id="storage.W006",
                hint=f"Move it to {conf.SETTING}. Here, set 'storage.files.AdapterStorage' with its alias in OPTIONS.",
            )
        )
    return found


def _check_urls(made: Mapping[str, StorageAdapter]) -> list[CheckMessage]:
    """Files that have no base URL have that of a view, unless they are on S3."""
    without = [alias for alias, entry in settings.STORAGES.items() if _needs_view(entry, made)]
    if not without:
        return []
    from .links import is_included

    if is_included():
        return []
    text = f"STORAGES[{without[0]!r}] has no base_url, and no view serves its files: url() raises an error."
    hint = "Set base_url in its OPTIONS, or add path('files/', include('storage.urls')) to your urlpatterns."
    return [Warning(text, id="storage.W013", hint=hint)]


def _needs_view(entry: Any, made: Mapping[str, StorageAdapter]) -> bool:
    from .files import AdapterStorage

    try:
        storage = import_string(entry["BACKEND"])
        options = entry.get("OPTIONS", {})
        adapter = made[options.get("alias", "default")]
    except (ImportError, LookupError, TypeError, AttributeError):  # that is told elsewhere
        return False
    plain = isinstance(storage, type) and issubclass(storage, AdapterStorage) and storage.url is AdapterStorage.url
    return plain and options.get("base_url") is None and adapter.backend in ("local", "memory")


def _check_alias(entry: conf.Entry) -> list[CheckMessage]:
    try:
        adapter = entry.adapter_class()
    except ImproperlyConfigured as error:
        return [Error(_sentence(str(error)), id="storage.E002", hint=f"Correct {entry.written_backend}.")]
    found: list[CheckMessage] = [
        Error(_sentence(problem), id="storage.E003", hint=SEE) for problem in conf.wrong_options(entry, adapter)
    ]
    found += _check_paths(conf.kind_of(adapter), entry)
    return found


def _check_paths(kind: str, entry: conf.Entry) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    for option in PATHS.get(kind, ()):
        value = entry.options.get(option)
        if not isinstance(value, str | PurePath) or (option == "verify" and "/" not in str(value)):
            continue
        if not PurePath(value).is_absolute():
            found.append(
                Warning(
                    f"{entry.written(option)} is a relative path, {str(value)!r}: which one it means depends on the"
                    " working directory of each process.",
                    id="storage.W008",
                    hint="Begin it with BASE_DIR, or make it absolute. A ~ is not expanded.",
                )
            )
    unset = [option for option, source in entry.sources.items() if source == "BASE_DIR"]
    if len(unset) == 1:
        other = next(option for option in conf.DIRECTORIES if option not in unset)
        found.append(
            Warning(
                f"{entry.written(other)} is set and {entry.written(unset[0])} is not: one area is there, and the other"
                " below BASE_DIR.",
                id="storage.W009",
                hint=f"Set {entry.written(unset[0])} too.",
            )
        )
    return found


def _check_production(entry: conf.Entry) -> list[CheckMessage]:
    kind = conf.kind_of(entry.adapter_class())
    found: list[CheckMessage] = []
    if list(entry.sources.values()).count("BASE_DIR") == 2:
        found.append(
            Warning(
                "Nothing says where files are stored: they go below BASE_DIR, with the code.",
                id="storage.W001",
                hint="Set STORAGE_TEMP_DIR and STORAGE_FINAL_DIR.",
            )
        )
    if kind == "memory":
        found.append(
            Warning(
                f"{entry.written_backend} is one that keeps files in memory: they are lost with the process, and each"
                " worker has its own.",
                id="storage.W002",
                hint=f"Set {entry.written_backend} to 'local' or 's3'.",
            )
        )
    if kind == "s3" and _readable_on_the_way(str(entry.options.get("endpoint_url") or "")):
        endpoint = entry.written("endpoint_url")
        found.append(
            Warning(
                f"{endpoint} is plain http: whoever is on the way can read and change what is stored.",
                id="storage.W003",
                hint=f"Begin {endpoint} with https://, or silence this check where the network is private.",
            )
        )
    if kind == "s3" and entry.options.get("verify") is False:
        found.append(
            Warning(
                f"{entry.written('verify')} trusts any certificate: whoever is on the way can read and change what is"
                " stored.",
                id="storage.W004",
                hint=f"Set {entry.written('verify')} to the file of the authority that signed it.",
            )
        )
    return found


def _readable_on_the_way(endpoint: str) -> bool:
    parts = urlsplit(endpoint)
    if parts.scheme != "http":
        return False
    host = parts.hostname or ""
    try:
        return not ip_address(host).is_loopback
    except ValueError:
        return host != "localhost" and not host.endswith(".localhost")
