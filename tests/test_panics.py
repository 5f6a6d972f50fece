"""A panic of the Go side, forced in a build for tests, is a StorageError, and all goes on."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import litter
from test_build import ROOT, extension

SOURCES = ["gostorage", "pybuild", "python", "go.mod", "go.sum", "pyproject.toml", "setup.py", "MANIFEST.in"]
SOURCES += ["README.md", "LICENSE"]
MARK = b"burst in "

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    """A directory to import `storage` from, built with the tag `faults` in a copy of the sources."""
    tree, target = tmp_path_factory.mktemp("tree"), tmp_path_factory.mktemp("faulty")
    for name in SOURCES:
        source = ROOT / name
        ignored = shutil.ignore_patterns("_generated", "__pycache__", "*.so", "*.egg-info")
        shutil.copytree(source, tree / name, ignore=ignored) if source.is_dir() else shutil.copy(source, tree)
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", target, tree]
    environment = {**os.environ, "GOSTORAGE_BUILD_TAGS": "faults", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return target


def test_a_panic_is_an_error(faulty, run, tmp_path):
    told = run("panics", tmp_path, timeout=100, env={**os.environ, "PYTHONPATH": str(faulty)})
    assert len(told) == 7
    for name, error in told.items():
        assert error["code"] == "internal", (name, error)
        assert "panic: runtime error: invalid memory address" in error["text"], (name, error)
        assert str(tmp_path) not in error["text"] and ".go" not in error["text"], (name, error)
    assert {path.read_bytes() for path in tmp_path.glob("final/burst in *")} == {b"old"}
    assert not (tmp_path / "final/a").exists() and not litter(tmp_path)


def test_no_fault_is_in_the_installed_extension(faulty):
    (built,) = Path(faulty, "storage").glob("*.so")
    assert MARK in built.read_bytes()
    assert MARK not in extension().read_bytes()
