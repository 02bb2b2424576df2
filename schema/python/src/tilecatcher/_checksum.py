"""Checksums of images: their bytes on the wire and their text in listings. Never looks at what an image is."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable
from typing import Union

from .errors import BadInput

Buffer = Union[bytes, bytearray, memoryview]

#: The names that a sender may choose; the length of the bytes tells the server which one it is.
ALGORITHMS = ("none", "crc32", "md5", "sha1", "sha256")


def check_algorithm(algorithm: str) -> str:
    """The algorithm, if it is one.

    Raises BadInput: it is none of ALGORITHMS.
    """
    if algorithm not in ALGORITHMS:
        raise BadInput(f'"{algorithm}" is no checksum: {", ".join(ALGORITHMS)}')
    return algorithm


def digest(algorithm: str, parts: Iterable[Buffer]) -> bytes:
    """The checksum of the joined parts as on the wire: nothing, 4 bytes little-endian (CRC-32), or the digest."""
    if check_algorithm(algorithm) == "none":
        return b""
    if algorithm == "crc32":
        crc = 0
        for part in parts:
            crc = zlib.crc32(part, crc)
        return crc.to_bytes(4, "little")
    hasher = hashlib.new(algorithm, usedforsecurity=False)
    for part in parts:
        hasher.update(part)
    return hasher.digest()


def text(algorithm: str, wire: bytes) -> str:
    """The same as `name:hex`, as listings have it. A CRC-32 is written as a number: most significant digit first."""
    return f"{algorithm}:{(wire[::-1] if algorithm == 'crc32' else wire).hex()}"
