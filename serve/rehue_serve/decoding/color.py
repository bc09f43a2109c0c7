"""Lightness of pictures at any depth and in any color space, through libvips.

libvips decodes and converts a few lines at a time, so that memory holds the file and the
lightness (2 bytes a pixel) whatever the depth. Colors come from an ICC profile where there is
one, else from what the format states, else from sRGB.
"""

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import pyvips
from numpy.typing import NDArray

from rehue_core import lab
from rehue_serve.decoding.png import ColorSpace
from rehue_serve.errors import InvalidImage

UInt16 = NDArray[np.uint16]

L_COUNTS = 655.35  # counts of a fine lightness in one unit of L
PROFILE = "icc-profile-data"  # libvips' name for the ICC profile
STRIP_PIXELS = 1 << 17  # that are read at a time

# The service spreads photographs over its threads itself, and no operation repeats.
pyvips.concurrency_set(1)
pyvips.cache_set_max(0)
pyvips.block_untrusted_set(True)
# libvips warns of each odd tag; a caller must not be able to fill the log.
logging.getLogger("pyvips").setLevel(logging.ERROR)


Decoded = tuple[UInt16, NDArray[Any] | None]  # lightness, and alpha (uint8 or uint16) or None


def decode_file(
    data: bytes,
    *,
    space: ColorSpace | None = None,
    uses_profile: bool = True,
    keep_alpha: bool = False,
) -> Decoded:
    """Decode a PNG or WebP file of any depth and compute its lightness.

    Args:
        data: the file.
        space: the color space that its chunks state, where it is not sRGB.
        uses_profile: whether an ICC profile in the file counts.
        keep_alpha: return alpha; else transparent pictures are composed over white.

    Returns:
        HW uint16, counts of 100 / 65535 of L; and alpha, HW of the file's depth, or None.

    Raises:
        InvalidImage: the file is broken or truncated.
    """
    image = load_image(data)
    if not uses_profile and PROFILE in image.get_fields():
        image = image.copy()
        image.remove(PROFILE)
    return compute_lightness(image, space=space, keep_alpha=keep_alpha)


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
    return compute_lightness(image)[0]


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


def load_image(data: bytes, **options: Any) -> Any:
    """Open a file whose lines are decoded as they are asked for, from top to bottom."""
    try:
        # A source refers to the file where it is; libvips would copy a buffer.
        source = pyvips.Source.new_from_memory(data)
        return pyvips.Image.new_from_source(
            source, "", access="sequential", fail_on="error", **options
        )
    except pyvips.Error:
        raise InvalidImage("The image is broken or truncated.") from None


def compute_lightness(
    image: Any, *, space: ColorSpace | None = None, keep_alpha: bool = False
) -> Decoded:
    """Compute L from a libvips image, and alpha if it is kept."""
    depth = np.uint16 if image.format == "ushort" else np.uint8
    try:
        if image.hasalpha() and not keep_alpha:
            image = image.flatten(background=[np.iinfo(depth).max])
        alpha = image[image.bands - 1] if image.hasalpha() else None
        colors = image if alpha is None else image.extract_band(0, n=image.bands - 1)
        convert = _choose_conversion(colors, space)
        if convert is None:
            # The file is read once, from top to bottom: both come out of one pass.
            image = _compute_counts(colors, space)
            image = image if alpha is None else image.bandjoin(alpha.cast("ushort"))
        return _read_in_strips(image, convert or _get_first_band, None if alpha is None else depth)
    except pyvips.Error:
        raise InvalidImage("The image is broken or truncated.") from None


def _choose_conversion(
    colors: Any, space: ColorSpace | None
) -> Callable[[NDArray[Any]], UInt16] | None:
    """Choose a quick conversion of samples to L; None: libvips has to compute it."""
    if colors.bands == 1 and colors.format in ("uchar", "ushort"):
        table = _build_table(colors, space)
        return lambda rows: np.asarray(np.take(table, rows[..., 0]))
    is_plain = colors.format == "uchar" and colors.interpretation == "srgb" and space is None
    if is_plain and colors.bands == 3 and PROFILE not in colors.get_fields():
        return lambda rows: lab.compute_fine_lightness(rows[..., :3])
    return None


def _build_table(colors: Any, space: ColorSpace | None) -> UInt16:
    """Build the L of each sample that a gray picture can have, by its profile or space."""
    dtype = np.uint8 if colors.format == "uchar" else np.uint16
    ramp = np.arange(np.iinfo(dtype).max + 1, dtype=dtype)
    image = pyvips.Image.new_from_memory(ramp.data, len(ramp), 1, 1, colors.format)
    image = image.copy(interpretation=colors.interpretation)
    if PROFILE in colors.get_fields():
        image.set_type(pyvips.GValue.blob_type, PROFILE, colors.get(PROFILE))
    lightness, _ = _read_in_strips(_compute_counts(image, space), _get_first_band, None)
    return np.asarray(lightness[0])


def _compute_counts(colors: Any, space: ColorSpace | None) -> Any:
    luminance = _compute_luminance(colors, space)
    root = luminance.math2_const("pow", [1 / 3])
    # CIE 15, 8.2.1, with scikit-image's digits.
    lightness = (luminance > 0.008856).ifthenelse(root * 116 - 16, luminance * 903.3)
    return (lightness * L_COUNTS).rint().cast("ushort")


def _get_first_band(rows: NDArray[Any]) -> UInt16:
    return np.asarray(rows[..., 0], np.uint16)


def _read_in_strips(
    image: Any, convert: Callable[[NDArray[Any]], UInt16], alpha_type: Any | None
) -> Decoded:
    """Read a libvips image strip by strip.

    Args:
        image: of 8-bit or 16-bit samples; its last band is alpha where `alpha_type` is given.
        convert: called with each strip, HWC; returns HW L.
        alpha_type: dtype of the alpha that is returned; None: there is none.
    """
    height, width = image.height, image.width
    dtype = np.uint8 if image.format == "uchar" else np.uint16
    lightness = np.empty((height, width), np.uint16)
    alpha = None if alpha_type is None else np.empty((height, width), alpha_type)
    region = pyvips.Region.new(image)
    step = max(1, STRIP_PIXELS // width)
    for top in range(0, height, step):
        lines = min(step, height - top)
        content = region.fetch(0, top, width, lines)
        rows = np.frombuffer(content, dtype).reshape(lines, width, image.bands)
        lightness[top : top + lines] = convert(rows)
        if alpha is not None:
            alpha[top : top + lines] = rows[..., -1]
    return lightness, alpha


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
