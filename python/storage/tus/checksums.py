"""The checksums of bodies: their algorithms, and the header Upload-Checksum."""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import sys
from array import array
from collections.abc import Callable
from typing import Protocol


class Hash(Protocol):
    def update(self, data: bytes, /) -> None: ...

    def digest(self) -> bytes: ...


@functools.cache
def _table() -> list[int]:
    """What each two bytes, the lower one first, do to a CRC."""
    one = [_shifted(value, 8) for value in range(1 << 8)]
    after_one = (value >> 8 ^ one[value & 0xFF] for value in range(1 << 16))
    return [value >> 8 ^ one[value & 0xFF] for value in after_one]


def _shifted(state: int, bits: int) -> int:
    for _ in range(bits):
        state = state >> 1 ^ (0x82F63B78 if state & 1 else 0)
    return state


class Crc32c:
    """CRC-32C (Castagnoli). Slow, some 10 MB/s: clients that want speed send sha1 or sha256."""

    def __init__(self) -> None:
        self._state = 0xFFFFFFFF

    def update(self, data: bytes, /) -> None:
        state, table = self._state, _table()
        even = len(data) & ~1
        words = array("H", data[:even])
        if sys.byteorder == "big":
            words.byteswap()
        for word in words:
            state = state >> 16 ^ table[(state ^ word) & 0xFFFF]
        for byte in data[even:]:
            state = _shifted(state ^ byte, 8)
        self._state = state

    def digest(self) -> bytes:
        """Four bytes, the highest first."""
        return (self._state ^ 0xFFFFFFFF).to_bytes(4, "big")


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
