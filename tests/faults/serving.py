"""A Django project that serves the objects of a disk by storage.http, for gunicorn (wsgi) and uvicorn (asgi)."""

import os
from pathlib import Path

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import JsonResponse
from django.urls import path

ROOT = Path(os.environ["TEST_ROOT"])
settings.configure(
    SECRET_KEY="tests",
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    STORAGE_TEMP_DIR=ROOT / "temp",
    STORAGE_FINAL_DIR=ROOT / "final",
)

from storage import FinalObject, get_storage_adapter, native  # noqa: E402
from storage.http import object_response, request_stream, storage_errors  # noqa: E402


@storage_errors
def stored(request, name):
    if request.method == "PUT":
        final = get_storage_adapter().put_final(name, request_stream(request))
        return JsonResponse(final.as_dict())
    return object_response(request, FinalObject("local", name, None, None))


def process(request):
    """What this process holds."""
    status = Path("/proc/self/status").read_text()
    memory = {name: int(status.partition(f"{name}:")[2].split()[0]) * 1024 for name in ("VmRSS", "VmHWM")}
    return JsonResponse({**memory, "readers": native.stats()["readers"]})


urlpatterns = [path("process/", process), path("<path:name>", stored)]
wsgi = get_wsgi_application()
asgi = get_asgi_application()
