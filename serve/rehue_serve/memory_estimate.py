"""Estimate the memory that a photograph needs from its header, before it is decoded."""

import numpy as np

from rehue_serve.images import Photograph, choose_depth

# Peak memory in bytes per pixel, measured with noise, which compresses worst (loadtest/large.py).
# Decoding, the lightness included and the file not: by Pillow's name of the format, or its mode.
_DECODER_BYTES = {"PNG": 4, "WEBP": 8, "GIF": 7, "AVIF": 11, "HEIF": 10, "JPEG2000": 20}
_JPEG_DECODER_BYTES = {"L": 4, "CMYK": 11}
_LEAST_DECODER_BYTES = 7
_TIFF_DECODER_BYTES = 4  # and the strips
# Encoding, with the lightness or the composed picture; and what alpha adds to it.
_ENCODER_BYTES = {"jpeg": 8, "webp": 14, "png": 9, "tiff": 7}
_ALPHA_BYTES = {"jpeg": 0, "webp": 27, "png": 2, "tiff": 2}
_DEEP_ENCODER_BYTES = {"png": 13, "tiff": 13}
_DEEP_ALPHA_BYTES = 4
# Signing, over the decoded answer: C2PA's library copies the file. JPEG and WebP are small by then.
_SIGNING_COPIES = {"png": 5.8, "tiff": 3.8}


def estimate_memory(
    photograph: Photograph, format: str, depth: str = "auto", *, signed: bool = False
) -> int:
    """Estimate the peak memory of decoding a photograph and encoding the answer, in bytes.

    Args:
        photograph: as `open_image` returns it.
        format: of the answer, a key of MEDIA_TYPES.
        depth: see `choose_depth`.
        signed: whether the answer is.
    """
    header = photograph.header
    encoder: float = _ENCODER_BYTES[format] + header.has_alpha * _ALPHA_BYTES[format]
    is_deep = choose_depth(header, format, depth) == np.uint16
    if is_deep:
        encoder = _DEEP_ENCODER_BYTES[format] + header.has_alpha * _DEEP_ALPHA_BYTES
    if signed:
        decoded = (3 + header.has_alpha) * (1 + is_deep)
        encoder = max(encoder, decoded * _SIGNING_COPIES.get(format, 0))
    return max(_estimate_decoder(photograph), round(header.pixels * encoder))


def _estimate_decoder(photograph: Photograph) -> int:
    header, image, size = photograph.header, photograph.image, len(photograph.data)
    if image is None:
        strips = max(page.strip_memory for page in photograph.pages)
        return size + strips + header.pixels * (_TIFF_DECODER_BYTES + header.has_alpha)
    if image.format in ("JPEG", "MPO"):
        return size + header.pixels * _JPEG_DECODER_BYTES.get(image.mode, _LEAST_DECODER_BYTES)
    a_pixel = _DECODER_BYTES.get(image.format or "", _LEAST_DECODER_BYTES) + header.has_alpha
    if image.info.get("interlace"):  # all passes are in memory
        a_pixel += 8 if header.is_deep else 4
    return size + header.pixels * a_pixel
