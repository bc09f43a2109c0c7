"""Lightness and ab as sRGB, of 8 or 16 bits a channel.

Follows scikit-image's ``lab2rgb`` (D65, 2 degrees) to within one count of 255; the tests compare
the two on real photographs.
"""

from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehue_core.lab import LIGHT_STEPS, Float32, Lightness, UInt8, get_lightness_unit
from rehue_core.light import (
    build_bgr_matrix,
    clean_field,
    enlarge_to_row,
    fill_light,
    interpolate_indices,
)
from rehue_core.loops import compile_row_loop


def convert_to_rgb(
    lightness: Lightness,
    ab: NDArray[Any],
    *,
    strength: float = 1.0,
    dtype: Any = np.uint8,
    rows: slice = slice(None),
) -> NDArray[Any]:
    """Convert a lightness and a (usually smaller) ab field to sRGB.

    See `rehue_core.light` for how ``ab`` is enlarged.

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
    field = clean_field(ab, strength)
    bgr = np.empty((len(lightness[rows]), width, 3), dtype)
    first, second, weight = interpolate_indices(field.shape[1], height)
    _fill_bgr(
        np.ascontiguousarray(lightness[rows]),
        np.float32(get_lightness_unit(lightness.dtype)),
        field,
        (first[rows], second[rows], weight[rows]),
        interpolate_indices(field.shape[2], width),
        build_bgr_matrix(),
        _build_srgb_count_table() if bgr.dtype == np.uint8 else None,
        bgr,
    )
    return bgr[..., ::-1]


@cache
def _build_srgb_count_table() -> UInt8:
    """sRGB count, 0..255, of each step of linear light."""
    light = np.arange(LIGHT_STEPS) / (LIGHT_STEPS - 1)
    value = np.where(light > 0.0031308, 1.055 * light ** (1 / 2.4) - 0.055, 12.92 * light)
    return np.asarray(np.rint(value * 255), np.uint8)


@compile_row_loop
def _fill_bgr(
    lightness: Lightness,
    unit: float,
    ab: Float32,
    rows: Any,
    columns: Any,
    matrix: Float32,
    counts: UInt8 | None,
    bgr: NDArray[Any],
) -> None:
    """Fill BGR pixels of 8 bits, or of 16 without a table of counts."""
    height, width = lightness.shape
    enlarged = np.empty((2, 2, width), np.float32)  # two rows of ab, enlarged to full width
    light = np.empty((3, width), np.float32)
    done = rows[0][0]  # the next row of ab to enlarge
    for y in range(height):
        done = enlarge_to_row(rows[1][y], done, ab, columns, enlarged)
        above, below = enlarged[rows[0][y] % 2], enlarged[rows[1][y] % 2]
        fill_light(lightness[y], unit, above, below, rows[2][y], matrix, light)
        if counts is None:
            _encode_deep(light, bgr[y])
        else:
            _look_up(light, counts, bgr[y])


@compile_row_loop
def _look_up(light: Float32, counts: UInt8, out: UInt8) -> None:
    """Fill pixels of 8 bits from linear light, 0..LIGHT_STEPS - 1."""
    for x in range(len(out)):
        for channel in range(3):
            value = min(max(light[channel, x], np.float32(0)), np.float32(LIGHT_STEPS - 1))
            # An unsigned index is not checked for being negative, which would take a fifth more.
            out[x, channel] = counts[np.uint32(np.int32(value + np.float32(0.5)))]


@compile_row_loop
def _encode_deep(light: Float32, out: NDArray[np.uint16]) -> None:
    """Fill pixels of 16 bits. A table of light is too coarse where it is dark."""
    for x in range(len(out)):
        for channel in range(3):
            value = min(max(light[channel, x], np.float32(0)), np.float32(LIGHT_STEPS - 1))
            value *= np.float32(1 / (LIGHT_STEPS - 1))
            # IEC 61966-2-1.
            if value > np.float32(0.0031308):
                root = value ** np.float32(1 / 2.4)
                value = np.float32(1.055) * root - np.float32(0.055)
            else:
                value = np.float32(12.92) * value
            out[x, channel] = np.int32(value * np.float32(65535) + np.float32(0.5))
