"""Files of forms that go into the temp area while they are parsed: a handler for ``FILE_UPLOAD_HANDLERS``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from inspect import signature
from types import MethodType
from typing import TYPE_CHECKING, Any

from django.core.exceptions import BadRequest, ImproperlyConfigured, RequestDataTooBig
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler, StopFutureHandlers
from django.http import HttpRequest

from .adapter import NativeAdapter, part_of
from .arguments import check_size
from .conf import get_storage_adapter
from .exceptions import ContentMismatch, ContentRejected
from .inspection import Inspect, check_inspect
from .signatures import HEAD, content_type_of
from .streams import CHUNK, ObjectReader, ObjectWriter
from .types import FinalObject, Progress, TempPart

if TYPE_CHECKING:
    _UploadedFile = UploadedFile[bytes]
else:
    _UploadedFile = UploadedFile


class UploadTooLarge(ContentRejected, RequestDataTooBig):
    """An uploaded file is larger than ``max_size``. `storage.http.storage_errors` answers 413."""

    default_code = "too_large"


class UploadCut(ContentMismatch, BadRequest):
    """The body of a request, which is a file, ended early."""


def adapter_of(alias: str, user: str) -> NativeAdapter:
    """The adapter of an alias, which must be one of this package. Raises ``ImproperlyConfigured``."""
    adapter = get_storage_adapter(alias)
    if not isinstance(adapter, NativeAdapter):
        raise ImproperlyConfigured(f"{user} works on the adapters of this package, not on {adapter!r}")
    return adapter


class AdapterUpload(_UploadedFile):
    """An uploaded file: the part ``part`` in the temp area of ``adapter``. The handler makes these.

    ``size`` is in bytes, ``sha256`` in hex. ``content_type`` is what the first bytes prove; if they prove nothing, it
    is ``stated_content_type``, which the client has sent, or "application/octet-stream". ``name``, ``charset`` and
    ``content_type_extra`` are what Django tells of any uploaded file.

    It is read as any file: the first read opens it, ``close`` closes it, ``open`` opens it again. Closing deletes
    nothing. ``save_final`` makes it a final object, and so does a save by an `AdapterStorage`. Then ``final`` is that
    object, ``part`` is gone, and the final object is what is read.
    """

    DEFAULT_CHUNK_SIZE = CHUNK

    _reader: ObjectReader | None = None
    _closed = False
    _position = 0  # where a stream that is opened begins

    def __init__(
        self,
        adapter: NativeAdapter,
        part: TempPart,
        name: str | None,
        content_type: str,
        *,
        stated_content_type: str | None = None,
        charset: str | None = None,
        content_type_extra: dict[str, Any] | None = None,
    ) -> None:
        self.adapter, self.part, self.sha256 = adapter, part, part.sha256
        self.stated_content_type = stated_content_type
        self.final: FinalObject | None = None
        super().__init__(None, name, content_type, part.size, charset, content_type_extra)

    # ---- reading; no property of Django's class knows that a file may be opened later

    @property
    def file(self) -> Any:
        """The open stream."""
        if self._closed:
            raise ValueError("I/O operation on closed file")
        if self._reader is None:
            final, adapter = self.final, self.adapter
            self._reader = adapter.get_final_stream(final) if final else adapter.get_temp_part_stream(self.part)
            self._reader.seek(self._position)
        return self._reader

    @file.setter
    def file(self, reader: Any) -> None:
        self._reader = reader

    @property
    def closed(self) -> bool:
        return self._closed or (self._reader is not None and self._reader.closed)

    def open(self, mode: str | None = None, *_: Any, **__: Any) -> AdapterUpload:
        """Go to the beginning, of a closed file too. ``mode`` is "rb" if it is given."""
        if mode not in (None, "rb"):
            raise ValueError(f"an upload is opened for reading bytes, in the mode 'rb', not {mode!r}")
        if self.closed:
            self._reader = None
        self._closed, self._position = False, 0
        if self._reader is not None:
            self._reader.seek(0)
        return self

    def close(self) -> None:
        """Close the stream. The bytes stay."""
        self._closed = True
        reader, self._reader = self._reader, None
        if reader is not None:
            reader.close()

    # ---- keeping and deleting

    def save_final(
        self,
        file_id: object,
        *,
        overwrite: bool = True,
        content_type: str | None = None,
        metadata: Mapping[str, str] | None = None,
        progress: Progress | None = None,
    ) -> FinalObject:
        """Make it a final object as ``adapter.assemble`` does, moving no byte through this process; delete the part.

        ``file_id``, ``overwrite``, ``metadata`` and ``progress`` are those of ``assemble``; ``content_type`` is that of
        the upload unless given. Raises as ``assemble`` does, and ``ValueError`` if this was done before.
        """
        if self.final is not None:
            raise ValueError(f"the upload is the final object {self.final.key!r} already: copy_final makes another one")
        final = self.adapter.assemble(
            file_id,
            [self.part],
            overwrite=overwrite,
            content_type=content_type or self.content_type,
            metadata=metadata,
            progress=progress,
        )
        self.became(final)
        return final

    def became(self, final: FinalObject) -> None:
        """It is the object ``final`` now. What is being read goes on there."""
        reader, self._reader = self._reader, None
        if reader is not None and not reader.closed:
            self._position = reader.tell()
            reader.close()
        self.final = final
        self.adapter.drop_part(self.part)

    def delete(self) -> None:
        """Delete what nobody is going to save. A sweep does that, too."""
        self.close()
        self.adapter.delete_temp_part(self.part)


class AdapterUploadHandler(FileUploadHandler):
    """Stores the files of a form as parts of an adapter while they arrive, without a temporary file.

    For ``FILE_UPLOAD_HANDLERS``, where subclasses set the three attributes; or for ``request.upload_handlers`` of a
    view, by the arguments. ``alias`` names the adapter. ``max_size`` is the size in bytes that a file may have: a
    larger one raises ``UploadTooLarge``, before it is read to its end. ``inspect`` is a function or several, as in
    ``put_final``; the name of their reader is that of the file. If one file is refused, none of the request is kept.
    """

    chunk_size = CHUNK
    alias = "default"
    max_size: int | None = None
    inspect: Any = None  # an Inspect, or a method of a subclass: no other type allows both

    file: _Incoming  # while one arrives; Django closes what has this name if another handler stops the parsing

    def __init__(
        self,
        request: HttpRequest | None = None,
        *,
        alias: str | None = None,
        max_size: int | None = None,
        inspect: Inspect | None = None,
    ) -> None:
        super().__init__(request)
        self.alias = self.alias if alias is None else alias
        self.max_size = self.max_size if max_size is None else max_size
        if self.max_size is not None:
            check_size(self.max_size)
        self._inspectors = check_inspect(_as_inspect(self.inspect) if inspect is None else inspect)
        self._parts: list[TempPart] = []
        self._is_body = False

    def handle_raw_input(
        self, input_data: Any, META: Any, content_length: int, boundary: Any, encoding: str | None = None
    ) -> None:
        self._is_body = boundary is None  # the body is the file: so Django REST framework's FileUploadParser says

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        super().new_file(*args, **kwargs)
        if self._is_body:
            self._check_size(self.content_length or 0)
        self.file = _Incoming(adapter_of(self.alias, type(self).__name__), self.content_type)
        raise StopFutureHandlers

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        with self._or_nothing():
            self._check_size(self.file.size + len(raw_data))
            self.file.write(raw_data)

    def file_complete(self, file_size: int) -> AdapterUpload:
        with self._or_nothing():
            if self._is_body and self.content_length and self.file.size < self.content_length:
                raise UploadCut(f"the body ended after {self.file.size} of its {self.content_length} bytes", op="put")
            part = self.file.finish()
            self._parts.append(part)
            upload = AdapterUpload(
                self.file.adapter,
                part,
                self.file_name,
                self.file.content_type,
                stated_content_type=self.content_type,
                charset=self.charset,
                content_type_extra=self.content_type_extra,
            )
            upload.adapter.inspect_part(upload.name or "", part, self._inspectors)
        return upload

    def upload_interrupted(self) -> None:
        if hasattr(self, "file"):  # else another handler has it
            self.file.close()

    def _check_size(self, size: int) -> None:
        if self.max_size is not None and size > self.max_size:
            raise UploadTooLarge(f"a file has at most {self.max_size:,} bytes")

    @contextlib.contextmanager
    def _or_nothing(self) -> Iterator[None]:
        """An error is that of the request: no view gets its other files."""
        try:
            yield
        except BaseException:
            self.file.close()
            while self._parts:
                self.file.adapter.drop_part(self._parts.pop())
            raise


def _as_inspect(attribute: Any) -> Any:
    """What a class has as ``inspect``. Also of a function of a reader alone Python makes a method."""
    if isinstance(attribute, MethodType):
        try:
            signature(attribute).bind(None)
        except TypeError:
            return attribute.__func__
    return attribute


class _Incoming:
    """A file that arrives. ``size`` is in bytes, so far; ``content_type`` is known as soon as its beginning is."""

    content_type = ""
    _writer: ObjectWriter | None = None

    def __init__(self, adapter: NativeAdapter, stated: str | None) -> None:
        self.adapter, self._stated = adapter, stated
        self.size = 0
        self._head = b""

    def write(self, data: bytes) -> None:
        self.size += len(data)
        if self._writer is not None:
            self._writer.write(data)
            return
        self._head += data
        if len(self._head) >= HEAD:
            self._begin()

    def finish(self) -> TempPart:
        return part_of((self._writer or self._begin()).publish())

    def _begin(self) -> ObjectWriter:
        self.content_type = content_type_of(self._head[:HEAD], self._stated)
        self._writer = self.adapter.open_part(content_type=self.content_type)
        self._writer.write(self._head)
        self._head = b""
        return self._writer

    def close(self) -> None:
        """Undo what was not finished."""
        if self._writer is not None:
            self._writer.close()
