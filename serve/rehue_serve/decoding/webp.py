"""Decode WebP with OpenCV, whose memory is the picture's alone; Pillow's and libvips' is thrice."""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rehue_core.lab import UInt8
from rehue_serve.decoding.strips import convert_in_strips
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
        convert, strip_pixels, keep_alpha: see `convert_in_strips`.

    Raises:
        InvalidImage: the file is broken or truncated.
    """
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise InvalidImage("The image is broken or truncated.")
    alpha = pixels[..., 3] if pixels.shape[2] == 4 else None
    return convert_in_strips(
        pixels[..., 2::-1], alpha, convert, strip_pixels, keep_alpha=keep_alpha
    )
