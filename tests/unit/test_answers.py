"""What a caller chooses of the answer's file: depth, profile, visible mark."""

import io
from typing import Any

import numpy as np
import pytest
import tifffile
from icc import ADOBE_RGB, build_gray_profile
from numpy.typing import NDArray
from PIL import Image, ImageCms
from skimage.color import rgb2lab

from rehue_core.rgb import convert_to_rgb
from rehue_serve import images
from rehue_serve.composition import ComposedPicture
from rehue_serve.encoding.mark import draw_mark
from rehue_serve.encoding.profiles import _adapt_to_d50, convert_to_profile, is_output_profile
from rehue_serve.metadata.exif import update_exif

LIMITS = {"max_bytes": 50_000_000, "max_pixels": 50_000_000}
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
LIGHTNESS = np.repeat(np.linspace(5, 95, 96, dtype=np.float32)[None], 60, axis=0)
# Colours that sRGB can hold at all of these L: a field of 5 x 3.
AB = np.dstack([np.linspace(-8, 8, 15).reshape(3, 5), np.linspace(9, -9, 15).reshape(3, 5)])


def measure_lab(pixels: NDArray[Any], profile: bytes) -> NDArray[Any]:
    """Lab at D50's white of 8-bit pixels, by littlecms; a and b rounded to 1."""
    source = ImageCms.getOpenProfile(io.BytesIO(profile))
    transform = ImageCms.buildTransform(
        source, ImageCms.createProfile("LAB"), "RGB", "LAB",
        renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
    )  # fmt: skip
    found = ImageCms.applyTransform(Image.fromarray(np.ascontiguousarray(pixels)), transform)
    assert found is not None
    lightness, a, b = (np.asarray(band).astype(float) for band in found.split())
    return np.dstack([lightness / 2.55, a - 128, b - 128])


def convert(dtype: Any) -> NDArray[Any]:
    return convert_to_profile(LIGHTNESS, AB, ADOBE_RGB, dtype=dtype)


def test_a_wide_profile_shows_the_same_colours_and_the_photographs_own_lightness() -> None:
    found = measure_lab(convert(np.uint8), ADOBE_RGB)
    assert np.abs(found[..., 0] - LIGHTNESS).max() < 0.6
    srgb = measure_lab(convert_to_rgb(LIGHTNESS, AB), SRGB)
    assert np.abs(found - srgb).max() <= 2  # 1 of rounding in each
    # Taken for sRGB it would be something else.
    assert np.abs(measure_lab(convert(np.uint8), SRGB) - srgb).mean() > 0.5


def test_strong_colours_are_adapted_to_the_profiles_white() -> None:
    """Without the adaptation red's b would be 67 instead of 70, blue's a 79 instead of 68."""
    primaries = np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]], np.uint8)
    at_d65 = rgb2lab(primaries).astype(np.float32)
    found = _adapt_to_d50(at_d65[..., 0], np.moveaxis(at_d65[..., 1:], -1, 0))
    expected = measure_lab(primaries, SRGB)
    assert np.abs(found[..., 1:] - expected[..., 1:]).max() < 1


def test_sixteen_bits_of_a_wide_profile_are_finer() -> None:
    deep = convert(np.uint16)
    assert deep.dtype == np.uint16
    assert np.abs(deep / 257 - convert(np.uint8)).max() < 0.51
    assert len(np.unique(deep & 0xFF)) > 100


def test_gray_stays_gray_in_a_wide_profile() -> None:
    gray = convert_to_profile(LIGHTNESS, np.zeros((1, 1, 2)), ADOBE_RGB).astype(int)
    assert np.ptp(gray, axis=2).max() <= 1


def test_rows_of_a_wide_picture_are_those_of_the_whole() -> None:
    rows = [
        convert_to_profile(LIGHTNESS, AB, ADOBE_RGB, rows=slice(top, top + 7))
        for top in range(0, 60, 7)
    ]
    np.testing.assert_array_equal(np.concatenate(rows), convert(np.uint8))


def test_only_profiles_of_rgb_can_be_kept() -> None:
    assert is_output_profile(ADOBE_RGB)
    assert not is_output_profile(SRGB)  # the answer is sRGB anyway
    assert not is_output_profile(build_gray_profile(lambda value: value**1.8))
    assert not is_output_profile(b"broken" * 40)
    assert not is_output_profile(b"")


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_the_profile_of_every_format_is_found(format: str) -> None:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "gray").save(out, format, icc_profile=ADOBE_RGB)
    photograph = images.open_image(out.getvalue(), **LIMITS)
    assert images.choose_profile(photograph) == ADOBE_RGB


def test_eight_bits_on_request() -> None:
    out = io.BytesIO()
    tifffile.imwrite(out, np.zeros((8, 8), np.uint16))
    header = images.open_image(out.getvalue(), **LIMITS).header
    assert images.choose_depth(header, "tiff") == np.uint16
    assert images.choose_depth(header, "tiff", "8") == np.uint8
    assert images.choose_depth(header, "jpeg") == np.uint8


def test_exif_says_that_the_colours_are_the_profiles() -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0xA001] = 1
    block = update_exif(exif.tobytes(), 4, 4, is_srgb=False)
    found = Image.Exif()
    found.load(b"Exif\0\0" + block)
    assert found.get_ifd(0x8769)[0xA001] == 0xFFFF


def compose(height: int, width: int, dtype: Any = np.uint8, alpha: Any = None) -> ComposedPicture:
    lightness = np.full((height, width), 50, np.float32)
    return ComposedPicture(
        lightness, alpha, np.zeros((1, 1, 2)), strength=1.0, dtype=dtype, marked=True
    )


@pytest.mark.parametrize(("height", "width"), [(40, 40), (60, 90), (600, 800), (3000, 2000)])
def test_the_mark_can_be_read_and_is_small(height: int, width: int) -> None:
    picture = compose(height, width)[:].astype(int)
    rows, columns = np.nonzero((picture != picture[0, 0]).any(axis=2))
    assert rows.min() > height * 0.3
    assert columns.min() > width * 0.25  # the lower right corner
    assert rows.max() < height - 1  # with a margin
    assert columns.max() < width - 1
    assert picture.max() >= 240  # white letters
    assert picture.min() < picture[0, 0, 0] - 40  # on a dark plate
    assert np.ptp(rows) >= 8  # of letters large enough
    if height >= 600:
        assert (np.ptp(rows) + 1) * (np.ptp(columns) + 1) < 0.02 * height * width


def test_a_picture_without_room_for_letters_has_no_mark() -> None:
    assert draw_mark(12, 12) is None
    assert np.ptp(compose(12, 12)[:]) == 0


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_rows_of_a_marked_picture_are_those_of_the_whole(dtype: Any) -> None:
    picture = compose(90, 120, dtype)
    rows = [picture[top : top + 7] for top in range(0, 90, 7)]
    np.testing.assert_array_equal(np.concatenate(rows), picture[:])
    assert picture[:].max() > 0.9 * np.iinfo(dtype).max


def test_the_mark_is_seen_where_the_picture_is_transparent() -> None:
    picture = compose(90, 120, alpha=np.zeros((90, 120), np.uint8))[:]
    assert picture[0, 0, 3] == 0
    mark = picture[..., 3] > 0
    assert picture[..., 3].max() == 255
    assert picture[mark][..., :3].max() == 255
    assert picture[mark][..., :3].min() == 0
