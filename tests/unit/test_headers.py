"""Files of millions of parts: their header is read or refused quickly and blocks no request."""

import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from rehue_serve import images
from rehue_serve.errors import InvalidImage

LIMITS = {"max_bytes": 50_000_000, "max_pixels": 50_000_000}
SIZE = 20_000_000  # bytes of such parts; they took 0.6 to 10 s, most of it on the event loop
MOST_SECONDS = 0.3


def save(format: str) -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.arange(1024, dtype=np.uint8).reshape(32, 32)).save(out, format)
    return out.getvalue()


def pack_chunk(name: bytes, content: bytes = b"") -> bytes:
    crc = zlib.crc32(name + content)
    return struct.pack(">I4s", len(content), name) + content + struct.pack(">I", crc)


def insert(data: bytes, place: int, part: bytes) -> bytes:
    return data[:place] + part * (SIZE // len(part)) + data[place:]


PNG, JPEG, GIF, JP2 = (save(format) for format in ("PNG", "JPEG", "GIF", "JPEG2000"))
AFTER_HEADER = 33  # in PNG
AFTER_COLORS = 13 + 3 * 256  # in GIF
FILES = {
    "chunks": insert(PNG, AFTER_HEADER, pack_chunk(b"teSt")),
    "texts": insert(PNG, AFTER_HEADER, pack_chunk(b"tEXt", b"a\0b")),
    "texts behind the pixels": insert(PNG, len(PNG) - 12, pack_chunk(b"tEXt", b"a\0b")),
    "chunks of no pixel": insert(PNG, AFTER_HEADER, pack_chunk(b"IDAT")),
    "comments": insert(JPEG, 2, b"\xff\xfe\0\2"),
    "EXIF": insert(JPEG, 2, b"\xff\xe1\0\2"),
    "fill bytes": insert(JPEG, 2, b"\xff"),
    "GIF comments": insert(GIF, AFTER_COLORS, b"\x21\xfe\x01a\0"),
    "JP2 boxes": insert(JP2, 32, b"\0\0\0\x08free"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_millions_of_parts_is_refused_in_moments(name: str) -> None:
    began = time.thread_time()
    with pytest.raises(InvalidImage, match="too many"):
        images.open_image(FILES[name], **LIMITS)
    assert time.thread_time() - began < MOST_SECONDS


def test_what_stands_behind_the_end_is_not_looked_at() -> None:
    began = time.thread_time()
    for data in (PNG, JPEG):
        photograph = images.open_image(data + bytes(SIZE), **LIMITS)
        assert photograph.header.width == 32
    assert images.open_image(insert(GIF, len(GIF) - 1, b"\x21\xfe\x01a\0"), **LIMITS)
    assert time.thread_time() - began < 15 * MOST_SECONDS
    # GIF's blocks are counted, up to a limit: 0.8 s, and 2.4 s while coverage traces each line.


def test_photographs_have_far_fewer_parts() -> None:
    """A profile of 255 parts, three MB of EXIF and XMP, pixels in chunks of 1 kB."""
    profile = b"\xff\xe2\0\x12ICC_PROFILE\0%c\xff"
    parts = b"".join(profile % number + b"xx" for number in range(1, 256))
    extended = (b"\xff\xe1\xff\xff" + bytes(65533)) * 50
    assert images.open_image(JPEG[:2] + parts + extended + JPEG[2:], **LIMITS).header.width == 32
    noise = np.random.default_rng(0).integers(0, 256, (1000, 1000), np.uint8)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in noise))
    chunks = [pack_chunk(b"IDAT", pixels[at : at + 1000]) for at in range(0, len(pixels), 1000)]
    header = pack_chunk(b"IHDR", struct.pack(">IIBBBBB", 1000, 1000, 8, 0, 0, 0, 0))
    data = PNG[:8] + header + b"".join(chunks) + PNG[-12:]
    assert images.decode_lightness(images.open_image(data, **LIMITS)).shape == (1000, 1000)
