"""Operations that are written once, for callers that wait and for event loops.

An operation is a generator. What may take long it asks of a `World`, and yields: in the `Waits` world that is the
result, and in the world of ``storage.aio`` something to await. It gets the result back.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, Concatenate, ParamSpec, Protocol, TypeAlias, TypeVar, cast

from . import base, native, streams
from .types import Keep

P = ParamSpec("P")
T = TypeVar("T")
Self = TypeVar("Self")

Steps: TypeAlias = Generator[Any, Any, T]
"""An operation that gives a ``T`` in the end."""


class World(Protocol):
    """What operations ask for. All that is not plain has to be yielded."""

    undo_seconds: float
    """How long an interrupt may wait for a part to be deleted."""

    def transfer(self, store: int, op: str, key: str = "", **arguments: Any) -> native.Call:
        """Make a call, which is plain. Its ``wait`` and ``poll`` have to be yielded."""

    def call(self, store: int, op: str, **arguments: Any) -> Any: ...

    def call_within(self, seconds: float | None, store: int, op: str, **arguments: Any) -> Any: ...

    def check_source(self, source: object) -> None:
        """Plain."""

    def known_length(self, source: object) -> Any: ...

    def pump(self, source: Any, call: native.Call, meter: streams.Meter) -> Any: ...

    def ask(self, keep: Keep, session: str) -> Any: ...

    def aside(self, function: Callable[..., Any], *args: Any) -> Any:
        """Call what blocks as it likes."""

    def settled(self) -> Any:
        """Wait for the end of what an interrupt has stopped, if there is time for that. Whether it has ended."""


class Waits:
    """The world of callers that wait."""

    undo_seconds = 0.2
    transfer = native.Call
    call = staticmethod(native.call)
    call_within = staticmethod(native.call_within)
    check_source = staticmethod(streams.check_source)
    known_length = staticmethod(streams.known_length)
    pump = staticmethod(streams.pump)

    @staticmethod
    def ask(keep: Keep, session: str) -> object:
        kept = keep(session)
        if streams.is_awaitable(kept):  # which is true, so nothing would ever be swept
            raise TypeError("keep is a synchronous function here: a coroutine function goes with asweep")
        return kept

    @staticmethod
    def aside(function: Callable[..., T], *args: Any) -> T:
        return function(*args)

    @staticmethod
    def settled() -> bool:
        return False


waits = Waits()


def run(steps: Steps[T]) -> T:
    """Carry out an operation of the `Waits` world. What its caller's stream raises arrives unchanged."""
    try:
        value = next(steps)
        while True:
            value = steps.send(value)
    except StopIteration as done:
        return cast("T", done.value)
    except RuntimeError as error:
        if isinstance(error.__cause__, StopIteration):  # the stream's: Python lets none out of a generator
            raise error.__cause__ from None
        raise
    finally:
        steps.close()  # a signal may have come here, and its traceback would keep the operation where it stands


def operation(
    function: Callable[Concatenate[Self, World, P], Steps[T]],
) -> Callable[Concatenate[Self, P], T]:
    """Make an operation a method of an adapter that waits. The generator function is its attribute ``steps``."""

    def method(self: Self, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return run(function(self, waits, *args, **kwargs))

    method.__name__, method.__qualname__ = function.__name__, function.__qualname__
    method.__module__, method.__doc__ = function.__module__, function.__doc__
    # For help() and inspect.signature: the contract has the same signature without the world.
    method.__wrapped__ = getattr(base.StorageAdapter, function.__name__)  # type: ignore[attr-defined]
    method.steps = function  # type: ignore[attr-defined]
    return method
