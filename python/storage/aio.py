"""Operations in an event loop of asyncio or uvloop, which waits for the descriptors of their calls.

No thread waits for a call. What only blocking code can do, such as to read a file of the caller, is done by a few
threads that all operations share.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import io
import os
from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import datetime
from inspect import iscoroutinefunction
from itertools import islice
from time import monotonic
from typing import Any, ParamSpec, TypeVar, cast

from asgiref.sync import sync_to_async
from django.core.files import File, uploadedfile
from django.core.files.base import ContentFile

from . import native, streams
from .arguments import check_chunk
from .exceptions import StorageCancelled, StorageError, StorageTimeout
from .steps import Steps
from .streams import CHUNK, PIECE, Buffers, Meter, ObjectReader
from .types import FinalObject, Keep

P = ParamSpec("P")
T = TypeVar("T")

THREADS = 4
"""How many threads read the sources of all operations that block, such as files and sockets."""

_UNDO_SECONDS = 5.0
"""How long an operation that was cancelled waits for its end; after that it is undone in the background."""

_POLL_SECONDS = 0.1

_END = object()
"""Stands behind the last piece of a source."""


def running(name: str = "") -> asyncio.AbstractEventLoop:
    """The loop that runs in this thread. Raises ``RuntimeError``, which says what to do."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        what = f"a{name}" if name else "this"
        instead = f", or call {name}" if name else ""
        raise RuntimeError(
            f"{what} has to be awaited in an event loop of asyncio or uvloop, and none runs in this thread:"
            f" await it in a coroutine that runs by asyncio.run(…) or under ASGI{instead}"
        ) from None


async def news(descriptor: int, seconds: float | None = None) -> None:
    """Wait until a descriptor can be read, at most so many seconds."""
    loop = running()
    came: asyncio.Future[None] = loop.create_future()
    timer = None if seconds is None else loop.call_later(seconds, _tell, came)
    loop.add_reader(descriptor, _tell, came)
    try:
        await came
    finally:
        loop.remove_reader(descriptor)  # before anybody looks at the call: the Go side may then close it
        if timer is not None:
            timer.cancel()


def _tell(came: asyncio.Future[None]) -> None:
    if not came.done():
        came.set_result(None)


# ---- threads

_threads: ThreadPoolExecutor | None = None


def _forget_the_parents() -> None:
    global _threads
    _threads = None


os.register_at_fork(after_in_child=_forget_the_parents)


async def aside(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function that blocks in one of our threads."""
    global _threads
    loop = running()
    if _threads is None:
        _threads = ThreadPoolExecutor(THREADS, thread_name_prefix="storage")
    return await loop.run_in_executor(_threads, lambda context: context.run(function, *args, **kwargs), copy_context())


async def _to_its_end(work: Coroutine[Any, Any, T]) -> T:
    """Await what is not cancelled with its task: a cancellation waits for it."""
    begun = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(begun)
    except asyncio.CancelledError:
        await asyncio.wait([begun])
        raise


# ---- operations


class Call(native.Aside):
    """A call that is awaited."""

    __slots__ = ("_world",)

    def __init__(self, world: Awaits, store: int, op: str, key: str = "", **arguments: Any) -> None:
        super().__init__(store, op, key, **arguments)
        self._world = world

    def __exit__(self, kind: object, *_: object) -> None:
        super().__exit__(kind)
        if kind is not None:
            self._world.stopped.append(self)

    async def wait(self, seconds: float | None = None) -> dict[str, Any]:  # type: ignore[override]
        return await _result(self, seconds)

    async def poll(self, milliseconds: int = 0) -> dict[str, Any] | None:  # type: ignore[override]
        found = self.look()
        if isinstance(found, int):
            await news(found, _POLL_SECONDS)
            return None
        return found

    async def give(self, data: bytes) -> None:  # type: ignore[override]
        """Give bytes, and wait for room. Other tasks have their turn meanwhile, however quick the store is."""
        done, unseen, descriptor = 0, 0, None
        while done < len(data):
            if taken := self.offer(data, done):
                done, unseen, descriptor = done + taken, unseen + taken, None
                if unseen >= PIECE:
                    await asyncio.sleep(0)
                    unseen = 0
            elif descriptor is None:
                descriptor = cast("int", self.look())  # from here on, news is not missed: so try once more
            else:
                await news(descriptor)
                descriptor = None


async def _result(call: native.Aside, seconds: float | None = None) -> dict[str, Any]:
    loop = running()
    end = None if seconds is None else loop.time() + seconds
    while isinstance(found := call.look(), int):
        if end is None:
            await news(found)
        elif (left := end - loop.time()) > 0:
            await news(found, left)
        else:
            raise StorageTimeout(f"no answer within {seconds:g} s", op=call.op, retryable=True)
    return found


class Awaits:
    """The `World` of one operation in an event loop."""

    undo_seconds = _UNDO_SECONDS

    def __init__(self) -> None:
        self.stopped: list[native.Aside] = []

    def transfer(self, store: int, op: str, key: str = "", **arguments: Any) -> Call:
        return Call(self, store, op, key, **arguments)

    async def call(self, store: int, op: str, **arguments: Any) -> dict[str, Any]:
        with self.transfer(store, op, **arguments) as call:
            return await cast("Call", call).wait()

    async def call_within(self, seconds: float | None, store: int, op: str, **arguments: Any) -> dict[str, Any]:
        with self.transfer(store, op, **arguments) as call:
            return await cast("Call", call).wait(seconds)

    @staticmethod
    def check_source(source: object) -> None:
        if not is_asynchronous(source):
            streams.check_source(source)

    @staticmethod
    async def known_length(source: object) -> int | None:
        if isinstance(source, File) and not _is_in_memory(source):  # its storage may have to be asked
            return await aside(streams.known_length, source)
        return streams.known_length(source)

    @staticmethod
    async def pump(source: Any, call: Call, meter: Meter) -> int:
        done, more = 0, _reading(source)
        while (piece := await more()) is not _END:
            for data in _bytes(piece):
                await call.give(data)
                done += len(data)
                await _awaited(meter(done))
        return done

    @staticmethod
    async def ask(keep: Keep, session: str) -> object:
        if streams.gives_coroutines(keep):
            return await cast("Any", keep)(session)
        # It may use the database, which Django refuses to the thread of a loop.
        return await _awaited(await sync_to_async(keep)(session))

    @staticmethod
    async def aside(function: Callable[..., T], *args: Any) -> T:
        # Not one of our threads: what an inspector does may take minutes.
        return await asyncio.to_thread(function, *args)

    async def settled(self) -> bool:
        await self.undone()
        return True

    async def undone(self) -> None:
        """Wait until what was stopped has ended. Raises ``CancelledError`` only after that."""
        loop, cancelled = running(), None
        while self.stopped:
            call, end = self.stopped.pop(), loop.time() + _UNDO_SECONDS
            try:
                while isinstance(found := call.look(), int) and loop.time() < end:
                    try:
                        await news(found, end - loop.time())
                    except asyncio.CancelledError as error:
                        cancelled = error
            except StorageError:
                pass  # that is its end
            finally:
                call.end()
        if cancelled is not None:
            raise cancelled


async def _awaited(value: Any) -> Any:
    return await value if hasattr(value, "__await__") else value


async def drive(operation: Callable[..., Steps[T]], adapter: object, *args: Any, **kwargs: Any) -> T:
    """Carry out an operation. What leaves this leaves it after the undo."""
    world = Awaits()
    return await _whole(world, carried_out(operation(adapter, world, *args, **kwargs)))


async def carried_out(steps: Steps[T]) -> T:
    """What an operation gives, whose steps are awaited if they can be."""
    try:
        asked = next(steps)
        while True:
            try:
                value = await _awaited(asked)
            except BaseException as error:
                asked = steps.throw(error)
            else:
                asked = steps.send(value)
    except StopIteration as done:
        return cast("T", done.value)
    finally:
        steps.close()  # a signal may have come here


async def _whole(world: Awaits, work: Awaitable[T]) -> T:
    try:
        result = await work
    except GeneratorExit:  # nobody awaits any more, and nothing can be awaited
        for call in world.stopped:
            call.end()
        raise
    except asyncio.CancelledError:
        with contextlib.suppress(asyncio.CancelledError):  # it is already on its way
            await world.undone()
        raise
    except BaseException:
        await world.undone()
        raise
    await world.undone()
    return result


# ---- sources


def is_asynchronous(source: object) -> bool:
    """Whether a source is awaited."""
    read = getattr(source, "read", None)
    return hasattr(source, "aread") or isinstance(source, AsyncIterable) or iscoroutinefunction(read)


_HELD = ContentFile, File, uploadedfile.UploadedFile, uploadedfile.InMemoryUploadedFile, uploadedfile.SimpleUploadedFile


def _is_in_memory(source: object) -> bool:
    """Whether to read a source takes no time. Only exact types count, because subclasses may do anything."""
    if type(source) in _HELD:
        source = cast("Any", source).file
    return type(source) in (io.BytesIO, list, tuple) or isinstance(source, Buffers)


def _reading(source: Any) -> Callable[[], Awaitable[Any]]:
    """A function that is awaited for the next piece of a source, or for `_END`."""
    if isinstance(source, Buffers):
        source = (source,)
    read = getattr(source, "read", None)
    if hasattr(source, "aread"):
        return lambda: _aread(source.aread)
    if iscoroutinefunction(read):
        return lambda: _aread(cast("Any", read))
    if isinstance(source, AsyncIterable):
        iterator = source.__aiter__()
        return lambda: _anext(iterator)
    if callable(readinto := getattr(source, "readinto", None)):
        each = functools.partial(_read_into, readinto)
    elif callable(read):
        each = functools.partial(_read, read)
    else:
        each = functools.partial(_next, iter(source))
    if _is_in_memory(source):
        return lambda: _at_once(each)
    return _Blocking(each)


async def _at_once(each: Callable[[], Any]) -> Any:
    return each()


async def _aread(read: Callable[[int], Awaitable[Any]]) -> Any:
    return _piece(await read(CHUNK))


async def _anext(iterator: AsyncIterator[Any]) -> Any:
    try:
        return await iterator.__anext__()
    except StopAsyncIteration:
        return _END


def _next(iterator: Iterator[Any]) -> Any:
    return streams.not_none(next(iterator, _END))


def _read(read: Callable[[int], Any]) -> Any:
    return _piece(read(CHUNK))


def _piece(piece: Any) -> Any:
    """What a read gave; nothing is the end. Text goes on, empty or not, to where it is refused."""
    return streams.not_none(piece) or (piece if isinstance(piece, str) else _END)


def _read_into(readinto: Callable[[memoryview], int | None]) -> Any:
    buffer = bytearray(CHUNK)
    count = streams.not_none(readinto(memoryview(buffer)))
    if not 0 <= count <= CHUNK:
        raise ValueError(f"the stream's readinto answers {count} for a buffer of {CHUNK} bytes")
    return bytes(memoryview(buffer)[:count]) or _END


_ENOUGH_SECONDS = 0.005


class _Blocking:
    """The pieces of a source that blocks, some at a time: each change of the thread takes long."""

    def __init__(self, each: Callable[[], Any]) -> None:
        self._each = each
        self._ended = False

    async def __call__(self) -> Any:
        return _END if self._ended else await aside(self._some)

    def _some(self) -> bytes:
        some: list[bytes] = []
        size, until = 0, monotonic() + _ENOUGH_SECONDS
        while size < CHUNK and (not some or monotonic() < until):
            try:
                piece = self._each()
            except StopIteration as error:  # which no coroutine lets through
                raise RuntimeError("the stream raised StopIteration") from error
            if piece is _END:
                self._ended = True
                break
            for data in _bytes(piece):  # a copy of what may change with the next piece
                some.append(data)
                size += len(data)
        return some[0] if len(some) == 1 else b"".join(some)


def _bytes(piece: object) -> Iterator[bytes]:
    """The bytes of a piece. What may change while others have their turn is copied, block by block."""
    if type(piece) is bytes:
        yield piece
        return
    if not isinstance(piece, Buffers):
        raise streams.not_bytes(piece)
    with memoryview(piece) as whole:
        if not whole.nbytes:
            return
        if not whole.c_contiguous:
            yield whole.tobytes()
            return
        with whole.cast("B") as flat:
            for start in range(0, len(flat), CHUNK):
                yield flat[start : start + CHUNK].tobytes()


# ---- adapters that have only synchronous methods


async def in_thread(method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Call a synchronous method in a thread of the loop. Sources and functions among the arguments may be awaited, but
    not those for inspect: what they read blocks."""
    loop = running(method.__name__)
    bridges = []

    def plain(argument: Any) -> Any:
        if is_asynchronous(argument):
            bridges.append(_Bridge(argument, loop))
            return bridges[-1]
        return _waiting(argument, loop) if streams.gives_coroutines(argument) else argument

    plain_args = [plain(one) for one in args]
    plain_kwargs = {name: one if name == "inspect" else plain(one) for name, one in kwargs.items()}
    # Not one of our threads: it may wait for a source that needs one of them.
    work = asyncio.ensure_future(asyncio.to_thread(method, *plain_args, **plain_kwargs))
    try:
        await asyncio.wait([work])  # which is not cancelled with the task
    except asyncio.CancelledError:
        work.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # else asyncio tells of its error
        for bridge in bridges:
            bridge.stop()
        if bridges:
            await asyncio.wait([work])
        raise
    return work.result()


def _waiting(function: Callable[..., Any], loop: asyncio.AbstractEventLoop) -> Callable[..., Any]:
    """A function that has a coroutine run by the loop, and waits for its result."""
    return lambda *args: asyncio.run_coroutine_threadsafe(function(*args), loop).result()


class _Bridge:
    """A synchronous source for another thread, of an asynchronous one."""

    def __init__(self, source: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._more, self._loop = _reading(source), loop
        self._left, self._stopped = b"", False
        self._reads: Any = None

    def read(self, size: int = -1, /) -> bytes:
        pieces = [self._left]
        while (size < 0 or not pieces[-1]) and (piece := self._next()) is not _END:
            pieces += _bytes(piece)
        data = b"".join(pieces)
        end = len(data) if size < 0 else size
        self._left = data[end:]
        return data[:end]

    def _next(self) -> Any:
        if self._stopped:
            raise StorageError("the task was cancelled", code="cancelled", op="put")
        self._reads = asyncio.run_coroutine_threadsafe(cast("Any", self._more()), self._loop)
        if self._stopped:
            self._reads.cancel()
        return self._reads.result()

    def stop(self) -> None:
        """Make the read that runs, or the next one, raise."""
        self._stopped = True
        if self._reads is not None:
            self._reads.cancel()


_BATCH = 1000


async def listed(listing: Callable[[], Iterator[FinalObject]]) -> AsyncIterator[FinalObject]:
    """What a synchronous ``list_final`` gives, some at a time."""
    running("list_final")
    objects = await asyncio.to_thread(listing)
    while True:
        some, failed = await asyncio.to_thread(_some, objects)
        for one in some:
            yield one
        if failed is not None:
            raise failed
        if len(some) < _BATCH:
            return


def _some(objects: Iterator[FinalObject]) -> tuple[list[FinalObject], Exception | None]:
    """The next objects, and the error that comes after them."""
    some: list[FinalObject] = []
    try:
        some.extend(islice(objects, _BATCH))
    except Exception as error:
        return some, error
    return some, None


# ---- readers


class AsyncObjectReader:
    """A stored object, or a range of it, as an asynchronous stream: `ObjectReader` for coroutines.

    ``async with`` closes it, ``async for`` gives pieces of 256 KiB. ``size``, ``name``, ``sha256``, ``content_type``,
    ``modified`` and ``metadata`` are those of an ``ObjectReader``, as are the errors. ``seek`` and ``tell`` ask nothing
    of the store. A read that is cancelled does not move the position.
    """

    def __init__(self, reader: ObjectReader) -> None:
        self._reader = reader
        self._lock = asyncio.Lock()
        self._fetch: native.Fetch | None = None  # what runs
        self._ours = isinstance(reader, ObjectReader)
        self._window = reader._window if self._ours else None  # None: all bytes are here, or it is not ours
        if self._window is not None:
            self._window.release = native.release_aside

    @property
    def size(self) -> int:
        """The bytes from the stream's start to its end."""
        return self._reader.size

    @property
    def name(self) -> str:
        """The key of the object."""
        return self._reader.name

    @property
    def sha256(self) -> str | None:
        """The digest of the whole object; None if the store does not know it."""
        return self._reader.sha256

    @property
    def content_type(self) -> str:
        """The content type of the object, "application/octet-stream" if none was given."""
        return self._reader.content_type

    @property
    def modified(self) -> datetime | None:
        """When the object was modified, with a time zone; None if the store does not tell."""
        return self._reader.modified

    @property
    def metadata(self) -> dict[str, str]:
        """The metadata of the object. Names are in lower case."""
        return self._reader.metadata

    @property
    def closed(self) -> bool:
        return self._reader.closed

    def tell(self) -> int:
        """The position in bytes."""
        return (self._reader if self._window is None else self._window).tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """Move the position by ``offset`` bytes, from where ``whence`` says, as in a file. Returns the position."""
        moved = self._reader if self._window is None else self._window
        return moved.seek(offset, whence)

    async def aread(self, size: int | None = -1, /) -> bytes:
        """Up to ``size`` bytes, fewer only at the end; all that is left if ``size`` is negative or None."""
        if self._ours and self._window is None:
            return self._reader.read(size)
        async with self._lock:
            if self._window is None:
                return await asyncio.to_thread(self._reader.read, size)
            left = max(0, self._window.size - self._window.tell())
            if not (wanted := left if size is None or size < 0 else min(size, left)):
                return b""
            world = Awaits()
            return await _whole(world, self._fetched(world, wanted))

    async def _fetched(self, world: Awaits, size: int) -> bytes:
        window = cast("Any", self._window)
        fetch = native.Fetch(window.number, window.start + window.tell(), size)
        self._fetch = fetch
        try:
            with fetch:
                count = (await _result(fetch))["count"]
        except BaseException:
            world.stopped.append(fetch)
            raise
        finally:
            self._fetch = None
        if window.closed:  # just before the bytes were here
            raise StorageCancelled("the stream was closed", op="read", key=self.name)
        window.seek(count, io.SEEK_CUR)
        return fetch.data if count == size else fetch.data[:count]

    def achunks(self, size: int = CHUNK) -> AsyncChunks:
        """What is left in pieces of ``size`` bytes (256 KiB), of which the last may be shorter.

        For a ``StreamingHttpResponse`` under ASGI, which closes the pieces and so the stream. Raises ``TypeError`` or
        ``ValueError`` unless ``size`` is a number of at least 1.
        """
        return AsyncChunks(self, check_chunk(size))

    def __aiter__(self) -> AsyncChunks:
        return self.achunks()

    async def aclose(self) -> None:
        """Close the stream. A read that runs in another task raises ``StorageCancelled``."""
        if self._ours:
            self.close()
        elif not self._reader.closed:
            await _to_its_end(asyncio.to_thread(self._reader.close))

    def close(self) -> None:
        """The same where nothing can be awaited."""
        if self._fetch is not None:
            self._fetch.stop()
        self._reader.close()

    async def __aenter__(self) -> AsyncObjectReader:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __repr__(self) -> str:
        return f"<AsyncObjectReader {self.name!r}, {self.size} bytes>"


class AsyncChunks(AsyncIterator[bytes]):
    """The pieces of an asynchronous stream, one after the other. ``aclose`` and ``close`` close the stream."""

    def __init__(self, reader: AsyncObjectReader, size: int) -> None:
        self._reader, self._size = reader, size
        self.aclose, self.close = reader.aclose, reader.close

    async def __anext__(self) -> bytes:
        piece = await self._reader.aread(self._size)
        if not piece:
            raise StopAsyncIteration
        return piece
