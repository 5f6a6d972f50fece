"""The URLs of uploads, to be included: ``path("files/", include("storage.tus.urls"))``."""

from django.urls import path

from .views import uploads

app_name = "storage_tus"

urlpatterns = [
    path("", uploads, name="uploads"),
    path("<str:name>", uploads, name="upload"),
]
