"""Decode WebP with OpenCV, whose memory is the picture's alone; Pillow's and libvips' is thrice."""

from typing import Any

import cv2
import numpy as np

from rehue_core.lab import UInt8
from rehue_serve.errors import InvalidImage


def decode_webp(data: bytes) -> tuple[UInt8, UInt8 | None]:
    """Decode a WebP file that is no animation.

    Returns:
        HW3 RGB; and alpha, HW, or None.

    Raises:
        InvalidImage: the file is broken or truncated.
    """
    try:
        pixels: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        pixels = None
    if pixels is None:
        raise InvalidImage("The image is broken or truncated.")
    return pixels[..., 2::-1], pixels[..., 3] if pixels.shape[2] == 4 else None
