"""Celery without a server: the broker and the results are folders below $PORTAL_VAR.

A worker: `cd tests && celery -A portal.tasks worker --concurrency 4`.
"""

import hashlib
import io
import os

import django
from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "portal.settings")
django.setup()

from django.conf import settings  # noqa: E402

from storage import get_storage_adapter  # noqa: E402
from storage.sweep import sweep  # noqa: E402

from . import services  # noqa: E402
from .models import UploadSession  # noqa: E402

for folder in ("queue", "results", "control"):
    (settings.VAR / folder).mkdir(parents=True, exist_ok=True)

app = Celery("portal", broker="filesystem://", backend=f"file://{settings.VAR / 'results'}")
app.conf.update(
    broker_transport_options={
        "data_folder_in": str(settings.VAR / "queue"),
        "data_folder_out": str(settings.VAR / "queue"),
        "control_folder": str(settings.VAR / "control"),
    },
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
    beat_schedule={"sweep": {"task": "portal.tasks.sweep_uploads", "schedule": 3600}},
    task_soft_time_limit=240,
    task_time_limit=300,
)


@app.task
def finalize(session_id: str) -> dict[str, object]:
    """Joins a session's parts in the worker."""
    file = services.finalize_session(UploadSession.objects.get(pk=session_id))
    return {"file": str(file.pk), "size": file.size, "sha256": file.sha256, "pid": os.getpid()}


@app.task
def round_trip(session_id: str, part_number: int, size: int) -> dict[str, object]:
    """Puts a part of `size` bytes, reads it back and deletes it."""
    adapter = get_storage_adapter()
    data = bytes([part_number % 256]) * size
    part = adapter.put_temp_part(session_id, part_number, io.BytesIO(data))
    with adapter.get_temp_part_stream(part) as stream:
        ok = stream.read() == data and part.sha256 == hashlib.sha256(data).hexdigest()
    adapter.delete_temp_part(part)
    return {"ok": ok, "pid": os.getpid()}


@app.task
def sweep_uploads() -> dict[str, object]:
    """Removes what abandoned uploads have left."""
    return sweep(older_than="24h", keep="portal.services.is_live", max_seconds=200)
