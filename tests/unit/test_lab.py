"""Lab code against scikit-image, on real photographs."""

import cv2
import numpy as np
import pytest
from paths import PHOTOS
from PIL import Image
from skimage import color

from rehue_core import lab
from rehue_core.rgb import convert_to_rgb

NAMES = sorted(path.name for path in PHOTOS.glob("*.jpg"))


def create_pixels(name: str, mode: str) -> lab.UInt8:
    return np.asarray(Image.open(PHOTOS / name).convert(mode))


@pytest.mark.parametrize("name", NAMES)
def test_lightness_of_colour_is_skimages(name: str) -> None:
    rgb = create_pixels(name, "RGB")
    assert np.abs(lab.compute_lightness(rgb) - color.rgb2lab(rgb)[..., 0]).max() < 0.02


def test_lightness_of_every_gray_is_skimages() -> None:
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    expected = color.rgb2lab(np.dstack([gray] * 3))[..., 0]
    assert np.abs(lab.compute_lightness(gray) - expected).max() < 1e-4


def test_dark_lightness_is_skimages() -> None:
    rgb = np.random.default_rng(0).integers(0, 12, (64, 64, 3), np.uint8)
    assert np.abs(lab.compute_lightness(rgb) - color.rgb2lab(rgb)[..., 0]).max() < 0.02


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB")
def test_picture_is_within_one_of_skimages(name: str) -> None:
    truth = color.rgb2lab(create_pixels(name, "RGB")).astype(np.float32)
    height, width = truth.shape[:2]
    small = cv2.resize(truth[..., 1:], (128, 96), interpolation=cv2.INTER_AREA)
    large = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    expected = np.rint(color.lab2rgb(np.dstack([truth[..., 0], large])) * 255)
    got = convert_to_rgb(np.ascontiguousarray(truth[..., 0]), small).astype(int)
    assert np.abs(got - expected).max() <= 1


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_lightness_in_counts_makes_the_same_picture(mode: str) -> None:
    fine, lightness = (
        make(create_pixels(NAMES[0], mode))
        for make in (lab.compute_fine_lightness, lab.compute_lightness)
    )
    assert fine.dtype == np.uint16
    assert np.abs(fine * lab.get_lightness_unit(fine.dtype) - lightness).max() < 1e-3
    ab = np.random.default_rng(0).normal(0, 20, (16, 16, 2)).astype(np.float32)
    assert np.abs(convert_to_rgb(fine, ab).astype(int) - convert_to_rgb(lightness, ab)).max() <= 1


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 6e4])
def test_what_no_colour_has_still_makes_a_picture(value: float) -> None:
    gray = create_pixels(NAMES[0], "L")
    rgb = convert_to_rgb(
        lab.compute_lightness(gray), np.full((8, 8, 2), value, np.float32), strength=2
    )
    assert rgb.shape == (*gray.shape, 3)


def test_no_strength_leaves_the_gray_picture() -> None:
    gray = create_pixels(NAMES[0], "L")
    ab = np.full((8, 8, 2), 60, np.float32)
    rgb = convert_to_rgb(lab.compute_lightness(gray), ab, strength=0).astype(int)
    assert np.abs(rgb - gray[..., None]).max() <= 1


def test_no_strength_leaves_every_gray_without_a_tint() -> None:
    grays = np.linspace(0, 100, 4096, dtype=np.float32).reshape(64, 64)
    rgb = convert_to_rgb(grays, np.full((8, 8, 2), 60, np.float32), strength=0)
    assert np.ptp(rgb, axis=-1).max() == 0


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (700, 1), (3, 5), (2000, 40)])
def test_any_shape_works(shape: tuple[int, int]) -> None:
    gray = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    ab = np.zeros((4, 4, 2), np.float32)
    rgb = convert_to_rgb(lab.compute_lightness(gray), ab).astype(int)
    assert rgb.shape == (*shape, 3)
    assert np.abs(rgb - gray[..., None]).max() <= 1
