"""What the server answers to a tile."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

#: What each status means, and what to do.
MEANINGS = {
    0: "accepted",
    1: "do not resend unchanged (acquisition never started, checksum wrong or missing, bad place, tile too large, "
    "or conflict; the server's metrics and log say which)",
    2: "overloaded, resend later",
    3: "no space, resend later",
    4: "storage failed, the server stops; resend when it is back",
}


class Pressure(IntEnum):
    """How full the server's queues are."""

    #: Below 70 %.
    GREEN = 0
    #: Below 90 %.
    YELLOW = 1
    #: From there, or the tile was refused.
    RED = 2


@dataclass(frozen=True)
class Receipt:
    """The answer to one tile."""

    acq: int
    col: int
    row: int
    #: -1: a stable tile.
    frame: int
    camera: int
    #: Above 0 when accepted, the same for a tile that was stored before; 0 when refused.
    tile_id: int
    #: 0 accepted; see MEANINGS.
    status: int
    system: Pressure
    tile_queue: Pressure
    content_queue: Pressure
    #: From the first byte sent to the answer read, seconds; after a loss of the connection from the last try.
    took_s: float

    @property
    def meaning(self) -> str:
        """The status in words."""
        return MEANINGS[self.status]

    @property
    def place(self) -> str:
        """The tile in words."""
        frame = "" if self.frame == -1 else f" frame {self.frame}"
        return f"tile {self.col}/{self.row}{frame} of acquisition {self.acq}"
