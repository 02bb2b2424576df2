"""Client of the tilecatcher daemon: sends image tiles, reads them back as NumPy arrays.

`Client` speaks with the HTTP port, `Sender` with the capture port; both for one thread at a time. Everything that is
raised on purpose is a `TilecatcherError`.
"""

from ._receipt import Pressure, Receipt
from .client import Client
from .errors import (
    BadInput,
    ContentMismatch,
    NotFound,
    RequestRefused,
    ServerUnreachable,
    TilecatcherError,
    TileRefused,
    UnknownAcquisition,
    UnreadableImage,
    WrongProtocol,
)
from .log import minimal_log
from .sender import Pending, Sender
from .tile import STABLE, StoredTile, Tile, folder_tiles
from .tls import tls_context

__all__ = [
    "STABLE",
    "BadInput",
    "Client",
    "ContentMismatch",
    "NotFound",
    "Pending",
    "Pressure",
    "Receipt",
    "RequestRefused",
    "Sender",
    "ServerUnreachable",
    "StoredTile",
    "Tile",
    "TileRefused",
    "TilecatcherError",
    "UnknownAcquisition",
    "UnreadableImage",
    "WrongProtocol",
    "folder_tiles",
    "minimal_log",
    "tls_context",
]
