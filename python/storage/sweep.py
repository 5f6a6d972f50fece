"""Sweeping: removes the parts of abandoned sessions, and what interrupted writes have left.

``sweep`` is for a periodic task. ``manage.py storage_sweep`` and the method of an adapter do the same.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from datetime import timedelta
from time import monotonic
from typing import Any, Protocol

from django.core.exceptions import ImproperlyConfigured
from django.utils.module_loading import import_string

from . import conf, native
from .arguments import MAX_PART_NUMBER
from .base import StorageAdapter
from .exceptions import ContentMismatch, ObjectNotFound, StorageError
from .steps import Steps, World
from .types import Keep, SweepReport


class Swept(Protocol):
    """What a sweep needs from an adapter."""

    def stores(self) -> dict[str, int]: ...


class Owner(Protocol):
    """An application that knows sessions by its rows."""

    def live(self, session_id: str) -> bool:
        """Whether the session is one of its own that can go on."""

    def over(self, dry_run: bool) -> Iterator[Iterable[str]]:
        """The sessions whose time is over, whatever their age. Unless ``dry_run``, they cannot go on from here.

        Each item has the sessions of one thing: the next one has parts only if the one before is full.
        """


owners: dict[str, Owner] = {}
"""The applications that ``sweep`` asks, by name. Their sessions are those of the adapter of the alias "default"."""


PLACE = ".gostorage/sweep"
"""The temp key where a sweep that ran out of time stores its place. No part has this key."""

_ENOUGH_SECONDS = 1.0  # even a call without time gets this long to remove something
_LATE_SECONDS = 30.0  # extra time for requests under way, and their retries
_FOREVER = 9e9  # seconds: the longest time that the Go side can count

_ENOUGH = 800
"""Objects of the first step: mostly less than a page of S3, with the end of a folder in it."""
_MOST_AT_A_TIME = 12_800
"""Objects of a step while there is much time: requests side by side, and few round trips for many objects."""
_STEPS_LEFT = 16
"""A step grows while there is time for so many more like the one before."""

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


def sweep(
    alias: str = "default",
    *,
    older_than: timedelta | str,
    keep: Keep | str | None = None,
    dry_run: bool = False,
    max_seconds: float | None = 200,
) -> dict[str, Any]:
    """Sweep the adapter of ``alias``; see ``StorageAdapter.sweep``. Returns the report as a dict, for JSON.

    ``unseen`` is in it only if there is something. With ``dry_run`` nothing is removed.

    All arguments may be JSON, as in a Celery beat schedule: ``older_than`` is a timedelta or a text such as ``"24h"``,
    ``keep`` is a function or its dotted path. The default of ``max_seconds`` fits below a time limit of 300 s.
    """
    age = parse_age(older_than) if isinstance(older_than, str) else older_than
    spare = _imported(keep) if isinstance(keep, str) else keep
    adapter = conf.get_storage_adapter(alias)
    asked = list(owners.values()) if alias == "default" else []
    end = monotonic() + (_FOREVER if max_seconds is None else max_seconds)
    over = _Over(adapter, asked, dry_run, end)
    left = None if max_seconds is None else max(0.0, end - monotonic())
    report = adapter.sweep(age, keep=over.keep(spare), dry_run=dry_run, max_seconds=left)
    report = over.add_to(report)
    told = asdict(report)
    if not report.unseen:
        del told["unseen"]
    return told


class _Over:
    """The sessions whose time is over by the rows of their owners: they are removed whatever their age."""

    def __init__(self, adapter: StorageAdapter, owners: list[Owner], dry_run: bool, end: float) -> None:
        self._owners = owners
        self._counted: set[str] = set()
        self._sessions = self._parts = self._size = 0
        self._finished = True
        for owner in owners:
            for sessions in owner.over(dry_run):
                for session in sessions:
                    parts = adapter.list_temp_parts(session)
                    if dry_run:
                        self._counted.add(session)
                    else:
                        adapter.delete_temp_parts(session)
                    self._sessions += bool(parts)
                    self._parts += len(parts)
                    self._size += sum(part.size or 0 for part in parts)
                    if len(parts) < MAX_PART_NUMBER:
                        break
                if monotonic() >= end:
                    self._finished = False
                    return

    def keep(self, keep: Keep | None) -> Keep | None:
        """Spare also what goes on by the rows, and what a dry run has counted."""
        if not self._owners:
            return keep

        def spared(session: str) -> bool:
            if session in self._counted or any(owner.live(session) for owner in self._owners):
                return True
            return keep is not None and bool(keep(session))

        return spared

    def add_to(self, report: SweepReport) -> SweepReport:
        return replace(
            report,
            sessions=report.sessions + self._sessions,
            parts=report.parts + self._parts,
            size=report.size + self._size,
            finished=report.finished and self._finished,
        )


def parse_age(text: str) -> timedelta:
    """A number with a unit: s, m, h, d or w. Raises ``ValueError``."""
    match = re.fullmatch(r"(\d{1,9}(?:\.\d+)?)([smhdw])", text, re.ASCII)
    if not match:
        raise ValueError(f"an age is a number with the unit s, m, h, d or w, such as 24h, not {text!r}")
    with contextlib.suppress(OverflowError):
        return timedelta(**{_UNITS[match[2]]: float(match[1])})
    return timedelta.max


def _imported(path: str) -> Keep:
    try:
        found = import_string(path)
    except ImportError as error:
        raise ImproperlyConfigured(f"keep is {path!r}, which cannot be imported: {error}") from None
    if not callable(found):
        raise ImproperlyConfigured(f"keep is {path!r}, which is not a function of a session id")
    return found  # type: ignore[no-any-return]


class Sweep:
    """One call of ``sweep``: goes through the temp area, session by session, and then through the final area."""

    def __init__(
        self,
        adapter: Swept,
        world: World,
        older_than: timedelta,
        keep: Keep | None,
        dry_run: bool,
        max_seconds: float | None,
    ) -> None:
        self._adapter = adapter
        self._world = world
        self._keep = keep
        self._dry_run = dry_run
        self._seconds = min(older_than.total_seconds(), _FOREVER)
        self._boxed = max_seconds is not None
        self._started = monotonic()
        self._end = self._started + min(_FOREVER if max_seconds is None else max_seconds, _FOREVER)
        self._counts = dict.fromkeys(("sessions", "parts", "uploads", "size"), 0)
        self._unseen: list[str] = []
        self._area, self._after = "temp", ""
        self._enough = _ENOUGH
        self._resumed = False

    def run(self) -> Steps[SweepReport]:
        if self._boxed:
            yield from self._find_place()
        failed: StorageError | None = None
        finished = False
        while not finished:
            began = monotonic()
            try:
                last = yield from self._page()
            except StorageError as error:
                if error.retryable or error.code in ("cancelled", "closed"):
                    with contextlib.suppress(StorageError):
                        yield from self._keep_place(finished=False)
                    raise
                failed = failed or error
                found = yield from self._call("survey")  # what cannot be removed must not keep the rest from going
                last = found["last"]
            self._after = last
            grows = self._end - monotonic() > _STEPS_LEFT * (monotonic() - began)
            self._enough = min(4 * self._enough, _MOST_AT_A_TIME) if grows else _ENOUGH
            if not last:
                finished = self._area == "final"
                self._area = "final"
            if not finished and self._out_of_time():
                break
        yield from self._keep_place(finished)
        if failed:
            raise failed
        counts = self._counts
        return SweepReport(
            counts["sessions"], counts["parts"], counts["uploads"], counts["size"], finished, tuple(self._unseen)
        )

    def _page(self) -> Steps[str]:
        """Sweep one page. Returns the place after it, or "" at the end of the area."""
        chosen: dict[str, Any] = {}
        if self._keep is not None and self._area == "temp":
            found = yield from self._call("survey")
            chosen = yield from self._choose(self._keep, found)
            if not chosen["sessions"] and not found["others"] and not found["failed"]:
                return str(chosen["until"])
        swept = yield from self._call("sweep", **chosen)
        for name in self._counts:
            self._counts[name] += swept[name]
        return str(swept["last"])

    def _choose(self, keep: Keep, found: dict[str, Any]) -> Steps[dict[str, Any]]:
        """The sessions to remove, as far as there is time to ask ``keep``."""
        chosen: list[str] = []
        until = ""
        for session in found["sessions"]:
            if until and self._out_of_time():
                return {"sessions": chosen, "until": until}
            until = session["last"]
            if not (yield self._world.ask(keep, session["id"])):
                chosen.append(session["id"])
        return {"sessions": chosen, "until": found["last"]}

    def _call(self, op: str, **more: Any) -> Steps[dict[str, Any]]:
        arguments = {
            "after": self._after,
            "older_than": self._seconds,
            "parts": self._area == "temp",
            "dry_run": self._dry_run,
            "enough": self._enough,
            **more,
        }
        store = self._adapter.stores()[self._area]
        done: dict[str, Any] = yield self._world.call_within(self._left(), store, op, sweep=arguments)
        if done["unseen"] and (unseen := f"{self._area} area: {done['unseen']}") not in self._unseen:
            self._unseen.append(unseen)
        return done

    def _left(self) -> float:
        """The time in seconds that a request may take."""
        return max(0.0, self._end - monotonic()) + _LATE_SECONDS

    def _out_of_time(self) -> bool:
        now = monotonic()
        removed = self._counts["parts"] + self._counts["uploads"]
        return now >= self._end and (removed > 0 or now >= self._started + _ENOUGH_SECONDS)

    # The place where a sweep stopped is kept with its age: a sweep with a smaller age must begin anew.

    def _find_place(self) -> Steps[None]:
        temp = self._adapter.stores()["temp"]
        try:
            with self._world.transfer(temp, "get", PLACE, holds=True) as call:
                found = yield call.wait()
                self._resumed = True
                if "data" not in found:  # larger than any place: the reader is left
                    native.release(call.number)
                    return
            kept = json.loads(found["data"])
            if kept["older_than"] <= self._seconds and kept["area"] in ("temp", "final"):
                self._area, self._after = kept["area"], str(kept["after"])
        except (ObjectNotFound, ContentMismatch, ValueError, KeyError, TypeError):
            return

    def _keep_place(self, finished: bool) -> Steps[None]:
        if self._dry_run or not self._boxed:
            return
        temp = self._adapter.stores()["temp"]
        if not finished:
            kept = {"area": self._area, "after": self._after, "older_than": self._seconds}
            data = json.dumps(kept).encode()
            yield self._world.call_within(self._left(), temp, "put", key=PLACE, whole=data)
        elif self._resumed:
            yield self._world.call_within(self._left(), temp, "delete", key=PLACE)
