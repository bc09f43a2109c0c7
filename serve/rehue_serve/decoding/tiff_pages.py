"""Lightness and profile of a page of a TIFF file, through libvips."""

import io
from typing import Any

import numpy as np
import pyvips
from PIL import Image

from rehue_serve.decoding.color import PROFILE, Decoded, UInt16, compute_lightness, load_image
from rehue_serve.decoding.tiff import Page, Planes
from rehue_serve.errors import InvalidImage, UnsupportedImage

OUTSIDE = 0.02  # floating-point samples may be beyond 0..1 by rounding and sharpening


def decode_page(data: bytes, page: Page, *, keep_alpha: bool = False) -> Decoded:
    """Decode one page of a TIFF file and compute its lightness.

    Args:
        data: the file.
        page: as `rehue_serve.decoding.tiff.read_pages` returns it.
        keep_alpha: return alpha; else transparent pictures are composed over white.

    Returns:
        As `rehue_serve.decoding.color.decode_file`; not yet turned upright.

    Raises:
        InvalidImage: the page is broken or truncated.
        UnsupportedImage: floating-point samples are outside of their range.
    """
    if page.is_lab:
        return _decode_lab(data, page), None
    image = _load_page(data, page)
    if page.is_float:
        # The range of the samples is found before they are converted: two passes.
        _check_range(image, page.white or 1.0)
        image = _load_page(data, page) * (65535 / (page.white or 1.0))
        image = image.rint().cast("ushort")
    elif page.white:
        image = (image * (65535 / page.white)).rint().cast("ushort")
    elif image.format == "uint":
        image = (image * (65535 / 0xFFFFFFFF)).rint().cast("ushort")
    if image.format == "ushort" and image.interpretation in ("b-w", "srgb", "multiband"):
        color = "grey16" if image.bands < 3 else "rgb16"
        image = image.copy(interpretation=color)
    return compute_lightness(image, keep_alpha=keep_alpha)


def read_profile(data: bytes, page: Page) -> bytes:
    """Read the ICC profile of a page of a TIFF file; empty if it has none.

    Raises:
        InvalidImage: the page is broken.
    """
    if page.is_lab:
        return b""
    image = _load_page(data, page)
    return bytes(image.get(PROFILE)) if PROFILE in image.get_fields() else b""


def _load_page(data: bytes, page: Page) -> Any:
    if page.planes:
        return _join_planes(data, page, page.planes)
    # The limit that this lifts is for libtiff's memory; `Page.strip_memory` counts it.
    return load_image(data, page=page.index, unlimited=True)


def _join_planes(data: bytes, page: Page, planes: Planes) -> Any:
    """Open planes where they lie in the file."""
    size = page.pixels * page.bits // 8
    kind, space = ("ushort", "rgb16") if page.bits == 16 else ("uchar", "srgb")
    file = memoryview(data)
    bands = [
        pyvips.Image.new_from_memory(file[place : place + size], page.width, page.height, 1, kind)
        for place in planes.offsets
    ]
    image = bands[0].bandjoin(bands[1:])
    image = (image.byteswap() if planes.is_big_endian else image).copy(interpretation=space)
    if planes.profile:
        image.set_type(pyvips.GValue.blob_type, PROFILE, planes.profile)
    return image


def _decode_lab(data: bytes, page: Page) -> UInt16:
    """Decode the lightness of a Lab page of 8 bits, which libvips does not read from memory."""
    try:
        with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
            image.seek(page.index)
            lightness = np.asarray(image)[..., 0]
    except (OSError, ValueError, EOFError, SyntaxError, LookupError, TypeError):
        raise InvalidImage("The image is broken or truncated.") from None
    return np.asarray(lightness.astype(np.uint16) * np.uint16(257), np.uint16)


def _check_range(image: Any, white: float) -> None:
    try:
        statistics = image.stats()
    except pyvips.Error:
        raise InvalidImage("The image is broken or truncated.") from None
    low, high = (statistics(column, 0)[0] for column in (0, 1))
    if not (-OUTSIDE * white <= low and high <= (1 + OUTSIDE) * white):
        raise UnsupportedImage(
            f"A TIFF of floating-point samples from {low:g} to {high:g} is not "
            "supported; the range must be 0 to 1, or 0 to SMaxSampleValue."
        )
