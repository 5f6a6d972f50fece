import uuid

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = ()

    operations = (
        migrations.CreateModel(
            name="UploadFile",
            fields=[
                (
                    "id",
                    models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False),
                ),
                ("original_filename", models.CharField(max_length=255)),
                ("content_type", models.CharField(blank=True, max_length=100)),
                ("size", models.BigIntegerField()),
                ("sha256", models.CharField(blank=True, db_index=True, max_length=64)),
                ("storage_backend", models.CharField(blank=True, max_length=20)),
                ("storage_bucket", models.CharField(blank=True, max_length=255)),
                ("storage_key", models.CharField(blank=True, max_length=500)),
            ],
        ),
        migrations.CreateModel(
            name="UploadSession",
            fields=[
                (
                    "id",
                    models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False),
                ),
                ("chunk_size", models.BigIntegerField(default=5242880)),
                (
                    "status",
                    models.CharField(
                        choices=[("in_progress", "In Progress"), ("complete", "Complete")],
                        default="in_progress",
                        max_length=20,
                    ),
                ),
                (
                    "file",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="session",
                        to="portal.uploadfile",
                    ),
                ),
            ],
        ),
        migrations.CreateModel(
            name="UploadPart",
            fields=[
                (
                    "id",
                    models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID"),
                ),
                ("part_number", models.PositiveIntegerField()),
                ("temp_storage_key", models.CharField(max_length=500)),
                ("size", models.BigIntegerField()),
                ("sha256", models.CharField(max_length=64)),
                (
                    "session",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="parts",
                        to="portal.uploadsession",
                    ),
                ),
            ],
            options={
                "ordering": ("part_number",),
                "constraints": [models.UniqueConstraint(fields=("session", "part_number"), name="one_part_per_number")],
            },
        ),
    )
