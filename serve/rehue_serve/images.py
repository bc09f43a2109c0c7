"""Decode and encode image files.

Pillow reads headers and pixels, because it refuses broken and truncated files instead
of filling them with gray, and reports a picture's size before decoding it.
"""

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from rehue_core.lab import UInt8
from rehue_serve.errors import ImageTooLarge, InvalidImage, UnsupportedImage

T = TypeVar("T", bound=np.generic)

# Pillow's own limit only warns, and raises at twice the number. The limit in the
# settings is exact.
Image.MAX_IMAGE_PIXELS = None

MEDIA_TYPES = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "tiff": "image/tiff",
}
STRIP_PIXELS = 1 << 14  # pixels of a decoded picture that are converted at a time
READABLE = tuple(name.upper() for name in MEDIA_TYPES)

# Exceptions that Pillow raises on broken data, by decoder: OSError (truncated data, codec
# errors), SyntaxError (PNG chunks, TIFF headers), ValueError, struct.error, IndexError,
# KeyError and TypeError (TIFF tags), EOFError, OverflowError, and DecompressionBombError
# for its limit on PNG text (a direct subclass of Exception).
DECODE_ERRORS = (
    OSError, SyntaxError, ValueError, struct.error, LookupError, TypeError, EOFError,
    OverflowError, ZeroDivisionError, AttributeError, RuntimeError,
    Image.DecompressionBombError,
)  # fmt: skip

# First bytes of formats that people send and that are not supported.
UNSUPPORTED_SIGNATURES = {
    b"GIF8": "GIF",
    b"BM": "BMP",
    b"8BPS": "Photoshop",
    b"\0\0\1\0": "ICO",
    b"%PDF": "PDF",
    b"<svg": "SVG",
    b"\xff\x0a": "JPEG XL",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
}

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


@dataclass(frozen=True)
class Header:
    """Format and size of a photograph, known before it is decoded."""

    format: str  # a key of MEDIA_TYPES
    width: int
    height: int

    @property
    def pixels(self) -> int:
        return self.width * self.height


def open_image(data: bytes, *, max_bytes: int, max_pixels: int) -> tuple[Header, Image.Image]:
    """Read a photograph's header; `decode_in_strips` reads its pixels.

    Raises:
        InvalidImage, UnsupportedImage, ImageTooLarge: see `rehue_serve.errors`.
    """
    check_byte_limit(len(data), max_bytes)
    if not data:
        raise InvalidImage("The request has no image: its body is empty.")
    try:
        image = Image.open(io.BytesIO(data), formats=READABLE)
    except DECODE_ERRORS:
        raise _explain_unreadable(data) from None
    header = Header((image.format or "").lower(), image.width, image.height)
    if header.pixels > max_pixels:
        raise ImageTooLarge(
            f"The image has {header.width} x {header.height} = {header.pixels:,} pixels; "
            f"the limit is {max_pixels:,}."
        )
    if not header.pixels:
        raise InvalidImage("The image has no pixels.")
    return header, image


def check_byte_limit(size: int, max_bytes: int) -> None:
    """Raise ImageTooLarge if a file of this size is over the limit."""
    if size > max_bytes:
        raise ImageTooLarge(f"The image has {size:,} bytes; the limit is {max_bytes:,}.")


def _explain_unreadable(data: bytes) -> InvalidImage | UnsupportedImage:
    for signature, name in UNSUPPORTED_SIGNATURES.items():
        if data.startswith(signature):
            return UnsupportedImage(f"{name} is not supported; send JPEG, PNG, WebP or TIFF.")
    if data[4:8] == b"ftyp":
        return UnsupportedImage("HEIC and AVIF are not supported; send JPEG, PNG, WebP or TIFF.")
    return InvalidImage("This is not a readable image; send JPEG, PNG, WebP or TIFF.")


def decode_in_strips(
    image: Image.Image, convert: Callable[[UInt8], NDArray[T]] = np.asarray
) -> NDArray[T]:
    """Decode an opened image, apply its EXIF orientation and convert its pixels.

    The pixels are converted strip by strip, so that memory never holds a second
    picture. Deeper pictures are first reduced to 8 bits; transparent ones are composed
    over white.

    Args:
        image: as `open_image` returns it; it is closed.
        convert: called with each strip, HW (gray) or HWC with three channels (RGB),
            uint8, sRGB, 0..255; returns an array of the same height and width. The
            results are joined.

    Raises:
        InvalidImage: the file is broken or truncated.
    """
    try:
        image.load()
        orientation = _read_orientation(image)
        converted = _convert_in_strips(_reduce_to_eight_bits(image), convert)
        image.close()  # frees its pixels: the caller keeps it until the photograph is answered
    except DECODE_ERRORS:
        raise InvalidImage("The image is broken or truncated.") from None
    return _apply_orientation(converted, orientation)


def _convert_in_strips(image: Image.Image, convert: Callable[[UInt8], NDArray[T]]) -> NDArray[T]:
    width, height = image.size
    step = max(1, STRIP_PIXELS // width)
    out = None
    for top in range(0, height, step):
        bottom = min(top + step, height)
        rows = convert(np.asarray(image.crop((0, top, width, bottom))))
        if out is None:
            out = np.empty((height, *rows.shape[1:]), rows.dtype)
        out[top:bottom] = rows
    assert out is not None  # an opened image has pixels
    return out


def _read_orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; 1 for a broken EXIF block, which must not fail the picture."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except DECODE_ERRORS:
        return 1


def _reduce_to_eight_bits(image: Image.Image) -> Image.Image:
    if image.mode in ("L", "RGB"):
        return image
    if image.mode.startswith("I"):
        return _scale_to_eight_bits(np.asarray(image, np.float64), 65535.0)
    if image.mode == "F":
        return _scale_to_eight_bits(np.asarray(image, np.float64), 1.0)
    if image.mode in ("1", "CMYK", "YCbCr", "LAB", "HSV"):
        return image.convert("L" if image.mode == "1" else "RGB")
    if image.mode == "P" and "transparency" not in image.info:
        return image.convert("RGB")
    transparent = image.convert("RGBA")
    background = Image.new("RGBA", transparent.size, "white")
    flat = Image.alpha_composite(background, transparent).convert("RGB")
    return flat.convert("L") if image.mode in ("LA", "La") else flat


def _scale_to_eight_bits(values: NDArray[np.float64], white: float) -> Image.Image:
    scaled = np.nan_to_num(values) * (255.0 / white)
    return Image.fromarray(np.clip(scaled.round(), 0, 255).astype(np.uint8))


def _apply_orientation(pixels: NDArray[T], orientation: int) -> NDArray[T]:
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


def encode_image(rgb: UInt8, format: str, quality: int) -> bytes:
    """Encode a picture as a file.

    Args:
        rgb: HWC uint8 sRGB, 0..255.
        format: a key of MEDIA_TYPES.
        quality: 1 to 100, of JPEG and WebP; PNG and TIFF are lossless.

    Raises:
        ImageTooLarge: the sides of a WebP may have 16,383 pixels, of a JPEG 65,500.
    """
    limit = {"webp": 16383, "jpeg": 65500}.get(format)
    if limit and max(rgb.shape[:2]) > limit:
        raise ImageTooLarge(
            f"{format.upper()} is limited to {limit:,} pixels a side; use format=png."
        )
    options = {
        "jpeg": [cv2.IMWRITE_JPEG_QUALITY, quality],
        "webp": [cv2.IMWRITE_WEBP_QUALITY, quality],
        # Level 1 takes a third of level 6's time for a tenth more bytes.
        "png": [cv2.IMWRITE_PNG_COMPRESSION, 1],
        "tiff": [],
    }[format]
    suffix = {"jpeg": ".jpg"}.get(format, f".{format}")
    done, data = cv2.imencode(suffix, np.ascontiguousarray(rgb[..., ::-1]), options)
    if not done:
        raise RuntimeError(f"OpenCV could not encode {rgb.shape} as {format}")
    return data.tobytes()
