"""Write TIFF files: pages of 8 or 16 bits, with EXIF, XMP, IPTC, profile and resolution."""

import io
import math
import zlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tifffile
from PIL import ExifTags

from rehue_serve.metadata.containers import Metadata
from rehue_serve.metadata.reading import DESCRIPTIVE_TAGS, encode_directory, parse_exif, unwrap_iptc

_XMP, _IPTC, _PHOTOSHOP, _SOFTWARE = 700, 33723, 34377, 305
_DIRECTORIES = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
# tifffile does not write the pointers to EXIF and GPS itself: they take the place of tags that
# nobody uses, one number below theirs, so that the directory stays sorted.
_PLACEHOLDER = -1
_LARGEST_CLASSIC = 3 << 30  # bytes of pixels; a classic TIFF holds 4 GiB
_STRIP_BYTES = 1 << 18


def encode_tiff(pages: Sequence[Any], metadata: Metadata) -> bytes:
    """Encode pictures as the pages of one TIFF file, deflated.

    Args:
        pages: HW3 RGB or HW4 RGB with alpha, uint8 or uint16 each: arrays, or what gives its
            rows as ``page[top:bottom]``.
        metadata: written into the first page.
    """
    out = io.BytesIO()
    exif = parse_exif(metadata.exif)
    directories = {int(ifd): dict(exif.get_ifd(ifd)) for ifd in _DIRECTORIES if ifd in exif}
    large = sum(map(_count_bytes, pages)) > _LARGEST_CLASSIC
    with tifffile.TiffWriter(out, byteorder="<", bigtiff=large) as writer:
        for number, page in enumerate(pages):
            tags = _list_tags(exif, directories, metadata) if number == 0 else []
            step = max(1, _STRIP_BYTES * len(page) // _count_bytes(page))
            writer.write(
                _compress_strips(page, step), shape=page.shape, dtype=page.dtype,
                photometric="rgb", planarconfig="contig",
                extrasamples=["unassalpha"] if page.shape[2] == 4 else None,
                compression="zlib", predictor=True,
                rowsperstrip=step, metadata=None, software=False, extratags=tags,
                iccprofile=metadata.profile or None,
                resolution=metadata.dpi, resolutionunit="INCH" if metadata.dpi else None,
            )  # fmt: skip
    if directories:
        _append_directories(out, directories)
    return out.getvalue()


def _count_bytes(page: Any) -> int:
    return int(math.prod(page.shape)) * int(page.dtype.itemsize)


def _compress_strips(page: Any, step: int) -> Iterator[bytes]:
    """Yield strips of that many rows, differenced and deflated (TIFF 6.0, 14; Adobe's Deflate)."""
    for top in range(0, len(page), step):
        rows = page[top : top + step]
        differences = np.array(rows, rows.dtype.newbyteorder("<"), order="C")
        differences[:, 1:] -= rows[:, :-1]
        yield zlib.compress(differences.data, 1)


def _list_tags(exif: Any, directories: dict[int, Any], metadata: Metadata) -> list[Any]:
    """List tags as tifffile takes them: code, type, count, value, once."""
    tags: list[Any] = []
    for code in sorted(DESCRIPTIVE_TAGS & set(exif)):
        value = exif[code]
        if isinstance(value, str):
            tags.append((code, 2, 0, value.encode("utf-8", "replace"), True))
        elif isinstance(value, bytes):
            tags.append((code, 1, len(value), value, True))
        elif isinstance(value, int):
            tags.append((code, 3, 1, value, True))
    tags += [(code + _PLACEHOLDER, 4, 1, 0, True) for code in directories]
    if metadata.xmp:
        tags.append((_XMP, 1, len(metadata.xmp), metadata.xmp, True))
    if metadata.iptc:
        tags.append((_PHOTOSHOP, 1, len(metadata.iptc), metadata.iptc, True))
        record = unwrap_iptc(metadata.iptc)
        if record:
            tags.append((_IPTC, 7, len(record), record, True))
    return tags


def _append_directories(out: io.BytesIO, directories: dict[int, dict[int, Any]]) -> None:
    """Write the EXIF and GPS directories behind the file and point to them."""
    out.seek(0)
    with tifffile.TiffFile(out) as file:
        tags = {code: file.pages.first.tags[code + _PLACEHOLDER] for code in directories}
        places = {code: (tag.offset, tag.valueoffset) for code, tag in tags.items()}
        width = 8 if file.is_bigtiff else 4
    end = out.seek(0, io.SEEK_END)
    for code, values in directories.items():
        end += end % 2
        content = encode_directory(values, end)
        entry, value = places[code]
        for place, written in (
            (entry, code.to_bytes(2, "little")),
            (value, end.to_bytes(width, "little")),
            (end, content),
        ):
            out.seek(place)
            out.write(written)
        end += len(content)
