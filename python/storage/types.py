"""The values that adapters take and return."""

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
"""Where bytes come from. It is read once, forwards, from its current position; never sought, never closed."""

Progress: TypeAlias = Callable[[int, int | None], object]
"""Called as ``progress(done, total)`` in bytes, at most ten times a second, and once with the final figure.

The final ``done`` of an assembly is an ``Assembled``.
"""


class Assembled(int):
    """The bytes of an assembled object: the store copied ``copied`` of them, and this process read ``read`` bytes."""

    copied: int
    read: int

    def __new__(cls, done: int, copied: int, read: int) -> Assembled:
        self = super().__new__(cls, done)
        self.copied, self.read = copied, read
        return self


@dataclass(frozen=True, slots=True)
class TempPart:
    """A stored part. ``size`` is in bytes, ``sha256`` in lower-case hex; None only if the store cannot know it."""

    key: str
    part_number: int
    size: int | None
    sha256: str | None

    def __str__(self) -> str:
        return self.key


@dataclass(frozen=True, slots=True)
class FinalObject:
    """A stored object; ``bucket, key = final`` works. ``size`` is in bytes, ``sha256`` in lower-case hex."""

    bucket: str
    key: str
    size: int | None
    sha256: str | None

    def __iter__(self) -> Iterator[str]:
        return iter((self.bucket, self.key))


Keep: TypeAlias = Callable[[str], object]
"""Gets the id of a session that would be removed, and returns whether to keep it."""


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What a sweep has removed, or would remove in a dry run.

    ``sessions`` counts sessions whose parts were removed, ``parts`` those parts, ``uploads`` unfinished writes.
    ``size`` is the bytes of parts and unfinished writes. ``finished`` is False if time ran out: another call continues
    from there. ``unseen`` says what the store did not let the sweep check, and why; old parts are removed all the same.
    """

    sessions: int
    parts: int
    uploads: int
    size: int
    finished: bool
    unseen: tuple[str, ...] = ()
