"""A Django project that serves objects by storage.http, for gunicorn (wsgi) and uvicorn (asgi).

They lie on S3 if the environment has its options, as in adapters.py, else below TEST_ROOT. A query may name the
`filename` under which an object is downloaded. /async/NAME is served by a coroutine. /page/NAME is a page that
shows a video, a PDF or an image.
"""

import json
import os
from pathlib import Path

import request_log
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, JsonResponse
from django.urls import include, path

ROOT = Path(os.environ["TEST_ROOT"])
S3 = json.loads(os.environ.get("TEST_S3_OPTIONS", "{}"))
ENTRY = {
    "BACKEND": f"storage.{'S3' if S3 else 'Local'}StorageAdapter",
    "OPTIONS": S3 or {"temp_dir": ROOT / "temp", "final_dir": ROOT / "final"},
}
MOST = 1_000_000
"""The largest body in bytes."""

settings.configure(
    SECRET_KEY="tests",
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    STORAGE_ADAPTERS={"default": ENTRY},
    LOGGING=request_log.LOGGING,
)

from storage import FinalObject, get_storage_adapter, native  # noqa: E402
from storage.http import aobject_response, object_response, request_stream, storage_errors  # noqa: E402


@storage_errors
def stored(request, name):
    if request.method == "PUT":
        body = request_stream(request, max_size=MOST)
        final = get_storage_adapter().put_final(name, body, sha256=request.headers.get("X-SHA256"))
        return JsonResponse(final.as_dict())
    filename = request.GET.get("filename")
    return object_response(request, named(name), filename=filename, as_attachment=filename is not None)


@storage_errors
async def astored(request, name):
    return await aobject_response(request, named(name))


def named(name):
    return FinalObject(S3.get("bucket_name", "local"), S3.get("final_prefix", "") + name, None, None)


def page(request, name):
    kinds = {".webm": '<video src="/{}" controls>', ".pdf": '<iframe src="/{}">'}
    shown = kinds.get(Path(name).suffix, '<img src="/{}">').format(name)
    return HttpResponse(f"<!doctype html><title>Page</title>{shown}")


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
    path("favicon.ico", lambda request: HttpResponse(status=204)),  # browsers ask for it by themselves
    path("page/<path:name>", page),
    path("async/<path:name>", astored),
    path("<path:name>", stored),
]
wsgi = get_wsgi_application()
asgi = get_asgi_application()
