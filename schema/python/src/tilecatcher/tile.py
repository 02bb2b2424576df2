"""Tiles: one to be sent, one as the server has it, and the names of their files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, Union

import numpy as np

from . import _checksum, _tiff
from .errors import BadInput

Image = Union[bytes, bytearray, memoryview, np.ndarray]

#: The frame of a stable tile; a drift frame has 0 or above.
STABLE = -1

_STABLE_NAME = re.compile(r"col([0-9]+)_row([0-9]+)_cam([0-9]+)\.tif")
_DRIFT_NAME = re.compile(r"Dump_cam([0-9])_frame([0-9]+)_col([0-9]+)_row([0-9]+)\.tif")


@dataclass(frozen=True, eq=False)
class Tile:
    """A tile to be sent.

    `image` is either a file's bytes, sent as they are (usually a TIFF), or an array `rows x cols` of uint8 or uint16,
    sent as uncompressed TIFF in the array's byte order. Its memory is sent from where it lies and must not change until
    the answer has come; the server refuses what changed, by the checksum.
    """

    acq: int
    #: Column in the mosaic, from 0.
    col: int
    #: Row in the mosaic, from 0.
    row: int
    image: Image = field(repr=False)
    camera: int = 0
    #: -1: a stable tile.
    frame: int = STABLE

    @cached_property
    def parts(self) -> list[memoryview]:
        """The bytes of the image file, in pieces.

        Raises BadInput: no bytes, and no 2-D array of uint8 or uint16.
        """
        if isinstance(self.image, np.ndarray):
            return _tiff.encode(self.image)
        try:
            parts = [memoryview(self.image).cast("B")]
        except TypeError as error:
            raise BadInput(f"an image of type {type(self.image).__name__} is no file's bytes: {error}") from None
        if parts[0].nbytes == 0:
            raise BadInput(f"the image of tile {self.col}/{self.row} is empty")
        return parts

    @property
    def size(self) -> int:
        """Bytes of the image file."""
        return sum(part.nbytes for part in self.parts)

    def checksum(self, algorithm: str) -> str:
        """The image file's checksum as `name:hex`."""
        return _checksum.text(algorithm, _checksum.digest(algorithm, self.parts))


@dataclass(frozen=True)
class StoredTile:
    """A tile as the server has it."""

    id: int
    acq: int
    col: int
    row: int
    #: -1: a stable tile.
    frame: int
    camera: int
    #: From 1; other content under the same place is a new version.
    version: int
    #: Bytes of the image file.
    size: int
    #: The sender's, else the server's CRC-32: `name:hex`.
    checksum: str
    #: RFC 3339 UTC.
    received: str
    #: Names this version's content for ever.
    content_key: str
    #: What is stored of it is known to be damaged: sent again, it is stored again.
    damaged: bool
    #: Regions in which the tile lies: `roi`, `section`, `prev`, `state` each.
    rois: tuple[dict[str, Any], ...] = field(hash=False)

    @property
    def algorithm(self) -> str:
        """The checksum's name."""
        return self.checksum.partition(":")[0]

    @classmethod
    def from_json(cls, tile: dict[str, Any]) -> StoredTile:
        """From the server's JSON (TileV1 of its description); what it does not know is passed over."""
        plain = {name: tile[name] for name in ("id", "col", "row", "camera", "version", "size", "checksum", "received")}
        return cls(
            acq=tile["acquisition"],
            frame=tile.get("frame", STABLE),
            content_key=tile["content_key"],
            damaged=tile.get("damaged", False),
            rois=tuple(tile["rois"]),
            **plain,
        )


def folder_tiles(folder: str | PathLike[str], acq: int) -> Iterator[Tile]:
    """The tiles of an acquisition's folder, by path; each file is read when its tile is asked for.

    Takes `col0001_row0002_cam3.tif` and `Dump_cam3_frame000004_col0001_row0002.tif` at any depth, passes over others.
    """
    for path in sorted(Path(folder).rglob("*.tif")):
        if named := _STABLE_NAME.fullmatch(path.name):
            col, row, camera, frame = (*map(int, named.groups()), STABLE)
        elif named := _DRIFT_NAME.fullmatch(path.name):
            camera, frame, col, row = map(int, named.groups())
        else:
            continue
        yield Tile(acq, col, row, path.read_bytes(), camera, frame)
