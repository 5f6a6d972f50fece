"""Uploads in Django's admin: seen, and removed with their parts, but never changed by hand."""

from __future__ import annotations

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.http import HttpRequest
from django.template.defaultfilters import filesizeformat
from django.utils.html import format_html_join

from storage import get_storage_adapter
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
            count += Upload.objects.filter(pk=upload.pk, state=upload.state).update(state=core.EXPIRED)
            get_storage_adapter().delete_temp_parts(upload.name)
        self.message_user(request, f"{count} uploads have expired. Finished ones are left.", messages.SUCCESS)

    def delete_model(self, request: HttpRequest, obj: Upload) -> None:
        """Remove an upload with its parts. The final object of a finished one stays."""
        super().delete_model(request, obj)
        get_storage_adapter().delete_temp_parts(obj.name)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Upload]) -> None:
        names = [upload.name for upload in queryset]
        super().delete_queryset(request, queryset)
        for name in names:
            get_storage_adapter().delete_temp_parts(name)
