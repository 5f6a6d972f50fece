"""The errors. Each class is a StorageError and also the exception that callers expect.

StorageError
├── ObjectNotFound           FileNotFoundError
├── ObjectExists             FileExistsError
├── InvalidKey               ValueError
├── InvalidArgument          ValueError
├── ContentMismatch          ValueError
├── ContentRejected          BadRequest (Django's)
├── StoragePermissionError   PermissionError
├── StorageFull              OSError
├── StorageTimeout           TimeoutError
├── StorageUnavailable       ConnectionError
└── StorageCancelled
"""

from __future__ import annotations

from urllib.parse import unquote

from django.core.exceptions import BadRequest, ImproperlyConfigured

__all__ = [
    "ContentMismatch",
    "ContentRejected",
    "InvalidArgument",
    "InvalidKey",
    "ObjectExists",
    "ObjectNotFound",
    "StorageCancelled",
    "StorageError",
    "StorageFull",
    "StoragePermissionError",
    "StorageTimeout",
    "StorageUnavailable",
]


class StorageError(Exception):
    """A storage operation failed, and nothing of it is visible.

    ``code`` names the kind of error, ``op`` the operation and ``key`` the object, as far as they are known.
    ``retryable`` says whether the same call may succeed later. ``status`` (HTTP) and ``request_id`` come from the
    server, if there is one.
    """

    default_code = "internal"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        op: str = "",
        key: str = "",
        retryable: bool = False,
        status: int | None = None,
        request_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.op = op
        self.key = key
        self.retryable = retryable
        self.status = status
        self.request_id = request_id

    def __str__(self) -> str:
        where = " ".join(part for part in (self.op, repr(self.key) if self.key else "") if part)
        return f"{where}: {self.message}" if where else self.message

    def __reduce__(self) -> tuple[object, ...]:
        # Celery and multiprocessing pickle exceptions, and pickle does not keep keyword arguments.
        return (type(self), (self.message,), dict(self.__dict__))


class ObjectNotFound(StorageError, FileNotFoundError):
    """There is no such part or object."""

    default_code = "not_found"


class ObjectExists(StorageError, FileExistsError):
    """``overwrite=False``, and a different object is there."""

    default_code = "exists"


class InvalidKey(StorageError, ValueError):
    """The name is not a legal key: see ``storage.arguments.check_key``."""

    default_code = "invalid_key"


class InvalidArgument(StorageError, ValueError):
    """What is stated of an object cannot be true of any: a digest, size, range, part number, type, name or metadata.

    Such values mostly come from clients. What only a program says, such as how long a URL is valid, is a ValueError.
    """

    default_code = "invalid_argument"


class ContentMismatch(StorageError, ValueError):
    """The bytes do not have the size or the SHA-256 that they should have."""

    default_code = "mismatch"


class ContentRejected(StorageError, BadRequest):
    """For the functions that are passed as ``inspect``: these bytes are not wanted. Nothing is stored.

    Where no view answers it, Django does, with 400: the parsing of a form may be over before a view begins.
    """

    default_code = "rejected"


class StoragePermissionError(StorageError, PermissionError):
    """The store does not allow it."""

    default_code = "permission"


class StorageFull(StorageError, OSError):
    """No space, or no quota, is left."""

    default_code = "full"


class StorageTimeout(StorageError, TimeoutError):
    """The store did not answer in time."""

    default_code = "timeout"


class StorageUnavailable(StorageError, ConnectionError):
    """The store cannot be reached, or is too busy, now."""

    default_code = "unavailable"


class StorageCancelled(StorageError):
    """``adapter.close()`` was called during the transfer."""

    default_code = "cancelled"


_CLASSES: dict[str, type[StorageError]] = {
    kind.default_code: kind
    for kind in (
        ObjectNotFound,
        ObjectExists,
        InvalidKey,
        ContentMismatch,
        StoragePermissionError,
        StorageFull,
        StorageTimeout,
        StorageUnavailable,
        StorageCancelled,
    )
}

WIRE = "E1|"
"""The beginning of the text of an error that crosses from the Go side."""


def from_wire(text: str) -> StorageError | ImproperlyConfigured:
    """The exception for an error of the Go side, which has the form of ``object.Wire`` there."""
    try:
        wire, code, op, key, status, request_id, retryable, message = map(unquote, text.split("|"))
        answered = int(status)
    except ValueError:  # the wrong fields, or a status that is no number
        wire = ""
    if f"{wire}|" != WIRE:
        return StorageError("the storage extension failed unexpectedly")
    if code == "config":
        return ImproperlyConfigured(message)
    return _CLASSES.get(code, StorageError)(
        message,
        code=code,
        op=op,
        key=key,
        retryable=retryable == "1",
        status=answered or None,
        request_id=request_id or None,
    )
