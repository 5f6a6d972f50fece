"""For gunicorn --preload: the extension is loaded before the workers are forked."""

import json
import os
import time

from django.conf import settings

settings.configure(INSTALLED_APPS=["storage"])

import adapters  # noqa: E402

from storage import native  # noqa: E402

ROOT = os.environ["TEST_ROOT"]
adapter = adapters.make(ROOT)
MASTER = os.getpid()
preloaded = adapter.put_final("preloaded", b"by the master")
assert native.stats()["stores"]


def application(environ, start_response):
    key = environ["PATH_INFO"].strip("/")
    final = adapter.put_final(key, environ["wsgi.input"], size=int(environ["CONTENT_LENGTH"]))
    with adapter.get_final_stream(*final) as reader:
        assert len(reader.read()) == final.size
    with adapter.get_final_stream(*preloaded) as reader:
        assert reader.read() == b"by the master"
    time.sleep(0.02)  # so that every worker gets its share
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps({"pid": os.getpid(), "master": MASTER, "sha256": final.sha256}).encode()]
