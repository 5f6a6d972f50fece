"""Requests whose bodies do not come whole, through a real server."""

import os
import socket
import subprocess
import sys
import time

import pytest
from conftest import HERE

SIZE = 1_000_000
CUT = b"x" * 300_000
LENGTH = b"PUT /%s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
CHUNKED = b"PUT /%s HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n493e0\r\n"

# What is sent, how the connection ends, and what the view may say of it.
BODIES = {
    "whole": (LENGTH + b"x" * SIZE, None, {str(SIZE)}),
    "closed": (LENGTH + CUT, "close", {"mismatch", "raised"}),
    "half-closed": (LENGTH + CUT, "half", {"mismatch", "raised"}),
    "reset": (LENGTH + CUT, "reset", {"mismatch", "raised"}),
    "chunked": (CHUNKED + CUT + b"\r\n0\r\n\r\n", None, {"no_length"}),
    "chunked-and-cut": (CHUNKED + CUT + b"\r\n", "close", {"no_length"}),
    "empty": (b"PUT /%s HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", None, {"0"}),
    "without": (b"PUT /%s HTTP/1.1\r\nHost: x\r\n\r\n", None, {"0"}),
}


def wait_for(condition, log):
    until = time.monotonic() + 20
    while not (found := condition()):
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.02)
    return found


@pytest.fixture(params=["sync", "gthread"])
def gunicorn(request, tmp_path):
    """Yields the address of a server of tests/faults/bodies.py, and its log file."""
    log = tmp_path / "log"
    command = ["gunicorn", "-k", request.param, "-b", "127.0.0.1:0", "bodies:application"]
    with open(log, "w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=HERE / "faults",
            env={**os.environ, "TEST_ROOT": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for(lambda: "Booting worker" in log.read_text(), log)
        host, _, port = log.read_text().split("Listening at: http://")[1].split()[0].partition(":")
        yield (host, int(port)), log
    finally:
        process.terminate()
        process.wait(20)


def test_a_body_that_is_cut_is_never_stored(gunicorn, tmp_path):
    address, log = gunicorn
    for name, (data, end, expected) in BODIES.items():
        with socket.create_connection(address) as client:
            client.sendall(data.replace(b"%s", name.encode()))
            if end == "half":
                client.shutdown(socket.SHUT_WR)
            if end == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            if end is None:
                assert client.recv(1000).split()[1] == (b"400" if "no_length" in expected else b"200"), name
        said = tmp_path / f"{name}.said"
        assert wait_for(lambda said=said: said.exists() and said.read_text(), log) in expected, name
        stored = tmp_path / "final" / name
        assert stored.exists() == expected.isdisjoint({"mismatch", "no_length"}), name
        if stored.exists():
            assert str(stored.stat().st_size) in expected, name
