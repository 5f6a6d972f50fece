"""System checks of the settings."""

from __future__ import annotations

import difflib
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured

from . import conf


def check_settings(**_: Any) -> list[CheckMessage]:
    """E001: a setting is wrong. E002: ``STORAGE_TUS`` is no setting. W001: anybody may upload. W002: a setting that
    nothing reads. W003: "storage" is not installed."""
    found = _wrong() + _unread()
    if hasattr(settings, "STORAGE_TUS"):
        found.append(
            Error(
                "STORAGE_TUS is not read: each option is a setting of its own.",
                id="storage.tus.E002",
                hint=f"Set {', '.join(conf.NAMES)}.",
            )
        )
    if not settings.DEBUG and getattr(settings, conf.AUTHORIZE, None) in (None, ""):
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


def _wrong() -> list[CheckMessage]:
    found: list[CheckMessage] = []
    for read in (conf.max_size, conf.expires, conf.authorize, conf.file_id, conf.inspect, conf.cors_origins):
        try:
            read()
        except ImproperlyConfigured as error:
            found.append(Error(f"{error}.", id="storage.tus.E001"))
    return found


def _unread() -> list[CheckMessage]:
    found: list[CheckMessage] = []
    for name in dir(settings):
        if name.startswith("STORAGE_TUS_") and name not in conf.NAMES:
            near = difflib.get_close_matches(name, conf.NAMES, n=1)
            hint = f"Did you mean {near[0]}?" if near else f"There are {', '.join(conf.NAMES)}."
            found.append(Warning(f"Nothing reads {name}.", id="storage.tus.W002", hint=hint))
    return found
