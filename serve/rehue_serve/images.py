"""Open and decode image files."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rehue_core import lab
from rehue_serve.decoding import color, gif, heic, jpeg, png, tiff, tiff_pages
from rehue_serve.decoding.directories import check_directories
from rehue_serve.decoding.kinds import identify_format
from rehue_serve.decoding.pillow import (
    STRIP_PIXELS,
    apply_orientation,
    decode_in_strips,
    free_decoder,
    has_alpha,
    open_with_pillow,
    read_orientation,
)
from rehue_serve.decoding.profiles import is_srgb_profile
from rehue_serve.decoding.strips import convert_in_strips
from rehue_serve.decoding.tiff_manifest import unlink_manifest
from rehue_serve.decoding.webp import decode_webp
from rehue_serve.encoding.profiles import is_output_profile
from rehue_serve.errors import ImageTooLarge, InvalidImage, UnsupportedImage
from rehue_serve.formats import ANSWERED_AS, DEEP_FORMATS, READ, READ_NAMES
from rehue_serve.metadata.containers import Metadata

UInt16 = NDArray[np.uint16]

_SUGGESTION = f"send {READ_NAMES}."
# Pillow's modes whose pixels are 8-bit gray or RGB, with or without alpha.
_PLAIN_MODES = ("1", "L", "LA", "P", "RGB", "RGBA")
QUICK_SIZE = 1 << 22  # bytes of a file whose header is read on the event loop
MOST_FRAMES = 5000  # of a WebP: libvips' time for the first grows with their square
# Pixels that are converted at a time where each strip costs a transform of colors.
_CONVERTED_PIXELS = 1 << 20


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
    has_alpha: bool = False


@dataclass
class Photograph:
    """An opened image file; `decode_lightness` reads its pixels."""

    header: Header
    data: bytes
    image: Image.Image | None  # None: TIFF
    pages: tuple[tiff.Page, ...] = ()  # of TIFF
    metadata: Metadata = field(default_factory=Metadata)  # that the answer keeps
    profile: bytes = b""  # ICC profile of the answer's RGB; empty: sRGB
    manifest: Any = None  # of the answer's signature, see `rehue_serve.metadata.credentials`

    def free(self) -> None:
        """Free the file; its pixels cannot be read afterwards."""
        self.data, self.image = b"", None


def opens_quickly(data: bytes) -> bool:
    """Check if opening takes under a millisecond as a rule, and 20 of them at worst.

    Other formats may have many tags, large files many parts.
    """
    return len(data) <= QUICK_SIZE and identify_format(data) in ("jpeg", "png")


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
    check_directories(data)
    data = unlink_manifest(data)
    pages = tiff.read_pages(data)
    largest = max(pages, key=lambda page: page.pixels)
    header = Header(
        "tiff", largest.width, largest.height,
        pixels=sum(page.pixels for page in pages), pages=len(pages), frames=len(pages),
        is_deep=any(page.bits > 8 for page in pages),
        has_alpha=any(page.has_alpha for page in pages),
    )  # fmt: skip
    return Photograph(header, data, None, tuple(pages))


def _open_picture(data: bytes, name: str) -> Photograph:
    image = open_with_pillow(png.drop_pixels(data) if name == "png" else data, name)
    frames = _count_frames(data, name, image)
    is_deep = (name == "png" and data[24] == 16) or image.mode.startswith("I;16")
    header = Header(
        ANSWERED_AS.get(name, name), image.width, image.height,
        pixels=image.width * image.height, frames=frames, is_deep=is_deep,
        has_alpha=has_alpha(image),
    )  # fmt: skip
    return Photograph(header, data, free_decoder(image) if name == "webp" else image)


def _count_frames(data: bytes, name: str, image: Image.Image) -> int:
    if name == "gif":
        return gif.count_frames(data)
    frames = int(getattr(image, "n_frames", 1)) if name in ("png", "webp") else 1
    if name == "webp" and frames > MOST_FRAMES:
        raise ImageTooLarge(f"The WebP has {frames:,} frames; the limit is {MOST_FRAMES:,}.")
    return frames


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
        lightness, alpha = tiff_pages.decode_page(photograph.data, found, keep_alpha=keep_alpha)
    else:
        orientation = read_orientation(photograph.image)
        lightness, alpha = _decode_picture(photograph, photograph.image, keep_alpha)
    if alpha is not None:
        alpha = apply_orientation(alpha, orientation)
    return apply_orientation(lightness, orientation), alpha


def _decode_picture(photograph: Photograph, image: Image.Image, keep_alpha: bool) -> color.Decoded:
    data = photograph.data
    profile = image.info.get("icc_profile") or None
    if profile is not None and is_srgb_profile(profile):
        profile = None
    is_animation = photograph.header.frames > 1
    if image.format == "PNG" or (image.format == "WEBP" and is_animation):
        space = png.read_color_space(data) if image.format == "PNG" else None
        return color.decode_file(
            data, space=space, uses_profile=profile is not None, keep_alpha=keep_alpha
        )
    convert, strip_pixels = lab.compute_fine_lightness, STRIP_PIXELS
    if image.mode not in _PLAIN_MODES or profile is not None:
        convert, strip_pixels = partial(color.convert_pixels, profile=profile), _CONVERTED_PIXELS
    if image.format == "WEBP" or (image.format == "HEIF" and image.mode in heic.MODES):
        decode = decode_webp if image.format == "WEBP" else heic.decode_heic
        return convert_in_strips(*decode(data), convert, strip_pixels, keep_alpha=keep_alpha)
    if image.format in ("JPEG", "MPO"):
        if image.mode in ("L", "RGB") and profile is None:
            intact = jpeg.decode_intact(data, is_gray=image.mode == "L")
            if intact is not None:
                return lab.compute_fine_lightness(intact), None
        whole = _complete_jpeg(data)
        if image.mode == "CMYK":  # Pillow would hold all of it
            return color.decode_file(whole, uses_profile=profile is not None)
        image = image if whole is data else open_with_pillow(whole, "jpeg")
    return decode_in_strips(image, convert, strip_pixels, keep_alpha=keep_alpha)


def _complete_jpeg(data: bytes) -> bytes:
    """Add the end mark to a sequential JPEG that lacks nothing else.

    Pillow refuses such a file. One whose pixels are missing too is still refused.
    """
    if not jpeg.lacks_end_mark(data):
        return data
    color.check_complete(data)
    return jpeg.add_end_mark(data)


def choose_depth(header: Header, format: str, depth: str = "auto") -> Any:
    """Choose the dtype of the answer.

    Args:
        header: of the photograph.
        format: of the answer, a key of MEDIA_TYPES.
        depth: ``auto``: 16 bits for a deep photograph where the format can; ``8``: never more.
    """
    is_deep = header.is_deep and format in DEEP_FORMATS and depth == "auto"
    return np.uint16 if is_deep else np.uint8


def choose_profile(photograph: Photograph) -> bytes:
    """Choose the profile of an answer that keeps its photograph's.

    Returns:
        The ICC profile, of the first page; empty if it is not an RGB profile, or is sRGB's.
    """
    image = photograph.image
    if image is None:
        profile = tiff_pages.read_profile(photograph.data, photograph.pages[0])
    elif image.format == "PNG" and png.read_color_space(photograph.data) is not None:
        profile = b""  # a PNG's chunk cICP overrides its profile
    else:
        profile = image.info.get("icc_profile") or b""
    return profile if is_output_profile(profile) else b""
