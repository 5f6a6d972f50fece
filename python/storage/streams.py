"""Bytes in and out: the pump that reads any source into a call, and the reader of a stored object."""

from __future__ import annotations

import ctypes
import io
import os
import stat
import tempfile
import threading
import time
from collections.abc import AsyncIterable, Callable, Iterable
from typing import TYPE_CHECKING, Any, cast

from django.core.files import File, uploadedfile

from . import native
from .exceptions import StorageError

if TYPE_CHECKING:
    from .base import Progress, Source

CHUNK = native.CHUNK
"""The buffer of a reader in bytes, and what a source is asked to read into."""

PIECE = 4 * CHUNK
"""Bytes that a source is asked to give at once."""

_PROGRESS_SECONDS = 0.1

Buffers = (bytes, bytearray, memoryview)


class Meter:
    """Calls ``progress`` at most ten times a second, and once with the final figure."""

    def __init__(self, progress: Progress | None, total: int | None) -> None:
        self._progress = progress
        self._total = total
        self._next = 0.0
        self._last = -1

    def __call__(self, done: int) -> None:
        if self._progress is not None and time.monotonic() >= self._next:
            self._next = time.monotonic() + _PROGRESS_SECONDS
            self._report(done)

    def final(self, done: int) -> None:
        """The final figure, unless it was just told."""
        if done != self._last or type(done) is not int:
            self._report(done)

    def _report(self, done: int) -> None:
        if self._progress is not None:
            self._last = done
            self._progress(done, self._total)


def check_source(source: object) -> None:
    """Raises ``TypeError`` for what can be seen to give no bytes, before anything is started."""
    if isinstance(source, Buffers):
        return
    if isinstance(source, str):
        raise TypeError("the stream gives text: pass bytes, or a file opened in binary mode")
    if isinstance(source, io.TextIOBase):
        raise TypeError("the file is open in text mode: open it in binary mode, open(…, 'rb')")
    if hasattr(source, "readinto") or hasattr(source, "read"):
        return
    if isinstance(source, AsyncIterable):
        raise TypeError("the stream is an async iterator: this method takes a synchronous stream")
    if isinstance(source, Iterable) and not isinstance(source, dict):
        return
    raise TypeError(
        f"a stream has read(n) or readinto(b), or gives bytes when iterated: {type(source).__name__} does not"
    )


def pump(source: Source, call: native.Call, meter: Meter) -> int:
    """Move all of ``source`` into a put; gives the number of bytes. What the source raises arrives unchanged."""
    sink = _Sink(call, meter)
    if isinstance(source, Buffers):
        return sink.take(source)
    readinto, read = getattr(source, "readinto", None), getattr(source, "read", None)
    if callable(readinto):
        if (file := _plain_file(source)) is not None:
            _pump_file(file, sink)
        _pump_into(readinto, sink)
    elif callable(read):
        while sink.take(_not_none(read(PIECE))):
            pass
    else:
        for piece in cast("Iterable[object]", source):
            sink.take(_not_none(piece))
    return sink.done


PlainFile = io.FileIO | io.BufferedReader | io.BufferedRandom


def _plain_file(source: object) -> PlainFile | None:
    """The file that ``source`` is, if it gives just the bytes of its descriptor: by exact types, not subclasses."""
    wrappers = File, uploadedfile.UploadedFile, uploadedfile.TemporaryUploadedFile, tempfile._TemporaryFileWrapper
    while type(source) in wrappers:
        source = cast("Any", source).file
    raw = cast("Any", source).raw if type(source) in (io.BufferedReader, io.BufferedRandom) else source
    if type(raw) is io.FileIO and not raw.closed and raw.readable() and stat.S_ISREG(os.fstat(raw.fileno()).st_mode):
        return cast("PlainFile", source)
    return None


def _pump_file(file: PlainFile, sink: _Sink) -> None:
    """Let the Go side read a file where it stands: that spares a copy. If it cannot, reading in Python says why."""
    if not isinstance(file, io.FileIO):
        if isinstance(file, io.BufferedRandom):
            file.flush()
        sink.take(file.read1())  # what lies in its buffer: the descriptor stands behind it
    while sink.pull(file.fileno()):
        pass


def _pump_into(readinto: Callable[[memoryview], int | None], sink: _Sink) -> None:
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    address = native.address_of(buffer)
    while count := _not_none(readinto(view)):
        if not 0 < count <= CHUNK:
            raise ValueError(f"the stream's readinto answers {count} for a buffer of {CHUNK} bytes")
        sink.write(address, count)


class _Sink:
    """Gives memory to a call and counts. No generator: a source's StopIteration would arrive as RuntimeError."""

    def __init__(self, call: native.Call, meter: Meter) -> None:
        self._call = call
        self._meter = meter
        self.done = 0

    def write(self, address: int, size: int) -> None:
        self._call.write(address, size)
        self.done += size
        self._meter(self.done)

    def pull(self, descriptor: int) -> int:
        """Let the call read a file; gives the number of bytes."""
        count = self._call.pull(descriptor)
        self.done += count
        self._meter(self.done)
        return count

    def take(self, piece: object) -> int:
        """Write a bytes-like object; gives its size in bytes."""
        if type(piece) is bytes:  # a subclass may change what it tells of itself
            if piece:
                self._call.give(piece)
                self.done += len(piece)
                self._meter(self.done)
            return len(piece)
        if not isinstance(piece, Buffers):
            raise TypeError(f"the stream gives {type(piece).__name__}, not bytes")
        with memoryview(piece) as whole:
            if whole.nbytes and not whole.c_contiguous:
                return self.take(whole.tobytes())
            if whole.nbytes:
                with whole.cast("B") as flat:
                    if flat.readonly:  # ctypes tells no address of it: a copy, but never of the whole
                        for start in range(0, len(flat), CHUNK):
                            self.take(flat[start : start + CHUNK].tobytes())
                    else:
                        self.write(native.address_of(flat), len(flat))
            return whole.nbytes


def _not_none(answer: Any) -> Any:
    if answer is None:
        raise StorageError(
            "the stream has no data now (it answers None): it must be a blocking one", code="source", retryable=True
        )
    return answer


def _check_generation(generation: int) -> None:
    if generation != native.generation():
        raise native.forked("stream")


class _Held(io.BytesIO):
    """A small object, of which all bytes are here."""

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._generation = native.generation()

    def readinto(self, buffer: Any) -> int:
        _check_generation(self._generation)
        return super().readinto(buffer)

    def readall(self) -> bytes:
        _check_generation(self._generation)
        return self.read()


class _Window(io.RawIOBase):
    """A window on an open reader of the Go side."""

    _generation = -1  # of one that has not come so far as to own anything

    def __init__(self, owner: object, number: int, opened: dict[str, Any], start: int, length: int | None) -> None:
        self._owner = owner  # an adapter that nobody has any more closes its readers
        self._number = number
        self._generation = native.generation()
        native.own(number, self)
        whole: int = opened["size"]
        self._start = min(start, whole)
        self.size = whole - self._start if length is None else min(length, whole - self._start)
        self._position = 0
        self.borrows = "borrows" in opened
        self._ahead, self._ahead_at = b"", 0  # what is read there next may be in this memory already
        self._lock = threading.Lock()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        self._check()
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._check()
        if whence not in (io.SEEK_SET, io.SEEK_CUR, io.SEEK_END):
            raise ValueError(f"whence is 0, 1 or 2, not {whence}")
        position = offset + (0, self._position, self.size)[whence]
        if position < 0:
            raise ValueError(f"a position is not negative: {position}")
        self._position = position
        return position

    def _check(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed stream")
        _check_generation(self._generation)

    def readinto(self, buffer: Any) -> int:
        self._check()
        with self._lock:
            wanted = min(memoryview(buffer).nbytes, self.size - self._position, native.TURN)
            if wanted <= 0:
                return 0
            memory = native.pinned(buffer)
            count = native.read(self._number, self._start + self._position, ctypes.addressof(memory), wanted)
            self._position += count
            return count

    def take(self, position: int, size: int) -> bytes | None:
        """So many bytes, or what is left, if the stream stands there. The next as many come meanwhile."""
        with self._lock:
            left = self.size - position
            if self._position != position or left <= 0:
                return None
            size = min(size, left)
            data = self._ahead
            if position != self._ahead_at or len(data) != size:
                data = native.new_bytes(None, size)
            address, done = native.address_of_bytes(data), 0
            ahead = native.new_bytes(None, min(size, left - size))
            while done < size:
                done += native.read(self._number, self._start + position + done, address + done, size - done, ahead)
            self._position = self._ahead_at = position + size
            self._ahead = ahead
            return data

    def readall(self) -> bytes:
        pieces = []
        while piece := self.read(max(1, min(native.TURN, self.size - self._position))):
            pieces.append(piece)
            if self._position >= self.size:
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        if not self.closed:
            if self._generation == native.generation():
                native.release(self._number)
            super().close()  # last: what a signal interrupts is done again by the finalizer


class ObjectReader(io.BufferedReader):
    """A stored object, or a range of it, as a binary stream: seekable, buffered, a context manager.

    ``size`` is what this stream can give, in bytes; ``sha256`` belongs to the whole object and is None where the store
    does not know it; ``name`` is the key. Iterating gives chunks of 256 KiB, not lines. Reading on to the end
    verifies the digest: ``ContentMismatch`` comes in place of the last bytes. It reads the object as it was when it
    was opened, even if that is replaced or deleted meanwhile.
    """

    def __init__(
        self, owner: object, number: int, opened: dict[str, Any], *, start: int = 0, length: int | None = None
    ) -> None:
        self._key: str = opened["key"]
        self.sha256: str | None = opened["sha256"] or None
        self._window: _Window | None = None
        if "data" in opened:
            self._size: int = opened["size"]
            super().__init__(_Held(opened["data"]), self._size or 1)
            return
        window = self._window = _Window(owner, number, opened, start, length)
        self._size = window.size
        # BufferedReader asks where it stands and swallows what comes of it, a signal's exception too: no Python there.
        window.tell = int  # type: ignore[method-assign]
        super().__init__(window, max(1, min(CHUNK, window.size)))
        del window.tell

    @property
    def size(self) -> int:
        """Bytes from the stream's start to its end."""
        return self._size

    @property
    def name(self) -> str:
        """The key of the object."""
        return self._key

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to ``size`` bytes, fewer only at the end; all that is left when ``size`` is negative or None."""
        window = self._window
        if window is not None and window.borrows and isinstance(size, int) and CHUNK <= size <= native.TURN:
            data = window.take(self.tell(), size)
            if data is not None:
                self.tell()  # BufferedReader counts what it reads: so it asks where the stream stands
                return data
        return super().read(size)

    def __repr__(self) -> str:
        return f"<ObjectReader {self._key!r}, {self.size} bytes>"

    def __iter__(self) -> ObjectReader:
        return self

    def __next__(self) -> bytes:
        chunk = self.read(CHUNK)
        if not chunk:
            raise StopIteration
        return chunk
