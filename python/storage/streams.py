"""Bytes in and out: the pump, which moves any source into a call, and the reader of a stored object."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import io
import os
import stat
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterable, Callable, Iterable, Iterator
from datetime import datetime
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any, TypeGuard, TypeVar, cast

from django.core.files import File, uploadedfile

from . import _loader, native
from .arguments import MAX_SIZE, check_chunk
from .exceptions import StorageError
from .types import Progress, Source

if TYPE_CHECKING:
    from http.client import HTTPResponse

    from django.http import HttpRequest

CHUNK = native.CHUNK
"""The size in bytes of a reader's buffer, and of the buffer that a source reads into."""

PIECE = 4 * CHUNK
"""The bytes that one ``read`` of a source asks for."""

_PROGRESS_SECONDS = 0.1

Buffers = (bytes, bytearray, memoryview)


class Meter:
    """Calls ``progress`` at most ten times a second, and once with the final figure."""

    def __init__(self, progress: Progress | None, total: int | None) -> None:
        self._progress = progress
        self._total = total
        self._next = 0.0
        self._last = -1

    def __call__(self, done: int) -> object:
        """Report a figure, if it is time. Returns what ``progress`` does: something to await, if it is asynchronous."""
        if self._progress is not None and time.monotonic() >= self._next:
            self._next = time.monotonic() + _PROGRESS_SECONDS
            return self._report(done)
        return None

    def final(self, done: int) -> object:
        """Report the final figure, unless it was just reported."""
        return self._report(done) if done != self._last or type(done) is not int else None

    def _report(self, done: int) -> object:
        if self._progress is None:
            return None
        self._last = done
        return self._progress(done, self._total)


def check_source(source: object) -> None:
    """Raises ``TypeError`` for what visibly gives no bytes, before anything is started."""
    if isinstance(source, Buffers):
        return
    if isinstance(source, str):
        raise TypeError("the stream gives text: pass bytes, or a file opened in binary mode")
    if isinstance(source, io.TextIOBase):
        raise TypeError("the file is open in text mode: open it in binary mode, open(…, 'rb')")
    if hasattr(source, "readinto") or hasattr(source, "read"):
        return
    if isinstance(source, AsyncIterable) or hasattr(source, "aread"):
        raise asynchronous()
    if isinstance(source, Iterable) and not isinstance(source, dict):
        return
    raise TypeError(
        f"a stream has read(n) or readinto(b), or gives bytes when iterated: {type(source).__name__} does not"
    )


def asynchronous() -> TypeError:
    return TypeError(
        "the stream is asynchronous: it goes with aput_final and aput_temp_part, and is an async iterator or has a"
        " coroutine function aread(n) or read(n)"
    )


def known_length(source: object) -> int | None:
    """How many bytes a source says that it still has, or None. It is not moved. If it ends earlier, it was cut.

    Raises ``StorageError`` for a request whose body the server or Django has not given.
    """
    request = getattr(source, "_request", source)  # the request that Django REST framework wraps
    if _is_request(request):
        return _length_of_body(request)
    if isinstance(source, File) and (size := _stated_size(source)) is not None:
        return size - _position(source)
    if (file := _plain_file(source)) is not None:
        return os.fstat(file.fileno()).st_size - file.tell()
    inner = _unwrapped(source)
    if type(inner) is io.BufferedReader and _is_response(inner.raw):
        answer = inner.raw  # it does not tell how much of it lies in the buffer
        return answer.length if str(answer.length) == answer.headers["Content-Length"] else None
    return inner.length if _is_response(inner) else None


def exact_length(source: object, length: int | None) -> int | None:
    """The ``known_length`` of a source that can give no more than that, or None."""
    if type(source) is bytes:
        return len(source)
    return length if _is_request(getattr(source, "_request", source)) else None


def _is_request(source: object) -> TypeGuard[HttpRequest]:
    module: Any = sys.modules.get("django.http.request")  # not imported here: that would load Django's models
    return module is not None and isinstance(source, module.HttpRequest)


def _is_response(source: object) -> TypeGuard[HTTPResponse]:
    module: Any = sys.modules.get("http.client")
    return module is not None and isinstance(source, module.HTTPResponse)


def _length_of_body(request: HttpRequest) -> int | None:
    """How many bytes of the body Django has still to read, by the length that the client stated."""
    stated = str(request.META.get("CONTENT_LENGTH") or "")
    digits = stated.lstrip("0") if stated.isascii() and stated.isdigit() else ""
    length = int(digits[:20] or 0)  # Python does not convert any number of digits
    if length > MAX_SIZE:
        raise StorageError("the request has a Content-Length above 5 TiB", code="too_large", op="put")
    stream = getattr(request, "_stream", None)
    if not length:
        # Under WSGI Django reads only the Content-Length, unless somebody has replaced the stream.
        nothing = getattr(stream, "limit", None) == 0 or getattr(request, "_body", None) == b""
        if nothing and hasattr(request, "environ") and "HTTP_TRANSFER_ENCODING" in request.META:
            raise StorageError(
                "the body of the request is chunked, and WSGI gives nothing of it: have the client send Content-Length,"
                " have the server in front buffer requests, or serve the view by ASGI",
                code="no_length",
                op="put",
            )
        if stated.strip("0"):
            raise StorageError("the request has a Content-Length that is no number", code="no_length", op="put")
        return None
    if getattr(request, "_read_started", False) and hasattr(request, "_files") and not hasattr(request, "_body"):
        raise StorageError(
            "the body of the request was read for request.POST or request.FILES: store what is in request.FILES",
            code="source",
            op="put",
        )
    limited = getattr(stream, "_pos", None)  # Django's WSGI stream has its position only here
    return length - (limited if isinstance(limited, int) else _position(stream))


def _stated_size(file: File[Any]) -> int | None:
    """The size that was set on a Django file, or that its class knows. `File` itself would seek to find it."""
    stated = vars(file).get("size")
    if stated is None and type(file).size is not File.size:
        try:
            stated = file.size
        except (OSError, ValueError, NotImplementedError):  # its storage cannot tell
            return None
    return stated if isinstance(stated, int) else None


def _position(stream: Any) -> int:
    """The position of a stream; 0 if it does not tell."""
    try:
        return int(stream.tell())
    except (AttributeError, OSError, ValueError):
        return 0


def pump(source: Source, call: native.Call, meter: Meter) -> int:
    """Move all of ``source`` into a put. Returns the number of bytes. What the source raises arrives unchanged."""
    sink = _Sink(call, meter)
    if isinstance(source, Buffers):
        return sink.take(source)
    readinto, read = getattr(source, "readinto", None), getattr(source, "read", None)
    if callable(readinto):
        if (file := _plain_file(source)) is not None:
            _pump_file(file, sink)
        _pump_into(readinto, sink)
    elif callable(read):
        while sink.take(not_none(read(PIECE))):
            pass
    else:
        for piece in cast("Iterable[object]", source):
            sink.take(not_none(piece))
    return sink.done


PlainFile = io.FileIO | io.BufferedReader | io.BufferedRandom


def _unwrapped(source: object) -> object:
    """What ``source`` wraps, if it only wraps it. Only exact types count, because subclasses may change the bytes."""
    wrappers = File, uploadedfile.UploadedFile, uploadedfile.TemporaryUploadedFile, tempfile._TemporaryFileWrapper
    while type(source) in wrappers:
        source = cast("Any", source).file
    return source


def _plain_file(source: object) -> PlainFile | None:
    """The file that ``source`` is or wraps, if it gives exactly the bytes of its descriptor."""
    source = _unwrapped(source)
    raw = cast("Any", source).raw if type(source) in (io.BufferedReader, io.BufferedRandom) else source
    if type(raw) is io.FileIO and not raw.closed and raw.readable() and stat.S_ISREG(os.fstat(raw.fileno()).st_mode):
        return cast("PlainFile", source)
    return None


def _pump_file(file: PlainFile, sink: _Sink) -> None:
    """Let the Go side read a file from its position, which saves a copy. If it cannot, a read in Python says why."""
    if not isinstance(file, io.FileIO):
        if isinstance(file, io.BufferedRandom):
            file.flush()
        sink.take(file.read1())  # the bytes in its buffer: the descriptor is already behind them
    while sink.pull(file.fileno()):
        pass


def _pump_into(readinto: Callable[[memoryview], int | None], sink: _Sink) -> None:
    buffer = bytearray(CHUNK)
    view = memoryview(buffer)
    pin = native.pinned(buffer)  # while held, the buffer cannot be resized, also if the source releases the view
    address = ctypes.addressof(pin)
    while count := not_none(readinto(view)):
        if not 0 < count <= CHUNK:
            raise ValueError(f"the stream's readinto answers {count} for a buffer of {CHUNK} bytes")
        sink.write(address, count)


class _Sink:
    """Gives memory to a call and counts bytes. No generator: in one, a source's StopIteration becomes RuntimeError."""

    def __init__(self, call: native.Call, meter: Meter) -> None:
        self._call = call
        self._meter = meter
        self.done = 0

    def write(self, address: int, size: int) -> None:
        self._call.write(address, size)
        self.done += size
        self._meter(self.done)

    def pull(self, descriptor: int) -> int:
        """Let the call read a file. Returns the number of bytes."""
        count = self._call.pull(descriptor)
        self.done += count
        self._meter(self.done)
        return count

    def take(self, piece: object) -> int:
        """Write a bytes-like object. Returns its size in bytes."""
        if type(piece) is bytes:  # a subclass may report another length
            if piece:
                self._call.give(piece)
                self.done += len(piece)
                self._meter(self.done)
            return len(piece)
        if not isinstance(piece, Buffers):
            raise not_bytes(piece)
        with memoryview(piece) as whole:
            if whole.nbytes and not whole.c_contiguous:
                return self.take(whole.tobytes())
            if whole.nbytes:
                with whole.cast("B") as flat:
                    if flat.readonly:  # ctypes gives no address of it: copied, but never all at once
                        for start in range(0, len(flat), CHUNK):
                            self.take(flat[start : start + CHUNK].tobytes())
                    else:
                        self.write(native.address_of(flat), len(flat))
            return whole.nbytes


def gives_coroutines(function: object) -> bool:
    """Whether it is a coroutine function, or an object that is called like one."""
    return iscoroutinefunction(function) or iscoroutinefunction(type(function).__call__)


def is_awaitable(value: object) -> bool:
    """Whether a value would have to be awaited, where nothing is. It is closed: else Python warns of a coroutine."""
    if not hasattr(value, "__await__"):
        return False
    if hasattr(value, "close"):
        value.close()
    return True


def not_bytes(piece: object) -> TypeError:
    if is_awaitable(piece):
        return asynchronous()
    return TypeError(f"the stream gives {type(piece).__name__}, not bytes")


class ObjectWriter(io.BufferedIOBase):
    """A put as a binary stream: ``publish`` stores what was written. Closed without that, also by an error of a write
    or when it is forgotten, nothing is stored. No seeking."""

    _call: native.Call | None = None  # while it is open

    def __init__(self, owner: object, call: native.Call) -> None:
        self._owner = owner  # without this reference the adapter could go, and would end the put
        self._sink = _Sink(call, Meter(None, None))
        self._pending = bytearray()  # small pieces: each call costs
        self._call = call.__enter__()

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        self._check()
        return self.size

    @property
    def size(self) -> int:
        """The bytes written so far."""
        return self._sink.done + len(self._pending)

    def write(self, data: Any, /) -> int:
        """Take all bytes of ``data``; waits if the store is slower. Returns how many they are."""
        self._check()
        with memoryview(data) as view, self._or_nothing():
            size = view.nbytes
            if size < CHUNK:
                self._pending += data
            if size >= CHUNK or len(self._pending) >= CHUNK:
                self._send()
            if size >= CHUNK:
                self._sink.take(data if type(data) is bytes else view)  # arrays and maps of files have views
        return size

    def publish(self) -> dict[str, Any]:
        """Store the object and close. Returns what the Go side says of it. After an error nothing is stored."""
        call = self._check()
        with self._or_nothing():
            self._send()
            call.finish()
            stored = call.wait()
        self._call = None
        call.__exit__(None)
        self.close()
        return stored

    def _send(self) -> None:
        pending, self._pending = self._pending, bytearray()
        self._sink.take(pending)

    def _check(self) -> native.Call:
        if self._call is None:
            raise ValueError("I/O operation on closed file")
        return self._call

    @contextlib.contextmanager
    def _or_nothing(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Undo what was not published."""
        call, self._call = self._call, None
        if call is not None:
            call.__exit__(BaseException)
        super().close()


def not_none(answer: Any) -> Any:
    if answer is None:
        raise StorageError(
            "the stream returned None, so it has no data now and does not block: pass a blocking stream",
            code="source",
            op="put",
            retryable=True,
        )
    return answer


def reentrant() -> StorageError:
    return StorageError("a signal handler has used the stream that it interrupted: open another one", code="reentrant")


class Window(io.RawIOBase):
    """The raw stream of a range of an open reader of the Go side."""

    _generation = -1  # until the window owns a reader
    release = staticmethod(native.release)

    def __init__(self, owner: object, number: int, opened: dict[str, Any], start: int, length: int | None) -> None:
        self._owner = owner  # without this reference the adapter could go, and would close its readers
        self.number = number
        self._generation = _loader.generation
        native.own(number, self)
        whole: int = opened["size"]
        self.start = min(start, whole)
        self.size = whole - self.start if length is None else min(length, whole - self.start)
        self._position = 0
        self.borrows = "borrows" in opened
        self._ahead, self._ahead_at = b"", 0  # the bytes of the next read may already be in this memory
        self._lock = threading.RLock()

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
        if self._generation != _loader.generation:
            raise native.forked("stream")

    def _check_free(self) -> None:
        if self._lock._is_owned():  # type: ignore[attr-defined]
            raise reentrant()

    def readinto(self, buffer: Any) -> int:
        self._check()
        self._check_free()
        with self._lock:
            wanted = min(memoryview(buffer).nbytes, self.size - self._position, native.TURN)
            if wanted <= 0:
                return 0
            memory = native.pinned(buffer)
            count = native.read(self.number, self.start + self._position, ctypes.addressof(memory), wanted)
            self._position += count
            return count

    def take(self, position: int, size: int) -> bytes | None:
        """``size`` bytes or what is left, and None at the end or at another position. The next ones come meanwhile."""
        self._check_free()
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
                done += native.read(self.number, self.start + position + done, address + done, size - done, ahead)
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
            if self._generation == _loader.generation:
                self.release(self.number)
            super().close()  # last: after a signal the finalizer does it again


Method = TypeVar("Method", bound=Callable[..., Any])


def _here(method: Method) -> Method:
    """A method of `BufferedReader`, checked: the plain one would give buffered bytes also in a forked child."""

    @functools.wraps(method)
    def checked(self: ObjectReader, *args: Any) -> Any:
        if self._generation != _loader.generation:
            raise native.forked("stream")
        try:
            return method(self, *args)
        except RuntimeError as error:
            if str(error).startswith("reentrant call"):
                raise reentrant() from None
            raise

    return cast("Method", checked)


class ObjectReader(io.BufferedReader):
    """A stored object, or a range of it, as a binary stream: seekable, buffered, a context manager.

    ``size`` is the number of bytes that this stream can give. ``sha256`` belongs to the whole object, and is None if
    the store does not know it. So do ``content_type``, ``modified`` and ``metadata``, as in a `FinalObject`. ``name``
    is the key. Iteration gives lines, as with any binary file; ``chunks`` gives pieces for a response. Reading to the
    end verifies the digest: ``ContentMismatch`` comes in place of the last bytes. The stream reads the object as it was
    at its opening, even if the object is replaced or deleted meanwhile.

    In a forked child of the process that opened it, every read raises ``StorageError`` with the code "forked". In a
    signal handler that interrupted a read of it, a read raises one with the code "reentrant".
    """

    _size: int
    _window: Window | None = None

    def __init__(
        self, owner: object, number: int, opened: dict[str, Any], *, start: int = 0, length: int | None = None
    ) -> None:
        self._key: str = opened["key"]
        self.sha256: str | None = opened["sha256"] or None
        self._description: str = opened["description"]
        self._generation = _loader.generation
        if "data" in opened:
            self._size = opened["size"]
            super().__init__(cast("Any", io.BytesIO(opened["data"])), self._size or 1)
            return
        self._begin(Window(owner, number, opened, start, length))

    def _begin(self, window: Window) -> None:
        self._window = window
        self._size = window.size
        # BufferedReader asks for the position and swallows any exception, also that of a signal: no Python code there.
        window.tell = int  # type: ignore[method-assign]
        super().__init__(window, max(1, min(CHUNK, window.size)))
        del window.tell

    @property
    def size(self) -> int:
        """The bytes from the stream's start to its end."""
        return self._size

    @property
    def name(self) -> str:
        """The key of the object."""
        return self._key

    @property
    def content_type(self) -> str:
        """The content type of the object, "application/octet-stream" if none was given."""
        return native.described(self._description)[0]

    @property
    def modified(self) -> datetime | None:
        """When the object was modified, with a time zone; None if the store does not tell."""
        return native.described(self._description)[1]

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata of the object. Names are in lower case."""
        return native.described(self._description)[2]

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to ``size`` bytes, fewer only at the end; all that is left if ``size`` is negative or None."""
        window = self._window
        if window is None:
            if self._generation == _loader.generation:  # only memory lies below: it is never reentered
                return super().read(size)
        elif window.borrows and isinstance(size, int) and CHUNK <= size <= native.TURN:
            data = window.take(self.tell(), size)
            if data is not None:
                super().tell()  # so BufferedReader asks for the new position: it counts only its own reads
                return data
        read: bytes = self._read(size)
        return read

    _read = _here(io.BufferedReader.read)
    read1 = _here(io.BufferedReader.read1)
    readinto = _here(io.BufferedReader.readinto)
    readinto1 = _here(io.BufferedReader.readinto1)
    readline = _here(io.BufferedReader.readline)
    peek = _here(io.BufferedReader.peek)
    seek = _here(io.BufferedReader.seek)
    tell = _here(io.BufferedReader.tell)
    detach = _here(io.BufferedReader.detach)
    _close = _here(io.BufferedReader.close)

    @property
    def raw(self) -> Any:  # type: ignore[override]
        """The stream below; for a small object it holds all bytes."""
        if self._generation != _loader.generation:
            raise native.forked("stream")
        return super().raw

    def close(self) -> None:
        if self._generation == _loader.generation:
            if self._window is None:
                super().close()
            else:
                self._window._check_free()
                self._close()
        elif not self.closed:
            super().raw.close()  # not through BufferedReader: a thread that the child lacks may hold its lock

    def __repr__(self) -> str:
        return f"<ObjectReader {self._key!r}, {self.size} bytes>"

    def chunks(self, size: int = CHUNK) -> Chunks:
        """What is left in pieces of ``size`` bytes (256 KiB), of which the last may be shorter.

        For a ``StreamingHttpResponse``, which closes the pieces and so the stream. Raises ``TypeError`` or
        ``ValueError`` unless ``size`` is a number of at least 1.
        """
        return Chunks(self, check_chunk(size))


class Chunks(Iterator[bytes]):
    """The pieces of a stream, one after the other. ``close`` closes the stream."""

    def __init__(self, reader: ObjectReader, size: int) -> None:
        self._reader, self._size = reader, size
        self.close = reader.close

    def __next__(self) -> bytes:
        piece = self._reader.read(self._size)
        if not piece:
            raise StopIteration
        return piece
