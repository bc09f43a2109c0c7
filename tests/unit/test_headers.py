"""Files of millions of parts: their header is read or refused quickly and blocks no request."""

import io
import struct
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from rehue_serve import images
from rehue_serve.errors import ImageTooLarge, InvalidImage
from rehue_serve.metadata.answer import complete_metadata, read_metadata_of
from rehue_serve.metadata.containers import embed_in_jpeg
from rehue_serve.metadata.tiff import encode_tiff

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


def pack_segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def pack_exif(tags: list[tuple[int, int, int]], pointer: int = 0, size: int = 0) -> bytes:
    """An EXIF block, or TIFF file, whose values all stand at the same place, its beginning.

    Args:
        tags: number, type and count each; of the main directory, or of the one pointed to.
        pointer: the tag that points to a directory of its own for them; 0: there is none.
        size: bytes of the block.
    """

    def pack(tags: list[tuple[int, int, int]], value: int) -> bytes:
        entries = b"".join(struct.pack("<HHII", *tag, value) for tag in sorted(tags))
        return struct.pack("<H", len(tags)) + entries + bytes(4)

    head = struct.pack("<2sHI", b"II", 42, 8)
    first = pack([(pointer, 4, 1)], 8 + 18) if pointer else b""
    return (head + first + pack(tags, 8)).ljust(size, b"\0")


def split_exif(block: bytes) -> bytes:
    parts = [block[at : at + 65_000] for at in range(0, len(block), 65_000)]
    return b"".join(pack_segment(0xE1, b"Exif\0\0" + part) for part in parts)


def pack_tiff(pages: int, extra: list[tuple[int, int, int, int]], behind: bytes = b"") -> bytes:
    """A TIFF file whose pages have the same 32 x 32 pixels, and these tags besides."""
    known = [(256, 3, 1, 32), (257, 3, 1, 32), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1),
             (273, 4, 1, 8), (277, 3, 1, 1), (278, 3, 1, 32), (279, 4, 1, 1024)]  # fmt: skip
    tags = sorted({tag[0]: tag for tag in known + extra}.values())
    entries = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", *tag) for tag in tags)
    out = bytearray(struct.pack("<2sHI", b"II", 42, 8 + 1024) + bytes(range(256)) * 4)
    for page in range(pages):
        following = len(out) + len(entries) + 4 if page < pages - 1 else 0
        out += entries + struct.pack("<I", following)
    return bytes(out) + behind


def pack_animation(frames: int) -> bytes:
    out = io.BytesIO()
    rows = [Image.new("L", (8, 8), level) for level in (0, 50, 99)]
    rows[0].save(out, "WEBP", save_all=True, append_images=rows[1:])
    data = out.getvalue()
    at = data.index(b"ANMF")
    frame = data[at : at + 8 + struct.unpack_from("<I", data, at + 4)[0]]
    body = data[12:at] + frame * frames
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


PNG, JPEG, GIF, JP2 = (save(format) for format in ("PNG", "JPEG", "GIF", "JPEG2000"))
AFTER_HEADER = 33  # in PNG
AFTER_COLORS = 13 + 3 * 256  # in GIF
RESOURCE = b"8BIM" + struct.pack(">HBBI", 0x0405, 0, 0, 0)
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
    "Photoshop's blocks": insert(JPEG, 2, pack_segment(0xED, b"Photoshop 3.0\0" + RESOURCE * 5000)),
    "EXIF of 20 MB": insert(JPEG, 2, pack_segment(0xE1, b"Exif\0\0" + bytes(65_000))),
    "pages' tags": pack_tiff(200, [(40_000 + number, 1, 1, 0) for number in range(4000)]),
    "sub-pages": pack_tiff(1, [(330, 4, 10**6, 2000)], struct.pack("<I", 1032) * 10**6),
    "sub-pages that overlap": pack_tiff(900, [(330, 4, 10**5, 2000)], bytes(SIZE)),
    "values that overlap": pack_tiff(
        1, [(40_000 + number, 1, SIZE, 8) for number in range(300)], bytes(SIZE)
    ),
    "numbers": pack_tiff(1, [(40_000 + number, 3, 10**5, 8) for number in range(9)], bytes(SIZE)),
    "strips": pack_tiff(1, [(273, 4, 10**6, 8), (279, 4, 10**6, 8)], bytes(SIZE)),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_millions_of_parts_is_refused_in_moments(name: str) -> None:
    began = time.thread_time()
    with pytest.raises((InvalidImage, ImageTooLarge), match=r"too many|over 1,000 pages"):
        images.open_image(FILES[name], **LIMITS)
    assert time.thread_time() - began < MOST_SECONDS


def test_an_animation_of_many_frames_is_too_large() -> None:
    assert images.open_image(pack_animation(100), **LIMITS).header.frames == 100
    with pytest.raises(ImageTooLarge, match="20,000 frames; the limit is 5,000"):
        images.open_image(pack_animation(20_000), **LIMITS)


LONG = [(0x0112, 3, 5_000_000)]  # an orientation of millions of numbers
OVERLAPPING = [(0x9000 + number, 1, 60_000) for number in range(4000)]  # 240 MB in 64 kB


@pytest.mark.parametrize(
    "data",
    [
        PNG[:AFTER_HEADER] + pack_chunk(b"eXIf", pack_exif(LONG, 0, SIZE)) + PNG[AFTER_HEADER:],
        *(JPEG[:2] + split_exif(pack_exif(OVERLAPPING, pointer, 65_000)) + JPEG[2:]
          for pointer in (0, 0x8769, 0x8825)),
    ],
    ids=["numbers", "overlapping", "overlapping EXIF", "overlapping GPS"],
)  # fmt: skip
def test_exif_that_takes_long_is_dropped(data: bytes) -> None:
    """Memory and time of a click each, in whatever format the answer has."""
    began = time.thread_time()
    photograph = images.open_image(data, **LIMITS)
    metadata = complete_metadata(read_metadata_of(photograph), 32, 32, "rehue/1")
    assert len(encode_tiff([np.zeros((32, 32, 3), np.uint8)], metadata)) < 200_000
    assert images.decode_lightness(photograph).shape == (32, 32)
    assert time.thread_time() - began < 3 * MOST_SECONDS


RDF = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    b'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">%s</rdf:RDF></x:xmpmeta>'
)


@pytest.mark.parametrize(
    "content",
    [
        b"<a>" * 20_000 + b"</a>" * 20_000,
        b"<a>" * 500 + b"</a>" * 500,
        b"<rdf:Description/>" * 40_000,
        b"<rdf:Description/>" * 190_000,
        b"<rdf:Description %s/>" % b" ".join(b'a%d="1"' % number for number in range(190_000)),
    ],
    ids=["deep", "deeper than Python", "empty", "emptier", "attributes"],
)
def test_xmp_of_many_parts_costs_no_picture(content: bytes) -> None:
    """Deep ones were answered with 500."""
    chunk = pack_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + RDF % content)
    began = time.thread_time()
    photograph = images.open_image(PNG[:AFTER_HEADER] + chunk + PNG[AFTER_HEADER:], **LIMITS)
    metadata = complete_metadata(read_metadata_of(photograph), 32, 32, "rehue/1")
    answer = embed_in_jpeg(JPEG, metadata)
    assert time.thread_time() - began < 5 * MOST_SECONDS
    assert b"compositeWithTrainedAlgorithmicMedia" in answer
    Image.open(io.BytesIO(answer)).load()


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
