"""Lightness and ab as Y, Cb and Cr: the planes that a JPEG stores.

The encoder takes them as they are, so the picture in RGB is never in memory. The colours are
those of `rehue_core.rgb.convert_to_rgb` within one count; Cb and Cr have half the height and
half the width (4:2:0), each the mean of four pixels.

Each loop runs over one row and has no table, so that the compiler makes vector instructions
of it.
"""

import math
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Planes:
    """A picture in YCbCr (JFIF: BT.601, full range), uint8.

    Attributes:
        y: HW.
        cb, cr: half the height and half the width of `y`, rounded up; 128: no colour.
    """

    y: UInt8
    cb: UInt8
    cr: UInt8

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and 3, as of the picture in RGB."""
        height, width = self.y.shape
        return height, width, 3


def convert_to_planes(lightness: Lightness, ab: NDArray[Any], *, strength: float = 1.0) -> Planes:
    """Convert a lightness and a (usually smaller) ab field to the planes of a JPEG.

    Args:
        lightness: HW float32 or uint16; see `rehue_core.lab.Lightness`.
        ab: hw2 of any numeric dtype, Lab units; see `rehue_core.rgb.convert_to_rgb`.
        strength: scales chroma; 0 leaves gray.
    """
    height, width = lightness.shape
    field = clean_field(ab, strength)
    planes = Planes(
        np.empty((height, width), np.uint8),
        *(np.empty(((height + 1) // 2, (width + 1) // 2), np.uint8) for _ in range(2)),
    )
    _fill_planes(
        np.ascontiguousarray(lightness),
        np.float32(get_lightness_unit(lightness.dtype)),
        field,
        interpolate_indices(field.shape[1], height),
        interpolate_indices(field.shape[2], width),
        _build_rgb_matrix(),
        planes.y,
        planes.cb,
        planes.cr,
    )
    return planes


@cache
def _build_rgb_matrix() -> Float32:
    """Matrix from X, Y and Z relative to white to linear red, green and blue, 0..1: 3 x 3."""
    steps = np.float32(LIGHT_STEPS - 1)
    return np.ascontiguousarray(build_bgr_matrix()[::-1] / steps)


@compile_row_loop
def _fill_planes(
    lightness: Lightness,
    unit: float,
    ab: Float32,
    rows: Any,
    columns: Any,
    matrix: Float32,
    luma: UInt8,
    blue: UInt8,
    red: UInt8,
) -> None:
    height, width = lightness.shape
    even = width + width % 2
    enlarged = np.empty((2, 2, width), np.float32)  # two rows of ab, enlarged to full width
    rgb = np.empty((2, 3, even), np.float32)  # of two rows
    means = np.empty((3, even // 2), np.float32)
    done = rows[0][0]  # the next row of ab to enlarge
    for top in range(0, height, 2):
        last = min(top + 1, height - 1) - top
        for number in range(last + 1):
            y = top + number
            done = enlarge_to_row(rows[1][y], done, ab, columns, enlarged)
            row = rgb[number]
            above, below = enlarged[rows[0][y] % 2], enlarged[rows[1][y] % 2]
            fill_light(lightness[y], unit, above, below, rows[2][y], matrix, row)
            for channel in range(3):
                _encode_row(row[channel, :width])
                row[channel, even - 1] = row[channel, width - 1]
            _fill_luma(row[0], row[1], row[2], luma[y])
        for channel in range(3):
            _fill_means(rgb[0, channel], rgb[last, channel], means[channel])
        _fill_chroma(means[0], means[1], means[2], blue[top // 2], red[top // 2])


@compile_row_loop
def _encode_row(row: Float32) -> None:
    """Replace linear light by sRGB counts, 0..255, not rounded (IEC 61966-2-1).

    The power of 1 / 2.4 is a polynomial of the fourth root, fitted to within 0.009 counts.
    """
    for x in range(len(row)):
        light = row[x] if row[x] > np.float32(0) else np.float32(0)
        light = light if light < np.float32(1) else np.float32(1)
        root = math.sqrt(math.sqrt(light))
        bright = np.float32(20.7396897) * root - np.float32(85.5545788)
        bright = bright * root + np.float32(286.285612)
        bright = bright * root + np.float32(50.0138584)
        bright = bright * root - np.float32(16.4758238)
        dark = light * np.float32(12.92 * 255)
        row[x] = bright if light > np.float32(0.0031308) else dark


@compile_row_loop
def _fill_luma(red: Float32, green: Float32, blue: Float32, out: UInt8) -> None:
    for x in range(len(out)):
        luma = np.float32(0.299) * red[x] + np.float32(0.587) * green[x]
        out[x] = np.int32(luma + np.float32(0.114) * blue[x] + np.float32(0.5))


@compile_row_loop
def _fill_means(upper: Float32, lower: Float32, out: Float32) -> None:
    for x in range(len(out)):
        pairs = (upper[2 * x] + upper[2 * x + 1]) + (lower[2 * x] + lower[2 * x + 1])
        out[x] = pairs * np.float32(0.25)


@compile_row_loop
def _fill_chroma(red: Float32, green: Float32, blue: Float32, cb: UInt8, cr: UInt8) -> None:
    for x in range(len(cb)):
        toward_blue = np.float32(0.5) * blue[x] - np.float32(0.331264) * green[x]
        toward_red = np.float32(0.5) * red[x] - np.float32(0.418688) * green[x]
        cb[x] = np.int32(toward_blue - np.float32(0.168736) * red[x] + np.float32(128.5))
        cr[x] = np.int32(toward_red - np.float32(0.081312) * blue[x] + np.float32(128.5))
