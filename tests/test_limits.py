"""Limits of the system that are too low: an error says which one, and the process goes on."""

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import trustme
from conftest import FREE_THREADED, free_threaded

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
TAKEN = """
def taken(but=0):
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 1000))
    held = []
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        for _ in range(but):
            os.close(held.pop())
        return held
"""
FIRST = """
import sys
if {forks}:
    adapter.put_final("k", b"some")
held = taken(but={left})
if {forks} and (pid := os.fork()):
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
for _ in range(2):
    try:
        adapter.put_final("other", b"some")
    except StorageError as error:
        assert error.retryable, error
        assert {left} > 3 or (error.op, error.code) == ("load", "unavailable"), error
        assert {left} > 3 or "no file descriptor is left" in str(error), error
    else:
        assert {left} > 3, "there are descriptors"
for descriptor in held:
    os.close(descriptor)
adapter.put_final("other", b"some")
"""
S3 = """
from storage import S3StorageAdapter
adapter.put_final("k", b"some")
os.environ.pop("AWS_CA_BUNDLE", None)
os.environ.update({environment})
s3 = S3StorageAdapter(bucket_name="b", **{options})
held = taken()
try:
    s3.stores()
except StorageError as error:
    assert error.retryable and error.code == "unavailable" and "no file descriptor is left" in str(error), error
else:
    raise SystemExit("there are descriptors")
for descriptor in held:
    os.close(descriptor)
s3.stores()
"""
DESCRIPTORS = """
final = adapter.put_final("k", b"some")
held = taken()
for work in (lambda: adapter.put_final("other", b"some"), lambda: adapter.get_final_stream(*final)):
    try:
        work()
    except StorageError as error:
        assert error.retryable, error
    else:
        raise SystemExit("there are descriptors")
for descriptor in held:
    os.close(descriptor)
with adapter.get_final_stream(*final) as stream:
    assert stream.read() == b"some"
"""


def run(code, folder, python=sys.executable, **options):
    command = [python, "-c", START + code, folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, **options)
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
    run(TAKEN + DESCRIPTORS, tmp_path)


@pytest.mark.parametrize("forks", [False, True])
@pytest.mark.parametrize("left", [0, 1, 2, 3, 4, 5])
def test_no_descriptors_for_the_extension(forks, left, tmp_path):
    """Its runtime would end the process for lack of them."""
    run(TAKEN + FIRST.format(forks=forks, left=left), tmp_path)


def test_no_descriptor_for_a_ca_bundle(tmp_path):
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    options = {"ca_bundle": str(tmp_path / "ca.pem"), "endpoint_url": "https://127.0.0.1:9"}
    options |= {"access_key": "AK", "secret_key": "secret"}
    run(TAKEN + S3.format(environment={}, options=options), tmp_path)


@pytest.mark.parametrize("name", ["default", "own"])
def test_no_descriptor_for_a_profile(name, tmp_path):
    """It is not said to be none, and its region is not taken for another."""
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/config").write_text("[default]\nregion=eu-west-3\n[profile own]\nregion=eu-west-3\n")
    environment = {"HOME": str(tmp_path), "AWS_PROFILE": name}
    run(TAKEN + S3.format(environment=environment, options={}), tmp_path)


INTERPRETERS = """
import sys
try:
    import _interpreters as interpreters
except ModuleNotFoundError:
    import _xxsubinterpreters as interpreters  # before Python 3.13
    made = interpreters.create(isolated={kind!r} == "isolated")
else:
    made = interpreters.create({kind!r})
if {first}:
    adapter.put_final("k", b"some")
failed = interpreters.run_string(made, {code!r})
assert failed is None, failed
adapter.put_final("k", b"some")
"""


# In Python 3.12 an isolated interpreter cannot even import ctypes.
@pytest.mark.parametrize("kind", ["legacy", *(["isolated"] if sys.version_info[:2] != (3, 12) else [])])
@pytest.mark.parametrize("first", [False, True])
def test_a_sub_interpreter(kind, first, tmp_path):
    """The main one can go on. `legacy` is what mod_wsgi makes, `isolated` what has a global lock of its own."""
    refused = FAILS.format(limit="WSGIApplicationGroup %{GLOBAL}")
    code = f"import sys; sys.argv = ['', {str(tmp_path)!r}]" + START + refused
    run(INTERPRETERS.format(kind=kind, first=first, code=code), tmp_path)


def test_a_free_threaded_python(tmp_path):
    run("sys.abiflags += 't'" + FAILS.format(limit="python3.14, not python3.14t"), tmp_path)


@free_threaded
@pytest.mark.parametrize("extension", [False, True])
def test_a_real_free_threaded_python(extension, tmp_path):
    """The package as it would be installed there, without an extension or with that of the other Python."""
    import storage

    package = Path(storage.__file__).parent
    shutil.copytree(package, tmp_path / "storage", ignore=shutil.ignore_patterns("*.so", "__pycache__"))
    if extension:
        name = "import sysconfig; print(sysconfig.get_config_var('EXT_SUFFIX'))"
        suffix = subprocess.run([FREE_THREADED, "-c", name], capture_output=True, text=True, check=True).stdout.strip()
        built = package / f"_gostorage{sysconfig.get_config_var('EXT_SUFFIX')}"
        shutil.copy(built, tmp_path / f"storage/_gostorage{suffix}")
    path = os.pathsep.join([str(tmp_path), str(package.parent)])  # Django of this Python
    code = "import storage; assert storage.__file__.startswith(sys.argv[1]);"
    code += FAILS.format(limit="python3.14, not python3.14t")
    run(code, tmp_path, FREE_THREADED, env={**os.environ, "PYTHONPATH": path})
