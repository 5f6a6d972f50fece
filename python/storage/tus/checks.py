"""System checks of the settings and the project. They use neither the network nor a database."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from inspect import unwrap
from typing import Any

from django.apps import apps
from django.conf import settings
from django.contrib.auth import get_user_model
from django.contrib.auth.middleware import AuthenticationMiddleware
from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured
from django.db import router
from django.urls import URLResolver, get_resolver
from django.utils.module_loading import import_string

from storage.conf import SETTING as ADAPTERS

from . import conf


def check_settings(**_: Any) -> list[CheckMessage]:
    """E001: a setting is wrong. E002: ``STORAGE_TUS`` is. E003: there is no adapter. E004: the owners are in
    another database. W001: anybody may upload. W002: a setting that nothing reads. W003: "storage" is not installed.
    W004: there are no URLs, or they are not below a path of their own. W005: there may be no users."""
    try:
        conf.group()
    except ImproperlyConfigured as error:
        return [Error(f"{error}.", id="storage.tus.E002")]
    found: list[CheckMessage] = []
    for read in (conf.max_size, conf.expires, conf.authorize, conf.file_id, conf.inspect, conf.cors_origins):
        try:
            read()
        except ImproperlyConfigured as error:
            found.append(Error(f"{error}.", id="storage.tus.E001"))
    found += [*_check_names(), *_check_adapter(), *_check_database(), *_check_urls(), *_check_users()]
    if not settings.DEBUG and conf.option(conf.AUTHORIZE)[1] is None:
        found.append(
            Warning(
                "Anybody may upload.",
                id="storage.tus.W001",
                hint=f"Set {conf.AUTHORIZE} to a function authorize(request, upload) that raises PermissionDenied.",
            )
        )
    if not apps.is_installed("storage"):
        found.append(
            Warning(
                "Expired uploads are removed by manage.py storage_sweep, which is not there.",
                id="storage.tus.W003",
                hint='Add "storage" to INSTALLED_APPS.',
            )
        )
    return found


def _check_names() -> Iterator[CheckMessage]:
    for name in dir(settings):
        if name.startswith("STORAGE_TUS_") and name not in conf.NAMES:
            near = difflib.get_close_matches(name, conf.NAMES, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(conf.NAMES)}."
            yield Warning(f"Nothing reads {name}.", id="storage.tus.W002", hint=hint)


def _check_adapter() -> Iterator[CheckMessage]:
    adapters = getattr(settings, ADAPTERS, None)
    if isinstance(adapters, Mapping) and "default" not in adapters:
        yield Error(
            f"{ADAPTERS} has no alias 'default', and storage.tus stores nowhere else.",
            id="storage.tus.E003",
            hint="Call the adapter of the uploads 'default'.",
        )


def _check_database() -> Iterator[CheckMessage]:
    from .models import Upload

    try:
        user = get_user_model()
    except ImproperlyConfigured:  # Django's own checks tell that
        return
    ours, theirs = router.db_for_write(Upload), router.db_for_write(user)
    if ours != theirs:
        yield Error(
            f"Uploads are in the database {ours!r}, and {user._meta.label}, which they refer to, is in {theirs!r}.",
            id="storage.tus.E004",
            hint="Let DATABASE_ROUTERS give the app storage_tus the database of the users.",
        )


def _check_urls() -> Iterator[CheckMessage]:
    if not getattr(settings, "ROOT_URLCONF", None):
        return
    below = list(_included(get_resolver(), ""))
    example = 'path("files/", include("storage.tus.urls"))'
    if not below:
        yield Warning(
            "storage.tus.urls is not included: no URL leads to uploads.",
            id="storage.tus.W004",
            hint=f"Add {example} to urlpatterns in {settings.ROOT_URLCONF}.",
        )
    for route in below:
        if route and not route.endswith("/"):
            yield Warning(
                f"The URLs of uploads begin with {route!r}, without a slash at its end: they are like {route}0123.",
                id="storage.tus.W004",
                hint=f"End it with a slash, as in {example}.",
            )


def _check_users() -> Iterator[CheckMessage]:
    if not any(map(_sets_user, settings.MIDDLEWARE)):
        yield Warning(
            "MIDDLEWARE has no AuthenticationMiddleware: uploads belong to nobody, and who knows their URL sees them.",
            id="storage.tus.W005",
            hint='Add "django.contrib.auth.middleware.AuthenticationMiddleware" to MIDDLEWARE, or silence this check if'
            " another middleware sets request.user.",
        )


def _sets_user(path: str) -> bool:
    try:
        found = import_string(path)
    except ImportError:  # Django tells that
        return False
    return isinstance(found, type) and issubclass(found, AuthenticationMiddleware)


def _included(resolver: URLResolver, route: str) -> Iterator[str]:
    """The paths below which the URLs of uploads are."""
    from .views import uploads

    for pattern in resolver.url_patterns:
        below = route + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from _included(pattern, below)
        elif unwrap(pattern.callback) is unwrap(uploads) and not below.endswith(">"):
            yield below
