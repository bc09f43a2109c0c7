"""Lightness of pictures at any depth and in any color space, through libvips.

libvips decodes and converts a few lines at a time, so that memory holds the lightness alone
(2 bytes a pixel) whatever the depth of the file. Colors come from an ICC profile where there is
one, else from what the format states, else from sRGB.
"""

import io
import logging
from functools import lru_cache
from typing import Any

import numpy as np
import pyvips
from numpy.typing import NDArray
from PIL import Image, ImageCms

from rehue_core.lab import UInt8
from rehue_serve.decoding.png import ColorSpace
from rehue_serve.decoding.tiff import Page
from rehue_serve.errors import InvalidImage, UnsupportedImage

UInt16 = NDArray[np.uint16]

L_COUNTS = 655.35  # counts of a fine lightness in one unit of L
PROFILE = "icc-profile-data"  # libvips' name for the ICC profile
OUTSIDE = 0.02  # floating-point samples may be beyond 0..1 by rounding and sharpening

# The service spreads photographs over its threads itself, and no operation repeats.
pyvips.concurrency_set(1)
pyvips.cache_set_max(0)
pyvips.block_untrusted_set(True)
# libvips warns of each odd tag; a caller must not be able to fill the log.
logging.getLogger("pyvips").setLevel(logging.ERROR)


Decoded = tuple[UInt16, NDArray[Any] | None]  # lightness, and alpha (uint8 or uint16) or None


def decode_file(
    data: bytes, *, space: ColorSpace | None = None, keep_alpha: bool = False
) -> Decoded:
    """Decode a PNG file of any depth and compute its lightness.

    Args:
        data: the file.
        space: the color space that its chunks state, where it is not sRGB.
        keep_alpha: return alpha; else transparent pictures are composed over white.

    Returns:
        HW uint16, counts of 100 / 65535 of L; and alpha, HW of the file's depth, or None.

    Raises:
        InvalidImage: the file is broken or truncated.
    """
    return _compute(_load(data), space=space, keep_alpha=keep_alpha)


def decode_page(data: bytes, page: Page, *, keep_alpha: bool = False) -> Decoded:
    """Decode one page of a TIFF file and compute its lightness.

    Args:
        data: the file.
        page: as `rehue_serve.decoding.tiff.read_pages` returns it.
        keep_alpha: return alpha; else transparent pictures are composed over white.

    Returns:
        As `decode_file`; not yet turned upright.

    Raises:
        InvalidImage: the page is broken or truncated.
        UnsupportedImage: floating-point samples are outside of their range.
    """
    if page.is_lab:
        return _decode_lab(data, page), None
    # The range of floating-point samples is found before they are converted: two passes.
    image = _load(data, page=page.index, access="random" if page.is_float else "sequential")
    if page.is_float:
        image = _scale_floats(image, page.white or 1.0)
    elif page.white:
        image = (image * (65535 / page.white)).rint().cast("ushort")
    elif image.format == "uint":
        image = (image * (65535 / 0xFFFFFFFF)).rint().cast("ushort")
    if image.format == "ushort" and image.interpretation in ("b-w", "srgb", "multiband"):
        color = "grey16" if image.bands < 3 else "rgb16"
        image = image.copy(interpretation=color)
    return _compute(image, keep_alpha=keep_alpha)


def convert_pixels(pixels: NDArray[Any], profile: bytes | None) -> UInt16:
    """Compute the lightness of decoded pixels.

    Args:
        pixels: HW gray uint8 or uint16, or HWC RGB (3) or CMYK (4 channels, 255: full ink) uint8.
        profile: the ICC profile of their colors; None: sRGB, or a usual CMYK.

    Returns:
        HW uint16, counts of 100 / 65535 of L.
    """
    height, width, bands = *pixels.shape[:2], pixels.shape[2] if pixels.ndim == 3 else 1
    kind, gray = ("ushort", "grey16") if pixels.dtype == np.uint16 else ("uchar", "b-w")
    content = np.ascontiguousarray(pixels).data
    image = pyvips.Image.new_from_memory(content, width, height, bands, kind)
    image = image.copy(interpretation={1: gray, 3: "srgb", 4: "cmyk"}[bands])
    if profile:
        image.set_type(pyvips.GValue.blob_type, PROFILE, profile)
    return _compute(image)[0]


def check_complete(data: bytes) -> None:
    """Check that a JPEG without its end mark has all of its pixels.

    Two different endings must give the same pixels: any that the file lacks would be decoded
    from the ending.

    Raises:
        InvalidImage: pixels are missing.
    """
    try:
        first, second = (
            pyvips.Image.jpegload_buffer(
                data + ending * 16 + b"\xff\xd9", access="sequential", fail_on="truncated"
            )
            for ending in (b"\x55", b"\xaa")
        )
        same = (first == second).min() == 255
    except pyvips.Error:
        same = False
    if not same:
        raise InvalidImage("The image is broken or truncated.")


@lru_cache(maxsize=64)
def is_srgb_profile(profile: bytes) -> bool:
    """Check if an ICC profile means the same colors as sRGB.

    The profile of gray pictures counts if its curve is sRGB's. What it does to some colors
    decides, since profiles of sRGB differ in words and rounding.
    """
    try:
        source = ImageCms.getOpenProfile(io.BytesIO(profile))
        kind = source.profile.xcolor_space.strip()
        if kind not in ("RGB", "GRAY"):
            return False
        steps = np.linspace(0, 255, 18).astype(np.uint8)
        if kind == "GRAY":
            samples: UInt8 = steps[None]
            expected = np.repeat(samples[..., None], 3, axis=2)
        else:
            grid = np.stack(np.meshgrid(steps[::4], steps[::4], steps[::4]), axis=-1)
            samples = expected = grid.reshape(1, -1, 3)
        mode = "L" if kind == "GRAY" else "RGB"
        transform = ImageCms.buildTransform(
            source, ImageCms.createProfile("sRGB"), mode, "RGB",
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
        )  # fmt: skip
        converted = np.asarray(ImageCms.applyTransform(Image.fromarray(samples), transform))
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError, AttributeError):
        return True  # a broken profile never costs the picture
    difference = np.abs(converted.astype(np.int16) - expected.astype(np.int16))
    return bool(difference.max() <= 2)


def _load(data: bytes, *, access: str = "sequential", **options: Any) -> Any:
    try:
        return pyvips.Image.new_from_buffer(data, "", access=access, fail_on="error", **options)
    except pyvips.Error:
        raise InvalidImage("The image is broken or truncated.") from None


def _decode_lab(data: bytes, page: Page) -> UInt16:
    """Decode the lightness of a Lab page of 8 bits, which libvips does not read from memory."""
    try:
        with Image.open(io.BytesIO(data), formats=("TIFF",)) as image:
            image.seek(page.index)
            lightness = np.asarray(image)[..., 0]
    except (OSError, ValueError, EOFError, SyntaxError, LookupError, TypeError):
        raise InvalidImage("The image is broken or truncated.") from None
    return np.asarray(lightness.astype(np.uint16) * np.uint16(257), np.uint16)


def _scale_floats(image: Any, white: float) -> Any:
    try:
        low, high = image.min(), image.max()
    except pyvips.Error:
        raise InvalidImage("The image is broken or truncated.") from None
    if not (-OUTSIDE * white <= low and high <= (1 + OUTSIDE) * white):
        raise UnsupportedImage(
            f"A TIFF of floating-point samples from {low:g} to {high:g} is not read; "
            "0 to 1 is, or 0 to SMaxSampleValue."
        )
    return (image * (65535 / white)).rint().cast("ushort")


def _compute(image: Any, *, space: ColorSpace | None = None, keep_alpha: bool = False) -> Decoded:
    """Compute L from a libvips image, and alpha if it is kept."""
    depth, alpha = np.uint16 if image.format == "ushort" else np.uint8, None
    try:
        if image.hasalpha() and keep_alpha:
            alpha = image[image.bands - 1]
            image = image.extract_band(0, n=image.bands - 1)
        elif image.hasalpha():
            image = image.flatten(background=[np.iinfo(depth).max])
        luminance = _compute_luminance(image, space)
        root = luminance.math2_const("pow", [1 / 3])
        # CIE 15, 8.2.1, with scikit-image's digits.
        lightness = (luminance > 0.008856).ifthenelse(root * 116 - 16, luminance * 903.3)
        counts = (lightness * L_COUNTS).rint().cast("ushort")
        # The file is read once, from top to bottom: both come out of one pass.
        joined = counts if alpha is None else counts.bandjoin(alpha.cast("ushort"))
        buffer = joined.write_to_memory()
    except pyvips.Error:
        raise InvalidImage("The image is broken or truncated.") from None
    pixels = np.frombuffer(buffer, np.uint16).reshape(image.height, image.width, -1)
    if alpha is None:
        return pixels[..., 0], None
    return np.ascontiguousarray(pixels[..., 0]), pixels[..., 1].astype(depth)


def _compute_luminance(image: Any, space: ColorSpace | None) -> Any:
    """Compute Y (0..1) over that of white."""
    if space is not None:
        largest = 65535 if image.format == "ushort" else 255
        linear = space.linearize(image * (1 / largest))
        return linear.recomb([list(space.luminance)]) if linear.bands == 3 else linear
    if PROFILE in image.get_fields():
        # A profile that does not fit the picture counts for nothing: libvips then goes on
        # as if there was none.
        return image.icc_import(pcs="xyz", intent="relative", embedded=True)[1] / 100
    return image.colourspace("xyz")[1] / 100
