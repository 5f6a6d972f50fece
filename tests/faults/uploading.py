"""Puts an object that has no end into a bucket, and says when some of it is there."""

import json
import os

from storage import S3StorageAdapter

MiB = 1024 * 1024


def source():
    for n in range(10_000):
        if n == 40:
            print("three parts", flush=True)
        yield bytes(MiB)


S3StorageAdapter(**json.loads(os.environ["STORAGE_OPTIONS"])).put_final("endless", source())
