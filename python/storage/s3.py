"""Objects in a bucket of an S3-compatible store."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from django.core.exceptions import ImproperlyConfigured

from .adapter import NativeAdapter
from .base import MAX_KEY_BYTES, check_key

MIN_PART_SIZE = 5 * 1024 * 1024
MAX_PART_SIZE = 5 * 1024**3
"""S3's limits for a part of a multipart upload, in bytes."""

MAX_S3_KEY_BYTES = 1024

CHECKSUMS = ("auto", "crc32", "crc64nvme", "sha256", "off")
ADDRESSING_STYLES = ("auto", "path", "virtual")


class S3StorageAdapter(NativeAdapter):
    """Keeps parts below ``temp_prefix`` and objects below ``final_prefix`` of one bucket.

    Options are spelled as django-storages' users know them. Unset credentials come from the default chain of the AWS
    SDKs: environment, profile, web identity, container, instance. ``endpoint_url`` unset means AWS. Sizes are in
    bytes, times in seconds; ``read_timeout`` is for how long no byte may move. ``verify`` is False for no
    verification of certificates, or the path of a CA file, as ``ca_bundle`` is.

    ``checksum`` says how the server verifies the parts of a large upload: ``auto`` is ``crc64nvme`` where the server
    takes it, else the SHA-256 in the signature of each part.

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
        part_size: int = 8 * 1024 * 1024,
        concurrency: int = 4,
        equal_parts: bool = False,
        connect_timeout: float = 10,
        read_timeout: float = 30,
        max_attempts: int = 4,
        checksum: Literal["auto", "crc32", "crc64nvme", "sha256", "off"] = "auto",
        server_side_encryption: str | None = None,
        kms_key_id: str | None = None,
        storage_class: str | None = None,
        proxy: str | None = None,
        carry_digest: bool = True,
    ) -> None:
        super().__init__(carry_digest=carry_digest)
        if not isinstance(bucket_name, str) or not bucket_name or "/" in bucket_name:
            raise ImproperlyConfigured("bucket_name (AWS_STORAGE_BUCKET_NAME) is the name of a bucket, and not empty")
        if bool(access_key) != bool(secret_key):
            raise ImproperlyConfigured(
                "access_key and secret_key (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY) are set together, or neither"
            )
        self.bucket = bucket_name
        self._prefixes = _prefix("temp_prefix", temp_prefix), _prefix("final_prefix", final_prefix)
        _check_areas(*self._prefixes)
        self.prefix = self._prefixes[1]
        if isinstance(verify, str | os.PathLike):
            ca_bundle, verify = ca_bundle or _certificates(verify), True
        elif verify is not None and not isinstance(verify, bool):
            raise ImproperlyConfigured("verify (AWS_S3_VERIFY) is True, False or the path of a CA file")
        self._ca_bundle = ca_bundle
        self._storage_class = storage_class or ""
        self._options: dict[str, Any] = {
            "bucket_name": bucket_name,
            "access_key": access_key or "",
            "secret_key": secret_key or "",
            "security_token": security_token or "",
            "region_name": region_name or "",
            "endpoint_url": _endpoint(endpoint_url),
            "addressing_style": _one_of("addressing_style", addressing_style or "auto", ADDRESSING_STYLES),
            "verify": verify is not False,
            "part_size": _number("part_size", part_size, MIN_PART_SIZE, MAX_PART_SIZE),
            "concurrency": _number("concurrency", concurrency, 1, 64),
            "equal_parts": bool(equal_parts),
            "connect_timeout": _seconds("connect_timeout", connect_timeout),
            "read_timeout": _seconds("read_timeout", read_timeout),
            "max_attempts": _number("max_attempts", max_attempts, 1, 20),
            "checksum": _one_of("checksum", checksum, CHECKSUMS),
            "server_side_encryption": server_side_encryption or "",
            "kms_key_id": kms_key_id or "",
            "proxy": proxy or "",
        }

    def _configurations(self) -> tuple[dict[str, Any], dict[str, Any]]:
        ca_bundle = self._ca_bundle or os.environ.get("AWS_CA_BUNDLE") or ""
        shared = {
            "backend": "s3",
            **self._options,
            "ca_bundle": os.fspath(Path(ca_bundle).expanduser()) if ca_bundle else "",
            "environment": _environment(),
        }
        temp, final = self._prefixes
        return (
            {**shared, "prefix": temp},  # parts are read soon: never in an archive class
            {**shared, "prefix": final, "storage_class": self._storage_class},
        )

    def __repr__(self) -> str:
        return f"<S3StorageAdapter bucket={self.bucket!r} prefix={self.prefix!r}>"


def _environment() -> dict[str, str]:
    """What the SDK's default chain and the choice of a proxy read, as Python has it now."""
    return {
        name: value
        for name, value in os.environ.items()
        if name.startswith("AWS_") or name.upper().endswith("_PROXY") or name == "HOME"
    }


def _prefix(name: str, value: str) -> str:
    if not isinstance(value, str) or not value.strip("/"):
        raise ImproperlyConfigured(f"{name} (STORAGE_{name.upper()}) is a folder of the bucket, and not empty")
    folder = value.rstrip("/")
    try:
        check_key(folder)
    except ValueError as error:
        raise ImproperlyConfigured(f"{name} (STORAGE_{name.upper()}) is {value!r}: {error}") from None
    if len(folder.encode()) + 1 + MAX_KEY_BYTES > MAX_S3_KEY_BYTES:
        raise ImproperlyConfigured(
            f"{name} (STORAGE_{name.upper()}) is longer than {MAX_S3_KEY_BYTES - MAX_KEY_BYTES - 1} bytes"
        )
    return folder + "/"


def _check_areas(temp: str, final: str) -> None:
    if temp.startswith(final) or final.startswith(temp):
        raise ImproperlyConfigured(
            "temp_prefix and final_prefix (STORAGE_TEMP_PREFIX, STORAGE_FINAL_PREFIX) must be two folders, neither"
            " inside the other"
        )


def _endpoint(value: str | None) -> str:
    if not value:
        return ""
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ImproperlyConfigured(
            "endpoint_url (AWS_S3_ENDPOINT_URL) is a URL such as https://s3.example.com, with http:// or https://"
        )
    if parts.username or parts.password or parts.query:
        raise ImproperlyConfigured("endpoint_url (AWS_S3_ENDPOINT_URL) holds no credentials and no query")
    return value.rstrip("/")


def _certificates(verify: str | os.PathLike[str]) -> str | os.PathLike[str]:
    if str(verify).lower() in ("true", "false", "yes", "no", "on", "off", "1", "0"):
        raise ImproperlyConfigured(
            f"verify (AWS_S3_VERIFY) is True, False or the path of a CA file, not the text {verify!r}:"
            " read the environment by values.BooleanValue or the like"
        )
    return verify


def _one_of(name: str, value: str, known: tuple[str, ...]) -> str:
    if value not in known:
        raise ImproperlyConfigured(f"{name} is one of {', '.join(map(repr, known))}, not {value!r}")
    return value


def _number(name: str, value: int, least: int, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ImproperlyConfigured(f"{name} is a number from {least} to {most}, not {value!r}")
    return value


def _seconds(name: str, value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 3600:
        raise ImproperlyConfigured(f"{name} is a time in seconds, above 0 and at most 3600, not {value!r}")
    return float(value)
