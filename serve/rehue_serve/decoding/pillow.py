"""Decode pictures of 8 bits with Pillow.

Pillow refuses broken and truncated files instead of filling them with gray, and reports a
picture's size before decoding it.
"""

import io
import math
import struct
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import pillow_heif
from numpy.typing import NDArray
from PIL import ExifTags, Image

from rehue_core.lab import UInt8
from rehue_serve.decoding.directories import check_directories
from rehue_serve.errors import InvalidImage, RehueError

T = TypeVar("T", bound=np.generic)

# Pillow's own limit only warns, and raises at twice the number. The limit in the
# settings is exact.
Image.MAX_IMAGE_PIXELS = None
pillow_heif.register_heif_opener(thumbnails=False)
# Pillow warns of each broken EXIF block; a caller must not be able to fill the log.
warnings.filterwarnings("ignore", module=r"PIL\.TiffImagePlugin")

# Pillow's names of the formats, by those of `rehue_serve.decoding.kinds`.
_NAMES = {
    "jpeg": "JPEG", "png": "PNG", "webp": "WEBP", "tiff": "TIFF", "gif": "GIF",
    "heic": "HEIF", "avif": "AVIF", "jp2": "JPEG2000",
}  # fmt: skip
# Reads for one header: Pillow looks at each part of it, even at a fill byte, in Python. Photographs
# need some hundreds.
MOST_READS = 20_000
EXIF_PARTS = 150  # parts that a segment of EXIF counts as, so that a file may have 8 MB of it
STRIP_PIXELS = 1 << 14  # pixels of a decoded picture that are converted at a time

# Exceptions that Pillow raises on broken data, by decoder: OSError (truncated data, codec
# errors), SyntaxError (PNG chunks, TIFF headers), ValueError, struct.error, IndexError,
# KeyError and TypeError (TIFF tags), EOFError, OverflowError, and DecompressionBombError
# for its limit on PNG text (a direct subclass of Exception).
DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, struct.error, LookupError, TypeError, EOFError,
    OverflowError, ZeroDivisionError, AttributeError, RuntimeError,
    Image.DecompressionBombError,
)  # fmt: skip

# EXIF orientations 2 to 8, as (transpose first, flip rows, flip columns).
_ORIENTATIONS = {
    2: (False, False, True),
    3: (False, True, True),
    4: (False, True, False),
    5: (True, False, False),
    6: (True, False, True),
    7: (True, True, True),
    8: (True, True, False),
}


def open_with_pillow(data: bytes, name: str) -> Image.Image:
    """Read the header of an image.

    Args:
        data: the file.
        name: of its format; see `rehue_serve.decoding.kinds.identify_format`.

    Raises:
        InvalidImage: it is broken, or has too many parts.
    """
    file = (_JpegHeaderFile if name == "jpeg" else _HeaderFile)(data)  # without a copy
    try:
        image = Image.open(file, formats=[_NAMES[name]])
        file.parts_left = math.inf
    except DECODE_ERRORS:
        raise InvalidImage("This is not a readable image: it is broken or truncated.") from None
    _drop_costly_exif(image)
    return image


class _HeaderFile(io.BytesIO):
    parts_left: float = MOST_READS

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        self.parts_left -= 1 if self.parts_left == math.inf else self.count_parts(content)
        if self.parts_left < 0:
            raise InvalidImage("The image has too many parts before its pixels.")
        return content

    def count_parts(self, _content: bytes) -> int:
        return 1


class _JpegHeaderFile(_HeaderFile):
    """Counts what Pillow does with a segment: Photoshop's blocks, and joining those of EXIF."""

    def count_parts(self, content: bytes) -> int:
        joined = EXIF_PARTS if content.startswith(b"Exif\0") else 0
        return 1 + content.count(b"8BIM") + joined


def _drop_costly_exif(image: Image.Image) -> None:
    """Drop an EXIF block that takes long to read; it never costs the picture."""
    block = bytes(image.info.get("exif") or b"").removeprefix(b"Exif\0\0")
    try:
        check_directories(block)
    except RehueError:
        del image.info["exif"]


def free_decoder(image: Image.Image) -> Image.Image:
    """Return an image of one pixel with the mode, format and info of an opened image."""
    header = Image.new(image.mode, (1, 1))
    header.format, header.info = image.format, image.info
    return header


def decode_in_strips(
    image: Image.Image,
    convert: Callable[[Any], NDArray[T]],
    strip_pixels: int,
    *,
    keep_alpha: bool,
) -> tuple[NDArray[T], UInt8 | None]:
    """Decode an opened picture of any mode and convert its pixels.

    The pixels are converted strip by strip, so that memory never holds a second picture.

    Args:
        image: as `open_with_pillow` returns it; it is closed.
        convert: called with each strip, HW uint8 or uint16 gray, HW3 uint8 RGB or HW4 uint8
            CMYK (255: full ink); returns an array of the same height and width. The results
            are joined.
        strip_pixels: approximate number of pixels in a strip.
        keep_alpha: return alpha; else transparent pictures are composed over white.

    Returns:
        The joined results; and alpha, HW uint8 (255: opaque), or None.

    Raises:
        InvalidImage: the file is broken or truncated.
    """
    try:
        image.load()
        decoded = _convert_in_strips(image, convert, strip_pixels, keep_alpha)
        image.close()  # frees its pixels: the caller keeps it until the photograph is answered
    except DECODE_ERRORS:
        raise InvalidImage("The image is broken or truncated.") from None
    return decoded


def has_alpha(image: Image.Image) -> bool:
    """Check if a picture may be transparent; its pixels need not be decoded."""
    return image.mode in ("RGBA", "LA", "La", "RGBa", "PA") or "transparency" in image.info


def _convert_in_strips(
    image: Image.Image,
    convert: Callable[[Any], NDArray[T]],
    strip_pixels: int,
    keep_alpha: bool,
) -> tuple[NDArray[T], UInt8 | None]:
    width, height = image.size
    step = max(1, strip_pixels // width)
    alpha = np.empty((height, width), np.uint8) if keep_alpha and has_alpha(image) else None
    out = None
    for top in range(0, height, step):
        bottom = min(top + step, height)
        strip = image.crop((0, top, width, bottom))
        if alpha is not None:
            strip, alpha[top:bottom] = _split_alpha(strip)
        rows = convert(np.asarray(_flatten(strip)))
        if out is None:
            out = np.empty((height, *rows.shape[1:]), rows.dtype)
        out[top:bottom] = rows
    assert out is not None  # an opened image has pixels
    return out, alpha


def _split_alpha(strip: Image.Image) -> tuple[Image.Image, UInt8]:
    transparent = strip.convert("LA" if strip.mode in ("LA", "La") else "RGBA")
    alpha = np.asarray(transparent.getchannel("A"))
    return transparent.convert("L" if transparent.mode == "LA" else "RGB"), alpha


def _flatten(image: Image.Image) -> Image.Image:
    if image.mode in ("L", "RGB", "CMYK", "I;16"):
        return image
    if image.mode == "1":
        return image.convert("L")
    if image.mode in ("YCbCr", "LAB", "HSV"):
        return image.convert("RGB")
    if image.mode == "P" and "transparency" not in image.info:
        return image.convert("RGB")
    transparent = image.convert("RGBA")
    background = Image.new("RGBA", transparent.size, "white")
    flat = Image.alpha_composite(background, transparent).convert("RGB")
    return flat.convert("L") if image.mode in ("LA", "La") else flat


def read_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1 for a broken EXIF block, which must not fail the picture."""
    try:
        # Not PNG's own method, which decodes the pixels to look behind them.
        exif = Image.Image.getexif(image)
        return int(exif.get(ExifTags.Base.Orientation, 1))
    except DECODE_ERRORS:
        return 1


def apply_orientation(pixels: NDArray[T], orientation: int) -> NDArray[T]:
    """Turn pixels upright by their EXIF orientation, 1 to 8; others change nothing."""
    if orientation not in _ORIENTATIONS:
        return pixels
    transpose, flip_rows, flip_columns = _ORIENTATIONS[orientation]
    if transpose:
        pixels = pixels.swapaxes(0, 1)
    if flip_rows:
        pixels = pixels[::-1]
    if flip_columns:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)
