"""Profiles, colour spaces and gamma: tones are read as the file states them."""

import struct
from typing import Any

import numpy as np
import pytest
import pyvips
from icc import build_cmyk_profile, build_gray_profile
from PIL import Image, ImageCms
from skimage.color import rgb2lab
from tones import GRAY, VALUE, assert_reads, compute_lightness, read, save, write_png

from rehue_serve.decoding.profiles import is_srgb_profile
from rehue_serve.errors import UnsupportedImage


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
