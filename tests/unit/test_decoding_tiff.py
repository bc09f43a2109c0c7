"""TIFF files in every layout: their tones are read correctly."""

import io
import struct
from typing import Any

import numpy as np
import pytest
import tifffile
from icc import ADOBE_RGB
from PIL import Image
from skimage.color import rgb2lab
from tones import (
    DEEP,
    EXPECTED,
    GRAY,
    LIMITS,
    VALUE,
    assert_reads,
    compute_lightness,
    linearize,
    read,
    save,
    write_tiff,
)

from rehue_serve import images
from rehue_serve.errors import ImageTooLarge, InvalidImage, UnsupportedImage


def test_white_is_zero_at_eight_and_sixteen_bits() -> None:
    assert_reads(write_tiff(255 - GRAY, photometric="miniswhite"))
    assert_reads(write_tiff(65535 - DEEP, photometric="miniswhite"))


def test_planes_of_sixteen_bits() -> None:
    planes = np.stack([DEEP] * 3)
    assert_reads(write_tiff(planes, photometric="rgb", planarconfig="separate"))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("options", [{}, {"compression": "zlib"}, {"rowsperstrip": 7}], ids=str)
def test_planes_in_every_layout(options: dict[str, Any], dtype: Any, order: str) -> None:
    color = np.dstack([GRAY, GRAY[:, ::-1], np.full_like(GRAY, 90)])
    planes = (
        color.transpose(2, 0, 1).astype(np.uint16) * (257 if dtype == np.uint16 else 1)
    ).astype(dtype)
    options = {"photometric": "rgb", "planarconfig": "separate", "byteorder": order} | options
    expected = rgb2lab(color)[..., 0]
    assert_reads(write_tiff(planes, **options), expected)
    seen_in_adobe_rgb = read(save(Image.fromarray(color), "TIFF", icc_profile=ADOBE_RGB))
    profiled = write_tiff(planes, iccprofile=ADOBE_RGB, **options)
    assert_reads(profiled, seen_in_adobe_rgb, tolerance=0.05)
    assert np.abs(seen_in_adobe_rgb - expected).mean() > 0.5
    whole = write_tiff(planes, **options)
    with pytest.raises(InvalidImage):
        read(whole[: len(whole) * 3 // 4])


def test_a_single_compressed_strip_of_over_50_mb() -> None:
    """libvips limits libtiff to that, unless it is asked not to."""
    deep = np.random.default_rng(0).integers(0, 65535, (5200, 5200), np.uint16)
    options: Any = {"compression": "zlib", "compressionargs": {"level": 0}, "rowsperstrip": 5200}
    data = write_tiff(deep, **options)
    opened = images.open_image(data, max_bytes=1 << 30, max_pixels=1 << 30)
    found = images.decode_lightness(opened) / 655.35
    expected = compute_lightness(linearize(deep[:9] / 65535))
    assert np.abs(found[:9] - expected).max() < 0.01


@pytest.mark.parametrize("options", [{"bigtiff": True}, {"tile": (16, 16)}, {"byteorder": ">"}])
def test_ways_to_lay_out_a_tiff(options: dict[str, Any]) -> None:
    assert_reads(write_tiff(DEEP, **options))


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_tiffs(compression: str) -> None:
    assert_reads(save(Image.fromarray(GRAY), "TIFF", compression=compression))


def test_jpeg_in_tiff_and_fax_in_tiff() -> None:
    picture = Image.fromarray(GRAY)
    assert_reads(save(picture, "TIFF", compression="jpeg", quality=95), tolerance=1.0)
    bits = picture.point(lambda value: 255 * (value > 128)).convert("1")
    expected = np.where(np.asarray(bits), 100.0, 0.0)
    assert_reads(save(bits, "TIFF", compression="group4"), expected)


@pytest.mark.parametrize("factor", [1, 257])
def test_color_tables_of_eight_and_sixteen_bit_numbers(factor: int) -> None:
    table = np.stack([np.arange(256) * factor] * 3).astype(np.uint16)
    assert_reads(write_tiff(GRAY, photometric="palette", colormap=table))


def test_fewer_bits_than_the_sample_holds() -> None:
    assert_reads(write_tiff(DEEP >> 4, [(281, 3, 1, 4095, True)]), tolerance=0.5)


def test_the_largest_value_of_the_picture_is_no_range() -> None:
    """Many writers store the picture's own extremes in MaxSampleValue."""
    assert_reads(write_tiff(DEEP, [(281, 3, 1, 60000, True)]))


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_floats_from_zero_to_one(dtype: Any) -> None:
    assert_reads(write_tiff(VALUE.astype(dtype)))


def test_integers_of_thirty_two_bits() -> None:
    assert_reads(write_tiff(GRAY.astype(np.uint32) * 16843009))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (write_tiff(GRAY.astype(np.float32)), "from 0 to 255"),
        (write_tiff((DEEP.astype(int) - 32768).astype(np.int16)), "signed"),
        (write_tiff(VALUE), "64-bit floating-point"),
        (write_tiff(np.stack([GRAY] * 3, -1) + 0j, photometric="rgb"), "complex"),
        (write_tiff(DEEP, photometric=32803), "Camera raw"),
        (write_tiff(GRAY, [(50706, 1, 4, (1, 4, 0, 0), True)]), "DNG"),
        (b"II*\0\x10\0\0\0CR\x02\0" + bytes(99), "CR2"),
        (b"FUJIFILMCCD-RAW 0201" + bytes(99), "RAF"),
        (b"\0\0\0\x18ftypcrx " + bytes(40), "CR3"),
        (b"P5\n96 60\n255\n" + GRAY.tobytes(), "Netpbm"),
        (b'<?xml version="1.0"?>\n<svg xmlns="x"/>', "SVG"),
        (b"8BPS\0\1" + bytes(40), "Photoshop"),
    ],
)
def test_what_cannot_be_read_correctly_is_named(data: bytes, words: str) -> None:
    with pytest.raises(UnsupportedImage, match=words):
        read(data)


def test_associated_and_unassociated_alpha() -> None:
    opaque, half = np.full_like(GRAY, 255), np.full_like(GRAY, 128)
    over_white = compute_lightness(linearize(VALUE * (128 / 255) + 127 / 255))
    for sample_type, pixels in (
        (1, np.stack([(GRAY * (128 / 255)).round().astype(np.uint8), half], -1)),
        (2, np.stack([GRAY, half], -1)),
    ):
        data = write_tiff(pixels, planarconfig="contig", extrasamples=[sample_type])
        assert_reads(data, over_white, tolerance=0.6)
    assert_reads(write_tiff(np.stack([GRAY, opaque], -1), extrasamples=[1]))
    deep = np.stack([DEEP, np.full_like(DEEP, 65535)], -1)
    assert_reads(write_tiff(deep, planarconfig="contig", extrasamples=[2]))


@pytest.mark.parametrize("code", [3, 1])
def test_orientation_of_a_tiff_as_short_and_as_byte(code: int) -> None:
    data = write_tiff(GRAY, [(274, code, 1, 6, True)])
    assert_reads(data, np.rot90(EXPECTED, -1))


def test_every_page_is_read_and_previews_are_not() -> None:
    out = io.BytesIO()
    with tifffile.TiffWriter(out) as writer:
        options: dict[str, Any] = {"photometric": "minisblack", "metadata": None}
        writer.write(GRAY[::4, ::4], subfiletype=1, **options)
        writer.write(GRAY, **options)
        writer.write(255 - GRAY, **options)
    photograph = images.open_image(out.getvalue(), **LIMITS)
    assert photograph.header.pages == 2
    assert np.abs(images.decode_lightness(photograph, 0) / 655.35 - EXPECTED).mean() < 0.1
    second = compute_lightness(linearize(1 - VALUE))
    assert np.abs(images.decode_lightness(photograph, 1) / 655.35 - second).mean() < 0.1


def test_a_tiff_of_very_many_pages_is_refused_quickly() -> None:
    tags = [
        (256, 4, 1),
        (257, 4, 1),
        (258, 3, 8),
        (259, 3, 1),
        (262, 3, 1),
        (273, 4, 8),
        (279, 4, 1),
    ]
    entries = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, kind, value in tags)
    size = 2 + len(entries) + 4
    pages = b"".join(
        struct.pack("<H", len(tags)) + entries + struct.pack("<I", 16 + size * (number + 1))
        for number in range(20_000)
    )
    data = b"II*\0" + struct.pack("<I", 16) + bytes(8) + pages[:-4] + bytes(4)
    with pytest.raises(ImageTooLarge, match="over 1,000 pages"):
        read(data)
