"""Storage adapters for large uploads: temp parts and final objects, streamed, hashed on the way, all or nothing.

The import loads nothing native: the first operation loads the extension.
"""

from typing import TYPE_CHECKING, Any

from .base import StorageAdapter
from .conf import get_storage_adapter
from .exceptions import (
    ContentMismatch,
    ContentRejected,
    InvalidArgument,
    InvalidKey,
    ObjectExists,
    ObjectNotFound,
    StorageCancelled,
    StorageError,
    StorageFull,
    StoragePermissionError,
    StorageTimeout,
    StorageUnavailable,
)
from .local import LocalStorageAdapter
from .memory import MemoryStorageAdapter
from .s3 import S3StorageAdapter
from .streams import ObjectReader
from .types import Assembled, FinalObject, SweepReport, TempPart

if TYPE_CHECKING:
    from .aio import AsyncObjectReader

__version__ = "0.1.0"

__all__ = [
    "Assembled",
    "AsyncObjectReader",
    "ContentMismatch",
    "ContentRejected",
    "FinalObject",
    "InvalidArgument",
    "InvalidKey",
    "LocalStorageAdapter",
    "MemoryStorageAdapter",
    "ObjectExists",
    "ObjectNotFound",
    "ObjectReader",
    "S3StorageAdapter",
    "StorageAdapter",
    "StorageCancelled",
    "StorageError",
    "StorageFull",
    "StoragePermissionError",
    "StorageTimeout",
    "StorageUnavailable",
    "SweepReport",
    "TempPart",
    "get_storage_adapter",
]


def __getattr__(name: str) -> Any:
    """What is imported only when it is used: nobody else pays for asyncio."""
    if name == "AsyncObjectReader":
        from .aio import AsyncObjectReader

        return AsyncObjectReader
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
