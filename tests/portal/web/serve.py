#!/usr/bin/env python
"""Starts the site under gunicorn, in the foreground, with a user who may log in and see /admin/. See docs/portal.md."""

import errno
import fcntl
import os
import socket
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent.parent


def main() -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "portal.web.settings"
    sys.path[:] = [str(TESTS), *(entry for entry in sys.path if Path(entry).resolve() != HERE)]
    os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    listener = listening(os.environ.get("PORT") or "8000")
    try:
        prepare()
    except KeyboardInterrupt:
        sys.exit(130)
    os.set_inheritable(listener.fileno(), True)
    bind = f"fd://{listener.fileno()}"
    gunicorn = [sys.executable, "-m", "gunicorn", "--config", "python:portal.web.gunicorn", "--bind", bind]
    os.execv(sys.executable, [*gunicorn, "portal.web.wsgi"])


def listening(port: str) -> socket.socket:
    """A socket for gunicorn; with port 0 the system chooses one.

    It waits a while for the workers of a gunicorn that was killed: they end a little later.
    """
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        sys.exit(f"PORT is a number up to 65535, not {port!r}")
    until = time.monotonic() + 8
    while True:
        try:
            return socket.create_server(("127.0.0.1", int(port)), backlog=128)
        except OSError as error:
            if time.monotonic() > until or error.errno != errno.EADDRINUSE:
                other = 8001 if int(port) == 8000 else 8000
                sys.exit(f"port {port}: {os.strerror(error.errno or 0)}. Take another one: make portal PORT={other}")
            time.sleep(0.1)


def prepare() -> None:
    """Makes the tables and the user, once, and tries the store. The password stays as long as its file is there."""
    from django.core.exceptions import ImproperlyConfigured
    from django.db import DatabaseError

    from storage import StorageError

    try:
        from portal.settings import VAR

        with open(VAR / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of two that start at once, one makes them
            make()
    except ImproperlyConfigured as error:
        sys.exit(str(error))
    except StorageError as error:
        sys.exit(f"files cannot be stored: {error}")
    except (OSError, DatabaseError) as error:
        sys.exit(f"PORTAL_VAR is a folder that can be written to: {error}")


def make() -> None:
    import django
    from django.contrib.auth import get_user_model
    from django.core.management import call_command

    from storage import get_storage_adapter

    django.setup()
    call_command("migrate", verbosity=0)
    get_storage_adapter().check_health()

    from portal.web.settings import USER, kept

    user, _ = get_user_model().objects.get_or_create(username=USER, defaults={"is_staff": True, "is_superuser": True})
    if not user.check_password(kept("password")):
        user.set_password(kept("password"))
        user.save()


if __name__ == "__main__":
    main()
