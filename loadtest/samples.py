"""What load tests send: real photographs of mixed sizes and formats, and bad inputs.

The photographs are those of `tests/photos`, made gray, resized and encoded when a
test starts. Everything is in memory before the first request.
"""

import functools
import io
import random
import zlib
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

PHOTOS = Path(__file__).parents[1] / "tests" / "photos"

# Longest side in pixels, format, and how many in a hundred photographs are such:
# mostly what phones and web pages hold, some scans.
MIX = (
    (256, "jpeg", 15),
    (512, "jpeg", 35),
    (1024, "jpeg", 20),
    (2048, "jpeg", 5),
    (512, "png", 10),
    (1024, "webp", 10),
    (1024, "tiff", 5),
)
OF_EACH = 4  # different photographs of every row


@dataclass(frozen=True)
class Sample:
    """One request's body.

    Attributes:
        name: short, the label in reports, for example ``jpeg 512``.
        reason: why the server has to refuse it, as its errors name reasons; empty for
            a photograph.
    """

    name: str
    data: bytes
    reason: str = ""


@dataclass(frozen=True)
class Samples:
    """Photographs with their weights, and bad inputs among them."""

    photographs: tuple[Sample, ...]
    weights: tuple[float, ...]
    bad: tuple[Sample, ...]

    def one(self, chance: random.Random, bad_share: float = 0.0) -> Sample:
        """One sample by chance; ``bad_share`` (0 to 1) of them are bad."""
        if chance.random() < bad_share:
            return chance.choice(self.bad)
        return chance.choices(self.photographs, self.weights)[0]


@functools.cache
def mixed() -> Samples:
    """The mix, for load tests."""
    paths = sorted(PHOTOS.glob("*.jpg"))
    photographs, weights = [], []
    for row, (side, format, weight) in enumerate(MIX):
        for number in range(OF_EACH):
            image = photograph(paths[(row * OF_EACH + number) % len(paths)], side)
            photographs.append(Sample(f"{format} {side}", encoded(image, format)))
            weights.append(weight / OF_EACH)
    return Samples(tuple(photographs), tuple(weights), bad(photographs[0].data))


def squares(side: int = 512, count: int = 8) -> list[bytes]:
    """Square gray JPEGs of one size, for comparisons."""
    return [
        encoded(Image.open(path).convert("L").resize((side, side), Image.Resampling.LANCZOS))
        for path in sorted(PHOTOS.glob("*.jpg"))[:count]
    ]


def photograph(path: Path, side: int) -> Image.Image:
    """Gray, its longest side as given, its shape kept."""
    image = Image.open(path).convert("L")
    scale = side / max(image.size)
    width, height = (max(1, round(length * scale)) for length in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def encoded(image: Image.Image, format: str = "jpeg") -> bytes:
    file = io.BytesIO()
    image.save(file, format, quality=90)
    return file.getvalue()


def bad(jpeg: bytes) -> tuple[Sample, ...]:
    """What a server meets beside photographs, with the reason for which it refuses each."""
    png = encoded(Image.new("L", (8, 8)), "png")
    # A header that claims 2,500 million pixels: width and height are its bytes 16 to 24.
    header = png[12:16] + (50_000).to_bytes(4) * 2 + png[24:29]
    huge = png[:12] + header + zlib.crc32(header).to_bytes(4) + png[33:]
    return (
        Sample("cut short", jpeg[: len(jpeg) // 2], "INVALID_IMAGE"),
        Sample("text", b"not a photograph " * 50, "INVALID_IMAGE"),
        Sample("nothing", b"", "INVALID_IMAGE"),
        Sample("gif", encoded(Image.new("L", (64, 64)), "gif"), "UNSUPPORTED_IMAGE"),
        Sample("huge", huge, "IMAGE_TOO_LARGE"),
    )
