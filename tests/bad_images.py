"""Images that the server has to refuse, and how to make them."""

import io
import struct
import zlib

from paths import PHOTOS
from PIL import Image

from rehue_serve.errors import ImageTooLarge, InvalidImage, RehueError, UnsupportedImage


def encode_image(image: Image.Image, format: str, **options: object) -> bytes:
    """Encode with Pillow."""
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def create_huge_jpeg(width: int, height: int) -> bytes:
    """Return a small JPEG whose header declares another size."""
    data = bytearray(encode_image(Image.new("L", (16, 16)), "JPEG"))
    at = data.index(b"\xff\xc0")
    data[at + 5 : at + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def create_png_bomb(side: int) -> bytes:
    """Return a PNG of a few KB with side x side black pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    body = zlib.compress(bytes(1 << 20), 9)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", body) + chunk(b"IEND", b"")
    )


# Name, image, error, and words of its message.
BAD_IMAGES: list[tuple[str, bytes, type[RehueError], str]] = [
    ("empty", b"", InvalidImage, "empty"),
    ("text", b"hello, world", InvalidImage, "not a readable image"),
    ("cut JPEG", (PHOTOS / "skimage_coffee.jpg").read_bytes()[:9000], InvalidImage, "truncated"),
    (
        "cut JPEG header",
        (PHOTOS / "skimage_coffee.jpg").read_bytes()[:40],
        InvalidImage,
        "readable",
    ),
    ("huge JPEG", create_huge_jpeg(60000, 60000), ImageTooLarge, "60000 x 60000"),
    ("PNG bomb", create_png_bomb(30000), ImageTooLarge, "30000 x 30000"),
    ("short PNG", create_png_bomb(5000), InvalidImage, "truncated"),
    ("PGM", b"P5\n9 9\n255\n" + bytes(81), UnsupportedImage, "Netpbm"),
    ("BMP", encode_image(Image.new("L", (9, 9)), "BMP"), UnsupportedImage, "BMP"),
    ("HEIC", b"\0\0\0\x18ftypheic" + bytes(40), InvalidImage, "broken"),
]
