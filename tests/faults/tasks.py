"""A Celery application whose parent has loaded the extension before it forks its workers."""

import os

from celery import Celery
from django.conf import settings

settings.configure(INSTALLED_APPS=["storage"])

from storage import LocalStorageAdapter  # noqa: E402

ROOT = os.environ["TEST_ROOT"]
app = Celery(
    "tasks",
    broker="filesystem://",
    backend=f"file://{ROOT}/results",
    broker_connection_retry_on_startup=False,
)
app.conf.broker_transport_options = {
    "data_folder_in": f"{ROOT}/queue",
    "data_folder_out": f"{ROOT}/queue",
    "control_folder": f"{ROOT}/control",
}
adapter = LocalStorageAdapter(temp_dir=f"{ROOT}/temp", final_dir=f"{ROOT}/final")
adapter.put_final("preloaded", b"by the parent")
PARENT = os.getpid()


@app.task(name="store")
def store(key):
    parts = [adapter.put_temp_part(key, n, bytes([n]) * 300_000) for n in (1, 2)]
    final = adapter.assemble(key, parts)
    with adapter.get_final_stream(*final) as reader:
        assert reader.read() == b"\1" * 300_000 + b"\2" * 300_000
    adapter.delete_temp_parts(key)
    return {"pid": os.getpid(), "parent": PARENT, "sha256": final.sha256}


@app.task(name="forever", soft_time_limit=1)
def forever(key):
    """A soft time limit arrives as the exception it is, and nothing becomes visible."""
    from celery.exceptions import SoftTimeLimitExceeded

    from storage import ObjectNotFound

    try:
        adapter.put_final(key, iter(lambda: bytes(100), None), progress=lambda *_: None)
    except SoftTimeLimitExceeded:
        try:
            adapter.stat_final("local", key)
        except ObjectNotFound:
            return "undone"
    return "not undone"
