"""A Django project that serves the objects of a disk by storage.http, for gunicorn (wsgi) and uvicorn (asgi)."""

import os
from pathlib import Path

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import include, path

ROOT = Path(os.environ["TEST_ROOT"])
MOST = 1_000_000
"""The largest body in bytes."""

settings.configure(
    SECRET_KEY="tests",
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    STORAGE_TEMP_DIR=ROOT / "temp",
    STORAGE_FINAL_DIR=ROOT / "final",
    LOGGING={
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"line": {"format": "LOG %(name)s %(status_code)s %(message)r"}},
        "handlers": {"console": {"class": "logging.StreamHandler", "formatter": "line"}},
        "loggers": {"django.request": {"handlers": ["console"], "propagate": False}},
    },
)

from storage import FinalObject, get_storage_adapter, native  # noqa: E402
from storage.http import object_response, request_stream, storage_errors  # noqa: E402


@storage_errors
def stored(request, name):
    if request.method == "PUT":
        body = request_stream(request, max_size=MOST)
        final = get_storage_adapter().put_final(name, body, sha256=request.headers.get("X-SHA256"))
        return JsonResponse(final.as_dict())
    return object_response(request, FinalObject("local", name, None, None))


def process(request):
    """What this process holds."""
    status = Path("/proc/self/status").read_text()
    memory = {name: int(status.partition(f"{name}:")[2].split()[0]) * 1024 for name in ("VmRSS", "VmHWM")}
    return JsonResponse({**memory, "readers": native.stats()["readers"]})


def link(request, name):
    """A URL of the object."""
    adapter = get_storage_adapter()
    return JsonResponse({"url": adapter.url_final(adapter.bucket, name, filename="Zoë.txt")})


urlpatterns = [
    path("process/", process),
    path("link/<path:name>", link),
    path("files/", include("storage.urls")),
    path("<path:name>", stored),
]
wsgi = get_wsgi_application()
asgi = get_asgi_application()
