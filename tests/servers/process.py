"""Starts one of the programs that `make tools` built, and ends it."""

import contextlib
import os
import random
import socket
import subprocess
import time
from pathlib import Path

BIN = Path(__file__).parents[2] / "build" / "tools" / "bin"
PATIENCE = 30  # seconds until a server has to answer


def free_port():
    """A port that nothing listens on. It is below the ports of outgoing connections, so that none of them takes it."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as candidate, contextlib.suppress(OSError):
            candidate.bind(("127.0.0.1", port))
            return port


@contextlib.contextmanager
def running(name, *arguments, log, ready, environment=None):
    """Runs the program, and gives what `ready()` gives, which is called until it no longer raises NotReady.

    The program sees no environment but PATH, HOME and the one given. Its output goes to the file `log`. setpriv ends
    it even if the tests are killed.
    """
    program = BIN / name
    if not program.exists():
        raise RuntimeError(f"{name} is not there: run `make tools`")
    with log.open("wb") as output:
        process = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", program, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=log.parent,
            env={"PATH": os.environ["PATH"], "HOME": str(log.parent)} | (environment or {}),
            process_group=0,  # a Ctrl-C ends what uses the server, and that ends the server
        )
    try:
        yield _wait(process, name, log, ready)
        if process.poll() is not None:
            raise RuntimeError(f"{name} ended by itself, with {process.returncode}:\n{log.read_text(errors='replace')}")
    finally:
        process.terminate()
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class NotReady(Exception):
    """The server does not answer yet."""


def first_line(log):
    """The first line of a server of ours, which says where it listens."""
    line, ended, _ = log.read_text().partition("\n")
    if not ended:
        raise NotReady("it has not said where it listens")
    return line


def _wait(process, name, log, ready):
    until = time.monotonic() + PATIENCE
    while True:
        try:
            return ready()
        except NotReady as error:
            ended = process.poll() is not None
            if ended or time.monotonic() > until:
                state = f"ended with {process.returncode}" if ended else f"is not ready after {PATIENCE} s ({error})"
                raise RuntimeError(f"{name} {state}:\n{log.read_text(errors='replace')}") from error
        time.sleep(0.02)
