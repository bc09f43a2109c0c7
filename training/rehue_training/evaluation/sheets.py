"""Contact sheets: each row shows one photograph colorized by several methods."""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from rehue_core.lab import UInt8

TILE_SIDE = 220  # pixels, square
MARGIN = 6
LINE_HEIGHT = 18  # height of a line of text
WHITE = 255
INK = (40, 40, 40)


@dataclass(frozen=True)
class Row:
    """One photograph: a label, and a picture per method (HWC uint8)."""

    label: str
    pictures: Sequence[UInt8]


def make_sheet(headings: Sequence[str], rows: Sequence[Row], *, across: int = 1) -> UInt8:
    """Draw the rows under the column headings, with `across` photographs per line."""
    strips = [_draw_row(row) for row in rows]
    lines = [strips[start : start + across] for start in range(0, len(strips), across)]
    width = strips[0].shape[1] * across
    body = [_pad_right(np.hstack(line), width) for line in lines]
    return np.vstack([_draw_headings(headings, across), *body])


def _draw_row(row: Row) -> UInt8:
    tiles = np.hstack([_draw_tile(picture) for picture in row.pictures])
    return np.vstack([tiles, _draw_text([row.label], tiles.shape[1])])


def _draw_tile(picture: UInt8) -> UInt8:
    """Fit the picture into a white square with a margin."""
    inner = TILE_SIDE - MARGIN
    height, width = picture.shape[:2]
    scale = inner / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    out = np.full((TILE_SIDE, TILE_SIDE, 3), WHITE, np.uint8)
    top, left = (TILE_SIDE - size[1]) // 2, (TILE_SIDE - size[0]) // 2
    resized = cv2.resize(picture, size, interpolation=interpolation)
    out[top : top + size[1], left : left + size[0]] = resized
    return out


def _draw_headings(headings: Sequence[str], across: int) -> UInt8:
    return _draw_text(list(headings) * across, TILE_SIDE * len(headings) * across)


def _draw_text(words: Sequence[str], width: int) -> UInt8:
    out = np.full((LINE_HEIGHT, width, 3), WHITE, np.uint8)
    for index, word in enumerate(words):
        position = (width * index // len(words) + MARGIN, LINE_HEIGHT - 5)
        cv2.putText(out, word, position, cv2.FONT_HERSHEY_SIMPLEX, 0.42, INK, 1, cv2.LINE_AA)
    return out


def _pad_right(strip: UInt8, width: int) -> UInt8:
    missing = width - strip.shape[1]
    return np.pad(strip, ((0, 0), (0, missing), (0, 0)), constant_values=WHITE)
