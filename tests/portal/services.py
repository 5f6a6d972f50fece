"""The services layer: plain functions between the views and the storage adapter."""

import logging
from collections.abc import Callable
from typing import Any

from django.core.exceptions import ValidationError
from django.db import transaction

from storage import ContentMismatch, InvalidArgument, ObjectReader, TempPart, get_storage_adapter

from .models import UploadFile, UploadPart, UploadSession

logger = logging.getLogger(__name__)


def start_session(
    filename: str, size: int, *, content_type: str = "", chunk_size: int = 5 * 1024 * 1024
) -> UploadSession:
    """A new session for a file of `size` bytes. Raises `storage.InvalidArgument` for what no file can be."""
    if not 1 <= size <= 10_000 * chunk_size:
        raise InvalidArgument(f"size is a number of bytes, 1 to {10_000 * chunk_size:,}")
    file = UploadFile(original_filename=filename, size=size, content_type=content_type)
    try:
        file.full_clean()
    except ValidationError as error:
        raise InvalidArgument("; ".join(f"{field}: {' '.join(found)}" for field, found in error)) from error
    with transaction.atomic():
        file.save()
        return UploadSession.objects.create(file=file, chunk_size=chunk_size)


def upload_chunk(session: UploadSession, part_number: int, stream: Any, *, sha256: str | None = None) -> UploadPart:
    """Stores one part, in any order; the same part again is fine, another content is not.

    Raises `storage.InvalidArgument` for a part number outside the file, `storage.ContentMismatch`
    for a wrong size or digest, `storage.ObjectExists` where another content has this number.
    """
    if not 1 <= part_number <= session.total_parts:
        raise InvalidArgument(f"part {part_number} is not one of 1 to {session.total_parts}")
    part = get_storage_adapter().put_temp_part(
        session.pk,
        part_number,
        stream,
        size=session.part_size(part_number),
        sha256=sha256,
        overwrite=False,
    )
    row, _ = UploadPart.objects.update_or_create(
        session=session,
        part_number=part_number,
        defaults={"temp_storage_key": part.key, "size": part.size, "sha256": part.sha256},
    )
    return row


def finalize_session(
    session: UploadSession, *, progress: Callable[[int, int | None], object] | None = None
) -> UploadFile:
    """Joins the parts; may be called again after a failure, and after success does nothing.

    Raises `storage.ContentMismatch` while parts are missing, and where a part has changed.
    """
    adapter = get_storage_adapter()
    with transaction.atomic():
        session = UploadSession.objects.select_for_update().get(pk=session.pk)
        file = session.file
        if session.status == UploadSession.Status.COMPLETE:
            return file
        parts = [TempPart(p.temp_storage_key, p.part_number, p.size, p.sha256) for p in session.parts.all()]
        if len(parts) != session.total_parts:
            raise ContentMismatch(f"{len(parts)} of {session.total_parts} parts have arrived")
        final = adapter.assemble(
            f"uploads/{file.pk}",
            parts,
            size=file.size,
            content_type=file.content_type or None,
            progress=progress,
        )
        file.storage_backend = adapter.backend
        file.storage_bucket, file.storage_key = final
        file.sha256 = final.sha256 or ""
        file.save()
        session.status = UploadSession.Status.COMPLETE
        session.save(update_fields=["status"])
        transaction.on_commit(lambda: adapter.delete_temp_parts(session.pk), robust=True)
    logger.info("session %s is complete: %s bytes", session.pk, file.size)
    return file


def open_file(file: UploadFile) -> ObjectReader:
    """The stored bytes, verified at the end. Raises `storage.ObjectNotFound`."""
    return get_storage_adapter().get_final_stream(file.storage_bucket, file.storage_key)


def delete_file(file: UploadFile) -> None:
    """Deletes the row first, so that none is left that points nowhere, then the bytes."""
    bucket, key = file.storage_bucket, file.storage_key
    file.delete()
    if key:
        transaction.on_commit(lambda: get_storage_adapter().delete_final(bucket, key))


def is_live(session_id: str) -> bool:
    """Whether a sweep has to spare the parts of a session. Other strings than ids of ours are of no session."""
    try:
        return UploadSession.objects.filter(pk=session_id, status=UploadSession.Status.IN_PROGRESS).exists()
    except ValidationError:
        return False
