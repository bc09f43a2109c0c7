"""Write PNG files (third edition) strip by strip, so that the picture is never whole in memory."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIGNATURE = b"\x89PNG\r\n\x1a\n"
STRIP_BYTES = 1 << 20  # of the picture that are compressed at a time
_COLOR_TYPES = {3: 2, 4: 6}  # RGB, RGB with alpha
# Half of the time that OpenCV takes at its level 1, for the same bytes.
_LEVEL, _MEMORY_LEVEL = 1, 8
_UP = 2  # filter type: each row less the one above


def encode_png(picture: Any, chunks: bytes = b"") -> bytes:
    """Encode a picture.

    Args:
        picture: HW3 RGB or HW4 with alpha, uint8 or uint16: an array, or what gives its rows
            as ``picture[top:bottom]``.
        chunks: to write before the pixels, each with its length and CRC.
    """
    height, width, channels = picture.shape
    sample_bytes = picture.dtype.itemsize
    out = io.BytesIO()
    form = (width, height, 8 * sample_bytes, _COLOR_TYPES[channels], 0, 0, 0)
    out.write(SIGNATURE + build_chunk(b"IHDR", struct.pack(">IIBBBBB", *form)) + chunks)
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, zlib.MAX_WBITS, _MEMORY_LEVEL, zlib.Z_RLE)
    row_bytes = width * channels * sample_bytes
    step = max(1, STRIP_BYTES // row_bytes)
    above = np.zeros((1, row_bytes), np.uint8)
    for top in range(0, height, step):
        rows = _get_bytes(picture[top : top + step], row_bytes)
        content = compressor.compress(_filter_rows(rows, above).data)
        if content:
            out.write(build_chunk(b"IDAT", content))
        above = rows[-1:]
    out.write(build_chunk(b"IDAT", compressor.flush()) + build_chunk(b"IEND", b""))
    return out.getvalue()


def build_chunk(name: bytes, content: bytes) -> bytes:
    """Build a chunk with its length and CRC."""
    crc = zlib.crc32(content, zlib.crc32(name))
    return b"".join((struct.pack(">I4s", len(content), name), content, struct.pack(">I", crc)))


def _get_bytes(rows: NDArray[Any], row_bytes: int) -> NDArray[np.uint8]:
    """Return rows as bytes in PNG's order: HWC uint16 big-endian."""
    order = ">u2" if rows.dtype == np.uint16 else "u1"
    return np.ascontiguousarray(rows, order).view(np.uint8).reshape(-1, row_bytes)


def _filter_rows(rows: NDArray[np.uint8], above: NDArray[np.uint8]) -> NDArray[np.uint8]:
    out = np.empty((len(rows), rows.shape[1] + 1), np.uint8)
    out[:, 0] = _UP
    np.subtract(rows[:1], above, out=out[:1, 1:])
    np.subtract(rows[1:], rows[:-1], out=out[1:, 1:])
    return out
