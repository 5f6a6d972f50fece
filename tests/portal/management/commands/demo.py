"""Uploads a real file the way a browser's uploader would, and shows what it cost."""

import argparse
import hashlib
import io
import os
import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Table

from storage import S3StorageAdapter, get_storage_adapter

from ... import services

MIB = 1024 * 1024
MB = 1_000_000
"""What is shown is in these."""


class Slice(io.RawIOBase):
    """`size` bytes of an open file from `start` on, as a request body would deliver them."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        file.seek(start)
        self._file, self._left = file, size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        with memoryview(buffer) as view:
            count = self._file.readinto(view[: self._left])  # type: ignore[attr-defined]
        self._left -= count
        return int(count)


class Cost:
    """Wall clock and CPU seconds (all threads, user and system) of what was run in it."""

    wall = cpu = 0.0

    @contextmanager
    def measure(self) -> Iterator[None]:
        wall, before = time.perf_counter(), os.times()
        yield
        after = os.times()
        self.wall += time.perf_counter() - wall
        self.cpu += after.user + after.system - before.user - before.system


def peak_memory() -> int:
    """The most memory in bytes that this process has had resident."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise CommandError("this system does not say how much memory a process had at most")


def place() -> str:
    """Where the adapter keeps its objects."""
    adapter = get_storage_adapter()
    if isinstance(adapter, S3StorageAdapter):
        server = settings.AWS_S3_ENDPOINT_URL or "AWS"
        return f"bucket {adapter.bucket} of {server}, below temp/ and {adapter.prefix}"
    return f"{settings.STORAGE_TEMP_DIR} and {settings.STORAGE_FINAL_DIR}"


class Command(BaseCommand):
    help = "Upload a file in parts, join them, read the result back and compare digests."

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        parser.add_argument("file", nargs="?", type=Path, help="default: 1 GiB, made once")
        parser.add_argument("--chunk-size", type=int, default=5 * MIB, help="bytes per part")
        parser.add_argument("--make-size", type=int, default=1024 * MIB, help="bytes to make")

    def handle(self, *, file: Path | None, chunk_size: int, make_size: int, **options: object) -> None:
        started = peak_memory()
        console = Console()
        console.print(f"stored in   {place()}", highlight=False, soft_wrap=True)
        columns = (
            TextColumn("{task.description:<22}"),
            BarColumn(),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=console) as progress:
            if file is None:
                file = self.make_file(progress, make_size)
            elif not file.is_file() or not file.stat().st_size:
                raise CommandError(f"{file} is not a file with something in it")
            size = file.stat().st_size
            session = services.start_session(file.name, size, chunk_size=chunk_size)
            numbers = list(range(1, session.total_parts + 1))
            random.Random(1).shuffle(numbers)
            numbers.insert(len(numbers) // 2, numbers[0])  # an impatient client sends one again
            upload, join, read = Cost(), Cost(), Cost()

            bar = progress.add_task("upload", total=size + session.part_size(numbers[0]))
            with file.open("rb", buffering=0) as source, upload.measure():
                for number in numbers:
                    start, length = (number - 1) * chunk_size, session.part_size(number)
                    services.upload_chunk(session, number, Slice(source, start, length))
                    progress.advance(bar, length)

            bar = progress.add_task("join", total=size)
            with join.measure():
                stored = services.finalize_session(
                    session, progress=lambda done, total: progress.update(bar, completed=done)
                )

            bar = progress.add_task("read back, verified", total=size)
            with services.open_file(stored) as stream, read.measure():
                count = 0
                for piece in stream.chunks():
                    count += len(piece)
                    progress.update(bar, completed=count)
            peak = peak_memory()
            expected = self.hashlib_digest(progress, file)

        table = Table("step", "calls", "MB/s", "CPU ns/byte", "seconds")
        sent = size + session.part_size(numbers[0])
        for name, calls, cost, amount in (
            (f"upload of {len(numbers)} parts", f"{len(numbers)} put_temp_part", upload, sent),
            ("join", "assemble, delete_temp_parts", join, size),
            ("read back", "get_final_stream", read, size),
        ):
            table.add_row(
                name,
                calls,
                f"{amount / cost.wall / MB:,.0f}",
                f"{cost.cpu / amount * 1e9:.2f}",
                f"{cost.wall:.2f}",
            )
        console.print(table)
        console.print(f"size        {size / MB:,.1f} MB", highlight=False)
        console.print(f"storage     {stored.sha256}", highlight=False)
        console.print(f"hashlib     {expected}", highlight=False)
        console.print(
            f"peak memory {peak / MB:.0f} MB ({started / MB:.0f} MB before the upload)",
            highlight=False,
        )
        services.delete_file(stored)
        if (stored.sha256, count) != (expected, size):
            raise CommandError("THE DIGESTS DIFFER")
        console.print("[green]The digests are the same.[/green]")
        console.print("The object was deleted again (delete_final).", highlight=False)
        console.print(f"The file stays: {file}", highlight=False, soft_wrap=True)

    def make_file(self, progress: Progress, size: int) -> Path:
        """A file of `size` bytes that cannot be compressed; kept for the next run."""
        path: Path = settings.VAR / f"demo-{size}.bin"
        if not path.exists():
            bar = progress.add_task("make a file", total=size)
            partial = path.with_suffix(".partial")
            with partial.open("wb") as out:
                while (done := out.tell()) < size:
                    out.write(random.randbytes(min(MIB, size - done)))
                    progress.update(bar, completed=done)
            partial.rename(path)
            progress.update(bar, completed=size)
        return path

    def hashlib_digest(self, progress: Progress, path: Path) -> str:
        """The same file, hashed by Python's own hashlib."""
        bar = progress.add_task("compare with hashlib", total=path.stat().st_size)
        digest = hashlib.sha256()
        with path.open("rb") as source:
            while piece := source.read(MIB):
                digest.update(piece)
                progress.advance(bar, len(piece))
        return digest.hexdigest()
