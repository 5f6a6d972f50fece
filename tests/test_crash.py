"""Crashes: kill -9 at every system call, power loss, full and broken disks.

Needs root, strace, loop devices and ext4. Where something is missing these tests fail.
"""

import fcntl
import json
import os
import shutil
import subprocess
import time
from collections import Counter
from contextlib import contextmanager
from datetime import timedelta
from errno import EDQUOT, EIO, ENOSPC
from hashlib import sha256

import pytest
from conftest import FULL, STAGING, command, litter, make_local
from faults.agent import content

from storage import ObjectNotFound, StorageError, StoragePermissionError

# Those that change what is on the disk. Between two of them it is the same at every other call.
SYSCALLS = [
    "openat", "write", "pwrite64", "fsync", "fdatasync", "linkat", "renameat", "renameat2",
    "fsetxattr", "mkdirat", "fchmod", "fchmodat", "unlinkat",
]  # fmt: skip
SIZE = 1_000_000
EXT4_IOC_SHUTDOWN = 0x8004587D


class Agent:
    """A process of tests/faults/agent.py."""

    def __init__(self, script, root, **options):
        self.process = script("agent", root, json.dumps(options), stdin=subprocess.PIPE)
        assert self.hear() == "ready", self.process.stderr.read()

    def hear(self):
        line = self.process.stdout.readline()
        return json.loads(line) if line.endswith("\n") else None

    def tell(self, op, **order):
        print(json.dumps({"op": op, **order}), file=self.process.stdin, flush=True)

    def ask(self, op, **order):
        """The answer, or None if it died."""
        self.tell(op, **order)
        return self.hear()

    def end(self):
        self.process.stdin.close()
        self.process.wait(10)

    @contextmanager
    def strace(self, log, *expressions):
        command = ["strace", "-f", "-y", "-o", str(log), "-p", str(self.process.pid)]
        for expression in expressions:
            command += ["-e", expression]
        tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            line = tracer.stderr.readline()
            assert "attached" in line, f"strace cannot attach: {line}{tracer.stderr.read()}"
            time.sleep(0.05)
            yield
        finally:
            if self.process.poll() is None and tracer.poll() is None:
                tracer.terminate()
            tracer.communicate(timeout=10)


@pytest.fixture
def agent(script):
    return lambda root, **options: Agent(script, root, **options)


def state(path, contents):
    """ABSENT, TORN, or which of contents is there."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return "ABSENT"
    return next((name for name, whole in contents.items() if whole == data), "TORN")


def names(root):
    """Every file below the areas outside staging."""
    return {
        os.path.relpath(os.path.join(where, name), root)
        for where, _, files in os.walk(root)
        for name in files
        if STAGING not in where
    }


def used(agent, tmp_path, operation, check):
    """Runs operation to its end; gives which of SYSCALLS it makes."""
    root, log = tmp_path / "whole", tmp_path / "strace.log"
    worker = agent(root)
    check(worker, root, before=True)
    with worker.strace(log, f"trace={','.join(SYSCALLS)}"):
        assert "ok" in operation(worker)
    worker.end()
    check(worker, root, acknowledged=True)
    return [syscall for syscall in SYSCALLS if f" {syscall}(" in log.read_text()]


def kill_at_each(syscall, agent, tmp_path, operation, check):
    """Runs operation, killed at the 1st, 2nd, ... call of syscall, until none is left to kill.

    After the second call, every other one is left to `make test-full`.
    """
    fired = 0
    for when in range(1, 40) if FULL else [1, *range(2, 40, 2)]:
        root = tmp_path / f"{syscall}{when}"
        worker = agent(root)
        check(worker, root, before=True)
        log = tmp_path / "strace.log"
        with worker.strace(log, f"trace={syscall}", f"inject={syscall}:signal=KILL:when={when}"):
            answer = operation(worker)
            if answer is not None:
                assert "ok" in answer, answer
                worker.end()
            else:
                worker.process.wait(10)
        killed = worker.process.returncode == -9
        check(worker, root, acknowledged=answer is not None)
        shutil.rmtree(root)
        if not killed:
            return fired
        fired += 1
    return fired


OLD, NEW = content(1, SIZE), content(2, SIZE)
ABSENT_ONLY = pytest.param(
    "only if absent", marks=pytest.mark.skipif(not FULL, reason="the same calls: make test-full")
)
KILLS = {
    "a new object": (False, lambda worker: worker.ask("put", key="d/e/a", seed=2)),
    "only if absent": (
        False, lambda worker: worker.ask("put", key="d/e/a", seed=2, overwrite=False),
    ),
    "over an old one": (True, lambda worker: worker.ask("put", key="d/e/a", seed=2)),
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["a new object", ABSENT_ONLY, "over an old one"])
def test_kill_at_every_syscall(name, agent, tmp_path):
    previous, operation = KILLS[name]
    unacknowledged = {"ABSENT", "NEW"} if not previous else {"OLD", "NEW"}

    def check(worker, root, before=False, acknowledged=False):
        if before:
            if previous:
                assert "ok" in worker.ask("put", key="d/e/a", seed=1)
            return
        path = root / "final/d/e/a"
        found = state(path, {"OLD": OLD, "NEW": NEW})
        assert found in ({"NEW"} if acknowledged else unacknowledged), (found, acknowledged)
        assert names(root) <= {"final/d/e/a"}
        adapter = make_local(root)
        if found != "ABSENT":
            final = adapter.stat_final("local", "d/e/a")
            assert final.sha256 == sha256(path.read_bytes()).hexdigest()
        adapter.put_final("d/e/a", NEW, sha256=sha256(NEW).hexdigest())
        assert state(path, {"NEW": NEW}) == "NEW"
        swept = adapter.sweep(timedelta())
        assert (swept.parts, swept.finished) == (0, True) and not litter(root)
        adapter.close()

    calls = used(agent, tmp_path, operation, check)
    fired = Counter({syscall: kill_at_each(syscall, agent, tmp_path, operation, check) for syscall in calls})
    assert fired["openat"] and fired["write"] and fired["fsync"] and fired["fsetxattr"], fired
    assert fired["linkat"] + fired["renameat"] + fired["renameat2"], fired
    assert previous or fired["mkdirat"], fired
    print(fired)


@pytest.mark.slow
def test_the_kill_test_bites(agent, tmp_path):
    """Control group: Django's FileSystemStorage writes in place, and is torn."""
    found = set()

    def check(worker, root, before=False, acknowledged=False):
        if not before:
            found.add(state(root / "final/d/e/a", {"NEW": NEW}))

    def operation(worker):
        return worker.ask("django", key="d/e/a", seed=2)

    kill_at_each("write", agent, tmp_path, operation, check)
    assert "TORN" in found


@pytest.fixture
def disk(mount, tmp_path):
    """An ext4 whose power can be cut: disk.cut(), then disk.restart()."""
    image = tmp_path / "image"

    class Disk:
        def __init__(self):
            with open(image, "wb") as file:
                file.truncate(64 * 1024 * 1024)
            command("mkfs.ext4", "-q", "-F", image)
            self.path = mount("-o", "loop", image)

        def cut(self, flush):
            handle = os.open(self.path, os.O_RDONLY)
            fcntl.ioctl(handle, EXT4_IOC_SHUTDOWN, (1 if flush else 2).to_bytes(4, "little"))
            os.close(handle)

        def restart(self):
            command("umount", self.path)
            command("mount", "-o", "loop", image, self.path)

    return Disk()


@pytest.mark.slow
@pytest.mark.parametrize("flush", [False, True], ids=["journal lost", "journal kept"])
def test_power_loss_after_the_acknowledgement(flush, disk, agent):
    worker = agent(disk.path)
    os.sync()
    digests = {
        "final/new/deep/er": worker.ask("put", key="new/deep/er", seed=1)["ok"],
        "final/once": worker.ask("put", key="once", seed=2, overwrite=False)["ok"],
    }
    worker.ask("put", key="over", seed=3)
    digests["final/over"] = worker.ask("put", key="over", seed=4, size=999)["ok"]
    digests["temp/s/00001"] = worker.ask("part", number=1, seed=5)["ok"]
    digests["temp/s/00002"] = worker.ask("part", number=2, seed=6)["ok"]
    digests["final/x/all"] = worker.ask("assemble", key="x/all")["ok"]
    worker.ask("put", key="gone", seed=7)
    worker.ask("delete", key="gone")
    disk.cut(flush)
    worker.end()
    disk.restart()
    assert {name: sha256((disk.path / name).read_bytes()).hexdigest() for name in digests} == digests
    adapter = make_local(disk.path)
    assert {f"temp/{part.key}": part.sha256 for part in adapter.list_temp_parts("s")} == {
        name: digest for name, digest in digests.items() if name.startswith("temp")
    }
    for name in digests:
        if name.startswith("final/"):
            assert adapter.stat_final("local", name[6:]).sha256 == digests[name]
    adapter.close()


@pytest.mark.slow
def test_the_power_loss_test_bites(disk, agent):
    """Control group: without `durable`, what was acknowledged is lost."""
    worker = agent(disk.path, durable=False)
    os.sync()
    worker.ask("put", key="a", seed=2)
    disk.cut(flush=False)
    worker.end()
    disk.restart()
    assert state(disk.path / "final/a", {"NEW": NEW}) in {"ABSENT", "TORN"}


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.05, 0.21, 0.4])
@pytest.mark.parametrize("flush", [False, True], ids=["journal lost", "journal kept"])
def test_power_loss_at_any_moment(seconds, flush, disk, agent):
    worker = agent(disk.path)
    size = 100_003
    acknowledged = {worker.ask("many", size=size)["stored"]}
    time.sleep(seconds)
    disk.cut(flush)
    while (answer := worker.hear()) and "stored" in answer:
        acknowledged.add(answer["stored"])
    assert answer is None or answer["error"].startswith("Storage"), answer
    worker.end()
    disk.restart()
    last = max(acknowledged)
    for seed in range(last + 2):  # the one after the last was under way
        if seed % 3 == 2:
            continue
        name = f"final/many/{seed % 30}/{seed}" if seed % 3 == 0 else f"temp/s/{seed + 1:05d}"
        found = state(disk.path / name, {"NEW": content(seed, size)})
        assert found == "NEW" or (found == "ABSENT" and seed not in acknowledged), (seed, found)
    overwritten = [seed for seed in acknowledged if seed % 3 == 2]
    if overwritten:
        same = {seed: content(seed, size) for seed in (max(overwritten), max(overwritten) + 3)}
        assert state(disk.path / "final/many/same", same) in same


def test_a_full_disk(mount, agent):
    root = mount("-t", "tmpfs", "-o", "size=2m", "none")
    adapter = make_local(root)
    adapter.put_final("old", b"old")
    for call in (
        lambda: adapter.put_final("a/b", content(0, 4_000_000)),
        lambda: adapter.put_final("old", iter([content(0, 100_000)] * 40)),
        lambda: adapter.put_temp_part("s", 1, content(0, 4_000_000)),
    ):
        with pytest.raises(StorageError) as caught:
            call()
        assert caught.value.code == "full" and isinstance(caught.value, OSError)
        assert not litter(root)
        assert names(root) == {"final/old"}
    assert adapter.put_final("small", content(0, 1_000_000)).size == 1_000_000
    with adapter.get_final_stream("local", "old") as reader:
        assert reader.read() == b"old"
    adapter.close()


def test_no_inodes_left(mount):
    root = mount("-t", "tmpfs", "-o", "size=2m,nr_inodes=12", "none")
    adapter = make_local(root)
    adapter.put_final("old", b"old")
    with pytest.raises(StorageError) as caught:
        for n in range(12):
            adapter.put_final(f"a/{n}", b"x")
    assert caught.value.code == "full" and not litter(root)
    adapter.close()


def test_a_read_only_disk(mount):
    root = mount("-t", "tmpfs", "none")
    adapter = make_local(root)
    final = adapter.put_final("d/old", b"old")
    part = adapter.put_temp_part("s", 1, b"x")
    command("mount", "-o", "remount,ro", root)
    for call in (
        lambda: adapter.put_final("d/a", b"x"),
        lambda: adapter.put_final("e/a", b"x"),
        lambda: adapter.put_final("d/old", b"x"),
        lambda: adapter.delete_final(*final),
        lambda: adapter.put_temp_part("s", 2, b"x"),
        lambda: adapter.delete_temp_parts("s"),
        lambda: adapter.assemble("x", [part]),
        adapter.check_health,
    ):
        with pytest.raises(StoragePermissionError) as caught:
            call()
        assert isinstance(caught.value, PermissionError)
    with adapter.get_final_stream(*final) as reader:
        assert reader.read() == b"old"
    adapter.close()
    fresh = make_local(root)
    with fresh.get_final_stream(*final) as reader:
        assert reader.read() == b"old"
    fresh.close()


ERRNOS = [
    ("fsync:error=EIO:when=1", "io"),
    ("fsync:error=EIO:when=2", "io"),
    ("fsync:error=EIO", "io"),
    # No write: strace would also fail the wake-ups of the Go runtime, which ends the process for it; see below.
    ("fsetxattr:error=ENOSPC", "full"),
    ("fsetxattr:error=EIO", "io"),
    ("mkdirat:error=EMLINK", "io"),
    ("mkdirat:error=ENOSPC", "full"),
    ("linkat:error=EIO", "io"),
    ("renameat,renameat2:error=EIO", "io"),
    ("openat:error=EACCES:when=1", "permission"),
    ("openat:error=EROFS:when=1", "permission"),
]


@pytest.mark.slow
@pytest.mark.parametrize("previous", [False, True], ids=["nothing there", "one there"])
@pytest.mark.parametrize(("injection", "code"), ERRNOS, ids=[name for name, _ in ERRNOS])
def test_injected_errors(injection, code, previous, agent, tmp_path):
    """An error means that nothing changed, success that all of it is there."""
    worker = agent(tmp_path)
    if previous:
        worker.ask("put", key="d/a", seed=1)
    calls, _, _ = injection.partition(":")
    with worker.strace(tmp_path / "strace.log", f"trace={calls}", f"inject={injection}"):
        answer = worker.ask("put", key="d/a", seed=2)
    found = state(tmp_path / "final/d/a", {"OLD": OLD, "NEW": NEW})
    injected = "(INJECTED)" in (tmp_path / "strace.log").read_text()
    if answer and "ok" in answer:
        assert found == "NEW"
        assert not injected or calls in {"linkat", "renameat,renameat2", "mkdirat"}, injection
    else:
        assert answer and answer["code"] == code, answer
        if calls == "fsync":  # a directory that could not be synced: the object may be there, whole
            assert found in ({"OLD", "NEW"} if previous else {"ABSENT", "NEW"})
        else:
            assert found == ("OLD" if previous else "ABSENT")
    assert not litter(tmp_path)
    assert "ok" in worker.ask("put", key="d/a", seed=2)
    worker.end()


WRITES = {"any write": (9, 1 << 30), "the last write": (SIZE % (256 * 1024), SIZE % (256 * 1024))}


@pytest.mark.slow
@pytest.mark.parametrize("which", WRITES)
@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [(EIO, "StorageError", "io"), (EDQUOT, "StorageFull", "full"), (ENOSPC, "StorageFull", "full")],
    ids=["EIO", "EDQUOT", "ENOSPC"],
)
def test_failed_writes(number, kind, code, which, agent, tmp_path):
    """Of the store's own files, by a seccomp filter."""
    worker = agent(tmp_path)
    worker.ask("put", key="d/a", seed=1)
    worker.ask("part", number=1, seed=1)
    before = worker.ask("usage")["ok"]
    least, most = WRITES[which]
    assert "ok" in worker.ask("fail_writes", error=number, least=least, most=most)
    for answer in (
        worker.ask("put", key="d/a", seed=2),
        worker.ask("put", key="d/e/f", seed=2),
        worker.ask("part", number=1, seed=2),
        worker.ask("part", number=2, seed=2),
    ):
        assert answer == {"error": kind, "code": code}
    assert worker.ask("read", key="d/a") == {"ok": SIZE}
    assert worker.ask("usage")["ok"] == before
    assert names(tmp_path) == {"final/d/a", "temp/s/00001"} and not litter(tmp_path)
    assert state(tmp_path / "final/d/a", {"OLD": OLD}) == state(tmp_path / "temp/s/00001", {"OLD": OLD}) == "OLD"
    worker.end()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("injected", "answer"),
    [
        ("EIO", {"error": "StorageError", "code": "io"}),
        ("EDQUOT", {"error": "StorageFull", "code": "full"}),
        ("ENOSPC:when=2", {"error": "StorageFull", "code": "full"}),
        ("EXDEV", None),
        ("EOPNOTSUPP:when=2", None),
        ("EINTR:when=1", None),
    ],
)
def test_failed_copies(injected, answer, agent, tmp_path):
    """By the system, of the parts of an assembly. Where it cannot copy, they are read and written."""
    worker = agent(tmp_path)
    worker.ask("put", key="d/a", seed=1)
    for number in (1, 2):
        worker.ask("part", number=number, seed=number)
    before = worker.ask("usage")["ok"]
    log = tmp_path / "strace.log"
    for _ in range(5):  # strace counts the calls of each thread, and Go may make the two on two threads
        with worker.strace(log, "trace=copy_file_range", f"inject=copy_file_range:error={injected}"):
            said = worker.ask("assemble", key="d/a")
        if "(INJECTED)" in log.read_text():
            break
        worker.ask("put", key="d/a", seed=1)
    assert "(INJECTED)" in log.read_text()
    whole = content(1, SIZE) + content(2, SIZE)
    assert said == (answer or {"ok": sha256(whole).hexdigest()})
    assert state(tmp_path / "final/d/a", {"OLD": OLD, "NEW": whole}) == ("OLD" if answer else "NEW")
    assert worker.ask("usage")["ok"] == before and not litter(tmp_path)
    worker.end()


@pytest.mark.slow
def test_a_failed_fsync_publishes_nothing_and_is_not_repeated(agent, tmp_path):
    worker = agent(tmp_path)
    log = tmp_path / "strace.log"
    with worker.strace(log, "trace=fsync", "inject=fsync:error=EIO"):
        answer = worker.ask("put", key="a", seed=2)
    assert answer["error"] == "StorageError" and answer["code"] == "io"
    assert state(tmp_path / "final/a", {}) == "ABSENT"
    assert log.read_text().count("(INJECTED)") == 1
    worker.end()


@pytest.mark.slow
@pytest.mark.parametrize("spare", [0, 1, 2])
def test_no_descriptors_left(spare, agent, tmp_path):
    worker = agent(tmp_path)
    worker.ask("put", key="d/a", seed=1)
    worker.ask("exhaust", spare=spare)
    answers = [
        worker.ask("put", key="d/a", seed=2),
        worker.ask("put", key="d/e/f", seed=2),
        worker.ask("read", key="d/a"),
        worker.ask("health"),
    ]
    worker.ask("relax")
    for answer in answers:
        assert "ok" in answer or answer["error"].startswith("Storage"), answer
    expected = "NEW" if "ok" in answers[0] else "OLD"
    assert state(tmp_path / "final/d/a", {"OLD": OLD, "NEW": NEW}) == expected
    assert not litter(tmp_path)
    assert "ok" in worker.ask("put", key="d/e/f", seed=2)
    worker.end()


def test_litter_is_found_and_is_no_object(local, tmp_path):
    local.put_final("a", b"x")
    local.put_temp_part("s", 1, b"x")
    for area in ("temp", "final"):
        (tmp_path / area / STAGING).mkdir(exist_ok=True)
        (tmp_path / area / STAGING / "crashed").write_bytes(b"half")
    assert len(litter(tmp_path)) == 2
    assert len(local.list_temp_parts("s")) == 1
    local.put_final("b", b"x")
    local.check_health()
    with pytest.raises(ObjectNotFound):
        local.get_final_stream("local", "crashed")
    for name in litter(tmp_path):
        os.unlink(name)
