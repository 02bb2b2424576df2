"""The sender against the real daemon, killed and restarted, and against servers that misbehave."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Callable

import numpy as np
import pytest
from daemon import ACQ, PATIENCE_S, Daemon
from test_frame import response

from tilecatcher import Client, Sender, ServerUnreachable, Tile, TilecatcherError, TileRefused, WrongProtocol
from tilecatcher import sender as sender_module
from tilecatcher._tile_generated import ImageTileRequest
from tilecatcher.sender import send_parts


def tiles(count: int, acq: int = ACQ) -> list[Tile]:
    return [Tile(acq, n // 8, n % 8, b"content of %d" % n * 1000) for n in range(count)]


def test_answers_come_in_order_and_no_more_than_the_window_is_in_flight(daemon: Daemon) -> None:
    daemon.started()
    with Sender(daemon.capture, window=3) as sender:
        pending = []
        for tile in tiles(20):
            pending.append(sender.send(tile))
            assert 1 <= len(sender.unanswered) <= 3
            answered = len(pending) - len(sender.unanswered)
            assert [one.done() for one in pending] == [n < answered for n in range(len(pending))]
    receipts = [one.result() for one in pending]
    assert [(receipt.col, receipt.row) for receipt in receipts] == [(n // 8, n % 8) for n in range(20)]
    assert len({receipt.tile_id for receipt in receipts}) == 20
    assert (sender.acknowledged, sender.unanswered, sender.reconnections) == (20, [], 0)
    assert all(receipt.took_s > 0 for receipt in receipts)


def test_a_tile_that_changes_under_way_is_refused_by_its_checksum(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.started()
    image = np.zeros((4, 4), np.uint8)

    def change_and_send(connection: socket.socket, parts: list[memoryview]) -> None:
        image.fill(1)
        send_parts(connection, parts)

    monkeypatch.setattr(sender_module, "send_parts", change_and_send)
    with Sender(daemon.capture) as sender:
        assert sender.send(Tile(ACQ, 0, 0, image)).receipt().status == 1


def test_a_frame_that_was_interrupted_does_not_spoil_the_next(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    client, (first, second) = daemon.started(), tiles(2)

    def send_half(connection: socket.socket, parts: list[memoryview]) -> None:
        connection.sendall(b"".join(parts)[:5000])
        raise KeyboardInterrupt

    with Sender(daemon.capture) as sender:
        monkeypatch.setattr(sender_module, "send_parts", send_half)
        with pytest.raises(KeyboardInterrupt):
            sender.send(first)
        monkeypatch.undo()
        sender.send(second)
    assert (sender.acknowledged, sender.reconnections) == (2, 1)
    assert list(client.not_stored([first, second])) == []


BAD = [Tile(999, 0, 0, b"no such acquisition"), Tile(ACQ, -1, 0, b"no such place"), Tile(ACQ, 0, 0, bytes(9 << 20))]


@pytest.mark.parametrize("bad", BAD, ids=["unknown_acquisition", "bad_key", "too_large"])
def test_a_refused_tile_is_raised_where_it_is_asked_for_and_the_others_are_stored(daemon: Daemon, bad: Tile) -> None:
    client = daemon.started()
    with Sender(daemon.capture) as sender:
        before, refused, after = (sender.send(tile) for tile in (tiles(1)[0], bad, tiles(2)[1]))
        with pytest.raises(TileRefused, match="status 1: do not resend unchanged") as error:
            refused.result()
        assert (error.value.status, error.value.may_resend) == (1, False)
        assert (error.value.receipt.tile_id, error.value.receipt.col) == (0, bad.col)
    assert before.result().tile_id != after.result().tile_id
    assert len(list(client.tiles(ACQ))) == 2


def test_refusals_that_nobody_looked_at_are_raised(daemon: Daemon) -> None:
    daemon.started()
    sender = Sender(daemon.capture)
    for tile in tiles(3, acq=999):
        sender.send(tile)
    with pytest.raises(TileRefused, match=r"tile 0/0 of acquisition 999 .* 2 more tiles were refused"), sender:
        pass
    with Sender(daemon.capture, window=1) as sender:
        sender.send(tiles(1, acq=999)[0])
        with pytest.raises(TileRefused, match="acquisition 999"):
            sender.send(tiles(1)[0])
        assert sender.send(tiles(1)[0]).result().tile_id > 0
    with Sender(daemon.capture, raise_refused=False) as sender:
        for tile in tiles(3, acq=999) + tiles(2):
            sender.send(tile)
    assert [pending.receipt().row for pending in list(sender.refused)] == [0, 1, 2]
    assert (sender.refused, sender.acknowledged) == ([], 2)


def test_a_daemon_that_is_killed_and_comes_back_loses_nothing(daemon: Daemon) -> None:
    client, all_tiles, restart = daemon.started(), tiles(60), threading.Thread(target=daemon.start)
    with Sender(daemon.capture, window=8, retry_s=PATIENCE_S) as sender:
        pending = [sender.send(tile) for tile in all_tiles[:20]]
        first_ids = [one.result().tile_id for one in pending[:10]]
        daemon.kill()
        restart.start()
        pending += [sender.send(tile) for tile in all_tiles[20:]]
    restart.join()
    ids = [one.result().tile_id for one in pending]
    assert sender.reconnections >= 1
    assert (ids[:10], len(set(ids)), sender.acknowledged) == (first_ids, 60, 60)
    stored = list(client.tiles(ACQ, page=7))
    assert sorted(tile.id for tile in stored) == sorted(ids)
    assert list(client.not_stored(all_tiles)) == []
    assert client.acquisition(ACQ)["replaced_versions"] == 0
    with Sender(daemon.capture) as sender:
        assert [sender.send(tile).result().tile_id for tile in all_tiles] == ids


def test_a_script_that_died_goes_on_where_it_was(daemon: Daemon) -> None:
    client, all_tiles = daemon.started(), tiles(30)
    with pytest.raises(KeyboardInterrupt), client.sender() as sender:
        for tile in all_tiles[:13]:
            sender.send(tile)
        sender.flush()
        raise KeyboardInterrupt
    with client.sender() as sender:
        for tile in client.not_stored(all_tiles):
            sender.send(tile)
    assert sender.acknowledged == 30 - 13
    assert list(client.not_stored(all_tiles)) == []


def test_nobody_listening_is_told() -> None:
    port = 1  # nobody's
    with pytest.raises(ServerUnreachable, match=f"capture port 127.0.0.1:{port}: .*is the daemon running there"):
        Sender(("127.0.0.1", port))
    with pytest.raises(ServerUnreachable, match="is the daemon running, and is this its HTTP port"):
        Client(f"http://127.0.0.1:{port}").acquisition(1)


def test_ports_that_were_swapped_are_told(daemon: Daemon) -> None:
    daemon.started()
    with pytest.raises(WrongProtocol, match="this is an HTTP port"), Sender(("127.0.0.1", daemon.http_port)) as sender:
        sender.send(tiles(1)[0])
    with pytest.raises(WrongProtocol, match="is this the HTTP port"):
        Client(f"http://127.0.0.1:{daemon.capture[1]}").acquisition(ACQ)


class FakeServer:
    """Takes one connection after the other; `serve` gets each, and what came on them is kept."""

    def __init__(self, serve: Callable[[FakeServer, socket.socket], None]) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = self.listener.getsockname()
        #: Rows of the tiles that came on each connection.
        self.came: list[list[int]] = []
        self._serve = serve
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            connection.settimeout(PATIENCE_S)
            self.came.append([])
            with connection, suppress(ConnectionError):
                self._serve(self, connection)

    def read_request(self, connection: socket.socket) -> ImageTileRequest:
        prefix = connection.recv(4, socket.MSG_WAITALL)
        if len(prefix) < 4:
            raise ConnectionResetError("the sender is gone")
        (length,) = struct.unpack("<I", prefix)
        request = ImageTileRequest.GetRootAs(connection.recv(length, socket.MSG_WAITALL))
        self.came[-1].append(request.Row())
        return request

    def stop(self) -> None:
        with suppress(OSError):  # It may be shut down already.
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self._thread.join(PATIENCE_S)


@contextmanager
def fake(serve: Callable[[FakeServer, socket.socket], None]) -> Iterator[FakeServer]:
    server = FakeServer(serve)
    try:
        yield server
    finally:
        server.stop()


def framed(body: bytes) -> bytes:
    return struct.pack("<I", len(body)) + body


def test_only_what_was_not_acknowledged_is_sent_again_and_in_order() -> None:
    """Each connection takes 3 tiles, answers 2, and is gone."""

    def serve(server: FakeServer, connection: socket.socket) -> None:
        for n in range(3):
            request = server.read_request(connection)
            if n < 2:
                connection.sendall(framed(response(ACQ, 100 + request.Row(), 0)))
            if request.Row() == 7:  # No third tile will come.
                connection.recv(1)
                return

    with fake(serve) as server, Sender(server.address, window=3, retry_s=PATIENCE_S) as sender:
        pending = [sender.send(tile) for tile in tiles(8)]
        sender.flush()
        assert [one.result().tile_id for one in pending] == [100 + n for n in range(8)]
        assert sender.reconnections == 3
        sender.close()
    assert server.came == [[0, 1, 2], [2, 3, 4], [4, 5, 6], [6, 7]]


def test_a_server_that_closes_each_connection_is_given_up_in_time() -> None:
    with fake(lambda server, connection: None) as server:
        sender = Sender(server.address, retry_s=0.3)
        with pytest.raises(ServerUnreachable, match=r"not back within 0\.3 s; 1 tiles are") as error:
            sender.send(tiles(1)[0]).result()
        assert (error.value.unanswered, [tile.row for tile in sender.unanswered]) == (1, [0])
        with pytest.raises(ServerUnreachable):
            sender.send(tiles(1)[0])
        sender.close()
    assert len(server.came) >= 2


def test_a_server_that_does_not_answer_is_given_up_in_time() -> None:
    with fake(lambda server, connection: connection.recv(1 << 20) and connection.recv(1)) as server:
        sender = Sender(server.address, timeout_s=0.2, retry_s=0)
        with pytest.raises(ServerUnreachable, match="timed out"):
            sender.send(tiles(1)[0]).result()
        sender.close()


@pytest.mark.parametrize(
    "answer", [framed(response(ACQ + 1, 5, 0)), framed(b"\0" * 56), framed(b"\xff" * 56), b"SSH-2.0-x\r\n", framed(b"")]
)
def test_another_protocol_is_told_at_once(answer: bytes) -> None:
    def serve(server: FakeServer, connection: socket.socket) -> None:
        server.read_request(connection)
        connection.sendall(answer)

    with fake(serve) as server:
        sender = Sender(server.address)
        with pytest.raises(WrongProtocol, match="is not an ImageTileResponse"):
            sender.send(tiles(1)[0]).result()
        sender.close()
    assert len(server.came) == 1


def test_an_answer_that_was_behind_a_broken_write_counts() -> None:
    """On the second connection the first tile is answered and the rest of the window meets a closed door."""

    def serve(server: FakeServer, connection: socket.socket) -> None:
        if len(server.came) == 1:
            return
        server.read_request(connection)
        connection.sendall(framed(response(ACQ, 5, 0)))

    with fake(serve) as server, Sender(server.address, window=2, retry_s=PATIENCE_S) as sender:
        large = [Tile(ACQ, 0, row, bytes(8 << 20)) for row in range(2)]
        pending = [sender.send(tile) for tile in large]
        assert [one.result().tile_id for one in pending] == [5, 5]
    assert sorted(row for rows in server.came for row in rows) == [0, 1]


def test_the_answer_for_which_a_server_goes_is_enough() -> None:
    """It takes the tile and is gone; comes back, refuses the tile by its length, and is gone for good."""

    def serve(server: FakeServer, connection: socket.socket) -> None:
        if len(server.came) == 1:
            server.read_request(connection)
            return
        server.listener.shutdown(socket.SHUT_RDWR)
        connection.recv(4, socket.MSG_WAITALL)
        connection.sendall(framed(response(ACQ, 0, 4)))

    with fake(serve) as server:
        sender = Sender(server.address, retry_s=PATIENCE_S)
        assert sender.send(Tile(ACQ, 0, 0, bytes(8 << 20))).receipt().status == 4
        assert (sender.unanswered, sender.reconnections) == ([], 1)
        sender.close()


def test_a_block_that_is_left_by_an_error_does_not_wait() -> None:
    with fake(lambda server, connection: connection.recv(1 << 20) and connection.recv(1)) as server:
        with pytest.raises(ZeroDivisionError), Sender(server.address) as sender:
            pending = sender.send(tiles(1)[0])
            raise ZeroDivisionError
        with pytest.raises(TilecatcherError, match="closed with 1 tiles unanswered"):
            pending.result()


@pytest.mark.parametrize("has_sendmsg", [True, False])
def test_parts_arrive_whole_with_and_without_sendmsg(has_sendmsg: bool) -> None:
    parts = [b"head", b"", bytes(range(256)) * 40_000, b"tail"]
    ours, theirs = socket.socketpair()

    class Bare:
        sendall = staticmethod(ours.sendall)

    def send() -> None:
        with ours:
            send_parts(ours if has_sendmsg else Bare(), [memoryview(part) for part in parts])  # type: ignore[arg-type]

    thread = threading.Thread(target=send)
    thread.start()
    with theirs:
        came = b"".join(iter(lambda: theirs.recv(1 << 16), b""))
    thread.join()
    assert came == b"".join(parts)
