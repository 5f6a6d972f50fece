#!/usr/bin/env python
"""Starts the site under gunicorn, in the foreground, with a user who may log in and see /admin/. See docs/portal.md."""

import os
import socket
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TESTS = HERE.parent.parent
USER = "portal"


def main() -> None:
    os.environ["DJANGO_SETTINGS_MODULE"] = "portal.web.settings"
    sys.path[:] = [str(TESTS), *(entry for entry in sys.path if Path(entry).resolve() != HERE)]
    listener = listening(os.environ.get("PORT") or "8000")

    import django
    from django.core.exceptions import ImproperlyConfigured
    from django.core.management import call_command

    try:
        django.setup()
        call_command("migrate", verbosity=0)
        password = make_user()
    except ImproperlyConfigured as error:
        sys.exit(f"{error}")
    print(f"http://127.0.0.1:{listener.getsockname()[1]}/")
    print(f"Log in as {USER} with password {password}", flush=True)

    os.set_inheritable(listener.fileno(), True)
    arguments = ["--workers", "2", "--threads", "16", "--worker-class", "gthread", "--graceful-timeout", "3"]
    os.execv(
        sys.executable,
        [
            *(sys.executable, "-m", "gunicorn", "--chdir", str(TESTS), "--bind", f"fd://{listener.fileno()}"),
            *(*arguments, "--log-level", "warning", "portal.web.wsgi"),
        ],
    )


def listening(port: str) -> socket.socket:
    """A socket for gunicorn. With port 0 the system chooses one."""
    if not (port.isascii() and port.isdigit() and int(port) < 65536):
        sys.exit(f"PORT is a number up to 65535, not {port!r}")
    try:
        return socket.create_server(("127.0.0.1", int(port)), backlog=128)
    except OSError as error:
        sys.exit(f"port {port}: {error.strerror}. Take another one: make portal PORT=8001")


def make_user() -> str:
    """Makes the user, once, and gives the password, which stays the same as long as the folder is there."""
    from django.contrib.auth import get_user_model

    from portal.web.settings import kept

    password = kept("password")
    user, _ = get_user_model().objects.get_or_create(username=USER, defaults={"is_staff": True, "is_superuser": True})
    if not user.check_password(password):
        user.set_password(password)
        user.save()
    return password


if __name__ == "__main__":
    main()
