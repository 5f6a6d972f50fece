"""Objects as files in two directories."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

from .adapter import NativeAdapter, bucket_of
from .options import Checked, WrongOptions, instead_of, is_flag


class LocalStorageAdapter(NativeAdapter):
    """Keeps parts below ``temp_dir`` and objects below ``final_dir``. Each object is a file at its key.

    ``durable`` syncs files and directories before a put is acknowledged. ``file_mode`` and ``directory_mode`` are the
    modes of new files and directories, whatever the umask is. ``bucket`` is the name in ``FinalObject``: with it
    database rows stay valid when a directory moves. With ``carry_digest`` a part that arrives after the part before it
    continues the digest of the whole, so ``assemble`` need not read it.

    Raises ``ImproperlyConfigured`` if the two directories are the same, or one lies in the other.
    """

    backend: ClassVar[str] = "local"

    def __init__(
        self,
        *,
        temp_dir: str | os.PathLike[str],
        final_dir: str | os.PathLike[str],
        bucket: str = "local",
        durable: bool = True,
        file_mode: int = 0o640,
        directory_mode: int = 0o750,
        carry_digest: bool = True,
    ) -> None:
        checked = Checked(
            RULES,
            {
                "temp_dir": temp_dir,
                "final_dir": final_dir,
                "bucket": bucket,
                "durable": durable,
                "file_mode": file_mode,
                "directory_mode": directory_mode,
                "carry_digest": carry_digest,
            },
        )
        checked.together(DIRECTORIES, _apart, OVERLAP)
        options = checked.done()
        super().__init__(carry_digest=options.pop("carry_digest"))
        self._directories = options.pop("temp_dir"), options.pop("final_dir")
        self.bucket = options.pop("bucket")
        self._options = options

    @property
    def directories(self) -> tuple[str, str]:
        """The absolute paths of ``temp_dir`` and ``final_dir``."""
        return self._directories

    def _check_areas(self) -> None:
        if not _apart(*self._directories):
            raise WrongOptions([(DIRECTORIES, OVERLAP)])

    def _configurations(self) -> tuple[dict[str, Any], dict[str, Any]]:
        self._check_areas()
        temp, final = self._directories
        return (
            {"backend": "local", "root": temp, "area": "temp_dir (STORAGE_TEMP_DIR)", **self._options},
            {"backend": "local", "root": final, "area": "final_dir (STORAGE_FINAL_DIR)", **self._options},
        )

    def _check_configuration(self) -> None:
        self._check_areas()

    def __repr__(self) -> str:
        return f"<LocalStorageAdapter bucket={self.bucket!r}>"


DIRECTORIES = "temp_dir", "final_dir"
OVERLAP = "must be two directories, neither inside the other, also through symbolic links"


def _apart(temp: str, final: str) -> bool:
    """Compares the real paths, because a symbolic link may make two areas the same."""
    one, other = (Path(os.path.realpath(directory)) for directory in (temp, final))
    return not (one == other or one in other.parents or other in one.parents)


def _directory(value: str | os.PathLike[str]) -> str:
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(path, str) or not path or "\0" in path:
        raise ValueError("is the path of a directory, and not empty")
    try:
        return os.path.abspath(path)
    except OSError as error:
        raise ValueError(
            f"is a relative path, and the working directory cannot be used ({error.strerror}): make it an absolute one"
        ) from None


def _mode(value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 0o7777:
        raise ValueError(f"is a file mode such as 0o640, {instead_of(value, 'int(text, 8)')}")
    return value


RULES: dict[str, Callable[[Any], Any]] = {
    "temp_dir": _directory,
    "final_dir": _directory,
    "bucket": bucket_of,
    "durable": is_flag,
    "file_mode": _mode,
    "directory_mode": _mode,
    "carry_digest": is_flag,
}
"""What each option may be: a function that gives the value to use, or raises ``ValueError`` with what is wrong."""
