"""CIE Lab before and after the network: plain functions over arrays.

The network only predicts ab from L. L is the photograph's own, at full
resolution, so these functions decide how true the picture stays. They follow
scikit-image's ``rgb2lab`` and ``lab2rgb`` (sRGB, D65, 2 degrees) to within one
count of 255; the tests compare the two on real photographs.

OpenCV does the heavy lifting because it releases the interpreter's lock and is
some twenty times as quick. Pictures are worked on in strips of rows: a strip
stays in the processor's cache, and memory stays far below the float picture's.
"""

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

UInt8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]

# The luminance row of the sRGB to XYZ matrix (IEC 61966-2-1), as scikit-image has it.
LUMINANCE = np.array([[0.212671, 0.715160, 0.072169]], np.float32)

# Rows to a strip are chosen so that what a strip needs stays in a core's cache (some
# 500 kB at this size), and its buffers below the size that malloc maps anew each time.
STRIP_PIXELS = 1 << 14


@cache
def _linear() -> Float32:
    """The 256 sRGB counts in linear light, 0..1 (IEC 61966-2-1)."""
    value = np.arange(256) / 255.0
    linear = np.where(value > 0.04045, ((value + 0.055) / 1.055) ** 2.4, value / 12.92)
    return linear.astype(np.float32)


@cache
def _lightness_of_luminance() -> Float32:
    """L, 0..100, of the 65,536 steps of linear luminance 0..1 (CIE 15, 8.2.1)."""
    y = np.arange(65536) / 65535.0
    f = np.where(y > 0.008856, np.cbrt(y), 7.787 * y + 16.0 / 116.0)
    return (116.0 * f - 16.0).astype(np.float32)


@cache
def _lightness_of_gray() -> Float32:
    """L, 0..100, of the 256 gray sRGB counts, without rounding on the way."""
    y = _linear().astype(np.float64)
    f = np.where(y > 0.008856, np.cbrt(y), 7.787 * y + 16.0 / 116.0)
    return (116.0 * f - 16.0).astype(np.float32)


def lightness(pixels: UInt8) -> Float32:
    """L of a picture.

    Args:
        pixels: HW (gray) or HWC with three channels (RGB), uint8, sRGB, 0..255.

    Returns:
        HW float32, 0..100. Of a colour picture this is its lightness: the hue
        of a sepia print, or of a photograph already in colour, is gone.
    """
    if pixels.ndim == 2:
        return np.asarray(cv2.LUT(pixels, _lightness_of_gray()), np.float32)
    height, width = pixels.shape[:2]
    out = np.empty((height, width), np.float32)
    for top, bottom in _strips(height, width):
        linear = cv2.LUT(pixels[top:bottom], _linear())
        luminance = cv2.transform(linear, LUMINANCE * 65535.0)
        steps = np.rint(luminance, out=luminance).astype(np.intp)
        np.take(_lightness_of_luminance(), steps, out=out[top:bottom], mode="clip")
    return out


def to_rgb(lightness: Float32, ab: Float32, *, strength: float = 1.0) -> UInt8:
    """The picture of a lightness and a (smaller) field of colours.

    ``ab`` is enlarged bilinearly, corners of the picture at corners of the field
    (as OpenCV and Pillow resize), and joined with the lightness unchanged.

    Args:
        lightness: HW float32, 0..100.
        ab: hw2 float32, Lab units, about -110..110, of any size from 1x1.
        strength: scales chroma; 0 leaves gray.

    Returns:
        HWC uint8 sRGB, 0..255. Colours outside sRGB are clipped. It is a view of BGR,
        as the encoders take it, so that nothing copies the picture to turn it round.
    """
    height, width = lightness.shape
    across = [
        cv2.resize(plane, (width, plane.shape[0]), interpolation=cv2.INTER_LINEAR)
        for plane in cv2.split(ab * np.float32(strength))
    ]
    bgr = np.empty((height, width, 3), np.uint8)
    strips = _strips(height, width)
    planes = np.empty((3, strips[0][1], width), np.float32)
    joined = np.empty((strips[0][1], width, 3), np.float32)
    for top, bottom in strips:
        rows = lightness[top:bottom]
        first, last, weights = _vertical(across[0].shape[0], height, top, bottom)
        a, b, highest = planes[:, : bottom - top]
        np.matmul(weights, across[0][first:last], out=a)
        np.matmul(weights, across[1][first:last], out=b)
        # scikit-image takes a negative Z for zero: f(Z) = (L + 16) / 116 - b / 200 >= 0.
        cv2.min(b, cv2.addWeighted(rows, 200 / 116, rows, 0, 200 * 16 / 116, dst=highest), dst=b)
        colour = cv2.merge([rows, a, b], dst=joined[: bottom - top])
        cv2.cvtColor(colour, cv2.COLOR_Lab2BGR, dst=colour)
        # Rounds to nearest and clips to 0..255, as skimage.img_as_ubyte does.
        cv2.convertScaleAbs(colour, dst=bgr[top:bottom], alpha=255.0)
    return bgr[..., ::-1]


def _vertical(rows: int, height: int, top: int, bottom: int) -> tuple[int, int, Float32]:
    """Bilinear enlargement of ``rows`` to ``height`` rows, for ``top`` to ``bottom`` of them.

    Returns:
        The first source row, the one after the last, and the weights of those
        between for each row: one product with them is one pass over memory.
    """
    at = np.clip((np.arange(top, bottom) + 0.5) * (rows / height) - 0.5, 0, rows - 1)
    low = at.astype(np.intp)
    high = np.minimum(low + 1, rows - 1)
    first, last = int(low[0]), int(high[-1]) + 1
    weights = np.zeros((bottom - top, last - first), np.float32)
    row = np.arange(bottom - top)
    np.add.at(weights, (row, low - first), 1 - (at - low))
    np.add.at(weights, (row, high - first), at - low)
    return first, last, weights


def _strips(height: int, width: int) -> list[tuple[int, int]]:
    step = max(1, STRIP_PIXELS // width)
    return [(top, min(top + step, height)) for top in range(0, height, step)]
