"""Read a photograph's metadata: EXIF, XMP, IPTC, resolution, captions.

What is broken is left out: metadata never costs the picture.
"""

import struct
import zlib
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

from PIL import ExifTags, Image, TiffImagePlugin

from rehue_serve.decoding import jpeg
from rehue_serve.decoding.directories import check_directories
from rehue_serve.errors import RehueError
from rehue_serve.metadata import extended_xmp
from rehue_serve.metadata.containers import Metadata

T = TypeVar("T")

# What Pillow and this module raise on broken blocks.
BROKEN = (
    OSError, SyntaxError, ValueError, LookupError, TypeError, AttributeError, EOFError,
    ArithmeticError, RuntimeError, struct.error, zlib.error, Image.DecompressionBombError,
)  # fmt: skip

# Tags of a TIFF page that describe the photograph and not how its pixels are stored.
DESCRIPTIVE_TAGS = {
    269, 270, 271, 272, 285, 305, 306, 315, 316, 33432,  # name, caption, camera, date, rights
    18246, 18249, 40091, 40092, 40093, 40094, 40095,  # rating, and Windows' own
}  # fmt: skip
_XMP_TAG, _IPTC_TAG, _PHOTOSHOP_TAG = 700, 33723, 34377
_IPTC_RESOURCE = 0x0404  # of Photoshop: the IPTC record
_TIFF_SIGNATURES = (b"II*\0", b"MM\0*")
_LARGEST_TEXT = 1 << 16
_TEXT_KEYS = {
    "Title", "Author", "Description", "Copyright", "Creation Time", "Software", "Disclaimer",
    "Warning", "Source", "Comment",
}  # fmt: skip


def read_metadata(data: bytes, image: Image.Image) -> Metadata:
    """Read the metadata of an opened image.

    Args:
        data: the file.
        image: the same, opened by Pillow; its pixels need not be decoded.
    """
    return _read_unless_broken(lambda: _read_metadata(data, image)) or Metadata()


def _read_metadata(data: bytes, image: Image.Image) -> Metadata:
    info = image.info
    dpi = _read_unless_broken(lambda: _read_dpi(image))
    if image.format == "TIFF":
        return Metadata(
            exif=_read_unless_broken(lambda: _read_tiff_exif(image)) or b"",
            xmp=_read_unless_broken(lambda: bytes(image.tag_v2.get(_XMP_TAG, b""))) or b"",  # type: ignore[attr-defined]
            iptc=_read_unless_broken(lambda: _read_tiff_iptc(image)) or b"",
            dpi=dpi,
        )
    if image.format in ("JPEG", "MPO"):
        metadata = _read_unless_broken(lambda: _read_jpeg_segments(data)) or Metadata()
        return replace(metadata, dpi=dpi)
    xmp = info.get("xmp") or b""
    return Metadata(
        exif=bytes(info.get("exif") or b"").removeprefix(b"Exif\0\0"),
        xmp=xmp.encode() if isinstance(xmp, str) else bytes(xmp),
        iptc=_read_unless_broken(lambda: _read_png_iptc(info)) or b"",
        dpi=dpi,
        text=_read_unless_broken(lambda: _read_png_text(info)) or {},
    )


def _read_unless_broken(read: Callable[[], T]) -> T | None:
    try:
        return read()
    except BROKEN:
        return None


def _read_dpi(image: Image.Image) -> tuple[float, float] | None:
    across, down = (float(value) for value in image.info["dpi"])
    return (across, down) if 1 <= across <= 65535 and 1 <= down <= 65535 else None


def _read_jpeg_segments(data: bytes) -> Metadata:
    xmp = b""
    exif: list[bytes] = []
    iptc: list[bytes] = []
    extended: list[bytes] = []
    for marker, content, _ in jpeg.iterate_segments(data):
        if marker == 0xE1 and content.startswith(b"Exif\0"):
            # A block over 64 KB is in several segments; a second block does not count.
            if not exif or not content[6:].startswith(_TIFF_SIGNATURES):
                exif.append(content[6:])
        elif marker == 0xE1 and content.startswith(b"http://ns.adobe.com/xap/1.0/\0"):
            xmp = xmp or content[29:]
        elif marker == 0xE1 and content.startswith(extended_xmp.SIGNATURE):
            extended.append(content[len(extended_xmp.SIGNATURE) :])
        elif marker == 0xED and content.startswith(b"Photoshop 3.0\0"):
            iptc.append(content[14:])
    xmp, is_whole = extended_xmp.join_packets(xmp, extended)
    return Metadata(
        exif=b"".join(exif), xmp=xmp, iptc=b"".join(iptc), dropped=() if is_whole else ("xmp",)
    )


def _read_tiff_exif(image: Any) -> bytes:
    """Build an EXIF block of a TIFF page's descriptive tags and its EXIF and GPS directories."""
    source, exif = image.getexif(), Image.Exif()
    for tag in DESCRIPTIVE_TAGS & set(source):
        exif[tag] = source[tag]
    for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
        values = source.get_ifd(directory)
        if values:
            exif.get_ifd(directory).update(values)
    return exif.tobytes().removeprefix(b"Exif\0\0") if len(exif) or exif._ifds else b""


def _read_tiff_iptc(image: Any) -> bytes:
    resources = image.tag_v2.get(_PHOTOSHOP_TAG)
    if resources:
        return bytes(resources)
    record = image.tag_v2.get(_IPTC_TAG)
    if not record:
        return b""
    if isinstance(record, tuple):  # many writers give bytes the type LONG
        order = "<" if image.tag_v2._endian == "<" else ">"
        record = struct.pack(f"{order}{len(record)}I", *record)
    return wrap_iptc(bytes(record))


def wrap_iptc(record: bytes) -> bytes:
    """Wrap an IPTC record into a Photoshop image resource."""
    padding = b"\0" * (len(record) % 2)
    return b"8BIM" + struct.pack(">HHI", _IPTC_RESOURCE, 0, len(record)) + record + padding


def unwrap_iptc(resources: bytes) -> bytes:
    """Find the IPTC record in Photoshop image resources; empty if there is none."""
    place = 0
    while resources[place : place + 4] == b"8BIM":
        number, name_length = struct.unpack_from(">HB", resources, place + 4)
        start = place + 7 + name_length + (name_length + 1) % 2
        length = struct.unpack_from(">I", resources, start)[0]
        if number == _IPTC_RESOURCE:
            return resources[start + 4 : start + 4 + length]
        place = start + 4 + length + length % 2
    return b""


def _read_png_iptc(info: dict[Any, Any]) -> bytes:
    for key in ("Raw profile type 8bim", "Raw profile type iptc"):
        if key in info:
            lines = str(info[key]).strip().split("\n", 2)
            content = bytes.fromhex("".join(lines[2].split()))
            return content if content.startswith(b"8BIM") else wrap_iptc(content)
    return b""


def _read_png_text(info: dict[Any, Any]) -> dict[str, str]:
    found = {key: info[key] for key in _TEXT_KEYS & {key for key in info if isinstance(key, str)}}
    return {key: str(value) for key, value in found.items() if 0 < len(str(value)) <= _LARGEST_TEXT}


def parse_exif(block: bytes) -> Image.Exif:
    """Parse an EXIF block; empty if it is broken or takes long."""
    exif = Image.Exif()
    try:
        check_directories(block)
    except RehueError:
        return exif
    if block:
        _read_unless_broken(lambda: exif.load(b"Exif\0\0" + block))
    return exif


def encode_directory(values: dict[int, Any], offset: int) -> bytes:
    """Encode a TIFF directory that begins at an offset of the file, little-endian."""
    directory = TiffImagePlugin.ImageFileDirectory_v2(prefix=b"II")
    for tag, value in values.items():
        directory[tag] = value
    return directory.tobytes(offset)
