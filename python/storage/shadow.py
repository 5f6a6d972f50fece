"""Finds other packages with the name of ours."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).parent


def other_packages(directories: Iterable[object] = ()) -> list[str]:
    """The directories in ``sys.path``, the working directory, and these, with another package or module ``storage``.

    A directory without ``__init__.py`` is none: ours comes before it wherever it lies.
    """
    found: dict[str, None] = {}
    for directory in (*sys.path, os.curdir, *directories):
        try:
            root = Path(str(directory or os.curdir)).resolve()
            for one in (root / "storage" / "__init__.py", root / "storage.py"):
                if one.is_file() and one.resolve().parent != HERE.resolve():
                    found[str(root)] = None
        except OSError:  # it cannot be looked at, so it cannot be imported
            continue
    return list(found)
