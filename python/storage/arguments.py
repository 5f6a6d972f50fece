"""What callers may pass. Each argument is checked here before anything is sent, by the same rules for all adapters.

A check returns the argument in its plain form, or raises ``TypeError``, ``ValueError``, or ``InvalidKey`` for keys and
``InvalidArgument`` for what else clients say. `op` is the operation that such an error names.
"""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any
from uuid import UUID

from .exceptions import InvalidArgument, InvalidKey
from .types import FinalObject, TempPart

MAX_PART_NUMBER = 10_000
"""The limit of S3's multipart uploads."""

MAX_SIZE = 5 * 1024**4
"""The largest object in bytes: 5 TiB, the limit of a multipart upload in the Amazon S3 User Guide."""

MAX_KEY_CHARACTERS = 500
MAX_KEY_BYTES = 900
MAX_SEGMENT_BYTES = 255

MAX_METADATA_BYTES = 2048 - 128
"""S3's limit for the user-defined metadata of an object, minus what this package keeps there."""

MAX_CONTENT_TYPE_CHARACTERS = 255

MAX_SECONDS = 1e9
"""The longest time that the Go side can count; it stands for no limit."""

STAGING = ".gostorage-staging"
"""The folder of unfinished writes at the root of an area on a disk. No segment of a key may have this name."""

# The characters of Unicode category Cc; in keys also the backslash.
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_FORBIDDEN = re.compile(r"[\\\x00-\x1f\x7f-\x9f]")
# Nearly all keys have this form, and then need no further check: for small requests each check counts.
_PLAIN = re.compile(r"\w[\w.-]*(?:/\w[\w.-]*)*", re.ASCII)
_OUR_FOLDER = re.compile(rf"(?:^|/){re.escape(STAGING)}[. ]*(?:/|\Z)", re.ASCII | re.IGNORECASE)


# ---- keys and ids


def check_key(key: str, op: str = "") -> str:
    """The only definition of a legal key; ``object.CheckKey`` decides the same in Go. Raises ``InvalidKey``.

    A key is relative, valid UTF-8, and has at most 500 characters and 900 bytes. Its segments have 1 to 255 bytes. No
    segment is ``.``, ``..`` or our own folder (``.gostorage-staging`` in upper or lower case, also with dots and blanks
    after it). There is no backslash and no control character (Unicode category Cc). Look-alike characters make
    different keys, and are kept exactly.
    """
    if type(key) is str and len(key) <= MAX_SEGMENT_BYTES and _PLAIN.fullmatch(key):
        return key
    if not isinstance(key, str):
        raise TypeError(f"a key is a str, not {type(key).__name__}")
    key = str.__str__(key)
    try:
        encoded = key.encode()
    except UnicodeEncodeError:
        raise _invalid("", op, "it is not valid UTF-8") from None
    if not key:
        raise _invalid(key, op, "it is empty")
    if len(encoded) > MAX_KEY_BYTES:
        raise _invalid("", op, f"it is longer than {MAX_KEY_BYTES} bytes")
    if len(key) > MAX_KEY_CHARACTERS:
        raise _invalid("", op, f"it is longer than {MAX_KEY_CHARACTERS} characters")
    if _FORBIDDEN.search(key):
        raise _invalid(key, op, "it holds a backslash or a control character")
    for segment in key.split("/"):
        if segment in {"", ".", ".."}:
            raise _invalid(key, op, "it has an empty, '.' or '..' segment")
        if len(segment.encode()) > MAX_SEGMENT_BYTES:
            raise _invalid(key, op, f"it has a segment longer than {MAX_SEGMENT_BYTES} bytes")
    if _OUR_FOLDER.search(key):
        raise _invalid(key, op, "it has a segment that is the name of our own folder")
    return key


def check_beginning(name: str, text: str, op: str = "") -> str:
    """The beginning of keys, or a key: only the characters are checked, and the length. Raises ``InvalidKey``."""
    if not isinstance(text, str):
        raise TypeError(f"{name} is a str, not {type(text).__name__}")
    if not _encodable(text) or len(text.encode()) > 2 * MAX_KEY_BYTES or _FORBIDDEN.search(text):
        raise InvalidKey(f"{name} is no beginning of a legal key", op=op)
    return str.__str__(text)


def _invalid(key: str, op: str, why: str) -> InvalidKey:
    return InvalidKey(f"not a legal key: {why}", op=op, key=key)


def check_file_id(file_id: object, op: str = "") -> str:
    """The key for a str, an int or a UUID."""
    if isinstance(file_id, str):
        return check_key(file_id, op)
    if isinstance(file_id, int) and not isinstance(file_id, bool):
        return check_key(int.__repr__(file_id), op)
    if isinstance(file_id, UUID):
        return check_key(str(file_id), op)
    raise TypeError(f"an id is a str, an int or a UUID, not {type(file_id).__name__}: of a model instance pass its pk")


def check_session_id(session_id: object, op: str = "") -> str:
    """The same, with only one segment."""
    session = check_file_id(session_id, op)
    if "/" in session:
        raise _invalid(session, op, "a session id has no slash")
    return session


# ---- values of this package


def check_part(part: str | TempPart, op: str = "") -> tuple[str, dict[str, Any]]:
    """The key of a part, and the size and digest that a `TempPart` states; see `check_expected`."""
    if not isinstance(part, TempPart):
        return check_key(part, op), {}
    check_part_number(part.part_number, op)
    return check_key(part.key, op), check_expected(part.size, part.sha256 or None, op)


def check_parts(parts: Iterable[str | TempPart], op: str = "") -> list[tuple[str, dict[str, Any]]]:
    """The same for each of at least one part, in their order."""
    if isinstance(parts, str | TempPart):
        raise TypeError("temp_keys is a list of parts, not one")
    if not isinstance(parts, Iterable):
        raise TypeError(f"temp_keys is a list of parts, not {type(parts).__name__}")
    checked = [check_part(part, op) for part in parts]
    if not checked:
        raise InvalidArgument("an object is assembled from at least one part", op=op)
    return checked


def check_final(
    bucket: str | FinalObject, key: str | FinalObject | None, op: str = ""
) -> tuple[str, str, dict[str, Any]]:
    """The given bucket and key, and the size and digest that a `FinalObject` states; see `check_expected`."""
    if type(bucket) is str and type(key) is str:  # the usual case
        return bucket, key, {}
    value = bucket if isinstance(bucket, FinalObject) else key if isinstance(key, FinalObject) else None
    expected = {} if value is None else check_expected(value.size, value.sha256 or None, op)
    if isinstance(bucket, FinalObject):
        bucket, key = bucket
    elif isinstance(key, FinalObject):
        key = key.key
    if key is None:
        raise TypeError("a bucket and a key are needed, or a FinalObject")
    if not isinstance(bucket, str):
        raise TypeError(f"a bucket is a str, not {type(bucket).__name__}")
    if not isinstance(key, str):
        raise TypeError(f"a key is a str, not {type(key).__name__}")
    return str.__str__(bucket), str.__str__(key), expected


def check_expected(size: int | None, sha256: str | None, op: str = "") -> dict[str, Any]:
    """What the Go side must find, as ``size`` and ``sha256``; an unknown one is left out."""
    expected: dict[str, Any] = {}
    if size is not None:
        expected["size"] = check_size(size, op)
    if sha256 is not None:
        expected["sha256"] = check_sha256(sha256, op)
    return expected


# ---- numbers


def _whole(name: str, value: object) -> int:
    if type(value) is int:
        return value
    if isinstance(value, bool) or not hasattr(type(value), "__index__"):
        raise TypeError(f"{name} is an int, not {type(value).__name__}")
    return operator.index(value)  # type: ignore[arg-type]


def check_part_number(number: int, op: str = "") -> int:
    """A part number, 1 to 10,000."""
    number = _whole("part_number", number)
    if not 1 <= number <= MAX_PART_NUMBER:
        raise InvalidArgument(f"part_number is 1 to {MAX_PART_NUMBER:,}", op=op)
    return number


def _not_negative(name: str, value: int, op: str) -> int:
    value = _whole(name, value)
    if value < 0:
        raise InvalidArgument(f"{name} is a number of bytes, not negative", op=op)
    return value


def check_size(size: int, op: str = "") -> int:
    """The size of an object in bytes, at most 5 TiB."""
    size = _not_negative("size", size, op)
    if size > MAX_SIZE:
        raise InvalidArgument(f"size is at most {MAX_SIZE:,} bytes (5 TiB)", op=op)
    return size


def check_chunk(size: int) -> int:
    """The size of a piece in bytes, at least 1."""
    size = _whole("size", size)
    if size < 1:
        raise ValueError("size is a number of bytes, at least 1")
    return size


def check_range(start: int, length: int | None, op: str = "") -> tuple[int, int | None]:
    """Where to read, in bytes. Both are cut to the largest object, so that start and length can be added."""
    if length is None and type(start) is int and start == 0:  # nearly always: for small requests each call counts
        return 0, None
    start = min(_not_negative("start", start, op), MAX_SIZE)
    return start, None if length is None else min(_not_negative("length", length, op), MAX_SIZE)


def check_age(older_than: timedelta) -> timedelta:
    """A time that is not negative."""
    if not isinstance(older_than, timedelta):
        raise TypeError(f"older_than is a timedelta, not {type(older_than).__name__}")
    if older_than < timedelta():
        raise ValueError(f"older_than is not negative: {older_than}")
    return older_than


def check_seconds(name: str, seconds: float) -> float:
    """A time in seconds, finite and not negative."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        raise TypeError(f"{name} is a number of seconds, not {type(seconds).__name__}")
    if not 0 <= seconds < math.inf:
        raise ValueError(f"{name} is a number of seconds, finite and not negative")
    return float(min(seconds, MAX_SECONDS))


def check_max_seconds(max_seconds: float | None) -> float | None:
    """The same; infinity and None mean no limit."""
    if max_seconds is None or (isinstance(max_seconds, float) and max_seconds == math.inf):
        return None
    return check_seconds("max_seconds", max_seconds)


MAX_EXPIRES = 7 * 24 * 3600
"""The longest time in seconds for which Signature Version 4 signs a URL."""


def check_expires(expires: int) -> int:
    """The seconds after which a URL expires, 1 to 604,800."""
    expires = _whole("expires", expires)
    if not 1 <= expires <= MAX_EXPIRES:
        raise ValueError(f"expires is 1 to {MAX_EXPIRES:,} seconds")
    return expires


# ---- the rest


def check_method(method: str) -> str:
    """The method of a request that a URL allows."""
    if not isinstance(method, str):
        raise TypeError(f"method is a str, not {type(method).__name__}")
    if method not in ("GET", "HEAD", "PUT"):
        raise ValueError("method is GET, HEAD or PUT")
    return str.__str__(method)


MAX_FILENAME_CHARACTERS = 255


def check_filename(filename: str, op: str = "") -> str:
    """A name for a download: 1 to 255 characters, none of which is a control character."""
    if not isinstance(filename, str):
        raise TypeError(f"filename is a str, not {type(filename).__name__}")
    if not 1 <= len(filename) <= MAX_FILENAME_CHARACTERS or CONTROL.search(filename) or not _encodable(filename):
        raise InvalidArgument(
            f"filename has 1 to {MAX_FILENAME_CHARACTERS} characters, and no control characters", op=op
        )
    return str.__str__(filename)


def check_flag(name: str, value: bool) -> bool:
    """Only True or False, nothing that merely counts as one of them: the text "False" is true."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} is True or False, not {type(value).__name__}")
    return value


def check_callable(name: str, function: Callable[..., Any] | None, of: str) -> None:
    """A function, or None."""
    if function is not None and not callable(function):
        raise TypeError(f"{name} is a function of {of}, not {type(function).__name__}")


_SHA256 = re.compile(r"[0-9a-f]{64}")


def check_sha256(sha256: str, op: str = "") -> str:
    """64 hex digits, returned in lower case."""
    if not isinstance(sha256, str):
        raise TypeError(f"sha256 is 64 hex digits in a str, not {type(sha256).__name__}")
    lowered = sha256.lower()
    if not _SHA256.fullmatch(lowered):
        raise InvalidArgument("sha256 is 64 hex digits", op=op)
    return lowered


_VISIBLE = re.compile(r"[!-~](?:[ -~]*[!-~])?")


def check_content_type(content_type: str | None, op: str = "") -> str:
    """At most 255 characters of visible ASCII, with blanks only in between; "" for None."""
    if content_type is None:
        return ""
    if not isinstance(content_type, str):
        raise TypeError(f"content_type is a str, not {type(content_type).__name__}")
    if content_type and not _VISIBLE.fullmatch(content_type):
        raise InvalidArgument("content_type is visible ASCII, such as text/plain; charset=utf-8", op=op)
    if len(content_type) > MAX_CONTENT_TYPE_CHARACTERS:
        raise InvalidArgument(f"content_type has at most {MAX_CONTENT_TYPE_CHARACTERS} characters", op=op)
    return str.__str__(content_type)


_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OURS = "gostorage-"


def check_metadata(metadata: Mapping[str, str] | None, op: str = "") -> dict[str, str]:
    """Names are HTTP tokens, compared without case. At most 1,920 bytes in all, in the form sent to S3."""
    if metadata is None:
        return {}
    if not isinstance(metadata, Mapping):
        raise TypeError(f"metadata is a dict of str to str, not {type(metadata).__name__}")
    checked: dict[str, str] = {}
    for name, value in metadata.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError("metadata maps str to str")
        if not _TOKEN.fullmatch(name):
            raise InvalidArgument(
                f"a name of metadata is letters, digits and - . _ (an HTTP token), not {name!a:.100}", op=op
            )
        if name.lower().startswith(_OURS):
            raise InvalidArgument(
                f"names of metadata that begin with {_OURS!r} are for this package: {name[:100]!a}", op=op
            )
        if not _encodable(value):
            raise InvalidArgument(f"the metadata {name[:100]!a} is not valid Unicode", op=op)
        checked[str.__str__(name)] = str.__str__(value)
    if len({name.lower() for name in checked}) < len(checked):
        raise InvalidArgument("two names of metadata differ only in case: stores take them for one", op=op)
    if sum(len(name) + _sent_bytes(value) for name, value in checked.items()) > MAX_METADATA_BYTES:
        raise InvalidArgument(f"metadata has at most {MAX_METADATA_BYTES:,} bytes in all, as encoded for S3", op=op)
    return checked


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


_WORD_BYTES = 45  # of text in an encoded word of RFC 2047, which has at most 75 characters
_WORD_FRAME = len("=?utf-8?b??=")


def _sent_bytes(value: str) -> int:
    """The bytes of a value in a header. A value that is not printable ASCII, has blanks at its ends or looks encoded
    is sent as encoded words: each holds whole characters, and a blank separates two of them."""
    if value.isascii() and value.isprintable() and value == value.strip(" ") and "=?" not in value:
        return len(value)
    words = [0]
    for character in value:
        size = len(character.encode())
        if words[-1] + size > _WORD_BYTES:
            words.append(0)
        words[-1] += size
    return sum(_WORD_FRAME + 4 * -(-size // 3) for size in words) + len(words) - 1
