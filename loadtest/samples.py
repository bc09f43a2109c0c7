"""What load tests send: photographs of mixed sizes and formats, and bad inputs.

The photographs are those of `tests/photos`, made gray, resized and encoded when a
test starts. All of them are in memory before the first request.
"""

import functools
import io
import random
import zlib
from dataclasses import dataclass
from pathlib import Path

import cv2
from PIL import Image

ROOT = Path(__file__).parents[1]
PHOTOS = ROOT / "tests" / "photos"

# Longest side in pixels, format, and percentage of the photographs: mostly what phones
# and web pages hold, some scans.
MIX = (
    (256, "jpeg", 15),
    (512, "jpeg", 35),
    (1024, "jpeg", 20),
    (2048, "jpeg", 5),
    (512, "png", 10),
    (1024, "webp", 10),
    (1024, "tiff", 5),
)
PHOTOGRAPHS_PER_ROW = 4  # of MIX, all different


@dataclass(frozen=True)
class Sample:
    """The body of a request.

    Attributes:
        name: the label in reports, for example ``jpeg 512``.
        reason: the error reason with which the server has to refuse it; empty for a
            photograph.
    """

    name: str
    data: bytes
    reason: str = ""


@dataclass(frozen=True)
class Samples:
    """Photographs with their weights, and bad inputs."""

    photographs: tuple[Sample, ...]
    weights: tuple[float, ...]
    bad: tuple[Sample, ...]

    def choose(self, generator: random.Random, bad_share: float = 0.0) -> Sample:
        """Return a random sample; ``bad_share`` (0 to 1) of them are bad."""
        if generator.random() < bad_share:
            return generator.choice(self.bad)
        return generator.choices(self.photographs, self.weights)[0]


@functools.cache
def create_mix() -> Samples:
    """Return the samples of `MIX` and the bad inputs."""
    paths = sorted(PHOTOS.glob("*.jpg"))
    photographs, weights = [], []
    for row, (side, format, weight) in enumerate(MIX):
        for number in range(PHOTOGRAPHS_PER_ROW):
            image = load_gray(paths[(row * PHOTOGRAPHS_PER_ROW + number) % len(paths)], side)
            photographs.append(Sample(f"{format} {side}", encode(image, format)))
            weights.append(weight / PHOTOGRAPHS_PER_ROW)
    return Samples(tuple(photographs), tuple(weights), create_bad_inputs(photographs[0].data))


def create_squares(side: int = 512, count: int = 8) -> list[bytes]:
    """Return square gray JPEGs of one size, for comparisons."""
    return [
        encode(Image.open(path).convert("L").resize((side, side), Image.Resampling.LANCZOS))
        for path in sorted(PHOTOS.glob("*.jpg"))[:count]
    ]


def create_photograph(width: int, height: int, *, gray: bool = False) -> bytes:
    """Return a JPEG of that size and quality 90, always of the same photograph."""
    kind = cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR
    pixels = cv2.imread(str(PHOTOS / "skimage_astronaut.jpg"), kind)
    shrinks = max(width, height) <= 512
    pixels = cv2.resize(
        pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    )
    return bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())


def load_gray(path: Path, side: int) -> Image.Image:
    """Return a photograph in gray with its longest side of that many pixels."""
    image = Image.open(path).convert("L")
    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def encode(image: Image.Image, format: str = "jpeg") -> bytes:
    """Encode with quality 90, for formats that have one."""
    file = io.BytesIO()
    image.save(file, format, quality=90)
    return file.getvalue()


def create_bad_inputs(jpeg: bytes) -> tuple[Sample, ...]:
    """Return inputs that a server has to refuse, each with the reason."""
    png = encode(Image.new("L", (8, 8)), "png")
    # A header that claims 2,500 million pixels: width and height are its bytes 16 to 24.
    header = png[12:16] + (50_000).to_bytes(4) * 2 + png[24:29]
    huge = png[:12] + header + zlib.crc32(header).to_bytes(4) + png[33:]
    return (
        Sample("truncated", jpeg[: len(jpeg) // 2], "INVALID_IMAGE"),
        Sample("text", b"not a photograph " * 50, "INVALID_IMAGE"),
        Sample("empty", b"", "INVALID_IMAGE"),
        Sample("bmp", encode(Image.new("L", (64, 64)), "bmp"), "UNSUPPORTED_IMAGE"),
        Sample("huge", huge, "IMAGE_TOO_LARGE"),
    )
