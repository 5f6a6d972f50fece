"""What a storage adapter is: the promises it makes, whatever it stores on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import ClassVar, Self

from .streams import ObjectReader
from .types import FinalObject, Keep, Progress, Source, SweepReport, TempPart


class StorageAdapter(ABC):
    """Temp parts and final objects, in two areas that cannot name each other's objects.

    All or nothing: the end of the stream means commit. Anything else (the stream raises, a size or digest differs, an
    interrupt, a crash) leaves the key as it was, and the caller's own exception arrives unchanged. Adapters are safe
    to share between threads. A copy of one is the same adapter, and a pickle says its alias.
    """

    backend: ClassVar[str]
    """A stable name of the kind of store, to be kept in a database row."""

    _named: tuple[Callable[[str], StorageAdapter], str] | None = None
    """What gives this adapter by its alias, and the alias; None of one made by hand."""

    def __copy__(self) -> Self:
        return self

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Callable[[str], StorageAdapter], tuple[str]]:
        if self._named is None:
            raise TypeError(
                f"a {type(self).__name__} made by hand cannot be pickled: name it in STORAGE_ADAPTERS, and pickle what"
                " get_storage_adapter(alias) gives, or the alias"
            )
        get, alias = self._named
        return get, (alias,)

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

        A stream that tells how long it is (a request, the answer to one, a Django or plain file) and ends before that
        is a ``ContentMismatch`` too, and a request whose body has no length that the server can give a
        ``StorageError`` with the code "no_length".

        An id is a ``str``, an ``int`` or a ``uuid.UUID``. Arguments that cannot be are refused before anything is sent,
        by a ``TypeError`` or ``ValueError``, here and in every method.
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
        """Store a final object in one go. Raises as ``put_temp_part`` does.

        ``content_type`` is visible ASCII of at most 255 characters. Names of ``metadata`` are HTTP tokens that differ
        not only in case and do not begin with ``gostorage-``; values are any text; 1,920 bytes in all, in the encoded
        form in which S3 is sent them.
        """

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
        After ``max_seconds`` none is begun, but one is read in any case; None and infinity are no end. Raises
        ``ContentMismatch`` for a damaged part, ``ValueError`` for a negative time.
        """

    @abstractmethod
    def get_final_stream(
        self,
        bucket: str | FinalObject,
        key: str | None = None,
        *,
        start: int = 0,
        length: int | None = None,
        size: int | None = None,
        sha256: str | None = None,
    ) -> ObjectReader:
        """Open a final object, or ``length`` bytes of it from ``start`` (both in bytes).

        A ``FinalObject`` states the size and the digest that the object must have; ``size`` (bytes, of the whole) and
        ``sha256`` (hex) say so for those who hold a bucket and a key, and come before what a ``FinalObject`` carries.

        Raises ``ObjectNotFound``, and ``ContentMismatch`` when the object has another size or is known to have another
        digest. The bytes are compared with the digest when all of them have been read: the reader raises
        ``ContentMismatch`` then, also where the store keeps no digest.
        """

    @abstractmethod
    def stat_final(self, bucket: str | FinalObject, key: str | None = None) -> FinalObject:
        """Describe a final object as it is now: a ``FinalObject`` only names it. Raises ``ObjectNotFound``."""

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

        ``StorageTimeout`` when that takes longer than ``timeout`` seconds, which are finite and not negative.
        """

    @abstractmethod
    def close(self) -> None:
        """End all transfers (they raise ``StorageCancelled``) and streams. Later calls raise ``StorageError``."""
