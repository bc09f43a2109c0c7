"""Conversion between sRGB and CIE Lab, before and after the network.

The network predicts only ab from L. L is the photograph's own at full resolution,
so these functions decide how faithful the picture stays. They follow scikit-image's
``rgb2lab`` and ``lab2rgb`` (sRGB, D65, 2 degrees) to within one count of 255; the
tests compare the two on real photographs.

Numba compiles the loops over pixels. Each makes a single pass over the picture,
releases the GIL and needs no temporary picture.
"""

from collections.abc import Callable, Collection
from functools import cache
from typing import Any

import cv2
import numpy as np
from numba import njit
from numpy.typing import NDArray

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

# No colour has ab beyond this. Larger values, NaN and infinity come from a broken network
# and are clipped.
MAX_AB = 1000.0

# The networks predict ab divided by this, as in the paper (Purnomo, 2023).
AB_RANGE = 128.0

# Below this value of f, Lab's transfer function is linear (CIE 15, 8.2.1; scikit-image's digits).
LINEAR_F_LIMIT = np.float32(0.2068966)


def compile_loop(loop: Callable[..., None], fastmath: Collection[str] = ("contract",)) -> Any:
    """Compile a loop on its first call, and cache the result on disk where that is possible."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": set(fastmath)}
    try:
        return njit(cache=True, **options)(loop)
    except RuntimeError:  # no cache folder is writable
        return njit(**options)(loop)


def inline_loop(function: Callable[..., Any]) -> Any:
    """Inline a function into the compiled loop that calls it."""
    return njit(inline="always")(function)


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
def _build_srgb_count_table() -> UInt8:
    """sRGB count, 0..255, of each step of linear light."""
    light = np.arange(LIGHT_STEPS) / (LIGHT_STEPS - 1)
    value = np.where(light > 0.0031308, 1.055 * light ** (1 / 2.4) - 0.055, 12.92 * light)
    return np.asarray(np.rint(value * 255), np.uint8)


@cache
def build_bgr_matrix() -> Float32:
    """Matrix from X, Y and Z relative to white to table steps of blue, green and red: 3 x 3.

    `XYZ` maps white to `WHITE` only within 1e-4, so each row is normalized: gray stays gray.
    """
    matrix = np.linalg.inv(XYZ)[::-1] * WHITE
    return np.asarray(matrix / matrix.sum(axis=1, keepdims=True) * (LIGHT_STEPS - 1), np.float32)


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

    Shrinks by the mean of the area, and enlarges as `convert_to_rgb` does.

    Args:
        shape: height and width of the result.
    """
    height, width = shape[:2]
    shrinks = height < values.shape[0] or width < values.shape[1]
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    resized = cv2.resize(values, (width, height), interpolation=method)
    unit = np.float32(get_lightness_unit(values.dtype))
    return np.asarray(np.multiply(resized, unit, dtype=np.float32))


def convert_to_rgb(
    lightness: Lightness,
    ab: NDArray[Any],
    *,
    strength: float = 1.0,
    dtype: Any = np.uint8,
    rows: slice = slice(None),
) -> NDArray[Any]:
    """Convert a lightness and a (usually smaller) ab field to sRGB.

    ``ab`` is enlarged bilinearly, with the corners of the picture at the corners of the
    field, as OpenCV and Pillow resize. The lightness is used unchanged.

    Args:
        lightness: HW float32 or uint16; see `Lightness`.
        ab: hw2 of any numeric dtype, Lab units, about -110..110, of any size from 1x1.
        strength: scales chroma; 0 leaves gray.
        dtype: np.uint8, or np.uint16 for deep pictures.
        rows: of the picture that are converted, so that a large one is never whole in memory.

    Returns:
        HWC sRGB of that dtype, 0..255 or 0..65535. Colours outside sRGB are clipped. The
        array is a view of a BGR array, the encoders' order, so that encoding needs no copy
        to reverse it.
    """
    height, width = lightness.shape
    lightness = lightness[rows]
    field = clean_field(ab, strength)
    bgr = np.empty((len(lightness), width, 3), dtype)
    first, second, weight = interpolate_indices(len(ab), height)
    lines = (first[rows], second[rows], weight[rows])
    columns = interpolate_indices(ab.shape[1], width)
    scale = np.float32(get_lightness_unit(lightness.dtype))
    common = (lightness, scale, field, lines, columns, build_bgr_matrix())
    if bgr.dtype == np.uint8:
        _fill_bgr(*common, _build_srgb_count_table(), bgr)
    else:
        _fill_deep_bgr(*common, bgr)
    return bgr[..., ::-1]


def clean_field(ab: NDArray[Any], strength: float) -> Float32:
    """Return ab times strength as float32, without NaN and within `MAX_AB`."""
    field = np.multiply(ab, np.float32(strength), order="C", dtype=np.float32)
    return np.clip(np.nan_to_num(field, copy=False), -MAX_AB, MAX_AB, out=field)


def enlarge_rows(ab: Float32, shape: tuple[int, int], rows: slice) -> Float32:
    """Enlarge some rows of an ab field (hw2) as `convert_to_rgb` does.

    Args:
        shape: height and width of the whole picture.
        rows: of the picture.

    Returns:
        HW2 of those rows.
    """
    first, second, weight = (part[rows] for part in interpolate_indices(len(ab), shape[0]))
    left, right, beside = interpolate_indices(ab.shape[1], shape[1])
    lines = ab[first] + (ab[second] - ab[first]) * weight[:, None, None]
    enlarged = lines[:, left]
    enlarged += (lines[:, right] - enlarged) * beside[:, None]
    return np.asarray(enlarged)


def interpolate_indices(
    size: int, new_size: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], Float32]:
    """Return both source indices of each new pixel of a line, and the second's weight."""
    position = np.clip((np.arange(new_size) + 0.5) * (size / new_size) - 0.5, 0, size - 1)
    first = position.astype(np.int32)
    return first, np.minimum(first + 1, size - 1), (position - first).astype(np.float32)


@compile_loop
def _fill_bgr(
    lightness: Lightness,
    unit: float,
    ab: Float32,
    rows: Any,
    columns: Any,
    matrix: Float32,
    counts: UInt8,
    bgr: UInt8,
) -> None:
    """Fill BGR pixels of 8 bits."""
    height, width = lightness.shape
    enlarged = np.empty((2, 2, width), np.float32)  # two rows of ab, enlarged to full width
    light = np.empty((3, width), np.float32)
    done = rows[0][0]  # the next row of ab to enlarge
    for y in range(height):
        while done <= rows[1][y]:
            _enlarge_row(ab[done], columns, enlarged[done % 2])
            done += 1
        _fill_light_row(lightness[y], unit, rows, y, enlarged, matrix, light)
        for x in range(width):
            for channel in range(3):
                bgr[y, x, channel] = counts[np.int32(light[channel, x] + np.float32(0.5))]


@compile_loop
def _fill_deep_bgr(
    lightness: Lightness,
    unit: float,
    ab: Float32,
    rows: Any,
    columns: Any,
    matrix: Float32,
    bgr: NDArray[np.uint16],
) -> None:
    """Fill BGR pixels of 16 bits. A table of light is too coarse where it is dark."""
    height, width = lightness.shape
    enlarged = np.empty((2, 2, width), np.float32)
    light = np.empty((3, width), np.float32)
    done = rows[0][0]
    for y in range(height):
        while done <= rows[1][y]:
            _enlarge_row(ab[done], columns, enlarged[done % 2])
            done += 1
        _fill_light_row(lightness[y], unit, rows, y, enlarged, matrix, light)
        for x in range(width):
            for channel in range(3):
                value = light[channel, x] * np.float32(1 / (LIGHT_STEPS - 1))
                # IEC 61966-2-1.
                if value > np.float32(0.0031308):
                    root = value ** np.float32(1 / 2.4)
                    value = np.float32(1.055) * root - np.float32(0.055)
                else:
                    value = np.float32(12.92) * value
                bgr[y, x, channel] = np.int32(value * np.float32(65535) + np.float32(0.5))


@inline_loop
def _fill_light_row(
    lightness: Lightness,
    unit: float,
    rows: Any,
    y: int,
    enlarged: Float32,
    matrix: Float32,
    light: Float32,
) -> None:
    """Fill linear blue, green and red, 0..LIGHT_STEPS - 1, of one row.

    Constants are explicit float32, or Numba would compute in float64.
    """
    weight_below = rows[2][y]
    weight_above = np.float32(1) - weight_below
    ab_above, ab_below = enlarged[rows[0][y] % 2], enlarged[rows[1][y] % 2]
    for x in range(lightness.shape[0]):
        a = ab_above[0, x] * weight_above + ab_below[0, x] * weight_below
        b = ab_above[1, x] * weight_above + ab_below[1, x] * weight_below
        fy = (np.float32(lightness[x]) * unit + np.float32(16)) * np.float32(1 / 116)
        fx = fy + a * np.float32(1 / 500)
        # scikit-image clips a negative fz to zero too.
        fz = max(fy - b * np.float32(1 / 200), np.float32(0))
        big_x, big_y, big_z = _invert_f(fx), _invert_f(fy), _invert_f(fz)
        for channel in range(3):
            value = (
                matrix[channel, 0] * big_x + matrix[channel, 1] * big_y + matrix[channel, 2] * big_z
            )
            light[channel, x] = min(max(value, np.float32(0)), np.float32(LIGHT_STEPS - 1))


@inline_loop
def _enlarge_row(row: Float32, columns: Any, out: Float32) -> None:
    left, right, weight = columns
    for x in range(out.shape[1]):
        for channel in range(2):
            value = row[left[x], channel]
            out[channel, x] = value + (row[right[x], channel] - value) * weight[x]


@inline_loop
def _invert_f(f: Any) -> Any:
    """Return X, Y or Z relative to white: the inverse of Lab's f."""
    return f * f * f if f > LINEAR_F_LIMIT else (f - np.float32(16 / 116)) * np.float32(1 / 7.787)
