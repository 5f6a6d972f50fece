"""A Django project whose forms upload to an adapter: the admin, a view, Django REST framework; for gunicorn (wsgi) and
uvicorn (asgi). `forms.py` runs the admin in this process, and prints JSON."""

import io
import json
import os
import sys
from datetime import timedelta
from pathlib import Path

import admin_site
import django
from django.conf import settings
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application

ROOT = Path(os.environ["TEST_ROOT"])
OPTIONS = json.loads(os.environ.get("TEST_S3_OPTIONS", "null"))
LOCAL = {"temp_dir": ROOT / "temp", "final_dir": ROOT / "final"}
MAX_SIZE = 100 * 1024 * 1024
NOWHERE = ROOT / "no such folder"  # a temporary file would be an error

settings.configure(
    SECRET_KEY="tests",
    ROOT_URLCONF="forms",
    ALLOWED_HOSTS=["*"],
    USE_TZ=True,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ROOT / "forms.sqlite3"}},
    MIGRATION_MODULES=dict.fromkeys(("admin", "auth", "contenttypes", "sessions")),  # tables without their history
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django.contrib.sessions",
        "storage",
        "forms",
    ],
    MIDDLEWARE=admin_site.MIDDLEWARE,
    TEMPLATES=admin_site.TEMPLATES,
    REST_FRAMEWORK={"DEFAULT_AUTHENTICATION_CLASSES": [], "UNAUTHENTICATED_USER": None},
    STORAGES={
        "default": {"BACKEND": "storage.files.AdapterStorage", "OPTIONS": {"location": "media", "base_url": "/m/"}},
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    },
    STATIC_URL="/static/",
    STORAGE_ADAPTERS={
        "default": {"BACKEND": "storage.S3StorageAdapter", "OPTIONS": OPTIONS}
        if OPTIONS
        else {"BACKEND": "storage.LocalStorageAdapter", "OPTIONS": LOCAL}
    },
    STORAGE_MEMORY_BUDGET=16 * 1024 * 1024,
    FILE_UPLOAD_HANDLERS=["forms.Uploads"],
    FILE_UPLOAD_TEMP_DIR=NOWHERE,
)

from storage import ContentRejected, get_storage_adapter, native  # noqa: E402
from storage.files import AdapterUpload, AdapterUploadHandler  # noqa: E402
from storage.http import storage_errors  # noqa: E402


class Uploads(AdapterUploadHandler):
    max_size = MAX_SIZE

    def inspect(self, reader):
        if b"virus" in reader.read(1000):
            raise ContentRejected(f"{reader.name} has a virus")


if "forms" not in sys.modules:  # run as a script
    sys.modules["forms"] = sys.modules["__main__"]
django.setup()

from django.contrib import admin  # noqa: E402
from django.db import models  # noqa: E402
from django.http import JsonResponse  # noqa: E402
from django.urls import path  # noqa: E402
from django.views.decorators.csrf import csrf_exempt  # noqa: E402
from rest_framework.parsers import FileUploadParser, MultiPartParser  # noqa: E402
from rest_framework.response import Response  # noqa: E402
from rest_framework.views import APIView  # noqa: E402


class Picture(models.Model):
    image = models.ImageField(upload_to="pictures", width_field="width", height_field="height")
    width = models.IntegerField(editable=False, null=True)
    height = models.IntegerField(editable=False, null=True)
    note = models.FileField(upload_to="notes", blank=True)

    class Meta:
        app_label = "forms"

    def __str__(self):
        return self.image.name


admin.site.register(Picture)


def told(upload):
    assert type(upload) is AdapterUpload
    return {"name": upload.name, "size": upload.size, "sha256": upload.sha256, "content_type": upload.content_type}


@csrf_exempt
@storage_errors
def form(request):
    """Tells what was uploaded, and saves what the field "keep" names."""
    files = {name: [told(upload) for upload in request.FILES.getlist(name)] for name in request.FILES}
    if keep := request.POST.get("keep"):
        request.FILES[keep].save_final(f"kept/{request.FILES[keep].name}")
    return JsonResponse({"files": files, "fields": request.POST.dict()})


class Body(APIView):
    parser_classes = (FileUploadParser,)

    def put(self, request, filename):
        upload = request.data["file"]
        final = upload.save_final(f"bodies/{upload.name}")
        return Response({**told(upload), "key": final.key})


class Multi(APIView):
    parser_classes = (MultiPartParser,)

    def post(self, request):
        return Response(told(request.data["f"]))


def process(request):
    """What this process holds, and what is in the temp area."""
    status = Path("/proc/self/status").read_text()
    memory = {name: int(status.partition(f"{name}:")[2].split()[0]) * 1024 for name in ("VmRSS", "VmHWM")}
    parts = [str(file) for file in (ROOT / "temp").rglob("*") if file.is_file()]
    return JsonResponse({**memory, "calls": native.stats()["calls"], "parts": parts})


urlpatterns = [
    path("admin/", admin.site.urls),
    path("form/", form),
    path("body/<filename>", storage_errors(Body.as_view())),
    path("multi/", Multi.as_view()),
    path("process/", process),
]


def use_the_admin():
    """Uploads, replaces and deletes by the admin, as a browser does. Gives what was seen."""
    from django.contrib.auth.models import User
    from django.core.files.uploadedfile import SimpleUploadedFile
    from django.core.management import call_command
    from django.db import connection
    from django.test import Client
    from PIL import Image

    from storage.files import AdapterStorage

    call_command("migrate", verbosity=0, run_syncdb=True)
    with connection.schema_editor() as editor:
        editor.create_model(Picture)
    client = Client()
    client.force_login(User.objects.create_superuser("admin"))

    def picture(color, kind="PNG", size=(70, 50)):
        made = io.BytesIO()
        Image.new("RGB", size, color).save(made, kind)
        return SimpleUploadedFile("a picture.png", made.getvalue(), "application/x-wrong")

    def post(where, **fields):
        return client.post(f"/admin/forms/picture/{where}", fields)

    adapter, seen = get_storage_adapter(), {}
    for color in ("red", "blue"):  # the second one gets another name
        seen[color] = post("add/", image=picture(color), note=SimpleUploadedFile("n.txt", b"a note")).status_code
    red, blue = Picture.objects.order_by("pk")
    seen["names"] = [red.image.name, blue.image.name]
    seen["measures"] = [red.width, red.height]
    seen["types"] = [adapter.stat_final(adapter.bucket, key(file)).content_type for file in (red.image, red.note)]
    with red.image.open() as file:
        seen["color"] = Image.open(file).getpixel((0, 0))
    seen["change"] = post(f"{red.pk}/change/", image=picture("green", size=(10, 10)), note="").status_code
    red.refresh_from_db()
    seen["changed"] = [red.width, red.height]
    wrong = post("add/", image=SimpleUploadedFile("a.png", b"no picture"))
    seen["no picture"] = b"a valid image" in wrong.content
    seen["virus"] = post("add/", image=SimpleUploadedFile("a.png", b"a virus")).status_code
    seen["delete"] = post(f"{blue.pk}/delete/", post="yes").status_code
    blue.image.delete(save=False)
    storage = AdapterStorage(location="media")
    seen["pictures"] = len(storage.listdir("pictures")[1])
    seen["sessions"] = adapter.sweep(timedelta(), dry_run=True).sessions
    adapter.close()
    return seen


def key(file):
    storage = file.storage
    return storage.adapter.prefix + storage.location + file.name


wsgi = get_wsgi_application()
asgi = get_asgi_application()

if __name__ == "__main__":
    print(json.dumps(use_the_admin()))
