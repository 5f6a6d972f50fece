"""Uploads in Django's admin: seen, and removed with their parts, but never changed by hand."""

from __future__ import annotations

import json

from django.contrib import admin, messages
from django.contrib.auth import get_user_model
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.utils.html import format_html_join

from storage import get_storage_adapter
from storage.arguments import MAX_PART_NUMBER
from storage.exceptions import StorageError

from . import core
from .models import Upload


@admin.register(Upload)
class UploadAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    list_display = ("filename", "owner", "human_size", "state", "created", "expires")
    list_filter = ("state", "partial", "created")
    list_select_related = ("owner",)
    search_fields = ("id", "metadata", "sha256", "file_id")
    date_hierarchy = "created"
    actions = ("expire",)
    fields = (
        ("filename", "owner"),
        ("size", "state"),
        ("created", "expires", "finished"),
        "metadata",
        ("partial", "concat"),
        "parts",
        ("bucket", "key"),
        "sha256",
    )
    readonly_fields = (
        *("filename", "owner", "size", "state", "created", "expires", "finished", "metadata", "partial", "concat"),
        *("parts", "bucket", "key", "sha256"),
    )

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Upload | None = None) -> bool:
        return False

    def get_search_fields(self, request: HttpRequest) -> list[str]:
        return [*super().get_search_fields(request), f"owner__{get_user_model().USERNAME_FIELD}"]

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Upload], search_term: str
    ) -> tuple[QuerySet[Upload], bool]:
        """The uploads that have the words, in their metadata also as JSON in ASCII, which some databases keep."""
        found, distinct = super().get_search_results(request, queryset, search_term)
        escaped, _ = super().get_search_results(request, queryset, json.dumps(search_term)[1:-1])
        return found | escaped, distinct

    @admin.display(description="size")
    def human_size(self, upload: Upload) -> str:
        return "" if upload.size is None else filesizeformat(upload.size)

    @admin.display(description="parts in the store")
    def parts(self, upload: Upload) -> str:
        try:
            parts = get_storage_adapter().list_temp_parts(upload.name)
        except StorageError as error:
            return str(error)
        rows = ((part.part_number, filesizeformat(part.size or 0), part.sha256 or "") for part in parts)
        return format_html_join("", "<div>{}: {} <code>{}</code></div>", rows) or "none"

    @admin.action(description="Expire selected uploads, and remove their parts", permissions=["delete"])
    def expire(self, request: HttpRequest, queryset: QuerySet[Upload]) -> None:
        count = 0
        for upload in queryset.exclude(state__in=[core.FINISHED, core.FINISHING]):
            if Upload.objects.filter(pk=upload.pk, state=upload.state).update(state=core.EXPIRED):
                count += 1
                _delete_parts(upload.name)
        self.message_user(request, f"{count} uploads have expired. Finished ones are left.", messages.SUCCESS)

    def delete_model(self, request: HttpRequest, obj: Upload) -> None:
        """Remove an upload with its parts. The final object of a finished one stays."""
        name = obj.name
        super().delete_model(request, obj)
        _delete_parts(name)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Upload]) -> None:
        names = [upload.name for upload in queryset]
        super().delete_queryset(request, queryset)
        for name in names:
            _delete_parts(name)


def _delete_parts(name: str) -> None:
    for session in core.sessions_of(name):
        if get_storage_adapter().delete_temp_parts(session) < MAX_PART_NUMBER:
            break
