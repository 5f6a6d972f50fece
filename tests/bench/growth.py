"""How the cost of the S3 adapter grows: with the size of an object, with how many move at once, with the number of
parts, and with the number of objects."""

import contextlib
import dataclasses
import functools
import statistics
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

from measure import MIB, Cost, Run, alternate, measure
from peers import FOLDER
from rich.table import Table
from s3 import KIB, OURS, Worker, object_of, servers

from storage import LocalStorageAdapter, S3StorageAdapter, StorageAdapter

SIZES = (KIB, 64 * KIB, MIB, 16 * MIB, 256 * MIB, 1024 * MIB, 5 * 1024 * MIB)
AT_ONCE = (1, 4, 16, 64)
PARTS = (1, 10, 100, 1_000, 10_000)
OBJECTS = (10, 100, 1_000, 10_000, 100_000)
IN_SESSION = 100
MOVED = ("up, ms", "CPU, ns/byte", "RSS, MiB", "down, ms", "CPU, ns/byte", "RSS, MiB")


def sizes(run: Run) -> Table:
    table = _table("one object to and from discard", "size", *MOVED)
    for size in SIZES:
        few = dataclasses.replace(run, rounds=1 if size > 256 * MIB else max(3, min(200, 64 * MIB // size)))
        up = {"job": "up", "key": FOLDER + "up", "size": size, "fresh": True}
        table.add_row(_bytes(size), *_moved(few, size, up, {"job": "down", "key": object_of(size)}))
    return table


def at_once(run: Run) -> Table:
    size = 64 * MIB
    table = _table(f"objects of {_bytes(size)} at once, to and from discard", "at once", *MOVED)
    for number in AT_ONCE:
        few = dataclasses.replace(run, rounds=2)
        up = {"job": "up_at_once", "key": FOLDER + "up", "size": size, "number": number}
        down = {"job": "down_at_once", "key": object_of(size), "number": number}
        table.add_row(str(number), *_moved(few, number * size, up, down))
    return table


def parts(run: Run) -> Table:
    """Small parts: what each of them costs, and not its bytes."""
    table = _table(
        "parts of 1 KiB on versitygw, 8 put at once", "parts", "put, s", "assemble, s", "CPU, s", "delete, s"
    )
    with servers.versitygw(run.directory) as endpoint, contextlib.closing(_adapter(endpoint)) as adapter:
        for number in PARTS:
            put, joined, deleted = _work(run, f"{number:,} parts", *_parts(adapter, number))
            table.add_row(f"{number:,}", _seconds(put), _seconds(joined), f"{joined.cpu:.3f}", _seconds(deleted))
    return table


def objects(run: Run) -> Table:
    """Folders of parts, as a store has them after a while."""
    table = _table(
        f"parts in sessions of {IN_SESSION}", "objects", *("dry sweep, s", "CPU, s", "sweep, s", "CPU, s") * 2
    )
    local = run.directory / "local"
    disk = LocalStorageAdapter(temp_dir=local / "temp", final_dir=local / "final")
    with servers.versitygw(run.directory) as endpoint, contextlib.closing(_adapter(endpoint)) as adapter:
        adapter.put_temp_part("first", 1, b"x")
        (first,) = run.directory.rglob("first/00001")
        disk.put_temp_part("first", 1, b"x")
        for number in OBJECTS:
            row = [f"{number:,}"]
            for one, folder in ((adapter, first.parent.parent), (disk, local / "temp")):
                _fill(folder, number)
                dry = functools.partial(one.sweep, timedelta(), dry_run=True)
                for cost in _work(run, f"{number:,} objects", dry, functools.partial(one.sweep, timedelta())):
                    row += [_seconds(cost), f"{cost.cpu:.3f}"]
            table.add_row(*row)
    table.caption = "first on versitygw, then on a disk"
    return table


def _parts(adapter: StorageAdapter, number: int) -> Iterator[Callable[[], object]]:
    keys: list[str] = []

    def put() -> None:
        with ThreadPoolExecutor(8) as threads:
            stored = threads.map(lambda n: adapter.put_temp_part("parts", n + 1, bytes(KIB)), range(number))
            keys.extend(part.key for part in stored)

    yield put
    yield lambda: adapter.assemble("whole", keys)
    yield lambda: adapter.delete_temp_parts("parts")


def _fill(folder: Path, number: int) -> None:
    for n in range(number):
        session = folder / f"session-{n // IN_SESSION}"
        if n % IN_SESSION == 0:
            session.mkdir(parents=True)
        (session / f"{n % IN_SESSION + 1:05d}").write_bytes(b"x")


def _work(run: Run, title: str, *works: Callable[[], object]) -> list[Cost]:
    """The costs of some works, one after the other, once each."""
    bar = run.progress.add_task(title, total=len(works))
    costs = []
    for work in works:
        costs.append(measure(work))
        run.progress.advance(bar)
    run.progress.remove_task(bar)
    return costs


def _moved(run: Run, size: int, *jobs: dict[str, Any]) -> Iterator[str]:
    """Three figures for each job, which has a server and a process of its own."""
    for job in jobs:
        with servers.discard(run.directory) as server, contextlib.closing(Worker(OURS, server, run.directory)) as ours:
            [answers] = alternate(run, f"{job['job']} {_bytes(size)}", functools.partial(ours.ask, job))
        yield f"{statistics.median(each['wall'] for each in answers) * 1e3:,.2f}"
        yield f"{statistics.median(each['cpu'] for each in answers) / size * 1e9:,.2f}"
        yield f"{max(each['growth'] for each in answers) / MIB:,.0f}"


def _adapter(endpoint: servers.Endpoint) -> S3StorageAdapter:
    return S3StorageAdapter(
        bucket_name=endpoint.bucket,
        access_key=endpoint.access_key,
        secret_key=endpoint.secret_key,
        region_name=endpoint.region,
        endpoint_url=endpoint.url,
    )


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _seconds(cost: Cost) -> str:
    return f"{cost.wall:.3f}"


def _bytes(size: int) -> str:
    for unit in ("KiB", "MiB"):
        size //= KIB
        if size < KIB:
            return f"{size} {unit}"
    return f"{size // KIB} GiB"


GROUPS = {
    "growth-sizes": sizes,
    "growth-at-once": at_once,
    "growth-parts": parts,
    "growth-objects": objects,
}
