"""How gunicorn runs the site: `gunicorn --config python:portal.web.gunicorn portal.web.wsgi`."""

import signal
from typing import Any

from portal.web.settings import USER, kept

workers = 2
worker_class = "gthread"
threads = 16  # each upload takes one for as long as it lasts
graceful_timeout = 3  # seconds; what is cut then goes on with the next start
loglevel = "warning"


def when_ready(server: Any) -> None:
    """Tells a person where the site is."""
    server.handle_hup = server.handle_int  # a terminal that is closed ends it, as Ctrl-C does: else it would start anew
    print(f"http://127.0.0.1:{server.LISTENERS[0].sock.getsockname()[1]}/")
    print(f"Log in as {USER} with password {kept('password')}", flush=True)


def post_worker_init(worker: Any) -> None:
    """Leaves Ctrl-C and a terminal that is closed to gunicorn: workers that are told twice show a traceback."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
