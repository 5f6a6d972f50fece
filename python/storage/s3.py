"""Objects in a bucket of an S3-compatible store."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import SplitResult, urlsplit

from django.core.exceptions import ImproperlyConfigured

from . import native
from .adapter import NativeAdapter, flag
from .arguments import CONTROL, MAX_KEY_BYTES, check_key
from .conf import Secret, masked, setting

MIN_PART_SIZE = 5 * 1024 * 1024
MAX_PART_SIZE = 5 * 1024**3
"""S3's limits for a part of a multipart upload, in bytes."""

MAX_S3_KEY_BYTES = 1024

CHECKSUMS = ("auto", "crc32", "crc64nvme", "sha256", "off")
ADDRESSING_STYLES = ("auto", "path", "virtual")
CONDITIONAL_WRITES = ("required", "look")


class S3StorageAdapter(NativeAdapter):
    """Keeps parts below ``temp_prefix`` and objects below ``final_prefix`` of one bucket.

    Option names are those of django-storages. Without credentials the default chain of the AWS SDKs is used:
    environment, profile, web identity, container, instance. ``endpoint_url`` unset means AWS. Sizes are in bytes, times
    in seconds. ``read_timeout`` is how long a connection may stay without a moving byte. ``verify`` is False to accept
    any certificate, or the path of a CA file, like ``ca_bundle``.

    ``max_connections`` bounds the requests that calls and streams make side by side, all together. Each of them has one
    beside that, so none waits for another.

    An upload sends as many parts at once as the line to the store needs, at most ``concurrency``; None means 16.
    ``part_size`` None means 5 MiB, 8 MiB on a store that an upload has found to be near, more for large objects, and
    one request for an object of a known size up to 8 MiB.

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
        super().__init__(carry_digest=carry_digest)
        if bool(access_key) != bool(secret_key):
            raise ImproperlyConfigured(
                "access_key and secret_key (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) are set together, or neither"
            )
        self.bucket = _bucket(bucket_name)
        self._prefixes = _prefix("temp_prefix", temp_prefix), _prefix("final_prefix", final_prefix)
        _check_areas(*self._prefixes)
        self.prefix = self._prefixes[1]
        if isinstance(verify, str | os.PathLike):
            ca_bundle, verify = ca_bundle or _certificates(verify), True
        elif verify is not None and not isinstance(verify, bool):
            raise ImproperlyConfigured("verify (AWS_S3_VERIFY) is True, False or the path of a CA file")
        self._ca_bundle = _path("ca_bundle (or verify)", ca_bundle)
        self._storage_class = _header("storage_class", storage_class)
        self._options: dict[str, Any] = {
            "bucket_name": self.bucket,
            "access_key": _header("access_key", access_key),
            "secret_key": _text("secret_key", secret_key),
            "security_token": _header("security_token", security_token),
            "region_name": _region(region_name),
            "endpoint_url": _endpoint("endpoint_url", endpoint_url),
            "public_endpoint_url": _endpoint("public_endpoint_url", public_endpoint_url),
            "addressing_style": _one_of("addressing_style", addressing_style or "auto", ADDRESSING_STYLES),
            "verify": verify is not False,
            "part_size": _number_or_none("part_size", part_size, MIN_PART_SIZE, MAX_PART_SIZE),
            "concurrency": _number_or_none("concurrency", concurrency, 1, 64),
            "equal_parts": flag("equal_parts", equal_parts),
            "connect_timeout": _seconds("connect_timeout", connect_timeout),
            "read_timeout": _seconds("read_timeout", read_timeout),
            "max_attempts": _number("max_attempts", max_attempts, 1, 20),
            "max_connections": _number("max_connections", max_connections, 1, 256),
            "checksum": _one_of("checksum", checksum, CHECKSUMS),
            "server_side_encryption": _header("server_side_encryption", server_side_encryption),
            "kms_key_id": _header("kms_key_id", kms_key_id),
            "proxy": _proxy(proxy),
            "conditional_writes": _one_of("conditional_writes", conditional_writes, CONDITIONAL_WRITES),
        }

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

    def _url(self, key: str, link: dict[str, Any]) -> str:
        url: str = native.call(self._final, "url", key=key, **link)["url"]
        return url

    def __repr__(self) -> str:
        return f"<S3StorageAdapter bucket={self.bucket!r} prefix={self.prefix!r}>"


def _environment() -> dict[str, str]:
    """The variables that the SDK's default chain and the choice of a proxy read, as Python has them now."""
    return {
        name: Secret(value)
        for name, value in os.environ.items()
        if name.startswith("AWS_") or name.upper().endswith("_PROXY") or name in ("HOME", "REQUEST_METHOD")
    }


def _text(name: str, value: str | None) -> str:
    """A text without blanks at its ends, as files and shells leave them; "" for None. No message shows the value."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise ImproperlyConfigured(f"{setting('s3', name)} is a str, not {type(value).__name__}")
    if CONTROL.search(value) or value != value.strip():
        raise ImproperlyConfigured(
            f"{setting('s3', name)} has a blank or a newline at its ends, or a control character: take it away"
        )
    return value


def _header(name: str, value: str | None) -> str:
    """The same, only with characters that a header can have."""
    text = _text(name, value)
    if not text.isascii():
        raise ImproperlyConfigured(f"{setting('s3', name)} has a character that is not ASCII")
    return text


_BUCKET = re.compile(r"[A-Za-z0-9._:-]{1,255}")
_REGION = re.compile(r"[a-z0-9-]{1,63}")


def _bucket(value: str) -> str:
    """Accepts what any store accepts: older ones take capitals and underscores, Ceph a tenant and a colon."""
    name = _text("bucket_name", value)
    if not _BUCKET.fullmatch(name) or not name.strip("."):
        raise ImproperlyConfigured(
            f"{setting('s3', 'bucket_name')} is the name of a bucket: letters, digits and - . _ and no slash"
        )
    return name


def _region(value: str | None) -> str:
    region = _text("region_name", value)
    if region and not _REGION.fullmatch(region):
        raise ImproperlyConfigured(
            f"{setting('s3', 'region_name')} is small letters, digits and -, such as eu-central-1"
        )
    return region


def _prefix(name: str, value: str) -> str:
    folder = _text(name, value).rstrip("/")
    if not folder:
        raise ImproperlyConfigured(f"{setting('s3', name)} is a folder of the bucket, and not empty")
    try:
        check_key(folder)
    except ValueError as error:
        raise ImproperlyConfigured(f"{setting('s3', name)} is {value!a}: {error}") from None
    if len(folder.encode()) + 1 + MAX_KEY_BYTES > MAX_S3_KEY_BYTES:
        raise ImproperlyConfigured(f"{setting('s3', name)} is longer than {MAX_S3_KEY_BYTES - MAX_KEY_BYTES - 1} bytes")
    return folder + "/"


def _check_areas(temp: str, final: str) -> None:
    if temp.startswith(final) or final.startswith(temp):
        raise ImproperlyConfigured(
            "temp_prefix and final_prefix (STORAGE_TEMP_PREFIX, STORAGE_FINAL_PREFIX) must be two folders, neither"
            " inside the other"
        )


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


def _endpoint(name: str, value: str | None) -> str:
    url = _text(name, value)
    problem = _problem_of_endpoint(url) if url else ""
    if problem:
        raise ImproperlyConfigured(f"{setting('s3', name)} {problem}")
    return url.rstrip("/")


def _proxy(value: str | None) -> str:
    url = _text("proxy", value)
    if url and _parts(url, ("http", "https", "socks5")) is None:
        raise ImproperlyConfigured("proxy is a URL such as http://proxy.example.com:3128, with a port from 1 to 65535")
    return url


def _problem_of_endpoint(url: str) -> str:
    parts = _parts(url, ("http", "https"))
    if parts is None:
        return "is a URL such as https://s3.example.com:9000, with http:// or https:// and a port from 1 to 65535"
    if "@" in parts.netloc or parts.query or parts.fragment:
        return "holds no credentials, no query and no fragment"
    return ""


def _certificates(verify: str | os.PathLike[str]) -> str | os.PathLike[str]:
    if str(verify).lower() in ("true", "false", "yes", "no", "on", "off", "1", "0"):
        raise ImproperlyConfigured(
            f"verify (AWS_S3_VERIFY) is True, False or the path of a CA file, not the text {verify!r}:"
            " read the environment variable with values.BooleanValue or similar"
        )
    return verify


def _path(name: str, value: str | os.PathLike[str] | None) -> str:
    path = "" if value is None else os.fspath(value) if isinstance(value, str | os.PathLike) else None
    if not isinstance(path, str) or "\0" in path:
        raise ImproperlyConfigured(f"{name} is the path of a file")
    return path


def _one_of(name: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ImproperlyConfigured(f"{name} is one of {', '.join(map(repr, known))}, not {value!r}")
    return value


def _number(name: str, value: int, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ImproperlyConfigured(f"{setting('s3', name)} is a number from {least} to {most}, not {value!r}")
    return value


def _number_or_none(name: str, value: int | None, least: int, most: int) -> int:
    """A number, or 0 for None: the Go side chooses one."""
    return 0 if value is None else _number(name, value, least, most)


def _seconds(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 3600:
        raise ImproperlyConfigured(f"{name} is a time in seconds, above 0 and at most 3600, not {value!r}")
    return float(value)
