"""TIFF files: what we write is read by us and by tifffile, what tifffile writes by us; damage is told."""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
import pytest
import tifffile

from tilecatcher import BadInput, UnreadableImage
from tilecatcher._tiff import decode, encode

DTYPES = ["u1", "<u2", ">u2"]


def picture(dtype: str, rows: int = 50, cols: int = 70) -> np.ndarray:
    random = np.random.default_rng(1)
    return random.integers(0, 2 ** (8 * np.dtype(dtype).itemsize), (rows, cols)).astype(dtype)


def written(image: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, image, **{"photometric": "minisblack", **options})
    return file.getvalue()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(50, 70), (1, 1), (3, 1), (1, 5)])
def test_what_we_write_is_read_by_us_and_by_tifffile(dtype: str, shape: tuple[int, int]) -> None:
    image = picture(dtype, *shape)
    file = b"".join(encode(image))
    for back in (decode(file), tifffile.imread(io.BytesIO(file))):
        assert back.dtype.newbyteorder("=") == image.dtype.newbyteorder("=")
        np.testing.assert_array_equal(back, image)
    assert file[:2] == (b"MM" if dtype == ">u2" else b"II")
    assert decode(file).dtype.isnative


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("rows_per_strip", [1, 7, 50])
def test_strips_of_either_byte_order_are_read(byteorder: str, dtype: str, rows_per_strip: int) -> None:
    image = picture(dtype)
    file = written(image, byteorder=byteorder, rowsperstrip=rows_per_strip)
    np.testing.assert_array_equal(decode(file), image)


def test_pixels_are_not_copied() -> None:
    image = picture("<u2")
    header, pixels = encode(image)
    image[0, 0] ^= 0xFFFF
    assert pixels[:2].tobytes() == image[0, 0].tobytes()
    assert len(header) == 256


def test_an_array_that_is_not_contiguous_is_sent_as_it_looks() -> None:
    image = picture("<u2")[::2, ::-3]
    np.testing.assert_array_equal(decode(b"".join(encode(image))), image)


@pytest.mark.parametrize("shape", [(4,), (2, 2, 3), (0, 5)])
def test_other_shapes_are_told(shape: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match="not 2-D of uint8 or uint16"):
        encode(np.zeros(shape, "u1"))


@pytest.mark.parametrize("dtype", ["f8", "i2", "u4", "?"])
def test_other_types_are_told(dtype: str) -> None:
    with pytest.raises(BadInput, match="not 2-D of uint8 or uint16"):
        encode(np.zeros((2, 2), dtype))


FOREIGN = [
    {"compression": "lzw"},
    {"compression": "deflate"},
    {"photometric": "miniswhite"},
    {"tile": (16, 16)},
    {"bigtiff": True},
]


@pytest.mark.parametrize("options", FOREIGN, ids=str)
def test_other_grey_files_are_read_where_tifffile_is_installed(options: dict[str, Any]) -> None:
    image = picture("u2")
    np.testing.assert_array_equal(decode(written(image, **options)), image)


@pytest.mark.parametrize("options", FOREIGN, ids=str)
def test_without_tifffile_the_remedy_is_told(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]) -> None:
    file = written(picture("u2"), **options)
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(UnreadableImage, match=r"install tilecatcher\[tiff\]"):
        decode(file)


def test_plain_files_need_no_tifffile(monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(picture("u2"))
    monkeypatch.setitem(sys.modules, "tifffile", None)
    np.testing.assert_array_equal(decode(file), picture("u2"))


def test_what_is_not_one_grey_image_is_told() -> None:
    colour = written(np.zeros((4, 5, 3), "u1"), photometric="rgb")
    several = written(np.zeros((4, 5, 6), "u1"))
    for file in (colour, several):
        with pytest.raises(UnreadableImage, match="is not rows x cols"):
            decode(file)
    with pytest.raises(UnreadableImage, match="no TIFF"):
        decode(b"\x89PNG....")


def test_damage_is_told_wherever_a_file_is_cut_or_changed() -> None:
    whole = written(picture("u2", 5, 7), rowsperstrip=2)
    for end in range(len(whole)):
        cut(whole[:end])
    for place in range(len(whole) - 70):  # The pixels behind it may be anything.
        cut(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])


def cut(file: bytes) -> None:
    try:
        image = decode(file)
    except UnreadableImage as error:
        assert "\n" not in str(error)
    else:
        assert image.ndim == 2


def test_a_small_file_can_not_ask_for_a_large_image() -> None:
    file = bytearray(b"".join(encode(np.zeros((2, 2), "u1"))))
    file[18:22] = (2**31 - 1).to_bytes(4, "little")
    with pytest.raises(UnreadableImage, match="damaged TIFF"):
        decode(bytes(file))
