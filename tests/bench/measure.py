"""What work costs, measured in turn with the work that it is compared to."""

import random
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from rich.progress import Progress

MIB = 1024 * 1024

Result = TypeVar("Result")


@dataclass(frozen=True)
class Run:
    """How the benchmark was asked to run."""

    directory: Path
    mib: int | None
    rounds: int
    go: str
    progress: Progress

    def size(self, mib: int) -> int:
        """Bytes of a large object, which has `mib` MiB unless the command says otherwise."""
        return (self.mib or mib) * MIB


@dataclass(frozen=True)
class Cost:
    """Seconds by the clock, and of user and system time of the process with all its threads and ended children."""

    wall: float
    cpu: float


def measure(work: Callable[[], object]) -> Cost:
    cpu, wall = _cpu(), time.perf_counter()
    work()
    return Cost(time.perf_counter() - wall, _cpu() - cpu)


def _cpu() -> float:
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


def median(costs: Sequence[Cost]) -> Cost:
    return Cost(statistics.median(cost.wall for cost in costs), statistics.median(cost.cpu for cost in costs))


def alternate(
    run: Run, title: str, *works: Callable[[], Result], rehearsal: Sequence[Callable[[], object]] | None = None
) -> list[list[Result]]:
    """The result of each work in each round. The rehearsal, by default also a round, is not counted.

    The works take turns, in another order in each round: work is slower after work that keeps all processors busy.
    """
    if rehearsal is None:
        rehearsal = works
    bar = run.progress.add_task(title, total=len(rehearsal) + run.rounds * len(works))
    for work in rehearsal:
        work()
        run.progress.advance(bar)
    results: list[list[Result]] = [[] for _ in works]
    chance = random.Random(len(works))
    for _ in range(run.rounds):
        for number in chance.sample(range(len(works)), len(works)):
            results[number].append(works[number]())
            run.progress.advance(bar)
    run.progress.remove_task(bar)
    return results


@dataclass(frozen=True)
class Target:
    """The target of a figure. Nothing fails if the figure misses it."""

    bound: float
    upper: bool

    def text(self, form: str) -> str:
        return f"{'≤' if self.upper else '≥'} {self.bound:{form}}"

    def met(self, figure: float) -> str:
        return "yes" if (figure <= self.bound if self.upper else figure >= self.bound) else "no"


def at_most(bound: float) -> Target:
    return Target(bound, upper=True)


def at_least(bound: float) -> Target:
    return Target(bound, upper=False)
