"""The capture port's messages. Requests are laid out by hand around an image that is never copied; answers are read
with the code that flatc generates.

The FlatBuffers builder would copy each image into a buffer of its own, which grows by doubling. The head below is a
layout that the builder could have made with the image first, so that any reader takes it: tests compare it with the
generated reader.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from ._receipt import MEANINGS, Pressure
from ._tile_generated import ImageTileResponse
from .errors import BadInput

#: The longest answer that is read. A real one has 56 bytes.
ANSWER_BYTES_MAX = 4096
PREFIX = struct.Struct("<I")

# Behind the prefix, little-endian: 0 root offset, 4 vtable (18 bytes), 24 table (36), 60 checksum's length,
# 64 checksum (room for 32), 108 image's length, 112 image.
_HEAD = struct.Struct("<II9H2xIiQiiiIII32s12xI")
_VTABLE, _TABLE, _CHECKSUM, _IMAGE = 4, 24, 60, 108
# Where acqId, camera, frame, col, row, checksum and image lie in the table.
_FIELDS = (8, 4, 16, 20, 24, 28, 32)


class RequestFields(NamedTuple):
    """A request without its image."""

    acq: int
    col: int
    row: int
    frame: int
    camera: int
    #: As on the wire.
    checksum: bytes


class Response(NamedTuple):
    """An answer, field by field."""

    acq: int
    tile_id: int
    status: int
    system: Pressure
    tile_queue: Pressure
    content_queue: Pressure


def tail(image_len: int) -> bytes:
    """What goes behind an image of that many bytes: zeros up to the next multiple of 8."""
    return bytes(-image_len % 8)


def head(fields: RequestFields, image_len: int) -> bytes:
    """What goes before an image of that many bytes: length prefix, table, checksum, the image's length.

    Raises BadInput: a number or the image does not fit its field.
    """
    fields_at = [0 if slot == 5 and not fields.checksum else at for slot, at in enumerate(_FIELDS)]
    try:
        return _HEAD.pack(
            _IMAGE + 4 + image_len + len(tail(image_len)),
            _TABLE,
            *(18, 36, *fields_at),
            _TABLE - _VTABLE,
            fields.camera,
            fields.acq,
            fields.frame,
            fields.col,
            fields.row,
            _CHECKSUM - (_TABLE + 28),
            _IMAGE - (_TABLE + 32),
            len(fields.checksum),
            fields.checksum,
            image_len,
        )
    except struct.error as error:
        place = f"acq {fields.acq}, col {fields.col}, row {fields.row}, frame {fields.frame}, camera {fields.camera}"
        raise BadInput(f"{place}, image of {image_len} bytes: does not fit a request: {error}") from None


def parse_response(body: bytes) -> Response:
    """Reads an answer.

    Raises ValueError: these bytes are none. (The generated reader trusts its input, so the values are judged, too.)
    """
    try:
        table = ImageTileResponse.GetRootAs(body)
        queues = (table.SystemStatus(), table.TileQueueStatus(), table.ContentQueueStatus())
        response = Response(table.AcqId(), table.TileId(), table.Status(), *map(Pressure, queues))
    except (struct.error, TypeError, IndexError, OverflowError) as error:
        raise ValueError(str(error)) from None
    if response.status not in MEANINGS or (response.tile_id > 0) != (response.status == 0):
        raise ValueError(f"status {response.status} with tile id {response.tile_id}")
    return response
