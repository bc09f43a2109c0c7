"""The pages of a TIFF file and how their samples are meant, read from its tags.

tifffile parses the tags; libvips decodes the pixels (`rehue_serve.decoding.tiff_pages`).
"""

import io
import logging
from dataclasses import dataclass
from itertools import islice
from typing import Any

import tifffile

from rehue_serve.decoding.directories import MOST_PAGES
from rehue_serve.decoding.pillow import DECODE_ERRORS
from rehue_serve.errors import ImageTooLarge, InvalidImage, RehueError, UnsupportedImage

# Tags by number, since TIFF 6.0 has them so.
_OLD_SUBFILE_TYPE, _ORIENTATION, _MAX_SAMPLE, _INK_SET = 255, 274, 281, 332
_FLOAT_MIN, _FLOAT_MAX, _DNG_VERSION, _PROFILE = 340, 341, 50706, 34675

# tifffile logs each odd tag; a caller must not be able to fill the log.
logging.getLogger("tifffile").setLevel(logging.CRITICAL)

_REDUCED, _MASK = 1, 4  # bits of NewSubfileType
_UINT, _INT, _FLOAT, _UNDEFINED = 1, 2, 3, 4  # SampleFormat
_RGB, _CIELAB, _CMYK = 2, 8, 5  # PhotometricInterpretation
_READ_PHOTOMETRICS = {0, 1, 2, 3, _CMYK, 6, _CIELAB}
_RAW_PHOTOMETRICS = {32803, 34892}  # color filter array, linear raw
# Compression schemes that libvips' libtiff decodes.
_COMPRESSIONS = {1, 2, 3, 4, 5, 7, 8, 32773, 32946, 50000, 50001}
_CMYK_INKS = 1
_ALPHA = {1, 2}  # ExtraSamples: associated, unassociated
_UNCOMPRESSED = 1  # Compression
_SEPARATE = 2  # PlanarConfiguration


@dataclass(frozen=True)
class Planes:
    """Uncompressed red, green and blue, each in one strip, which libvips would copy twice."""

    offsets: tuple[int, ...]
    is_big_endian: bool
    profile: bytes  # ICC; empty: there is none


@dataclass(frozen=True)
class Page:
    """One picture of a TIFF file."""

    index: int  # of all pages in the file
    width: int
    height: int
    bits: int  # a sample
    is_float: bool
    is_lab: bool
    orientation: int  # EXIF's, 1 to 8
    white: float | None  # sample value that means full; None: the type's own largest
    has_alpha: bool
    strip_memory: int  # bytes that libvips needs for one strip or row of tiles, decoded
    planes: Planes | None = None  # where its samples are, if libvips need not read the file

    @property
    def pixels(self) -> int:
        return self.width * self.height


def read_pages(data: bytes) -> list[Page]:
    """Read the tags of a TIFF file's pages, without previews and masks.

    Raises:
        InvalidImage: the tags are broken.
        UnsupportedImage: a page is of a kind that cannot be read correctly.
    """
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            pages = [page.aspage() for page in islice(file.pages, MOST_PAGES + 1)]
            if len(pages) > MOST_PAGES:
                raise ImageTooLarge(f"The TIFF has over {MOST_PAGES:,} pages, which is the limit.")
            _refuse_raw(pages)
            main = [page for page in pages if not _is_preview(page)] or pages
            found = [_read_page(page) for page in main]
    except RehueError:
        raise
    except DECODE_ERRORS as error:
        raise InvalidImage("The TIFF file is broken or truncated.") from error
    if not found:
        raise InvalidImage("The TIFF file has no page.")
    return sorted(found, key=lambda page: page.index)


def _refuse_raw(pages: list[Any]) -> None:
    for page in pages:
        if _DNG_VERSION in page.tags:
            raise UnsupportedImage("Camera raw (DNG) is not supported; send a developed picture.")
        nested = [child for child in (page.pages or ()) if isinstance(child, tifffile.TiffPage)]
        for candidate in (page, *nested):
            if int(candidate.photometric or 0) in _RAW_PHOTOMETRICS:
                raise UnsupportedImage("Camera raw is not supported; send a developed picture.")


def _is_preview(page: Any) -> bool:
    flags = int(page.subfiletype or 0)
    return bool(flags & (_REDUCED | _MASK)) or page.tags.valueof(_OLD_SUBFILE_TYPE) == 2


def _read_page(page: Any) -> Page:
    bits, sample_format = int(page.bitspersample), int(page.sampleformat or _UINT)
    photometric = int(page.photometric if page.photometric is not None else 1)
    compression = int(page.compression)
    if compression not in _COMPRESSIONS:
        name = getattr(page.compression, "name", str(compression))
        raise UnsupportedImage(f"A TIFF with compression {name} is not supported.")
    if photometric not in _READ_PHOTOMETRICS:
        name = getattr(page.photometric, "name", str(photometric))
        raise UnsupportedImage(f"A TIFF with photometric interpretation {name} is not supported.")
    if photometric == _CMYK and int(page.tags.valueof(_INK_SET) or _CMYK_INKS) != _CMYK_INKS:
        raise UnsupportedImage("A TIFF with inks other than CMYK is not supported.")
    is_lab = photometric == _CIELAB
    if is_lab and bits != 8:
        raise UnsupportedImage(f"A Lab TIFF of {bits} bits is not supported; one of 8 bits is.")
    width, height = int(page.imagewidth), int(page.imagelength)
    if width <= 0 or height <= 0:
        raise InvalidImage("The image has no pixels.")
    white = _read_white(page, bits, sample_format)
    is_float, orientation = sample_format == _FLOAT, _read_orientation(page)
    planes = _find_planes(page) if sample_format == _UINT and white is None else None
    return Page(
        int(page.index), width, height, bits, is_float, is_lab, orientation, white,
        has_alpha=bool(set(map(int, page.extrasamples or ())) & _ALPHA),
        strip_memory=0 if planes else _estimate_strip_memory(page, width, height),
        planes=planes,
    )  # fmt: skip


def _estimate_strip_memory(page: Any, width: int, height: int) -> int:
    """Estimate the memory for one strip or row of tiles; many scanners write a single strip."""
    rows = int((page.tilelength if page.is_tiled else page.rowsperstrip) or height)
    samples = int(page.samplesperpixel)
    decoded = min(rows, height) * width * samples * max(8, int(page.bitspersample)) // 8
    is_planar = samples > 1 and int(page.planarconfig or 1) == _SEPARATE
    encoded = 0 if int(page.compression) == _UNCOMPRESSED else max(page.databytecounts, default=0)
    return decoded * (3 if is_planar else 1) + encoded


def _find_planes(page: Any) -> Planes | None:
    bits, samples = int(page.bitspersample), int(page.samplesperpixel)
    is_plain = int(page.photometric or 0) == _RGB and samples == 3 and bits in (8, 16)
    is_plain &= int(page.compression) == _UNCOMPRESSED and not page.is_tiled
    size = int(page.imagewidth) * int(page.imagelength) * bits // 8
    file = page.parent.filehandle
    inside = all(offset + size <= file.size for offset in page.dataoffsets)
    if not is_plain or list(page.databytecounts) != [size] * 3 or not inside:
        return None
    profile = page.tags.valueof(_PROFILE)
    profile = profile if isinstance(profile, bytes) else b""
    return Planes(tuple(map(int, page.dataoffsets)), page.parent.byteorder == ">", profile)


def _read_orientation(page: Any) -> int:
    """Read the orientation, which some writers store as a BYTE."""
    value = page.tags.valueof(_ORIENTATION)
    if isinstance(value, bytes):
        return value[0] if value else 1
    return int(value) if isinstance(value, int) else 1


def _read_white(page: Any, bits: int, sample_format: int) -> float | None:
    if sample_format in (_UINT, _UNDEFINED):
        if bits not in (1, 2, 4, 8, 16, 32):
            raise UnsupportedImage(f"A TIFF of {bits} bits per sample is not supported.")
        return _read_smaller_range(page, bits)
    if sample_format == _FLOAT:
        if bits not in (16, 32):
            raise UnsupportedImage(f"A TIFF of {bits}-bit floating-point samples is not supported.")
        low, high = page.tags.valueof(_FLOAT_MIN), page.tags.valueof(_FLOAT_MAX)
        starts_at_zero = high is not None and _get_largest(low or 0) == 0
        return float(_get_largest(high)) if starts_at_zero else 1.0
    raise UnsupportedImage("A TIFF of signed or complex samples is not supported.")


def _read_smaller_range(page: Any, bits: int) -> float | None:
    """Read from MaxSampleValue that a 16-bit sample holds 9 to 15 bits.

    TIFF 6.0 calls the tag informative, and many writers store the picture's own
    extremes in it, so only the largest number of fewer bits counts.
    """
    high = _get_largest(page.tags.valueof(_MAX_SAMPLE) or 0)
    if bits == 16 and high in {(1 << fewer) - 1 for fewer in range(9, 16)}:
        return float(high)
    return None


def _get_largest(value: Any) -> float:
    return float(max(value)) if isinstance(value, (tuple, list)) else float(value)
