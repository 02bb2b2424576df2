"""What can go wrong, by what the caller does about it. Every message is one line and names the address or URL."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ._receipt import Receipt


class TilecatcherError(Exception):
    """Everything that this package raises."""


class BadInput(TilecatcherError, ValueError):
    """An argument can not be sent: change it."""


class ServerUnreachable(TilecatcherError):
    """Nobody answers, or a lost connection did not come back in time: check the server, then send again."""

    def __init__(self, message: str, unanswered: int = 0) -> None:
        super().__init__(message)
        #: Tiles without an answer. They may or may not be stored; sending them again is safe.
        self.unanswered = unanswered


class WrongProtocol(TilecatcherError):
    """Something else than a tilecatcher, or its other port, answers there: check the port."""


class TileRefused(TilecatcherError):
    """The server has not stored a tile and says so."""

    def __init__(self, receipt: Receipt, more: int = 0) -> None:
        others = f"; {more} more tiles were refused" if more else ""
        super().__init__(f"{receipt.place} was refused with status {receipt.status}: {receipt.meaning}{others}")
        #: The server's whole answer, with the tile's place.
        self.receipt = receipt

    @property
    def status(self) -> int:
        """1 do not resend unchanged, 2 resend later, 3 no space, 4 storage failed."""
        return self.receipt.status

    @property
    def may_resend(self) -> bool:
        """True when the same tile may be accepted later."""
        return self.status != 1


class RequestRefused(TilecatcherError):
    """The HTTP port says no. Status 503: too much is going on, ask again."""

    def __init__(self, url: str, status: int, message: str) -> None:
        super().__init__(f"{url}: status {status}: {message}")
        #: HTTP status.
        self.status = status
        #: What the server says.
        self.message = message


class NotFound(RequestRefused):
    """What was asked for is not stored."""


class UnknownAcquisition(NotFound):
    """The acquisition was never started: start it with its log."""


class ContentMismatch(TilecatcherError):
    """A tile that was read back is not what its checksum says."""


class UnreadableImage(TilecatcherError):
    """A content is stored, but is no image that this package can decode; the message says what would help."""

    def __init__(self, problem: str, remedy: str | None = None) -> None:
        super().__init__(f"{problem}: {remedy}" if remedy else problem)
