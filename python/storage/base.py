"""The contract of a storage adapter: its promises, whatever the store is."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, cast

from .inspection import Inspect
from .streams import ObjectReader
from .types import (
    AsyncKeep,
    AsyncProgress,
    AsyncSource,
    FinalObject,
    Keep,
    Progress,
    Source,
    SweepReport,
    TempPart,
)

if TYPE_CHECKING:
    from .aio import AsyncObjectReader


class StorageAdapter(ABC):
    """Temp parts and final objects, in two areas that cannot name each other's objects.

    All or nothing: the end of the stream commits. Anything else (the stream raises, a size or digest differs, an
    interrupt, a crash) leaves the key as it was. The caller's own exceptions arrive unchanged. Threads may share an
    adapter. A copy is the same adapter, and a pickle holds its alias.
    """

    backend: ClassVar[str]
    """A stable name of the kind of store, to store in a database row."""

    _named: tuple[Callable[[str], StorageAdapter], str] | None = None
    """The function that returns this adapter by its alias, and the alias; None if the adapter was made by hand."""

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
        """Store part ``part_number`` (1 to 10,000) of the upload session ``session_id``, read from ``stream``.

        ``overwrite`` says whether it may replace the part of that number. ``progress(done, total)`` is called with
        bytes, at most ten times a second and once at the end; ``total`` is None while nobody knows it.

        Raises ``ContentMismatch`` if the stream does not have the given ``size`` (bytes) or ``sha256`` (hex);
        ``ObjectExists`` with ``overwrite=False`` if a different part is there (the same part is a success);
        ``InvalidKey``, ``StorageFull``, ``StoragePermissionError``; and whatever the stream raises.

        Some streams tell their length: a request, the answer to one, a Django or plain file. If such a stream ends
        early, that is a ``ContentMismatch`` too. A request whose body has no length that the server can give raises a
        ``StorageError`` with the code "no_length".

        An id is a ``str``, an ``int`` or a ``uuid.UUID``. Here and in every method, impossible arguments raise
        ``TypeError`` or ``ValueError`` before anything is sent.
        """

    @abstractmethod
    def get_temp_part_stream(self, temp_key: str | TempPart) -> ObjectReader:
        """Open a part. ``temp_key`` is its key, or a ``TempPart``, which also states its size and digest.

        Raises ``ObjectNotFound``; ``ContentMismatch`` if the part has changed since the ``TempPart``.
        """

    @abstractmethod
    def delete_temp_part(self, temp_key: str | TempPart) -> None:
        """Delete the part of ``temp_key``, a key or a ``TempPart``. A missing part is no error."""

    @abstractmethod
    def list_temp_parts(self, session_id: object) -> list[TempPart]:
        """All parts of the session ``session_id``, ordered by part number."""

    @abstractmethod
    def delete_temp_parts(self, session_id: object) -> int:
        """Delete all parts of the session ``session_id``. Returns how many there were."""

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
        inspect: Inspect | None = None,
    ) -> FinalObject:
        """Store a final object in one call: the bytes of ``stream``, under ``file_id``.

        ``size``, ``sha256``, ``overwrite`` and ``progress`` are as in ``put_temp_part``, and so is what is raised.

        ``content_type`` is visible ASCII of at most 255 characters. Names of ``metadata`` are HTTP tokens; no two
        differ only in case, and none begins with ``gostorage-``. Values are any text. All together has at most 1,920
        bytes in the encoded form that is sent to S3.

        ``inspect`` is a function or several, such as a virus scanner. Each is called once, with an ``ObjectReader`` of
        the whole before anything is visible. It raises ``ContentRejected`` if the bytes are not wanted, and what it
        raises reaches the caller unchanged. The bytes wait in the temp area meanwhile, and nothing is left there; after
        a crash a sweep removes them. What ``progress`` counts are the bytes on the way there. Raises ``TypeError`` for
        a coroutine function, and for a function that returns True or False.
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
        inspect: Inspect | None = None,
    ) -> FinalObject:
        """Join the parts ``temp_keys``, in that order, into the final object ``file_id``.

        The parts stay, so the call can be repeated. ``temp_keys`` are keys, or ``TempPart``s, which also state sizes
        and digests. ``overwrite``, ``content_type`` and ``metadata`` are as in ``put_final``.

        The store copies the parts if it can. The digest that they carry is used as far as it goes, and only the bytes
        after that are read. The last figure that ``progress`` gets is an ``Assembled``: it tells how many those were.
        ``inspect`` is as in ``put_final``: what is joined are exactly the parts that were inspected, and a part that is
        replaced meanwhile is a ``ContentMismatch``.

        Raises ``ObjectNotFound`` for a missing part; ``ContentMismatch`` if a ``TempPart`` has changed since, or the
        whole differs from ``size`` or ``sha256``; ``ValueError`` for no parts; else as ``put_temp_part`` does.
        """

    @abstractmethod
    def extend_digest(self, session_id: object, max_seconds: float | None = None) -> int:
        """Continue the digest of the whole over parts that arrived out of order, so ``assemble`` has less to read.

        It covers the parts 1, 2, 3 … of ``session_id`` up to the first gap, and returns how many it covers. Each part
        is read only once, over all calls. After ``max_seconds`` no further part is begun, but one is read in any case.
        None and infinity mean no limit. Raises ``ContentMismatch`` for a damaged part, ``ValueError`` for a negative
        time.
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
        """Open the final object ``key`` of ``bucket``, or ``length`` bytes of it from ``start`` (both in bytes).

        A ``FinalObject`` states the size and the digest that the object must have. With a bucket and a key, pass
        ``size`` (bytes, of the whole) and ``sha256`` (hex) for that; they also override what a ``FinalObject`` states.

        Raises ``ObjectNotFound``, and ``ContentMismatch`` if the object has another size or is known to have another
        digest. When all bytes have been read, the reader compares them with the digest, and raises ``ContentMismatch``
        then, also if the store keeps no digest.
        """

    @abstractmethod
    def stat_final(self, bucket: str | FinalObject, key: str | None = None) -> FinalObject:
        """Describe a final object as it is now, also its content type, time and metadata: see ``FinalObject``.

        ``bucket`` and ``key`` name it, or a ``FinalObject``, of which no more is used. Raises ``ObjectNotFound``.
        """

    @abstractmethod
    def list_final(self, prefix: str = "", *, start_after: str | FinalObject = "") -> Iterator[FinalObject]:
        """The final objects whose keys begin with ``prefix``, one after the other in the order of their keys.

        ``prefix`` is the beginning of whole keys as in ``FinalObject.key``, and may end anywhere; "" means all. Only
        keys after ``start_after`` are listed: a key, the beginning of one, or a ``FinalObject``. The order is that of
        the characters' code points. Some thousand objects are held at a time, however many there are.

        Size and ``modified`` are told; ``sha256`` is None where a listing cannot know it, as on S3. An object that is
        stored or deleted meanwhile may be listed or not.

        Raises ``InvalidKey`` for a prefix that no key of this adapter has; ``StorageError`` for a ``start_after`` of
        another bucket. While it is iterated, ``StorageError`` if the store cannot be listed; what a disk does not let
        us look at raises it where it would come.
        """

    @abstractmethod
    def copy_final(
        self,
        bucket: str | FinalObject,
        key: object = None,
        file_id: object = None,
        *,
        overwrite: bool = True,
    ) -> FinalObject:
        """Copy a final object to ``file_id``, with its content type, metadata and digest.

        ``copy_final(bucket, key, file_id)``, or ``copy_final(final, file_id)``: a ``FinalObject`` also states the size
        and the digest that the object must have. The store copies the bytes if it can; they are read only if it cannot,
        or does not know their SHA-256. A copy to the object's own key changes nothing.

        All or nothing, and ``overwrite`` as in ``put_final``. Raises ``ObjectNotFound`` if there is no such object;
        ``ContentMismatch`` if it has changed; ``ObjectExists`` with ``overwrite=False`` if a different object is at
        ``file_id``; else as ``put_final`` does.
        """

    @abstractmethod
    def adopt_final(self, key: str | FinalObject) -> FinalObject:
        """Take over an object that came another way, such as a direct upload. It is then like those of ``put_final``.

        ``key`` is its whole key, as in ``FinalObject.key``; a ``FinalObject`` also states the size and the digest that
        it must have. The object is read once, and its SHA-256 is stored with it. On S3 the store copies the object to
        its own key for that, and what another writer puts there meanwhile can be lost.

        Raises ``ObjectNotFound``; ``ContentMismatch`` if the object has changed, or has a digest that is not that of
        its bytes; ``StoragePermissionError`` if nothing can be stored with it.
        """

    @abstractmethod
    def url_final(
        self,
        bucket: str | FinalObject,
        key: str | None = None,
        *,
        expires: int = 3600,
        filename: str | None = None,
        content_type: str | None = None,
        method: Literal["GET", "HEAD", "PUT"] = "GET",
    ) -> str:
        """A URL by which anybody can get, describe or put a final object, for ``expires`` seconds (1 to 604,800).

        ``bucket`` and ``key`` name the object, or a ``FinalObject``, of which no more is used. It need not be there:
        for a PUT the key is ``adapter.prefix`` and a file id. ``method`` is the one that the URL allows. The URL is
        signed here, and no request is made for it. On S3 its host is that of ``public_endpoint_url``. With temporary
        credentials it ends with them at the latest.

        For GET and HEAD, ``filename`` makes the answer a download of that name (1 to 255 characters), and
        ``content_type`` is the type that the answer tells in place of the object's. For PUT, the client must send
        ``content_type`` as its Content-Type, if it is given. Pass what was put to ``adopt_final``.

        Local and memory adapters have signed URLs of the view in ``storage.urls``, without scheme and host (see
        ``request.build_absolute_uri``). One for GET also allows HEAD. There is none for PUT: ``ValueError``.

        Raises ``ImproperlyConfigured`` if that view is not included, or would not find the adapter, because no alias
        names it. Raises ``TypeError`` or ``ValueError`` for other arguments than these; ``StorageError`` without
        credentials.
        """

    @abstractmethod
    def delete_final(self, bucket: str | FinalObject, key: str | None = None) -> None:
        """Delete the final object ``key`` of ``bucket``, or that of a ``FinalObject``. A missing one is no error."""

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

        A session is removed if its newest part, and the newest piece of any part that is still arriving, are older than
        ``older_than``. So make that longer than the longest pause of a client. Before that ``keep(session_id)`` is
        called: a true result keeps the session with all its unfinished writes. Final objects are never removed.

        With ``dry_run`` the report is the same, but nothing is written. ``max_seconds`` ends the call soon after that
        time; the next call with it continues where the last one stopped, until one reports ``finished``. Sweeps may run
        beside uploads and beside each other.

        Raises ``StorageError``, and what ``keep`` raises. What cannot be removed is skipped; its error is raised at the
        end.
        """

    @abstractmethod
    def check_health(self, timeout: float = 5.0) -> None:
        """Write and remove a probe in both areas. Raises a ``StorageError`` that says what is wrong.

        Raises ``StorageTimeout`` if that takes longer than ``timeout`` seconds (finite, not negative).
        """

    @abstractmethod
    def close(self) -> None:
        """End all transfers (they raise ``StorageCancelled``) and all streams. Later calls raise ``StorageError``."""

    # The same for coroutines. An adapter that has only the methods above gets these: they call the others in threads of
    # the event loop, and a task that is cancelled leaves its call to end by itself.

    async def _async(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Await what a synchronous method gives."""
        from . import aio

        return await aio.in_thread(getattr(self, name), *args, **kwargs)

    async def aput_temp_part(
        self,
        session_id: object,
        part_number: int,
        stream: AsyncSource,
        *,
        size: int | None = None,
        sha256: str | None = None,
        overwrite: bool = True,
        progress: Progress | AsyncProgress | None = None,
    ) -> TempPart:
        """``put_temp_part`` for coroutines; here and in the methods below, everything else is as there.

        The stream may be asynchronous too: an async iterator, or anything whose ``aread(n)`` or ``read(n)`` is awaited.
        ``progress`` may be a coroutine function. What blocks is read in a few threads that all streams share.

        A task that is cancelled has undone the transfer before its ``CancelledError`` leaves. Awaited where no event
        loop of asyncio or uvloop runs, it raises ``RuntimeError``.
        """
        return cast(
            "TempPart",
            await self._async(
                "put_temp_part",
                session_id,
                part_number,
                stream,
                size=size,
                sha256=sha256,
                overwrite=overwrite,
                progress=progress,
            ),
        )

    async def aget_temp_part_stream(self, temp_key: str | TempPart) -> AsyncObjectReader:
        """``get_temp_part_stream`` for coroutines."""
        from .aio import AsyncObjectReader

        return AsyncObjectReader(await self._async("get_temp_part_stream", temp_key))

    async def adelete_temp_part(self, temp_key: str | TempPart) -> None:
        """``delete_temp_part`` for coroutines."""
        await self._async("delete_temp_part", temp_key)

    async def alist_temp_parts(self, session_id: object) -> list[TempPart]:
        """``list_temp_parts`` for coroutines."""
        return cast("list[TempPart]", await self._async("list_temp_parts", session_id))

    async def adelete_temp_parts(self, session_id: object) -> int:
        """``delete_temp_parts`` for coroutines."""
        return cast("int", await self._async("delete_temp_parts", session_id))

    async def aput_final(
        self,
        file_id: object,
        stream: AsyncSource,
        *,
        size: int | None = None,
        sha256: str | None = None,
        overwrite: bool = True,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        progress: Progress | AsyncProgress | None = None,
        inspect: Inspect | None = None,
    ) -> FinalObject:
        """``put_final`` for coroutines. The functions of ``inspect`` are called in a thread of the loop.

        None of them can be stopped: after a cancellation one that runs goes on, and what it says counts no more.
        """
        return cast(
            "FinalObject",
            await self._async(
                "put_final",
                file_id,
                stream,
                size=size,
                sha256=sha256,
                overwrite=overwrite,
                content_type=content_type,
                metadata=metadata,
                inspect=inspect,
                progress=progress,
            ),
        )

    async def aassemble(
        self,
        file_id: object,
        temp_keys: Sequence[str | TempPart],
        *,
        size: int | None = None,
        sha256: str | None = None,
        overwrite: bool = True,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        progress: Progress | AsyncProgress | None = None,
        inspect: Inspect | None = None,
    ) -> FinalObject:
        """``assemble`` for coroutines."""
        return cast(
            "FinalObject",
            await self._async(
                "assemble",
                file_id,
                temp_keys,
                size=size,
                sha256=sha256,
                overwrite=overwrite,
                content_type=content_type,
                metadata=metadata,
                inspect=inspect,
                progress=progress,
            ),
        )

    async def aextend_digest(self, session_id: object, max_seconds: float | None = None) -> int:
        """``extend_digest`` for coroutines."""
        return cast("int", await self._async("extend_digest", session_id, max_seconds))

    async def aget_final_stream(
        self,
        bucket: str | FinalObject,
        key: str | None = None,
        *,
        start: int = 0,
        length: int | None = None,
        size: int | None = None,
        sha256: str | None = None,
    ) -> AsyncObjectReader:
        """``get_final_stream`` for coroutines."""
        from .aio import AsyncObjectReader

        return AsyncObjectReader(
            await self._async("get_final_stream", bucket, key, start=start, length=length, size=size, sha256=sha256)
        )

    async def astat_final(self, bucket: str | FinalObject, key: str | None = None) -> FinalObject:
        """``stat_final`` for coroutines."""
        return cast("FinalObject", await self._async("stat_final", bucket, key))

    def alist_final(self, prefix: str = "", *, start_after: str | FinalObject = "") -> AsyncIterator[FinalObject]:
        """``list_final`` as an async iterator."""
        from . import aio

        return aio.listed(functools.partial(self.list_final, prefix, start_after=start_after))

    async def acopy_final(
        self,
        bucket: str | FinalObject,
        key: object = None,
        file_id: object = None,
        *,
        overwrite: bool = True,
    ) -> FinalObject:
        """``copy_final`` for coroutines."""
        return cast("FinalObject", await self._async("copy_final", bucket, key, file_id, overwrite=overwrite))

    async def aadopt_final(self, key: str | FinalObject) -> FinalObject:
        """``adopt_final`` for coroutines."""
        return cast("FinalObject", await self._async("adopt_final", key))

    async def aurl_final(
        self,
        bucket: str | FinalObject,
        key: str | None = None,
        *,
        expires: int = 3600,
        filename: str | None = None,
        content_type: str | None = None,
        method: Literal["GET", "HEAD", "PUT"] = "GET",
    ) -> str:
        """``url_final`` for coroutines."""
        return cast(
            "str",
            await self._async(
                "url_final", bucket, key, expires=expires, filename=filename, content_type=content_type, method=method
            ),
        )

    async def adelete_final(self, bucket: str | FinalObject, key: str | None = None) -> None:
        """``delete_final`` for coroutines."""
        await self._async("delete_final", bucket, key)

    async def asweep(
        self,
        older_than: timedelta,
        *,
        keep: Keep | AsyncKeep | None = None,
        dry_run: bool = False,
        max_seconds: float | None = None,
    ) -> SweepReport:
        """``sweep`` for coroutines.

        ``keep`` may be a coroutine function. Another one is called where Django allows database queries.
        """
        return cast(
            "SweepReport", await self._async("sweep", older_than, keep=keep, dry_run=dry_run, max_seconds=max_seconds)
        )

    async def acheck_health(self, timeout: float = 5.0) -> None:
        """``check_health`` for coroutines."""
        await self._async("check_health", timeout)

    async def aclose(self) -> None:
        """``close`` for coroutines."""
        await self._async("close")
