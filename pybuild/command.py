"""The setuptools command that builds the extension."""

import sysconfig
from pathlib import Path

from setuptools import Extension
from setuptools.command.build_ext import build_ext

from pybuild import steps
from pybuild.toolchain import BuildError


class BuildGo(build_ext):
    """`build_ext` with the steps of pybuild.steps."""

    def build_extension(self, ext: Extension) -> None:
        """Build the only extension. If that fails, end with a line that says why."""
        target = Path(self.get_ext_fullpath(ext.name)).absolute()
        suffix = target.name.removeprefix(steps.MODULE)
        loadable = suffix == sysconfig.get_config_var("EXT_SUFFIX")
        try:
            steps.build(target, suffix.removesuffix(".so").lstrip("."), loadable=loadable)
        except BuildError as error:
            raise SystemExit(f"django-gostorage: {error}") from None
