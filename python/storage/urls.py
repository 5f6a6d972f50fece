"""For ``path("files/", include("storage.urls"))``: serves what ``url_final`` of local and memory adapters links to."""

from django.urls import path

from .links import serve

app_name = "storage"
urlpatterns = [path("<str:token>/<str:name>", serve, name="object")]
