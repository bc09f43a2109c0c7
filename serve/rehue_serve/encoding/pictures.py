"""Encode a picture, or the pages of a TIFF file, in any format that is written."""

from collections.abc import Sequence
from typing import Any

import simplejpeg

from rehue_core.ycbcr import Planes
from rehue_serve.encoding.lossy import encode_jpeg, encode_webp
from rehue_serve.encoding.png import encode_png
from rehue_serve.errors import ImageTooLarge
from rehue_serve.metadata.containers import (
    Metadata,
    build_png_chunks,
    embed_in_jpeg,
    embed_in_webp,
)
from rehue_serve.metadata.tiff import encode_tiff

_LARGEST_SIDE = {"webp": 16383, "jpeg": 65500}


def encode_pictures(
    pictures: Sequence[Any], format: str, quality: int, metadata: Metadata | None = None
) -> bytes:
    """Encode a picture, or several as the pages of a TIFF file.

    Args:
        pictures: HW3 sRGB or HW4 sRGB with alpha (not for JPEG), uint8 (0..255), or uint16
            (0..65535) for PNG and TIFF: arrays, or what gives its rows as
            ``picture[top:bottom]``, such as `rehue_serve.composition.ComposedPicture`; or
            planes, for JPEG.
        format: a key of MEDIA_TYPES.
        quality: 1 to 100, of JPEG and WebP; PNG and TIFF are lossless.
        metadata: to write into the file.

    Raises:
        ImageTooLarge: the sides of a WebP may have 16,383 pixels, of a JPEG 65,500.
    """
    metadata = metadata or Metadata()
    if format == "tiff":
        return encode_tiff(pictures, metadata)
    (picture,) = pictures
    if format == "png":
        return encode_png(picture, build_png_chunks(metadata))
    limit = _LARGEST_SIDE[format]
    if max(picture.shape[:2]) > limit:
        raise ImageTooLarge(
            f"{format.upper()} is limited to {limit:,} pixels per side; use format=png."
        )
    if isinstance(picture, Planes):
        data = simplejpeg.encode_jpeg_yuv_planes(picture.y, picture.cb, picture.cr, quality)
        return embed_in_jpeg(data, metadata)
    if format == "webp":
        return embed_in_webp(encode_webp(picture[:], quality), metadata)
    return embed_in_jpeg(encode_jpeg(picture[:], quality), metadata)
