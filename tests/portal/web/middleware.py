"""What the browser may do with the pages of the site."""

from collections.abc import Callable

from django.http import HttpRequest
from django.http.response import HttpResponseBase

POLICY = "; ".join(
    [
        "default-src 'none'",
        *(f"{kind}-src 'self'" for kind in ("script", "style", "img", "media", "font", "connect", "frame")),
        *(f"{what} 'self'" for what in ("form-action", "frame-ancestors")),
        "base-uri 'none'",
    ]
)
"""Everything comes from this host, and nothing is written into the page."""


def content_security_policy(
    get_response: Callable[[HttpRequest], HttpResponseBase],
) -> Callable[[HttpRequest], HttpResponseBase]:
    """Middleware that sets POLICY where a view has set none."""

    def middleware(request: HttpRequest) -> HttpResponseBase:
        response = get_response(request)
        response.headers.setdefault("Content-Security-Policy", POLICY)
        return response

    return middleware
