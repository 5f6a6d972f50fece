"""Limits of the system that are too low: an error says which one, and the process goes on."""

import subprocess
import sys

import pytest

START = """
import os, resource, sys
from django.conf import settings
settings.configure(INSTALLED_APPS=["storage"])
from storage import LocalStorageAdapter, StorageError
adapter = LocalStorageAdapter(temp_dir=sys.argv[1] + "/temp", final_dir=sys.argv[1] + "/final")
"""
FAILS = """
try:
    adapter.put_final("k", b"some")
except StorageError as error:
    assert error.op == "load" and {limit!r} in str(error), error
else:
    raise SystemExit("it is loaded")
"""
DESCRIPTORS = """
final = adapter.put_final("k", b"some")
resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) - 1, 1000))
for work in (lambda: adapter.put_final("other", b"some"), lambda: adapter.get_final_stream(*final)):
    try:
        work()
    except StorageError as error:
        assert error.retryable, error
    else:
        raise SystemExit("there are descriptors")
resource.setrlimit(resource.RLIMIT_NOFILE, (1000, 1000))
with adapter.get_final_stream(*final) as stream:
    assert stream.read() == b"some"
"""


def run(code, folder):
    done = subprocess.run([sys.executable, "-c", START + code, folder], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("megabytes", [60, 200, 1000])
def test_too_little_address_space(megabytes, tmp_path):
    limit = f"resource.setrlimit(resource.RLIMIT_AS, ({megabytes} << 20, resource.RLIM_INFINITY))"
    run(limit + FAILS.format(limit="ulimit -v"), tmp_path)


def test_enough_address_space(tmp_path):
    run(
        "resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30)); adapter.put_final('k', bytes(20_000_000))",
        tmp_path,
    )


def test_too_few_threads(tmp_path):
    limit = "os.setuid(65534); resource.setrlimit(resource.RLIMIT_NPROC, (3, 3))"
    run(limit + FAILS.format(limit="ulimit -u"), tmp_path)


def test_too_few_descriptors(tmp_path):
    run(DESCRIPTORS, tmp_path)
