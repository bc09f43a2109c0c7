"""From a lightness and a (usually smaller) ab field to rows of linear light.

``ab`` is enlarged bilinearly, with the corners of the picture at the corners of the field, as
OpenCV and Pillow resize. The lightness is used unchanged. The loops are over one row each and
have no table, so that the compiler makes vector instructions of them.
"""

from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rehue_core.lab import LIGHT_STEPS, LINEAR_F_LIMIT, WHITE, XYZ, Float32, Lightness
from rehue_core.loops import compile_loop, compile_row_loop, inline_loop

# No colour has ab beyond this. Larger values and infinity come from a broken network and are
# clipped; NaN becomes 0.
MAX_AB = 1000.0


@cache
def build_bgr_matrix() -> Float32:
    """Matrix from X, Y and Z relative to white to table steps of blue, green and red: 3 x 3.

    `XYZ` maps white to `WHITE` only within 1e-4, so each row is normalized: gray stays gray.
    """
    matrix = np.linalg.inv(XYZ)[::-1] * WHITE
    return np.asarray(matrix / matrix.sum(axis=1, keepdims=True) * (LIGHT_STEPS - 1), np.float32)


def clean_field(ab: NDArray[Any], strength: float) -> Float32:
    """Return ab (hw2) times strength as 2hw float32, without NaN and within `MAX_AB`."""
    field: Any = np.moveaxis(ab, -1, 0)
    if field.dtype == np.float16:  # eight times as fast as NumPy
        halves = np.ascontiguousarray(field).view(np.int16)
        field = cv2.convertFp16(halves.reshape(len(halves), -1)).reshape(halves.shape)
    field = np.array(field, np.float32, order="C")
    _clip_values(field.reshape(-1), np.float32(strength), np.float32(MAX_AB))
    return np.asarray(field)


@compile_loop
def _clip_values(values: Float32, strength: float, limit: float) -> None:
    for index in range(len(values)):
        value = values[index] * strength
        values[index] = min(max(value, -limit), limit) if value == value else np.float32(0)


def interpolate_indices(
    size: int, new_size: int
) -> tuple[NDArray[np.int32], NDArray[np.int32], Float32]:
    """Return both source indices of each new pixel of a line, and the second's weight."""
    position = np.clip((np.arange(new_size) + 0.5) * (size / new_size) - 0.5, 0, size - 1)
    first = position.astype(np.int32)
    return first, np.minimum(first + 1, size - 1), (position - first).astype(np.float32)


def enlarge_rows(ab: Float32, shape: tuple[int, int], rows: slice) -> Float32:
    """Enlarge some rows of an ab field (2hw), as the pictures' loops do.

    Args:
        shape: height and width of the whole picture.
        rows: of the picture.

    Returns:
        2HW of those rows.
    """
    first, second, weight = (part[rows] for part in interpolate_indices(ab.shape[1], shape[0]))
    left, right, beside = interpolate_indices(ab.shape[2], shape[1])
    lines = ab[:, first] + (ab[:, second] - ab[:, first]) * weight[:, None]
    enlarged = lines[:, :, left]
    enlarged += (lines[:, :, right] - enlarged) * beside
    return np.asarray(enlarged)


@compile_row_loop
def enlarge_to_row(last: int, done: int, ab: Float32, columns: Any, enlarged: Float32) -> int:
    """Enlarge the rows of ab (2hw) that are missing up to `last` to the picture's width.

    Args:
        done: number of rows that were enlarged before.
        columns: of `interpolate_indices`, for the width.
        enlarged: 2 x 2 x width; row i of ab is written to `enlarged[i % 2]`.

    Returns:
        The new `done`.
    """
    while done <= last:
        for channel in range(2):
            _enlarge_row(ab[channel, done], columns, enlarged[done % 2, channel])
        done += 1
    return done


@compile_row_loop
def _enlarge_row(row: Float32, columns: Any, out: Float32) -> None:
    left, right, weight = columns
    for x in range(len(out)):
        value = row[left[x]]
        out[x] = value + (row[right[x]] - value) * weight[x]


@compile_row_loop
def fill_light(
    lightness: Lightness,
    unit: float,
    above: Float32,
    below: Float32,
    weight: float,
    matrix: Float32,
    out: Float32,
) -> None:
    """Fill one row of linear light; colours outside sRGB are outside of its range.

    Args:
        lightness: W; see `Lightness`, and `unit` that of `get_lightness_unit`.
        above, below: 2W, the enlarged rows of ab; `weight` is that of the lower one.
        matrix: from X, Y and Z relative to white to the three channels of `out`.
        out: 3W.
    """
    a_above, b_above, a_below, b_below = above[0], above[1], below[0], below[1]
    first, second, third = out[0], out[1], out[2]
    rest = np.float32(1) - weight
    for x in range(len(lightness)):
        a = a_above[x] * rest + a_below[x] * weight
        b = b_above[x] * rest + b_below[x] * weight
        fy = (np.float32(lightness[x]) * unit + np.float32(16)) * np.float32(1 / 116)
        fz = fy - b * np.float32(1 / 200)
        fz = fz if fz > np.float32(0) else np.float32(0)  # as scikit-image does
        big_x, big_y, big_z = _invert_f(fy + a * np.float32(1 / 500)), _invert_f(fy), _invert_f(fz)
        first[x] = matrix[0, 0] * big_x + matrix[0, 1] * big_y + matrix[0, 2] * big_z
        second[x] = matrix[1, 0] * big_x + matrix[1, 1] * big_y + matrix[1, 2] * big_z
        third[x] = matrix[2, 0] * big_x + matrix[2, 1] * big_y + matrix[2, 2] * big_z


@inline_loop
def _invert_f(f: Any) -> Any:
    """Return X, Y or Z relative to white: the inverse of Lab's f."""
    dark = (f - np.float32(16 / 116)) * np.float32(1 / 7.787)
    return f * f * f if f > LINEAR_F_LIMIT else dark
