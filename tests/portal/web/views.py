"""The page: what is being uploaded, and what is stored. Uploads themselves are answered by storage.tus."""

from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_required
from django.core.paginator import Paginator
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import get_object_or_404, render
from django.urls import reverse
from django.utils import timezone
from django.views.decorators.cache import never_cache
from django.views.decorators.clickjacking import xframe_options_sameorigin
from django.views.decorators.http import require_POST, require_safe

from storage import get_storage_adapter
from storage.arguments import MAX_SIZE
from storage.http import object_response, storage_errors
from storage.tus.models import Upload

from . import rules

PER_PAGE = 20

SHOWN = ("image/png", "image/jpeg", "image/gif", "image/webp", "image/avif", "image/bmp", "image/svg+xml")
"""The images that every browser shows."""


def kind(upload: Upload) -> str:
    """How the page previews a file: "image", "pdf", "video", "audio", or "" for not at all."""
    content_type = (upload.content_type or "").partition(";")[0].strip().lower()
    if content_type in SHOWN:
        return "image"
    if content_type == "application/pdf":
        return "pdf"
    family = content_type.partition("/")[0]
    return family if family in ("video", "audio") else ""


def stored(request: HttpRequest) -> QuerySet[Upload]:
    """The files of the user, newest first."""
    finished = Upload.objects.filter(owner=request.user, state=Upload.State.FINISHED, partial=False)
    return finished.exclude(key="").order_by("-finished", "-pk")


def unfinished(request: HttpRequest) -> list[dict[str, Any]]:
    """The uploads of the user that can go on."""
    live = Q(expires=None) | Q(expires__gt=timezone.now()) | Q(state=Upload.State.FINISHING)
    states = [Upload.State.UPLOADING, Upload.State.FINISHING]
    uploads = Upload.objects.filter(live, owner=request.user, state__in=states, partial=False).order_by("-created")
    return [
        {
            "url": reverse("storage_tus:upload", args=[upload.name]),
            "name": upload.filename,
            "size": upload.size,
            "fingerprint": upload.metadata.get("fingerprint", ""),
        }
        for upload in uploads
    ]


@require_safe
@never_cache  # who goes back, or opens a closed tab again, is shown what is there now
@login_required
def home(request: HttpRequest) -> HttpResponse:
    page = Paginator(stored(request), PER_PAGE).get_page(request.GET.get("page"))
    for upload in page:
        upload.kind = kind(upload)  # type: ignore[attr-defined]
    limit = settings.STORAGE_TUS_MAX_SIZE
    return render(
        request,
        "web/home.html",
        {
            "page": page,
            "unfinished": unfinished(request),
            "max_size": MAX_SIZE if limit is None else min(limit, MAX_SIZE),
            "limited": limit is not None,
            "refused": " ".join(sorted(rules.REFUSED)),
            "reason": rules.REASON,
        },
    )


@require_safe
@login_required
@xframe_options_sameorigin  # for the preview of a PDF
@storage_errors
def content(request: HttpRequest, name: str) -> HttpResponseBase:
    """The bytes of a file, for the page to show or, with ?download=1, for the browser to save."""
    upload = get_object_or_404(stored(request), pk=name)
    assert upload.final is not None
    saved = "download" in request.GET
    return object_response(request, upload.final, filename=upload.filename or "file", as_attachment=saved)


@require_POST
@login_required
@storage_errors
def delete(request: HttpRequest, name: str) -> HttpResponse:
    """Delete a file: its bytes first, for without its row nobody would find them again."""
    upload = get_object_or_404(stored(request), pk=name)
    assert upload.final is not None
    get_storage_adapter().delete_final(upload.final)
    upload.delete()
    return HttpResponse(status=204)
