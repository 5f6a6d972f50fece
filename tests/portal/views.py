"""HTTP over the services layer. Bodies are streamed both ways."""

import json
import os
from collections.abc import Callable
from functools import wraps
from typing import Any

from django.http import Http404, HttpRequest, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from storage import (
    ObjectExists,
    ObjectNotFound,
    ObjectReader,
    StorageError,
    StorageFull,
    get_storage_adapter,
)

from . import services
from .models import UploadFile, UploadSession

View = Callable[..., HttpResponseBase]


def storage_errors(view: View) -> View:
    """What goes wrong in the storage, as HTTP says it."""

    @wraps(view)
    def wrapped(*args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            return view(*args, **kwargs)
        except ObjectNotFound as error:
            raise Http404 from error
        except ObjectExists as error:
            return JsonResponse({"error": str(error)}, status=409)
        except StorageFull as error:
            return JsonResponse({"error": str(error)}, status=507)
        except ValueError as error:  # also ContentMismatch and InvalidKey
            return JsonResponse({"error": str(error)}, status=400)
        except StorageError as error:
            return JsonResponse({"error": str(error)}, status=411 if error.code == "no_length" else 503)

    return wrapped


def stream_response(stream: ObjectReader, content_type: str = "") -> StreamingHttpResponse:
    """The stream in pieces of 256 KiB; Django closes it."""
    headers = {} if stream.size is None else {"Content-Length": str(stream.size)}
    content_type = content_type or "application/octet-stream"
    return StreamingHttpResponse(stream.chunks(), content_type=content_type, headers=headers)


@require_POST
@storage_errors
def sessions(request: HttpRequest) -> HttpResponseBase:
    body = json.loads(request.body)
    session = services.start_session(body["filename"], int(body["size"]), content_type=body.get("content_type", ""))
    return JsonResponse(
        {
            "session": str(session.pk),
            "file": str(session.file.pk),
            "chunk_size": session.chunk_size,
            "total_parts": session.total_parts,
        },
        status=201,
    )


@require_http_methods(["PUT"])
@storage_errors
def session_part(request: HttpRequest, session_id: str, part_number: int) -> HttpResponseBase:
    session = get_object_or_404(UploadSession, pk=session_id)
    part = services.upload_chunk(session, part_number, request)
    return JsonResponse({"part_number": part_number, "size": part.size, "sha256": part.sha256})


@require_POST
@storage_errors
def finalize(request: HttpRequest, session_id: str) -> HttpResponseBase:
    file = services.finalize_session(get_object_or_404(UploadSession, pk=session_id))
    return JsonResponse({"file": str(file.pk), "size": file.size, "sha256": file.sha256})


@require_GET
@storage_errors
def download(request: HttpRequest, file_id: str) -> HttpResponseBase:
    file = get_object_or_404(UploadFile, pk=file_id, session__status="complete")
    return stream_response(services.open_file(file), file.content_type)


@require_http_methods(["PUT", "GET", "DELETE"])
@storage_errors
def bare_part(request: HttpRequest, session_id: str, part_number: int) -> HttpResponseBase:
    """A temp part without the database; says which process answered."""
    adapter = get_storage_adapter()
    if request.method == "PUT":
        part = adapter.put_temp_part(session_id, part_number, request)
        return JsonResponse({"key": part.key, "size": part.size, "sha256": part.sha256, "pid": os.getpid()})
    key = f"{session_id}/{part_number:05d}"
    if request.method == "DELETE":
        adapter.delete_temp_part(key)
        return JsonResponse({"key": key, "pid": os.getpid()})
    return stream_response(adapter.get_temp_part_stream(key))


@require_GET
@storage_errors
def ready(request: HttpRequest) -> HttpResponseBase:
    get_storage_adapter().check_health()
    return JsonResponse({"ready": True, "pid": os.getpid()})
