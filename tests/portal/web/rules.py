"""What may be uploaded. The page applies the same rules, so that a person is told before a byte is sent."""

from typing import Any

from django.core.exceptions import PermissionDenied
from django.http import HttpRequest

from storage import ContentRejected, ObjectReader

REFUSED = {
    *("apk", "app", "appimage", "application", "appx", "bash", "bat", "cgi", "cjs", "class", "cmd", "com", "command"),
    *("cpl", "crx", "csh", "deb", "desktop", "dex", "dll", "dmg", "drv", "dylib", "efi", "elf", "exe", "fish"),
    *("gadget", "hta", "ipa", "jar", "jnlp", "js", "jse", "ko", "ksh", "lnk", "lua", "mjs", "msc", "msi", "msix"),
    *("msp", "msu", "ocx", "php", "pif", "pkg", "pl", "ps1", "psm1", "py", "pyc", "pyw", "pyz", "rb", "reg", "rpm"),
    *("run", "scf", "scr", "sct", "sh", "so", "sys", "tcl", "vb", "vbe", "vbs", "wasm", "ws", "wsf", "wsh", "xpi"),
    "zsh",
}
"""The endings of programs and scripts, and of what starts one when it is opened."""

TYPES = {
    *("application/java-archive", "application/vnd.android.package-archive", "application/x-bat", "application/x-elf"),
    *("application/vnd.microsoft.portable-executable", "application/x-dosexec", "application/x-executable"),
    *("application/x-ms-dos-executable", "application/x-msdos-program", "application/x-msdownload"),
    *("application/x-msi", "application/x-sh", "application/x-sharedlib", "application/x-shellscript"),
}

STARTS = (
    *(b"\x7fELF", b"\xfe\xed\xfa\xce", b"\xfe\xed\xfa\xcf", b"\xce\xfa\xed\xfe", b"\xcf\xfa\xed\xfe"),
    *(b"\xca\xfe\xba\xbe", b"\xca\xfe\xba\xbf", b"#!/", b"#! /", b"#!\t/"),
)
"""How programs of Linux, macOS and Java begin, and scripts, whatever their name is."""

HEAD = 1024

REASON = "Programs and scripts cannot be uploaded here."

MAX_NAME = 255


def ending(name: str) -> str:
    """The ending of a name as Windows sees it, which ignores dots and blanks behind it."""
    _, dot, last = name.rstrip(". ").lower().rpartition(".")
    return last if dot else ""


def is_program(head: bytes) -> bool:
    """Whether a file that begins with these bytes is a program."""
    windows = head.startswith(b"MZ") and any(byte < 9 for byte in head)  # and no text that begins so
    return windows or head.startswith(STARTS)


def authorize(request: HttpRequest, upload: Any) -> None:
    """Whether the user may create the upload: see STORAGE_TUS_AUTHORIZE."""
    if not request.user.is_authenticated:
        raise PermissionDenied("You are not logged in.")
    name = upload.filename
    if len(name) > MAX_NAME:
        raise PermissionDenied(f"The name of a file has at most {MAX_NAME} characters.")
    if ending(name) in REFUSED or (upload.content_type or "").partition(";")[0].strip().lower() in TYPES:
        raise PermissionDenied(REASON)


def inspect(reader: ObjectReader) -> None:
    """Refuse a program that comes under another name: see STORAGE_TUS_INSPECT."""
    if is_program(reader.read(HEAD)):
        raise ContentRejected(REASON)
