"""Encode JPEG and WebP, whose encoders take the whole picture."""

from typing import Any

import cv2
import numpy as np
import pyvips
from numpy.typing import NDArray

# Pixels above which a WebP is encoded with less effort: a third of the time for a tenth more bytes.
_LARGE_WEBP = 4_000_000
_STRIP_ROWS = 256


def encode_jpeg(rgb: NDArray[np.uint8], quality: int) -> memoryview:
    """Encode a picture as JPEG without metadata.

    Args:
        rgb: HW3 sRGB, uint8.
        quality: 1 to 100.
    """
    return _encode(".jpg", rgb, [cv2.IMWRITE_JPEG_QUALITY, quality])


def encode_webp(rgb: NDArray[np.uint8], quality: int) -> memoryview:
    """Encode a picture as WebP without metadata.

    Args:
        rgb: HW3 sRGB or HW4 sRGB with alpha, uint8. A large one that is a view of BGR, as
            `rehue_core.rgb.convert_to_rgb` returns it, is used up: it is reordered in place.
        quality: 1 to 100.
    """
    height, width, channels = rgb.shape
    if height * width <= _LARGE_WEBP:
        return _encode(".webp", rgb, [cv2.IMWRITE_WEBP_QUALITY, quality])
    content = _make_contiguous(rgb).data
    image = pyvips.Image.new_from_memory(content, width, height, channels, "uchar")
    image = image.copy(interpretation="srgb")
    return memoryview(image.webpsave_buffer(Q=quality, effort=0, keep="none"))


def _make_contiguous(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    bgr = rgb[..., ::-1]
    if rgb.flags.c_contiguous or not bgr.flags.c_contiguous:
        return np.ascontiguousarray(rgb)
    for top in range(0, len(rgb), _STRIP_ROWS):
        bgr[top : top + _STRIP_ROWS] = rgb[top : top + _STRIP_ROWS].copy()
    return bgr


def _encode(suffix: str, rgb: NDArray[np.uint8], options: list[int]) -> memoryview:
    if rgb.shape[2] == 4:
        bgr: Any = cv2.cvtColor(rgb, cv2.COLOR_RGBA2BGRA)
    else:
        bgr = np.ascontiguousarray(rgb[..., ::-1])
    done, data = cv2.imencode(suffix, bgr, options)
    if not done:
        raise RuntimeError(f"OpenCV could not encode {rgb.shape} as {suffix}")
    return memoryview(data.reshape(-1).data)
