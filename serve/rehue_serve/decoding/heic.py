"""Decode HEIC without a copy of its pixels in Pillow's memory."""

from typing import Any

import numpy as np
import pillow_heif

from rehue_core.lab import UInt8
from rehue_serve.decoding.pillow import DECODE_ERRORS
from rehue_serve.errors import InvalidImage

MODES = ("L", "LA", "RGB", "RGBA")  # that are decoded here; alpha is not premultiplied


def decode_heic(data: bytes) -> tuple[UInt8, UInt8 | None]:
    """Decode a HEIC file of one of MODES, upright.

    Returns:
        HW gray or HW3 RGB; and alpha, HW, or None.

    Raises:
        InvalidImage: the file is broken or truncated.
    """
    try:
        pixels: Any = np.asarray(pillow_heif.open_heif(data))
    except DECODE_ERRORS:
        raise InvalidImage("The image is broken or truncated.") from None
    bands = pixels.shape[2] if pixels.ndim == 3 else 1
    alpha = pixels[..., bands - 1] if bands in (2, 4) else None
    colors = pixels[..., :3] if bands >= 3 else pixels.reshape(*pixels.shape[:2], bands)[..., 0]
    return colors, alpha
