"""The Django application: its checks, and what a sweep has to know of it."""

from django.apps import AppConfig
from django.core.checks import Tags, register


class TusConfig(AppConfig):
    name = "storage.tus"
    label = "storage_tus"
    verbose_name = "Resumable uploads"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from storage.sweep import owners

        from .checks import check_settings
        from .rows import Sessions

        register(check_settings, Tags.files)
        owners["storage.tus"] = Sessions()
