"""A Celery application whose parent has loaded the extension before it forks its workers."""

import os
import time
from pathlib import Path

from celery import Celery, Task
from celery.exceptions import SoftTimeLimitExceeded
from celery.worker.request import Request
from django.conf import settings

settings.configure(INSTALLED_APPS=["storage"])

import adapters  # noqa: E402
from sources import endless  # noqa: E402

from storage import ObjectNotFound  # noqa: E402

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
adapter = adapters.make(ROOT)
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


class NotedRequest(Request):
    """Notes in the parent, in a file for each task, when the soft time limit is over: its signal follows at once."""

    def on_timeout(self, soft, timeout):
        if soft:
            Path(ROOT, "control", f"{self.id}.limit").write_text(repr(time.monotonic()))
        super().on_timeout(soft, timeout)


class Limited(Task):
    Request = NotedRequest


def put(key):
    adapter.put_final(key, endless(bytes(100)))


def assemble(key):
    adapter.assemble(key, [f"{key}/00001"] * 500)


def read(key):
    with adapter.get_final_stream(adapter.bucket, adapter.prefix + key) as reader:
        while True:
            reader.seek(0)
            reader.read()


OPERATIONS = {"put": put, "assemble": assemble, "read": read}


@app.task(name="until_limit", base=Limited, bind=True, soft_time_limit=3, time_limit=60)
def until_limit(self, operation, key):
    """A soft time limit arrives as the exception it is; tells how much later, and whether anything became visible."""
    try:
        OPERATIONS[operation](key)
    except SoftTimeLimitExceeded:
        arrived = time.monotonic()
    else:
        raise AssertionError("it came to an end by itself")
    limit = float(Path(ROOT, "control", f"{self.request.id}.limit").read_text())
    try:
        adapter.stat_final(adapter.bucket, adapter.prefix + key)
        visible = True
    except ObjectNotFound:
        visible = False
    return {"seconds": arrived - limit, "visible": visible}
