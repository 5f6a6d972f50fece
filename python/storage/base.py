"""What a storage adapter is: the values it gives and the promises it makes, whatever it stores on."""

from __future__ import annotations

import operator
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeAlias, runtime_checkable

from .exceptions import InvalidKey

if TYPE_CHECKING:
    from .streams import ObjectReader

MAX_PART_NUMBER = 10_000
"""As in S3's multipart uploads."""

MAX_KEY_CHARACTERS = 500
MAX_KEY_BYTES = 900
MAX_SEGMENT_BYTES = 255

MAX_METADATA_BYTES = 2048 - 128
"""S3's limit for the user-defined metadata of an object, less what we keep there ourselves."""


@runtime_checkable
class Readable(Protocol):
    """Anything with ``read(n)``."""

    def read(self, size: int, /) -> bytes: ...


Buffer: TypeAlias = bytes | bytearray | memoryview
Source: TypeAlias = Readable | Iterable[Buffer] | Buffer
"""Where bytes come from: read once, forwards, from where it stands; never sought, never closed."""

Progress: TypeAlias = Callable[[int, int | None], object]
"""Called as ``progress(done, total)`` in bytes, at most ten times a second and once with the final figure.

The final ``done`` of an assembly is an ``Assembled``.
"""


class Assembled(int):
    """The bytes of an assembled object; ``copied`` of them never passed this process, which has ``read`` so many."""

    copied: int
    read: int

    def __new__(cls, done: int, copied: int, read: int) -> Assembled:
        self = super().__new__(cls, done)
        self.copied, self.read = copied, read
        return self


@dataclass(frozen=True, slots=True)
class TempPart:
    """A stored part. ``size`` is in bytes, ``sha256`` lower-case hex; None only where the store cannot know."""

    key: str
    part_number: int
    size: int | None
    sha256: str | None

    def __str__(self) -> str:
        return self.key


@dataclass(frozen=True, slots=True)
class FinalObject:
    """A stored object; ``bucket, key = final`` works. ``size`` is in bytes, ``sha256`` lower-case hex."""

    bucket: str
    key: str
    size: int | None
    sha256: str | None

    def __iter__(self) -> Iterator[str]:
        return iter((self.bucket, self.key))


Keep: TypeAlias = Callable[[str], object]
"""Told the id of a session that would be swept, gives whether to spare it."""


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What a sweep has removed, or would remove in a dry run.

    ``sessions`` counts those of which parts were removed, ``parts`` their parts, ``uploads`` unfinished writes, and
    ``size`` the bytes of both. ``finished`` is False when time ran out: another call goes on from there.
    """

    sessions: int
    parts: int
    uploads: int
    size: int
    finished: bool


class StorageAdapter(ABC):
    """Temp parts and final objects, in two areas that cannot name each other's objects.

    All or nothing: the end of the stream means commit. Anything else (the stream raises, a size or digest differs, an
    interrupt, a crash) leaves the key as it was, and the caller's own exception arrives unchanged. Adapters are safe
    to share between threads.
    """

    backend: ClassVar[str]
    """A stable name of the kind of store, to be kept in a database row."""

    @abstractmethod
    def put_temp_part(
        self,
        session_id: object,
        part_number: int,
        stream: Source,
        *,
        size: int | None = None,
        sha256: str | None = None,
        overwrite: bool = True,
        progress: Progress | None = None,
    ) -> TempPart:
        """Store one part (numbers 1 to 10,000) of an upload session.

        Raises ``ContentMismatch`` when the stream has not the ``size`` (bytes) or ``sha256`` (hex) given,
        ``ObjectExists`` with ``overwrite=False`` when a different part is there (the same one is success),
        ``InvalidKey``, ``StorageFull``, ``StoragePermissionError``; whatever the stream raises.
        """

    @abstractmethod
    def get_temp_part_stream(self, temp_key: str | TempPart) -> ObjectReader:
        """Open a part. Raises ``ObjectNotFound``; ``ContentMismatch`` when a ``TempPart`` has changed since."""

    @abstractmethod
    def delete_temp_part(self, temp_key: str | TempPart) -> None:
        """Delete a part; a missing one is fine."""

    @abstractmethod
    def list_temp_parts(self, session_id: object) -> list[TempPart]:
        """All parts of a session, ordered by part number."""

    @abstractmethod
    def delete_temp_parts(self, session_id: object) -> int:
        """Delete all parts of a session; gives how many there were."""

    @abstractmethod
    def put_final(
        self,
        file_id: object,
        stream: Source,
        *,
        size: int | None = None,
        sha256: str | None = None,
        overwrite: bool = True,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> FinalObject:
        """Store a final object in one go. Raises as ``put_temp_part`` does."""

    @abstractmethod
    def assemble(
        self,
        file_id: object,
        temp_keys: Sequence[str | TempPart],
        *,
        size: int | None = None,
        sha256: str | None = None,
        overwrite: bool = True,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> FinalObject:
        """Join parts, in the order given, into a final object. The parts stay, so that it can be tried again.

        The store copies them where it can, and the digest that they carry is used as far as it goes: only what follows
        is read. The last figure that ``progress`` gets is an ``Assembled``, which tells how many bytes that were.

        Raises ``ObjectNotFound`` for a missing part, ``ContentMismatch`` when a ``TempPart`` has changed since or the
        whole differs from ``size`` or ``sha256``, ``ValueError`` for no parts; else as ``put_temp_part`` does.
        """

    @abstractmethod
    def extend_digest(self, session_id: object, max_seconds: float | None = None) -> int:
        """Carry the digest of the whole on over parts that came out of order, so that ``assemble`` has less to read.

        It covers the parts 1, 2, 3 … as far as there is no gap, and gives how many. Each part is read once in all.
        After ``max_seconds`` none is begun, but one is read in any case. Raises ``ContentMismatch`` for a damaged part.
        """

    @abstractmethod
    def get_final_stream(
        self,
        bucket: str | FinalObject,
        key: str | None = None,
        *,
        start: int = 0,
        length: int | None = None,
    ) -> ObjectReader:
        """Open a final object, or ``length`` bytes of it from ``start``. Raises ``ObjectNotFound``."""

    @abstractmethod
    def stat_final(self, bucket: str | FinalObject, key: str | None = None) -> FinalObject:
        """Describe a final object. Raises ``ObjectNotFound``."""

    @abstractmethod
    def delete_final(self, bucket: str | FinalObject, key: str | None = None) -> None:
        """Delete a final object; a missing one is fine."""

    @abstractmethod
    def sweep(
        self,
        older_than: timedelta,
        *,
        keep: Keep | None = None,
        dry_run: bool = False,
        max_seconds: float | None = None,
    ) -> SweepReport:
        """Remove the parts of sessions that nobody will come back for, and unfinished writes in both areas.

        A session goes when its newest part, and the newest piece of any part still on its way, are older than
        ``older_than``; so let that be longer than the longest pause of a client. ``keep(session_id)`` is asked before
        that, and a true answer spares the session with all its unfinished writes. Final objects are never removed.

        With ``dry_run`` the report is the same, and nothing is written. ``max_seconds`` ends the call soon after that
        time; calls with it go on where the last one stopped, until one reports ``finished``. Sweeps may run beside
        uploads and beside each other.

        Raises ``StorageError``; what ``keep`` raises. What cannot be removed is passed over, and raised at the end.
        """

    @abstractmethod
    def check_health(self, timeout: float = 5.0) -> None:
        """Write and remove a probe in both areas. Raises a ``StorageError`` that says what is wrong.

        ``StorageTimeout`` when that takes longer than ``timeout`` seconds.
        """

    @abstractmethod
    def close(self) -> None:
        """End all transfers (they raise ``StorageCancelled``) and streams. Later calls raise ``StorageError``."""


STAGING = ".gostorage-staging"
"""The folder of unfinished writes at the root of an area on a disk; no segment of a key is its name."""

# The backslash, and the characters of Unicode category Cc.
_FORBIDDEN = re.compile(r"[\\\x00-\x1f\x7f-\x9f]")


def check_key(key: str) -> str:
    """The only definition of a legal key; ``object.CheckKey`` gives the same verdict in Go. Raises ``InvalidKey``.

    Relative, valid UTF-8, at most 500 characters and 900 bytes, of segments of 1 to 255 bytes that are not ``.``,
    ``..`` or our own folder (``.gostorage-staging`` in any case, also before dots and blanks); no backslash, no control character (Unicode category Cc). Look-alikes are different names, kept exactly.
    """
    if not isinstance(key, str):
        raise TypeError(f"a key is a str, not {type(key).__name__}")
    try:
        encoded = key.encode()
    except UnicodeEncodeError:
        raise _invalid("", "it is not valid UTF-8") from None
    if not key:
        raise _invalid(key, "it is empty")
    if len(encoded) > MAX_KEY_BYTES:
        raise _invalid("", f"it is longer than {MAX_KEY_BYTES} bytes")
    if len(key) > MAX_KEY_CHARACTERS:
        raise _invalid("", f"it is longer than {MAX_KEY_CHARACTERS} characters")
    if _FORBIDDEN.search(key):
        raise _invalid(key, "it holds a backslash or a control character")
    for segment in key.split("/"):
        if segment in {"", ".", ".."}:
            raise _invalid(key, "it has an empty, '.' or '..' segment")
        if len(segment.encode()) > MAX_SEGMENT_BYTES:
            raise _invalid(key, f"it has a segment longer than {MAX_SEGMENT_BYTES} bytes")
        if segment.isascii() and segment.rstrip(". ").lower() == STAGING:
            raise _invalid(key, "it has a segment that is the name of our own folder")
    return key


def _invalid(key: str, why: str) -> InvalidKey:
    return InvalidKey(f"not a legal key: {why}", key=key)


def check_file_id(file_id: object) -> str:
    """``str(file_id)``, which must be a key. Raises ``InvalidKey``, ``TypeError`` for None and bytes."""
    if file_id is None or isinstance(file_id, (bytes, bytearray, memoryview)):
        raise TypeError(f"an id is a str, an int or a UUID, not {type(file_id).__name__}")
    return check_key(str(file_id))


def check_session_id(session_id: object) -> str:
    """``str(session_id)``, which must be a key of one segment. Raises ``InvalidKey``."""
    session = check_file_id(session_id)
    if "/" in session:
        raise _invalid(session, "a session id has no slash")
    return session


def check_part_number(number: int) -> int:
    """Raises ``ValueError`` unless it is 1 to 10,000, ``TypeError`` unless it is a whole number."""
    if isinstance(number, bool):
        raise TypeError("a part number is an int, not bool")
    number = operator.index(number)
    if not 1 <= number <= MAX_PART_NUMBER:
        raise ValueError(f"part_number is 1 to {MAX_PART_NUMBER:,}, not {number:,}")
    return number


def check_count(name: str, value: int | None) -> int | None:
    """Raises ``ValueError`` when a number of bytes is negative."""
    if value is None:
        return None
    value = operator.index(value)
    if value < 0:
        raise ValueError(f"{name} is a number of bytes, not negative: {value}")
    return value


def check_age(older_than: timedelta) -> timedelta:
    """Raises ``TypeError`` unless it is a timedelta, ``ValueError`` when it is negative."""
    if not isinstance(older_than, timedelta):
        raise TypeError(f"older_than is a timedelta, not {type(older_than).__name__}")
    if older_than < timedelta():
        raise ValueError(f"older_than is not negative: {older_than}")
    return older_than


def check_seconds(name: str, seconds: float | None) -> float | None:
    """Raises ``TypeError`` unless it is a number or None, ``ValueError`` when it is negative."""
    if seconds is None:
        return None
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"{name} is a number of seconds, not {type(seconds).__name__}")
    if not seconds >= 0:
        raise ValueError(f"{name} is a number of seconds, not negative: {seconds}")
    return seconds


_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_sha256(sha256: str | None) -> str:
    """Lower-case hex, or "" for None. Raises ``ValueError`` unless it is 64 hex digits."""
    if sha256 is None:
        return ""
    if not isinstance(sha256, str):
        raise TypeError(f"sha256 is 64 hex digits in a str, not {type(sha256).__name__}")
    lowered = sha256.lower()
    if not _SHA256.fullmatch(lowered):
        raise ValueError("sha256 is 64 hex digits")
    return lowered


def check_content_type(content_type: str | None) -> str:
    """The content type, or "" for None. Raises ``TypeError`` unless it is text."""
    if content_type is not None and not isinstance(content_type, str):
        raise TypeError(f"content_type is a str, not {type(content_type).__name__}")
    return content_type or ""


def check_metadata(metadata: Mapping[str, str] | None) -> dict[str, str]:
    """Raises ``ValueError`` for more than 2 KiB in all, ``TypeError`` for what is not text."""
    if not metadata:
        return {}
    checked = dict(metadata)
    if not all(isinstance(text, str) for pair in checked.items() for text in pair):
        raise TypeError("metadata maps str to str")
    if sum(len(name.encode()) + len(value.encode()) for name, value in checked.items()) > MAX_METADATA_BYTES:
        raise ValueError(f"metadata has at most {MAX_METADATA_BYTES} bytes in all")
    return checked
