"""Decode HEIC without a copy of its pixels in Pillow's memory."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pillow_heif
from numpy.typing import NDArray

from rehue_core.lab import UInt8
from rehue_serve.decoding.pillow import DECODE_ERRORS
from rehue_serve.decoding.strips import convert_in_strips
from rehue_serve.errors import InvalidImage

MODES = ("L", "LA", "RGB", "RGBA")  # that are decoded here; alpha is not premultiplied


def decode_heic(
    data: bytes,
    convert: Callable[[Any], NDArray[np.uint16]],
    strip_pixels: int,
    *,
    keep_alpha: bool,
) -> tuple[NDArray[np.uint16], UInt8 | None]:
    """Decode a HEIC picture, upright, and convert its pixels strip by strip.

    Args:
        data: the file, of one of MODES.
        convert, strip_pixels, keep_alpha: see `convert_in_strips`.

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
    return convert_in_strips(colors, alpha, convert, strip_pixels, keep_alpha=keep_alpha)
