"""Convert the pixels of a decoded picture strip by strip."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rehue_core.lab import UInt8


def convert_in_strips(
    colors: UInt8,
    alpha: UInt8 | None,
    convert: Callable[[Any], NDArray[np.uint16]],
    strip_pixels: int,
    *,
    keep_alpha: bool,
) -> tuple[NDArray[np.uint16], UInt8 | None]:
    """Convert pixels, so that memory never holds a second picture.

    Args:
        colors: HW gray or HW3 RGB.
        alpha: HW, or None.
        convert: called with each strip of the colors; returns HW L.
        strip_pixels: that are converted at a time, about.
        keep_alpha: return alpha; else transparent pictures are composed over white.

    Returns:
        HW L; and alpha, HW, or None where there is none or it is not kept.
    """
    height, width = colors.shape[:2]
    lightness = np.empty((height, width), np.uint16)
    step = max(1, strip_pixels // width)
    for top in range(0, height, step):
        rows = colors[top : top + step]
        if alpha is not None and not keep_alpha:
            rows = _compose_over_white(rows, alpha[top : top + step])
        lightness[top : top + step] = convert(rows)
    kept = np.ascontiguousarray(alpha) if alpha is not None and keep_alpha else None
    return lightness, kept


def _compose_over_white(colors: UInt8, alpha: UInt8) -> UInt8:
    opaque = alpha.astype(np.uint16).reshape(*alpha.shape, *(1,) * (colors.ndim - 2))
    return np.asarray((colors * opaque + 255 * (255 - opaque) + 127) // 255, np.uint8)
