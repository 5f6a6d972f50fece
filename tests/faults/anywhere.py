"""Interrupts an operation at every place in the package where Python looks at its signals, one place a time. A loop is
interrupted in its first round, and for `make test-full` in its first two.

Usage: anywhere.py ROOT OPERATION. Prints the number of places as JSON if each time the exception arrived as it is,
nothing became visible or was left open, and the next operation worked.
"""

import dis
import gc
import io
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path
from types import CodeType, FunctionType

from django.conf import settings

settings.configure(INSTALLED_APPS=["storage"])

from storage import LocalStorageAdapter, ObjectNotFound, native  # noqa: E402

ROOT = Path(sys.argv[1])
TOOL = sys.monitoring.DEBUGGER_ID
CHECKED = {"RESUME", "CALL", "CALL_KW", "CALL_FUNCTION_EX", "JUMP_BACKWARD"}
"""After these the interpreter runs the handlers of signals."""

ROUNDS = 2 if os.environ.get("STORAGE_TEST_FULL") else 1
"""So often a place is interrupted that the same callers come to again: a third round of a loop shows nothing new."""


def codes(code):
    return [code, *(inner for const in code.co_consts if isinstance(const, CodeType) for inner in codes(const))]


FILES = {str(Path(native.__file__).with_name(name)) for name in ("_loader.py", "native.py", "streams.py", "adapter.py")}
FILES |= {"<frozen importlib._bootstrap>", "<frozen importlib._bootstrap_external>"}
CODES = {
    code: code.co_code
    for function in gc.get_objects()
    if isinstance(function, FunctionType) and function.__code__.co_filename in FILES
    for code in codes(function.__code__)
}

gc.disable()  # or a finalizer runs at any place, and exceptions end in it
adapter = LocalStorageAdapter(temp_dir=ROOT / "temp", final_dir=ROOT / "final", durable=False)
OLD, NEW = b"old" * 100_000, [b"1" * 300_000, bytearray(b"2" * 300_000)]
WHOLE = b"".join(NEW)


def way_to(frame):
    """Where a frame is, and where each of its callers is."""
    while frame:
        yield frame.f_code, frame.f_lasti
        frame = frame.f_back


class Interruption(RuntimeError):
    """Of the class of the extension's own errors."""


class Interrupt:
    """Raises at the place with the number `left`, counted while it is armed."""

    def __init__(self, left):
        self.left, self.armed, self.previous = left, True, None
        self.place, self.raised = None, Interruption("by a signal")
        self.rounds = Counter()

    def __enter__(self):
        sys.monitoring.use_tool_id(TOOL, "interrupt")
        sys.monitoring.register_callback(TOOL, sys.monitoring.events.INSTRUCTION, self.step)
        for code in CODES:
            sys.monitoring.set_local_events(TOOL, code, sys.monitoring.events.INSTRUCTION)
        return self

    def __exit__(self, *_):
        sys.monitoring.register_callback(TOOL, sys.monitoring.events.INSTRUCTION, None)
        sys.monitoring.free_tool_id(TOOL)

    def step(self, code, offset):
        before, self.previous = self.previous, dis.opname[CODES[code][offset]]
        if self.armed and before in CHECKED and self.previous != "PUSH_EXC_INFO":  # that follows a call that raised
            frame = sys._getframe(1)
            path = tuple(way_to(frame))
            self.rounds[path] += 1
            if self.rounds[path] > ROUNDS:
                return
            self.left -= 1
            if self.left == -1:
                self.place = f"{Path(code.co_filename).name}:{frame.f_lineno}"
                raise self.raised


def source():
    yield from NEW


def content(key):
    try:
        with adapter.get_final_stream("local", key) as reader:
            return reader.read()
    except ObjectNotFound:
        return None


def usage():
    gc.collect()
    counts = native.stats()
    used = {name: counts[name] for name in ("stores", "calls", "readers", "buffers")}
    kept = {name: len(getattr(native, f"_{name}")) for name in ("owned", "lent", "abandoned")}
    return used | kept | {"fds": len(os.listdir("/proc/self/fd"))}


def put(interrupt):
    adapter.put_final("a", source(), size=len(WHOLE), progress=lambda *_: None)


def put_over(interrupt):
    adapter.put_final("over", io.BytesIO(WHOLE))


def put_part(interrupt):
    adapter.put_temp_part("t", 1, WHOLE)


def get(interrupt):
    with adapter.get_final_stream("local", "there") as reader:
        assert reader.read(10) + reader.read() == OLD


def open_only(interrupt):
    interrupt.reader = adapter.get_temp_part_stream("s/00001")  # its finalizer comes later: exceptions end there


def assemble(interrupt):
    adapter.assemble("a", ["s/00001", "s/00002"], progress=lambda *_: None)


def delete(interrupt):
    adapter.delete_final("local", "none")


def first(interrupt):
    """Of an adapter that has opened nothing yet."""
    interrupt.adapter = LocalStorageAdapter(temp_dir=ROOT / "temp", final_dir=ROOT / "final", durable=False)
    interrupt.adapter.stat_final("local", "there")


def undo(interrupt):
    """A second signal, while a put is undone because of a first."""
    interrupt.armed = False

    def broken():
        yield NEW[0]
        interrupt.armed = True
        raise Interruption("the first")

    adapter.put_final("a", broken())


def interrupted(operation, left, finished):
    with Interrupt(left) as interrupt:
        try:
            operation(interrupt)
        except Interruption as error:
            assert error is interrupt.raised or interrupt.place is None, f"another, at {interrupt.place}"
        else:
            assert interrupt.place is None, f"lost at {interrupt.place}"
    found = [content("a"), content("over"), len(adapter.list_temp_parts("t"))]
    if finished:  # told to commit: it may have done so
        assert found[0] in (None, WHOLE) and found[1] in (OLD, WHOLE) and found[2] <= 1
    else:
        assert found == [None, OLD, 0], f"visible, after {interrupt.place}"
    return interrupt.place


def everywhere(operation):
    """Returns how many places there are."""
    finish, finished = native.Call.finish, []

    def noted(call):
        finished.append(call)
        finish(call)

    native.Call.finish = noted
    adapter.put_final("there", OLD)
    for number, data in enumerate(NEW, 1):
        adapter.put_temp_part("s", number, data)
    content("there")
    time.sleep(0.1)  # what ends in the background after the answer
    before = usage()
    for left in range(10_000):
        adapter.delete_final("local", "a")
        adapter.put_final("over", OLD)
        adapter.delete_temp_parts("t")
        finished.clear()
        place = interrupted(operation, left, finished)
        finished.clear()
        until = time.monotonic() + 2
        while more := {kind: count for kind, count in usage().items() if count > before[kind]}:
            assert time.monotonic() < until, f"left open after {place}: {more}, there were {before}"
            time.sleep(0.001)
        assert content("there") == OLD
        if place is None:
            return left
    raise AssertionError("no end of it")


def load():
    """In children: the first one loads the file itself, the others load copies."""
    itself = everywhere_in_children()
    native.stats()
    return [itself, everywhere_in_children()]


def everywhere_in_children():
    for left in range(10_000):
        pid = os.fork()
        if pid == 0:
            code = 2
            try:
                with Interrupt(left) as interrupt:
                    try:
                        native.stats()
                    except Interruption as error:
                        assert error is interrupt.raised
                    else:
                        assert interrupt.place is None, f"lost at {interrupt.place}"
                assert adapter.put_final(f"child/{left}", OLD).size == len(OLD)
                code = 1 if interrupt.place is None else 0
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                os._exit(code)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        assert code in (0, 1), f"child at place {left}: {code}"
        if code == 1:
            return left
    raise AssertionError("no end of it")


if __name__ == "__main__":
    name = sys.argv[2]
    print(json.dumps(load() if name == "load" else [everywhere(globals()[name])]))
