"""Django's file storage over an adapter: for ``STORAGES``, file fields, the admin and ``collectstatic``."""

from __future__ import annotations

import hashlib
import io
import mimetypes
import os
import posixpath
import sys
import uuid
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import PurePosixPath
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured, SuspiciousFileOperation
from django.core.files import File
from django.core.files.storage import Storage
from django.utils.deconstruct import deconstructible
from django.utils.encoding import filepath_to_uri

from .adapter import FIRST_PAGE, NativeAdapter
from .arguments import check_content_type, check_expires, check_key
from .exceptions import ObjectExists, ObjectNotFound, StorageError
from .local import LocalStorageAdapter
from .streams import CHUNK, ObjectReader, ObjectWriter
from .types import FinalObject
from .uploads import AdapterUpload, AdapterUploadHandler, UploadTooLarge, adapter_of

if TYPE_CHECKING:
    _File = File[Any]
else:
    _File = File

__all__ = ["AdapterStorage", "AdapterUpload", "AdapterUploadHandler", "StoredFile", "UploadTooLarge"]

MODES = {"rb": "rb", "r": "r", "rt": "r", "wb": "wb", "w": "w", "wt": "w"}

UNKNOWN_TYPE = "application/octet-stream"
"""What a store says of an object that was stored without a content type."""

_TRIES = 100
"""How many names are tried in a save. Each has lost against another writer, so one is nearly always enough."""

_max_length: ContextVar[int | None] = ContextVar("max_length", default=None)
"""The longest name that the running `save` may choose: `_save` is not told."""

_COMPRESSED = {
    "br": "application/x-brotli",
    "bzip2": "application/x-bzip",
    "compress": "application/x-compress",
    "gzip": "application/gzip",
    "xz": "application/x-xz",
}


@deconstructible(path="storage.files.AdapterStorage")
class AdapterStorage(Storage):
    """Files are final objects of the adapter ``alias``, with names below ``location``.

    ``url`` is ``base_url`` and the name; without a base URL it is a signed one of the adapter, by ``url_final``, that
    expires after ``querystring_expire`` seconds (1 to 604,800). The adapter is looked up by its alias at each use, so
    tests may override the settings.

    With ``skip_unchanged``, which is for static files, a save replaces the file of its name, and sends nothing if that
    has the same content. And for ``get_modified_time`` a file is as new as the static file that it is a copy of: so
    ``collectstatic`` sends what differs, whatever the times of a fresh checkout are.

    Errors are those of the adapter: a missing file is a ``FileNotFoundError``, a name that no key can have a
    ``ValueError``. A name that leaves ``location`` is a ``SuspiciousFileOperation``.
    """

    def __init__(
        self,
        alias: str = "default",
        location: str = "",
        base_url: str | None = None,
        querystring_expire: int = 3600,
        skip_unchanged: bool = False,
    ) -> None:
        self.alias = alias
        self.location = _location(location)
        self.base_url = base_url
        self.querystring_expire = check_expires(querystring_expire)
        self.skip_unchanged = skip_unchanged

    @property
    def adapter(self) -> NativeAdapter:
        """The adapter as it is set now. Raises ``ImproperlyConfigured``."""
        return adapter_of(self.alias, "AdapterStorage")

    def __eq__(self, other: object) -> bool:
        """Whether it is of the same class and was given the same arguments."""
        if type(other) is not type(self):
            return NotImplemented
        return bool(cast("Any", self).deconstruct()[1:] == cast("Any", other).deconstruct()[1:])

    def __hash__(self) -> int:
        return hash((type(self), self.alias, self.location))

    # ---- reading and writing

    def _open(self, name: str, mode: str = "rb") -> StoredFile:
        return StoredFile(self, name, mode)

    def stream(self, name: str, mode: str) -> ObjectReader | ObjectWriter:
        """The bytes of the file ``name``, opened in ``mode``, for `StoredFile`."""
        if mode.startswith("w"):
            return self.adapter.open_final(self._file_id(name), content_type=type_of_name(name))
        return self.adapter.get_final_stream(*self._key(name))

    def save(self, name: str | None, content: Any, max_length: int | None = None) -> str:
        """Store ``content``, from its beginning, as a new file ``name``, and return its name.

        The name is another one, of ``max_length`` characters at most, if there is such a file already, even one with
        the same bytes: each file has one owner, who may delete it. The store itself decides that, so two saves at once
        have two names. The content is neither closed nor read twice, unless another writer takes the name meanwhile and
        the content can seek.

        With ``skip_unchanged`` it keeps its name, and what can seek is read before, to compare it.
        """
        token = _max_length.set(max_length)
        try:
            return super().save(name, content, max_length)
        finally:
            _max_length.reset(token)

    def _save(self, name: str, content: Any) -> str:
        wanted = self._clean(name)
        store = self._saver(content, _content_type(content, name))
        name = wanted
        try:
            for _ in range(_TRIES):
                try:
                    store.put(self._file_id(name))
                except ObjectExists as error:
                    taken = error
                else:
                    return name
                name = self.get_available_name(self._alternative(wanted), max_length=_max_length.get())
            raise taken
        finally:
            store.close()

    def _alternative(self, name: str) -> str:
        folder, name = posixpath.split(name)
        extension = "".join(PurePosixPath(name).suffixes)
        return posixpath.join(folder, self.get_alternative_name(name.removesuffix(extension), extension))

    def _saver(self, content: Any, content_type: str | None) -> _Again | _Once | _Uploaded | _Changed:
        uploaded = isinstance(content, AdapterUpload) and content.adapter is self.adapter and content.final is None
        if uploaded and not self.skip_unchanged:
            return _Uploaded(content, content_type)
        again = getattr(content, "seekable", bool)() and hasattr(content, "seek")
        if self.skip_unchanged:
            return _Changed(self.adapter, content, content_type, compare=again)
        return (_Again if again else _Once)(self.adapter, content, content_type)

    def is_name_available(self, name: str, max_length: int | None = None) -> bool:
        """Whether no file has ``name``, or a save replaces it, and ``max_length`` allows it. Folders have no names."""
        return not (max_length and len(name) > max_length) and (self.skip_unchanged or not self._is_file(name))

    def get_alternative_name(self, file_root: str, file_ext: str) -> str:
        """Another name than ``file_root`` with ``file_ext`` at its end, as in Django.

        Where a save replaces, only a name that is too long has another one: a shorter one.
        """
        return file_root + file_ext if self.skip_unchanged else super().get_alternative_name(file_root, file_ext)

    # ---- what is there

    def exists(self, name: str) -> bool:
        """Whether there is a file ``name``, or a file below a folder of that name."""
        clean = self._clean(name)
        if clean == ".":
            return True
        return self._is_file(name) or any(True for _ in self.adapter.list_final(self._prefix(clean)))

    def _is_file(self, name: str) -> bool:
        try:
            self._stat(name)
        except ObjectNotFound:
            return False
        return True

    def _stat(self, name: str) -> FinalObject:
        return self.adapter.stat_final(*self._key(name))

    def size(self, name: str) -> int:
        """The size of the file ``name`` in bytes."""
        return cast("int", self._stat(name).size)

    def get_modified_time(self, name: str) -> datetime:
        """When the file ``name`` was stored; with a time zone if ``USE_TZ``, else in that of the system.

        If the store cannot tell now, the error is a plain ``StorageError`` and no ``OSError``, as it is elsewhere:
        ``collectstatic`` takes an ``OSError`` for a file that has changed, deletes it and stores it again.
        """
        try:
            final = self._stat(name)
        except ObjectNotFound:
            raise
        except StorageError as error:
            if not isinstance(error, OSError):
                raise
            plain = StorageError(error.message)
            plain.__dict__.update(error.__dict__)
            raise plain from error
        if final.modified is None:
            raise NotImplementedError("the store does not tell when it has stored an object")
        modified = self._source_time(name, final) if self.skip_unchanged else final.modified
        return modified if settings.USE_TZ else modified.astimezone().replace(tzinfo=None)

    def _source_time(self, name: str, final: FinalObject) -> datetime:
        """The time of the static file that has this name and these bytes, if it is the later one."""
        stored = cast("datetime", final.modified)
        source = _static_file(self._clean(name))
        if source is None:
            return stored
        with open(source, "rb") as file:
            state = os.stat(file.fileno())
            changed = datetime.fromtimestamp(state.st_mtime, UTC)
            if changed <= stored or state.st_size != final.size:
                return stored
            return changed if hashlib.file_digest(file, "sha256").hexdigest() == final.sha256 else stored

    def delete(self, name: str) -> None:
        """Delete the file ``name``. A missing one is no error."""
        if not name:
            raise ValueError("The name must be given to delete().")
        self.adapter.delete_final(*self._key(name))

    def listdir(self, path: str) -> tuple[list[str], list[str]]:
        """The names of the folders and of the files in the folder ``path``. A folder without files is empty."""
        adapter, prefix = self.adapter, self._prefix(self._clean(path))
        folders: list[str] = []
        files: list[str] = []
        listing, inside = adapter.list_final(prefix), 0
        while (found := next(listing, None)) is not None:
            name, slash, _ = found.key[len(prefix) :].partition("/")
            if not slash:
                files.append(name)
            elif folders and folders[-1] == name:
                inside += 1
                if inside == FIRST_PAGE:  # a large folder is passed over
                    listing = adapter.list_final(prefix, start_after=f"{prefix}{name}/\U0010ffff")
            else:
                folders.append(name)
                inside = 1
        return folders, files

    def path(self, name: str) -> str:
        """The absolute path of the file ``name`` on this machine; ``NotImplementedError`` if it is elsewhere."""
        adapter = self.adapter
        if not isinstance(adapter, LocalStorageAdapter):
            return super().path(name)
        clean = self._clean(name)  # "" is asked by collectstatic
        return os.path.normpath(os.path.join(adapter.directories[1], self.location, clean))

    def url(self, name: str | None) -> str:
        """The URL of the file ``name``; no request is made for it.

        Raises ``ImproperlyConfigured`` without a base URL, if the adapter is not on S3 and ``storage.urls`` is not
        included.
        """
        if self.base_url is None:
            return self.adapter.url_final(*self._key(name or ""), expires=self.querystring_expire)
        clean = self._clean(name or "")
        path = "" if clean == "." else clean + "/" * str(name).endswith("/")
        return f"{str(self.base_url).removesuffix('/')}/{filepath_to_uri(path)}"

    # ---- names and keys

    def _clean(self, name: str) -> str:
        clean = posixpath.normpath(str(name).replace("\\", "/"))
        if clean.startswith(("/", "../")) or clean == "..":
            raise SuspiciousFileOperation(f"The name {name!r} leaves the location of its storage.")
        return clean

    def _file_id(self, name: str) -> str:
        clean = self._clean(name)
        if clean == ".":
            raise SuspiciousFileOperation(f"Could not derive file name from {name!r}")
        return self.location + clean

    def _key(self, name: str) -> tuple[str, str]:
        adapter = self.adapter
        return adapter.bucket, adapter.prefix + self._file_id(name)

    def _prefix(self, clean: str) -> str:
        return self.adapter.prefix + self.location + ("" if clean == "." else clean + "/")


def _location(location: str) -> str:
    """A location as the beginning of file ids: "" or a folder with its slash."""
    if not isinstance(location, str):
        raise ImproperlyConfigured(f"location is a folder such as 'media', not {type(location).__name__}")
    if not (folder := location.strip("/")):
        return ""
    try:
        return check_key(folder) + "/"
    except ValueError as error:
        raise ImproperlyConfigured(f"location is a folder such as 'media': {error}") from None


def _static_file(name: str) -> str | None:
    """The path of what ``collectstatic`` would copy to a name."""
    if not apps.is_installed("django.contrib.staticfiles"):
        return None
    from django.contrib.staticfiles import finders

    found = finders.find(name)
    return str(found) if isinstance(found, str | os.PathLike) and os.path.isfile(found) else None


class _Again:
    """Saves content that can be read again, if another writer was faster."""

    def __init__(self, adapter: NativeAdapter, content: Any, content_type: str | None) -> None:
        self._adapter, self._content, self._type = adapter, content, content_type
        self._size: int | None = None

    def put(self, file_id: str) -> None:
        read = 0

        def pieces() -> Iterator[bytes]:
            nonlocal read
            for piece in _pieces(self._content):
                read += len(piece)
                yield piece

        try:
            self._adapter.create_final(file_id, pieces(), size=self._size, content_type=self._type)
        except ObjectExists:
            self._size = read  # what is read next is the same again, or it is an error
            raise

    def close(self) -> None:
        pass


class _Once:
    """Saves content that can be read only once: it waits in the temp area until its name is settled."""

    def __init__(self, adapter: NativeAdapter, content: Any, content_type: str | None) -> None:
        self._adapter, self._type, self._session = adapter, content_type, uuid.uuid4()
        self._part = adapter.put_temp_part(self._session, 1, _pieces(content))

    def put(self, file_id: str) -> None:
        self._adapter.create_final_of(file_id, self._part, content_type=self._type)

    def close(self) -> None:
        self._adapter.drop_part(self._part)


class _Uploaded:
    """Saves an upload that is in the temp area of the adapter: no bytes are moved."""

    def __init__(self, upload: AdapterUpload, content_type: str | None) -> None:
        self._upload, self._type = upload, content_type

    def put(self, file_id: str) -> None:
        upload = self._upload
        upload.became(upload.adapter.create_final_of(file_id, upload.part, content_type=self._type))

    def close(self) -> None:
        pass


class _Changed:
    """Saves content in place of what its name has, unless that is the same already."""

    def __init__(self, adapter: NativeAdapter, content: Any, content_type: str | None, *, compare: bool) -> None:
        self._adapter, self._content, self._type, self._compare = adapter, content, content_type, compare

    def put(self, file_id: str) -> None:
        expected: dict[str, Any] = {}
        if self._compare:
            expected = self._measured()
            if self._is_there(file_id, **expected):
                return
        self._adapter.put_final(file_id, _pieces(self._content), content_type=self._type, **expected)

    def _measured(self) -> dict[str, Any]:
        size, digest = 0, hashlib.sha256()
        for piece in _pieces(self._content):
            size += len(piece)
            digest.update(piece)
        return {"size": size, "sha256": digest.hexdigest()}

    def _is_there(self, file_id: str, *, size: int, sha256: str) -> bool:
        try:
            there = self._adapter.stat_final(self._adapter.bucket, self._adapter.prefix + file_id)
        except ObjectNotFound:
            return False
        return (there.size, there.sha256, there.content_type) == (size, sha256, self._type or UNKNOWN_TYPE)

    def close(self) -> None:
        pass


def _pieces(content: Any) -> Iterable[bytes]:
    return map(_as_bytes, content.chunks())


def _as_bytes(piece: Any) -> Any:
    return piece.encode() if isinstance(piece, str) else piece


def _content_type(content: Any, name: str) -> str | None:
    """What the content says of itself if it can be said in a header; else what its name means."""
    stated = getattr(content, "content_type", None)
    try:
        return check_content_type(stated) or type_of_name(name)
    except (TypeError, ValueError):  # a client may say anything
        return type_of_name(name)


def type_of_name(name: str) -> str | None:
    """The content type that the name of a file stands for."""
    kind, encoding = mimetypes.guess_type(f"./{name}")  # which is no URL: a name may look like one
    return _COMPRESSED.get(encoding) if encoding else kind


class StoredFile(_File):
    """The file ``name`` of ``storage``, opened in ``mode``: rb, r, wb or w.

    For reading it is a stream that seeks without a download: size, position and a seek cost no request. For writing,
    ``close`` publishes what was written, in place of what the name had. After an exception in the ``with`` block, or if
    it is never closed, nothing is published. Text is UTF-8. After ``close``, ``open`` begins again.
    """

    DEFAULT_CHUNK_SIZE = CHUNK

    def __init__(self, storage: AdapterStorage, name: str, mode: str = "rb") -> None:
        self._storage = storage
        self.name = name
        self._begin(mode)

    def _begin(self, mode: str) -> None:
        if mode not in MODES:
            raise ValueError(f"the mode of a stored file is one of {', '.join(MODES)}, not {mode!r}")
        self.mode = MODES[mode]
        self._bytes = self._storage.stream(cast("str", self.name), self.mode)
        self.file: Any = self._bytes if "b" in self.mode else io.TextIOWrapper(self._bytes, encoding="utf-8")

    @property
    def size(self) -> int:
        """The size in bytes; of a file being written, that so far."""
        return self._bytes.size

    def open(self, mode: str | None = None, *_: Any, **__: Any) -> StoredFile:
        if self.closed:
            self._begin(mode or self.mode)
        else:
            self.seek(0)
        return self

    def close(self) -> None:
        if isinstance(self._bytes, ObjectWriter) and not self._bytes.closed:
            try:
                if not _failed(sys._getframe(1)):
                    self.file.flush()
                    self._bytes.publish()
            finally:
                self._bytes.close()
        self.file.close()

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None and isinstance(self._bytes, ObjectWriter):
            self._bytes.close()  # nothing is published
        self.close()


def _failed(frame: FrameType | None) -> bool:
    """Whether the ``with`` block of a file around this one, such as a ``FieldFile``, has ended by an exception.

    Its ``__exit__``, which is Django's, calls ``close`` then too, and does not say why.
    """
    while frame is not None and frame.f_code.co_name == "close":
        frame = frame.f_back
    return frame is not None and frame.f_code is File.__exit__.__code__ and frame.f_locals["exc_type"] is not None
