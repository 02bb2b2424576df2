"""Uncompressed grey TIFF files of 8 or 16 bits: written, and read in either byte order. All else is left to `tifffile`,
where it is installed. Never trusts an offset or a length of a file.
"""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np

from ._checksum import Buffer
from .errors import BadInput, UnreadableImage

_SHORT, _LONG, _RATIONAL = 3, 4, 5
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _STRIPS = 256, 257, 258, 259, 262, 266, 273
_SAMPLES, _ROWS_PER_STRIP, _STRIP_BYTES, _FORMAT, _TILE_WIDTH = 277, 278, 279, 339, 322
_TYPES = {_SHORT: "u2", _LONG: "u4"}
_HEADER_BYTES = 256
_REMEDY = "install tilecatcher[tiff] to have it decoded by tifffile"


#: A directory: views into the file, so that a wrong count costs no memory.
Tags = dict[int, np.ndarray]


class _Foreign(Exception):
    """A file that the reader below does not know."""


def encode(image: np.ndarray) -> list[memoryview]:
    """The file of a `rows x cols` array of uint8 or uint16 as header and pixels, row-major, in the array's byte order.

    The pixels are the array's own memory; one that is not contiguous is copied.

    Raises BadInput: another shape or type, or 4 GiB and more.
    """
    if image.ndim != 2 or image.size == 0 or image.dtype.newbyteorder("=") not in (np.uint8, np.uint16):
        raise BadInput(f"an array of shape {image.shape} and type {image.dtype}: not 2-D of uint8 or uint16")
    if image.nbytes >= 2**32 - _HEADER_BYTES:
        raise BadInput(f"an image of {image.nbytes} bytes does not fit a TIFF")
    pixels = np.ascontiguousarray(image)
    big = pixels.dtype == pixels.dtype.newbyteorder(">") and pixels.itemsize > 1
    header = _header(">" if big else "<", pixels.shape, pixels.itemsize)
    return [memoryview(header), pixels.view(np.uint8).reshape(-1).data]


def _header(order: str, shape: tuple[int, ...], item_bytes: int) -> bytes:
    rows, cols = shape
    rationals_at = _HEADER_BYTES - 16
    entries = [
        (_WIDTH, _LONG, cols),
        (_HEIGHT, _LONG, rows),
        (_BITS, _SHORT, 8 * item_bytes),
        (_COMPRESSION, _SHORT, 1),
        (_PHOTOMETRIC, _SHORT, 1),
        (_STRIPS, _LONG, _HEADER_BYTES),
        (_SAMPLES, _SHORT, 1),
        (_ROWS_PER_STRIP, _LONG, rows),
        (_STRIP_BYTES, _LONG, rows * cols * item_bytes),
        (282, _RATIONAL, rationals_at),  # Resolution, which a baseline reader expects: 1 by 1,
        (283, _RATIONAL, rationals_at + 8),
        (296, _SHORT, 1),  # without a unit.
    ]
    packed = struct.pack(order + "2sHIH", b"MM" if order == ">" else b"II", 42, 8, len(entries))
    for tag, kind, value in entries:
        packed += struct.pack(order + ("HHIHxx" if kind == _SHORT else "HHII"), tag, kind, 1, value)
    return packed.ljust(rationals_at, b"\0") + struct.pack(order + "4I", 1, 1, 1, 1)


def decode(content: Buffer) -> np.ndarray:
    """The image of a file: `rows x cols`, uint8 or uint16 by its bits, in this machine's byte order.

    What is not uncompressed grey is decoded by `tifffile`, then of whatever type that gives.

    Raises UnreadableImage: no TIFF, a damaged one, not one grey image, or tifffile is needed and not installed.
    """
    content = memoryview(content)
    try:
        return _decode(content)
    except _Foreign as foreign:
        return _decode_foreign(content, str(foreign))
    except KeyError as missing:
        raise UnreadableImage(f"a damaged TIFF: tag {missing} is missing") from None
    except (struct.error, ValueError) as error:
        raise UnreadableImage(f"a damaged TIFF: {error}") from None


def _decode(content: memoryview) -> np.ndarray:
    order = {b"II": "<", b"MM": ">"}.get(bytes(content[:2]))
    if order is None:
        raise UnreadableImage(f"no TIFF: the content begins with {bytes(content[:4])!r}")
    version, directory = struct.unpack_from(order + "HI", content, 2)
    if version != 42:
        raise _Foreign(f"TIFF version {version}")
    tags = _read_directory(content, order, directory)
    dtype = _plain_type(tags, order)
    rows, cols = _number(tags, _HEIGHT, 0), _number(tags, _WIDTH, 0)
    pixels = _join_strips(content, tags, rows * cols * dtype.itemsize).view(dtype).reshape(rows, cols)
    return pixels.astype(dtype.newbyteorder("="), copy=False)


def _read_directory(content: memoryview, order: str, at: int) -> Tags:
    """The tags with whole numbers; an unknown kind of number leaves its tag out."""
    tags: Tags = {}
    (count,) = struct.unpack_from(order + "H", content, at)
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, length = struct.unpack_from(order + "HHI", content, entry)
        if kind in _TYPES:
            dtype = np.dtype(order + _TYPES[kind])
            inline = length * dtype.itemsize <= 4
            values_at = entry + 8 if inline else struct.unpack_from(order + "I", content, entry + 8)[0]
            tags[tag] = np.frombuffer(content, dtype, length, values_at)
    (following,) = struct.unpack_from(order + "I", content, at + 2 + 12 * count)
    if following:
        raise _Foreign("several images")
    return tags


def _number(tags: Tags, tag: int, default: int) -> int:
    """The one number of a tag; -1 when it has another count."""
    values = tags.get(tag)
    if values is None:
        return default
    return int(values[0]) if len(values) == 1 else -1


def _plain_type(tags: Tags, order: str) -> np.dtype[Any]:
    named = {"compression": _COMPRESSION, "photometric interpretation": _PHOTOMETRIC, "samples a pixel": _SAMPLES}
    odd = [f"{name} {_number(tags, tag, 1)}" for name, tag in named.items() if _number(tags, tag, 1) != 1]
    bits = _number(tags, _BITS, 1)
    if bits not in (8, 16) or any(_number(tags, tag, 1) != 1 for tag in (_FILL_ORDER, _FORMAT)) or _TILE_WIDTH in tags:
        odd.append("layout")
    if odd:
        raise _Foreign(f"a TIFF that is not uncompressed grey of 8 or 16 bits ({', '.join(odd)})")
    return np.dtype(f"{order}u{bits // 8}")


def _join_strips(content: memoryview, tags: Tags, image_bytes: int) -> np.ndarray:
    offsets, lengths = tags[_STRIPS].tolist(), tags[_STRIP_BYTES].tolist()
    if len(offsets) != len(lengths) or sum(lengths) != image_bytes or not 0 < image_bytes <= len(content):
        raise ValueError(f"{sum(lengths)} bytes in strips, {image_bytes} in the image, {len(content)} in the file")
    places = zip(offsets, lengths)
    return np.concatenate([np.frombuffer(content, np.uint8, length, at) for at, length in places if length])


def _decode_foreign(content: memoryview, problem: str) -> np.ndarray:
    try:
        import tifffile
    except ImportError:
        raise UnreadableImage(problem, _REMEDY) from None
    try:
        image = np.asarray(tifffile.imread(io.BytesIO(content)))
    except Exception as error:  # tifffile raises what its codecs raise
        raise UnreadableImage(f"tifffile can not decode it ({problem}): {error}") from error
    if image.ndim != 2:
        raise UnreadableImage(f"an image of shape {image.shape} is not rows x cols", "decode content() yourself")
    return image
