"""The checksums of bodies: their algorithms, and the header Upload-Checksum."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable
from typing import Protocol

from storage import native


class Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


class Crc32c:
    """CRC-32C (Castagnoli), which Python does not have."""

    def __init__(self) -> None:
        self._value = 0

    def update(self, data: bytes, /) -> None:
        self._value = native.crc32c(self._value, bytes(data))  # no copy of what is just `bytes`

    def digest(self) -> bytes:
        """Four bytes, the highest first."""
        return self._value.to_bytes(4, "big")


ALGORITHMS: dict[str, Callable[[], Hash]] = {
    "sha1": lambda: hashlib.sha1(usedforsecurity=False),
    "sha256": hashlib.sha256,
    "md5": lambda: hashlib.md5(usedforsecurity=False),
    "crc32c": Crc32c,
}


class Checksum:
    """The checksum that a body must have."""

    def __init__(self, algorithm: str, expected: bytes) -> None:
        self._hash, self._expected = ALGORITHMS[algorithm](), expected

    @classmethod
    def parse(cls, header: str) -> Checksum:
        """Of the header Upload-Checksum. Raises ``ValueError``."""
        algorithm, _, encoded = header.strip(" ").partition(" ")
        if algorithm not in ALGORITHMS:
            raise ValueError(f"Upload-Checksum names one of {', '.join(ALGORITHMS)}, and the digest in base64")
        try:
            expected = base64.b64decode(encoded.encode("ascii"), validate=True)
        except (binascii.Error, ValueError):
            raise ValueError("the digest in Upload-Checksum is not in base64") from None
        made = cls(algorithm, expected)
        if len(expected) != len(made._hash.digest()):
            raise ValueError(f"the digest in Upload-Checksum does not have the length of a {algorithm}")
        return made

    def update(self, data: bytes) -> None:
        self._hash.update(data)

    def matches(self) -> bool:
        return self._hash.digest() == self._expected
