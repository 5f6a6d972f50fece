"""Looking at bytes before they become visible: the functions that are passed as ``inspect``, and what they read."""

from __future__ import annotations

import io
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from itertools import accumulate
from typing import Any, TypeAlias, cast

from . import _loader
from .streams import ObjectReader, Window, gives_coroutines, is_awaitable

Inspector: TypeAlias = Callable[[ObjectReader], object]
"""Reads what it needs of the bytes. Raises ``ContentRejected`` if they are not wanted; what it returns is not used."""

Inspect: TypeAlias = Inspector | Iterable[Inspector]


def check_inspect(inspect: Inspect | None) -> tuple[Inspector, ...]:
    """The functions, none for None. Raises ``TypeError``."""
    if inspect is None:
        return ()
    several = isinstance(inspect, Iterable) and not callable(inspect)
    inspectors = tuple(cast("Iterable[Inspector]", inspect) if several else [cast("Inspector", inspect)])
    for inspector in inspectors:
        if not callable(inspector):
            raise TypeError(f"inspect is a function of a reader, or several, not {type(inspector).__name__}")
        if isinstance(inspector, type):
            raise TypeError(f"inspect is a function of a reader, or several, not the class {inspector.__name__}")
        if gives_coroutines(inspector):
            raise TypeError("inspect is a synchronous function: asgiref.sync.async_to_sync makes one of a coroutine")
    return inspectors


def ask(inspector: Inspector, reader: ObjectReader) -> None:
    """Let one look, and close the reader. A verdict that would be missed is a ``TypeError``."""
    with reader:
        verdict = inspector(reader)
    if isinstance(verdict, bool) or is_awaitable(verdict):
        raise TypeError(
            f"a function for inspect raises ContentRejected if the bytes are not wanted; that this one returned"
            f" {type(verdict).__name__} says nothing"
        )


class PartsReader(ObjectReader):
    """The bytes of parts, one after the other, as one stream. ``name`` is the key that the whole is going to have."""

    def __init__(
        self, key: str, sizes: Sequence[int], sha256: str | None, open_part: Callable[[int], ObjectReader]
    ) -> None:
        self._key, self.sha256, self._generation = key, sha256, _loader.generation
        self._description = '{"content_type": "application/octet-stream", "modified": null, "metadata": {}}'
        self._begin(_Parts(sizes, open_part))


class _Parts(Window):
    """The raw stream. One part is open at a time: that of the last read."""

    borrows = False
    _reader: ObjectReader | None = None
    _number = -1  # of the part that is open

    def __init__(self, sizes: Sequence[int], open_part: Callable[[int], ObjectReader]) -> None:
        self._generation = _loader.generation
        self._starts = [0, *accumulate(sizes)]
        self.size = self._starts.pop()
        self._open_part = open_part
        self._position = 0
        self._lock = threading.RLock()

    def readinto(self, buffer: Any) -> int:
        self._check()
        self._check_free()
        with self._lock:
            if self._position >= self.size:
                return 0
            number = bisect_right(self._starts, self._position) - 1  # of parts with one start, the last is not empty
            reader = self._part(number)
            offset = self._position - self._starts[number]
            if reader.tell() != offset:
                reader.seek(offset)
            count: int = reader.readinto(buffer)
            self._position += count
            return count

    def _part(self, number: int) -> ObjectReader:
        if self._reader is None or self._number != number:
            self._close_part()
            self._reader, self._number = self._open_part(number), number
        return self._reader

    def _close_part(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    def close(self) -> None:
        if not self.closed:
            self._close_part()
            io.RawIOBase.close(self)
