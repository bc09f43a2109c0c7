"""CIE Lab before and after the network: plain functions over arrays.

The network only predicts ab from L. L is the photograph's own, at full
resolution, so these functions decide how true the picture stays. They follow
scikit-image's ``rgb2lab`` and ``lab2rgb`` (sRGB, D65, 2 degrees) to within one
count of 255; the tests compare the two on real photographs.

Numba makes machine code of the two loops over pixels: one pass over the picture
each, without the interpreter's lock and without any picture in between.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]
# HW, L 0..100 as float32; or as uint16 in counts of 100 / 65535, which is half the memory.
Lightness = NDArray[Any]

# sRGB to XYZ (IEC 61966-2-1) and the white of D65 for 2 degrees, as scikit-image has them.
XYZ = np.array(
    [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ]
)
WHITE = np.array([0.95047, 1.0, 1.08883])

STEPS = 65536  # of linear light 0..1 in the tables; half a step is 0.03 of 255 where it is dark
FARTHEST = (
    1000.0  # ab beyond this, which no colour has, and what is no number are a broken network's
)

# The networks predict ab divided by this; the paper's choice (Purnomo, 2023).
AB_RANGE = 128.0

# CIE 15, 8.2.1, with scikit-image's digits: below it f is a straight line.
BEND = np.float32(0.2068966)


def _compiled(loop: Callable[..., None]) -> Any:
    """Machine code on its first call; kept on disk where there is a place to write to."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}}
    try:
        return njit(cache=True, **options)(loop)
    except RuntimeError:  # no folder can be written
        return njit(**options)(loop)


def _inlined(function: Callable[..., Any]) -> Any:
    """A part of a loop."""
    return njit(inline="always")(function)


@cache
def _linear() -> NDArray[np.float64]:
    """The 256 sRGB counts in linear light, 0..1 (IEC 61966-2-1)."""
    value = np.arange(256) / 255.0
    return np.where(value > 0.04045, ((value + 0.055) / 1.055) ** 2.4, value / 12.92)


@cache
def _luminance() -> Float32:
    """Steps of luminance that a count of red, green and blue adds: 3 x 256."""
    return np.asarray(XYZ[1, :, None] * _linear() * (STEPS - 1), np.float32)


@cache
def _counts() -> UInt8:
    """The sRGB count, 0..255, of each step of linear light."""
    light = np.arange(STEPS) / (STEPS - 1)
    value = np.where(light > 0.0031308, 1.055 * light ** (1 / 2.4) - 0.055, 12.92 * light)
    return np.asarray(np.rint(value * 255), np.uint8)


@cache
def _bgr_steps() -> Float32:
    """Steps of blue, green and red from X, Y and Z over those of white: 3 x 3.

    The digits of `XYZ` and `WHITE` differ by up to a ten thousandth; what is gray stays gray.
    """
    matrix = np.linalg.inv(XYZ)[::-1] * WHITE
    return np.asarray(matrix / matrix.sum(axis=1, keepdims=True) * (STEPS - 1), np.float32)


@cache
def _lightness_of_luminance(dtype: Any) -> Lightness:
    """L of each step of luminance."""
    return _lightness_of(np.arange(STEPS) / (STEPS - 1), dtype)


@cache
def _lightness_of_gray(dtype: Any) -> Lightness:
    """L of the 256 gray sRGB counts, without rounding on the way."""
    return _lightness_of(_linear(), dtype)


def _lightness_of(y: NDArray[np.float64], dtype: Any) -> Lightness:
    """L of linear luminance 0..1 (CIE 15, 8.2.1)."""
    f = np.where(y > 0.008856, np.cbrt(y), 7.787 * y + 16.0 / 116.0)
    counts = (116.0 * f - 16.0) / unit(dtype)
    return np.asarray(np.rint(counts) if dtype is np.uint16 else counts, dtype)


def unit(dtype: Any) -> float:
    """L of one count of a lightness of this type."""
    return 100 / 65535 if dtype == np.uint16 else 1.0


def lightness(pixels: UInt8, dtype: Any = np.float32) -> Lightness:
    """L of a picture.

    Args:
        pixels: HW (gray) or HWC with three channels (RGB), uint8, sRGB, 0..255.
        dtype: np.float32 or np.uint16.

    Returns:
        Lightness of that type. Of a colour picture this is its lightness: the hue
        of a sepia print, or of a photograph already in colour, is gone.
    """
    if pixels.ndim == 2:
        return np.asarray(cv2.LUT(pixels, _lightness_of_gray(dtype)))
    out = np.empty(pixels.shape[:2], dtype)
    _fill_lightness(pixels, _luminance(), _lightness_of_luminance(dtype), out)
    return out


def fine_lightness(pixels: UInt8) -> NDArray[np.uint16]:
    """As `lightness`, in counts of 100 / 65535."""
    return np.asarray(lightness(pixels, np.uint16))


@_compiled
def _fill_lightness(pixels: UInt8, luminance: Float32, table: Lightness, out: Lightness) -> None:
    height, width = out.shape
    for y in range(height):
        for x in range(width):
            red, green, blue = pixels[y, x, 0], pixels[y, x, 1], pixels[y, x, 2]
            steps = luminance[0, red] + luminance[1, green] + luminance[2, blue]
            out[y, x] = table[min(int(steps + np.float32(0.5)), STEPS - 1)]


def to_rgb(lightness: Lightness, ab: NDArray[Any], *, strength: float = 1.0) -> UInt8:
    """The picture of a lightness and a (smaller) field of colours.

    ``ab`` is enlarged bilinearly, corners of the picture at corners of the field
    (as OpenCV and Pillow resize), and joined with the lightness unchanged.

    Args:
        lightness: of either type.
        ab: hw2 of any type of number, Lab units, about -110..110, of any size from 1x1.
        strength: scales chroma; 0 leaves gray.

    Returns:
        HWC uint8 sRGB, 0..255. Colours outside sRGB are clipped. It is a view of BGR,
        as the encoders take it, so that nothing copies the picture to turn it round.
    """
    height, width = lightness.shape
    field = np.multiply(ab, np.float32(strength), order="C", dtype=np.float32)
    np.clip(np.nan_to_num(field, copy=False), -FARTHEST, FARTHEST, out=field)
    bgr = np.empty((height, width, 3), np.uint8)
    down, across = _between(len(ab), height), _between(ab.shape[1], width)
    scale = np.float32(unit(lightness.dtype))
    _fill_bgr(lightness, scale, field, down, across, _bgr_steps(), _counts(), bgr)
    return bgr[..., ::-1]


def _between(few: int, many: int) -> tuple[NDArray[np.int32], NDArray[np.int32], Float32]:
    """Bilinear enlargement of a line: for each of many, two of the few and the second's weight."""
    at = np.clip((np.arange(many) + 0.5) * (few / many) - 0.5, 0, few - 1)
    first = at.astype(np.int32)
    return first, np.minimum(first + 1, few - 1), (at - first).astype(np.float32)


@_compiled
def _fill_bgr(
    lightness: Lightness,
    unit: float,
    ab: Float32,
    down: Any,
    across: Any,
    matrix: Float32,
    counts: UInt8,
    bgr: UInt8,
) -> None:
    """Every number is a float32 by name, or Numba would go on in float64."""
    height, width = lightness.shape
    rows = np.empty((2, 2, width), np.float32)  # two of the field, enlarged across
    steps = np.empty((3, width), np.int32)
    ready = 0
    for y in range(height):
        high, low, lower = down[0][y], down[1][y], down[2][y]
        while ready <= low:
            _enlarge(ab[ready], across, rows[ready % 2])
            ready += 1
        upper = np.float32(1) - lower
        above, below = rows[high % 2], rows[low % 2]
        for x in range(width):
            a = above[0, x] * upper + below[0, x] * lower
            b = above[1, x] * upper + below[1, x] * lower
            fy = (np.float32(lightness[y, x]) * unit + np.float32(16)) * np.float32(1 / 116)
            fx = fy + a * np.float32(1 / 500)
            # As scikit-image has it, which takes a negative Z for zero.
            fz = max(fy - b * np.float32(1 / 200), np.float32(0))
            big_x, big_y, big_z = _cubed(fx), _cubed(fy), _cubed(fz)
            for channel in range(3):
                light = (
                    matrix[channel, 0] * big_x
                    + matrix[channel, 1] * big_y
                    + matrix[channel, 2] * big_z
                )
                step = np.int32(light + np.float32(0.5))
                steps[channel, x] = min(max(step, np.int32(0)), np.int32(STEPS - 1))
        for x in range(width):
            for channel in range(3):
                bgr[y, x, channel] = counts[steps[channel, x]]


@_inlined
def _enlarge(row: Float32, across: Any, out: Float32) -> None:
    left, right, weight = across
    for x in range(out.shape[1]):
        for channel in range(2):
            here = row[left[x], channel]
            out[channel, x] = here + (row[right[x], channel] - here) * weight[x]


@_inlined
def _cubed(f: Any) -> Any:
    """X, Y or Z over that of white: the inverse of Lab's f."""
    return f * f * f if f > BEND else (f - np.float32(16 / 116)) * np.float32(1 / 7.787)
