"""The values that adapters take and give."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, TypeAlias, runtime_checkable


@runtime_checkable
class Readable(Protocol):
    """Anything with ``read(n)``."""

    def read(self, size: int, /) -> bytes: ...


Buffer: TypeAlias = bytes | bytearray | memoryview
Source: TypeAlias = Readable | Iterable[Buffer] | Buffer
"""Where bytes come from: read once, forwards, from where it stands; never sought, never closed."""

Progress: TypeAlias = Callable[[int, int | None], object]
"""Called as ``progress(done, total)`` in bytes, at most ten times a second and once with the final figure.

The final ``done`` of an assembly is an ``Assembled``.
"""


class Assembled(int):
    """The bytes of an assembled object; ``copied`` of them never passed this process, which has ``read`` so many."""

    copied: int
    read: int

    def __new__(cls, done: int, copied: int, read: int) -> Assembled:
        self = super().__new__(cls, done)
        self.copied, self.read = copied, read
        return self


@dataclass(frozen=True, slots=True)
class TempPart:
    """A stored part. ``size`` is in bytes, ``sha256`` lower-case hex; None only where the store cannot know."""

    key: str
    part_number: int
    size: int | None
    sha256: str | None

    def __str__(self) -> str:
        return self.key


@dataclass(frozen=True, slots=True)
class FinalObject:
    """A stored object; ``bucket, key = final`` works. ``size`` is in bytes, ``sha256`` lower-case hex."""

    bucket: str
    key: str
    size: int | None
    sha256: str | None

    def __iter__(self) -> Iterator[str]:
        return iter((self.bucket, self.key))


Keep: TypeAlias = Callable[[str], object]
"""Told the id of a session that would be swept, gives whether to spare it."""


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What a sweep has removed, or would remove in a dry run.

    ``sessions`` counts those of which parts were removed, ``parts`` their parts, ``uploads`` unfinished writes, and
    ``size`` the bytes of both. ``finished`` is False when time ran out: another call goes on from there. ``unseen``
    says what the store did not let it look at, and why: old parts have gone all the same.
    """

    sessions: int
    parts: int
    uploads: int
    size: int
    finished: bool
    unseen: tuple[str, ...] = ()
