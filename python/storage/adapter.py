"""Implements the contract with two stores of the Go side, one for temp parts and one for final objects."""

from __future__ import annotations

import hashlib
import logging
import sys
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal, cast

from django.core.exceptions import ImproperlyConfigured

from . import _loader, conf, native
from .arguments import (
    MAX_PART_NUMBER,
    MAX_SECONDS,
    check_age,
    check_beginning,
    check_callable,
    check_content_type,
    check_expected,
    check_expires,
    check_file_id,
    check_filename,
    check_final,
    check_flag,
    check_key,
    check_max_seconds,
    check_metadata,
    check_method,
    check_part,
    check_part_number,
    check_parts,
    check_range,
    check_seconds,
    check_session_id,
)
from .base import StorageAdapter
from .exceptions import ContentMismatch, InvalidKey, StorageError
from .inspection import Inspect, Inspector, PartsReader, ask, check_inspect
from .steps import Steps, World, operation, run, waits
from .streams import Meter, ObjectReader, ObjectWriter, exact_length
from .sweep import Sweep
from .types import Assembled, FinalObject, Keep, Progress, Source, SweepReport, TempPart

FIRST_PAGE, PAGE = 1000, 8000
"""How many objects of a listing are held: fewer at first, for whoever wants only some."""

Parts = list[tuple[str, dict[str, Any]]]
"""The keys of parts, and what is expected of each; see `check_parts`."""

logger = logging.getLogger("storage")


class NativeAdapter(StorageAdapter):
    """What all adapters have in common; each kind of store adds its configuration."""

    bucket = ""
    carry_digest: bool
    """Whether each part carries the digest of the whole so far, for the next part to continue."""
    prefix = ""
    """The prefix of a file id in the key of a final object."""

    def __init__(self, *, carry_digest: bool = True) -> None:
        self.carry_digest = carry_digest
        self._stores = native.number(), native.number()
        self._opened: int | None = None  # the generation in which they were opened
        self._closed = False

    def _configurations(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The configurations of the temp store and of the final store."""
        raise NotImplementedError

    def _open(self) -> tuple[int, int]:
        if self._opened != _loader.generation or self._closed:
            with native.lock():
                if self._closed:
                    raise StorageError("the adapter was closed", code="closed")
                if self._opened != _loader.generation:  # a forked child opens its own stores
                    native.set_budget(conf.memory_budget())
                    for store, configuration in zip(self._stores, self._configurations(), strict=True):
                        native.open_store(store, configuration)
                    self._opened = _loader.generation
        return self._stores

    def stores(self) -> dict[str, int]:
        """The stores of the Go side by area, "temp" and "final", for ``storage.native``."""
        temp, final = self._open()
        return {"temp": temp, "final": final}

    @property
    def _temp(self) -> int:
        return self._open()[0]

    @property
    def _final(self) -> int:
        return self._open()[1]

    def close(self) -> None:
        self._closed = True
        if native.loaded():
            for store in self._stores:
                native.close_store(store)

    async def _async(self, name: str, *args: Any, **kwargs: Any) -> Any:
        if not self._is_ours(name):
            return await super()._async(name, *args, **kwargs)
        return await self._drive(name, getattr(type(self), name).steps, *args, **kwargs)

    def _is_ours(self, name: str) -> bool:
        """Whether a method is an operation; a subclass or a test may have put another one in its place."""
        return name not in vars(self) and (
            hasattr(getattr(type(self), name), "steps") or getattr(type(self), name) is NativeAdapter.list_final
        )

    async def _drive(self, name: str, steps: Callable[..., Steps[Any]], *args: Any, **kwargs: Any) -> Any:
        import asyncio

        from . import aio

        aio.running(name)
        if self._opened != _loader.generation:
            await asyncio.to_thread(self._open)  # to load the extension takes long
        return await aio.drive(steps, self, *args, **kwargs)

    def __del__(self, ending: Callable[[], bool] = sys.is_finalizing) -> None:  # globals may be gone by then
        if hasattr(self, "_closed") and not ending():
            self.close()

    @operation
    def put_temp_part(
        self,
        world: World,
        session_id: object,
        part_number: int,
        stream: Source,
        *,
        size: int | None = None,
        sha256: str | None = None,
        overwrite: bool = True,
        progress: Progress | None = None,
    ) -> Steps[TempPart]:
        number = check_part_number(part_number, "put")
        key = f"{check_session_id(session_id, 'put')}/{number:05d}"
        options: dict[str, Any] = {} if check_flag("overwrite", overwrite) else {"overwrite": False}
        if self.carry_digest:
            options["carry"] = True
        stored = yield from self._put(world, "_temp", key, stream, size, sha256, progress, **options)
        return TempPart(stored["key"], number, stored["size"], stored["sha256"])

    @operation
    def put_final(
        self,
        world: World,
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
    ) -> Steps[FinalObject]:
        key = check_file_id(file_id, "put")
        options: dict[str, Any] = {} if check_flag("overwrite", overwrite) else {"overwrite": False}
        if content_type := check_content_type(content_type, "put"):
            options["content_type"] = content_type
        if described := check_metadata(metadata, "put"):
            options["metadata"] = described
        if inspectors := check_inspect(inspect):

            def join(part: TempPart) -> Steps[FinalObject]:
                return self._assemble(
                    world, key, [part], {}, None, overwrite, content_type, metadata=metadata, inspectors=inspectors
                )

            return (yield from self._staged(world, key, stream, size, sha256, progress, content_type, join))
        stored = yield from self._put(world, "_final", key, stream, size, sha256, progress, **options)
        return self._final_object(stored)

    def _staged(
        self,
        world: World,
        key: str,
        stream: Source,
        size: int | None,
        sha256: str | None,
        progress: Progress | None,
        content_type: str | None,
        join: Callable[[TempPart], Steps[FinalObject]],
    ) -> Steps[FinalObject]:
        """Put the bytes as a part, which is deleted at the end, and join that."""
        part_key = _only_part()
        try:
            try:
                stored = yield from self._put(
                    world, "_temp", part_key, stream, size, sha256, progress, **_form(content_type)
                )
            except BaseException as error:
                interrupted = not isinstance(error, Exception | GeneratorExit)
                if interrupted and (yield world.settled()):  # it may have been stored before that
                    yield from self._drop(world, part_key)
                raise
            try:
                return (yield from join(part_of(stored)))
            finally:
                if isinstance(sys.exception(), GeneratorExit):  # nobody carries out steps any more
                    run(self._drop(waits, part_key))
                else:
                    yield from self._drop(world, part_key)
        except StorageError as error:
            if error.key == part_key:
                error.key = key  # the caller knows nothing of the part
            raise

    def drop_part(self, part: TempPart) -> None:
        """Delete a part of which nobody knows. If that is not possible, a sweep removes it."""
        run(self._drop(waits, part.key))

    def _drop(self, world: World, key: str) -> Steps[None]:
        error = sys.exception()
        seconds = world.undo_seconds if error is not None and not isinstance(error, Exception) else None
        try:
            yield world.call_within(seconds, self._temp, "delete", key=key, temp=True)
        except StorageError as failed:
            logger.warning("the part %r is left for a sweep: %s", key, failed)

    def create_final(
        self, file_id: object, stream: Source, *, size: int | None = None, content_type: str | None = None
    ) -> FinalObject:
        """``put_final`` for `storage.files`: an object of the same bytes is in the way, too, with ``ObjectExists``."""
        options = {"overwrite": False, "new": True, "content_type": check_content_type(content_type, "put")}
        key = check_file_id(file_id, "put")
        return self._final_object(run(self._put(waits, "_final", key, stream, size, None, None, **options)))

    def create_final_of(self, file_id: object, part: TempPart, *, content_type: str | None = None) -> FinalObject:
        """The same of a part that is there, by ``assemble``."""
        key = check_file_id(file_id, "assemble")
        return run(self._assemble(waits, key, [part], {}, None, False, content_type, new=True))

    def open_part(self, *, content_type: str) -> ObjectWriter:
        """A stream whose ``publish`` stores what was written to it as the only part of a session; see `part_of`."""
        return ObjectWriter(self, native.Call(self._temp, "put", _only_part(), **_form(content_type)))

    def open_final(self, file_id: object, *, content_type: str | None = None) -> ObjectWriter:
        """A stream whose ``publish`` stores what was written to it; it replaces what is at ``file_id``."""
        key = check_file_id(file_id, "put")
        return ObjectWriter(
            self, native.Call(self._final, "put", key, content_type=check_content_type(content_type, "put"))
        )

    def _put(
        self,
        world: World,
        area: str,
        key: str,
        stream: Source,
        size: int | None,
        sha256: str | None,
        progress: Progress | None,
        **options: Any,
    ) -> Steps[dict[str, Any]]:
        options |= check_expected(size, sha256, "put")
        check_callable("progress", progress, "two numbers of bytes")
        stored: dict[str, Any]
        if type(stream) is bytes and len(stream) <= native.SHORT and progress is None:
            stored = yield world.call(getattr(self, area), "put", key=key, whole=stream, **options)
            return stored
        world.check_source(stream)
        length = yield world.known_length(stream)
        if (whole := exact_length(stream, length)) is not None:
            options.setdefault("size", whole)  # what is known to fit into one request is not sent in parts
        meter = Meter(progress, options.get("size"))
        with world.transfer(getattr(self, area), "put", key=key, **options) as call:
            done = yield world.pump(stream, call, meter)
            if length is not None and done < length:
                raise ContentMismatch(f"the stream ended after {done} of its {length} bytes", op="put", key=key)
            yield meter.final(done)
            call.finish()
            stored = yield call.wait()
            return stored

    @operation
    def assemble(
        self,
        world: World,
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
    ) -> Steps[FinalObject]:
        key, expected = check_file_id(file_id, "assemble"), check_expected(size, sha256, "assemble")
        return self._assemble(
            world,
            key,
            temp_keys,
            expected,
            progress,
            overwrite,
            content_type,
            metadata=metadata,
            inspectors=check_inspect(inspect),
        )

    def _assemble(
        self,
        world: World,
        key: str,
        temp_keys: Sequence[str | TempPart],
        expected: dict[str, Any],
        progress: Progress | None,
        overwrite: bool,
        content_type: str | None,
        *,
        metadata: Mapping[str, str] | None = None,
        new: bool = False,
        inspectors: Sequence[Inspector] = (),
    ) -> Steps[FinalObject]:
        parts = check_parts(temp_keys, "assemble")
        check_callable("progress", progress, "two numbers of bytes")
        arguments: dict[str, Any] = {
            **expected,
            "overwrite": check_flag("overwrite", overwrite),
            "new": new,
            "content_type": check_content_type(content_type, "assemble"),
            "metadata": check_metadata(metadata, "assemble"),
            "temp_store": self._temp,
        }
        if inspectors:
            parts = yield world.aside(self._inspected, key, parts, inspectors)
        arguments["parts"] = _as_arguments(parts)
        sizes = [stated["size"] for _, stated in parts if "size" in stated]
        meter = Meter(progress, expected.get("size", sum(sizes) if len(sizes) == len(parts) else None))
        with world.transfer(self._final, "assemble", key=key, **arguments) as call:
            while (figures := (yield call.poll())) is None:
                if progress is not None:
                    yield meter(call.progress())
            yield meter.final(Assembled(call.progress(), figures["copied"], figures["read"]))
            call.finish()
            stored = yield call.wait()
        logger.info(
            "assembled %r of %d parts: %d bytes, %d copied by the store, %d read here",
            key,
            len(parts),
            stored["size"],
            stored["copied"],
            stored["read"],
            extra={"copied": stored["copied"], "read": stored["read"]},
        )
        return self._final_object(stored)

    def _inspected(self, key: str, parts: Parts, inspectors: Sequence[Inspector]) -> Parts:
        """The parts as they were inspected: each with its size and digest."""
        pinned = self._pinned(key, parts)
        self._show(self.prefix + key, pinned, inspectors)
        return pinned

    def inspect_part(self, name: str, part: TempPart, inspectors: Sequence[Inspector]) -> None:
        """Have one part inspected, by readers of that name."""
        self._show(name, check_parts([part]), inspectors)

    def _show(self, name: str, pinned: Parts, inspectors: Sequence[Inspector]) -> None:
        sizes = [stated["size"] for _, stated in pinned]
        sha256 = pinned[0][1]["sha256"] if len(pinned) == 1 else None
        for inspector in inspectors:
            ask(
                inspector,
                PartsReader(name, sizes, sha256, lambda number: run(self._reader(waits, self._temp, *pinned[number]))),
            )

    def _pinned(self, key: str, parts: Parts) -> Parts:
        if all({"size", "sha256"} <= stated.keys() for _, stated in parts):
            return parts
        there = native.call(self._temp, "describe", key=key, parts=_as_arguments(parts))["objects"]
        return [
            (part, {"size": info["size"], "sha256": info["sha256"] or stated.get("sha256") or self._digest(part, info)})
            for (part, stated), info in zip(parts, there, strict=True)
        ]

    def _digest(self, part: str, info: dict[str, Any]) -> str:
        """The digest of a part of which the store does not know it."""
        with run(self._reader(waits, self._temp, part, {"size": info["size"]})) as reader:
            return hashlib.file_digest(reader, "sha256").hexdigest()

    @operation
    def extend_digest(self, world: World, session_id: object, max_seconds: float | None = None) -> Steps[int]:
        prefix = check_session_id(session_id, "extend") + "/"
        seconds = check_max_seconds(max_seconds)
        seconds = MAX_SECONDS if seconds is None else seconds
        extended = yield world.call(self._temp, "extend", prefix=prefix, seconds=seconds)
        return cast("int", extended["count"])

    @operation
    def get_temp_part_stream(self, world: World, temp_key: str | TempPart) -> Steps[ObjectReader]:
        return self._reader(world, self._temp, *check_part(temp_key, "get"))

    @operation
    def delete_temp_part(self, world: World, temp_key: str | TempPart) -> Steps[None]:
        yield world.call(self._temp, "delete", key=check_part(temp_key, "delete")[0], temp=True)

    @operation
    def list_temp_parts(self, world: World, session_id: object) -> Steps[list[TempPart]]:
        listed = yield world.call(self._temp, "list", prefix=check_session_id(session_id, "list") + "/")
        parts = [(item, _part_number(item["key"])) for item in listed["objects"] or ()]
        return [TempPart(item["key"], number, item["size"], item["sha256"] or None) for item, number in parts if number]

    @operation
    def delete_temp_parts(self, world: World, session_id: object) -> Steps[int]:
        prefix = check_session_id(session_id, "delete_all") + "/"
        deleted = yield world.call(self._temp, "delete_all", prefix=prefix)
        return cast("int", deleted["count"])

    @operation
    def get_final_stream(
        self,
        world: World,
        bucket: str | FinalObject,
        key: str | None = None,
        *,
        start: int = 0,
        length: int | None = None,
        size: int | None = None,
        sha256: str | None = None,
    ) -> Steps[ObjectReader]:
        start, length = check_range(start, length, "get")
        name, wanted = self._final_key(bucket, key, "get")
        wanted |= check_expected(size, sha256, "get")
        if start:
            wanted["start"] = start
        if length is not None:
            wanted["length"] = length
        return self._reader(world, self._final, name, wanted, start=start, length=length)

    @operation
    def stat_final(self, world: World, bucket: str | FinalObject, key: str | None = None) -> Steps[FinalObject]:
        return self._final_object((yield world.call(self._final, "stat", key=self._final_key(bucket, key, "stat")[0])))

    def list_final(self, prefix: str = "", *, start_after: str | FinalObject = "") -> Iterator[FinalObject]:
        return self._listed(self._below(prefix), self._after(start_after))

    def alist_final(self, prefix: str = "", *, start_after: str | FinalObject = "") -> AsyncIterator[FinalObject]:
        if not self._is_ours("list_final"):
            return super().alist_final(prefix, start_after=start_after)
        return self._alisted(self._below(prefix), self._after(start_after))

    @operation
    def copy_final(
        self,
        world: World,
        bucket: str | FinalObject,
        key: object = None,
        file_id: object = None,
        *,
        overwrite: bool = True,
    ) -> Steps[FinalObject]:
        if isinstance(bucket, FinalObject) and file_id is None:
            key, file_id = None, key
        target = check_file_id(file_id, "copy")
        source, stated = self._final_key(bucket, cast("str | None", key), "copy")
        overwrite = check_flag("overwrite", overwrite)
        parts = [{"key": source, **stated}]
        copied = yield world.call(self._final, "copy", key=target, parts=parts, overwrite=overwrite)
        return self._final_object(copied)

    @operation
    def adopt_final(self, world: World, key: str | FinalObject) -> Steps[FinalObject]:
        bucket = key.bucket if isinstance(key, FinalObject) else self.bucket
        name, stated = self._final_key(bucket, key, "adopt")
        return self._final_object((yield world.call(self._final, "adopt", key=name, **stated)))

    @operation
    def url_final(
        self,
        world: World,
        bucket: str | FinalObject,
        key: str | None = None,
        *,
        expires: int = 3600,
        filename: str | None = None,
        content_type: str | None = None,
        method: Literal["GET", "HEAD", "PUT"] = "GET",
    ) -> Steps[str]:
        name, _ = self._final_key(bucket, key, "url")
        link: dict[str, Any] = {"method": check_method(method), "seconds": check_expires(expires)}
        link["content_type"] = check_content_type(content_type, "url")
        if link["method"] == "PUT" and filename is not None:
            raise ValueError("filename is about an answer: it goes with GET and HEAD")
        link["filename"] = None if filename is None else check_filename(filename, "url")
        return self._url(world, name, link)

    def _url(self, world: World, key: str, link: dict[str, Any]) -> Steps[str]:
        """The URL of a view of ours. A store that makes URLs itself has its own way."""
        from .links import url_of  # only who needs a URL imports the views

        if link["method"] == "PUT":
            raise ValueError("method PUT is for S3: an object of this adapter is stored by put_final")
        self._check_named()
        yield None  # so that it is an operation: nothing takes long
        return url_of(FinalObject(self.bucket, self.prefix + key, None, None), **link)

    def _check_named(self) -> None:
        """Raises ``ImproperlyConfigured`` if the view, which knows only the bucket, would not find this adapter."""
        if self._named is None:
            raise ImproperlyConfigured(
                "url_final: the view that serves an object finds its adapter by the settings, and this one was made by"
                f" hand: set it in {conf.SETTING}, and use get_storage_adapter"
            )
        if conf.get_storage_adapter(bucket=self.bucket)._named != self._named:
            raise ImproperlyConfigured(f"url_final: the bucket {self.bucket!r} is now that of another adapter")

    def _listed(self, prefix: str, after: str | None) -> Iterator[FinalObject]:
        most = FIRST_PAGE
        while after is not None:
            page, after = run(self._page(waits, prefix, after, most))
            yield from map(self._listed_object, page)
            most = PAGE

    async def _alisted(self, prefix: str, after: str | None) -> AsyncIterator[FinalObject]:
        most = FIRST_PAGE
        while after is not None:
            page, after = await self._drive("list_final", NativeAdapter._page, prefix, after, most)
            for item in page:
                yield self._listed_object(item)
            most = PAGE

    def _page(self, world: World, prefix: str, after: str, most: int) -> Steps[tuple[list[dict[str, Any]], str | None]]:
        """Some objects, and where the page after them begins."""
        page = yield world.call(self._final, "list", prefix=prefix, after=after, most=most)
        return page["objects"], page["objects"][-1]["key"] if page["more"] else None

    def _listed_object(self, item: dict[str, Any]) -> FinalObject:
        key, modified = self.prefix + item["key"], native.moment(item["modified"])
        return FinalObject(self.bucket, key, item["size"], item["sha256"] or None, modified=modified)

    def _below(self, prefix: str) -> str:
        """The prefix of keys without ours."""
        prefix = check_beginning("prefix", prefix, "list")
        if self.prefix.startswith(prefix):
            return ""
        if not prefix.startswith(self.prefix):
            raise InvalidKey(f"a prefix of final objects begins with {self.prefix!r}", op="list", key=prefix)
        folder, slash, _ = prefix[len(self.prefix) :].rpartition("/")
        if slash:
            check_key(folder, "list")
        return prefix[len(self.prefix) :]

    def _after(self, start_after: str | FinalObject) -> str | None:
        """The key after which a listing begins, without our prefix; None if all objects come before it."""
        if isinstance(start_after, FinalObject):
            self._check_bucket(start_after.bucket, start_after.key, "list")
            start_after = start_after.key
        after = check_beginning("start_after", start_after, "list")
        if after.startswith(self.prefix):
            return after[len(self.prefix) :]
        return "" if after < self.prefix else None

    @operation
    def delete_final(self, world: World, bucket: str | FinalObject, key: str | None = None) -> Steps[None]:
        yield world.call(self._final, "delete", key=self._final_key(bucket, key, "delete")[0])

    @operation
    def sweep(
        self,
        world: World,
        older_than: timedelta,
        *,
        keep: Keep | None = None,
        dry_run: bool = False,
        max_seconds: float | None = None,
    ) -> Steps[SweepReport]:
        check_callable("keep", keep, "a session id")
        older_than, max_seconds = check_age(older_than), check_max_seconds(max_seconds)
        return Sweep(self, world, older_than, keep, check_flag("dry_run", dry_run), max_seconds).run()

    @operation
    def check_health(self, world: World, timeout: float = 5.0) -> Steps[None]:
        end = time.monotonic() + check_seconds("timeout", timeout)
        self._check_configuration()
        for store in self._open():
            yield world.call_within(max(0.0, end - time.monotonic()), store, "check")

    def _check_configuration(self) -> None:
        """Raises ``ImproperlyConfigured`` for what has changed since the adapter was made."""

    def _reader(
        self, world: World, store: int, key: str, wanted: dict[str, Any], *, start: int = 0, length: int | None = None
    ) -> Steps[ObjectReader]:
        with world.transfer(store, "get", key, holds=not start and length is None, **wanted) as call:
            opened = yield call.wait()
            return ObjectReader(self, call.number, opened, start=start, length=length)

    def _final_object(self, stored: dict[str, Any]) -> FinalObject:
        description = native.described(stored["description"]) if "description" in stored else ()
        key, sha256 = self.prefix + stored["key"], stored["sha256"] or None
        return FinalObject(self.bucket, key, stored["size"], sha256, *description)

    def _final_key(
        self, bucket: str | FinalObject, key: str | FinalObject | None, op: str
    ) -> tuple[str, dict[str, Any]]:
        """The key without our prefix, and the size and digest that a `FinalObject` states; see `check_expected`."""
        bucket, key, expected = check_final(bucket, key, op)
        self._check_bucket(bucket, key, op)
        if not key.startswith(self.prefix):
            raise InvalidKey(
                f"the keys of final objects begin with {self.prefix!r}: use FinalObject.key", op=op, key=key
            )
        return check_key(key[len(self.prefix) :], op), expected

    def _check_bucket(self, bucket: str, key: str, op: str) -> None:
        if bucket != self.bucket:
            raise StorageError(
                f"this adapter has the bucket {self.bucket!r}, not {bucket[:100]!r}", code="bucket", op=op, key=key
            )


def bucket_of(value: str) -> str:
    """The name of a store that has no buckets. Raises ``ValueError``."""
    try:
        bucket = check_key(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"is a name such as 'local': {error}") from None
    if bucket != bucket.strip():
        raise ValueError("has a blank at its ends: take it away")
    return bucket


def _only_part() -> str:
    """The key of the part of a session of its own."""
    return f"{uuid.uuid4()}/00001"


def _form(content_type: str | None) -> dict[str, Any]:
    """Options of a part that is going to be an object as it is: its digest is known and need not be read, and on a disk
    it is a second name of the file."""
    return {"carry": True, "content_type": content_type}


def part_of(stored: dict[str, Any]) -> TempPart:
    """The part of a session of its own, of what the Go side says of it."""
    return TempPart(stored["key"], 1, stored["size"], stored["sha256"])


def _as_arguments(parts: Parts) -> list[dict[str, Any]]:
    return [{"key": part, **stated} for part, stated in parts]


def _part_number(key: str) -> int:
    """The part number in a temp key, or 0 if the file is no part."""
    name = key.rpartition("/")[2]
    number = int(name) if len(name) == 5 and name.isascii() and name.isdigit() else 0
    return number if number <= MAX_PART_NUMBER else 0
