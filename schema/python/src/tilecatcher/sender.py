"""Sends tiles to the capture port with a window of them in flight, across losses of the connection.

One connection, one thread, no thread of its own: answers are read while `send`, `flush` or `result` run. What was not
answered is kept, in order, and goes out again on the next connection; the server knows a tile that it has stored and
answers with the same id. Never copies an image: the system takes it from the caller's memory.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Callable

from . import _checksum, _frame
from ._receipt import Receipt
from .errors import BadInput, ServerUnreachable, TilecatcherError, TileRefused, WrongProtocol
from .tile import Tile

_BACKOFF_FIRST_S = 0.05
_BACKOFF_MAX_S = 2.0


class Pending:
    """A tile on its way: its answer, now or later."""

    def __init__(self, sender: Sender, tile: Tile, head: bytes) -> None:
        self._sender = sender
        self._tile: Tile | None = tile
        self._head = head
        self._begun_s = 0.0
        self._receipt: Receipt | None = None

    def done(self) -> bool:
        """True when the answer has come. Does not look for it."""
        return self._receipt is not None

    def receipt(self) -> Receipt:
        """Waits for the answer, good or bad.

        Raises ServerUnreachable, WrongProtocol: there will be none.
        """
        while self._receipt is None:
            self._sender._receive()
        if self._receipt.status != 0:
            self._sender._looked_at(self)
        return self._receipt

    def result(self) -> Receipt:
        """Waits for the acknowledgement: the tile is stored.

        Raises TileRefused, and what `receipt` raises.
        """
        receipt = self.receipt()
        if receipt.status != 0:
            raise TileRefused(receipt)
        return receipt

    def _parts(self) -> list[memoryview]:
        tile = self._unanswered_tile()
        return [memoryview(self._head), *tile.parts, memoryview(_frame.tail(tile.size))]

    def _unanswered_tile(self) -> Tile:
        assert self._tile is not None, "kept until it is answered"
        return self._tile

    def _settle(self, response: _frame.Response) -> None:
        """Takes the answer, lets go of the image."""
        tile = self._unanswered_tile()
        took_s = time.monotonic() - self._begun_s
        place = (tile.acq, tile.col, tile.row, tile.frame, tile.camera)
        self._receipt = Receipt(*place, *response[1:], took_s=took_s)
        self._tile = None


class Sender:
    """A connection to a capture port. For one thread at a time.

    As a context manager it waits, at the end of the block, until every tile is answered.
    """

    def __init__(
        self,
        capture: tuple[str, int],
        *,
        window: int = 8,
        checksum: str = "md5",
        timeout_s: float = 60.0,
        retry_s: float = 60.0,
        raise_refused: bool = True,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """Connects.

        `capture` host and port; `window` most tiles in flight, from 1 (the server takes 64); `checksum` of each tile:
        none, crc32, md5, sha1 or sha256; `timeout_s` bounds each wait for the server; `retry_s` how long to try to get
        a lost connection back without an answer in between, 0: not at all. A refused tile that nobody has looked at
        is raised by the next `send`, `flush` or the end of the block, unless `raise_refused` is false: then it is only
        in `refused` and in its own `result`. With `ssl_context`, see `tls_context`, the connection is encrypted.

        Raises ServerUnreachable, BadInput.
        """
        if window < 1:
            raise BadInput(f"a window of {window} tiles sends none")
        self._address = capture
        self._window = window
        self._algorithm = _checksum.check_algorithm(checksum)
        self._timeout_s = timeout_s
        self._retry_s = retry_s
        self._raise_refused = raise_refused
        self._ssl_context = ssl_context
        #: Tiles that were refused and that nobody has looked at.
        self.refused: list[Pending] = []
        #: Tiles that the server has acknowledged.
        self.acknowledged = 0
        #: How often a lost connection was opened again.
        self.reconnections = 0
        self._unanswered: deque[Pending] = deque()
        self._begun = 0  # of the unanswered, those whose sending began on this connection
        self._lost_since_s: float | None = None
        self._backoff_s = _BACKOFF_FIRST_S
        self._failure: TilecatcherError | None = None
        self._socket: socket.socket | None = None
        try:
            self._connect()
        except OSError as error:
            raise ServerUnreachable(f"{self._where()}: {error}; is the daemon running there?") from error

    @property
    def unanswered(self) -> list[Tile]:
        """The tiles without an answer, in order: those to be sent again after a failure."""
        return [pending._unanswered_tile() for pending in self._unanswered]

    def send(self, tile: Tile) -> Pending:
        """Sends a tile; when the window is full, waits for the oldest answer first.

        Returns at once when the system has taken the bytes: the answer comes later.

        Raises ServerUnreachable, WrongProtocol: the sender is at its end, `unanswered` has what is left. BadInput: this
        tile can not be sent. TileRefused: an earlier tile was refused; this one was not taken, the sender goes on.
        """
        checksum = _checksum.digest(self._algorithm, tile.parts)
        fields = _frame.RequestFields(tile.acq, tile.col, tile.row, tile.frame, tile.camera, checksum)
        pending = Pending(self, tile, _frame.head(fields, tile.size))
        while len(self._unanswered) >= self._window:
            self._receive()
        self._raise_unseen_refusals()
        self._unanswered.append(pending)
        self._persist(self._write, lambda: self._begun == len(self._unanswered))
        return pending

    def flush(self) -> None:
        """Waits until every tile is answered.

        Raises as `send`.
        """
        while self._unanswered:
            self._receive()
        self._raise_unseen_refusals()

    def close(self) -> None:
        """Closes the connection without waiting: unanswered tiles may or may not be stored."""
        if self._failure is None:
            count = len(self._unanswered)
            self._failure = TilecatcherError(f"{self._where()}: this sender was closed with {count} tiles unanswered")
        self._disconnect()

    def __enter__(self) -> Sender:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            self.close()

    def _receive(self) -> None:
        """Takes the oldest answer, or more, whatever losses of the connection that takes."""
        left = len(self._unanswered) - 1
        self._persist(self._write_and_take_answer, lambda: len(self._unanswered) <= left)

    def _looked_at(self, pending: Pending) -> None:
        if pending in self.refused:
            self.refused.remove(pending)

    def _raise_unseen_refusals(self) -> None:
        if self.refused and self._raise_refused:
            first, more = self.refused[0], len(self.refused) - 1
            self.refused.clear()
            raise TileRefused(first.receipt(), more)

    def _persist(self, step: Callable[[], None], reached: Callable[[], bool]) -> None:
        """Does a step, on as many connections as it takes; what a lost one has brought counts."""
        if self._failure is not None:
            raise self._failure
        try:
            while not reached():
                self._try(step)
        except BaseException as error:
            # Whatever it was, even a key pressed, it may have come in the middle of a frame.
            self._disconnect()
            if isinstance(error, TilecatcherError):
                self._failure = error
            raise

    def _try(self, step: Callable[[], None]) -> None:
        """Does a step on a connection; when that is lost, waits a while."""
        try:
            if self._socket is None:
                self._connect()
                self.reconnections += 1
            step()
        except OSError as error:
            self._lost(error)

    def _connect(self) -> None:
        connection = socket.create_connection(self._address, self._timeout_s)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self._ssl_context is not None:
            connection = self._ssl_context.wrap_socket(connection, server_hostname=self._address[0])
        self._socket = connection

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._begun = 0

    def _lost(self, error: OSError) -> None:
        """After a loss: takes the answers that came before it, then waits, longer each time.

        Without them a tile for which the server closes the connection would be sent again and again.
        """
        if not isinstance(error, socket.timeout):
            self._take_what_came()
        self._disconnect()
        if not self._unanswered:
            return
        now = time.monotonic()
        if self._lost_since_s is None:
            self._lost_since_s = now
        left_s = self._lost_since_s + self._retry_s - now
        if left_s <= 0:
            count = len(self._unanswered)
            problem = f"{self._where()}: {error}; not back within {self._retry_s:g} s"
            raise ServerUnreachable(f"{problem}; {count} tiles are unanswered: send them again", count) from error
        time.sleep(min(self._backoff_s, left_s))
        self._backoff_s = min(self._backoff_s * 2, _BACKOFF_MAX_S)

    def _take_what_came(self) -> None:
        try:
            while self._socket is not None and self._begun:
                self._take_answer()
        except OSError:
            return

    def _write(self) -> None:
        """Sends what was not sent on this connection."""
        while self._begun < len(self._unanswered):
            pending = self._unanswered[self._begun]
            self._begun += 1
            pending._begun_s = time.monotonic()
            send_parts(self._connected(), pending._parts())

    def _write_and_take_answer(self) -> None:
        self._write()
        self._take_answer()

    def _take_answer(self) -> None:
        oldest = self._unanswered[0]
        response = self._read_response(oldest._unanswered_tile().acq)
        oldest._settle(response)
        self._unanswered.popleft()
        self._begun -= 1
        self._lost_since_s, self._backoff_s = None, _BACKOFF_FIRST_S
        if response.status == 0:
            self.acknowledged += 1
        else:
            self.refused.append(oldest)

    def _read_response(self, acq: int) -> _frame.Response:
        prefix = self._read_exactly(_frame.PREFIX.size)
        (length,) = _frame.PREFIX.unpack(prefix)
        if length > _frame.ANSWER_BYTES_MAX:
            raise self._wrong_protocol(prefix)
        body = self._read_exactly(length)
        try:
            response = _frame.parse_response(body)
        except ValueError:
            raise self._wrong_protocol(prefix + body) from None
        # A request that could not be read is answered with acquisition 0.
        if response.acq != acq and (response.acq, response.status) != (0, 1):
            raise self._wrong_protocol(prefix + body)
        return response

    def _read_exactly(self, count: int) -> bytes:
        taken = b""
        while len(taken) < count:
            more = self._connected().recv(count - len(taken))
            if not more:
                raise ConnectionResetError("the server closed the connection")
            taken += more
        return taken

    def _connected(self) -> socket.socket:
        assert self._socket is not None, "steps run on a connection"
        return self._socket

    def _wrong_protocol(self, answer: bytes) -> WrongProtocol:
        hint = "this is an HTTP port" if answer == b"HTTP" else "is this a tilecatcher's capture port?"
        return WrongProtocol(f"{self._where()}: the answer {answer[:24]!r} is not an ImageTileResponse; {hint}")

    def _where(self) -> str:
        return f"capture port {self._address[0]}:{self._address[1]}"


def send_parts(connection: socket.socket, parts: Sequence[memoryview]) -> None:
    """Sends buffers of bytes one behind the other: with one call where the system has one for that."""
    at_once = hasattr(connection, "sendmsg") and not isinstance(connection, ssl.SSLSocket)
    sent = connection.sendmsg(parts) if at_once else 0
    for part in parts:
        skipped = min(sent, part.nbytes)
        sent -= skipped
        if skipped < part.nbytes:
            connection.sendall(part[skipped:])
