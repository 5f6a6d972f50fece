"""Examines the store of an alias by using it: what works there, what does not, and what to do about it.

``manage.py storage_doctor`` shows what ``examine`` finds. Everything that it stores lies in the two areas under a
random name, and is removed again, also after an interrupt.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured

from . import conf, native
from .adapter import NativeAdapter
from .base import StorageAdapter
from .exceptions import ObjectExists, ObjectNotFound, StorageError
from .local import LocalStorageAdapter
from .options import OPTIONS, PROCESS, default_of, parameters_of
from .options import Option as About
from .types import FinalObject, Source

VERSION = 1
"""The version of a report's JSON form. It changes when a name in it is removed or gets another meaning."""

_CHUNK = 1024 * 1024
_LARGE = 8 * 1024 * 1024 + 1  # bytes of the large put, if no part_size is set: it goes in parts
_MOST = 64 * 1024 * 1024  # bytes; a larger put is not tried
_UNDO_SECONDS = 6.0  # the longest time that the Go side needs to undo what was interrupted
_CLEAN_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Option:
    """An option of the adapter, with its secrets masked, and the setting that it comes from."""

    name: str
    value: str
    source: str


@dataclass(frozen=True, slots=True)
class Described(Option):
    """An option with what the table of all settings tells of it: see ``storage.options.Option``."""

    flat: str
    environment: str
    default: str
    unit: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Finding:
    """Whether one thing works. ``ok`` is None if the doctor cannot tell.

    ``required`` means that the adapter's promises depend on it. ``area`` is "temp", "final", or "" for both together.
    ``seconds`` is how long the check took. ``value`` is a figure that ``detail`` gives in words, or None.
    """

    name: str
    ok: bool | None
    required: bool
    seconds: float
    detail: str
    advice: str = ""
    area: str = ""
    value: float | None = None

    @property
    def level(self) -> str:
        """ "ok", "warning", "failed" or "unknown"."""
        if self.ok is None:
            return "unknown"
        return "ok" if self.ok else "failed" if self.required else "warning"


@dataclass(slots=True)
class Report:
    """The result of an examination of an alias."""

    alias: str
    backend: str = ""
    options: list[Option] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether everything works that the adapter's promises depend on."""
        return not any(finding.level == "failed" for finding in self.findings)

    def as_dict(self) -> dict[str, Any]:
        """The report for JSON. The names are documented and stable."""
        return {
            "version": VERSION,
            "alias": self.alias,
            "backend": self.backend,
            "ok": self.ok,
            "options": [asdict(option) for option in self.options],
            "findings": [
                asdict(finding) | {"seconds": round(finding.seconds, 6), "level": finding.level}
                for finding in self.findings
            ],
        }


def examine(alias: str = "default") -> Report:
    """Examine the store of ``alias``. Problems are in the report; only interrupts are raised."""
    report = Report(alias)
    started = time.monotonic()
    try:
        entry = conf.entry_of(alias)
        report.backend = entry.backend
        report.options = options_of(entry)
        adapter = conf.make_adapter(alias)
    except ImproperlyConfigured as error:
        seconds = time.monotonic() - started
        report.findings.append(Finding("settings", False, True, seconds, str(error), "see manage.py check"))
        return report
    report.findings.append(Finding("settings", True, True, time.monotonic() - started, "the adapter takes them"))
    try:
        _examine(adapter, report)
    finally:
        adapter.close()
    return report


# ---- settings


def options_of(entry: conf.Entry) -> list[Option]:
    """All options of an adapter, also those with their default. Raises ``ImproperlyConfigured``."""
    found = entry.adapter_class()
    values = {name: parameter.default for name, parameter in parameters_of(found).items()} | entry.options
    sources = dict(entry.sources)
    environment = os.environ.get("AWS_CA_BUNDLE")
    if conf.kind_of(found) == "s3" and not values.get("ca_bundle") and environment:
        values["ca_bundle"], sources["ca_bundle"] = environment, "AWS_CA_BUNDLE in the environment"
    return [Option(name, _shown(name, value), sources.get(name, "default")) for name, value in values.items()]


def describe(alias: str = "default") -> list[Described]:
    """The table of all settings, with the values in use: the options of ``alias``, then what is for the process.

    Raises ``ImproperlyConfigured``.
    """
    entry = conf.entry_of(alias)
    found = entry.adapter_class()
    known = {option.name: option for option in OPTIONS.get(conf.kind_of(found), ())}
    parameters = parameters_of(found)
    described = []
    for one in options_of(entry):
        option = known.get(one.name) or About(one.name, "", "")
        default = default_of(option, parameters.get(one.name))
        described.append(
            Described(
                **asdict(one),
                flat=option.flat,
                environment=option.environment,
                default=default,
                unit=option.unit,
                meaning=option.meaning,
            )
        )
    return described + [_of_process(option) for option in PROCESS]


def _of_process(option: About) -> Described:
    value = getattr(settings, option.flat, None)
    return Described(
        name=option.flat,
        value=_shown(option.flat, value),
        source="default" if value in (None, "") else option.flat,
        flat=option.flat,
        environment="",
        default=option.default,
        unit=option.unit,
        meaning=option.meaning,
    )


def _shown(name: str, value: object) -> str:
    if value is None or value is inspect.Parameter.empty:
        return ""
    if not isinstance(value, str | int | float | os.PathLike):
        return f"<{type(value).__name__}>"
    text = oct(value) if name.endswith("_mode") and isinstance(value, int) else str(value)
    if name == "access_key":
        return conf.MASK + text[-4:] if len(text) >= 8 else conf.MASK
    if conf.SECRET.search(name):
        return conf.MASK
    return re.sub(r"//[^/@]*@", f"//{conf.MASK}@", text)  # the user and password of a URL


# ---- the store


def _examine(adapter: StorageAdapter, report: Report) -> None:
    name = f"doctor-{uuid.uuid4().hex}"
    round_trip = RoundTrip(adapter, name, _large(report.options))
    try:
        if isinstance(adapter, NativeAdapter):
            for area in ("temp", "final"):
                found = _probe(adapter, area, name)
                report.findings += found
                if any(finding.name == "reach" and not finding.ok for finding in found):
                    return
        if isinstance(adapter, LocalStorageAdapter):
            report.findings.append(_one_file_system(adapter))
        report.findings += round_trip.findings()
    except BaseException:
        if native.loaded():
            native.settle(_UNDO_SECONDS)
        raise
    finally:
        round_trip.clean()
    if isinstance(adapter, NativeAdapter):
        report.findings.append(_check("clean", lambda: _nothing_left(adapter, name)))


def _probe(adapter: NativeAdapter, area: str, name: str) -> list[Finding]:
    """The findings of the Go side about one area."""
    started = time.monotonic()
    try:
        found = native.call(adapter.stores()[area], "probe", prefix=f"{name}/")["findings"] or ()
    except (StorageError, ImproperlyConfigured) as error:
        return [Finding("reach", False, True, time.monotonic() - started, _message(error), area=area)]
    return [Finding(**one, area=area) for one in found]


def _one_file_system(adapter: LocalStorageAdapter) -> Finding:
    temp, final = (os.stat(directory).st_dev for directory in adapter.directories)
    if temp == final:
        return Finding("one_file_system", True, False, 0.0, "both areas lie on one file system")
    return Finding("one_file_system", None, False, 0.0, "the areas lie on two file systems")


def _large(options: list[Option]) -> int:
    """The size in bytes of a large object."""
    sizes = [int(option.value) for option in options if option.name == "part_size" and option.value.isdigit()]
    return sizes[0] + 1 if sizes else _LARGE


class _Wrong(Exception):
    """Something does not work as promised. The arguments are the detail and the advice."""


def _check(name: str, look: Callable[[], str]) -> Finding:
    """Run and time a check, and make a finding of what it returns or raises."""
    started = time.monotonic()
    ok, advice = True, ""
    try:
        detail = look()
    except _Wrong as wrong:
        ok, (detail, advice) = False, wrong.args
    except Exception as error:
        ok, detail = False, _message(error)
    return Finding(name, ok, True, time.monotonic() - started, detail, advice)


def _message(error: Exception) -> str:
    if isinstance(error, StorageError):
        return error.message
    return str(error) if isinstance(error, ImproperlyConfigured) else f"{type(error).__name__}: {error}"


_MADE = {"temp": ("00001", "00002"), "final": ("small", "joined", "large")}
"""The names of the objects that a round trip makes, by area."""


class RoundTrip:
    """Tries what every adapter promises, with one session and some files below one name."""

    def __init__(self, adapter: StorageAdapter, name: str, large: int) -> None:
        self._adapter = adapter
        self._name = name
        self._large = large
        self._begun = False
        self._finals: list[FinalObject] = []
        self._pieces = [f"part {number} of {name}\n".encode() for number in (1, 2)]
        self._whole = b"".join(self._pieces)

    def findings(self) -> Iterator[Finding]:
        """The findings, one after another. If nothing can be put, nothing else is tried."""
        self._begun = True
        put = _check("put", self._put)
        yield put
        if not put.ok:
            return
        yield _check("list", self._list)
        yield _check("assemble", self._assemble)
        yield _check("read", self._read)
        yield _check("overwrite", self._overwrite)
        if self._large > _MOST:
            yield Finding("large_put", None, True, 0.0, f"not tried: part_size is {self._large - 1} bytes")
        else:
            yield _check("large_put", self._large_put)
        yield _check("delete", self._delete)

    def _put(self) -> str:
        for number, piece in enumerate(self._pieces, 1):
            part = self._adapter.put_temp_part(self._name, number, piece)
            if (part.size, part.sha256) != (len(piece), hashlib.sha256(piece).hexdigest()):
                raise _Wrong("a part has another size or SHA-256 than what was put", "")
        self._small = self._put_final("small", self._whole)
        return "two parts and a final object were stored"

    def _put_final(self, name: str, data: Source, *, overwrite: bool = True) -> FinalObject:
        final = self._adapter.put_final(f"{self._name}/{name}", data, overwrite=overwrite)
        self._finals.append(final)
        return final

    def clean(self) -> None:
        """Remove what was made."""
        if not self._begun:
            return
        if isinstance(self._adapter, NativeAdapter):
            for area, store in self._adapter.stores().items():
                self._clean(area, store)
            return
        with contextlib.suppress(StorageError):
            self._adapter.delete_temp_parts(self._name)
            for final in self._finals:
                self._adapter.delete_final(final)

    def _clean(self, area: str, store: int) -> None:
        """Delete what the store lists. If it cannot list, delete the names that a round trip makes."""
        try:
            native.call_within(_CLEAN_SECONDS, store, "delete_all", prefix=f"{self._name}/")
        except StorageError:
            for name in _MADE[area]:
                with contextlib.suppress(StorageError):
                    key = f"{self._name}/{name}"
                    native.call_within(_CLEAN_SECONDS, store, "delete", key=key, temp=area == "temp")

    def _list(self) -> str:
        listed = [part.part_number for part in self._adapter.list_temp_parts(self._name)]
        if listed != [1, 2]:
            raise _Wrong(
                f"parts 1 and 2 were stored, and the list that followed has {listed}",
                "this store lists new objects late: keep the keys of parts in your database",
            )
        return "parts are listed as soon as they are stored"

    def _assemble(self) -> str:
        parts = self._adapter.list_temp_parts(self._name)
        joined = self._adapter.assemble(f"{self._name}/joined", parts)
        self._finals.append(joined)
        if joined.sha256 != hashlib.sha256(self._whole).hexdigest():
            raise _Wrong("the joined object has another SHA-256 than its parts have together", "")
        with self._adapter.get_final_stream(joined) as stream:
            if stream.read() != self._whole:
                raise _Wrong("the joined object has other bytes than its parts", "")
        return "parts were joined"

    def _read(self) -> str:
        with self._adapter.get_final_stream(self._small) as stream:
            if stream.read() != self._whole:
                raise _Wrong("other bytes came back than were stored", "")
        with self._adapter.get_final_stream(self._small, start=5, length=6) as stream:
            if stream.read() != self._whole[5:11]:
                raise _Wrong("other bytes of a range came back than were stored", "")
        return "an object and a range of it came back as they were stored"

    def _overwrite(self) -> str:
        advice = "do not rely on overwrite=False with this store: give every object a key that never comes twice"
        try:
            self._put_final("small", self._whole, overwrite=False)
            self._put_final("small", b"another", overwrite=False)
        except ObjectExists:
            return "overwrite=False leaves an object that is there as it is"
        except StorageError as error:
            raise _Wrong(f"overwrite=False does not work: {error.message}", advice) from None
        raise _Wrong("overwrite=False replaced an object that was there", advice)

    def _large_put(self) -> str:
        digest = hashlib.sha256()
        started = time.monotonic()
        put = self._put_final("large", _bytes(self._large, digest))
        up = time.monotonic() - started
        if (put.size, put.sha256) != (self._large, digest.hexdigest()):
            raise _Wrong("a large object has another size or SHA-256 than what was put", "")
        started = time.monotonic()
        back = hashlib.sha256()
        with self._adapter.get_final_stream(put) as stream:
            for chunk in stream.chunks():
                back.update(chunk)
        down = time.monotonic() - started
        if back.digest() != digest.digest():
            raise _Wrong("other bytes of a large object came back than were stored", "")
        up, down = (self._large / max(seconds, 1e-6) / 1e6 for seconds in (up, down))
        return f"{self._large / 2**20:.1f} MiB were stored at {up:.0f} MB/s and read at {down:.0f} MB/s"

    def _delete(self) -> str:
        self._adapter.delete_final(self._small)
        try:
            self._adapter.stat_final(self._small)
        except ObjectNotFound:
            pass
        else:
            raise _Wrong("a deleted object is still there", "")
        count = self._adapter.delete_temp_parts(self._name)
        if count != 2 or self._adapter.list_temp_parts(self._name):
            raise _Wrong(f"two parts were to be deleted, and {count} were", "")
        return "what is deleted is gone"


def _bytes(size: int, digest: Any) -> Iterator[bytes]:
    """``size`` bytes in pieces that all differ; ``digest`` is updated with them."""
    for number in range(0, size, _CHUNK):
        piece = (number.to_bytes(8, "big") * (_CHUNK // 8))[: size - number]
        digest.update(piece)
        yield piece


def _nothing_left(adapter: NativeAdapter, name: str) -> str:
    for area, store in adapter.stores().items():
        left = native.call(store, "list", prefix=f"{name}/")["objects"] or ()
        if left:
            keys = ", ".join(one["key"] for one in left)
            raise _Wrong(f"objects of this examination are left in the {area} area: {keys}", "delete them")
    return "this examination has left nothing behind"
