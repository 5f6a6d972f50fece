"""Signed URLs of objects whose store makes none, and the view that serves them. ``storage.urls`` includes it."""

from __future__ import annotations

import functools
import json
import time
from typing import Any

from django.conf import settings
from django.contrib.auth.decorators import login_not_required
from django.core.exceptions import ImproperlyConfigured, PermissionDenied
from django.core.signing import BadSignature, Signer
from django.http import Http404, HttpRequest, HttpResponseBase, HttpResponseNotAllowed
from django.urls import NoReverseMatch, URLResolver, get_resolver, get_urlconf, reverse

from .conf import get_storage_adapter
from .responses import object_response
from .statuses import storage_errors
from .types import FinalObject

_signer = functools.partial(Signer, salt="storage.urls")


class _Json:
    """JSON in UTF-8. Django's serializer makes names beyond ASCII longer, and some servers take no URL above 4 KiB."""

    def dumps(self, values: Any) -> bytes:
        return json.dumps(values, ensure_ascii=False, separators=(",", ":")).encode()

    def loads(self, data: bytes) -> Any:
        return json.loads(data)


def url_of(final: FinalObject, *, method: str, seconds: int, filename: str | None, content_type: str) -> str:
    """The path of a URL that serves an object for so many seconds: for GET and HEAD, or for HEAD alone.

    Raises ``ImproperlyConfigured`` if ``storage.urls`` is not included.
    """
    stated = [*final, method, int(time.time()) + seconds, filename, content_type]
    token = _signer().sign_object(stated, serializer=_Json, compress=True)
    return _path(token, _last_segment(final.key))


def _last_segment(key: str) -> str:
    return key.rpartition("/")[2]


@login_not_required  # the signature says who may: everybody who has the URL
@storage_errors
def serve(request: HttpRequest, token: str, name: str) -> HttpResponseBase:
    """The object of a URL, by ``object_response``. 403 for a URL that nobody has signed, or that has expired."""
    try:
        stated = _signer().unsign_object(token, serializer=_Json)
    except BadSignature:
        raise PermissionDenied from None
    bucket, key, method, until, filename, content_type = stated
    if name != _last_segment(key) or time.time() > until:
        raise PermissionDenied
    allowed = ("GET", "HEAD") if method == "GET" else ("HEAD",)
    if request.method not in allowed:
        return HttpResponseNotAllowed(allowed)
    try:
        get_storage_adapter(bucket=bucket)
    except ImproperlyConfigured as error:  # the URL is older than the settings
        raise Http404("there is no such object") from error
    return object_response(
        request,
        FinalObject(bucket, key, None, None),
        filename=filename,
        as_attachment=filename is not None,
        content_type=content_type or None,
    )


# ---- where the view is


def _path(token: str, name: str) -> str:
    urlconf = _urlconf()
    view = _view_name(get_resolver(urlconf)) if urlconf else None
    if view is None:
        raise ImproperlyConfigured(
            "url_final: no view serves the objects of this adapter: add path('files/', include('storage.urls')) to"
            f" urlpatterns in {urlconf or 'your URLconf, and set ROOT_URLCONF'}"
        )
    try:
        return reverse(view, kwargs={"token": token, "name": name})
    except NoReverseMatch as error:
        raise ImproperlyConfigured(
            "url_final: the path of include('storage.urls') has parameters, whose values nobody knows: include it below"
            f" a path without such ({error})"
        ) from None


def is_included() -> bool:
    """Whether the project includes ``storage.urls``."""
    urlconf = _urlconf()
    return bool(urlconf) and _view_name(get_resolver(urlconf)) is not None


def _urlconf() -> Any:
    return get_urlconf() or getattr(settings, "ROOT_URLCONF", None)


@functools.lru_cache(maxsize=4)
def _view_name(resolver: URLResolver) -> str | None:
    """The name of the view with its namespaces, as ``reverse`` takes it. A project may choose these."""
    for pattern in resolver.url_patterns:
        if not isinstance(pattern, URLResolver):
            if pattern.callback is serve and pattern.name:
                return str(pattern.name)
        elif name := _view_name.__wrapped__(pattern):
            return f"{pattern.namespace}:{name}" if pattern.namespace else name
    return None
