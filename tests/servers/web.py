"""The Django project of tests/faults/serving.py behind a web server, and the browser of the tests."""

import contextlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from servers.process import BIN, PATIENCE

SERVERS = {
    "gunicorn": ["gunicorn", "-b", "127.0.0.1:0", "--threads", "4", "serving:wsgi"],
    "uvicorn": ["uvicorn", "--host", "127.0.0.1", "--port", "0", "--lifespan", "off", "serving:asgi"],
}


@contextlib.contextmanager
def serving(name, root, environment=None):
    """Starts one of SERVERS, of one process, and gives its URL and its log. The environment is added to that here."""
    log = root / "log"
    with open(log, "w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *SERVERS[name]],
            cwd=Path(__file__).parents[1] / "faults",
            env={**os.environ, "TEST_ROOT": str(root), "PYTHONDONTWRITEBYTECODE": "1"} | (environment or {}),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        wait(lambda: "Booting worker" in log.read_text() or "running on" in log.read_text(), log)
        yield re.search(r"http://127\.0\.0\.1:\d+", log.read_text())[0], log
    finally:
        process.terminate()
        process.wait(20)


def wait(condition, log):
    """Waits until the condition gives something, and gives that."""
    until = time.monotonic() + PATIENCE
    while not (found := condition()):
        assert time.monotonic() < until, log.read_text()
        time.sleep(0.05)
    return found


@contextlib.contextmanager
def chromium():
    """A headless Chromium, driven by Playwright.

    Until it ends, this thread has a running event loop: asyncio.run fails in it, and so do Django's queries.
    """
    from playwright.sync_api import sync_playwright

    program = BIN / "chromium"
    if not program.exists():
        raise RuntimeError("chromium is not there: run `make browser`")
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=program) as browser:
        yield browser
