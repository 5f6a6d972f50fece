import uuid

import django.db.models.deletion
import django.utils.timezone
from django.conf import settings
from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True

    dependencies = (migrations.swappable_dependency(settings.AUTH_USER_MODEL),)

    operations = (
        migrations.CreateModel(
            name="Upload",
            fields=[
                ("id", models.UUIDField(default=uuid.uuid4, editable=False, primary_key=True, serialize=False)),
                ("size", models.BigIntegerField(null=True)),
                ("metadata", models.JSONField(default=dict)),
                ("partial", models.BooleanField(default=False)),
                ("concat", models.JSONField(default=list)),
                (
                    "state",
                    models.CharField(
                        choices=[
                            ("uploading", "Uploading"),
                            ("finishing", "Finishing"),
                            ("finished", "Finished"),
                            ("expired", "Expired"),
                        ],
                        default="uploading",
                        max_length=10,
                    ),
                ),
                ("turn", models.PositiveBigIntegerField(default=0, editable=False)),
                ("file_id", models.CharField(blank=True, max_length=500)),
                ("bucket", models.CharField(blank=True, max_length=500)),
                ("key", models.CharField(blank=True, max_length=1000)),
                ("sha256", models.CharField(blank=True, max_length=64)),
                ("created", models.DateTimeField(default=django.utils.timezone.now, editable=False)),
                ("expires", models.DateTimeField(null=True)),
                ("finished", models.DateTimeField(null=True)),
                ("telling", models.DateTimeField(editable=False, null=True)),
                (
                    "owner",
                    models.ForeignKey(
                        blank=True,
                        null=True,
                        on_delete=django.db.models.deletion.CASCADE,
                        related_name="+",
                        to=settings.AUTH_USER_MODEL,
                    ),
                ),
            ],
            options={
                "ordering": ("-created",),
                "indexes": [models.Index(fields=["state", "expires"], name="storage_tus_expiry")],
            },
        ),
    )
