"""HTTP over the services layer. Bodies are streamed both ways."""

import json
import os
from typing import Any

from django.http import HttpRequest, HttpResponseBase, JsonResponse, StreamingHttpResponse
from django.shortcuts import get_object_or_404
from django.views.decorators.http import require_GET, require_http_methods, require_POST, require_safe

from storage import FinalObject, InvalidArgument, get_storage_adapter
from storage.http import object_response, storage_errors

from . import services
from .models import UploadFile, UploadSession


def asked(request: HttpRequest) -> dict[str, Any]:
    """The file that a client wants to upload."""
    try:
        body = json.loads(request.body)
        filename, size, content_type = body["filename"], body["size"], body.get("content_type", "")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise InvalidArgument("the body is JSON with filename and size") from None
    if type(size) is not int or not isinstance(filename, str) or not isinstance(content_type, str):
        raise InvalidArgument("filename and content_type are texts, size is a number of bytes")
    return {"filename": filename, "size": size, "content_type": content_type}


@require_POST
@storage_errors
def sessions(request: HttpRequest) -> HttpResponseBase:
    session = services.start_session(**asked(request))
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


@require_safe
@storage_errors
def download(request: HttpRequest, file_id: str) -> HttpResponseBase:
    file = get_object_or_404(UploadFile, pk=file_id, session__status="complete")
    final = FinalObject(file.storage_bucket, file.storage_key, file.size, file.sha256)
    return object_response(request, final, filename=file.original_filename, content_type=file.content_type or None)


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
    stream = adapter.get_temp_part_stream(key)
    return StreamingHttpResponse(stream.chunks(), headers={"Content-Length": str(stream.size)})


@require_GET
@storage_errors
def ready(request: HttpRequest) -> HttpResponseBase:
    get_storage_adapter().check_health()
    return JsonResponse({"ready": True, "pid": os.getpid()})
