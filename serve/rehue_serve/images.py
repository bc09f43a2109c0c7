"""Open, decode and encode image files."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from rehue_core import lab
from rehue_core.ycbcr import Planes
from rehue_serve.decoding import color, gif, jpeg, png, tiff
from rehue_serve.decoding.kinds import identify_format
from rehue_serve.decoding.pillow import (
    apply_orientation,
    decode_colors,
    decode_in_strips,
    open_with_pillow,
    read_orientation,
)
from rehue_serve.errors import ImageTooLarge, InvalidImage, UnsupportedImage
from rehue_serve.metadata.containers import Metadata, embed
from rehue_serve.metadata.tiff import encode_tiff

UInt16 = NDArray[np.uint16]

MEDIA_TYPES = {
    "jpeg": "image/jpeg",
    "png": "image/png",
    "webp": "image/webp",
    "tiff": "image/tiff",
}
# Formats that are read and not written, and what the answer is encoded as instead.
ANSWERED_AS = {"heic": "jpeg", "avif": "jpeg", "jp2": "jpeg", "gif": "png"}
READ = (*MEDIA_TYPES, *ANSWERED_AS)
_DEEP_FORMATS = ("png", "tiff")
_SUGGESTION = "send JPEG, PNG, WebP, TIFF, HEIC, AVIF, JPEG 2000 or GIF."
# Pixels above which a WebP is encoded with less effort: a third of the time for a tenth more bytes.
_LARGE_WEBP = 4_000_000
_LARGEST_SIDE = {"webp": 16383, "jpeg": 65500}

# Peak memory in bytes per pixel, measured with 25 megapixels of noise, which compresses worst.
_DECODER_BYTES = {"WEBP": 17, "JPEG2000": 20, "GIF": 11, "AVIF": 10, "HEIF": 12}  # by Pillow's name
_OTHER_DECODER_BYTES = {"CMYK": 12, "RGBA": 8}  # by Pillow's mode
_LEAST_DECODER_BYTES = 7
_ENCODER_BYTES = {"jpeg": 10, "webp": 26, "png": 16, "tiff": 11}
_DEEP_ENCODER_BYTES = {"png": 32, "tiff": 21}


@dataclass(frozen=True)
class Header:
    """Format and size of a photograph, known before it is decoded."""

    format: str  # of the answer where none is asked for: a key of MEDIA_TYPES
    width: int  # of the largest page
    height: int
    pixels: int  # of all pages
    pages: int = 1  # that are read
    frames: int = 1  # that the file has; of an animation the first is read
    is_deep: bool = False  # more than 8 bits a sample


@dataclass(frozen=True)
class Photograph:
    """An opened image file; `decode_lightness` reads its pixels."""

    header: Header
    data: bytes
    image: Image.Image | None  # None: TIFF
    pages: tuple[tiff.Page, ...] = ()  # of TIFF


def estimate_memory(photograph: Photograph, format: str) -> int:
    """Estimate the peak memory of decoding a photograph and encoding the answer, in bytes.

    Args:
        photograph: as `open_image` returns it.
        format: of the answer, a key of MEDIA_TYPES.
    """
    header, image = photograph.header, photograph.image
    decoder = _LEAST_DECODER_BYTES
    if image is not None:
        by_mode = _OTHER_DECODER_BYTES.get(image.mode, _LEAST_DECODER_BYTES)
        decoder = max(by_mode, _DECODER_BYTES.get(image.format or "", 0))
    encoder = _ENCODER_BYTES[format]
    if header.is_deep:
        encoder = _DEEP_ENCODER_BYTES.get(format, encoder)
    return header.pixels * max(decoder, encoder)


def opens_quickly(data: bytes) -> bool:
    """Check if opening takes well under a millisecond: one header, instead of many tags."""
    return identify_format(data) in ("jpeg", "png")


def open_image(data: bytes, *, max_bytes: int, max_pixels: int) -> Photograph:
    """Read a photograph's header.

    Raises:
        InvalidImage, UnsupportedImage, ImageTooLarge: see `rehue_serve.errors`.
    """
    check_byte_limit(len(data), max_bytes)
    if not data:
        raise InvalidImage("The request has no image: its body is empty.")
    name = identify_format(data)
    if name is None:
        raise InvalidImage(f"This is not a readable image; {_SUGGESTION}")
    if name not in READ:
        raise UnsupportedImage(f"{name} is not supported; {_SUGGESTION}")
    photograph = _open_tiff(data) if name == "tiff" else _open_picture(data, name)
    _check_pixel_limit(photograph.header, max_pixels)
    return photograph


def _open_tiff(data: bytes) -> Photograph:
    pages = tiff.read_pages(data)
    largest = max(pages, key=lambda page: page.pixels)
    header = Header(
        "tiff", largest.width, largest.height,
        pixels=sum(page.pixels for page in pages), pages=len(pages), frames=len(pages),
        is_deep=any(page.bits > 8 for page in pages),
    )  # fmt: skip
    return Photograph(header, data, None, tuple(pages))


def _open_picture(data: bytes, name: str) -> Photograph:
    image = open_with_pillow(data, name)
    frames = _count_frames(data, name, image)
    is_deep = (name == "png" and data[24] == 16) or image.mode.startswith("I;16")
    header = Header(
        ANSWERED_AS.get(name, name), image.width, image.height,
        pixels=image.width * image.height, frames=frames, is_deep=is_deep,
    )  # fmt: skip
    return Photograph(header, data, image)


def _count_frames(data: bytes, name: str, image: Image.Image) -> int:
    if name == "gif":
        return gif.count_frames(data)
    return int(getattr(image, "n_frames", 1)) if name in ("png", "webp") else 1


def _check_pixel_limit(header: Header, max_pixels: int) -> None:
    if header.pixels > max_pixels:
        pages = f" of {header.pages} pages together" if header.pages > 1 else ""
        raise ImageTooLarge(
            f"The image has {header.width} x {header.height} = {header.pixels:,} pixels{pages}; "
            f"the limit is {max_pixels:,}."
        )
    if not header.pixels:
        raise InvalidImage("The image has no pixels.")


def check_byte_limit(size: int, max_bytes: int) -> None:
    """Raise ImageTooLarge if a file of this size is over the limit."""
    if size > max_bytes:
        raise ImageTooLarge(f"The image has {size:,} bytes; the limit is {max_bytes:,}.")


def decode_lightness(photograph: Photograph, page: int = 0) -> UInt16:
    """Decode a photograph, composed over white, and compute its lightness; see `decode_page`."""
    return decode_page(photograph, page)[0]


def decode_page(
    photograph: Photograph, page: int = 0, *, keep_alpha: bool = False
) -> tuple[UInt16, NDArray[Any] | None]:
    """Decode a photograph and compute its lightness, upright.

    Color profiles and what the format says of its colors are applied; deep pictures keep
    their depth.

    Args:
        photograph: as `open_image` returns it. What Pillow opened is closed.
        page: of a TIFF file, from 0.
        keep_alpha: return alpha; else transparent pictures are composed over white.

    Returns:
        HW uint16, counts of 100 / 65535 of L, see `rehue_core.lab.Lightness`; and alpha, HW
        uint8 or uint16, or None where the picture has none or it is not kept.

    Raises:
        InvalidImage: the file is broken or truncated.
        UnsupportedImage: its colors cannot be read correctly.
    """
    if photograph.image is None:
        found = photograph.pages[page]
        orientation = found.orientation
        lightness, alpha = color.decode_page(photograph.data, found, keep_alpha=keep_alpha)
    else:
        orientation = read_orientation(photograph.image)
        lightness, alpha = _decode_picture(photograph.data, photograph.image, keep_alpha)
    if alpha is not None:
        alpha = apply_orientation(alpha, orientation)
    return apply_orientation(lightness, orientation), alpha


def can_hold_alpha(format: str) -> bool:
    """Check if a format, a key of MEDIA_TYPES, can be transparent."""
    return format != "jpeg"


def _decode_picture(data: bytes, image: Image.Image, keep_alpha: bool) -> color.Decoded:
    profile = image.info.get("icc_profile") or None
    if profile is not None and color.is_srgb_profile(profile):
        profile = None
    if image.format == "PNG":
        space = png.read_color_space(data)
        is_plain = image.mode in ("L", "RGB") and data[24] == 8
        if not is_plain or space or profile or "transparency" in image.info:
            return color.decode_file(data, space=space, keep_alpha=keep_alpha)
    if image.format in ("JPEG", "MPO"):
        if image.mode in ("L", "RGB") and profile is None:
            intact = jpeg.decode_intact(data, is_gray=image.mode == "L")
            if intact is not None:
                return lab.compute_fine_lightness(intact), None
        image = _complete_jpeg(data, image)
    if image.mode in ("L", "RGB") and profile is None:
        return decode_in_strips(image, lab.compute_fine_lightness), None
    pixels, alpha = decode_colors(image, keep_alpha=keep_alpha)
    return color.convert_pixels(pixels, profile), alpha


def _complete_jpeg(data: bytes, image: Image.Image) -> Image.Image:
    """Add the end mark to a sequential JPEG that lacks nothing else.

    Pillow refuses such a file. One whose pixels are missing too is still refused.
    """
    if not jpeg.lacks_end_mark(data):
        return image
    color.check_complete(data)
    return open_with_pillow(jpeg.add_end_mark(data), "jpeg")


def choose_depth(header: Header, format: str) -> Any:
    """Choose the dtype of the answer: 16 bits for a deep photograph where the format can."""
    return np.uint16 if header.is_deep and format in _DEEP_FORMATS else np.uint8


def encode_pictures(
    pictures: Sequence[Any],
    format: str,
    quality: int,
    metadata: Metadata | None = None,
) -> bytes:
    """Encode a picture, or several as the pages of a TIFF file.

    Args:
        pictures: HW3 sRGB or HW4 sRGB with alpha (not for JPEG), uint8 (0..255), or uint16
            (0..65535) for PNG and TIFF; or planes, for JPEG.
        format: a key of MEDIA_TYPES.
        quality: 1 to 100, of JPEG and WebP; PNG and TIFF are lossless.
        metadata: to write into the file.

    Raises:
        ImageTooLarge: the sides of a WebP may have 16,383 pixels, of a JPEG 65,500.
    """
    metadata = metadata or Metadata()
    if format == "tiff":
        return encode_tiff(pictures, metadata)
    (rgb,) = pictures
    limit = _LARGEST_SIDE.get(format)
    if limit and max(rgb.shape[:2]) > limit:
        raise ImageTooLarge(
            f"{format.upper()} is limited to {limit:,} pixels a side; use format=png."
        )
    if isinstance(rgb, Planes):
        data = simplejpeg.encode_jpeg_yuv_planes(rgb.y, rgb.cb, rgb.cr, quality)
        return embed(data, format, metadata)
    if format == "webp" and rgb.shape[0] * rgb.shape[1] > _LARGE_WEBP:
        return embed(_encode_large_webp(rgb, quality), format, metadata)
    options = {
        "jpeg": [cv2.IMWRITE_JPEG_QUALITY, quality],
        "webp": [cv2.IMWRITE_WEBP_QUALITY, quality],
        # Level 1 takes a third of level 6's time for a tenth more bytes.
        "png": [cv2.IMWRITE_PNG_COMPRESSION, 1],
    }[format]
    suffix = {"jpeg": ".jpg"}.get(format, f".{format}")
    if rgb.shape[2] == 4:
        bgr = cv2.cvtColor(rgb, cv2.COLOR_RGBA2BGRA)
    else:
        bgr = np.ascontiguousarray(rgb[..., ::-1])
    done, data = cv2.imencode(suffix, bgr, options)
    if not done:
        raise RuntimeError(f"OpenCV could not encode {rgb.shape} as {format}")
    return embed(data.tobytes(), format, metadata)


def _encode_large_webp(rgb: NDArray[Any], quality: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(rgb)).save(out, "WEBP", quality=quality, method=0)
    return out.getvalue()
