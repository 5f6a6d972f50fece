"""Loads the extension, also in forked children.

Nothing is loaded before the first operation. A Go runtime does not survive a fork. So if the parent had loaded it, the
child loads its own copy, from memory and under a path that is new to the dynamic linker. The linker knows open
libraries by their path: under the old path it would return the parent's dead one.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import importlib.machinery
import importlib.util
import os
import resource
import select
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from types import BuiltinFunctionType, ModuleType
from typing import Any

from .exceptions import StorageError, StorageUnavailable

_NAME = "storage._gostorage"
_PREFIX = "gostorage_"
_FILE = Path(__file__).with_name("_gostorage" + importlib.machinery.EXTENSION_SUFFIXES[0])

# Go's threads inherit the signal mask of the thread that loads them. If they took signals that Python's threads block,
# a worker of billiard could be ended while it holds a lock of its pool. Go stops its own threads with SIGURG.
_LEFT_TO_PYTHON = signal.valid_signals() - {signal.SIGURG}

# They inherit its timer slack too: how late a sleep may end (docs/decisions.md).
_SLACK = 1_000_000  # nanoseconds
_PR_SET_TIMERSLACK, _PR_GET_TIMERSLACK = 29, 30

lock = threading.RLock()
"""Held while the extension is loaded and while stores open. A forked child has a fresh lock."""

functions: dict[str, Callable[..., Any]] = {}
"""The functions of the extension by name, once this process has loaded it."""

generation = 0
"""The number of forks between the first process and this one."""

after_load: list[Callable[[], None]] = []
"""Functions to call each time that a process has loaded the extension."""

_first: int | None = None  # the generation that loads the file itself, not a copy


def _after_fork_in_child() -> None:
    global lock, functions, generation
    lock = threading.RLock()  # another thread of the parent may have held it
    functions = {}
    generation += 1


os.register_at_fork(after_in_child=_after_fork_in_child)


def load() -> dict[str, Callable[..., Any]]:
    """The functions of the extension; loads it if needed. Raises ``StorageError``."""
    global functions, _first
    with lock:
        if not functions:
            try:
                _check_interpreter()
                if not _FILE.exists():
                    raise ModuleNotFoundError(_NAME)
                _check_limits()
                _check_descriptors()
                if _first is None:
                    _first = generation  # before loading: another thread may fork meanwhile
                module = _load_from(str(_FILE)) if _first == generation else _load_copy()
                found = {name.removeprefix(_PREFIX): each for name, each in vars(module).items()}
                if not isinstance(select.poll, BuiltinFunctionType):  # gevent's: other greenlets have work
                    found["Impatient"]()
                functions = found
                for tell in after_load:
                    tell()
            except (ImportError, OSError) as error:
                if _no_descriptor(error):
                    raise StorageUnavailable(
                        "the storage extension cannot be loaded now: no file descriptor is left (ulimit -n)",
                        op="load",
                        retryable=True,
                    ) from None
                raise StorageError(f"the storage extension cannot be loaded: {_why(error)}", op="load") from None
        return functions


def _check_interpreter() -> None:
    """Raises ``StorageError`` where more than one thread could run Python at once, or where the extension would be
    shared with another interpreter."""
    if "t" in sys.abiflags:
        why = (
            "it does not work in a free-threaded Python; use the build that has the global lock, such as python3.14,"
            " not python3.14t"
        )
    elif _interpreter("PyInterpreterState_Get") != _interpreter("PyInterpreterState_Main"):
        why = "it does not work in a sub-interpreter; use the main one (mod_wsgi: WSGIApplicationGroup %{GLOBAL})"
    else:
        return
    raise StorageError(f"the storage extension cannot be loaded: {why}", op="load")


def _interpreter(which: str) -> object:
    return ctypes.PYFUNCTYPE(ctypes.c_void_p)((which, ctypes.pythonapi))()


# What the extension's runtime needs, as measured with uploads and downloads. With less it ends the process.
_ADDRESS_SPACE = 2 << 30  # bytes, in addition to those in use
_THREADS = 16
_DESCRIPTORS = 4  # two for a copy while it is loaded, and two that stay


def _check_limits() -> None:
    with contextlib.suppress(OSError, ValueError, KeyError):  # no /proc: the limits are not known to be too low
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        _check_limit("ulimit -v", resource.RLIMIT_AS, int(status["VmSize"].split()[0]) << 10, _ADDRESS_SPACE, 10, "KiB")
        most = resource.getrlimit(resource.RLIMIT_NPROC)[0]
        if os.geteuid() and most != resource.RLIM_INFINITY:  # root has no such limit
            _check_limit("ulimit -u", resource.RLIMIT_NPROC, _threads_of_user(), _THREADS, 0, "threads")


def _check_limit(name: str, limit: int, used: int, needed: int, shift: int, unit: str) -> None:
    most = resource.getrlimit(limit)[0]
    if most != resource.RLIM_INFINITY and most - used < needed:
        raise StorageError(
            f"the storage extension cannot be loaded: the limit {name} is {most >> shift} {unit}, of which"
            f" {used >> shift} are in use, and it needs {needed >> shift} more; raise the limit",
            op="load",
        )


def _check_descriptors() -> None:
    """Raises ``OSError`` if too few descriptors are free."""
    with contextlib.ExitStack() as held:
        for _ in range(_DESCRIPTORS):
            held.enter_context(_FILE.open("rb", buffering=0))


def _no_descriptor(error: ImportError | OSError) -> bool:
    """Whether no file descriptor was left. The dynamic linker says that only in its text."""
    lacks = errno.EMFILE, errno.ENFILE
    if isinstance(error, OSError):
        return error.errno in lacks
    return any(os.strerror(number) in str(error) for number in lacks)


def _threads_of_user() -> int:
    user, count = os.getuid(), 0
    for process in os.scandir("/proc"):
        with contextlib.suppress(OSError):  # it has ended
            if process.name.isdigit() and process.stat().st_uid == user:
                count += len(os.listdir(f"/proc/{process.name}/task"))
    return count


def _load_from(path: str) -> ModuleType:
    loader = importlib.machinery.ExtensionFileLoader(_NAME, path)
    spec = importlib.util.spec_from_file_location(_NAME, path, loader=loader)
    assert spec is not None
    prctl = ctypes.CDLL(None).prctl
    slack = prctl(_PR_GET_TIMERSLACK)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    try:
        if slack > 0:  # it is allowed, and this thread has no real-time priority
            prctl(_PR_SET_TIMERSLACK, _SLACK)
        signal.pthread_sigmask(signal.SIG_BLOCK, _LEFT_TO_PYTHON)
        module = importlib.util.module_from_spec(spec)
        loader.exec_module(module)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if slack > 0:
            prctl(_PR_SET_TIMERSLACK, slack)
    sys.modules[_NAME] = module
    return module


def _why(error: ImportError | OSError) -> str:
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    text = str(error)
    if "initial-exec" in text:
        return "it needs glibc; use an image that is not Alpine (musl)"
    if isinstance(error, ModuleNotFoundError):
        return "this installation has no extension for this Python; install django-gostorage again"
    return "it was built for another Python or system; install django-gostorage again"


def _load_copy() -> ModuleType:
    fd = _memory_file()
    try:
        with _FILE.open("rb") as original:
            left = os.fstat(original.fileno()).st_size
            while left:
                left -= os.sendfile(fd, original.fileno(), None, left)
        return _load_from(f"/proc/self/fd/{'./' * generation}{fd}")
    finally:
        os.close(fd)


def _memory_file() -> int:
    noexec_seal = 0x8  # MFD_NOEXEC_SEAL; kernels before 6.3 do not know it
    try:
        return os.memfd_create("gostorage", os.MFD_CLOEXEC | noexec_seal)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        return os.memfd_create("gostorage", os.MFD_CLOEXEC)
