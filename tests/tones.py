"""A test picture of all tones, files of it, and the lightness that they are read as."""

import io
import struct
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray
from PIL import Image

from rehue_serve import images

LIMITS = {"max_bytes": 50_000_000, "max_pixels": 50_000_000}
ROWS, COLUMNS = np.mgrid[0:60, 0:96]
GRAY = np.where(ROWS < 12, np.where(COLUMNS // 12 % 2, 210, 30), COLUMNS * 255 // 95).astype(
    np.uint8
)
DEEP = GRAY.astype(np.uint16) * 257
VALUE = GRAY / 255  # as encoded, 0..1


def compute_lightness(luminance: NDArray[Any]) -> NDArray[Any]:
    """CIE L* of linear luminance (0..1)."""
    return np.where(luminance > 0.008856, 116 * np.cbrt(luminance) - 16, 903.3 * luminance)


def linearize(value: NDArray[Any]) -> NDArray[Any]:
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


EXPECTED = compute_lightness(linearize(VALUE))


def read(data: bytes, page: int = 0) -> NDArray[Any]:
    """L, 0..100, of a file as the server reads it."""
    return images.decode_lightness(images.open_image(data, **LIMITS), page) / 655.35


def assert_reads(data: bytes, expected: NDArray[Any] = EXPECTED, tolerance: float = 0.3) -> None:
    got = read(data)
    assert got.shape == expected.shape
    assert np.abs(got - expected).mean() < tolerance


def write_tiff(pixels: NDArray[Any], tags: Iterable[Any] = (), **options: Any) -> bytes:
    out = io.BytesIO()
    options = {"photometric": "minisblack", "metadata": None} | options
    tifffile.imwrite(out, pixels, extratags=list(tags), **options)
    return out.getvalue()


def save(picture: Image.Image, format: str, **options: Any) -> bytes:
    out = io.BytesIO()
    picture.save(out, format, **options)
    return out.getvalue()


def write_png(pixels: NDArray[Any], color_type: int, depth: int, **chunks: bytes) -> bytes:
    """Return a PNG with these chunks before the pixels."""

    def pack(name: bytes, content: bytes) -> bytes:
        crc = zlib.crc32(name + content)
        return struct.pack(">I4s", len(content), name) + content + struct.pack(">I", crc)

    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    own = b"".join(pack(name.encode(), content) for name, content in chunks.items())
    return (
        b"\x89PNG\r\n\x1a\n" + pack(b"IHDR", header) + own
        + pack(b"IDAT", zlib.compress(rows)) + pack(b"IEND", b"")
    )  # fmt: skip
