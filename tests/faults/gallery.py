"""A gallery: pictures with thumbnails of easy-thumbnails, which the admin adds, changes and deletes. All files are in a
bucket. Does that once, and prints as JSON what there was after each step."""

import io
import json
import os
import re
import sys
from datetime import timedelta
from urllib.request import urlopen

import admin_site
import django
from django.conf import settings

OPTIONS = json.loads(os.environ["TEST_S3_OPTIONS"])
IN_A_BUCKET = {"BACKEND": "storage.files.AdapterStorage", "OPTIONS": {"location": "media"}}

settings.configure(
    SECRET_KEY="tests",
    ROOT_URLCONF="gallery",
    ALLOWED_HOSTS=["testserver"],
    USE_TZ=True,
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    MIGRATION_MODULES=dict.fromkeys(("admin", "auth", "contenttypes", "easy_thumbnails", "sessions")),
    DEFAULT_AUTO_FIELD="django.db.models.BigAutoField",
    INSTALLED_APPS=[
        "django.contrib.admin",
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.messages",
        "django.contrib.sessions",
        "easy_thumbnails",
        "storage",
        "gallery",
    ],
    MIDDLEWARE=admin_site.MIDDLEWARE,
    TEMPLATES=admin_site.TEMPLATES,
    STATIC_URL="/static/",
    STORAGES={
        "default": IN_A_BUCKET,
        "easy_thumbnails": IN_A_BUCKET,
        "staticfiles": {"BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage"},
    },
    STORAGE_ADAPTERS={"default": {"BACKEND": "storage.S3StorageAdapter", "OPTIONS": OPTIONS}},
)
sys.modules["gallery"] = sys.modules["__main__"]
django.setup()

from django.contrib import admin  # noqa: E402
from django.core.files.uploadedfile import SimpleUploadedFile  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.db import connection, models  # noqa: E402
from django.test import Client  # noqa: E402
from django.urls import path, reverse  # noqa: E402
from django.utils.html import format_html  # noqa: E402
from easy_thumbnails.fields import ThumbnailerImageField  # noqa: E402
from PIL import Image  # noqa: E402

from storage import get_storage_adapter  # noqa: E402


class Picture(models.Model):
    """Deletes its files when it is deleted or gets another one: Django leaves that to each project."""

    image = ThumbnailerImageField(upload_to="pictures", width_field="width", height_field="height")
    width = models.IntegerField(editable=False)
    height = models.IntegerField(editable=False)

    class Meta:
        app_label = "gallery"

    def __str__(self):
        return self.image.name

    def save(self, *args, **kwargs):
        before = Picture.objects.filter(pk=self.pk).first()
        super().save(*args, **kwargs)
        if before and before.image.name != self.image.name:
            before.image.delete(save=False)

    def delete(self, *args, **kwargs):
        deleted = super().delete(*args, **kwargs)
        self.image.delete(save=False)
        return deleted


@admin.register(Picture)
class PictureAdmin(admin.ModelAdmin):
    list_display = ("image", "small")

    def small(self, picture):
        return format_html('<img src="{}">', thumbnail(picture).url)

    def delete_queryset(self, request, queryset):
        for picture in queryset:
            picture.delete()


urlpatterns = [path("admin/", admin.site.urls)]


def thumbnail(picture):
    return picture.image.get_thumbnail({"size": (100, 100), "crop": True})


def image(kind, size):
    made = io.BytesIO()
    Image.new("RGB", size, "red").save(made, kind)
    return SimpleUploadedFile(f"ä picture.{kind.lower()}", made.getvalue(), f"image/{kind.lower()}")


def dimensions(url):
    with urlopen(url) as response:
        return Image.open(response).size


def names():
    adapter = get_storage_adapter()
    return [final.key.removeprefix(adapter.prefix) for final in adapter.list_final()]


def page(client, view, *args, **form):
    """Gets a page of the admin and sends its form, as a browser does. The answer to a form that is right redirects."""
    url = reverse(f"admin:gallery_picture_{view}", args=args)
    shown = client.get(url)
    assert shown.status_code == 200, shown.status_code
    if form:
        token = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', shown.content.decode())[1]
        answer = client.post(url, {**form, "csrfmiddlewaretoken": token})
        assert answer.status_code == 302, answer.content.decode()
    return shown.content.decode()


def main():
    from django.contrib.auth.models import User

    call_command("migrate", verbosity=0, run_syncdb=True)
    with connection.schema_editor() as editor:  # this app has no module of models
        editor.create_model(Picture)
    client = Client(enforce_csrf_checks=True)
    client.force_login(User.objects.create_superuser("admin"))

    page(client, "add", image=image("JPEG", (1200, 900)))
    picture = Picture.objects.get()
    said = {
        "added": names(),
        "measured": [picture.width, picture.height],
        "served": dimensions(picture.image.url),
        "linked": picture.image.url.partition("?")[0] in page(client, "change", picture.pk),
    }
    small = thumbnail(picture).url
    said |= {
        "listed": small.partition("?")[0] in page(client, "changelist"),
        "small": dimensions(small),
        "with a thumbnail": names(),
    }
    page(client, "change", picture.pk, image=image("PNG", (300, 200)))
    picture = Picture.objects.get()
    said |= {"changed": names(), "measured again": [picture.width, picture.height]}
    page(client, "changelist")
    said["with another thumbnail"] = names()
    page(client, "delete", picture.pk, post="yes")
    report = get_storage_adapter().sweep(timedelta())
    said |= {"rows": Picture.objects.count(), "left": names(), "swept": [report.parts, report.uploads]}
    print(json.dumps(said))


if __name__ == "__main__":
    main()
