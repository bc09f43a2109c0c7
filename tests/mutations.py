"""Small photographs in every format, and ways to break a file."""

import random

from bad_images import encode_image
from paths import PHOTOS
from PIL import Image


def create_samples() -> list[bytes]:
    """Return a small photograph in every format that is read, and in unusual variants."""
    picture = Image.open(PHOTOS / "skimage_coffee.jpg").resize((48, 32))
    tags = Image.Exif()
    tags[0x0112] = 6
    variants: list[tuple[str, str, dict[str, object]]] = [
        ("RGB", "JPEG", {"exif": tags}),
        ("L", "JPEG", {"progressive": True}),
        ("CMYK", "JPEG", {}),
        ("RGB", "PNG", {"exif": tags}),
        ("P", "PNG", {"transparency": 3}),
        ("LA", "PNG", {}),
        ("I;16", "PNG", {}),
        ("RGB", "WEBP", {}),
        ("RGBA", "WEBP", {"lossless": True}),
        ("RGB", "TIFF", {}),
        ("RGB", "TIFF", {"compression": "tiff_lzw"}),
        ("RGB", "TIFF", {"compression": "tiff_adobe_deflate"}),
        ("1", "TIFF", {"compression": "group4"}),
        ("F", "TIFF", {}),
    ]
    return [encode_image(_convert(picture, mode), kind, **more) for mode, kind, more in variants]


def _convert(picture: Image.Image, mode: str) -> Image.Image:
    return (
        picture.convert("L").convert("I").convert(mode) if mode == "I;16" else picture.convert(mode)
    )


def mutate(data: bytes, chance: random.Random) -> bytes:
    """Change, drop, repeat or replace a few bytes."""
    broken = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 4, 16))):
        at = chance.randrange(max(1, len(broken)))
        length = chance.choice((1, 2, 4, 32))
        kind = chance.randrange(5)
        if kind == 0:
            broken[at : at + length] = chance.randbytes(length)
        elif kind == 1:
            del broken[at : at + length]
        elif kind == 2:
            broken[at:at] = broken[at : at + length]
        elif kind == 3:
            broken[at : at + length] = chance.choice((b"\0", b"\xff", b"\x7f", b"\x80")) * length
        else:
            del broken[at:]
    return bytes(broken)
