"""Bodies of requests as sources."""

from __future__ import annotations

from django.http import HttpRequest

from .arguments import check_size
from .exceptions import ContentMismatch, StorageError
from .streams import known_length


class RequestStream:
    """The body of ``request``, at most ``max_size`` bytes: see ``request_stream``.

    ``length`` is in bytes, and None if nobody has told it.
    """

    def __init__(self, request: HttpRequest, max_size: int | None = None) -> None:
        request = getattr(request, "_request", request)  # that which Django REST framework wraps
        if not isinstance(request, HttpRequest):
            raise TypeError(f"request is an HttpRequest, not {type(request).__name__}")
        self._request = request
        self.length = known_length(request)
        self._most = None if max_size is None else check_size(max_size)
        self._done = 0
        self._check_size(self.length or 0)

    def read(self, size: int | None = -1, /) -> bytes:
        """Up to ``size`` bytes; all that is left if ``size`` is negative or None."""
        size = -1 if size is None else size
        data: bytes = self._request.read(size)
        self._done += len(data)
        self._check_size(self._done)
        ended = size < 0 or (size > 0 and not data)
        if ended and self.length is not None and self._done < self.length:
            raise ContentMismatch(f"the body ended after {self._done} of its {self.length} bytes", op="put")
        return data

    def _check_size(self, size: int) -> None:
        if self._most is not None and size > self._most:
            raise too_large(self._most, "put")


def too_large(most: int, op: str) -> StorageError:
    return StorageError(f"more than {most:,} bytes are not taken", code="too_large", op=op)


def request_stream(request: HttpRequest, *, max_size: int | None = None) -> RequestStream:
    """The body of ``request``, a PUT or POST, as a stream that knows its ``length``, for whatever reads streams.

    Its ``read`` raises ``ContentMismatch`` if the body ends before that. ``put_temp_part`` and ``put_final`` treat a
    request in this way by themselves.

    ``max_size`` is the most bytes that are taken.

    Raises ``StorageError``: with the code "too_large" for a larger body, at once if its length is known and else by
    ``read``; with the code "no_length" if the body is chunked and the server cannot give it, or if its length is no
    number; with the code "source" if the body was read before. Raises ``TypeError`` for other things.
    """
    return RequestStream(request, max_size)
