"""Photographs as scanners, phones and archives store them: their tones are read correctly."""

import io
import struct
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pillow_heif
import pytest
import pyvips
import tifffile
from icc import ADOBE_RGB, build_cmyk_profile, build_gray_profile
from numpy.typing import NDArray
from PIL import Image, ImageCms
from skimage.color import rgb2lab

from rehue_serve import images
from rehue_serve.decoding.gif import count_frames
from rehue_serve.decoding.profiles import is_srgb_profile
from rehue_serve.encoding.pictures import encode_pictures
from rehue_serve.errors import ImageTooLarge, InvalidImage, RehueError, UnsupportedImage

LIMITS = {"max_bytes": 50_000_000, "max_pixels": 50_000_000}

ROWS, COLUMNS = np.mgrid[0:60, 0:96]
GRAY = np.where(ROWS < 12, np.where(COLUMNS // 12 % 2, 210, 30), COLUMNS * 255 // 95).astype(
    np.uint8
)
DEEP = GRAY.astype(np.uint16) * 257
VALUE = GRAY / 255  # as encoded, 0..1


def compute_lightness(luminance: NDArray[Any]) -> NDArray[Any]:
    """CIE L* of linear luminance (0..1)."""
    return np.where(luminance > 0.008856, 116 * np.cbrt(luminance) - 16, 903.3 * luminance)


def linearize(value: NDArray[Any]) -> NDArray[Any]:
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


EXPECTED = compute_lightness(linearize(VALUE))


def read(data: bytes, page: int = 0) -> NDArray[Any]:
    """L, 0..100, of a file as the server reads it."""
    return images.decode_lightness(images.open_image(data, **LIMITS), page) / 655.35


def assert_reads(data: bytes, expected: NDArray[Any] = EXPECTED, tolerance: float = 0.3) -> None:
    got = read(data)
    assert got.shape == expected.shape
    assert np.abs(got - expected).mean() < tolerance


def write_tiff(pixels: NDArray[Any], tags: Iterable[Any] = (), **options: Any) -> bytes:
    out = io.BytesIO()
    options = {"photometric": "minisblack", "metadata": None} | options
    tifffile.imwrite(out, pixels, extratags=list(tags), **options)
    return out.getvalue()


def save(picture: Image.Image, format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, format, **options)
    return out.getvalue()


def write_png(pixels: NDArray[Any], color_type: int, depth: int, **chunks: bytes) -> bytes:
    """A PNG with chunks of one's own before the pixels."""

    def pack(name: bytes, content: bytes) -> bytes:
        crc = zlib.crc32(name + content)
        return struct.pack(">I4s", len(content), name) + content + struct.pack(">I", crc)

    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    own = b"".join(pack(name.encode(), content) for name, content in chunks.items())
    return (
        b"\x89PNG\r\n\x1a\n" + pack(b"IHDR", header) + own
        + pack(b"IDAT", zlib.compress(rows)) + pack(b"IEND", b"")
    )  # fmt: skip


def test_a_phones_jpeg_with_a_second_picture_is_a_jpeg() -> None:
    first, second = Image.fromarray(GRAY).convert("RGB"), Image.new("RGB", (20, 20))
    data = save(first, "MPO", save_all=True, append_images=[second], quality=95)
    assert Image.open(io.BytesIO(data)).format == "MPO"
    assert_reads(data)
    assert images.open_image(data, **LIMITS).header.format == "jpeg"


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


OPAQUE_HALF = np.where(ROWS < 30, 255, 128).astype(np.uint8)


@pytest.mark.parametrize(
    "data",
    [
        save(Image.fromarray(np.dstack([GRAY] * 3 + [OPAQUE_HALF])), "PNG"),
        save(Image.fromarray(np.dstack([GRAY] * 3 + [OPAQUE_HALF])), "WEBP", lossless=True),
        save(Image.fromarray(np.dstack([GRAY, OPAQUE_HALF]), "LA"), "TIFF"),
    ],
    ids=["PNG", "WebP", "TIFF"],
)
def test_alpha_is_kept_where_the_answer_can_hold_it(data: bytes) -> None:
    photograph = images.open_image(data, **LIMITS)
    lightness, alpha = images.decode_page(photograph, keep_alpha=True)
    assert np.abs(lightness / 655.35 - EXPECTED).mean() < 0.1
    assert alpha is not None
    assert np.array_equal(alpha, OPAQUE_HALF)
    rgba = np.dstack([GRAY, GRAY, GRAY, alpha])
    for format in ("png", "webp", "tiff"):
        answer = Image.open(io.BytesIO(encode_pictures([rgba], format, 100)))
        assert np.array_equal(np.asarray(answer.getchannel("A")), OPAQUE_HALF)
        assert np.abs(np.asarray(answer.convert("RGB")).astype(int) - rgba[..., :3]).mean() < 2


def test_alpha_of_sixteen_bits_keeps_its_depth() -> None:
    deep = np.dstack([DEEP] * 3 + [OPAQUE_HALF.astype(np.uint16) * 257])
    data = write_tiff(deep, photometric="rgb", extrasamples=[2])
    _, alpha = images.decode_page(images.open_image(data, **LIMITS), keep_alpha=True)
    assert alpha is not None
    assert np.array_equal(alpha, deep[..., 3])
    for format in ("png", "tiff"):
        again = images.open_image(encode_pictures([deep], format, 92), **LIMITS)
        found = images.decode_page(again, keep_alpha=True)[1]
        assert found is not None
        assert np.array_equal(found, deep[..., 3])


@pytest.mark.parametrize("code", [3, 1])
def test_orientation_of_a_tiff_as_short_and_as_byte(code: int) -> None:
    data = write_tiff(GRAY, [(274, code, 1, 6, True)])
    assert_reads(data, np.rot90(EXPECTED, -1))


def test_one_color_that_means_transparent() -> None:
    keyed = np.stack([GRAY] * 3, -1)
    keyed[20:40, 20:40] = (1, 2, 3)
    expected = EXPECTED.copy()
    expected[20:40, 20:40] = 100
    assert_reads(write_png(keyed, 2, 8, tRNS=struct.pack(">3H", 1, 2, 3)), expected)


def test_gray_profiles_count() -> None:
    picture = Image.fromarray(GRAY)
    for curve in (lambda v: v, lambda v: v**1.8, lambda v: 1 - (1 - v) * (1 + 0.8 * v)):
        profile = build_gray_profile(curve)
        expected = compute_lightness(np.clip(curve(VALUE), 0, 1))  # type: ignore[no-untyped-call]
        assert_reads(save(picture, "JPEG", quality=97, icc_profile=profile), expected)
        assert_reads(save(picture, "PNG", icc_profile=profile), expected)
        assert_reads(save(picture, "TIFF", icc_profile=profile), expected)


@pytest.mark.parametrize("format", ["JPEG", "TIFF"])
def test_cmyk_profiles_count(format: str) -> None:
    """A press whose cyan darkens by a fifth alone, and whose black by nine tenths."""
    c, m, y, k = np.mgrid[0:2, 0:2, 0:2, 0:2]
    profile = build_cmyk_profile(
        100 * (1 - 0.2 * c) * (1 - 0.3 * m) * (1 - 0.05 * y) * (1 - 0.9 * k)
    )
    for channel, share in ((0, 0.2), (3, 0.9)):
        inks = np.zeros((60, 96, 4), np.uint8)
        inks[..., channel] = GRAY
        options: dict[str, Any] = {"quality": 97} if format == "JPEG" else {}
        data = save(Image.fromarray(inks, "CMYK"), format, icc_profile=profile, **options)
        assert_reads(data, 100 * (1 - share * VALUE), tolerance=1)
        without = save(Image.fromarray(inks, "CMYK"), format, **options)
        assert np.abs(read(without) - 100 * (1 - share * VALUE)).mean() > 2


def test_lab_files_are_read() -> None:
    color = np.dstack([GRAY, GRAY[:, ::-1], np.full_like(GRAY, 90)])
    lab = rgb2lab(color)
    counts = np.dstack([lab[..., 0] * 2.55, lab[..., 1] + 128, lab[..., 2] + 128])
    stored = Image.merge(
        "LAB",
        [Image.fromarray(np.rint(band).astype(np.uint8)) for band in np.moveaxis(counts, -1, 0)],
    )
    assert_reads(save(stored, "TIFF"), lab[..., 0], tolerance=0.5)


def test_wide_gamut_is_read_as_its_profile_says() -> None:
    """libvips knows Display P3 by name; Pillow writes the file and skimage has the last word."""
    color = np.dstack([GRAY, GRAY[:, ::-1], np.full_like(GRAY, 90)])
    srgb = pyvips.Image.new_from_memory(color.tobytes(), 96, 60, 3, "uchar")
    wide = srgb.copy(interpretation="srgb").icc_transform("p3", input_profile="srgb", depth=8)
    profile = wide.get("icc-profile-data")
    pixels = Image.fromarray(np.asarray(wide.numpy()))
    assert np.abs(np.asarray(pixels).astype(int) - color).mean() > 3
    expected = rgb2lab(color)[..., 0]
    assert_reads(save(pixels, "PNG", icc_profile=profile), expected, tolerance=0.5)
    assert_reads(save(pixels, "TIFF", icc_profile=profile), expected, tolerance=0.5)
    assert np.abs(read(save(pixels, "PNG")) - expected).mean() > 0.5


def test_profiles_that_mean_srgb_take_the_quick_way() -> None:
    assert is_srgb_profile(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    assert not is_srgb_profile(build_gray_profile(lambda v: v**1.8))
    assert is_srgb_profile(b"not a profile")  # counts for nothing


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF"])
def test_broken_profile_is_ignored(format: str) -> None:
    assert_reads(save(Image.fromarray(GRAY), format, icc_profile=b"broken" * 40), tolerance=0.5)


def test_png_says_its_own_gamma() -> None:
    assert_reads(write_png(GRAY, 0, 8, gAMA=struct.pack(">I", 100000)), compute_lightness(VALUE))
    assert_reads(write_png(GRAY, 0, 8, gAMA=struct.pack(">I", 45455)))
    # sRGB stands above gAMA.
    assert_reads(write_png(GRAY, 0, 8, sRGB=b"\0", gAMA=struct.pack(">I", 100000)))


def test_png_says_its_own_code_points() -> None:
    assert_reads(write_png(GRAY, 0, 8, cICP=bytes([1, 8, 0, 1])), compute_lightness(VALUE))
    assert_reads(write_png(GRAY, 0, 8, cICP=bytes([12, 13, 0, 1])))
    with pytest.raises(UnsupportedImage, match="transfer function 16"):
        read(write_png(GRAY, 0, 8, cICP=bytes([9, 16, 0, 1])))


def test_png_says_its_own_primaries() -> None:
    """A pure red of Display P3 is lighter than that of sRGB."""
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 255
    chromaticities = struct.pack(">8I", 31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000)
    wide = read(write_png(red, 2, 8, gAMA=struct.pack(">I", 45455), cHRM=chromaticities))
    assert wide.mean() == pytest.approx(compute_lightness(np.array(0.2290)), abs=0.1)
    assert read(write_png(red, 2, 8)).mean() == pytest.approx(53.24, abs=0.1)


def test_a_jpeg_that_lacks_only_its_end_mark() -> None:
    data = save(Image.fromarray(GRAY), "JPEG", quality=95)
    assert_reads(data[:-2])
    for cut in (4, 5, 10, 100, 1000):
        with pytest.raises(InvalidImage):
            read(data[:-cut])


def test_a_progressive_jpeg_without_its_end_is_truncated() -> None:
    data = save(Image.fromarray(GRAY), "JPEG", quality=95, progressive=True)
    for cut in range(2, len(data) - 200, 97):
        with pytest.raises(RehueError):
            read(data[:-cut])


def test_truncated_deep_files_are_refused() -> None:
    for data in (write_tiff(DEEP), save(Image.fromarray(DEEP), "PNG")):
        for length in range(10, len(data) - 20, 499):
            with pytest.raises(RehueError):
                read(data[:length])


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


@pytest.mark.parametrize(
    ("format", "answer", "options"),
    [
        ("AVIF", "jpeg", {"quality": 95}),
        ("HEIF", "jpeg", {"quality": 95}),
        ("JPEG2000", "jpeg", {}),
        ("GIF", "png", {}),
    ],
)
def test_other_formats_are_read(format: str, answer: str, options: dict[str, Any]) -> None:
    pillow_heif.register_heif_opener()
    data = save(Image.fromarray(GRAY).convert("RGB"), format, **options)
    assert_reads(data, tolerance=1.0)
    assert images.open_image(data, **LIMITS).header.format == answer


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


def test_frames_of_a_gif_are_counted_up_to_a_limit() -> None:
    frames = [Image.new("L", (2, 2), number % 255) for number in range(1200)]
    data = save(frames[0], "GIF", save_all=True, append_images=frames[1:40])
    assert images.open_image(data, **LIMITS).header.frames == 40
    data = save(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert images.open_image(data, **LIMITS).header.frames == 1000
    for length in range(10, 200):
        assert count_frames(data[:length]) >= 1


def test_first_frame_of_an_animation_is_read_and_reported() -> None:
    second = Image.fromarray(255 - GRAY)
    data = save(Image.fromarray(GRAY), "GIF", save_all=True, append_images=[second])
    assert_reads(data)
    assert images.open_image(data, **LIMITS).header.frames == 2
