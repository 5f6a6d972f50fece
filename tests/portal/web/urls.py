"""The site: a page, the files behind it, and one line that makes uploads resumable."""

from django.contrib import admin
from django.contrib.auth.views import LoginView, LogoutView
from django.urls import include, path
from django.views.generic import RedirectView

from . import views

urlpatterns = [
    path("", views.home, name="home"),
    path("uploads/", include("storage.tus.urls")),
    path("files/<uuid:name>/", views.content, name="content"),
    path("files/<uuid:name>/delete/", views.delete, name="delete"),
    path("login/", LoginView.as_view(template_name="web/login.html", redirect_authenticated_user=True), name="login"),
    path("logout/", LogoutView.as_view(), name="logout"),
    path("admin/", admin.site.urls),
    path("favicon.ico", RedirectView.as_view(url="/static/web/icon.svg")),  # which the admin does not name
]
