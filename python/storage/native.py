"""The boundary to Go: calls the extension and gives its results types."""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib.machinery
import importlib.util
import itertools
import json
import os
import select
import sys
import threading
import weakref
from collections import deque
from datetime import UTC, datetime, timedelta
from time import monotonic, sleep
from typing import Any

from . import _loader
from .exceptions import WIRE, StorageError, StorageTimeout, from_wire

CHUNK = 256 * 1024
"""Bytes that cross at once: one block of the Go side."""

SHORT = 64 * 1024
"""The most bytes that the start of a put can take with it."""

TURN = 4 * 1024 * 1024
"""The most bytes that one call moves, so that Python sees its signals."""

_TURN_MS = 100  # with a longer wait Python would see its signals late
# Python chooses the numbers before anything is open in Go: so a signal that arrives in between loses none.
_numbers = itertools.count(1)
_owned: dict[int, weakref.ref[object]] = {}  # open calls and readers, and the owners that must end them
_abandoned: deque[_Owner] = deque()  # those whose owners are gone and that nobody has ended


# Bytes that the Go side uses in place, by token. They stay until it is done with them, also after an interrupt. The
# last reference to this dict is never given up, so that they stay when the interpreter ends.
_lent: dict[int, bytes] = {}
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_lent))


def lock() -> threading.RLock:
    """Held while stores open. A forked child has a fresh lock: a thread that it lacks may hold the parent's."""
    return _loader.lock


def loaded() -> bool:
    """Whether this process has loaded the extension."""
    return bool(_loader.functions)


def _forget_the_parents() -> None:
    _owned.clear()
    _abandoned.clear()
    _lent.clear()  # nobody uses them in a child


os.register_at_fork(after_in_child=_forget_the_parents)


# In a child that was forked from another thread, CPython 3.13 marks a signal on a thread that the child does not have.
# The handler then runs only when somebody asks.
_check_signals = ctypes.pythonapi.PyErr_CheckSignals


def _invoke(function: str, *arguments: object, token: int = 0, lent: bytes = b"") -> Any:
    """Call a function of the extension. Only here its errors become ours.

    The bytes ``lent`` under a ``token`` stay until Go gives the token back.
    """
    try:
        invoked = (_loader.functions or _loader.load())[function]
        if token:
            _lent[token] = lent  # no signal is seen before the call: each token in the dict comes back
        return invoked(*arguments)
    except BaseException as error:
        del arguments  # a store's configuration has secrets, and error reports show this frame
        if not (isinstance(error, RuntimeError) and str(error).startswith(WIRE)):  # a signal handler raised it
            raise
        raise from_wire(str(error)) from None


_encode = json.JSONEncoder(check_circular=False).encode
_decode = json.JSONDecoder().raw_decode


def forked(what: str) -> StorageError:
    """The error for a stream or transfer of the parent that a forked child uses."""
    return StorageError(
        f"this {what} was opened before the fork and belongs to the parent process; open it again here",
        code="forked",
    )


def number() -> int:
    """A number that no store, call or reader had before."""
    return next(_numbers)


def own(number: int, owner: object) -> None:
    """Make ``owner`` the owner of an open call or reader. When the owner is gone, the next call ends what it owned."""
    ref = _Owner(owner, _abandoned.append)
    ref.number = number
    _owned[number] = ref


class _Owner(weakref.ref[object]):
    """A reference to an owner. When the owner goes, it comes into a queue: in any thread, at any time."""

    number = 0
    """0 is nobody's number: a signal may arrive before the real one is set."""


def _end_what_nobody_owns() -> None:
    while _abandoned:
        with contextlib.suppress(IndexError, ValueError):  # another thread was faster
            gone = _abandoned[0]
            if _owned.get(gone.number) is gone:
                _end(gone.number)
            _abandoned.remove(gone)  # last: after a signal all of it is done again


def _forget_returned() -> None:
    token = 0
    while token := _invoke("Returned", token):  # the call confirms the one before: after a signal it is done again
        _lent.pop(token, None)


def _end(number: int) -> None:
    _invoke("Cancel", number)
    _owned.pop(number, None)


def set_budget(size: int) -> None:
    """Set how many bytes of memory all transfers of the process share for their work ahead."""
    _invoke("SetBudget", size)


def open_store(store: int, config: dict[str, Any]) -> None:
    """Make a store on the Go side, unless it exists."""
    _invoke("Open", store, json.dumps(config))


def close_store(store: int) -> None:
    """Cancel what runs on a store, and forget the store."""
    _invoke("Close", store)


_rooms: list[bytes] = []
"""One buffer of `_room`, kept for reuse: new memory for each small object would take longer than filling it."""


def _room() -> bytes:
    try:
        return _rooms.pop()
    except IndexError:
        room: bytes = new_bytes(None, SHORT)
        return room


class Call:
    """An operation of the Go side, in a ``with`` block. An exception that leaves the block undoes it.

    With ``holds`` the result includes the bytes of a small object.
    """

    __slots__ = ("__weakref__", "_answer", "_generation", "_room", "_start", "number")

    def __init__(
        self,
        store: int,
        op: str,
        key: str = "",
        *,
        whole: bytes | None = None,
        holds: bool = False,
        **arguments: Any,
    ) -> None:
        self._generation = _loader.generation
        self._start = store, op, key, _encode(arguments) if arguments else "", whole
        self._room = _room() if holds else b""  # for a small object
        self._answer = ""  # the last answer of the Go side, if it was not used yet
        self.number = number()

    def __enter__(self) -> Call:
        store, op, key, arguments, whole = self._start
        if whole is None:
            whole = self._room or None
        address, size = (0, -1) if whole is None else (address_of_bytes(whole), len(whole))
        self._begin("Start", store, self.number, op, key, arguments, address, size)
        return self

    def _begin(self, function: str, *arguments: object, token: int = 0, lent: bytes = b"") -> None:
        if _abandoned:
            _end_what_nobody_owns()
        own(self.number, self)
        try:
            self._answer = _invoke(function, *arguments, token=token, lent=lent)
        except BaseException:
            _end(self.number)
            raise

    def __exit__(self, kind: object, *_: object) -> None:
        if self._generation != _loader.generation:
            return
        if self._room and not _rooms:
            _rooms.append(self._room)
        if kind is not None:
            _end(self.number)
        elif (owner := _owned.get(self.number)) is not None and owner() is self:  # and not the reader that came of it
            del _owned[self.number]
        if _lent:
            _forget_returned()

    def _check_process(self) -> None:
        if self._generation != _loader.generation:
            raise forked("transfer")

    def _check(self) -> None:
        self._check_process()
        _check_signals()

    def give(self, data: bytes) -> None:
        """Give bytes. Go uses whole blocks in place, as long as it accepts them; the rest is copied."""
        address, left = address_of_bytes(data), len(data)
        while left >= CHUNK:
            self._check()
            taken = self._lend(data, address, left)
            if taken < 0:
                break
            address += taken
            left -= taken
        self.write(address, left)

    def _lend(self, data: bytes, address: int, left: int) -> int:
        """Offer the whole blocks of what is left. Returns how many bytes were taken; -1 if they have to be written."""
        token = number()
        taken: int = _invoke("Lend", self.number, token, address, left - left % CHUNK, token=token, lent=data)
        _forget_returned()
        return taken

    def write(self, address: int, size: int) -> None:
        """Give ``size`` bytes at ``address``. They are copied before this returns."""
        while size:
            self._check()
            taken = _invoke("Write", self.number, address, min(size, TURN))
            address += taken
            size -= taken

    def pull(self, descriptor: int) -> int:
        """Give bytes of an open file. Returns how many were taken; 0 if no more can be read in this way."""
        while True:
            self._check()
            taken = int(_invoke("Pull", self.number, descriptor, TURN))
            if taken >= 0:
                return taken

    def finish(self) -> None:
        """Say that all bytes have been given: the commit begins."""
        self._check_process()
        self._answer = _invoke("Finish", self.number)

    def poll(self, milliseconds: int = _TURN_MS) -> dict[str, Any] | None:
        """The result, or None if it does not come in time."""
        self._check()
        answer, self._answer = self._answer or self._ask(), ""
        if answer[0] == "@":
            news = select.poll()  # Python waits, not Go: it sees signals at once
            news.register(int(answer[1:]), select.POLLIN)
            news.poll(min(milliseconds, _TURN_MS))
            answer = self._ask()
            if answer[0] == "@":
                self._answer = answer
                return None
        return self._result(answer)

    def _ask(self) -> str:
        room = self._room
        answer: str = _invoke("Wait", self.number, address_of_bytes(room) if room else 0, len(room))
        return answer

    def _result(self, text: str) -> dict[str, Any]:
        if text[0] == "{":
            decoded: dict[str, Any] = _decode(text)[0]
            return decoded
        known, brace, description = text.partition("{")
        size, sha256, *more = known.split(" ")
        result: dict[str, Any] = {"key": self._start[2], "size": int(size), "sha256": sha256}
        if brace:
            result["description"] = brace + description  # see `described`
        if "whole" in more:
            # No slice: a slice of all of it would be the buffer itself, which is used again.
            result["data"] = memoryview(self._room)[: result["size"]].tobytes()
        elif "borrows" in more:
            result["borrows"] = True
        return result

    def wait(self, seconds: float | None = None) -> dict[str, Any]:
        """The result; signals are seen meanwhile. Raises ``StorageTimeout`` after ``seconds``, unless it is None."""
        if seconds is None:
            while (result := self.poll()) is None:
                pass
            return result
        end = monotonic() + seconds
        while True:
            left = end - monotonic()
            result = self.poll(int(min(max(left, 0) * 1000, _TURN_MS)))
            if result is not None:
                return result
            if left <= 0:
                raise StorageTimeout(f"no answer within {seconds:g} s", op=self._start[1], retryable=True)

    def progress(self) -> int:
        """Bytes moved so far."""
        return int(_invoke("Progress", self.number))


class Aside(Call):
    """A call for a thread that has other work. Nothing waits here: a descriptor becomes readable when there is news.

    An exception that leaves the block only begins to undo it: `look` tells when that is done, and then `end` is due.
    """

    __slots__ = ()

    def __init__(self, store: int, op: str, key: str = "", **arguments: Any) -> None:
        super().__init__(store, op, key, aside=True, **arguments)

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None or self._generation != _loader.generation:
            super().__exit__(kind)
        else:
            self.stop()

    @property
    def op(self) -> str:
        """The name of the operation."""
        return self._start[1]

    def stop(self) -> None:
        """Begin to undo the call."""
        _invoke("Stop", self.number)

    def end(self) -> None:
        """Forget a call that was stopped, and what it has opened."""
        super().__exit__(BaseException)

    def look(self) -> dict[str, Any] | int:
        """The result, or a descriptor that becomes readable when there is news. Nobody may wait for the last one."""
        self._check()
        answer, self._answer = self._answer or self._ask(), ""
        return int(answer[1:]) if answer[0] == "@" else self._result(answer)

    def offer(self, data: bytes, start: int) -> int:
        """Give bytes from an index on. Returns how many were taken, 0 if there is no room: `look` tells of room."""
        self._check()
        address, left = address_of_bytes(data) + start, len(data) - start
        if left >= CHUNK and (taken := self._lend(data, address, left)) >= 0:
            return taken
        return int(_invoke("Write", self.number, address, min(left, CHUNK)))


class Fetch(Aside):
    """Reads from an open reader into ``data``. The result is the count of its bytes."""

    __slots__ = ("_place", "data")

    def __init__(self, reader: int, offset: int, size: int) -> None:
        super().__init__(reader, "read")
        self._place = reader, offset
        self.data: bytes = new_bytes(None, size)

    def __enter__(self) -> Fetch:
        token, address = number(), address_of_bytes(self.data)
        reader, offset = self._place
        self._begin("Fetch", reader, self.number, offset, address, len(self.data), token, token=token, lent=self.data)
        return self


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def described(description: str) -> tuple[str, datetime | None, dict[str, str]]:
    """The content type, the time of change and the metadata in the description of an object."""
    told = _decode(description)[0]
    return told["content_type"], moment(told["modified"]), told["metadata"]


def moment(modified: int | None) -> datetime | None:
    """The time that is so many microseconds after 1970."""
    return None if modified is None else _EPOCH + timedelta(microseconds=modified)


def call(store: int, op: str, **arguments: Any) -> dict[str, Any]:
    """Carry out an operation and wait for its result."""
    with Call(store, op, **arguments) as running:
        return running.wait()


def call_within(seconds: float | None, store: int, op: str, **arguments: Any) -> dict[str, Any]:
    """The same, but raises ``StorageTimeout`` after ``seconds``."""
    with Call(store, op, **arguments) as running:
        return running.wait(seconds)


def read(reader: int, offset: int, address: int, size: int, ahead: bytes = b"") -> int:
    """Fill memory from a reader. Returns the number of bytes, 0 at the end. Signals are seen while it waits.

    Go may write the bytes that follow into ``ahead``, made by `new_bytes`, before they are asked for. A later read into
    that same memory then has them at once.
    """
    token, next_address = 0, address_of_bytes(ahead) if ahead else 0
    while True:
        _check_signals()
        if ahead:
            token = number()
        count: int = _invoke(
            "Read", reader, offset, address, size, next_address, len(ahead), token, token=token, lent=ahead
        )
        if ahead:
            _forget_returned()
        if count >= 0:
            return count


def release(reader: int) -> None:
    """Close a reader."""
    _end(reader)
    if _lent:
        _forget_returned()


def release_aside(reader: int) -> None:
    """Close a reader without waiting for its end."""
    _invoke("Stop", reader)
    _owned.pop(reader, None)
    if _lent:
        _forget_returned()


_EXIT_SECONDS = 2.0


@atexit.register
def _undo_at_exit() -> None:
    """Undo what still runs, in daemon threads or after an interrupt: a remote store must be told."""
    if not loaded():  # not loaded, or only by the parent
        return
    until = monotonic() + _EXIT_SECONDS
    while _invoke("CancelAll") and monotonic() < until:
        sleep(0.01)


def _tell_multiprocessing() -> None:
    """Children of multiprocessing end without atexit, or forget its functions. At their end they run finalizers."""
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        util = importlib.import_module("multiprocessing.util")
        util.Finalize(None, _finish_undoing, exitpriority=0)


_loader.after_load.append(_tell_multiprocessing)


def _finish_undoing() -> None:
    """Wait until cancelled calls are undone. Other threads of the child may still work; their calls continue."""
    until = monotonic() + _EXIT_SECONDS
    while monotonic() < until:
        running = sum(isinstance(owner(), Call) for owner in tuple(_owned.values()))
        if stats()["calls"] <= running:
            return
        sleep(0.01)


def check_key(key: str) -> None:
    """Check a key on the Go side; it decides the same as ``storage.arguments.check_key``."""
    _invoke("CheckKey", key)


def crc32c(value: int, data: bytes) -> int:
    """The CRC-32C of the bytes that ``value`` stands for, with ``data`` behind them. That of no bytes is 0."""
    return int(_invoke("CRC32C", value, address_of_bytes(data), len(data)))


def stats() -> dict[str, int]:
    """Counts of what is open on the Go side, for tests that look for leaks."""
    _end_what_nobody_owns()
    _forget_returned()
    counts: dict[str, int] = json.loads(_invoke("Stats"))
    return counts


def settle(seconds: float) -> None:
    """Wait until no call runs on the Go side, also none that is being undone; at most ``seconds``."""
    end = monotonic() + seconds
    while stats()["calls"] and monotonic() < end:
        sleep(0.02)


pinned = ctypes.c_char.from_buffer
"""The start of writable memory. The memory cannot move while this object is held."""


def address_of(buffer: bytearray | memoryview) -> int:
    """The address of writable memory. The caller must keep it alive and unmoved."""
    return ctypes.addressof(pinned(buffer))


new_bytes = ctypes.pythonapi.PyBytes_FromStringAndSize
"""``new_bytes(None, size)`` makes a `bytes` object to be filled before anybody else sees it."""
new_bytes.argtypes, new_bytes.restype = [ctypes.c_void_p, ctypes.c_ssize_t], ctypes.py_object

_as_string = ctypes.pythonapi.PyBytes_AsString
_as_string.argtypes, _as_string.restype = [ctypes.py_object], ctypes.c_void_p
_HEADER: int = _as_string(b"x") - id(b"x")
"""The size of the header of a `bytes` object. Asking each object for its address would be too slow."""


def address_of_bytes(data: bytes) -> int:
    """The address of the bytes themselves, without a copy. The caller must keep the object alive."""
    return id(data) + _HEADER
