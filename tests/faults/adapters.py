"""The adapter of a script of this folder: on S3 if the environment has its options, else on files below root."""

import json
import os

OPTIONS = "TEST_S3_OPTIONS"


def make(root, **local):
    from storage import LocalStorageAdapter, S3StorageAdapter

    if options := os.environ.get(OPTIONS):
        return S3StorageAdapter(**json.loads(options))
    return LocalStorageAdapter(temp_dir=f"{root}/temp", final_dir=f"{root}/final", **local)
