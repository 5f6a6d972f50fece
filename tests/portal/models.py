"""An upload is a file, its session and the parts received so far."""

import uuid

from django.db import models


class UploadFile(models.Model):
    """What was uploaded. The storage fields are empty until the session is complete."""

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    original_filename = models.CharField(max_length=255)
    content_type = models.CharField(max_length=100, blank=True)
    size = models.BigIntegerField()
    sha256 = models.CharField(max_length=64, blank=True, db_index=True)
    storage_backend = models.CharField(max_length=20, blank=True)
    storage_bucket = models.CharField(max_length=255, blank=True)
    storage_key = models.CharField(max_length=500, blank=True)

    def __str__(self) -> str:
        return self.original_filename


class UploadSession(models.Model):
    """One upload in parts of `chunk_size` bytes; only the last part may be shorter."""

    class Status(models.TextChoices):
        IN_PROGRESS = "in_progress"
        COMPLETE = "complete"

    id = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    file = models.OneToOneField(UploadFile, on_delete=models.CASCADE, related_name="session")
    chunk_size = models.BigIntegerField(default=5 * 1024 * 1024)
    status = models.CharField(max_length=20, choices=Status.choices, default=Status.IN_PROGRESS)

    def __str__(self) -> str:
        return str(self.pk)

    @property
    def total_parts(self) -> int:
        return -(-self.file.size // self.chunk_size)

    def part_size(self, part_number: int) -> int:
        """The size in bytes that the part has to have."""
        return min(self.chunk_size, self.file.size - (part_number - 1) * self.chunk_size)


class UploadPart(models.Model):
    """A part that the adapter holds under `temp_storage_key`."""

    session = models.ForeignKey(UploadSession, on_delete=models.CASCADE, related_name="parts")
    part_number = models.PositiveIntegerField()
    temp_storage_key = models.CharField(max_length=500)
    size = models.BigIntegerField()
    sha256 = models.CharField(max_length=64)

    class Meta:
        ordering = ("part_number",)
        constraints = (models.UniqueConstraint(fields=("session", "part_number"), name="one_part_per_number"),)

    def __str__(self) -> str:
        return self.temp_storage_key
