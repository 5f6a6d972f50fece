"""The build backend: that of setuptools, which here asks for Go and a C compiler if there is none."""

import shutil
from pathlib import Path
from typing import Any

from setuptools import build_meta
from setuptools.build_meta import (
    build_editable,
    build_sdist,
    get_requires_for_build_sdist,
    prepare_metadata_for_build_editable,
    prepare_metadata_for_build_wheel,
)

from pybuild import toolchain

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

Settings = dict[str, Any] | None


def get_requires_for_build_wheel(config_settings: Settings = None) -> list[str]:
    """What the build needs beyond pyproject.toml on this machine."""
    return [*build_meta.get_requires_for_build_wheel(config_settings), *toolchain.missing()]


def get_requires_for_build_editable(config_settings: Settings = None) -> list[str]:
    """What the build needs beyond pyproject.toml on this machine."""
    return [*build_meta.get_requires_for_build_editable(config_settings), *toolchain.missing()]


def build_wheel(
    wheel_directory: str,
    config_settings: Settings = None,
    metadata_directory: str | None = None,
) -> str:
    """Build a wheel of what is in the tree now, without leftovers of an earlier build."""
    for leftover in Path("build").glob("lib*"):
        shutil.rmtree(leftover)
    name: str = build_meta.build_wheel(wheel_directory, config_settings, metadata_directory)
    return name
