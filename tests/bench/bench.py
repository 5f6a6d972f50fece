"""Speed and cost, each figure beside that of the plain way of doing the same, in one run on one machine.

Every figure is the median of several rounds. The compared ways take turns in each round, so that a disk that slows
down slows all of them down. CPU is user and system time of the process with all its threads. No figure makes the
benchmark fail: the tables show the target next to it.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import assemble
import django
import far
import growth
import local
import s3
from django.conf import settings
from measure import Run
from rich.console import Console
from rich.progress import Progress

GROUPS = {"local-start": local.start, "local-small": local.small, "local-large": local.large} | s3.groups()
GROUPS |= {
    "local-assemble": assemble.on_disk,
    "versitygw-assemble": assemble.on_versitygw,
    "carrying": assemble.carrying,
}
GROUPS |= far.groups() | growth.GROUPS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--go", default="go", help="the go program")
    parser.add_argument("--mib", type=int, help="size of a large object (1024 on a disk, 512 on S3)")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="*", default=[], metavar="PART", help=f"parts of the names {', '.join(GROUPS)}")
    parser.add_argument("--directory", type=Path, default=Path("build"), help="a directory on the disk to measure")
    options = parser.parse_args()
    chosen = {name: group for name, group in GROUPS.items() if _wanted(name, options.only)}
    if not chosen:
        parser.error(f"nothing is called {options.only}: {', '.join(GROUPS)}")
    settings.configure()
    django.setup()
    options.directory.mkdir(parents=True, exist_ok=True)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(_machine())
    began = time.monotonic()
    with (
        tempfile.TemporaryDirectory(dir=options.directory.resolve(), prefix="bench-") as directory,
        Progress(console=console, transient=True) as progress,
    ):
        run = Run(Path(directory), options.mib, options.rounds, options.go, progress)
        for group in chosen.values():
            console.print(group(run))
    console.print(f"medians of {options.rounds} rounds, in {time.monotonic() - began:,.0f} s; {_load()}")


def _wanted(name: str, only: list[str]) -> bool:
    return not only or any(part in name for part in only)


def _machine() -> str:
    system = f"{platform.system()} {platform.release()}"
    return (
        f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores, {system}, Python {platform.python_version()}; {_load()}"
    )


def _load() -> str:
    return f"load average {os.getloadavg()[0]:.1f}"


if __name__ == "__main__":
    main()
