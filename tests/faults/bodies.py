"""A Django project of one view, which stores the body of a PUT, for gunicorn. It tells what came of each in a file."""

import os
from pathlib import Path

from django.conf import settings
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

from storage import StorageError, get_storage_adapter  # noqa: E402


def put(request, name):
    said = "raised"
    try:
        said = str(get_storage_adapter().put_final(name, request).size)
    except StorageError as error:
        said = error.code
        return JsonResponse({"code": error.code}, status=400)
    finally:
        (ROOT / f"{name}.said").write_text(said)
    return JsonResponse({"size": int(said)})


urlpatterns = [path("<name>", put)]
application = get_wsgi_application()
