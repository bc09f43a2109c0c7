"""Encoded photographs in and out: what they are, how large, and their pixels.

Pillow reads headers and pixels, because it refuses what is broken or cut short
instead of filling it with gray, and finds a picture's size before it decodes.
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

# Pillow's own limit warns and then raises at twice the number; ours is exact
# and comes from the settings.
Image.MAX_IMAGE_PIXELS = None

MEDIA_TYPES = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "tiff": "image/tiff",
}
STRIP_PIXELS = 1 << 14  # copied at once out of a decoded picture
READ = tuple(name.upper() for name in MEDIA_TYPES)

# What Pillow raises on broken data, by decoder: OSError (cut short, codec
# errors), SyntaxError (PNG chunks, TIFF headers), ValueError, struct.error,
# IndexError, KeyError and TypeError (TIFF tags), EOFError, OverflowError, and
# the bomb error of its PNG text limits (a subclass of Exception alone).
BROKEN = (
    OSError, SyntaxError, ValueError, struct.error, LookupError, TypeError, EOFError,
    OverflowError, ZeroDivisionError, AttributeError, RuntimeError,
    Image.DecompressionBombError,
)  # fmt: skip

# First bytes of kinds of images that people send and that are not read.
OTHER_KINDS = {
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

# Orientations 2 to 8 of EXIF, as (transpose first, flip rows, flip columns).
_TURNS = {
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
    """What a photograph says of itself before it is decoded."""

    format: str  # a key of MEDIA_TYPES
    width: int
    height: int

    @property
    def pixels(self) -> int:
        return self.width * self.height


def open_image(data: bytes, *, max_bytes: int, max_pixels: int) -> tuple[Header, Image.Image]:
    """Reads the header only; ``decode`` reads the pixels.

    Raises:
        InvalidImage, UnsupportedImage, ImageTooLarge: as their names say.
    """
    check_bytes(len(data), max_bytes)
    if not data:
        raise InvalidImage("The request holds no image: its body is empty.")
    try:
        image = Image.open(io.BytesIO(data), formats=READ)
    except BROKEN:
        raise _unreadable(data) from None
    header = Header((image.format or "").lower(), image.width, image.height)
    if header.pixels > max_pixels:
        raise ImageTooLarge(
            f"The image is {header.width} x {header.height} = {header.pixels:,} pixels; "
            f"the limit is {max_pixels:,}."
        )
    if not header.pixels:
        raise InvalidImage("The image has no pixels.")
    return header, image


def check_bytes(size: int, max_bytes: int) -> None:
    """Raises ImageTooLarge for more than ``max_bytes``."""
    if size > max_bytes:
        raise ImageTooLarge(f"The image has {size:,} bytes; the limit is {max_bytes:,}.")


def _unreadable(data: bytes) -> InvalidImage | UnsupportedImage:
    for start, kind in OTHER_KINDS.items():
        if data.startswith(start):
            return UnsupportedImage(f"{kind} is not read; send JPEG, PNG, WebP or TIFF.")
    if data[4:8] == b"ftyp":
        return UnsupportedImage("HEIC and AVIF are not read; send JPEG, PNG, WebP or TIFF.")
    return InvalidImage("This is not a readable image; send JPEG, PNG, WebP or TIFF.")


def decode(image: Image.Image, of: Callable[[UInt8], NDArray[T]] = np.asarray) -> NDArray[T]:
    """The upright pixels of an opened image, or what is made of them strip by strip.

    Args:
        of: makes of HW (gray) or HWC with three channels (RGB), uint8, sRGB, 0..255, what
            is wanted of these rows, such as their lightness: the whole picture is then
            never there a second time. Deeper pictures are reduced to 8 bits before,
            transparent ones laid on white.

    Raises:
        InvalidImage: broken or cut short.
    """
    try:
        image.load()
        # A broken EXIF block is no reason to refuse a good picture.
        orientation = _orientation(image)
        taken = _taken(_eight_bit(image), of)
        image.close()  # the caller holds it until the photograph is answered
    except BROKEN:
        raise InvalidImage("The image is broken or cut short.") from None
    return _turned(taken, orientation)


def _taken(image: Image.Image, of: Callable[[UInt8], NDArray[T]]) -> NDArray[T]:
    width, height = image.size
    step = max(1, STRIP_PIXELS // width)
    out = None
    for top in range(0, height, step):
        bottom = min(top + step, height)
        rows = of(np.asarray(image.crop((0, top, width, bottom))))
        if out is None:
            out = np.empty((height, *rows.shape[1:]), rows.dtype)
        out[top:bottom] = rows
    assert out is not None  # an opened image has pixels
    return out


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except BROKEN:
        return 1


def _eight_bit(image: Image.Image) -> Image.Image:
    if image.mode in ("L", "RGB"):
        return image
    if image.mode.startswith("I"):
        return _reduced(np.asarray(image, np.float64), 65535.0)
    if image.mode == "F":
        return _reduced(np.asarray(image, np.float64), 1.0)
    if image.mode in ("1", "CMYK", "YCbCr", "LAB", "HSV"):
        return image.convert("L" if image.mode == "1" else "RGB")
    if image.mode == "P" and "transparency" not in image.info:
        return image.convert("RGB")
    clear = image.convert("RGBA")
    ground = Image.new("RGBA", clear.size, "white")
    flat = Image.alpha_composite(ground, clear).convert("RGB")
    return flat.convert("L") if image.mode in ("LA", "La") else flat


def _reduced(values: NDArray[np.float64], white: float) -> Image.Image:
    scaled = np.nan_to_num(values) * (255.0 / white)
    return Image.fromarray(np.clip(scaled.round(), 0, 255).astype(np.uint8))


def _turned(pixels: NDArray[T], orientation: int) -> NDArray[T]:
    if orientation not in _TURNS:
        return pixels
    transpose, rows, columns = _TURNS[orientation]
    if transpose:
        pixels = pixels.swapaxes(0, 1)
    if rows:
        pixels = pixels[::-1]
    if columns:
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def encode(rgb: UInt8, format: str, quality: int) -> bytes:
    """The picture as a file.

    Args:
        rgb: HWC uint8, 0..255.
        format: a key of MEDIA_TYPES.
        quality: 1 to 100, of JPEG and WebP; PNG and TIFF lose nothing.

    Raises:
        ImageTooLarge: WebP holds no side over 16,383 pixels, JPEG none over 65,500.
    """
    limit = {"webp": 16383, "jpeg": 65500}.get(format)
    if limit and max(rgb.shape[:2]) > limit:
        raise ImageTooLarge(f"{format.upper()} holds no side over {limit:,} pixels; ask for png.")
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
