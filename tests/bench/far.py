"""The S3 adapter compared with other clients on lines that are far away: tests/bench/farline in front of `discard`."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import MIB, Run, Target, at_least, at_most
from peers import AT_ONCE, FAR_CLIENTS, FOLDER
from rich.table import Table
from s3 import KIB, Beside, Column, Store, Worker, ask, cpu, growth, object_of, servers, speed, table

PARTS = 1000
PART = 64 * KIB
AS_THE_BEST = Beside(at_least(1))
OF_THE_CEILING = at_least(0.9 * 300)


@dataclass(frozen=True)
class Line:
    """A line, and the targets for the speed of ours on it."""

    name: str
    bandwidth: int
    """MB/s of each connection."""
    delay: int
    """Milliseconds there and back."""
    ceiling: int = 0
    """MB/s of all connections together, 0 for any number."""
    up: Beside | Target = AS_THE_BEST
    down: Beside | Target = AS_THE_BEST
    at_once: Target | None = None

    @contextlib.contextmanager
    def start(self, directory: Path) -> Iterator[servers.Endpoint]:
        with (
            servers.discard(directory) as endpoint,
            servers.farline(endpoint, directory, self.bandwidth, self.delay, self.ceiling) as far,
        ):
            yield far

    def ask(self, run: Run, title: str, job: dict[str, Any], **rehearsal: Any) -> tuple[list[Worker], dict[str, Any]]:
        """The clients and their answers to a job; the rehearsal may have other arguments."""
        few = dataclasses.replace(run, rounds=min(run.rounds, 3))  # waiting takes long, and varies little
        store = Store(self.name, self.start, tuple(FAR_CLIENTS))
        with store.workers(few) as workers:
            return workers, ask(few, f"{self.name}: {title}", workers, job, rehearsal=job | rehearsal)

    def __str__(self) -> str:
        ceiling = f", {self.ceiling} MB/s in all" if self.ceiling else ""
        return f"{self.bandwidth} MB/s a connection, {self.delay} ms{ceiling}"


LINES = [
    Line("far-50-20", 50, 20, up=Beside(at_least(1.4)), down=Beside(at_least(1.5))),
    Line("far-50-80", 50, 80),
    Line("far-20-80", 20, 80),
    Line("far-200-5", 200, 5),
    Line("far-ceiling", 50, 20, 300, OF_THE_CEILING, OF_THE_CEILING, OF_THE_CEILING),
]


def up(line: Line, run: Run) -> Table:
    size = run.size(512)
    # As on a near store, the rehearsal shows memory, and the rounds after it time.
    workers, answers = line.ask(run, "up", {"job": "up", "key": FOLDER + "up", "size": size}, fresh=True)
    title = f"up: a stream of {size // MIB:,} MiB with SHA-256; {line}"
    return _moved(title, workers, answers, size, line.up, 96)


def down(line: Line, run: Run) -> Table:
    size = run.size(512)
    workers, answers = line.ask(run, "down", {"job": "down", "key": object_of(size)})
    title = f"down: {size // MIB:,} MiB with SHA-256; {line}"
    return _moved(title, workers, answers, size, line.down, 96)


def up_many(line: Line, run: Run) -> Table:
    size = run.size(512) // 8
    job = {"job": "up_at_once", "key": FOLDER + "up", "size": size, "number": AT_ONCE}
    workers, answers = line.ask(run, f"{AT_ONCE} up at once", job)
    title = f"{AT_ONCE} streams of {size // MIB:,} MiB at once, up with SHA-256; {line}"
    return _moved(title, workers, answers, AT_ONCE * size, line.at_once, 160)


def down_many(line: Line, run: Run) -> Table:
    size = run.size(512) // 8
    job = {"job": "down_at_once", "key": object_of(size), "number": AT_ONCE}
    workers, answers = line.ask(run, f"{AT_ONCE} down at once", job)
    title = f"{AT_ONCE} objects of {size // MIB:,} MiB at once, down with SHA-256; {line}"
    return _moved(title, workers, answers, AT_ONCE * size, line.at_once, 160)


def parts(line: Line, run: Run) -> Table:
    workers, answers = line.ask(run, "parts", {"job": "parts", "size": PART, "number": PARTS})
    return table(
        f"{PARTS:,} parts of {PART // KIB} KiB, {AT_ONCE} at once; {line}",
        workers,
        (Column("time, s", lambda each: each["wall"], ".2f", Beside(at_most(1))), answers),
        (Column("CPU, µs each", lambda each: each["cpu"] / PARTS * 1e6, ",.0f"), answers),
        (growth(), answers),
    )


def _moved(
    title: str, workers: list[Worker], answers: dict[str, Any], size: int, aim: Beside | Target | None, memory: int
) -> Table:
    return table(title, workers, (speed(size, aim), answers), (cpu(size), answers), (growth(at_most(memory)), answers))


def groups() -> dict[str, Callable[[Run], Table]]:
    """What can be run, by name."""
    kinds = {"up": up, "down": down, "many-up": up_many, "many-down": down_many, "parts": parts}
    return {f"{line.name}-{name}": functools.partial(kind, line) for line in LINES for name, kind in kinds.items()}
