"""Makes adapters from Django settings. No other module reads the settings of adapters."""

from __future__ import annotations

import difflib
import inspect
import os
import re
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from django.conf import ENVIRONMENT_VARIABLE, settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from .base import StorageAdapter

SETTING = "STORAGE_ADAPTERS"

MEMORY_BUDGET = "STORAGE_MEMORY_BUDGET"
DEFAULT_MEMORY_BUDGET = 64 * 1024 * 1024
LEAST_MEMORY_BUDGET = 16 * 1024 * 1024
MOST_MEMORY_BUDGET = 1024**4
"""In bytes. The setting is for the process, so it stands beside both forms of the settings of adapters."""

ACCEL_PREFIX = "STORAGE_ACCEL_PREFIX"
ACCEL_HEADER = "STORAGE_ACCEL_HEADER"
ACCEL_HEADERS = "X-Accel-Redirect", "X-Sendfile"
"""How the server in front is told to send an object: the first of the headers is the default."""

BACKENDS = {
    "local": "storage.LocalStorageAdapter",
    "s3": "storage.S3StorageAdapter",
    "memory": "storage.MemoryStorageAdapter",
}
"""Short names that STORAGE_BACKEND accepts besides dotted paths."""

FLAT = {
    "local": {
        "STORAGE_TEMP_DIR": "temp_dir",
        "STORAGE_FINAL_DIR": "final_dir",
        "STORAGE_CARRY_DIGEST": "carry_digest",
    },
    "s3": {
        "STORAGE_TEMP_PREFIX": "temp_prefix",
        "STORAGE_FINAL_PREFIX": "final_prefix",
        "STORAGE_CARRY_DIGEST": "carry_digest",
        "STORAGE_CONDITIONAL_WRITES": "conditional_writes",
        "STORAGE_MAX_CONNECTIONS": "max_connections",
        "AWS_STORAGE_BUCKET_NAME": "bucket_name",
        "STORAGE_PUBLIC_ENDPOINT_URL": "public_endpoint_url",
        "AWS_S3_ENDPOINT_URL": "endpoint_url",
        "AWS_S3_REGION_NAME": "region_name",
        "AWS_ACCESS_KEY_ID": "access_key",
        "AWS_SECRET_ACCESS_KEY": "secret_key",
        "AWS_SESSION_TOKEN": "security_token",
        "AWS_S3_ADDRESSING_STYLE": "addressing_style",
        "AWS_S3_VERIFY": "verify",
    },
    "memory": {
        "STORAGE_CARRY_DIGEST": "carry_digest",
    },
}
"""Flat settings and their options, for each kind of adapter and its subclasses."""

FLAT_NAMES = tuple(
    dict.fromkeys(
        ("STORAGE_BACKEND", *(name for names in FLAT.values() for name in names if name.startswith("STORAGE_")))
    )
)

SECRET = re.compile("secret|token|passw|credential|private|(^|_)key$", re.IGNORECASE)
"""Options whose values are never shown."""

MASK = "****"


class Secret(str):
    """A str that hides its text in tracebacks, error reports and logs of variables."""

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(MASK)


def masked(name: str, value: Any) -> Any:
    """A setting or option whose secrets have become `Secret`: values with a secret name, and URLs with a user."""
    if isinstance(value, Mapping):
        return {key: masked(str(key), each) for key, each in value.items()}
    if isinstance(value, str) and (SECRET.search(name) or ("://" in value and "@" in value)):
        return Secret(value)
    return value


def setting(kind: str, option: str) -> str:
    """An option as messages name it: its name, and its flat setting if there is one."""
    flat = next((name for name, known in FLAT[kind].items() if known == option), "")
    return f"{option} ({flat})" if flat else option


HINTS = {
    "local": {
        "location": "set temp_dir and final_dir",
        "base_url": "this adapter makes no URLs: serve what get_final_stream gives",
        "file_permissions_mode": "it is called file_mode",
        "directory_permissions_mode": "it is called directory_mode",
        "allow_overwrite": "pass overwrite= to put_final and assemble",
    },
    "s3": {
        "location": "set temp_prefix and final_prefix (STORAGE_TEMP_PREFIX, STORAGE_FINAL_PREFIX)",
        "custom_domain": "set public_endpoint_url, the whole URL, for url_final",
        "querystring_auth": "leave it out: url_final signs each URL",
        "querystring_expire": "pass expires= to url_final",
        "url_protocol": "begin endpoint_url and public_endpoint_url with https:// or http://",
        "use_ssl": "begin endpoint_url with https:// or http://",
        "default_acl": "leave it out: who may read is said by the policy of the bucket",
        "file_overwrite": "pass overwrite= to put_final and assemble",
        "session_profile": "leave the keys out, and set AWS_PROFILE in the environment",
        "object_parameters": "set server_side_encryption, kms_key_id, storage_class; content_type= and metadata= are"
        " arguments of put_final",
        "proxies": "set proxy, one URL",
        "transfer_config": "set part_size and concurrency",
        "client_config": "set connect_timeout, read_timeout, max_attempts, max_connections, proxy",
        "max_pool_connections": "it is called max_connections",
        "signature_version": "leave it out: requests are signed by Signature Version 4",
        "max_memory_size": "leave it out: streams have a fixed memory",
        "gzip": "leave it out: objects are stored as they come",
    },
    "memory": {},
}
"""For options of other storage libraries: what to do instead."""

FLAT_HINTS = {
    "AWS_S3_ACCESS_KEY_ID": ("AWS_ACCESS_KEY_ID", "set AWS_ACCESS_KEY_ID"),
    "AWS_S3_SECRET_ACCESS_KEY": ("AWS_SECRET_ACCESS_KEY", "set AWS_SECRET_ACCESS_KEY"),
    "AWS_S3_SESSION_PROFILE": ("AWS_ACCESS_KEY_ID", "set AWS_PROFILE in the environment"),
}
"""Flat settings of other libraries: the setting that replaces each, and what to do."""


class Entry(NamedTuple):
    """What is set for an alias: the dotted path of its adapter, its options, and the setting that each comes from."""

    backend: str
    options: dict[str, Any]
    sources: dict[str, str]


def _value(name: str) -> Any:
    """The value of a setting. An empty string, as django-configurations gives it, means unset."""
    value = masked(name, getattr(settings, name, None))
    return None if value == "" else value


def configuration() -> dict[str, Entry]:
    """All aliases with what is set for each. Raises ``ImproperlyConfigured``."""
    memory_budget()
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


def memory_budget() -> int:
    """Bytes of memory that all transfers of the process share. Raises ``ImproperlyConfigured``."""
    if not settings.configured and ENVIRONMENT_VARIABLE not in os.environ:  # an adapter without a project
        return DEFAULT_MEMORY_BUDGET
    value = _value(MEMORY_BUDGET)
    if value is None:
        return DEFAULT_MEMORY_BUDGET
    if isinstance(value, bool) or not isinstance(value, int) or not LEAST_MEMORY_BUDGET <= value <= MOST_MEMORY_BUDGET:
        raise ImproperlyConfigured(
            f"{MEMORY_BUDGET} is a number of bytes, at least {LEAST_MEMORY_BUDGET} (16 MiB), not {value!r}"
        )
    return value


def accel() -> tuple[str, str]:
    """The header that tells the server in front which object to send, and the prefix of keys in it.

    Raises ``ImproperlyConfigured``.
    """
    header, prefix = _value(ACCEL_HEADER) or ACCEL_HEADERS[0], _value(ACCEL_PREFIX)
    if header not in ACCEL_HEADERS:
        raise ImproperlyConfigured(f"{ACCEL_HEADER} is {' or '.join(map(repr, ACCEL_HEADERS))}, not {header!r}")
    if not isinstance(prefix, str) or not prefix.startswith("/"):
        raise ImproperlyConfigured(
            f"{ACCEL_PREFIX} is where the server in front has the final objects, such as '/protected/', not {prefix!r}"
        )
    return header, prefix if prefix.endswith("/") else prefix + "/"


def _from_dict(alias: str, entry: object) -> Entry:
    where = f"{SETTING}[{alias!r}]"
    if not isinstance(entry, Mapping):
        raise ImproperlyConfigured(f"{where} is a dict with BACKEND and OPTIONS")
    for name in entry:
        if name not in ("BACKEND", "OPTIONS"):
            raise ImproperlyConfigured(f"{where} has an unknown key {name!r}{_nearest(name, ['BACKEND', 'OPTIONS'])}")
    backend, options = entry.get("BACKEND"), entry.get("OPTIONS", {})
    if not isinstance(backend, str) or not backend:
        raise ImproperlyConfigured(f"{where} needs a BACKEND, such as 'storage.LocalStorageAdapter'")
    if not isinstance(options, Mapping):
        raise ImproperlyConfigured(f"{where}['OPTIONS'] is a dict")
    given = {name: value for name, value in options.items() if value != ""}
    return Entry(_dotted(backend, f"{where}['BACKEND']"), given, dict.fromkeys(given, where))


def _from_flat() -> Entry:
    backend = _dotted(str(_value("STORAGE_BACKEND") or "local"), "STORAGE_BACKEND")
    try:
        found = adapter_class(backend)
    except ImproperlyConfigured:
        return Entry(backend, {}, {})  # the error comes when the class is imported
    kind, takes = kind_of(found), _takes(found)
    if _value("STORAGE_BACKEND") is None:
        for name in FLAT["s3"]:
            if name.startswith("STORAGE_") and name not in FLAT["local"] and _value(name) is not None:
                raise ImproperlyConfigured(f"{name} is set, but files go to this machine: set STORAGE_BACKEND = 's3'")
    if kind == "s3":
        _refuse_strangers()
    options, sources = {}, {}
    for name, option in FLAT.get(kind, {}).items():
        value = _value(name)
        if value is not None and takes(option):
            options[option], sources[option] = value, name
    if kind == "local":
        for option in ("temp_dir", "final_dir"):
            if option not in options and takes(option):
                options[option], sources[option] = _default_directory(option), "BASE_DIR"
    return Entry(backend, options, sources)


def _refuse_strangers() -> None:
    for name, (ours, instead) in FLAT_HINTS.items():
        if _value(name) is not None and _value(ours) is None:
            raise ImproperlyConfigured(f"{name} is not read here: {instead}")


def _takes(found: type[StorageAdapter]) -> Callable[[str], bool]:
    """A function that tells whether an adapter takes the option of a name."""
    parameters = inspect.signature(found).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return lambda option: True
    return parameters.__contains__


def _default_directory(option: str) -> Path:
    base = _value("BASE_DIR")
    if base is None:
        raise ImproperlyConfigured(f"set STORAGE_{option.upper()}, or BASE_DIR: the default is var/storage below it")
    try:
        below = Path(base)
    except TypeError:
        raise ImproperlyConfigured("BASE_DIR is the path of a directory") from None
    return below / "var" / "storage" / option.removesuffix("_dir")


def _dotted(backend: str, where: str) -> str:
    if backend in BACKENDS:
        return BACKENDS[backend]
    if "." not in backend:
        raise ImproperlyConfigured(f"{where} is {backend!r}: no such adapter{_nearest(backend, BACKENDS)}")
    return backend


def _nearest(name: object, known: Iterable[str]) -> str:
    names = list(known)
    near = difflib.get_close_matches(str(name), names, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; there are {', '.join(map(repr, names))}"


def adapter_class(backend: str) -> type[StorageAdapter]:
    """Import an adapter's class. Raises ``ImproperlyConfigured``."""
    try:
        found = import_string(backend)
    except ImportError as error:
        raise ImproperlyConfigured(f"the storage BACKEND {backend!r} cannot be imported: {error}") from error
    if not (isinstance(found, type) and issubclass(found, StorageAdapter)):
        raise ImproperlyConfigured(f"the storage BACKEND {backend!r} is no subclass of storage.StorageAdapter")
    return found


def kind_of(found: type[StorageAdapter]) -> str:
    """The short name of the adapter that a class is, or derives from; "" if there is none."""
    return next((kind for kind, path in BACKENDS.items() if issubclass(found, import_string(path))), "")


def check_options(alias: str, found: type[StorageAdapter], options: Mapping[str, Any]) -> None:
    """Raises ``ImproperlyConfigured`` for unknown options, and for required options that are missing."""
    takes, parameters = _takes(found), inspect.signature(found).parameters
    where = f"{SETTING}[{alias!r}]['OPTIONS']"
    kind = kind_of(found)
    for name in options:
        if not takes(name):
            hint = HINTS.get(kind, {}).get(name)
            instead = f": {hint}" if hint else _nearest(name, parameters)
            raise ImproperlyConfigured(f"{where} has an unknown option {name!r}{instead}")
    for name, parameter in parameters.items():
        named = parameter.kind not in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL)
        if named and parameter.default is parameter.empty and name not in options:
            flat = [setting for setting, option in FLAT.get(kind, {}).items() if option == name]
            if _value(SETTING) is None and flat:
                raise ImproperlyConfigured(f"set {flat[0]} (or {SETTING})")
            raise ImproperlyConfigured(f"{where} lacks {name!r}")


def unread() -> list[tuple[str, str]]:
    """Flat settings that no adapter reads, with the reason: they are for another backend, or look misspelt."""
    if _value(SETTING) is not None:
        return []
    backend = str(_value("STORAGE_BACKEND") or "local")
    try:
        kind = kind_of(adapter_class(_dotted(backend, "STORAGE_BACKEND")))
    except ImproperlyConfigured:
        return []
    found = []
    other = {"local": "s3", "s3": "local"}.get(kind, "memory")
    for name in FLAT[other]:
        if name.startswith("STORAGE_") and name not in FLAT.get(kind, {}) and _value(name) is not None:
            found.append((name, f"STORAGE_BACKEND is {backend!r}, and {name} is for {other!r}"))
    ours = SETTING, MEMORY_BUDGET, ACCEL_PREFIX, ACCEL_HEADER, *FLAT_NAMES
    for name in dir(settings):
        if name.startswith("STORAGE_") and name not in ours:
            near = difflib.get_close_matches(name, ours, n=1, cutoff=0.9)
            if near:
                found.append((name, f"there is no setting {name}; did you mean {near[0]}?"))
    return found


_adapters: dict[str, StorageAdapter] = {}
_lock = threading.Lock()


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork_in_child)


def get_storage_adapter(alias: str = "default", *, bucket: str | None = None) -> StorageAdapter:
    """The adapter of an alias: one instance for each alias and process, made anew after a setting is overridden.

    With ``bucket`` it is the adapter whose bucket that is, whatever its alias: a row with ``FinalObject.bucket`` stays
    readable after another alias has become the default.

    Raises ``ImproperlyConfigured``, which names the setting, or the bucket that no adapter or more than one has, and
    says what to do; ``TypeError`` for an alias together with a bucket.
    """
    if bucket is not None:
        if alias != "default":
            raise TypeError("an adapter is named by its alias or by its bucket, not by both")
        return get_storage_adapter(_alias_of(bucket))
    adapter = _adapters.get(alias)
    if adapter is None or getattr(adapter, "_closed", False):
        with _lock:
            adapter = _adapters.get(alias)
            if adapter is None or getattr(adapter, "_closed", False):
                adapter = make_adapter(alias)
                adapter._named = get_storage_adapter, alias
                _adapters[alias] = adapter
    return adapter


def _alias_of(bucket: str) -> str:
    """The only alias with this bucket."""
    if not isinstance(bucket, str):
        raise TypeError(f"a bucket is a str, not {type(bucket).__name__}")
    known = _buckets.get(bucket)
    if known is not None:
        return known
    known_buckets = buckets()
    aliases = known_buckets.get(bucket, [])
    if not aliases:
        raise ImproperlyConfigured(f"no adapter has the bucket {bucket!r}{_nearest(bucket, known_buckets)}")
    if len(aliases) > 1:
        raise ImproperlyConfigured(shared_bucket(bucket, aliases))
    _buckets[bucket] = aliases[0]
    return aliases[0]


_buckets: dict[str, str] = {}


def buckets(backends: Collection[str] = ()) -> dict[str, list[str]]:
    """The aliases of each bucket: all, or those with one of these backends. What cannot be made is left out."""
    found: dict[str, list[str]] = {}
    for alias, entry in configuration().items():
        if backends and entry.backend not in backends:
            continue
        try:
            bucket = getattr(get_storage_adapter(alias), "bucket", None)
        except ImproperlyConfigured:
            continue
        if isinstance(bucket, str) and bucket:
            found.setdefault(bucket, []).append(alias)
    return found


def shared_bucket(bucket: str, aliases: list[str]) -> str:
    """What is wrong with a bucket of several aliases."""
    return (
        f"{SETTING} has the bucket {bucket!r} under {' and '.join(map(repr, aliases))}, so that nobody can tell where"
        " an object of it lies"
    )


def entry_of(alias: str) -> Entry:
    """What is set for an alias. Raises ``ImproperlyConfigured``."""
    known = configuration()
    if alias not in known:
        raise ImproperlyConfigured(f"{SETTING} has no alias {alias!r}{_nearest(alias, known)}")
    return known[alias]


def make_adapter(alias: str) -> StorageAdapter:
    """A new adapter of an alias, shared with nobody. Raises ``ImproperlyConfigured``."""
    backend, options, _ = entry_of(alias)
    found = adapter_class(backend)
    check_options(alias, found, options)
    try:
        return found(**options)
    except (TypeError, ValueError) as error:
        raise ImproperlyConfigured(f"the storage adapter {alias!r} refuses its options: {error}") from error


def forget_adapters(*, setting: str, **_: object) -> None:
    """Receives ``setting_changed``. Adapters in use continue; each is closed when nobody references it any more."""
    if setting in (ACCEL_PREFIX, ACCEL_HEADER):  # no adapter reads them
        return
    if setting == "BASE_DIR" or setting.startswith(("STORAGE_", "AWS_")):
        _adapters.clear()
        _buckets.clear()
