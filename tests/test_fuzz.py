"""Broken photographs by the thousand: each decodes or is refused, nothing else.

Seeds are fixed, so a failure is found again by its number.
"""

import random

from conftest import PHOTOS
from PIL import Image
from test_images import encoded

from rehue_serve import images
from rehue_serve.errors import RehueError

COUNT = 10_000
LIMITS = {"max_bytes": 1_000_000, "max_pixels": 1_000_000}


def samples() -> list[bytes]:
    """One small photograph in every kind that is read, and in unusual variants."""
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
    return [encoded(_converted(picture, mode), kind, **more) for mode, kind, more in variants]


def _converted(picture: Image.Image, mode: str) -> Image.Image:
    return (
        picture.convert("L").convert("I").convert(mode) if mode == "I;16" else picture.convert(mode)
    )


def mutated(data: bytes, chance: random.Random) -> bytes:
    """A few bytes changed, dropped, doubled, or swapped for telling values."""
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


def test_mutated_photographs_decode_or_are_refused() -> None:
    originals = samples()
    refused = 0
    for number in range(COUNT):
        chance = random.Random(number)
        data = mutated(chance.choice(originals), chance)
        try:
            _, image = images.open_image(data, **LIMITS)
            pixels = images.decode(image)
        except RehueError:
            refused += 1
            continue
        except Exception as error:
            raise AssertionError(f"photograph {number}: {error!r}") from error
        assert pixels.ndim in (2, 3)
    assert COUNT / 10 < refused < COUNT
