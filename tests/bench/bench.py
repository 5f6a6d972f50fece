"""Speed and cost, each figure beside the plain way of doing the same, in one run on one machine.

Every figure is the median of several rounds; the rounds of the things compared alternate, so that
a disk that slows down slows down both. CPU is user + system time of the process with all its
threads. Nothing here fails on a figure: the table shows the target next to it.
"""

import argparse
import hashlib
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

import django
from django.conf import settings
from django.core.files import File
from django.core.files.storage import FileSystemStorage
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

settings.configure()
django.setup()

from storage import LocalStorageAdapter  # noqa: E402

MIB = 1024 * 1024
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


class Measured:
    """Medians of what some work cost in each round: seconds of wall clock and of CPU."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.work = work
        self.walls: list[float] = []
        self.cpus: list[float] = []

    def round(self) -> None:
        cpu, wall = process_cpu(), time.perf_counter()
        self.work()
        self.walls.append(time.perf_counter() - wall)
        self.cpus.append(process_cpu() - cpu)

    @property
    def wall(self) -> float:
        return statistics.median(self.walls)

    @property
    def cpu(self) -> float:
        return statistics.median(self.cpus)


def process_cpu() -> float:
    times = os.times()
    return times.user + times.system


class HashingFile(File):
    """What a project does today to have a digest: hash on the way to FileSystemStorage."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file, name="hashing")
        self.digest = hashlib.sha256()

    def chunks(self, chunk_size: int | None = None) -> Iterator[bytes]:
        for piece in super().chunks(chunk_size):
            self.digest.update(piece)
            yield piece


class Bench:
    def __init__(self, directory: Path, size: int, rounds: int, go: str, progress: Progress) -> None:
        self.directory, self.size, self.rounds, self.go = directory, size, rounds, go
        self.progress = progress
        self.rows: list[tuple[str, str, str, str, str]] = []
        self.source = directory / "source"
        self.target = directory / "target"

    def alternate(self, title: str, *works: Callable[[], object]) -> list[Measured]:
        """Runs each work once unmeasured, then all in turn, `rounds` times."""
        measured = [Measured(work) for work in works]
        bar = self.progress.add_task(title, total=(self.rounds + 1) * len(works))
        for number in range(self.rounds + 1):
            for one in measured:
                if number:
                    one.round()
                else:
                    one.work()
                self.target.unlink(missing_ok=True)
                self.progress.advance(bar)
        return measured

    def add(self, what: str, ours: str, plain: str, figure: str, target: str) -> None:
        self.rows.append((what, ours, plain, figure, target))

    def adapter(self, *, durable: bool) -> LocalStorageAdapter:
        return LocalStorageAdapter(
            temp_dir=self.directory / "temp", final_dir=self.directory / "final", durable=durable
        )

    # ---- large objects

    def make_source(self) -> None:
        with self.source.open("wb") as out:
            for _ in range(self.size // MIB):
                out.write(random.randbytes(MIB))
            out.flush()
            os.fsync(out.fileno())

    def put(self, adapter: LocalStorageAdapter) -> None:
        with self.source.open("rb") as source:
            bucket, key = adapter.put_final("large", source)
        adapter.delete_final(bucket, key)

    def plain_loop(self) -> None:
        digest = hashlib.sha256()
        with self.source.open("rb") as source, self.target.open("wb") as out:
            while piece := source.read(MIB):
                digest.update(piece)
                out.write(piece)
            out.flush()
            os.fsync(out.fileno())
        self.target.unlink()

    def file_system_storage(self) -> None:
        storage = FileSystemStorage(location=str(self.directory / "fss"))
        with self.source.open("rb") as source:
            storage.delete(storage.save("large", HashingFile(source)))

    def hash_pass(self) -> None:
        digest, piece = hashlib.sha256(), b"x" * MIB
        for _ in range(self.size // MIB):
            digest.update(piece)

    def page_cache_copy(self) -> None:
        buffer = bytearray(256 * 1024)
        with (
            self.source.open("rb", buffering=0) as source,
            self.target.open("wb", buffering=0) as out,
        ):
            while count := source.readinto(buffer):  # type: ignore[attr-defined]
                out.write(memoryview(buffer)[:count])
        self.target.unlink()

    def large(self) -> None:
        self.make_source()
        durable, quick = self.adapter(durable=True), self.adapter(durable=False)
        ours, plain = self.alternate("put, fsync / plain loop", lambda: self.put(durable), self.plain_loop)
        self.compare("put with SHA-256 and fsync / plain loop", ours, plain, "≥ 1.30 x")
        ours, plain, hashing, copying = self.alternate(
            "put / FileSystemStorage / hashing / copying",
            lambda: self.put(quick),
            self.file_system_storage,
            self.hash_pass,
            self.page_cache_copy,
        )
        self.compare("put, durable=False / FileSystemStorage, hashing", ours, plain, "≥ 1.00 x")
        floor = hashing.cpu + copying.cpu
        self.add(
            "its CPU / hashlib pass + page-cache copy",
            f"{ours.cpu / self.size * 1e9:.2f} ns/byte",
            f"{hashing.cpu / self.size * 1e9:.2f} + {copying.cpu / self.size * 1e9:.2f}",
            f"{ours.cpu / floor:.2f} x",
            "≤ 1.15 x",
        )

    def compare(self, what: str, ours: Measured, plain: Measured, target: str) -> None:
        def figures(one: Measured) -> str:
            cpu = one.cpu / self.size * 1e9
            return f"{self.size / one.wall / 1e6:,.0f} MB/s, {cpu:.2f} ns/byte"

        self.add(what, figures(ours), figures(plain), f"{plain.wall / ours.wall:.2f} x", target)

    # ---- small objects

    def small(self, count: int = 1000) -> None:
        program = self.directory / "syscalls"
        subprocess.run([self.go, "build", "-o", program, "./syscalls"], cwd=HERE, check=True)
        adapter = self.adapter(durable=True)
        data = bytes(4096)
        ours: list[tuple[float, float]] = []
        floor: list[tuple[float, float]] = []
        bar = self.progress.add_task("4 KiB objects", total=self.rounds + 1)
        for number in range(self.rounds + 1):
            work = Measured(lambda: self.put_small(adapter, data, count))
            work.round()
            for n in range(count):
                adapter.delete_final("local", f"small-{n}")
            objects = self.directory / "objects"
            objects.mkdir()
            command = [program, objects, str(count), str(len(data))]
            wall, cpu = subprocess.check_output(command, text=True).split()
            shutil.rmtree(objects)
            if number:
                ours.append((work.wall / count, work.cpu / count))
                floor.append((int(wall) / 1e9, int(cpu) / 1e9))
            self.progress.advance(bar)
        our_wall, our_cpu = (statistics.median(each) for each in zip(*ours, strict=True))
        wall, cpu = (statistics.median(each) for each in zip(*floor, strict=True))
        self.add(
            "4 KiB durable put / the same system calls",
            f"{our_wall * 1e6:.0f} µs, CPU {our_cpu * 1e6:.0f} µs",
            f"{wall * 1e6:.0f} µs, CPU {cpu * 1e6:.0f} µs",
            f"{our_wall / wall:.2f} x",
            "≤ 1.30 x",
        )

    def put_small(self, adapter: LocalStorageAdapter, data: bytes, count: int) -> None:
        for n in range(count):
            adapter.put_final(f"small-{n}", data)

    # ---- starting

    def start(self) -> None:
        results: list[list[float]] = []
        command = [sys.executable, "-W", "ignore", "-c", START, self.directory / "temp", self.directory / "final"]
        bar = self.progress.add_task("start", total=self.rounds + 1)
        for number in range(self.rounds + 1):
            output = subprocess.check_output(command, text=True)
            if number:
                results.append([float(figure) * 1e3 for figure in output.split()])
            self.progress.advance(bar)
        for what, target, figures in zip(
            ("import storage, on top of Django", "first operation", "the same in a forked child"),
            ("≤ 10 ms", "≤ 20 ms", "≤ 40 ms"),
            zip(*results, strict=True),
            strict=True,
        ):
            figure = f"{statistics.median(figures):.1f} ms"
            self.add(what, figure, "", figure, target)


def table(rows: list[Any]) -> Table:
    result = Table(title="medians; throughput by wall clock, CPU with all threads")
    for name in ("what", "django-gostorage", "the plain way", "ratio", "target"):
        result.add_column(name, justify="left" if name == "what" else "right")
    for row in rows:
        result.add_row(*row)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--go", default="go", help="the go program")
    parser.add_argument("--mib", type=int, default=1024, help="size of the large object")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--directory", type=Path, help="on the disk to measure")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    parent = options.directory or Path("build")
    parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=parent.resolve(), prefix="bench-") as directory:
        with Progress(console=console) as progress:
            bench = Bench(Path(directory), options.mib * MIB, options.rounds, options.go, progress)
            bench.start()
            bench.small()
            bench.large()
        console.print(table(bench.rows))


if __name__ == "__main__":
    main()
