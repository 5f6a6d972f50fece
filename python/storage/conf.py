"""Makes adapters from Django settings. No other module reads the settings of adapters."""

from __future__ import annotations

import difflib
import inspect
import os
import re
import threading
from collections.abc import Callable, Container, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from django.conf import ENVIRONMENT_VARIABLE, settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from .base import StorageAdapter
from .options import FLAT, FLAT_NAME, HINTS, PROCESS, REFUSED, STRANGERS, WrongOptions, instead_of, parameters_of

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

TUS = "STORAGE_TUS_"
"""How the settings of ``storage.tus`` begin."""

BACKENDS = {
    "local": "storage.LocalStorageAdapter",
    "s3": "storage.S3StorageAdapter",
    "memory": "storage.MemoryStorageAdapter",
}
"""Short names that STORAGE_BACKEND accepts besides dotted paths."""

FLAT_NAMES = tuple(
    dict.fromkeys(
        ("STORAGE_BACKEND", *(name for names in FLAT.values() for name in names if name.startswith("STORAGE_")))
    )
)

SECRET = re.compile("secret|token|passw|credential|private|(^|_)key$", re.IGNORECASE)
"""Options whose values are never shown."""

MASK = "****"

DIRECTORIES = "temp_dir", "final_dir"
FROM_ENVIRONMENT = ", as os.environ.get gives for a variable that is not set"


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


class WrongSettings(ImproperlyConfigured):
    """All that is wrong with the settings of an adapter, or of all."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


class Entry(NamedTuple):
    """What is set for an alias: the dotted path of its adapter, its options, and the setting that each comes from."""

    backend: str
    options: dict[str, Any]
    sources: dict[str, str]
    where: str = ""
    """The alias as it is written in the dictionary; "" for flat settings."""

    def written(self, option: str) -> str:
        """An option as whoever wrote the settings knows it."""
        return f"{self.where}['OPTIONS'][{option!r}]" if self.where else FLAT_NAME.get(option, option)

    @property
    def written_backend(self) -> str:
        return f"{self.where}['BACKEND']" if self.where else "STORAGE_BACKEND"

    def adapter_class(self) -> type[StorageAdapter]:
        """Import the adapter's class. Raises ``ImproperlyConfigured``."""
        return adapter_class(self.backend, self.written_backend)


def _value(name: str) -> Any:
    """The value of a setting. An empty string, as django-configurations gives it, means unset."""
    value = masked(name, getattr(settings, name, None))
    return None if value == "" else value


def configuration() -> dict[str, Entry]:
    """All aliases with what is set for each. Raises ``ImproperlyConfigured`` with all that is wrong."""
    known, problems = read()
    if problems:
        raise WrongSettings(problems)
    return known


def read() -> tuple[dict[str, Entry], list[str]]:
    """All aliases that can be read, and what is wrong with the form of the settings."""
    problems: list[str] = []
    try:
        memory_budget()
    except ImproperlyConfigured as error:
        problems.append(str(error))
    adapters = _value(SETTING)
    if adapters is None:
        entry = _from_flat(problems)
        return ({"default": entry} if entry else {}), problems
    flat = [name for name in FLAT_NAMES if _value(name) is not None]
    if flat:
        problems.append(
            f"{SETTING} and {', '.join(flat)} are both set: keep {SETTING}, and move the others into its OPTIONS"
        )
    if not isinstance(adapters, Mapping):
        problems.append(f"{SETTING} is a dict of aliases, like STORAGES")
        return {}, problems
    entries = {alias: _from_dict(alias, entry, problems) for alias, entry in adapters.items()}
    return {alias: entry for alias, entry in entries.items() if entry}, problems


def memory_budget() -> int:
    """Bytes of memory that all transfers of the process share. Raises ``ImproperlyConfigured``."""
    if not settings.configured and ENVIRONMENT_VARIABLE not in os.environ:  # an adapter without a project
        return DEFAULT_MEMORY_BUDGET
    value = _value(MEMORY_BUDGET)
    if value is None:
        return DEFAULT_MEMORY_BUDGET
    if isinstance(value, bool) or not isinstance(value, int) or not LEAST_MEMORY_BUDGET <= value <= MOST_MEMORY_BUDGET:
        raise ImproperlyConfigured(
            f"{MEMORY_BUDGET} is a number of bytes from {LEAST_MEMORY_BUDGET} (16 MiB) to {MOST_MEMORY_BUDGET} (1 TiB),"
            f" {instead_of(value, 'values.IntegerValue')}"
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


def _from_dict(alias: str, entry: object, problems: list[str]) -> Entry | None:
    where = f"{SETTING}[{alias!r}]"
    if not isinstance(entry, Mapping):
        problems.append(f"{where} is a dict with BACKEND and OPTIONS")
        return None
    for name in entry:
        if name not in ("BACKEND", "OPTIONS"):
            problems.append(f"{where} has an unknown key {name!r}{_nearest(name, ['BACKEND', 'OPTIONS'])}")
    backend, options = entry.get("BACKEND"), entry.get("OPTIONS", {})
    dotted = ""
    if isinstance(backend, str) and backend:
        dotted = _dotted(backend, f"{where}['BACKEND']", problems)
    else:
        problems.append(f"{where} needs a BACKEND, such as 'storage.LocalStorageAdapter'")
    if not isinstance(options, Mapping):
        problems.append(f"{where}['OPTIONS'] is a dict")
        return None
    given = {name: value for name, value in options.items() if value != ""}
    return Entry(dotted, given, dict.fromkeys(given, where), where) if dotted else None


def _from_flat(problems: list[str]) -> Entry | None:
    backend = _dotted(str(_value("STORAGE_BACKEND") or "local"), "STORAGE_BACKEND", problems)
    if not backend:
        return None
    try:
        found = adapter_class(backend)
    except ImproperlyConfigured:
        return Entry(backend, {}, {})  # the error comes when the class is imported
    kind, takes = kind_of(found), _takes(found)
    if _value("STORAGE_BACKEND") is None:
        problems += [
            f"{name} is set, but files go to this machine: set STORAGE_BACKEND = 's3'"
            for name in FLAT["s3"]
            if name.startswith("STORAGE_") and name not in FLAT["local"] and _value(name) is not None
        ]
    if kind == "s3":
        problems += [
            f"{name} is not read here: {instead}"
            for name, (ours, instead) in REFUSED.items()
            if _value(name) is not None and _value(ours) is None
        ]
    options, sources = {}, {}
    for name, option in FLAT.get(kind, {}).items():
        value = _value(name)
        if value is not None and takes(option):
            options[option], sources[option] = value, name
    missing = [option for option in DIRECTORIES if kind == "local" and option not in options and takes(option)]
    if missing:
        base = _base(missing, problems)
        if base is None:
            return None
        options |= {option: base / option.removesuffix("_dir") for option in missing}
        sources |= dict.fromkeys(missing, "BASE_DIR")
    return Entry(backend, options, sources)


def _takes(found: type[StorageAdapter]) -> Callable[[str], bool]:
    """A function that tells whether an adapter takes the option of a name."""
    parameters = inspect.signature(found).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return lambda option: True
    return parameters.__contains__


def _base(missing: list[str], problems: list[str]) -> Path | None:
    """Where directories are for which nothing is set."""
    base = _value("BASE_DIR")
    try:
        if base is not None:
            return Path(base) / "var" / "storage"
        problems.append(
            f"set {' and '.join(map(FLAT_NAME.__getitem__, missing))}, or BASE_DIR: the default is var/storage below it"
        )
    except TypeError:
        problems.append("BASE_DIR is the path of a directory")
    return None


def _dotted(backend: str, where: str, problems: list[str]) -> str:
    if backend in BACKENDS:
        return BACKENDS[backend]
    if "." not in backend:
        problems.append(f"{where} is {backend!r}: no such adapter{_nearest(backend, BACKENDS)}")
        return ""
    return backend


def _near(name: object, known: Iterable[str], cutoff: float = 0.6) -> str:
    """The known name that this one is most like, whatever its case; "" if there is none."""
    names = {str(each).lower(): str(each) for each in known}
    near = difflib.get_close_matches(str(name).strip().lower(), names, n=1, cutoff=cutoff)
    return names[near[0]] if near else ""


def _nearest(name: object, known: Iterable[str]) -> str:
    names = list(known)
    near = _near(name, names)
    if near:
        return f"; did you mean {near!r}?"
    return f"; there are {', '.join(map(repr, names))}" if names else ""


def adapter_class(backend: str, where: str = "the storage BACKEND") -> type[StorageAdapter]:
    """Import an adapter's class. ``where`` names its setting. Raises ``ImproperlyConfigured``."""
    try:
        found = import_string(backend)
    except ImportError as error:
        near = _near(backend, BACKENDS.values(), 0.8)
        meant = f"; did you mean {near!r}?" if near else ""
        raise ImproperlyConfigured(f"{where} is {backend!r}, which cannot be imported: {error}{meant}") from error
    if not (isinstance(found, type) and issubclass(found, StorageAdapter)):
        instead = (
            ": it is a storage of Django, which belongs in STORAGES" if hasattr(found, "get_available_name") else ""
        )
        raise ImproperlyConfigured(f"{where} is {backend!r}, which is no subclass of storage.StorageAdapter{instead}")
    return found


def kind_of(found: type[StorageAdapter]) -> str:
    """The short name of the adapter that a class is, or derives from; "" if there is none."""
    return next((kind for kind, path in BACKENDS.items() if issubclass(found, import_string(path))), "")


def wrong_names(entry: Entry, found: type[StorageAdapter]) -> dict[str, str]:
    """Unknown options, and those that must be set and are not: what is wrong with each."""
    takes, parameters = _takes(found), parameters_of(found)
    kind = kind_of(found)
    wrong = {}
    for name, value in entry.options.items():
        if not takes(name):
            wrong[name] = f"{entry.where}['OPTIONS'] has an unknown option {name!r}{_instead(kind, name, parameters)}"
        elif value is None and name in parameters and parameters[name].default is not None:
            wrong[name] = f"{entry.written(name)} is None{FROM_ENVIRONMENT}: set it, or leave the option out"
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in entry.options:
            wrong[name] = _missing(entry, name)
    return wrong


def _instead(kind: str, name: str, parameters: Iterable[str]) -> str:
    if name in FLAT.get(kind, {}):
        return f": it is called {FLAT[kind][name]!r} here"
    hint = HINTS.get(kind, {}).get(name)
    return f": {hint}" if hint else _nearest(name, parameters)


def _missing(entry: Entry, name: str) -> str:
    if entry.where:
        return f"{entry.where}['OPTIONS'] lacks {name!r}"
    flat = FLAT_NAME.get(name)
    if flat is None:
        return f"{entry.backend} needs the option {name!r}: set {SETTING}"
    why = f": it is None{FROM_ENVIRONMENT}" if _is_none(flat) else ""
    return f"set {flat} (or {SETTING}){why}"


def _is_none(name: str) -> bool:
    return getattr(settings, name, "") is None


def wrong_options(entry: Entry, found: type[StorageAdapter]) -> list[str]:
    """All that is wrong with the options of an alias. Of an adapter of ours, which opens nothing before its first
    operation, the values are looked at too."""
    wrong = wrong_names(entry, found)
    if entry.backend not in BACKENDS.values():
        return list(wrong.values())
    takes = _takes(found)
    options = {name: value for name, value in entry.options.items() if takes(name)}
    missing = dict.fromkeys(wrong.keys() - entry.options.keys())
    try:
        found(**options | missing)
    except WrongOptions as error:
        return [*wrong.values(), *_written(error, entry, found, wrong)]
    return list(wrong.values())


def _written(error: WrongOptions, entry: Entry, found: type[StorageAdapter], known: Container[str] = ()) -> list[str]:
    """What is wrong, with the options as they are written; without those that are known to be wrong."""
    takes = _takes(found)
    return [
        f"{' and '.join(entry.written(name) if takes(name) else name for name in names)} {text}"
        for names, text in error.problems
        if not any(name in known for name in names)
    ]


def unread() -> list[tuple[str, str, str]]:
    """Flat settings that no adapter reads: the name, why, and what to do."""
    if _value(SETTING) is not None:
        return []
    backend = str(_value("STORAGE_BACKEND") or "local")
    try:
        kind = kind_of(adapter_class(_dotted(backend, "STORAGE_BACKEND", [])))
    except ImproperlyConfigured:
        return []
    found = []
    other = {"local": "s3", "s3": "local"}.get(kind, "memory")
    for name in FLAT[other]:
        elsewhere = name.startswith("STORAGE_") and name not in FLAT.get(kind, {})
        if elsewhere and _value(name) is not None and _value("STORAGE_BACKEND") is not None:  # else it is an error
            why = f"STORAGE_BACKEND is {backend!r}, and {name} is for {other!r}"
            found.append((name, why, f"Remove or rename {name}."))
    ours = *(option.flat for option in PROCESS), *FLAT_NAMES
    for name in dir(settings):
        if name.startswith("STORAGE_") and name not in ours:
            near = _near(name, ours, 0.9)
            if near:
                found.append((name, f"there is no setting {name}; did you mean {near}?", f"Remove or rename {name}."))
    if kind == "s3":
        return found + _strangers()
    bucket = "AWS_STORAGE_BUCKET_NAME"
    places = ("STORAGE_BACKEND", *map(FLAT_NAME.__getitem__, DIRECTORIES))
    if _value(bucket) is not None and all(_value(name) is None for name in places) and not _django_storages():
        found.append((bucket, "files go to this machine, below BASE_DIR", "Set STORAGE_BACKEND = 's3', or remove it."))
    return found


def _strangers() -> list[tuple[str, str, str]]:
    """Settings of django-storages that are set, unless one of its storages reads them."""
    if _django_storages():
        return []
    found = [
        (name, "it is a name of django-storages or of boto3", f"Remove {name}: {instead}.")
        for name, instead in STRANGERS.items()
        if _value(name) is not None
    ]
    ours = [name for name in FLAT["s3"] if name.startswith("AWS_")]
    for name in dir(settings):
        if (
            name.startswith(("AWS_S3_", "AWS_STORAGE_"))
            and name not in (*ours, *STRANGERS, *REFUSED)
            and _value(name) is not None
        ):
            near = _near(name, ours, 0.9)
            if near:
                found.append((name, f"there is no setting {name}; did you mean {near}?", f"Remove or rename {name}."))
    return found


def _django_storages() -> bool:
    backends = (entry.get("BACKEND") for entry in settings.STORAGES.values() if isinstance(entry, Mapping))
    return any(str(backend).startswith("storages.") for backend in backends)


def unset() -> list[str]:
    """Flat settings that are None, which somebody meant to set."""
    if _value(SETTING) is not None:
        return []
    entry = read()[0].get("default")
    kind = "" if entry is None else _kind(entry)
    names = "STORAGE_BACKEND", MEMORY_BUDGET, *(name for name in FLAT.get(kind, {}) if name.startswith("STORAGE_"))
    return [name for name in (SETTING, *names) if _is_none(name)]


def _kind(entry: Entry) -> str:
    try:
        return kind_of(entry.adapter_class())
    except ImproperlyConfigured:
        return ""


_adapters: dict[str, StorageAdapter] = {}
_lock = threading.RLock()  # an adapter may be made of others, which its constructor looks up


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_after_fork_in_child)


def get_storage_adapter(alias: str = "default", *, bucket: str | None = None) -> StorageAdapter:
    """The adapter of ``alias``: one instance for each alias and process, made anew after a setting is overridden.

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
                _follow_overrides()
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


def buckets() -> dict[str, list[str]]:
    """The aliases of each bucket. Adapters that cannot be made are left out."""
    found: dict[str, list[str]] = {}
    for alias in configuration():
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
    entry = entry_of(alias)
    found = entry.adapter_class()
    problems = wrong_options(entry, found)
    if problems:
        raise WrongSettings(problems)
    try:
        return found(**entry.options)
    except WrongOptions as error:
        problems = _written(error, entry, found)
    except (TypeError, ValueError) as error:
        raise ImproperlyConfigured(f"the storage adapter {alias!r} refuses its options: {error}") from error
    raise WrongSettings(problems)


def made(entries: Mapping[str, Entry]) -> dict[str, StorageAdapter]:
    """New adapters of our own classes, for those aliases whose options are right. They open nothing."""
    return {
        alias: found(**entry.options)
        for alias, entry in entries.items()
        if entry.backend in BACKENDS.values() and not wrong_options(entry, found := entry.adapter_class())
    }


def _follow_overrides() -> None:
    from django.core.signals import setting_changed  # it loads asyncio

    setting_changed.connect(_forget_adapters, dispatch_uid="storage.forget_adapters")


def _forget_adapters(*, setting: str, **_: object) -> None:
    """Receives ``setting_changed``. Adapters in use continue; each is closed when nobody references it any more."""
    if setting in (ACCEL_PREFIX, ACCEL_HEADER) or setting.startswith(TUS):  # no adapter reads them
        return
    if setting == "BASE_DIR" or setting.startswith(("STORAGE_", "AWS_")):
        _adapters.clear()
        _buckets.clear()
