"""The color space that a PNG file states in its chunks (PNG, third edition, 4.3 and 11.3.2)."""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from rehue_serve.errors import InvalidImage, UnsupportedImage

SRGB_GAMMA = 45455  # gAMA of files that mean sRGB
# White and primaries of sRGB, as cHRM states them: x and y times 100,000.
SRGB_CHROMATICITIES = (31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000)
# ITU-T H.273, table 2: ColourPrimaries that photographs have, in cHRM's order.
_PRIMARIES = {
    1: SRGB_CHROMATICITIES,
    9: (31270, 32900, 70800, 29200, 17000, 79700, 13100, 4600),  # BT.2020
    12: (31270, 32900, 68000, 32000, 26500, 69000, 15000, 6000),  # Display P3
}
# ITU-T H.273, table 3: TransferCharacteristics that are a plain power, as their gAMA.
_POWERS = {4: 45455, 5: 35714, 8: 100000}
_SRGB_TRANSFER = 13
_MOST_CHUNKS = 5000  # besides pixels in chunks of
_SMALLEST_CHUNKS = 256  # bytes; encoders write 8192 and more


@dataclass(frozen=True)
class ColorSpace:
    """Colors of a PNG file that has no ICC profile and is not sRGB."""

    gamma: float  # sample = light ** gamma; 0: the sRGB curve
    luminance: tuple[float, float, float]  # of linear red, green and blue; their sum is 1

    def linearize(self, samples: Any) -> Any:
        """Convert samples (0..1, a libvips image) to linear light (0..1)."""
        if self.gamma:
            return samples.math2_const("pow", [1 / self.gamma])
        # IEC 61966-2-1.
        high = ((samples + 0.055) / 1.055).math2_const("pow", [2.4])
        return (samples > 0.04045).ifthenelse(high, samples / 12.92)


def read_color_space(data: bytes) -> ColorSpace | None:
    """Read the color space of a PNG file from cICP, or else gAMA and cHRM.

    An ICC profile and the sRGB chunk come before gAMA and cHRM, and cICP before all of them.

    Returns:
        None if the file is sRGB, says nothing, or has an ICC profile.

    Raises:
        UnsupportedImage: the file is for high dynamic range, or of primaries not known here.
    """
    chunks = dict(_iterate_color_chunks(data))
    if b"cICP" in chunks:
        return _parse_coding_points(chunks[b"cICP"])
    if b"iCCP" in chunks or b"sRGB" in chunks:
        return None
    gamma = struct.unpack(">I", chunks[b"gAMA"])[0] if len(chunks.get(b"gAMA", b"")) == 4 else 0
    values = chunks.get(b"cHRM", b"")
    chromaticities = struct.unpack(">8I", values) if len(values) == 32 else SRGB_CHROMATICITIES
    luminance = _compute_luminance_weights(chromaticities)
    if luminance is None:  # a broken chunk never costs the picture
        chromaticities, luminance = SRGB_CHROMATICITIES, _SRGB_LUMINANCE
    is_srgb = np.allclose(chromaticities, SRGB_CHROMATICITIES, atol=300)
    if is_srgb and (gamma == 0 or abs(gamma - SRGB_GAMMA) < 500):
        return None
    return ColorSpace(gamma / 100_000, luminance)


def drop_pixels(data: bytes) -> bytes:
    """Return a PNG file without its pixels, from which Pillow reads all that it says of itself.

    Pillow itself would decode the pixels to find metadata behind them.

    Raises:
        InvalidImage: the file has too many chunks.
    """
    parts, place, name = [data[:8]], 8, b""
    for _ in range(_MOST_CHUNKS + len(data) // _SMALLEST_CHUNKS):
        if place + 12 > len(data) or name == b"IEND":
            return b"".join(parts)
        length, name = struct.unpack_from(">I4s", data, place)
        end = place + 12 + length
        if name not in (b"IDAT", b"fdAT"):
            parts.append(data[place:end])
        place = end
    raise InvalidImage("The PNG has too many chunks.")


def _iterate_color_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the name and content of the color chunks before the pixels, if their CRC is right."""
    place = 8
    while place + 8 <= len(data):
        length, name = struct.unpack_from(">I4s", data, place)
        if name == b"IDAT":
            return
        content = data[place + 8 : place + 8 + length]
        crc = data[place + 8 + length : place + 12 + length]
        is_whole = crc == struct.pack(">I", zlib.crc32(name + content))
        if name in (b"cICP", b"gAMA", b"cHRM", b"sRGB", b"iCCP") and is_whole:
            yield name, content
        place += 12 + length


def _parse_coding_points(content: bytes) -> ColorSpace | None:
    primaries, transfer, matrix, full = content[:4] if len(content) == 4 else (0, 0, 0, 0)
    if matrix != 0 or full != 1 or primaries not in _PRIMARIES:
        raise UnsupportedImage(f"A PNG with color primaries {primaries} (cICP) is not supported.")
    if transfer == _SRGB_TRANSFER and primaries == 1:
        return None
    if transfer != _SRGB_TRANSFER and transfer not in _POWERS:
        raise UnsupportedImage(f"A PNG with transfer function {transfer} (cICP) is not supported.")
    luminance = _compute_luminance_weights(_PRIMARIES[primaries])
    assert luminance is not None
    return ColorSpace(_POWERS.get(transfer, 0) / 100_000, luminance)


def _compute_luminance_weights(values: Any) -> tuple[float, float, float] | None:
    """Compute the luminance of linear red, green and blue from white and primaries.

    Args:
        values: white, red, green and blue, x and y each, times 100,000.

    Returns:
        Weights whose sum is 1 (SMPTE RP 177, 3.3); None if the values are no such colors.
    """
    points = np.asarray(values, np.float64).reshape(4, 2) / 100_000
    if (points[:, 1] <= 0).any():
        return None
    x, y = points.T
    tristimulus = np.stack([x / y, np.ones(4), (1 - x - y) / y])  # of luminance 1
    matrix, white = tristimulus[:, 1:], tristimulus[:, 0]
    if abs(np.linalg.det(matrix)) < 1e-6:
        return None
    red, green, blue = (float(weight) for weight in np.linalg.solve(matrix, white))
    if not all(0 <= weight <= 1 for weight in (red, green, blue)):
        return None
    return red, green, blue


_SRGB_LUMINANCE = _compute_luminance_weights(SRGB_CHROMATICITIES) or (0.2126, 0.7152, 0.0722)
