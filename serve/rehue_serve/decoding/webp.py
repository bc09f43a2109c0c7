"""Decode WebP with OpenCV, whose memory is the picture's alone; Pillow's and libvips' is thrice."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rehue_core.lab import UInt8
from rehue_serve.errors import InvalidImage


def decode_webp(
    data: bytes,
    convert: Callable[[Any], NDArray[np.uint16]],
    strip_pixels: int,
    *,
    keep_alpha: bool,
) -> tuple[NDArray[np.uint16], UInt8 | None]:
    """Decode a WebP that is no animation and convert its pixels strip by strip.

    Args:
        data: the file.
        convert: called with each strip, HW3 uint8 RGB; returns HW L.
        strip_pixels: that are converted at a time, about.
        keep_alpha: return alpha; else transparent pictures are composed over white.

    Raises:
        InvalidImage: the file is broken or truncated.
    """
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise InvalidImage("The image is broken or truncated.")
    height, width, channels = pixels.shape
    lightness = np.empty((height, width), np.uint16)
    step = max(1, strip_pixels // width)
    for top in range(0, height, step):
        rows = pixels[top : top + step]
        rgb = rows[..., 2::-1]
        if channels == 4 and not keep_alpha:
            rgb = _compose_over_white(rgb, rows[..., 3:])
        lightness[top : top + step] = convert(rgb)
    alpha = np.ascontiguousarray(pixels[..., 3]) if channels == 4 and keep_alpha else None
    return lightness, alpha


def _compose_over_white(rgb: UInt8, alpha: UInt8) -> UInt8:
    opaque = alpha.astype(np.uint16)
    return np.asarray((rgb * opaque + 255 * (255 - opaque) + 127) // 255, np.uint8)
