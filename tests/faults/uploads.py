"""A Django project with storage.tus, for gunicorn (wsgi) and uvicorn (asgi). TEST_SITE has its settings as JSON."""

import json
import os
import threading
from datetime import timedelta
from pathlib import Path

import request_log
from django.conf import settings
from django.conf.urls.i18n import i18n_patterns
from django.core.asgi import get_asgi_application
from django.core.exceptions import PermissionDenied
from django.core.wsgi import get_wsgi_application
from django.db import connection, connections
from django.http import HttpResponse, JsonResponse
from django.urls import include, path

from storage import ContentRejected

SITE = json.loads(os.environ["TEST_SITE"])

settings.configure(
    SECRET_KEY="tests",
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    USE_TZ=True,
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "storage", "storage.tus"],
    LANGUAGE_CODE="en",
    MIDDLEWARE=[
        "django.middleware.locale.LocaleMiddleware",
        "django.middleware.common.CommonMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        f"{__name__}.named",
    ],
    DATABASES={
        "default": {
            "ENGINE": "django.db.backends.sqlite3",
            "NAME": f"{SITE['root']}/db",
            "OPTIONS": {
                "timeout": 60,
                "transaction_mode": "IMMEDIATE",
                "init_command": "PRAGMA journal_mode=wal; PRAGMA synchronous=off",  # only processes are killed here
            },
            "ATOMIC_REQUESTS": True,
        },
        "other": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:", "ATOMIC_REQUESTS": True},
    },
    STORAGE_ADAPTERS={"default": {"BACKEND": SITE["backend"], "OPTIONS": SITE["options"]}},
    STORAGE_TUS_AUTHORIZE=f"{__name__}.authorize",
    STORAGE_TUS_INSPECT=SITE.get("inspect"),
    STORAGE_TUS_MAX_SIZE=2**40,
    STORAGE_TUS_EXPIRES=timedelta(seconds=SITE.get("expires", 3600)),
    LOGGING=request_log.LOGGING,
)


def named(get_response):
    """The user whom a header names. It is synchronous, as many a project's middleware."""

    def middleware(request):
        from django.contrib.auth.models import AnonymousUser, User

        name = request.headers.get("X-User")
        if name == "mallory":
            return HttpResponse("not you\n", status=401)
        request.user = User.objects.get_or_create(username=name)[0] if name else AnonymousUser()
        response = get_response(request)
        response.headers["X-Passed"] = "middleware"
        return response

    return middleware


def authorize(request, upload):
    if upload.metadata.get("filename", "").endswith(".exe"):
        raise PermissionDenied("no programs, please")
    if "broken" in upload.metadata:
        raise RuntimeError("a mistake of the project")


def inspect(reader):
    if connection.connection is not None:
        raise RuntimeError("a connection to the database rests meanwhile")
    if reader.read(4) == b"X5O!":
        raise ContentRejected("this may be a virus")


wsgi = get_wsgi_application()

from storage.tus.asgi import TusApplication  # noqa: E402
from storage.tus.signals import upload_finished  # noqa: E402


def log(sender, upload, final, **_):
    assert not any(one.in_atomic_block for one in connections.all())
    with open(f"{SITE['root']}/finished", "a") as file:
        file.write(json.dumps({"upload": upload.name, **final.as_dict()}) + "\n")
    if "virus" in upload.metadata:
        return HttpResponse("a virus\n", status=422)
    return HttpResponse(headers={"X-Stored": final.sha256})


upload_finished.connect(log)


def process(request):
    """What this process holds."""
    status = Path("/proc/self/status").read_text()
    memory = int(status.partition("VmHWM:")[2].split()[0]) * 1024
    return JsonResponse({"memory": memory, "threads": threading.active_count()})


urlpatterns = [
    path("process/", process),
    path("files/", include("storage.tus.urls")),
    *i18n_patterns(path("teams/<slug:team>/files/", include("storage.tus.urls", namespace="teams"))),
]
asgi = TusApplication(get_asgi_application())

if __name__ == "__main__":
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
