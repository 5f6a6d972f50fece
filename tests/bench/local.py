"""The local adapter compared with the plain way: loading, small objects, large objects."""

import dataclasses
import hashlib
import itertools
import os
import random
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import BinaryIO

from django.core.files import File
from django.core.files.storage import FileSystemStorage
from measure import MIB, Cost, Run, Target, alternate, at_least, at_most, measure, median
from rich.table import Table

from storage import LocalStorageAdapter

HERE = Path(__file__).resolve().parent

# In a new process with Django set up: the import, the first operation, the same in a child.
START = """
import os, sys, time
import django
from django.conf import settings
settings.configure()
django.setup()
before = time.perf_counter()
import storage
imported = time.perf_counter()
adapter = storage.LocalStorageAdapter(temp_dir=sys.argv[1], final_dir=sys.argv[2])
begin = time.perf_counter()
adapter.list_temp_parts("none")
first = time.perf_counter()
print(imported - before, first - begin, flush=True)
if not (child := os.fork()):
    begin = time.perf_counter()
    adapter.list_temp_parts("none")
    print(time.perf_counter() - begin, flush=True)
    os._exit(0)
os.waitpid(child, 0)
"""


def start(run: Run) -> Table:
    areas = str(run.directory / "temp"), str(run.directory / "final")
    command = [sys.executable, "-W", "ignore", "-c", START, *areas]

    def once() -> list[float]:
        return [float(figure) * 1e3 for figure in subprocess.check_output(command, text=True).split()]

    [rounds] = alternate(dataclasses.replace(run, rounds=3 * run.rounds), "start", once)
    table = _table("loading", "median", "least")
    for what, bound, figures in zip(
        ("import storage, on top of Django", "first operation", "first operation in a forked child"),
        (10, 20, 40),
        zip(*rounds, strict=True),
        strict=True,
    ):
        figure, target = statistics.median(figures), at_most(bound)
        table.add_row(what, f"{figure:.1f} ms", f"{min(figures):.1f} ms", target.text("d") + " ms", target.met(figure))
    return table


def small(run: Run, count: int = 1000) -> Table:
    program = run.directory / "syscalls"
    subprocess.run([run.go, "build", "-o", program, "./syscalls"], cwd=HERE, check=True)
    data = bytes(4096)
    # Each round has its own folder, and nothing is deleted meanwhile: ext4 without a journal does not reuse an inode
    # for some minutes, and looks at all deleted ones before it takes one.
    folders = (run.directory / f"small-{n}" for n in itertools.count())

    def ours() -> Cost:
        folder = next(folders)
        adapter = LocalStorageAdapter(temp_dir=folder / "temp", final_dir=folder / "final")
        adapter.put_final("first", data)

        def put_all() -> None:
            for n in range(count):
                adapter.put_final(f"small-{n}", data)

        return measure(put_all)

    def plain() -> Cost:
        folder = next(folders)
        folder.mkdir()
        nanoseconds = subprocess.check_output([program, folder, str(count), str(len(data))], text=True).split()
        wall, cpu = (int(each) * count / 1e9 for each in nanoseconds)
        return Cost(wall, cpu)

    table = _comparison("4 KiB objects on a disk")
    put, calls = (median(rounds) for rounds in alternate(run, "4 KiB objects", ours, plain))

    def figures(cost: Cost) -> str:
        return f"{cost.wall / count * 1e6:.0f} µs, CPU {cost.cpu / count * 1e6:.0f} µs"

    what = "durable put / the same system calls"
    _compare(table, what, figures(put), figures(calls), put.wall / calls.wall, at_most(1.3))
    return table


def large(run: Run) -> Table:
    size, source, target = run.size(1024), run.directory / "source", run.directory / "target"
    with source.open("wb") as out:
        for _ in range(size // MIB):
            out.write(random.randbytes(MIB))
        out.flush()
        os.fsync(out.fileno())
    durable, quick = _adapter(run, durable=True), _adapter(run, durable=False)

    def figures(cost: Cost) -> str:
        return f"{size / cost.wall / 1e6:,.0f} MB/s, {cost.cpu / size * 1e9:.2f} ns/byte"

    table = _comparison(f"a {size // MIB:,} MiB object on a disk, with SHA-256")
    ours, plain = _costs(run, "put / loop", partial(_put, durable, source), partial(_plain_loop, source, target))
    _compare(table, "put / loop with fsync", figures(ours), figures(plain), plain.wall / ours.wall, at_least(1.3))
    ours, plain, hashing, copying = _costs(
        run,
        "put / FileSystemStorage / hashing / copying",
        partial(_put, quick, source),
        partial(_file_system_storage, source, run.directory / "fss"),
        partial(_hash, size),
        partial(_copy, source, target),
    )
    what = "put, durable=False / FileSystemStorage, hashing"
    _compare(table, what, figures(ours), figures(plain), plain.wall / ours.wall, at_least(1))
    _compare(
        table,
        "its CPU / hashlib pass + page-cache copy",
        f"{ours.cpu / size * 1e9:.2f} ns/byte",
        f"{hashing.cpu / size * 1e9:.2f} + {copying.cpu / size * 1e9:.2f}",
        ours.cpu / (hashing.cpu + copying.cpu),
        at_most(1.15),
    )
    return table


def _adapter(run: Run, *, durable: bool) -> LocalStorageAdapter:
    return LocalStorageAdapter(temp_dir=run.directory / "temp", final_dir=run.directory / "final", durable=durable)


def _costs(run: Run, title: str, *works: Callable[[], None]) -> list[Cost]:
    rounds = alternate(run, title, *(partial(measure, work) for work in works))
    return [median(costs) for costs in rounds]


def _put(adapter: LocalStorageAdapter, path: Path) -> None:
    with path.open("rb") as source:
        adapter.delete_final(adapter.put_final("large", source))


def _plain_loop(path: Path, target: Path) -> None:
    digest = hashlib.sha256()
    with path.open("rb") as source, target.open("wb") as out:
        while piece := source.read(MIB):
            digest.update(piece)
            out.write(piece)
        out.flush()
        os.fsync(out.fileno())
    target.unlink()


class HashingFile(File):
    """What a project does today to have a digest: it hashes on the way to FileSystemStorage."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, name="hashing")
        self.digest = hashlib.sha256()

    def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
        for piece in super().chunks(chunk_size):
            self.digest.update(piece)
            yield piece


def _file_system_storage(path: Path, directory: Path) -> None:
    storage = FileSystemStorage(location=str(directory))
    with path.open("rb") as source:
        storage.delete(storage.save("large", HashingFile(source)))


def _hash(size: int) -> None:
    digest, piece = hashlib.sha256(), b"x" * MIB
    for _ in range(size // MIB):
        digest.update(piece)


def _copy(path: Path, target: Path) -> None:
    buffer = bytearray(256 * 1024)
    with path.open("rb", buffering=0) as source, target.open("wb", buffering=0) as out:
        while count := source.readinto(buffer):
            out.write(memoryview(buffer)[:count])
    target.unlink()


def _comparison(title: str) -> Table:
    return _table(title, "django-gostorage", "the plain way", "ratio")


def _table(title: str, *figures: str) -> Table:
    table = Table("", title=title)
    for column in (*figures, "target", "met?"):
        table.add_column(column, justify="right")
    return table


def _compare(table: Table, what: str, ours: str, plain: str, ratio: float, target: Target) -> None:
    table.add_row(what, ours, plain, f"{ratio:.2f} x", target.text(".2f") + " x", target.met(ratio))
