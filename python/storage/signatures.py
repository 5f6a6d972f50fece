"""The content type of bytes by how they begin. What a client says of them, and a name, prove nothing."""

from __future__ import annotations

import re

from .arguments import check_content_type

HEAD = 512
"""How many bytes are looked at, from the beginning."""

UNKNOWN = "application/octet-stream"
PROGRAM = "application/vnd.microsoft.portable-executable"

_BEGINNINGS = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
    (b"II*\0", "image/tiff"),
    (b"MM\0*", "image/tiff"),
    (b"8BPS\0\1", "image/vnd.adobe.photoshop"),
    (b"\0\0\1\0", "image/vnd.microsoft.icon"),
    (b"\xff\x0a", "image/jxl"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", "image/jxl"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", "image/jp2"),
    (b"%PDF-", "application/pdf"),
    (b"%!PS", "application/postscript"),
    (rb"{\rtf", "application/rtf"),
    (b"PK\3\4", "application/zip"),
    (b"PK\5\6", "application/zip"),
    (b"\x1f\x8b", "application/gzip"),
    (b"\xfd7zXZ\0", "application/x-xz"),
    (b"\x28\xb5\x2f\xfd", "application/zstd"),
    (b"7z\xbc\xaf\x27\x1c", "application/x-7z-compressed"),
    (b"Rar!\x1a\7", "application/vnd.rar"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "application/x-ole-storage"),
    (b"OggS\0", "application/ogg"),
    (b"fLaC", "audio/flac"),
    (b"ID3\2", "audio/mpeg"),
    (b"ID3\3", "audio/mpeg"),
    (b"ID3\4", "audio/mpeg"),
    (b"MThd\0", "audio/midi"),
    (b"\0\0\1\xba", "video/mpeg"),
    (b"FLV\1", "video/x-flv"),
    (b"wOFF", "font/woff"),
    (b"wOF2", "font/woff2"),
    (b"OTTO\0", "font/otf"),
    (b"\0\1\0\0\0", "font/ttf"),
    (b"SQLite format 3\0", "application/vnd.sqlite3"),
    (b"PAR1\x15", "application/vnd.apache.parquet"),
    (b"\x89HDF\r\n\x1a\n", "application/x-hdf5"),
    (b"\0asm", "application/wasm"),
    (b"\x7fELF", "application/x-elf"),
    (b"#!", "text/x-shellscript"),
)

_RIFF = {b"WEBP": "image/webp", b"WAVE": "audio/vnd.wave", b"AVI ": "video/x-msvideo"}

_BRANDS = {
    b"avif": "image/avif",
    b"avis": "image/avif",
    b"heic": "image/heic",
    b"heix": "image/heic",
    b"mif1": "image/heif",
    b"qt  ": "video/quicktime",
    b"M4A ": "audio/mp4",
    b"crx ": "image/x-canon-cr3",
}
"""Of files that are boxes, by their main brand; others are videos."""

_MARKUP = (
    (re.compile(rb"<(?:!doctype\s+html|html|head|body|script|iframe|style|title)\b", re.IGNORECASE), "text/html"),
    (re.compile(rb"<(?:!doctype\s+svg|svg)\b", re.IGNORECASE), "image/svg+xml"),
    (re.compile(rb"<\?xml\b"), "text/xml"),
)
_BEFORE_MARKUP = re.compile(rb"(?:\xef\xbb\xbf)?(?:\s|<!--.*?-->)*", re.DOTALL)

_WITHIN = {
    "application/zip": re.compile(
        r"application/(?:vnd\.(?:openxmlformats-officedocument|oasis\.opendocument|ms-\w+|android\.package-archive)\S*"
        r"|epub\+zip|java-archive|x-zip-compressed|\S+\+zip)"
    ),
    "application/x-ole-storage": re.compile(r"application/(?:msword|vnd\.(?:ms-|visio)\S*|x-msi)"),
    "application/ogg": re.compile(r"(?:audio|video)/ogg"),
    "text/xml": re.compile(r"application/xml|(?:application|image|model)/\S+\+xml"),
    "application/gzip": re.compile(r"application/(?:x-gzip|x-tar\+gzip|x-compressed-tar)"),
    "video/mp4": re.compile(r"(?:audio|application)/mp4|video/(?:3gpp2?|x-m4v)|audio/x-m4a"),
    "image/tiff": re.compile(r"image/x-\S+"),
    "video/x-matroska": re.compile(r"audio/x-matroska"),
    "video/webm": re.compile(r"audio/webm"),
    "text/x-shellscript": re.compile(r"text/\S+|application/(?:javascript|x-sh|x-shellscript)"),
    "audio/vnd.wave": re.compile(r"audio/(?:x-)?wav"),
}
"""Types of which the bytes say no more than the type that holds them: there the client may say more."""


def signature(head: bytes) -> str | None:
    """The content type that the first bytes of a file prove, or None."""
    for beginning, content_type in _BEGINNINGS:
        if head.startswith(beginning):
            return content_type
    if head.startswith(b"BM") and head[6:10] == bytes(4):
        return "image/bmp"
    if head.startswith(b"BZh") and head[4:10] in (b"1AY&SY", b"\x17rE8P\x90"):
        return "application/x-bzip2"
    if head.startswith(b"MZ") and b"\0" in head[:64]:
        return PROGRAM
    if head.startswith(b"RIFF"):
        return _RIFF.get(head[8:12])
    if head[4:8] == b"ftyp":
        return _BRANDS.get(head[8:12], "video/mp4")
    if head.startswith(b"\x1aE\xdf\xa3"):
        return "video/webm" if b"webm" in head[:64] else "video/x-matroska"
    if head[:1] == b"\xff" and head[1:2] in (b"\xfb", b"\xf3", b"\xf2"):
        return "audio/mpeg"
    if head[257:262] == b"ustar":
        return "application/x-tar"
    return _markup(head)


def _markup(head: bytes) -> str | None:
    start = _BEFORE_MARKUP.match(head)
    for pattern, content_type in _MARKUP:
        if start and pattern.match(head, start.end()):
            svg = content_type == "text/xml" and re.search(rb"<svg\b", head, re.IGNORECASE)
            return "image/svg+xml" if svg else content_type
    return None


_PROVABLE = {
    *(content_type for _, content_type in _BEGINNINGS),
    *_RIFF.values(),
    *_BRANDS.values(),
    "application/x-bzip2",
    "application/x-tar",
    "image/bmp",
    PROGRAM,
    "video/mp4",
    "video/webm",
    "video/x-matroska",
} - {"text/x-shellscript"}


def content_type_of(head: bytes, stated: str | None) -> str:
    """The content type of a file that begins so, of which the client stated another one, or the same, or none.

    What the bytes prove counts. What they cannot prove, such as text, is what the client stated. A stated type that the
    bytes would prove if it were true, is not true.
    """
    try:
        stated = check_content_type(stated).lower()
    except (TypeError, ValueError):  # a client may say anything
        stated = ""
    kind = stated.partition(";")[0].strip()
    proven = signature(head)
    if proven is not None:
        within = _WITHIN.get(proven)
        return stated if kind == proven or (within and within.fullmatch(kind)) else proven
    if not kind or kind in _PROVABLE or any(within.fullmatch(kind) for within in _WITHIN_PROVABLE):
        return UNKNOWN
    return stated


_WITHIN_PROVABLE = [within for proven, within in _WITHIN.items() if proven in _PROVABLE and proven != "image/tiff"]
