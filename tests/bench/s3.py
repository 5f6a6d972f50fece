"""The S3 adapter compared with other clients. Each has its own process, and does the same jobs in turn with the others.

The server `discard` keeps nothing and costs little, so that only the client is measured; versitygw is a real server.
"""

import contextlib
import dataclasses
import functools
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import MIB, Run, Target, alternate, at_least, at_most
from rich.table import Table

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import servers  # noqa: E402
from peers import AT_ONCE, CLIENTS, FOLDER  # noqa: E402

OURS, LIMIT = "django-gostorage", "bare socket"
KIB = 1024
OPERATIONS = 2000
BUDGET = 64 * MIB
BUFFER = 8 * MIB + 256 * KIB
"""The memory of one upload beside the budget that all share: a part and a block."""

Answers = list[dict[str, Any]]
"""The answers of a client's process to one job, round by round."""


class Worker:
    """The process of one client."""

    def __init__(self, name: str, endpoint: servers.Endpoint, home: Path) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-W", "ignore", HERE / "peers.py", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={"PATH": os.environ["PATH"], "HOME": str(home), "AWS_EC2_METADATA_DISABLED": "true"},
        )
        try:
            self.version: str = self.ask(dataclasses.asdict(endpoint))["version"]
        except BaseException:
            self.close()
            raise

    def ask(self, job: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with {self._process.wait()}; what it said stands above")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        assert self._process.stdin
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def object_of(size: int) -> str:
    """The key of an object to read; the server `discard` takes the size from it."""
    return f"{FOLDER}get-{size}"


@dataclass(frozen=True)
class Store:
    """A server of tests/servers, and the clients that can speak to it."""

    name: str
    start: Callable[[Path], AbstractContextManager[servers.Endpoint]]
    clients: tuple[str, ...]

    @contextlib.contextmanager
    def workers(self, run: Run, without: str = "", size: int | None = None) -> Iterator[list[Worker]]:
        """The processes of the clients; with `size` there is an object of that many bytes to read."""
        with self.start(run.directory) as endpoint, contextlib.ExitStack() as stack:
            if size is not None:
                with contextlib.closing(Worker(OURS, endpoint, run.directory)) as worker:
                    worker.ask({"job": "store", "key": object_of(size), "size": size})
            workers = []
            for name in self.clients:
                if name != without:
                    workers.append(Worker(name, endpoint, run.directory))
                    stack.callback(workers[-1].close)
            yield workers


STORES = [
    Store("discard", servers.discard, tuple(CLIENTS)),
    Store("versitygw", servers.versitygw, tuple(name for name in CLIENTS if name != LIMIT)),  # it requires signatures
]


@dataclass(frozen=True)
class Beside:
    """A target for our figure as a multiple of another client's: for the median of the ratios of all rounds.

    Without a client it is that of the best of all others, round by round.
    """

    times: Target
    client: str | None = None


@dataclass(frozen=True)
class Column:
    """A figure of each client, and the target of ours."""

    title: str
    figure: Callable[[dict[str, Any]], float]
    form: str
    aim: Beside | Target | None = None
    over: Callable[[list[float]], float] = statistics.median

    def aimed(self, answers: dict[str, Answers]) -> tuple[str, str]:
        """The target, and whether it is reached."""
        ours = [self.figure(each) for each in answers[OURS]]
        if self.aim is None:
            return "", ""
        if isinstance(self.aim, Target):
            return self.aim.text(self.form), self.aim.met(self.over(ours))
        others = [name for name in answers if name != OURS and self.aim.client in (name, None)]
        best = min if self.aim.times.upper else max
        theirs = [best(map(self.figure, each)) for each in zip(*(answers[name] for name in others), strict=True)]
        ratio = statistics.median(one / other for one, other in zip(ours, theirs, strict=True))
        return (
            f"{self.aim.times.text('.2f')} of {self.aim.client or 'the best'}",
            f"{self.aim.times.met(ratio)}: {ratio:.2f}",
        )


def cpu(size: int, aim: Beside | None = None) -> Column:
    return Column("CPU, ns/byte", lambda each: each["cpu"] / size * 1e9, ".2f", aim)


def speed(size: int, aim: Beside | Target | None = None) -> Column:
    return Column("MB/s", lambda each: size / 1e6 / each["wall"], ",.0f", aim)


def growth(aim: Target | None = None) -> Column:
    return Column("peak RSS growth, MiB", lambda each: each["growth"] / MIB, ",.0f", aim, max)


def up(store: Store, run: Run) -> Table:
    size = run.size(512)
    job = {"job": "up", "key": FOLDER + "up", "size": size}
    with store.workers(run) as workers:
        # The rehearsal shows memory, the rounds after it show time: premade bytes cost no time, but hide memory.
        answers = ask(run, f"{store.name}: up", workers, job, rehearsal=job | {"fresh": True})
    return table(
        f"up to {store.name}: a stream of {size // MIB:,} MiB with SHA-256",
        workers,
        (cpu(size, Beside(at_most(1.1), "OpenDAL")), answers),
        (speed(size, Beside(at_least(1), "OpenDAL")), answers),
        (growth(), answers),
    )


def down(store: Store, run: Run) -> Table:
    size = run.size(512)
    job = {"job": "down", "key": object_of(size)}
    with store.workers(run, size=size) as workers:
        answers = ask(run, f"{store.name}: down", workers, job, rehearsal=job)
    return table(
        f"down from {store.name}: {size // MIB:,} MiB with SHA-256",
        workers,
        (cpu(size, Beside(at_most(1), "boto3")), answers),
        (speed(size, Beside(at_least(1), "OpenDAL")), answers),
        (growth(), answers),
    )


def small(store: Store, run: Run) -> Table:
    number = max(1, OPERATIONS // run.rounds)
    put = {"job": "put", "key": FOLDER + "small", "size": KIB, "number": number}
    get = put | {"job": "get", "key": object_of(KIB)}
    with store.workers(run, size=KIB) as workers:
        puts = ask(run, f"{store.name}: small put", workers, put, rehearsal=put | {"number": 100})
        gets = ask(run, f"{store.name}: small get", workers, get, rehearsal=get | {"number": 100})

    def half(each: dict[str, Any]) -> float:
        times: list[float] = each["times"]
        return statistics.median(times) * 1e6

    def work(each: dict[str, Any]) -> float:
        seconds: float = each["cpu"]
        return seconds * 1e6

    as_obstore = Beside(at_most(1), "obstore")
    return table(
        f"1 KiB to and from {store.name}, {number * run.rounds:,} times",
        workers,
        (Column("put p50, µs", half, ",.0f", as_obstore), puts),
        (Column("CPU, µs", work, ",.0f"), puts),
        (Column("get p50, µs", half, ",.0f", as_obstore), gets),
        (Column("CPU, µs", work, ",.0f"), gets),
    )


def many(store: Store, run: Run) -> Table:
    size = run.size(512) // 4
    job = {"job": "up_at_once", "key": FOLDER + "up", "size": size, "number": AT_ONCE}
    with store.workers(run, without=LIMIT) as workers:
        few = dataclasses.replace(run, rounds=min(run.rounds, 2))  # a peak needs no more rounds
        answers = ask(few, f"{store.name}: {AT_ONCE} up at once", workers, job)
    return table(
        f"{AT_ONCE} streams of {size // MIB:,} MiB at once, up to {store.name} with SHA-256",
        workers,
        (growth(at_most((BUDGET + AT_ONCE * BUFFER) / MIB)), answers),
        (cpu(AT_ONCE * size), answers),
        (speed(AT_ONCE * size), answers),
    )


def ask(
    run: Run, title: str, workers: list[Worker], job: dict[str, Any], rehearsal: dict[str, Any] | None = None
) -> dict[str, Answers]:
    """The answers of each client to a job, after making sure that all moved the same bytes."""

    def asking(job: dict[str, Any]) -> list[Callable[[], dict[str, Any]]]:
        return [functools.partial(worker.ask, job) for worker in workers]

    answers = alternate(run, title, *asking(job), rehearsal=asking(rehearsal) if rehearsal else [])
    digests = {each.get("digest") for rounds in answers for each in rounds}
    if len(digests) != 1:
        raise RuntimeError(f"{title}: the clients have moved different bytes")
    return {worker.name: rounds for worker, rounds in zip(workers, answers, strict=True)}


def table(title: str, workers: list[Worker], *columns: tuple[Column, dict[str, Answers]]) -> Table:
    """A row for each client, and below them the targets and whether they are reached."""
    result = Table("", title=title)
    rows = {worker.name: [f"{worker.name} {worker.version}"] for worker in workers}
    bounds, met = ["target"], ["met?"]
    for column, answers in columns:
        result.add_column(column.title, justify="right")
        for name, rounds in answers.items():
            rows[name].append(f"{column.over([column.figure(each) for each in rounds]):{column.form}}")
        bound, reached = column.aimed(answers)
        bounds.append(bound)
        met.append(reached)
    for name, row in rows.items():
        result.add_row(*row, end_section=name == workers[-1].name)
    result.add_row(*bounds)
    result.add_row(*met)
    return result


def groups() -> dict[str, Callable[[Run], Table]]:
    """What can be run, by name."""
    kinds = (up, down, small, many)
    return {f"{store.name}-{kind.__name__}": functools.partial(kind, store) for store in STORES for kind in kinds}
