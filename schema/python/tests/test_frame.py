"""Our hand-made requests against the generated reader; answers against the generated writer."""

from __future__ import annotations

import flatbuffers
import numpy as np
import pytest

from tilecatcher import BadInput, _tile_generated
from tilecatcher import _checksum as checksums
from tilecatcher._frame import PREFIX, RequestFields, head, parse_response, tail
from tilecatcher._tile_generated import ImageTileRequest

BIG = 2**64 - 1


@pytest.mark.parametrize("algorithm", checksums.ALGORITHMS)
@pytest.mark.parametrize("length", [1, 4, 5, 1000, 4099])
def test_the_generated_reader_reads_every_field_of_our_frame(algorithm: str, length: int) -> None:
    image = bytes(n % 251 for n in range(length))
    checksum = checksums.digest(algorithm, [image])
    fields = RequestFields(acq=BIG, col=3, row=70_000, frame=-1, camera=2, checksum=checksum)
    frame = head(fields, length) + image + tail(length)
    assert PREFIX.unpack_from(frame)[0] == len(frame) - PREFIX.size

    request = ImageTileRequest.GetRootAs(frame[PREFIX.size :])
    read = (request.AcqId(), request.Col(), request.Row(), request.Frame(), request.Camera())
    assert read == (BIG, 3, 70_000, -1, 2)
    assert request.ImageAsNumpy().tobytes() == image
    assert request.ChecksumIsNone() == (algorithm == "none")
    if checksum:
        assert request.ChecksumAsNumpy().tobytes() == checksum


def test_vectors_begin_on_multiples_of_4_and_frames_end_on_multiples_of_8() -> None:
    for length in range(1, 20):
        frame = head(RequestFields(1, 2, 3, -1, 0, b""), length) + bytes(length) + tail(length)
        assert (len(frame) - PREFIX.size) % 8 == 0


@pytest.mark.parametrize(
    "fields",
    [
        RequestFields(2**64, 0, 0, -1, 0, b""),
        RequestFields(-1, 0, 0, -1, 0, b""),
        RequestFields(1, 2**31, 0, -1, 0, b""),
        RequestFields(1, 0, 0, -1, 2**31, b""),
    ],
)
def test_numbers_beyond_their_fields_are_told(fields: RequestFields) -> None:
    with pytest.raises(BadInput, match=f"acq {fields.acq}, col {fields.col}"):
        head(fields, 1)


def test_an_image_beyond_the_length_field_is_told() -> None:
    with pytest.raises(BadInput, match="image of 4294967296 bytes"):
        head(RequestFields(1, 0, 0, -1, 0, b""), 2**32)


def response(acq: int, tile_id: int, status: int, system: int = 0) -> bytes:
    """An answer, written with the generated code."""
    builder = flatbuffers.Builder(64)
    _tile_generated.ImageTileResponseStart(builder)
    _tile_generated.ImageTileResponseAddAcqId(builder, acq)
    _tile_generated.ImageTileResponseAddTileId(builder, tile_id)
    _tile_generated.ImageTileResponseAddStatus(builder, status)
    _tile_generated.ImageTileResponseAddSystemStatus(builder, system)
    _tile_generated.ImageTileResponseAddContentQueueStatus(builder, 1)
    builder.Finish(_tile_generated.ImageTileResponseEnd(builder))
    return bytes(builder.Output())


def test_answers_are_read_field_by_field() -> None:
    assert parse_response(response(7, 9, 0, 1)) == (7, 9, 0, 1, 0, 1)
    assert parse_response(response(0, 0, 1, 2)) == (0, 0, 1, 2, 0, 1)


@pytest.mark.parametrize("body", [response(7, 9, 5), response(7, 0, 0), response(7, 9, 1), response(7, 9, 0, 3), b""])
def test_answers_that_can_not_be_are_told(body: bytes) -> None:
    with pytest.raises(ValueError):
        parse_response(body)


def test_random_bytes_are_an_answer_or_a_value_error() -> None:
    random = np.random.default_rng(3)
    for _ in range(5000):
        body = random.integers(0, 256, int(random.integers(0, 80)), dtype=np.uint8).tobytes()
        try:
            parse_response(body)
        except ValueError:
            continue


def test_checksums_are_those_of_the_protocol() -> None:
    parts = [b"1234", b"56789"]
    assert checksums.digest("crc32", parts).hex() == "2639f4cb"
    assert checksums.text("crc32", checksums.digest("crc32", parts)) == "crc32:cbf43926"
    assert checksums.text("md5", checksums.digest("md5", parts)) == "md5:25f9e794323b453885f5181f1b624d0b"
    assert [len(checksums.digest(name, parts)) for name in checksums.ALGORITHMS] == [0, 4, 16, 20, 32]
    with pytest.raises(BadInput, match="md6"):
        checksums.digest("md6", parts)
