"""The rows of uploads. Their bytes are in the store, and so is what has arrived of them."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import models
from django.utils import timezone

from storage.arguments import check_content_type
from storage.files import type_of_name
from storage.types import FinalObject

from . import core

if not apps.is_installed("storage.tus"):  # or the model would be taken for one of "storage"
    raise ImproperlyConfigured(
        'storage.tus is used, and is not installed: add "storage.tus" to INSTALLED_APPS, and run manage.py migrate'
    )


class Upload(models.Model):
    """An upload by tus, from its creation until it is forgotten.

    ``size`` is in bytes, and None while it is deferred. ``metadata`` is what the client says of it: trust none of it.
    ``final`` is the stored object, once ``state`` is "finished".
    """

    class State(models.TextChoices):
        UPLOADING = core.UPLOADING
        FINISHING = core.FINISHING
        FINISHED = core.FINISHED
        EXPIRED = core.EXPIRED

    id: models.UUIDField[uuid.UUID, uuid.UUID] = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    owner: models.ForeignKey[Any, Any] = models.ForeignKey(
        settings.AUTH_USER_MODEL, null=True, blank=True, on_delete=models.CASCADE, related_name="+"
    )
    size: models.BigIntegerField[int | None, int | None] = models.BigIntegerField(null=True)
    metadata: models.JSONField[dict[str, Any], dict[str, Any]] = models.JSONField(default=dict)
    partial: models.BooleanField[bool, bool] = models.BooleanField(default=False)
    concat: models.JSONField[list[str], list[str]] = models.JSONField(default=list)
    state: models.CharField[str, str] = models.CharField(max_length=10, choices=State.choices, default=State.UPLOADING)
    turn: models.PositiveBigIntegerField[int, int] = models.PositiveBigIntegerField(default=0, editable=False)
    file_id: models.CharField[str, str] = models.CharField(max_length=500, blank=True)
    bucket: models.CharField[str, str] = models.CharField(max_length=500, blank=True)
    key: models.CharField[str, str] = models.CharField(max_length=1000, blank=True)
    sha256: models.CharField[str, str] = models.CharField(max_length=64, blank=True)
    created: models.DateTimeField[datetime, datetime] = models.DateTimeField(default=timezone.now, editable=False)
    expires: models.DateTimeField[datetime | None, datetime | None] = models.DateTimeField(null=True)
    finished: models.DateTimeField[datetime | None, datetime | None] = models.DateTimeField(null=True)
    # When somebody began to tell of it, until that is done: a process that was killed then has told nobody.
    telling: models.DateTimeField[datetime | None, datetime | None] = models.DateTimeField(null=True, editable=False)

    class Meta:
        ordering = ("-created",)
        indexes = (models.Index(fields=["state", "expires"], name="storage_tus_expiry"),)

    def __str__(self) -> str:
        return f"{self.filename or self.id} ({self.state})"

    @property
    def name(self) -> str:
        """Its id in the URLs of uploads, and the session of its parts."""
        return self.id.hex

    @property
    def filename(self) -> str:
        """The name that the client gives the file, "" if it gives none. It may be any text."""
        return str(self.metadata.get("filename") or self.metadata.get("name") or "")

    @property
    def content_type(self) -> str | None:
        """The type that the client gives the file, or that its name stands for."""
        try:
            stated = check_content_type(self.metadata.get("filetype") or self.metadata.get("type") or None)
        except ValueError:
            stated = ""
        return stated or type_of_name(self.filename)

    @property
    def expired(self) -> bool:
        """Whether it cannot be resumed any more."""
        return self.state == core.EXPIRED or (
            self.state == core.UPLOADING and self.expires is not None and self.expires <= timezone.now()
        )

    @property
    def final(self) -> FinalObject | None:
        """The stored object, None before it is there, and of partial uploads."""
        if not self.key:
            return None
        modified = self.finished and self.finished.astimezone(UTC)
        return FinalObject(self.bucket, self.key, self.size, self.sha256 or None, self.content_type, modified)
