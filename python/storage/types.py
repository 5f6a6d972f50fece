"""The values that adapters take and return."""

from __future__ import annotations

import re
from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from datetime import datetime
from types import NoneType
from typing import Any, Protocol, Self, TypeAlias, cast, runtime_checkable


@runtime_checkable
class Readable(Protocol):
    """Anything with ``read(n)``."""

    def read(self, size: int, /) -> bytes: ...


Buffer: TypeAlias = bytes | bytearray | memoryview
Source: TypeAlias = Readable | Iterable[Buffer] | Buffer
"""Where bytes come from. It is read once, forwards, from its current position; never sought, never closed."""


class AsyncReadable(Protocol):
    """Anything whose ``read(n)`` is awaited."""

    def read(self, size: int, /) -> Awaitable[bytes]: ...


class AReadable(Protocol):
    """Anything with ``aread(n)``, which is awaited."""

    def aread(self, size: int, /) -> Awaitable[bytes]: ...


AsyncSource: TypeAlias = Source | AsyncReadable | AReadable | AsyncIterable[Buffer]
"""Where an asynchronous method takes bytes from: what a synchronous one takes, and what is awaited."""

Progress: TypeAlias = Callable[[int, int | None], object]
"""Called as ``progress(done, total)`` in bytes, at most ten times a second, and once with the final figure.

The final ``done`` of an assembly is an ``Assembled``.
"""


AsyncProgress: TypeAlias = Callable[[int, int | None], Awaitable[object]]
"""The same as a coroutine function."""


class Assembled(int):
    """``done`` bytes of an assembled object: the store copied ``copied`` of them, and this process read ``read``."""

    copied: int
    read: int

    def __new__(cls, done: int, copied: int, read: int) -> Assembled:
        self = super().__new__(cls, done)
        self.copied, self.read = copied, read
        return self


def _from_dict(cls: type[Any], values: Mapping[str, Any], checks: Mapping[str, tuple[Any, ...]]) -> Any:
    """A value of a class from a dict of its fields. Fields with a default may be missing."""
    if not isinstance(values, Mapping):
        raise TypeError(f"{cls.__name__}.from_dict takes a dict, not {type(values).__name__}")
    known = fields(cls)
    if unknown := sorted(map(repr, values.keys() - {one.name for one in known})):
        raise ValueError(f"a {cls.__name__} has no {', '.join(unknown)}")
    for one in known:
        if one.name not in values and one.default is MISSING:
            raise ValueError(f"the {cls.__name__} lacks {one.name!r}")
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, checks[name]):
            raise TypeError(f"{name} of a {cls.__name__} is not {type(value).__name__}")
    if (values["size"] or 0) < 0:
        raise ValueError(f"size of a {cls.__name__} is a number of bytes, not {values['size']}")
    if values["sha256"] is not None and not _SHA256.fullmatch(values["sha256"]):
        raise ValueError(f"sha256 of a {cls.__name__} is 64 hexadecimal digits in lower case")
    if not all(isinstance(each, str) for pair in (values.get("metadata") or {}).items() for each in pair):
        raise TypeError(f"metadata of a {cls.__name__} maps texts to texts")
    return cls(**values)


_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class TempPart:
    """The stored part ``part_number`` of a session, with its ``key`` in the temp area.

    ``size`` is in bytes, ``sha256`` in lower-case hex; None only if the store cannot know it.
    """

    key: str
    part_number: int
    size: int | None
    sha256: str | None

    def __str__(self) -> str:
        return self.key

    def as_dict(self) -> dict[str, Any]:
        """All fields by name, in a form that JSON has."""
        return {"key": self.key, "part_number": self.part_number, "size": self.size, "sha256": self.sha256}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The part of which ``as_dict`` made ``values``. Raises ``TypeError`` or ``ValueError`` for anything else."""
        return cast("Self", _from_dict(cls, values, _PART))


@dataclass(frozen=True, slots=True)
class FinalObject:
    """A stored object; ``bucket, key = final`` works. ``size`` is in bytes, ``sha256`` in lower-case hex.

    ``stat_final`` also tells the ``content_type`` ("application/octet-stream" if none was given), when the object was
    ``modified`` (a datetime with a time zone; None if the store does not tell), and the ``metadata`` with its names in
    lower case. They are None in what puts return, and in listings but for ``modified``; they are not compared. A file
    system without extended attributes keeps no content type and no metadata.
    """

    bucket: str
    key: str
    size: int | None
    sha256: str | None
    content_type: str | None = field(default=None, compare=False)
    modified: datetime | None = field(default=None, compare=False)
    metadata: Mapping[str, str] | None = field(default=None, compare=False)

    def __iter__(self) -> Iterator[str]:
        return iter((self.bucket, self.key))

    def as_dict(self) -> dict[str, Any]:
        """All fields by name, in a form that JSON has: ``modified`` is a text in ISO 8601."""
        return {
            "bucket": self.bucket,
            "key": self.key,
            "size": self.size,
            "sha256": self.sha256,
            "content_type": self.content_type,
            "modified": None if self.modified is None else self.modified.isoformat(),
            "metadata": None if self.metadata is None else dict(self.metadata),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The object of which ``as_dict`` made ``values``; bucket, key, size and sha256 are enough.

        Raises ``TypeError`` or ``ValueError`` for anything else.
        """
        made = cast("Self", _from_dict(cls, values, _FINAL))
        if made.modified is None:
            return made
        modified = datetime.fromisoformat(str(made.modified))
        if modified.tzinfo is None:
            raise ValueError("modified has a time zone")
        return replace(made, modified=modified)


_TEXT, _NUMBER = (str, NoneType), (int, NoneType)
_PART = {"key": (str,), "part_number": (int,), "size": _NUMBER, "sha256": _TEXT}
_FINAL = {
    "bucket": (str,),
    "key": (str,),
    "size": _NUMBER,
    "sha256": _TEXT,
    "content_type": _TEXT,
    "modified": _TEXT,
    "metadata": (Mapping, NoneType),
}
"""The classes of the values in the dicts."""


Keep: TypeAlias = Callable[[str], object]
"""Gets the id of a session that would be removed, and returns whether to keep it."""

AsyncKeep: TypeAlias = Callable[[str], Awaitable[object]]
"""The same as a coroutine function."""


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
