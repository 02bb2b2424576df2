"""Client and sender against the real daemon: what is sent is there, as it was sent."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import numpy as np
import pytest
from daemon import ACQ, Daemon, program

from tilecatcher import (
    BadInput,
    Client,
    ContentMismatch,
    NotFound,
    Pressure,
    RequestRefused,
    Sender,
    Tile,
    UnknownAcquisition,
    UnreadableImage,
    folder_tiles,
    minimal_log,
)


def picture(dtype: str, seed: int = 1) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 2 ** (8 * np.dtype(dtype).itemsize), (48, 64)).astype(dtype)


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2"])
def test_an_array_comes_back_equal(daemon: Daemon, dtype: str) -> None:
    client, image = daemon.started(), picture(dtype)
    with client.sender() as sender:
        receipt = sender.send(Tile(ACQ, 2, 3, image, camera=1)).result()
    stored = client.tile(ACQ, 2, 3)
    assert (stored.id, stored.col, stored.row, stored.frame) == (receipt.tile_id, 2, 3, -1)
    assert (stored.camera, stored.version) == (1, 1)
    back = client.image(stored)
    assert (back.dtype, back.shape) == (np.dtype(dtype).newbyteorder("="), (48, 64))
    np.testing.assert_array_equal(back, image)


@pytest.mark.parametrize("checksum", ["crc32", "md5", "sha1", "sha256"])
@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_bytes_come_back_as_they_were_sent(daemon: Daemon, checksum: str, kind: type) -> None:
    client, content = daemon.started(), bytes(range(256)) * 5
    with client.sender(checksum=checksum) as sender:
        receipt = sender.send(Tile(ACQ, 0, 0, kind(content))).result()
    assert (receipt.status, receipt.meaning, receipt.system) == (0, "accepted", Pressure.GREEN)
    stored = client.tile_by_id(receipt.tile_id)
    assert (stored.algorithm, stored.size) == (checksum, len(content))
    assert client.content(stored) == content


def test_no_checksum_is_taken_where_the_daemon_takes_it(tmp_path: Path) -> None:
    daemon = Daemon(tmp_path / "data", ("capture.require_checksum=false",))
    try:
        client = daemon.started()
        with client.sender(checksum="none") as sender:
            sender.send(Tile(ACQ, 0, 0, b"content"))
        stored = client.tile(ACQ, 0, 0)
        assert (stored.algorithm, client.content(stored)) == ("crc32", b"content")
        assert list(client.not_stored([Tile(ACQ, 0, 0, b"content")])) == []
    finally:
        daemon.kill()


def test_a_tile_sent_again_has_the_same_id_and_other_content_is_a_new_version(daemon: Daemon) -> None:
    client = daemon.started()
    with client.sender() as sender:
        ids = [sender.send(Tile(ACQ, 0, 0, content)).result().tile_id for content in (b"one", b"one", b"two")]
    assert len(set(ids)) == 1
    assert (client.tile(ACQ, 0, 0).version, client.content(client.tile(ACQ, 0, 0))) == (2, b"two")
    assert client.acquisition(ACQ)["replaced_versions"] == 1


@pytest.mark.parametrize("bits", [8, 16])
def test_what_simulate_writes_and_send_sends_is_read_as_numpy(daemon: Daemon, tmp_path: Path, bits: int) -> None:
    make = [program(), "simulate", str(tmp_path / "made"), "--acq", "7", "--steps", "2x1", "--cameras", "1"]
    made = subprocess.run([*make, "--size", "700x900", "--bits", str(bits)], capture_output=True, text=True, check=True)
    folder = Path(made.stdout.strip())
    capture = f"{daemon.capture[0]}:{daemon.capture[1]}"
    subprocess.run([program(), "send", str(folder), "--capture", capture, "--http", daemon.http], check=True)
    client, files = daemon.client(), list(folder_tiles(folder, 7))
    assert list(client.not_stored(files)) == []
    assert len(files) == 2
    for tile in client.tiles(7):
        image = client.image(tile)
        assert (image.shape, image.dtype.itemsize) == ((900, 700), bits // 8)
        pixels = next(file for file in files if (file.col, file.row) == (tile.col, tile.row)).image
        assert image.astype(f"<u{bits // 8}").tobytes() in bytes(pixels)  # Strips lie one behind the other.


def test_tiles_are_listed_over_pages_each_once_in_order(daemon: Daemon) -> None:
    client = daemon.started()
    with client.sender() as sender:
        for n in range(23):
            sender.send(Tile(ACQ, n // 8, n % 8, b"tile %d" % n, camera=n % 2))
        sender.send(Tile(ACQ, 0, 0, b"drift", frame=4))
    tiles = list(client.tiles(ACQ, page=5))
    assert [(tile.col, tile.row) for tile in tiles] == [(n // 8, n % 8) for n in range(23)]
    assert tiles == list(client.tiles(ACQ, page=10_000))
    assert [tile.row for tile in client.tiles(ACQ, page=2, col=2)] == list(range(7))
    assert len(list(client.tiles(ACQ, page=3, camera=1))) == 11
    assert [tile.frame for tile in client.tiles(ACQ, frame_type="drift")] == [4]
    assert len(list(client.tiles(ACQ, page=7, frame_type="all"))) == 24


def test_an_acquisition_is_started_described_listed_and_ended(daemon: Daemon, tmp_path: Path) -> None:
    client = daemon.client()
    for acq, cameras, sample in ((5, 4, "leaf"), (6, 1, "root"), (9, 1, "leaf")):
        log = tmp_path / f"{acq}_4x2_logfile.ini"
        log.write_text(minimal_log(4, 2, cameras=cameras, sample=sample, pix_per_um=250))
        assert client.start_acquisition(log) == acq
        assert client.completeness(acq)["expected"] == 8
    assert [found["AcqUID"] for found in client.acquisitions(page=1, sample="leaf")] == [5, 9]
    with client.sender() as sender:
        sender.send(Tile(6, 3, 1, b"tile"))
    timing = tmp_path / "6_4x2_DAQ timing.csv"
    timing.write_text("a,b\n")
    assert client.store_files(6, [timing])[0]["name"] == timing.name
    ended = client.end_acquisition(6, [timing])
    assert (ended["expected"], ended["received"], ended["missing"]) == (8, 1, 7)
    assert "ended" in client.acquisition(6)
    page = client.completeness(6, offset=1, length=2)
    assert page["missing_tiles"] == [{"col": 0, "row": 1}, {"col": 1, "row": 0}]


def test_a_file_that_can_not_be_stored_is_named(daemon: Daemon, tmp_path: Path) -> None:
    client, empty = daemon.started(), tmp_path / "123_empty.csv"
    empty.touch()
    with pytest.raises(RequestRefused, match=r"123_empty\.csv: the file is empty"):
        client.store_files(ACQ, [empty])
    with pytest.raises(BadInput, match="rename the file"):
        client.start_acquisition('1_".ini', "x")


def test_tiles_of_regions_go_through_the_queue(daemon: Daemon, tmp_path: Path) -> None:
    client = daemon.started()
    tiles, spec = tmp_path / "123_8x8_ROI_tiles.csv", tmp_path / "123_8x8_ROI_spec.ini"
    header = "Col,Row,Inclusion,Excluded?,Included?,# Inclusions,Section number"
    tiles.write_text(f"{header}\n0,0,0,F,T,1,12\n0,1,0,F,T,1,12\n")
    spec.write_text('[Inclusion Section Numbers]\nRegion 0 = "12"\n')
    client.create_rois(ACQ, tiles, spec)
    assert client.next_tiles(ACQ)["results"] == []
    with client.sender() as sender:
        sender.send(Tile(ACQ, 0, 1, picture("u1")))
    answer = client.next_tiles(ACQ, 5, lease_s=600, section=12)
    (found,) = answer["results"]
    assert (answer["resultType"], found["acqid"], found["section"]) == ("TILE_FOUND", ACQ, 12)
    spec_id = found["tilespec"]["tileId"]
    assert client.set_state("COMPLETE", [spec_id]) == 1
    assert client.tile(ACQ, 0, 1).rois[0]["state"] == "COMPLETE"
    assert client.next_tiles(ACQ)["results"] == []


def test_only_what_is_not_stored_is_left_to_send(daemon: Daemon, tmp_path: Path) -> None:
    client, arrays = daemon.started(), [picture("<u2", seed) for seed in range(4)]
    names = ["col0000_row0000_cam0.tif", "col0001_row0000_cam3.tif", "Dump_cam1_frame000002_col0001_row0000.tif"]
    for n, name in enumerate(names):
        (tmp_path / "in" / "col").mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / "col" / name).write_bytes(b"file %d" % n)
    (tmp_path / "in" / "notes.tif").touch()

    def tiles() -> list[Tile]:
        return [*folder_tiles(tmp_path / "in", ACQ), *(Tile(ACQ, 7, n, image) for n, image in enumerate(arrays))]

    assert len(list(client.not_stored(tiles()))) == 7
    with client.sender(checksum="sha256") as sender:
        for tile in tiles()[1:6]:
            sender.send(tile)
    left = list(client.not_stored(tiles()))
    assert [(tile.col, tile.row, tile.frame, tile.camera) for tile in left] == [(1, 0, 2, 1), (7, 3, -1, 0)]
    arrays[0][0, 0] ^= 1
    (tmp_path / "in" / "col" / names[0]).write_bytes(b"longer than before")
    assert len(list(client.not_stored(tiles()))) == 4
    assert len(list(client.not_stored([Tile(99, 0, 0, b"of an acquisition that nobody started")]))) == 1


def test_what_is_known_to_be_damaged_is_left_to_send(daemon: Daemon) -> None:
    client, images = daemon.started(), [bytes([n]) * 3000 for n in range(2)]
    tiles = [Tile(ACQ, 0, n, image) for n, image in enumerate(images)]
    with client.sender() as sender:
        for tile in tiles:
            sender.send(tile)
    assert list(client.not_stored(tiles)) == []
    for segment in (daemon.data / "journal").iterdir():
        stored = segment.read_bytes()
        if (at := stored.find(images[1])) >= 0:
            with segment.open("r+b") as file:
                file.seek(at + 100)
                file.write(b"x")
    with pytest.raises(RequestRefused):
        client.content(client.tile(ACQ, 0, 1))
    assert client.tile(ACQ, 0, 1).damaged
    assert list(client.not_stored(tiles)) == [tiles[1]]
    with client.sender() as sender:
        sender.send(tiles[1])
    assert list(client.not_stored(tiles)) == []


def test_what_is_not_there_is_told(daemon: Daemon) -> None:
    client = daemon.started()
    with pytest.raises(NotFound, match="no tile is stored"):
        client.tile(ACQ, 7, 7)
    with pytest.raises(NotFound, match="no tile has the id 999"):
        client.tile_by_id(999)
    for call in (client.acquisition, client.completeness, client.end_acquisition, lambda acq: list(client.tiles(acq))):
        with pytest.raises(UnknownAcquisition, match="55"):
            call(55)
    with pytest.raises(RequestRefused, match="does not begin with an acquisition's number"):
        client.start_acquisition("x_logfile.ini", minimal_log(1, 1))
    with pytest.raises(RequestRefused, match="Pixels per um") as refused:
        client.start_acquisition("4_logfile.ini", minimal_log(1, 1).replace("Pixels", "Inches"))
    assert refused.value.status == 400


def test_a_content_that_is_no_image_is_told(daemon: Daemon) -> None:
    client = daemon.started()
    with client.sender() as sender:
        sender.send(Tile(ACQ, 0, 0, b"no image"))
    with pytest.raises(UnreadableImage, match="no TIFF"):
        client.image(client.tile(ACQ, 0, 0))


def test_a_content_that_does_not_match_its_checksum_is_told(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    client = daemon.started()
    with client.sender() as sender:
        sender.send(Tile(ACQ, 0, 0, b"content"))
    stored, get = client.tile(ACQ, 0, 0), client._http.get
    monkeypatch.setattr(client._http, "get", lambda path: get(path).replace(b"o", b"0"))
    wrong = hashlib.md5(b"c0ntent").hexdigest()
    with pytest.raises(ContentMismatch, match=f"7 bytes with md5:{wrong} came, not 7 with {stored.checksum}"):
        client.content(stored)


def test_a_kept_connection_that_was_closed_is_opened_again(daemon: Daemon) -> None:
    with daemon.started() as client:
        assert client.acquisition(ACQ)["id"] == ACQ
        daemon.kill()
        daemon.start()
        assert client.acquisition(ACQ)["id"] == ACQ


def test_a_log_that_could_not_be_read_is_not_written() -> None:
    for bad in ({"cols": 0}, {"cols": 3, "cameras": 4}, {"cameras": 2}, {"sample": "two\nlines"}, {"stack": 'a"b'}):
        with pytest.raises(BadInput):
            minimal_log(**{"cols": 2, "rows": 2, **bad})


def test_arguments_that_make_no_sense_are_told(daemon: Daemon) -> None:
    for url in ("127.0.0.1:5001", "ftp://127.0.0.1", "http://127.0.0.1:x"):
        with pytest.raises(BadInput, match="is no URL"):
            Client(url)
    with pytest.raises(BadInput, match="knows no capture port"):
        Client(daemon.http).sender()
    for options in ({"window": 0}, {"checksum": "md6"}):
        with pytest.raises(BadInput):
            Sender(daemon.capture, **options)
    with Sender(daemon.capture) as sender:
        for image in (b"", "text", np.zeros((2, 2)), 5):
            with pytest.raises(BadInput):
                sender.send(Tile(ACQ, 0, 0, image))
        with pytest.raises(BadInput):
            sender.send(Tile(ACQ, 2**31, 0, b"image"))
