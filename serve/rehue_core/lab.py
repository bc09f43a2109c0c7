"""CIE Lab: its constants, and the lightness of a photograph.

The network predicts only ab from L. L is the photograph's own at full resolution,
so these functions decide how faithful the picture stays. They follow scikit-image's
``rgb2lab`` (sRGB, D65, 2 degrees); the tests compare the two on real photographs.
`rehue_core.rgb` and `rehue_core.ycbcr` convert back.
"""

from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rehue_core.loops import compile_loop

UInt8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]
# HW, L 0..100 as float32; or as uint16 in units of 100 / 65535, which takes half the memory.
Lightness = NDArray[Any]

# sRGB to XYZ (IEC 61966-2-1) and the D65 white point at 2 degrees, with scikit-image's digits.
XYZ = np.array(
    [
        [0.412453, 0.357580, 0.180423],
        [0.212671, 0.715160, 0.072169],
        [0.019334, 0.119193, 0.950227],
    ]
)
WHITE = np.array([0.95047, 1.0, 1.08883])

# Entries of the tables over linear light 0..1. In the darkest tones, rounding to an entry
# changes an sRGB count by at most 0.03 of 255.
LIGHT_STEPS = 65536

# The networks predict ab divided by this, as in the paper (Purnomo, 2023).
AB_RANGE = 128.0

# Below this value of f, Lab's transfer function is linear (CIE 15, 8.2.1; scikit-image's digits).
LINEAR_F_LIMIT = np.float32(0.2068966)


@cache
def _build_linear_light_table() -> NDArray[np.float64]:
    """Linear light, 0..1, of the 256 sRGB counts (IEC 61966-2-1)."""
    value = np.arange(256) / 255.0
    return np.where(value > 0.04045, ((value + 0.055) / 1.055) ** 2.4, value / 12.92)


@cache
def _build_luminance_table() -> NDArray[np.uint32]:
    """Luminance that each count of red, green and blue adds: 3 x 256, in 16ths of a table step.

    White's three add up to the last step: `XYZ` gives it a luminance of 1.
    """
    luminance = XYZ[1, :, None] * _build_linear_light_table()
    return np.asarray(np.rint(luminance * (LIGHT_STEPS - 1) * 16), np.uint32)


@cache
def _build_lightness_by_luminance(dtype: Any) -> Lightness:
    """L of each step of luminance."""
    return _compute_lightness_of_luminance(np.arange(LIGHT_STEPS) / (LIGHT_STEPS - 1), dtype)


@cache
def _build_lightness_by_gray(dtype: Any) -> Lightness:
    """L of the 256 gray sRGB counts, without rounding to a table step in between."""
    return _compute_lightness_of_luminance(_build_linear_light_table(), dtype)


def _compute_lightness_of_luminance(y: NDArray[np.float64], dtype: Any) -> Lightness:
    """L of linear luminance 0..1 (CIE 15, 8.2.1)."""
    f = np.where(y > 0.008856, np.cbrt(y), 7.787 * y + 16.0 / 116.0)
    counts = (116.0 * f - 16.0) / get_lightness_unit(dtype)
    return np.asarray(np.rint(counts) if dtype is np.uint16 else counts, dtype)


def get_lightness_unit(dtype: Any) -> float:
    """Return the L that one count of a lightness array of this dtype stands for."""
    return 100 / 65535 if dtype == np.uint16 else 1.0


def compute_lightness(pixels: UInt8, dtype: Any = np.float32) -> Lightness:
    """Compute the L of a picture.

    Args:
        pixels: HW (gray) or HWC with three channels (RGB), uint8, sRGB, 0..255.
        dtype: np.float32 or np.uint16.

    Returns:
        HW of that dtype; see `Lightness`. The hue of a sepia print, or of a photograph
        already in colour, is dropped.
    """
    if pixels.ndim == 2:
        return np.asarray(cv2.LUT(pixels, _build_lightness_by_gray(dtype)))
    out = np.empty(pixels.shape[:2], dtype)
    _fill_lightness(pixels, _build_luminance_table(), _build_lightness_by_luminance(dtype), out)
    return out


def compute_fine_lightness(pixels: UInt8) -> NDArray[np.uint16]:
    """Compute the L of a picture as uint16, in units of 100 / 65535."""
    return np.asarray(compute_lightness(pixels, np.uint16))


def convert_to_lab(pixels: UInt8) -> Float32:
    """Convert a few colours to Lab, with table lookups and NumPy alone.

    Args:
        pixels: ...3 sRGB, 0..255.

    Returns:
        ...3 float32: L 0..100, a and b.
    """
    y = (_build_linear_light_table()[pixels] @ XYZ.T) / WHITE
    f = np.where(y > 0.008856, np.cbrt(y), 7.787 * y + 16.0 / 116.0)
    fx, fy, fz = f[..., 0], f[..., 1], f[..., 2]
    lab = (116 * fy - 16, 500 * (fx - fy), 200 * (fy - fz))
    return np.asarray(np.stack(lab, axis=-1), np.float32)


@compile_loop
def _fill_lightness(
    pixels: UInt8, luminance: NDArray[np.uint32], table: Lightness, out: Lightness
) -> None:
    height, width = out.shape
    for y in range(height):
        row, lightness = pixels[y], out[y]
        for x in range(width):
            steps = luminance[0, row[x, 0]] + luminance[1, row[x, 1]] + luminance[2, row[x, 2]]
            # An unsigned index is not checked for being negative, which would take as long again.
            lightness[x] = table[np.uint32(steps + np.uint32(8)) >> np.uint32(4)]


def resize(values: NDArray[Any], shape: tuple[int, ...]) -> Float32:
    """Resize a lightness (HW, see `Lightness`) or an ab field (HW2), to float32 in Lab units.

    Shrinks by the mean of the area, and enlarges as `rehue_core.light` does.

    Args:
        shape: height and width of the result.
    """
    height, width = shape[:2]
    shrinks = height < values.shape[0] or width < values.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized = cv2.resize(values, (width, height), interpolation=method)
    unit = np.float32(get_lightness_unit(values.dtype))
    return np.asarray(np.multiply(resized, unit, dtype=np.float32))
