"""Joining parts compared with the plain ways, and the cost of carrying the digest while parts are uploaded."""

import dataclasses
import functools
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

from measure import MIB, Cost, Run, alternate, at_most, measure, median
from rich.table import Table
from s3 import Answers, Worker, servers

from storage import Assembled, LocalStorageAdapter, TempPart

SIZES = (5, 64)
"""Sizes of parts, in MiB."""


class Zeros:
    """A stream of `size` zero bytes, in pieces that cost nothing."""

    def __init__(self, size: int) -> None:
        self._left = size

    def read(self, size: int) -> bytes:
        piece = _ZEROS[: min(size, self._left, MIB)]
        self._left -= len(piece)
        return piece


_ZEROS = bytes(MIB)


def on_disk(run: Run) -> Table:
    """Compared with one `cp` of all the bytes and an fsync: the same copy without a digest."""
    size = run.size(1024)
    table = _table(f"parts of {size // MIB:,} MiB become one file", "time, s", "CPU, s", "MB read here")
    source, target = run.directory / "source", run.directory / "target"
    for mib in SIZES:
        adapter = LocalStorageAdapter(temp_dir=run.directory / "temp", final_dir=run.directory / "final")
        parts = _put_parts(adapter, size, mib * MIB)
        if not source.exists():
            adapter.assemble("source", parts)
            os.rename(run.directory / "final" / "source", source)
        seen: list[int] = []
        works = functools.partial(_assemble, adapter, parts, seen), functools.partial(_cp, source, target)
        joined, copied = (median(costs) for costs in alternate(run, f"parts of {mib} MiB", *works))
        bound = at_most(1.2 * copied.wall)
        assert isinstance(seen[-1], Assembled)
        _row(table, f"assemble, parts of {mib} MiB", joined.wall, joined.cpu, seen[-1].read / 1e6)
        _row(table, "cp and fsync of the whole", copied.wall, copied.cpu, None)
        table.add_row("target", bound.text(".2f"))
        table.add_row("met?", bound.met(joined.wall), end_section=True)
        adapter.delete_temp_parts("session")
    return table


def on_versitygw(run: Run) -> Table:
    size = run.size(1024)
    table = _table(
        f"parts of {size // MIB:,} MiB become one object of versitygw", "time, s", "CPU, s", "MB through here"
    )
    for mib in SIZES:
        with servers.versitygw(run.directory) as endpoint:
            ours, boto3 = (Worker(name, endpoint, run.directory) for name in ("django-gostorage", "boto3"))
            try:
                keys = ours.ask({"job": "put_parts", "session": "session", "size": size, "part": mib * MIB})["keys"]
                ways = {
                    "assemble": (ours, "assemble"),
                    "boto3, copying, no digest": (boto3, "join_copying"),
                    "boto3, reading, hashing, sending": (boto3, "join_reading"),
                }
                works: list[Callable[[], dict[str, float]]] = [
                    functools.partial(worker.ask, {"job": job, "keys": keys}) for worker, job in ways.values()
                ]
                few = dataclasses.replace(run, rounds=min(run.rounds, 3))
                answers: list[Answers] = alternate(few, f"parts of {mib} MiB", *works, rehearsal=works[:1])
            finally:
                ours.close()
                boto3.close()
        costs = [median([Cost(each["wall"], each["cpu"]) for each in rounds]) for rounds in answers]
        for name, cost, rounds in zip(ways, costs, answers, strict=True):
            _row(table, f"{name}, parts of {mib} MiB", cost.wall, cost.cpu, rounds[-1]["passed"] / 1e6)
        wall, cpu = at_most(1.2 * costs[1].wall), at_most(costs[1].cpu)
        table.add_row("target", wall.text(".2f"), cpu.text(".2f"))
        table.add_row("met?", wall.met(costs[0].wall), cpu.met(costs[0].cpu), end_section=True)
    return table


def carrying(run: Run) -> Table:
    """Uploads in order, with and without carrying the digest of the whole."""
    size = run.size(1024)
    table = _table(f"{size // MIB:,} MiB in parts of 5 MiB, in order", "carried", "not carried", form="CPU, ns/byte")
    adapters = [
        LocalStorageAdapter(
            temp_dir=run.directory / f"temp-{carried}",
            final_dir=run.directory / "f",
            durable=False,
            carry_digest=carried,
        )
        for carried in (True, False)
    ]

    def put(adapter: LocalStorageAdapter) -> Cost:
        cost = measure(lambda: _put_parts(adapter, size, 5 * MIB))
        adapter.delete_temp_parts("session")
        return cost

    works = [functools.partial(put, adapter) for adapter in adapters]
    figures = [median(costs).cpu / size * 1e9 for costs in alternate(run, "carrying, disk", *works)]
    table.add_row("disk, durable=False", *(f"{figure:.2f}" for figure in figures))
    with servers.versitygw(run.directory) as endpoint:
        worker = Worker("django-gostorage", endpoint, run.directory)
        try:
            jobs = [
                functools.partial(
                    worker.ask,
                    {"job": "put_parts", "session": "s", "size": size, "part": 5 * MIB, "carried": carried},
                )
                for carried in (True, False)
            ]
            answers = alternate(run, "carrying, versitygw", *jobs, rehearsal=jobs[:1])
        finally:
            worker.close()
    figures = [median([Cost(each["wall"], each["cpu"]) for each in rounds]).cpu / size * 1e9 for rounds in answers]
    table.add_row("versitygw", *(f"{figure:.2f}" for figure in figures))
    return table


def _put_parts(adapter: LocalStorageAdapter, size: int, part: int) -> list[TempPart]:
    starts = enumerate(range(0, size, part), 1)
    return [adapter.put_temp_part("session", number, Zeros(min(part, size - start))) for number, start in starts]


def _assemble(adapter: LocalStorageAdapter, parts: list[TempPart], seen: list[int]) -> Cost:
    cost = measure(lambda: adapter.assemble("joined", parts, progress=lambda done, _: seen.append(done)))
    adapter.delete_final("local", "joined")
    return cost


def _cp(source: Path, target: Path) -> Cost:
    def copy() -> None:
        subprocess.run(["cp", source, target], check=True)
        with target.open("rb") as file:
            os.fsync(file.fileno())

    cost = measure(copy)
    target.unlink()
    return cost


def _table(title: str, *columns: str, form: str = "") -> Table:
    table = Table(form, title=title)
    for column in columns:
        table.add_column(column, justify="right")
    return table


def _row(table: Table, name: str, wall: float, cpu: float, passed: float | None) -> None:
    table.add_row(name, f"{wall:.2f}", f"{cpu:.2f}", "" if passed is None else f"{passed:,.1f}")
