"""The planes of a JPEG against scikit-image and Pillow, on real photographs."""

from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
from numpy.typing import NDArray
from paths import PHOTOS
from PIL import Image
from skimage import color

from rehue_core import lab, ycbcr
from rehue_core.rgb import convert_to_rgb
from rehue_serve.decoding.jpeg import decode_intact

NAMES = sorted(path.name for path in PHOTOS.glob("*.jpg"))


def convert_to_ycbcr(rgb: lab.UInt8) -> lab.UInt8:
    return np.asarray(Image.fromarray(np.ascontiguousarray(rgb)).convert("YCbCr"))


def average_chroma(plane: lab.UInt8) -> lab.Float32:
    height, width = plane.shape
    even = np.pad(plane.astype(np.float32), ((0, height % 2), (0, width % 2)), mode="edge")
    return np.asarray(even.reshape(len(even) // 2, 2, -1, 2).mean(axis=(1, 3)))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.filterwarnings("ignore:Conversion from CIE-LAB")
def test_planes_are_skimages_picture(name: str) -> None:
    truth = color.rgb2lab(np.asarray(Image.open(PHOTOS / name).convert("RGB"))).astype(np.float32)
    height, width = truth.shape[:2]
    small = cv2.resize(truth[..., 1:], (128, 96), interpolation=cv2.INTER_AREA)
    large = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    picture = np.rint(color.lab2rgb(np.dstack([truth[..., 0], large])) * 255).astype(np.uint8)
    expected = convert_to_ycbcr(picture)
    planes = ycbcr.convert_to_planes(truth[..., 0], small)
    assert planes.shape == truth.shape
    assert np.abs(planes.y.astype(int) - expected[..., 0]).max() <= 1
    for plane, channel in ((planes.cb, 1), (planes.cr, 2)):
        assert np.abs(plane - average_chroma(expected[..., channel])).max() <= 1.5


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (701, 1), (3, 5), (2, 8), (2000, 40)])
@pytest.mark.parametrize("dtype", [np.float16, np.int8])
def test_planes_of_any_shape_are_those_of_the_rgb_picture(
    shape: tuple[int, int], dtype: type
) -> None:
    random = np.random.default_rng(1)
    lightness = random.integers(0, 65536, shape, np.uint16)
    ab: NDArray[Any] = random.normal(0, 20, (9, 7, 2)).astype(dtype)
    expected = convert_to_ycbcr(convert_to_rgb(lightness, ab, strength=1.5))
    planes = ycbcr.convert_to_planes(lightness, ab, strength=1.5)
    assert np.abs(planes.y.astype(int) - expected[..., 0]).max() <= 1
    for plane, channel in ((planes.cb, 1), (planes.cr, 2)):
        assert np.abs(plane - average_chroma(expected[..., channel])).max() <= 1.5


def test_no_strength_leaves_every_gray_without_a_tint() -> None:
    grays = np.linspace(0, 100, 4096, dtype=np.float32).reshape(64, 64)
    planes = ycbcr.convert_to_planes(grays, np.full((8, 8, 2), 60, np.float32), strength=0)
    assert set(np.unique(planes.cb)) == set(np.unique(planes.cr)) == {128}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 6e4])
def test_what_no_colour_has_still_makes_a_picture(value: float) -> None:
    lightness = np.full((8, 8), 50, np.float32)
    field = np.full((4, 4, 2), value, np.float32)
    planes = ycbcr.convert_to_planes(lightness, field, strength=2)
    data = simplejpeg.encode_jpeg_yuv_planes(planes.y, planes.cb, planes.cr, 92)
    assert simplejpeg.decode_jpeg(data).shape == (8, 8, 3)


@pytest.mark.parametrize("name", NAMES)
def test_intact_files_decode_as_with_pillow(name: str) -> None:
    data = (PHOTOS / name).read_bytes()
    with Image.open(PHOTOS / name) as image:
        expected = np.asarray(image).astype(int)
    pixels = decode_intact(data, is_gray=expected.ndim == 2)
    assert pixels is not None
    assert np.abs(pixels - expected).max() <= 1


def test_damaged_files_are_left_to_pillow() -> None:
    data = (PHOTOS / NAMES[0]).read_bytes()
    damaged = data[:5000] + bytes(200) + data[5200:]
    for file in (data[: len(data) // 2], data[:-2], damaged, b""):
        assert decode_intact(file, is_gray=False) is None
