"""Final objects as HTTP responses, bodies of requests as sources, signed requests, and errors as HTTP statuses."""

from .bodies import RequestStream, request_stream
from .direct import DirectUpload, sign_request
from .responses import aobject_response, object_response
from .statuses import storage_errors

__all__ = [
    "DirectUpload",
    "RequestStream",
    "aobject_response",
    "object_response",
    "request_stream",
    "sign_request",
    "storage_errors",
]
