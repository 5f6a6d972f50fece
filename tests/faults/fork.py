"""Forks after the extension was loaded. Usage: fork.py ROOT SCENARIO; exits 0 if all went well."""

import ctypes
import faulthandler
import gc
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from pathlib import Path

from django.conf import settings

settings.configure(INSTALLED_APPS=["storage"])

import adapters  # noqa: E402
from sources import endless  # noqa: E402

from storage import MemoryStorageAdapter, StorageError, native  # noqa: E402

ROOT = sys.argv[1]
FULL = bool(os.environ.get("STORAGE_TEST_FULL"))
adapter = adapters.make(ROOT, durable=False)
DATA = os.urandom(700_000)
MANY = 13
"""So often it is more than one part of an upload to S3, and more than a reader fetches ahead."""


def work(key, times=2):
    final = adapter.put_final(key, [DATA] * times)
    with adapter.get_final_stream(*final) as reader:
        assert reader.read() == DATA * times
    adapter.delete_final(*final)
    return os.getpid()


def child(function, *args):
    """Runs function in a forked child; raises unless the child ends well."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            function(*args)
            code = 0
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            os._exit(code)
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"child: {os.waitstatus_to_exitcode(status)}"


def nested(depth, key):
    work(f"{key}/{depth}")
    if depth:
        child(nested, depth - 1, key)
        work(f"{key}/{depth}")


def busy_parent():
    """Children and their children, while four threads of the parent write and read."""
    done = threading.Event()
    errors = []

    def write(n):
        while not done.is_set():
            try:
                work(f"parent/{n}", MANY)
            except Exception as error:
                errors.append(error)
                raise

    threads = [threading.Thread(target=write, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    try:
        for n in range((30 if adapter.backend == "local" else 10) if FULL else 5):
            child(nested, 2, f"child/{n}")
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert not errors


def before_load():
    """The child loads it first; then the parent; then another child."""
    child(work, "a")
    work("a")
    child(work, "b")


def many_children():
    work("a")
    for n in range(60 if FULL else 20):
        child(work, f"a/{n}") if n else child(work, "b")


def refused(call, *args):
    try:
        call(*args)
    except StorageError as error:
        assert error.code == "forked", error.code
        assert "fork" in str(error)
    else:
        raise AssertionError("a stream of the parent worked in the child")


def streams_belong_to_the_parent():
    final = adapter.put_final("a", [DATA] * MANY)
    reader = adapter.get_final_stream(*final)
    fresh = adapter.get_final_stream(*final)
    held = adapter.get_final_stream(adapter.put_final("small", b"a line\nand more"))
    assert reader.read(10) == DATA[:10]

    def in_child():
        mine = adapter.get_final_stream(*final)  # may well have the id of the parent's reader
        refused(fresh.read, 10)
        refused(reader.readinto, bytearray(600_000))
        for stream in (reader, held):  # though their bytes are in memory
            for call in (stream.read, stream.read1, stream.readline, stream.peek, stream.tell, stream.readlines):
                refused(call)
            for call in (stream.read, stream.read1, stream.peek, stream.seek):
                refused(call, 1)
            for call in (stream.readinto, stream.readinto1):
                refused(call, bytearray(1))
            refused(next, iter(stream))
            refused(lambda stream=stream: stream.raw.read())
            refused(stream.detach)
            stream.close()
            assert stream.closed
        fresh.close()
        gc.collect()
        assert mine.read() == DATA * MANY
        mine.close()

    child(in_child)
    assert reader.read() == (DATA * MANY)[10:]
    assert fresh.read() == DATA * MANY
    assert held.read() == b"a line\nand more"
    for stream in (reader, fresh, held):
        stream.close()


def closed_while_a_thread_reads():
    """The thread is inside of a read, with a lock that nobody gives back in the child."""
    final = adapter.put_final("a", [DATA] * MANY)
    readers = [adapter.get_final_stream(*final) for _ in range(3)]
    go_on, inside, read = threading.Event(), threading.Semaphore(0), native.read

    def late(*args):
        inside.release()
        go_on.wait()
        return read(*args)

    native.read = late
    threads = [threading.Thread(target=reader.read, args=[1000]) for reader in readers]
    for thread in threads:
        thread.start()
        inside.acquire()

    def in_child():
        threading.Timer(20, os._exit, [9]).start()  # the end of one that hangs
        readers.pop().close()
        with readers.pop():
            pass
        reader = readers.pop()
        reader.__del__()  # as the collector does it
        assert reader.closed

    child(in_child)
    go_on.set()
    for thread in threads:
        thread.join()
    native.read = read
    for reader in readers:
        assert reader.read() == (DATA * MANY)[1000:]
        reader.close()


def transfers_belong_to_the_parent():
    """A source that forks: the child cannot go on with the put, the parent can."""

    def source():
        yield from [DATA] * MANY
        pid = os.fork()
        if pid == 0:
            try:
                source_in_child()
            except BaseException:
                os._exit(3)
        else:
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        yield DATA

    def source_in_child():
        work("child")
        in_child[:] = [True]

    in_child = []
    try:
        final = adapter.put_final("a", source())
    except StorageError as error:
        os._exit(0 if in_child and error.code == "forked" else 4)
    if in_child:
        os._exit(5)
    with adapter.get_final_stream(*final) as reader:
        assert reader.read() == DATA * (MANY + 1)


def closed_descriptors():
    work("a")

    def daemon():
        os.closerange(3, 1000)
        work("b")
        child(work, "c")

    child(daemon)


def pool():
    work("a")
    adapter.put_final("p/there", b"")  # MinIO denies a put to a folder that a delete empties at the same time
    context = multiprocessing.get_context("fork")
    with context.Pool(4) as workers:
        pids = set(workers.map(work, [f"p/{n}" for n in range(64)], chunksize=1))
    assert len(pids) > 1 and os.getpid() not in pids
    process = context.Process(target=work, args=("b",))
    process.start()
    process.join(20)
    assert process.exitcode == 0


def spawned():
    work("a")
    import subprocess

    assert subprocess.run(["true"], preexec_fn=lambda: work("b")).returncode == 0


def memory_is_empty_in_a_child():
    memory = MemoryStorageAdapter()
    memory.put_temp_part("s", 1, b"x")

    def in_child():
        assert memory.list_temp_parts("s") == []
        memory.put_temp_part("s", 2, b"y")

    child(in_child)
    assert [part.part_number for part in memory.list_temp_parts("s")] == [1]


def from_a_thread():
    """A fork from another thread, one that is not the first to have loaded it."""
    work("a")
    errors = []

    def fork(n):
        try:
            child(nested, 1, f"b{n}")
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=fork, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors


def while_another_thread_loads():
    """The lock around the loading may be held by a thread that the child does not have."""
    threads = [threading.Thread(target=work, args=(f"t/{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for n in range(10):
        child(work, f"c/{n}")
    for thread in threads:
        thread.join()


def garbage_of_the_parent():
    """It is collected while the child works: the parent's streams and adapters must not be ended in it."""
    final = adapter.put_final("a", [DATA] * MANY)
    reader = adapter.get_final_stream(*final)
    gc.disable()
    for _ in range(10):
        cycle = [adapters.make(ROOT, durable=False), adapter.get_final_stream(*final)]
        cycle += [cycle[0].get_final_stream(*final), cycle]
    del cycle
    readers = native.stats()["readers"]

    def in_child():
        gc.enable()
        gc.set_threshold(1)
        for n in range(3):
            work(f"b/{n}")
        gc.collect()
        assert (native.stats()["readers"], native.stats()["calls"]) == (0, 0)

    child(in_child)
    assert native.stats()["readers"] == readers == 21
    assert reader.read() == DATA * MANY
    reader.close()
    gc.collect()
    assert native.stats()["readers"] == 0


def watched_by_faulthandler():
    """It writes tracebacks of a child that works, is interrupted and crashes.

    Not by dump_traceback_later: its thread looks at frames while another runs them, which makes CPython itself crash.
    """
    with open(f"{ROOT}/tracebacks", "wb", buffering=0) as log:
        faulthandler.enable(log)
        work("a")
        faulthandler.register(signal.SIGUSR2, log)
        child(traced_and_interrupted)
        pid = os.fork()
        if pid == 0:
            work("b")
            faulthandler._sigsegv()
            os._exit(5)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGSEGV
    with open(f"{ROOT}/tracebacks") as log:
        text = log.read()
    assert text.count("in traced_and_interrupted") == 6, text
    assert "Fatal Python error: Segmentation fault" in text, text


def signals_are_left_to_python():
    """A signal that all threads of Python block waits for them: no thread of the extension takes it meanwhile."""
    signals = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGALRM}

    def blocked():
        work("key", MANY)
        before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
        assert not before & signals, "loading leaves them blocked"
        for number in signals:
            os.kill(os.getpid(), number)
        time.sleep(0.2)
        assert signal.sigpending() >= signals, signal.sigpending()
        for number in signals:
            signal.signal(number, signal.SIG_IGN)  # they are dropped
        signal.pthread_sigmask(signal.SIG_SETMASK, before)

    child(child, blocked)
    blocked()


def timers_are_left_alone():
    """The extension's own threads sleep less exactly than Python's, which are as they were."""
    prctl, get = ctypes.CDLL(None).prctl, 30
    before = prctl(get)

    def loaded():
        work("key", MANY)
        assert prctl(get) == before
        if os.geteuid() == 0:  # others may not look
            slacks = [Path(f"/proc/{thread}/timerslack_ns").read_text() for thread in os.listdir("/proc/self/task")]
            assert max(map(int, slacks)) > before, slacks

    child(child, loaded)
    loaded()


def traced_and_interrupted():
    for n in range(5):
        os.kill(os.getpid(), signal.SIGUSR2)
        work(f"traced/{n}", MANY)
    interrupted_child()
    os.kill(os.getpid(), signal.SIGUSR2)


def interrupted_child():
    work("b")  # the loading of the copy is not what is timed
    signal.signal(signal.SIGALRM, signal.default_int_handler)
    sent = time.monotonic() + 0.2
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        adapter.put_final("b", endless(DATA[:100] if adapter.backend == "local" else DATA))
    except KeyboardInterrupt:
        late = time.monotonic() - sent
        assert late < 0.25, late
        native.settle(5)
        work("b")
    else:
        raise AssertionError


def interrupted():
    """A signal in the child."""
    work("a")
    child(interrupted_child)


def interrupted_child_of_a_thread():
    """As Celery and multiprocessing replace their workers: the interpreter itself may lose signals there."""
    work("a")
    errors = []

    def fork():
        try:
            child(interrupted_child)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=fork)
    thread.start()
    thread.join()
    assert not errors, errors


if __name__ == "__main__":
    globals()[sys.argv[2]]()
    native.stats()
    print(json.dumps("well"))
