"""What may be uploaded. The page applies the same rules, so that a person is told before a byte is sent."""

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

REFUSED = frozenset(
    "apk app appimage bat cmd com cpl dll elf exe hta jar jse lnk msi msix msp pif ps1 psm1 reg run scr sh vb vbe vbs"
    " wsf wsh".split()
)
"""The endings of programs, and of what starts one when it is opened."""

TYPES = frozenset(
    f"application/{name}"
    for name in (
        "java-archive vnd.android.package-archive vnd.microsoft.portable-executable x-bat x-dosexec x-elf x-executable"
        " x-ms-dos-executable x-msdos-program x-msdownload x-msi x-sh x-sharedlib x-shellscript"
    ).split()
)

REASON = "Programs and scripts cannot be uploaded here."

MAX_NAME = 255


def ending(name: str) -> str:
    """The ending of a name as Windows sees it, which ignores dots and blanks behind it."""
    stem, dot, last = name.rstrip(". ").lower().rpartition(".")
    return last if stem and dot else ""


def authorize(request: HttpRequest, upload: Any) -> None:
    """Whether the user may create the upload: see STORAGE_TUS_AUTHORIZE."""
    if not request.user.is_authenticated:
        raise PermissionDenied("You are not logged in.")
    name = upload.filename
    if not name or len(name) > MAX_NAME:
        raise PermissionDenied(f"The name of a file has 1 to {MAX_NAME} characters.")
    if ending(name) in REFUSED or (upload.content_type or "").partition(";")[0].strip().lower() in TYPES:
        raise PermissionDenied(REASON)
