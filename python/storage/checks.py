"""System checks of the settings: they touch neither the network nor the extension."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured

from . import conf


def check_settings(**_: Any) -> list[CheckMessage]:
    """E001: settings are wrong. E002: the backend cannot be used. E003: its options are wrong. W001, W002: in
    production, the default directories or the memory adapter."""
    try:
        known = conf.configuration()
    except ImproperlyConfigured as error:
        return [Error(str(error), id="storage.E001", hint="See the settings page of the documentation.")]
    found: list[CheckMessage] = []
    for alias, (backend, options) in known.items():
        found += _check_alias(alias, backend, options)
    return found


def _check_alias(alias: str, backend: str, options: dict[str, Any]) -> list[CheckMessage]:
    where = f"{conf.SETTING}[{alias!r}]"
    try:
        adapter = conf.adapter_class(backend)
    except ImproperlyConfigured as error:
        return [
            Error(
                str(error),
                id="storage.E002",
                hint=f"Correct BACKEND in {where}, or STORAGE_BACKEND.",
            )
        ]
    try:
        conf.check_options(alias, adapter, options)
        if backend in conf.FLAT:
            adapter(**options)  # ours open nothing before their first operation
    except (ImproperlyConfigured, TypeError, ValueError) as error:
        return [
            Error(
                str(error),
                id="storage.E003",
                hint=f"Correct OPTIONS in {where}, or the STORAGE_* settings.",
            )
        ]
    if settings.DEBUG:
        return []
    if backend == conf.BACKENDS["memory"]:
        return [
            Warning(
                f"{where} keeps files in memory: they are lost with the process, and each worker has its own.",
                id="storage.W002",
                hint=f"Use the local adapter: BACKEND in {where}, or STORAGE_BACKEND = 'local'.",
            )
        ]
    if not hasattr(settings, conf.SETTING) and not any(getattr(settings, name, "") for name in conf.FLAT_NAMES):
        return [
            Warning(
                "Nothing says where files are stored: they go below BASE_DIR, with the code.",
                id="storage.W001",
                hint="Set STORAGE_TEMP_DIR and STORAGE_FINAL_DIR.",
            )
        ]
    return []
