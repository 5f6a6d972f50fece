"""Objects as files in two directories."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar

from django.core.exceptions import ImproperlyConfigured

from .adapter import NativeAdapter, bucket_of, flag
from .conf import setting


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
        super().__init__(carry_digest=carry_digest)
        self._directories = _directory("temp_dir", temp_dir), _directory("final_dir", final_dir)
        self.bucket = bucket_of(bucket)
        self._options = {
            "durable": flag("durable", durable),
            "file_mode": _mode("file_mode", file_mode),
            "directory_mode": _mode("directory_mode", directory_mode),
        }
        self._check_areas()

    @property
    def directories(self) -> tuple[str, str]:
        """The absolute paths of ``temp_dir`` and ``final_dir``."""
        return self._directories

    def _check_areas(self) -> None:
        """Compares the real paths, because a symbolic link may make two areas the same."""
        temp, final = (Path(os.path.realpath(directory)) for directory in self._directories)
        if temp == final or temp in final.parents or final in temp.parents:
            raise ImproperlyConfigured(
                "temp_dir and final_dir (STORAGE_TEMP_DIR, STORAGE_FINAL_DIR) must be two directories, neither inside"
                " the other, also through symbolic links"
            )

    def _configurations(self) -> tuple[dict[str, Any], dict[str, Any]]:
        self._check_areas()
        temp, final = self._directories
        return (
            {"backend": "local", "root": temp, "area": "temp_dir (STORAGE_TEMP_DIR)", **self._options},
            {"backend": "local", "root": final, "area": "final_dir (STORAGE_FINAL_DIR)", **self._options},
        )

    def check_health(self, timeout: float = 5.0) -> None:
        self._check_areas()
        super().check_health(timeout)

    def __repr__(self) -> str:
        return f"<LocalStorageAdapter bucket={self.bucket!r}>"


def _directory(name: str, value: str | os.PathLike[str]) -> str:
    path = os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(path, str) or not path or "\0" in path:
        raise ImproperlyConfigured(f"{setting('local', name)} is the path of a directory, and not empty")
    try:
        return os.path.abspath(path)
    except OSError as error:
        raise ImproperlyConfigured(
            f"{setting('local', name)} is a relative path, and the working directory cannot be used ({error.strerror}):"
            " make it an absolute one"
        ) from None


def _mode(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 0o7777:
        raise ImproperlyConfigured(f"{name} is a file mode such as 0o640, not {value!r}")
    return value
