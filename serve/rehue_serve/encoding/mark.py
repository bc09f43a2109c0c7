"""The visible mark: a small plate in the lower right corner that says "AI colour"."""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

WORDS = ("AI colour", "AI")  # the longest that fits
SHARE = 0.03  # of the picture's shorter side: the size of the letters
SMALLEST = 11.0  # pixels; smaller letters cannot be read
_PLATE = 0.55  # opacity of the dark plate; the letters are white
_SMOOTH = 4  # the plate is drawn so many times larger, for smooth corners


@dataclass(frozen=True)
class Mark:
    """A mark at its place in a picture.

    Attributes:
        top, left: of its upper left corner, in pixels.
        opacity: hw1 float32, 0..1.
        light: hw1 float32, 0..1: black to white.
    """

    top: int
    left: int
    opacity: NDArray[np.float32]
    light: NDArray[np.float32]

    def blend(self, rows: NDArray[Any], first: int) -> None:
        """Lay the mark over some rows of the picture, in place.

        Args:
            rows: HW3 RGB, or HW4 with alpha, uint8 or uint16.
            first: number of the first of these rows in the picture.
        """
        height, width, _ = self.opacity.shape
        start, end = max(first, self.top), min(first + len(rows), self.top + height)
        if start >= end:
            return
        part = slice(start - self.top, end - self.top)
        under = rows[start - first : end - first, self.left : self.left + width]
        largest = np.float32(np.iinfo(rows.dtype).max)
        colors, opacity = under[..., :3] / largest, self.opacity[part]
        alpha = under[..., 3:] / largest if rows.shape[2] == 4 else np.ones_like(opacity)
        seen = opacity + alpha * (1 - opacity)
        mixed = self.light[part] * opacity + colors * alpha * (1 - opacity)
        under[..., :3] = np.rint(mixed / np.maximum(seen, 1e-6) * largest)
        under[..., 3:] = np.rint(seen * largest)[..., : rows.shape[2] - 3]


@lru_cache(maxsize=8)
def draw_mark(height: int, width: int) -> Mark | None:
    """Draw the mark for a picture of this size; None if there is no room for readable letters."""
    size = max(SMALLEST, SHARE * min(height, width))
    margin = round(size / 2)
    for words in WORDS:
        opacity, light = _draw(words, size)
        rows, columns = opacity.shape
        if rows + 2 * margin <= height and columns + 2 * margin <= width:
            top, left = height - margin - rows, width - margin - columns
            return Mark(top, left, opacity[..., None], light[..., None])
    return None


def _draw(words: str, size: float) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Draw plate and letters; returns opacity and light, HW."""
    font = ImageFont.load_default(size)
    left, top, right, bottom = font.getbbox(words)
    across, down = round(size * 0.5), round(size * 0.35)
    width, height = int(right - left) + 2 * across, int(bottom - top) + 2 * down
    large = Image.new("L", (width * _SMOOTH, height * _SMOOTH))
    box = (0, 0, large.width - 1, large.height - 1)
    ImageDraw.Draw(large).rounded_rectangle(box, large.height * 0.3, fill=255)
    plate = np.asarray(large.reduce(_SMOOTH), np.float32) / 255 * _PLATE
    drawn = Image.new("L", (width, height))
    ImageDraw.Draw(drawn).text((across - left, down - top), words, fill=255, font=font)
    letters = np.asarray(drawn, np.float32) / 255
    opacity = letters + plate * (1 - letters)
    return opacity, letters / np.maximum(opacity, 1e-6)
