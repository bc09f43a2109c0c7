"""The palette of a reference picture that a caller sends."""

import io

import numpy as np
from PIL import Image, ImageCms

from rehue_core.edits import format_palette
from rehue_core.lab import UInt8
from rehue_core.palette import extract_palette
from rehue_serve import images
from rehue_serve.decoding.pillow import DECODE_ERRORS
from rehue_serve.errors import InvalidParameter, RehueError

SIDE = 96  # pixels of the long side that are looked at
LEAST_CHROMA = 4.0  # of the most colourful main colour; below, a picture counts as gray


def read_palette(data: bytes, *, max_bytes: int, max_pixels: int) -> tuple[str, ...]:
    """Return the main colours of a picture as ``#rrggbb``, the most frequent first.

    Raises:
        InvalidParameter: it is no picture that can be read, too large or gray. The message
            begins with "reference".
    """
    try:
        images.open_image(data, max_bytes=max_bytes, max_pixels=max_pixels)  # checks the limits
        pixels = _decode_small(data)
    except RehueError as error:
        raise InvalidParameter(f"reference: {error.detail}") from None
    except DECODE_ERRORS:
        raise InvalidParameter(
            "reference: the picture cannot be read; send JPEG, PNG or WebP."
        ) from None
    palette = extract_palette(pixels)
    if np.linalg.norm(palette[:, 1:], axis=1).max() < LEAST_CHROMA:
        raise InvalidParameter("reference: the picture has no colours.")
    return format_palette(palette)


def _decode_small(data: bytes) -> UInt8:
    """Decode a picture to about `SIDE` pixels (HW3 sRGB)."""
    with Image.open(io.BytesIO(data)) as picture:
        picture.draft("RGB", (2 * SIDE, 2 * SIDE))  # JPEG: decodes an eighth of the pixels
        profile = picture.info.get("icc_profile")
        picture.load()
        small = picture if picture.mode in ("RGB", "L", "CMYK") else picture.convert("RGB")
        small.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
        return np.asarray((_convert_to_srgb(small, profile) if profile else small).convert("RGB"))


def _convert_to_srgb(picture: Image.Image, profile: bytes) -> Image.Image:
    try:
        own = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        srgb = ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(picture, own, srgb, outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError):
        return picture  # a broken profile is ignored, as in photographs
    return converted or picture
