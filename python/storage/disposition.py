"""The header that tells a browser under which name to save an answer."""

from __future__ import annotations

from urllib.parse import quote

from django.utils.http import content_disposition_header


def content_disposition(as_attachment: bool, filename: str) -> str | None:
    """What Django says, and a name with a percent sign in its encoded form, too.

    In the plain form browsers take ``100%25.txt`` for ``100%.txt``. Programs like curl know the plain form only.
    """
    header = content_disposition_header(as_attachment, filename)
    if header and "%" in filename and "filename=" in header:
        header += f"; filename*=utf-8''{quote(filename)}"
    return header
