"""Adds the Go extension to the build that pyproject.toml describes."""

import sys
from pathlib import Path

from setuptools import Extension, setup

sys.path.insert(0, str(Path(__file__).resolve().parent))

from pybuild.command import BuildGo

setup(
    ext_modules=[Extension("storage._gostorage", sources=[])],
    cmdclass={"build_ext": BuildGo},
)
