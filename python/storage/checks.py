"""System checks of the settings. They use neither the network nor the extension."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from django.conf import settings
from django.core.checks import CheckMessage, Error, Warning
from django.core.exceptions import ImproperlyConfigured

from . import conf


def check_settings(**_: Any) -> list[CheckMessage]:
    """E001: settings are wrong. E002: the backend cannot be used. E003: its options are wrong. E004: two adapters have
    one bucket. W001 to W006: allowed, but probably not intended; W001 to W004 only in production."""
    try:
        known = conf.configuration()
    except ImproperlyConfigured as error:
        return [Error(str(error), id="storage.E001", hint="See the settings page of the documentation.")]
    found: list[CheckMessage] = []
    for alias, entry in known.items():
        found += _check_alias(alias, entry)
    for bucket, aliases in conf.buckets(conf.BACKENDS.values()).items():
        if len(aliases) > 1:
            hint = "Give each alias a bucket of its own: bucket, or bucket_name on S3."
            found.append(Error(f"{conf.shared_bucket(bucket, aliases)}.", id="storage.E004", hint=hint))
    for name, why in conf.unread():
        found.append(Warning(f"Nothing reads {name}: {why}.", id="storage.W005", hint=f"Remove or rename {name}."))
    return found + _check_storages()


def _check_storages() -> list[CheckMessage]:
    """Django's STORAGES take storages: an adapter has neither ``save`` nor ``url``."""
    found: list[CheckMessage] = []
    for alias, entry in settings.STORAGES.items():
        backend = entry.get("BACKEND") if isinstance(entry, Mapping) else None
        try:
            conf.adapter_class(str(backend))
        except ImproperlyConfigured:  # it is no adapter
            continue
        found.append(
            Warning(
                f"STORAGES[{alias!r}] has the adapter {backend!r}, which is no storage of Django.",
                id="storage.W006",
                hint=f"Move it to {conf.SETTING}. Here, set 'storage.files.AdapterStorage' with its alias in OPTIONS.",
            )
        )
    return found


def _check_alias(alias: str, entry: conf.Entry) -> list[CheckMessage]:
    where = f"{conf.SETTING}[{alias!r}]"
    try:
        adapter = conf.adapter_class(entry.backend)
    except ImproperlyConfigured as error:
        return [Error(str(error), id="storage.E002", hint=f"Correct BACKEND in {where}, or STORAGE_BACKEND.")]
    try:
        conf.check_options(alias, adapter, entry.options)
        if entry.backend in conf.BACKENDS.values():
            adapter(**entry.options)  # our adapters open nothing before their first operation
    except (ImproperlyConfigured, TypeError, ValueError) as error:
        hint = f"Correct OPTIONS in {where}, or the STORAGE_* and AWS_* settings."
        return [Error(str(error), id="storage.E003", hint=hint)]
    return [] if settings.DEBUG else _check_production(where, conf.kind_of(adapter), entry)


def _check_production(where: str, kind: str, entry: conf.Entry) -> list[CheckMessage]:
    found: list[CheckMessage] = []
    if kind == "local" and "BASE_DIR" in entry.sources.values():
        found.append(
            Warning(
                "Nothing says where files are stored: they go below BASE_DIR, with the code.",
                id="storage.W001",
                hint="Set STORAGE_TEMP_DIR and STORAGE_FINAL_DIR.",
            )
        )
    if kind == "memory":
        found.append(
            Warning(
                f"{where} keeps files in memory: they are lost with the process, and each worker has its own.",
                id="storage.W002",
                hint=f"Use another adapter: BACKEND in {where}, or STORAGE_BACKEND = 'local' or 's3'.",
            )
        )
    if kind == "s3" and _readable_on_the_way(str(entry.options.get("endpoint_url") or "")):
        found.append(
            Warning(
                f"{where} talks to its endpoint over plain http: whoever is on the way can read and change what is"
                " stored.",
                id="storage.W003",
                hint="Begin endpoint_url (AWS_S3_ENDPOINT_URL) with https://, or silence this check where the network"
                " is private.",
            )
        )
    if kind == "s3" and entry.options.get("verify") is False:
        found.append(
            Warning(
                f"{where} trusts any certificate: whoever is on the way can read and change what is stored.",
                id="storage.W004",
                hint="Set ca_bundle, or verify (AWS_S3_VERIFY), to the file of the authority that signed it.",
            )
        )
    return found


def _readable_on_the_way(endpoint: str) -> bool:
    parts = urlsplit(endpoint)
    if parts.scheme != "http":
        return False
    host = parts.hostname or ""
    try:
        return not ip_address(host).is_loopback
    except ValueError:
        return host != "localhost" and not host.endswith(".localhost")
