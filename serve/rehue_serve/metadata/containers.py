"""Metadata as JPEG, PNG and WebP files hold it.

The encoders of JPEG and WebP write pixels alone; the blocks are inserted into their output, which
costs a copy of the file and nothing of the picture.
"""

import struct
import zlib
from dataclasses import dataclass, field
from typing import Any

from rehue_serve.encoding.png import build_chunk
from rehue_serve.metadata import extended_xmp

_LARGEST_SEGMENT = 65533  # bytes of a JPEG segment, without its length
_XMP_SEGMENT = b"http://ns.adobe.com/xap/1.0/\0"
_EXIF_SEGMENT = b"Exif\0\0"
_PHOTOSHOP_SEGMENT = b"Photoshop 3.0\0"
_ICC_SEGMENT = b"ICC_PROFILE\0"
_VP8X_FLAGS = {b"ICCP": 0x20, b"EXIF": 0x08, b"XMP ": 0x04}
_VP8X_ALPHA = 0x10


@dataclass(frozen=True)
class Metadata:
    """Blocks to write into a file; an empty one is left out."""

    exif: bytes = b""  # a TIFF structure
    xmp: bytes = b""  # a packet
    iptc: bytes = b""  # Photoshop image resources, the IPTC record (IIM) among them
    profile: bytes = b""  # ICC
    dpi: tuple[float, float] | None = None
    text: dict[str, str] = field(default_factory=dict)  # of PNG
    dropped: tuple[str, ...] = ()  # names of the photograph's blocks that cannot be kept


def embed_in_jpeg(data: Any, metadata: Metadata) -> bytes:
    """Insert metadata into a JPEG file that the encoder wrote without any.

    Args:
        data: bytes or a memoryview, which costs one copy less.
        metadata: what JPEG has no place for is left out.
    """
    start = 2  # behind SOI and JFIF's APP0, which has to be first
    if data[2:4] == b"\xff\xe0":
        start = 4 + struct.unpack_from(">H", data, 4)[0]
    header = bytes(data[:start])
    if metadata.dpi and data[2:4] == b"\xff\xe0" and start >= 18:
        across, down = (min(65535, max(1, round(value))) for value in metadata.dpi)
        header = header[:13] + struct.pack(">BHH", 1, across, down) + header[18:]
    segments = _split(0xE1, _EXIF_SEGMENT, metadata.exif)
    segments += _split_packet(metadata.xmp)
    segments += _split(0xED, _PHOTOSHOP_SEGMENT, metadata.iptc)
    segments += _split_profile(metadata.profile)
    inserted = [
        struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content
        for marker, content in segments
    ]
    return b"".join([header, *inserted, data[start:]])


_Segments = list[tuple[int, bytes]]  # marker, content


def _split(marker: int, signature: bytes, block: bytes) -> _Segments:
    """Split a block into segments that each begin with its signature, as readers join them."""
    size = _LARGEST_SEGMENT - len(signature)
    return [
        (marker, signature + block[place : place + size]) for place in range(0, len(block), size)
    ]


def _split_packet(packet: bytes) -> _Segments:
    if len(_XMP_SEGMENT) + len(packet) <= _LARGEST_SEGMENT:
        return _split(0xE1, _XMP_SEGMENT, packet)
    packet, parts = extended_xmp.split_packet(
        packet, _LARGEST_SEGMENT - len(extended_xmp.SIGNATURE)
    )
    segments = [(0xE1, _XMP_SEGMENT + packet)]
    return segments + [(0xE1, extended_xmp.SIGNATURE + part) for part in parts]


def _split_profile(profile: bytes) -> _Segments:
    """Split an ICC profile into segments (ICC.1, B.4), at most 255."""
    size = _LARGEST_SEGMENT - len(_ICC_SEGMENT) - 2
    parts = [profile[place : place + size] for place in range(0, len(profile), size)]
    return [
        (0xE2, _ICC_SEGMENT + bytes([number, len(parts)]) + part)
        for number, part in enumerate(parts, 1)
        if len(parts) < 256
    ]


def build_png_chunks(metadata: Metadata) -> bytes:
    """Build the chunks that go before the pixels of a PNG (third edition, 5.6 and 11.3)."""
    chunks = []
    if metadata.profile:
        content = b"ICC profile\0\0" + zlib.compress(metadata.profile)
        chunks.append((b"iCCP", content))
    if metadata.dpi:
        across, down = (round(value / 0.0254) for value in metadata.dpi)
        chunks.append((b"pHYs", struct.pack(">IIB", across, down, 1)))
    if metadata.exif:
        chunks.append((b"eXIf", metadata.exif))
    if metadata.xmp:
        chunks.append((b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp))
    if metadata.iptc:
        chunks.append((b"zTXt", _encode_raw_profile(metadata.iptc)))
    for key, value in metadata.text.items():
        chunks.append((b"iTXt", key.encode("latin1") + b"\0\0\0\0\0" + value.encode()))
    return b"".join(build_chunk(name, content) for name, content in chunks)


def _encode_raw_profile(resources: bytes) -> bytes:
    """Encode Photoshop resources as ImageMagick and exiftool do, for want of a chunk."""
    digits = resources.hex()
    lines = "\n".join(digits[place : place + 72] for place in range(0, len(digits), 72))
    text = f"\n8bim\n{len(resources):8d}\n{lines}\n"
    return b"Raw profile type 8bim\0\0" + zlib.compress(text.encode())


def embed_in_webp(data: Any, metadata: Metadata) -> bytes:
    """Turn a simple WebP into an extended one with metadata (RFC 9649, 2.7)."""
    blocks = {b"ICCP": metadata.profile, b"EXIF": metadata.exif, b"XMP ": metadata.xmp}
    blocks = {name: content for name, content in blocks.items() if content}
    if not blocks or data[12:16] not in (b"VP8 ", b"VP8L"):
        return bytes(data)
    width, height, has_alpha = _read_webp_size(data)
    flags = sum(_VP8X_FLAGS[name] for name in blocks) | (_VP8X_ALPHA if has_alpha else 0)
    size = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    parts: list[bytes | memoryview] = [_build_riff_chunk(b"VP8X", bytes([flags, 0, 0, 0]) + size)]
    if b"ICCP" in blocks:
        parts.append(_build_riff_chunk(b"ICCP", blocks.pop(b"ICCP")))
    parts.append(data[12:])
    parts += [_build_riff_chunk(name, content) for name, content in blocks.items()]
    length = 4 + sum(map(len, parts))
    return b"".join([b"RIFF", struct.pack("<I", length), b"WEBP", *parts])


def _read_webp_size(data: Any) -> tuple[int, int, bool]:
    if data[12:16] == b"VP8L":
        bits = struct.unpack_from("<I", data, 21)[0]
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, bool(bits >> 28 & 1)
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF, False


def _build_riff_chunk(name: bytes, content: bytes) -> bytes:
    return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)
