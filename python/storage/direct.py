"""Signed requests, by which browsers upload directly to S3."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, cast

from asgiref.sync import iscoroutinefunction
from django.core.exceptions import ImproperlyConfigured, PermissionDenied, RequestDataTooBig
from django.http import HttpRequest, HttpResponseBase, HttpResponseNotAllowed, JsonResponse

from .arguments import check_content_type, check_expires, check_flag, check_key, check_part_number, check_size
from .bodies import too_large
from .conf import get_storage_adapter
from .exceptions import InvalidArgument, InvalidKey, StorageError
from .s3 import S3StorageAdapter
from .statuses import storage_errors


@dataclass(frozen=True, slots=True)
class DirectUpload:
    """One request of an upload from a browser to S3, as the client describes it: see ``sign_request``.

    ``key`` is the whole key of the object, which is below the prefix; ``method`` PUT, POST, GET or DELETE.
    ``upload_id`` names the multipart upload that the request is about; it is None for a PUT of the whole, and for the
    POST that begins an upload. ``part_number`` is that of a part, else None. ``size`` is that of the body in bytes, or
    for the POST that begins an upload that of the file, and ``content_type`` that of the file; None if the client does
    not tell them.
    """

    key: str
    method: str
    upload_id: str | None
    part_number: int | None
    size: int | None
    content_type: str | None

    @property
    def begins(self) -> bool:
        """Whether it is the first request for an object."""
        return self.upload_id is None


def sign_request(
    request: HttpRequest,
    *,
    authorize: Callable[[HttpRequest, DirectUpload], bool],
    prefix: str = "",
    max_size: int | None = None,
    overwrite: bool = False,
    expires: int = 3600,
    alias: str = "default",
) -> HttpResponseBase:
    """A view that signs one request by which a browser uploads a file directly to S3. It speaks what Uppy speaks.

    The request is a POST of JSON: ``method`` and ``key``, and where they apply ``uploadId``, ``partNumber``,
    ``contentType`` and ``size`` (bytes). It may be a PUT of a whole file, or one of the requests of a multipart upload:
    POST begins it, PUT with a number stores a part, GET lists the parts, POST with the upload id completes it, DELETE
    aborts it. The answer is ``{"url": ..., "key": ..., "headers": {...}}``: where to send the request, the whole key,
    and the headers to send with it. What is not allowed is an answer in JSON with a status of 4xx, and nothing is
    signed.

    ``authorize(request, upload)`` is asked each time: only True allows it; False and ``PermissionDenied`` are 403.
    ``prefix`` is the folder of the final area in which all keys are. The first request for an object may name it
    without that; ``key`` in the answer then is the one to go on with.

    ``max_size`` is the most bytes that a file may have. With it, the client must tell the ``size`` with the PUT of a
    whole file. A size that is told with a PUT is signed, so S3 takes no body of another size. Nothing in S3 limits the
    sum of the parts: look at the size that ``adopt_final`` gives.

    An object that is there is not replaced (S3 answers 412), unless ``overwrite``. With the option
    ``conditional_writes="look"`` of the adapter that is looked up here, before the first request is signed. A URL is
    valid for ``expires`` seconds (1 to 604,800). ``alias`` names the adapter.

    Raises ``ImproperlyConfigured`` if that is not on S3, and ``TypeError`` or ``ValueError`` for impossible options.
    """
    folder = check_key(prefix.strip("/")) + "/" if prefix.strip("/") else ""
    limit = None if max_size is None else check_size(max_size)
    check_expires(expires)
    check_flag("overwrite", overwrite)
    if iscoroutinefunction(authorize):
        raise TypeError("authorize is a plain function: nothing awaits it")
    adapter = get_storage_adapter(alias)
    if not isinstance(adapter, S3StorageAdapter):
        raise ImproperlyConfigured(
            f"sign_request: the adapter {alias!r} is {adapter!r}, and browsers upload directly to S3 alone"
        )
    if request.method != "POST":
        return HttpResponseNotAllowed(["POST"])
    return _signed(request, adapter, folder, limit, authorize, overwrite=overwrite, expires=expires)


@storage_errors
def _signed(
    request: HttpRequest,
    adapter: S3StorageAdapter,
    folder: str,
    limit: int | None,
    authorize: Callable[[HttpRequest, DirectUpload], bool],
    **options: Any,
) -> HttpResponseBase:
    upload = _described(_json_of(request), adapter.prefix, folder)
    if limit is not None and upload.method == "PUT" and upload.begins and upload.size is None:
        raise InvalidArgument("size is needed here: how many bytes the file has", op="sign")
    if limit is not None and upload.size is not None and upload.size > limit:
        raise too_large(limit, "sign")
    try:
        reason = "" if check_flag("what authorize gives", authorize(request, upload)) else "this is not allowed"
    except PermissionDenied as error:
        reason = str(error) or "this is not allowed"
    if reason:
        return JsonResponse({"error": reason, "code": "denied"}, status=HTTPStatus.FORBIDDEN)
    url, headers = adapter.sign(
        upload.key,
        method=upload.method,
        upload_id=upload.upload_id or "",
        part_number=upload.part_number or 0,
        size=upload.size,
        content_type=upload.content_type or "",
        **options,
    )
    return JsonResponse({"url": url, "key": upload.key, "headers": headers}, headers={"Cache-Control": "no-store"})


def _json_of(request: HttpRequest) -> dict[str, Any]:
    try:
        body = json.loads(request.body)
    except RequestDataTooBig:
        raise StorageError("the body is larger than such a request is", code="too_large", op="sign") from None
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise InvalidArgument("the body is JSON: a method, a key, and what goes with them", op="sign")
    return body


def _described(body: dict[str, Any], area: str, folder: str) -> DirectUpload:
    """What is asked for, checked. Keys of a first request may lack the prefix of the area and the folder."""
    method, key, upload_id = _text(body, "method"), _text(body, "key") or "", _text(body, "uploadId")
    number, size, content_type = _whole(body, "partNumber"), _whole(body, "size"), _text(body, "contentType")
    if (method, upload_id is not None, number is not None) not in _REQUESTS:
        raise InvalidArgument("no request of an upload has such a method, uploadId and partNumber together", op="sign")
    if upload_id is not None and not _UPLOAD_ID.fullmatch(upload_id):
        raise InvalidArgument("uploadId is the one that S3 has given", op="sign")
    if number is not None:
        check_part_number(number, "sign")
    if not key.startswith(area + folder):
        if upload_id is not None:
            raise InvalidKey(f"the keys of uploads begin with {area + folder!r}", op="sign")
        key = area + folder + key
    check_key(key.removeprefix(area), "sign")
    return DirectUpload(
        key,
        cast("str", method),
        upload_id,
        number,
        None if size is None else check_size(size, "sign"),
        check_content_type(content_type, "sign") or None,
    )


_REQUESTS = {
    ("PUT", False, False),
    ("POST", False, False),
    ("GET", True, False),
    ("PUT", True, True),
    ("POST", True, False),
    ("DELETE", True, False),
}
"""The methods, with or without an upload id and a part number."""

_UPLOAD_ID = re.compile("[!-~]{1,1024}")


def _text(body: dict[str, Any], name: str) -> str | None:
    value = body.get(name)
    if value is not None and not isinstance(value, str):
        raise InvalidArgument(f"{name} is a text", op="sign")
    return value


def _whole(body: dict[str, Any], name: str) -> int | None:
    value = body.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise InvalidArgument(f"{name} is a whole number", op="sign")
    return value
