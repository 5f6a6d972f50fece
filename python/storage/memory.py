"""Objects in the memory of the process, for tests and throw-away data."""

from __future__ import annotations

from typing import Any, ClassVar

from .adapter import NativeAdapter, bucket_of
from .options import Checked, is_flag

RULES = {"bucket": bucket_of, "carry_digest": is_flag}


class MemoryStorageAdapter(NativeAdapter):
    """Keeps everything in memory. Each instance is a separate store; in a forked child it is empty.

    ``bucket`` is the name in ``FinalObject``. ``carry_digest`` is as in ``LocalStorageAdapter``.

    Raises ``ImproperlyConfigured``.
    """

    backend: ClassVar[str] = "memory"

    def __init__(self, *, bucket: str = "memory", carry_digest: bool = True) -> None:
        options = Checked(RULES, {"bucket": bucket, "carry_digest": carry_digest}).done()
        super().__init__(carry_digest=options["carry_digest"])
        self.bucket = options["bucket"]

    def _configurations(self) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"backend": "memory"}, {"backend": "memory"}

    def __repr__(self) -> str:
        return "<MemoryStorageAdapter>"
