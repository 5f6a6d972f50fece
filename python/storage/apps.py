"""The Django application: system checks."""

from django.apps import AppConfig
from django.core.checks import Tags, register


class StorageConfig(AppConfig):
    """Optional: the adapters work without it."""

    name = "storage"
    label = "gostorage"
    verbose_name = "Storage adapters"

    def ready(self) -> None:
        from .checks import check_settings

        register(check_settings, Tags.files)
