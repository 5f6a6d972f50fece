"""Objects in a bucket of an S3-compatible store."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar, Literal, cast
from urllib.parse import SplitResult, urlsplit

from django.core.exceptions import ImproperlyConfigured

from . import native
from .adapter import NativeAdapter
from .arguments import CONTROL, MAX_KEY_BYTES, check_key
from .conf import Secret, masked
from .disposition import content_disposition
from .exceptions import ObjectExists, ObjectNotFound
from .options import Checked, instead_of, is_flag
from .steps import Steps, World

MIN_PART_SIZE = 5 * 1024 * 1024
MAX_PART_SIZE = 5 * 1024**3
"""S3's limits for a part of a multipart upload, in bytes."""

MAX_S3_KEY_BYTES = 1024


class S3StorageAdapter(NativeAdapter):
    """Keeps parts below ``temp_prefix`` and objects below ``final_prefix`` of the bucket ``bucket_name``.

    Option names are those of django-storages. Without credentials (``access_key`` and ``secret_key``, with a
    ``security_token`` if they are temporary) the default chain of the AWS SDKs is used: environment, profile, web
    identity, container, instance. The environment and the profile also tell ``region_name`` and ``endpoint_url`` if
    these are unset; else the region is us-east-1, and the store AWS.

    Sizes are in bytes, times in seconds. ``connect_timeout`` is for a connection, and again for its TLS handshake.
    ``read_timeout`` is how long a connection may stay without a moving byte. A request is sent ``max_attempts`` times
    at most. ``verify`` is False to accept any certificate, or the path of a CA file, like ``ca_bundle``. ``proxy`` is a
    URL, and may hold a user and a password.

    ``server_side_encryption`` ("AES256", or "aws:kms" with ``kms_key_id``) is sent with each object, ``storage_class``
    with each final object. With ``carry_digest`` a part that arrives after the part before it continues the digest of
    the whole, so ``assemble`` need not read it.

    ``max_connections`` bounds the requests that calls and streams make side by side, all together. Each of them has one
    beside that, so none waits for another.

    An upload sends as many parts at once as the line to the store needs, at most ``concurrency``; None means 16.
    ``part_size`` None means 5 MiB, 8 MiB on a store that an upload has found to be near, more for large objects, and
    one request for an object of a known size up to 8 MiB. ``equal_parts`` is for stores that want all parts but the
    last to have one size.

    ``public_endpoint_url`` is the endpoint in the URLs of ``url_final``, if clients reach the store by another host
    than this process does. It is used in the same ``addressing_style``.

    ``checksum`` says how the server verifies the parts of a large upload. ``auto`` means ``crc64nvme`` if the server
    accepts it, else the SHA-256 in the signature of each part.

    ``conditional_writes`` says how ``overwrite=False`` is kept. With ``required`` the store keeps it, and must know
    ``If-None-Match``. With ``look`` the adapter looks before each such put whether the object is there. That is not
    atomic: of two writers at once both may win.

    Raises ``ImproperlyConfigured``.
    """

    backend: ClassVar[str] = "s3"

    def __init__(
        self,
        *,
        bucket_name: str,
        access_key: str | None = None,
        secret_key: str | None = None,
        security_token: str | None = None,
        region_name: str | None = None,
        endpoint_url: str | None = None,
        addressing_style: Literal["auto", "path", "virtual"] | None = None,
        temp_prefix: str = "temp/",
        final_prefix: str = "final/",
        ca_bundle: str | os.PathLike[str] | None = None,
        verify: bool | str | os.PathLike[str] | None = None,
        part_size: int | None = None,
        concurrency: int | None = None,
        equal_parts: bool = False,
        connect_timeout: float = 10,
        read_timeout: float = 30,
        max_attempts: int = 4,
        max_connections: int = 16,
        checksum: Literal["auto", "crc32", "crc64nvme", "sha256", "off"] = "auto",
        server_side_encryption: str | None = None,
        kms_key_id: str | None = None,
        storage_class: str | None = None,
        proxy: str | None = None,
        carry_digest: bool = True,
        conditional_writes: Literal["required", "look"] = "required",
        public_endpoint_url: str | None = None,
    ) -> None:
        # This comes first, because error reports show this frame.
        access_key, secret_key = masked("access_key", access_key), masked("secret_key", secret_key)
        security_token = masked("security_token", security_token)
        endpoint_url, proxy = masked("endpoint_url", endpoint_url), masked("proxy", proxy)
        public_endpoint_url = masked("public_endpoint_url", public_endpoint_url)
        given = dict(locals())
        del given["self"], given["__class__"]
        checked = Checked(RULES, given)
        keys, prefixes = ("access_key", "secret_key"), ("temp_prefix", "final_prefix")
        checked.together(keys, lambda key, secret: bool(key) == bool(secret), "are set together, or neither")
        checked.together(prefixes, _apart, "must be two folders, neither inside the other")
        options = checked.done()
        super().__init__(carry_digest=options.pop("carry_digest"))
        self.bucket = options["bucket_name"]
        self._prefixes = options.pop("temp_prefix"), options.pop("final_prefix")
        self.prefix = self._prefixes[1]
        verify = options.pop("verify")
        self._ca_bundle = options.pop("ca_bundle") or (verify if isinstance(verify, str) else "")
        self._storage_class = options.pop("storage_class")
        self._options: dict[str, Any] = {**options, "verify": verify is not False}

    def _configurations(self) -> tuple[dict[str, Any], dict[str, Any]]:
        ca_bundle = self._ca_bundle or os.environ.get("AWS_CA_BUNDLE") or ""
        try:
            ca_bundle = os.fspath(Path(ca_bundle).expanduser()) if ca_bundle else ""
        except RuntimeError:
            raise ImproperlyConfigured("ca_bundle (or AWS_CA_BUNDLE) begins with the ~ of an unknown home") from None
        shared = {
            "backend": "s3",
            **self._options,
            "ca_bundle": ca_bundle,
            "environment": _environment(),
        }
        temp, final = self._prefixes
        return (
            {**shared, "prefix": temp},  # parts are read soon, so they are never in an archive class
            {**shared, "prefix": final, "storage_class": self._storage_class},
        )

    def _url(self, world: World, key: str, link: dict[str, Any]) -> Steps[str]:
        filename = link.pop("filename", None)
        if filename is not None:
            link["disposition"] = content_disposition(True, filename)
        linked = yield world.call(self._final, "url", key=key, **link)
        return cast("str", linked["url"])

    def sign(
        self,
        key: str,
        *,
        method: str,
        upload_id: str,
        part_number: int,
        size: int | None,
        content_type: str,
        overwrite: bool,
        expires: int,
    ) -> tuple[str, dict[str, str]]:
        """The URL of one request of an upload, and the headers to send with it: for ``storage.http.sign_request``.

        ``key`` is the whole key. ``method`` is that of the request, ``upload_id`` the multipart upload that it is about
        or "", ``part_number`` that of the part or 0. ``size`` is that of a body in bytes, None for any;
        ``content_type`` that of the object, "" for any. Without ``overwrite`` the store refuses the request by which
        the object would become visible if one is there; with ``conditional_writes="look"`` it is looked up here. The
        URL is valid for ``expires`` seconds.

        Raises ``ObjectExists`` then, ``InvalidKey``, and ``StorageError`` without credentials.
        """
        name, _ = self._final_key(self.bucket, key, "sign")
        look = self._options["conditional_writes"] == "look"
        if not overwrite and look and not upload_id and self._is_there(key):
            raise ObjectExists("an object is there", op="sign", key=key)
        link: dict[str, Any] = {"method": method, "seconds": expires, "content_type": content_type, "no_copy": True}
        if upload_id:
            link["upload"] = upload_id
        if part_number:
            link["part"] = part_number
        if size is not None and method == "PUT":
            link["size"] = size
        publishes = not upload_id if method == "PUT" else method == "POST" and bool(upload_id)
        link["new"] = publishes and not overwrite and not look
        linked = native.call(self._final, "url", key=name, **link)
        return linked["url"], linked["headers"]

    def _is_there(self, key: str) -> bool:
        try:
            self.stat_final(self.bucket, key)
        except ObjectNotFound:
            return False
        return True

    def __repr__(self) -> str:
        return f"<S3StorageAdapter bucket={self.bucket!r} prefix={self.prefix!r}>"


def _environment() -> dict[str, str]:
    """The variables that the SDK's default chain and the choice of a proxy read, as Python has them now."""
    return {
        name: Secret(value)
        for name, value in os.environ.items()
        if name.startswith("AWS_") or name.upper().endswith("_PROXY") or name in ("HOME", "REQUEST_METHOD")
    }


def _text(value: str | None) -> str:
    """A text without blanks at its ends, as files and shells leave them; "" for None. No message shows the value."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ValueError(f"is a str, not {type(value).__name__}")
    if CONTROL.search(value) or value != value.strip():
        raise ValueError("has a blank or a newline at its ends, or a control character: take it away")
    return value


def _header(value: str | None) -> str:
    """The same, only with characters that a header can have."""
    text = _text(value)
    if not text.isascii():
        raise ValueError("has a character that is not ASCII")
    return text


_BUCKET = re.compile(r"[A-Za-z0-9._:-]{1,255}")
_REGION = re.compile(r"[a-z0-9-]{1,63}")


def _bucket(value: str) -> str:
    """Accepts what any store accepts: older ones take capitals and underscores, Ceph a tenant and a colon."""
    name = _text(value)
    if not _BUCKET.fullmatch(name) or not name.strip("."):
        raise ValueError("is the name of a bucket: letters, digits and - . _ and no slash")
    return name


def _region(value: str | None) -> str:
    region = _text(value)
    if region and not _REGION.fullmatch(region):
        raise ValueError("is small letters, digits and -, such as eu-central-1")
    return region


def _prefix(value: str) -> str:
    folder = _text(value).rstrip("/")
    if not folder:
        raise ValueError("is a folder of the bucket, and not empty")
    try:
        check_key(folder)
    except ValueError as error:
        raise ValueError(f"is {value!a}: {error}") from None
    if len(folder.encode()) + 1 + MAX_KEY_BYTES > MAX_S3_KEY_BYTES:
        raise ValueError(f"is longer than {MAX_S3_KEY_BYTES - MAX_KEY_BYTES - 1} bytes")
    return folder + "/"


def _apart(temp: str, final: str) -> bool:
    return not temp.startswith(final) and not final.startswith(temp)


_HOST = re.compile(r"[A-Za-z0-9._-]+|[0-9A-Fa-f:.]+(%[A-Za-z0-9._~-]+)?")


def _parts(value: str, schemes: tuple[str, ...]) -> SplitResult | None:
    """The parts of a URL, or None if it is not a possible one."""
    try:
        parts = urlsplit(value)
        port, host = parts.port, parts.hostname
    except ValueError:  # an impossible port, half a bracket
        return None
    fits = parts.scheme in schemes and host and _HOST.fullmatch(host) and port != 0 and " " not in value
    return parts if fits else None


def _endpoint(value: str | None) -> str:
    url = _text(value)
    problem = _problem_of_endpoint(url) if url else ""
    if problem:
        raise ValueError(problem)
    return url.rstrip("/")


def _proxy(value: str | None) -> str:
    url = _text(value)
    if url and _parts(url, ("http", "https", "socks5")) is None:
        raise ValueError("is a URL such as http://proxy.example.com:3128, with a port from 1 to 65535")
    return url


def _problem_of_endpoint(url: str) -> str:
    parts = _parts(url, ("http", "https"))
    if parts is None:
        return "is a URL such as https://s3.example.com:9000, with http:// or https:// and a port from 1 to 65535"
    if "@" in parts.netloc or parts.query or parts.fragment:
        return "holds no credentials, no query and no fragment"
    return ""


def _verify(value: bool | str | os.PathLike[str] | None) -> bool | str:
    """False, True, or the path of a CA file."""
    if value is None or isinstance(value, bool):
        return value is not False
    if not isinstance(value, str | os.PathLike):
        raise ValueError("is True, False or the path of a CA file")
    if str(value).lower() in ("true", "false", "yes", "no", "on", "off", "1", "0"):
        raise ValueError(
            f"is True, False or the path of a CA file, not the text {value!r}: read the environment variable with"
            " values.BooleanValue or similar"
        )
    return _path(value) or True


def _path(value: str | os.PathLike[str] | None) -> str:
    path = "" if value is None else os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(path, str) or "\0" in path:
        raise ValueError("is the path of a file")
    return path


def _one_of(*known: str) -> Callable[[str], str]:
    def rule(value: str) -> str:
        if value not in known:
            raise ValueError(f"is one of {', '.join(map(repr, known))}, not {value!r}")
        return value

    return rule


def _number(least: int, most: int) -> Callable[[int], int]:
    def rule(value: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"is a number from {least} to {most}, {instead_of(value, 'values.IntegerValue')}")
        return value

    return rule


def _or_zero(rule: Callable[[int], int]) -> Callable[[int | None], int]:
    """The rule, with 0 for None: the Go side chooses a number."""
    return lambda value: 0 if value is None else rule(value)


def _seconds(value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 3600:
        raise ValueError(f"is a time in seconds, above 0 and at most 3600, {instead_of(value, 'values.FloatValue')}")
    return float(value)


RULES: dict[str, Callable[[Any], Any]] = {
    "bucket_name": _bucket,
    "access_key": _header,
    "secret_key": _text,
    "security_token": _header,
    "region_name": _region,
    "endpoint_url": _endpoint,
    "addressing_style": lambda value: _one_of("auto", "path", "virtual")(value or "auto"),
    "temp_prefix": _prefix,
    "final_prefix": _prefix,
    "ca_bundle": _path,
    "verify": _verify,
    "part_size": _or_zero(_number(MIN_PART_SIZE, MAX_PART_SIZE)),
    "concurrency": _or_zero(_number(1, 64)),
    "equal_parts": is_flag,
    "connect_timeout": _seconds,
    "read_timeout": _seconds,
    "max_attempts": _number(1, 20),
    "max_connections": _number(1, 256),
    "checksum": _one_of("auto", "crc32", "crc64nvme", "sha256", "off"),
    "server_side_encryption": _header,
    "kms_key_id": _header,
    "storage_class": _header,
    "proxy": _proxy,
    "carry_digest": is_flag,
    "conditional_writes": _one_of("required", "look"),
    "public_endpoint_url": _endpoint,
}
"""What each option may be: a function that gives the value to use, or raises ``ValueError`` with what is wrong."""
