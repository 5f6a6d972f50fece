"""Uploads in Django's admin, as a person uses it. Prints what the pages have as JSON."""

import json
import re

import admin_site
import django
from django.conf import settings
from django.urls import include, path

CONTRIB = [f"django.contrib.{app}" for app in ("admin", "auth", "contenttypes", "sessions", "messages")]

settings.configure(
    SECRET_KEY="tests",
    DEBUG=True,
    ROOT_URLCONF=__name__,
    ALLOWED_HOSTS=["*"],
    USE_TZ=True,
    INSTALLED_APPS=[*CONTRIB, "storage", "storage.tus"],
    MIDDLEWARE=admin_site.MIDDLEWARE,
    TEMPLATES=admin_site.TEMPLATES,
    STATIC_URL="static/",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    STORAGE_BACKEND="memory",
)
django.setup()

from django.contrib import admin  # noqa: E402
from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection  # noqa: E402
from django.test import Client  # noqa: E402

import storage.tus.admin  # noqa: E402
from storage import get_storage_adapter  # noqa: E402
from storage.tus import core  # noqa: E402
from storage.tus.models import Upload  # noqa: E402

urlpatterns = [path("admin/", admin.site.urls), path("files/", include("storage.tus.urls"))]
call_command("migrate", verbosity=0)
call_command("check", fail_level="WARNING")

user = User.objects.create_superuser("ada", password="x")
client = Client()
client.force_login(user)
TUS = {"Tus-Resumable": "1.0.0"}
urls = []
for size in (10, 5, 7):
    headers = {**TUS, "Upload-Length": str(size), "Upload-Metadata": "filename PGI+w7wudHh0"}
    urls.append(client.post("/files/", headers=headers)["Location"])
    known = {**TUS, "Upload-Offset": "0"}
    client.patch(urls[-1], b"01234", content_type="application/offset+octet-stream", headers=known)


def shown(response):
    return re.findall(r"field-state\">(\w+)", response.content.decode())


changelist = "/admin/storage_tus/upload/"
listed = client.get(changelist)
page = listed.content.decode()
detail = client.get(f"{changelist}{Upload.objects.get(size=10).pk}/change/").content.decode()
found = {
    "owned": Upload.objects.filter(owner=user).count(),
    "states": sorted(shown(listed)),
    "escaped": "&lt;b&gt;ü.txt" in page and "<b>ü.txt" not in page,
    "parts": "1: 5" in detail,
    "searched": [len(shown(client.get(changelist, {"q": text}))) for text in ("b>ü.txt", "ada", "bob")],
    "saves": 'name="_save"' in detail,
    "add": client.get(f"{changelist}add/").status_code,
}
one = Upload.objects.get(size=7)
client.post(f"{changelist}{one.pk}/delete/", {"post": "yes"})
found["one"] = [client.head(urls.pop(), headers=TUS).status_code, len(get_storage_adapter().list_temp_parts(one.name))]


def finishing(execute, sql, *rest):
    """Another request begins to finish an upload just before it would expire."""
    if sql.startswith("UPDATE") and Upload._meta.db_table in sql:
        execute(f"UPDATE {Upload._meta.db_table} SET state = 'finishing' WHERE size = 10", (), *rest[1:])
    return execute(sql, *rest)


ten = Upload.objects.get(size=10)
with connection.execute_wrapper(finishing):
    client.post(changelist, {"action": "expire", "_selected_action": [str(ten.pk)]})
found["finishing"] = [Upload.objects.get(size=10).state, len(get_storage_adapter().list_temp_parts(ten.name))]
Upload.objects.filter(size=10).update(state="uploading")
core.MAX_PART_NUMBER = storage.tus.admin.MAX_PART_NUMBER = 1  # now its session is full, and it has a second one
get_storage_adapter().put_temp_part(f"{ten.name}-1", 1, b"x")
chosen = [str(upload.pk) for upload in Upload.objects.all()]
client.post(changelist, {"action": "expire", "_selected_action": chosen})
found["expired"] = [client.head(url, headers=TUS).status_code for url in urls]
found["left"] = sum(len(get_storage_adapter().list_temp_parts(ten.name + more)) for more in ("", "-1"))
client.post(changelist, {"action": "delete_selected", "_selected_action": chosen, "post": "yes"})
found["deleted"] = [client.head(url, headers=TUS).status_code for url in urls]
found["objects"] = len(list(get_storage_adapter().list_final()))
print(json.dumps(found))
