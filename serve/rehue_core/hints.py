"""Colours that a person gives to places of a photograph, spread over what belongs together.

Nearness is the length of the shortest path from a hint that avoids edges of the lightness: the
geodesic distance of Yatziv and Sapiro, "Fast Image and Video Colorization Using Chrominance
Blending" (2006), by the raster scans of Toivanen (1996). A place follows a hint as far as it is
near to it and like it in lightness and predicted colour. Several hints are blended by the inverse
of their distances (Shepard, 1968), so that each has its own colour at its own place, and far from
all of them the predicted colour stays.

Hints are spread on a small grid; the change is enlarged along the photograph's edges by a guided
filter (He and Sun, "Fast Guided Filter", 2015).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from rehue_core import lab
from rehue_core.lab import Float32
from rehue_core.loops import compile_loop

GRID_SIDE = 192  # cells on the long side of the grid on which hints are spread
FINE_SIDE = 1024  # of the grid to which the change is enlarged

# A hint's influence is exp(-distance squared). A distance of 1 is each of these:
PATH_REACH = 0.5  # of the long side, along a path without edges
EDGE_REACH = 25.0  # L that the path climbs and descends in steps of more than EDGE_TOLERANCE
EDGE_TOLERANCE = 4.0  # L from cell to cell: texture and noise
LIGHTNESS_REACH = 25.0  # difference from the hint's place in L
AB_REACH = 25.0  # and in predicted ab

SCANS = 4  # of the grid; a path that winds more often is found longer than it is
NEAREST = 1e-4  # keeps the weight at the hint's own place finite
GUIDE_RADIUS = 2  # cells around each within which the change is a linear function of L
GUIDE_EPSILON = 9.0  # variance of L: weaker edges are smoothed over


@dataclass(frozen=True)
class Seed:
    """A hint: ``x`` and ``y`` as shares of width and height, 0..1, and Lab's a and b."""

    x: float
    y: float
    a: float
    b: float


def spread_hints(
    ab: Float32, lightness: Float32, seeds: Sequence[Seed], size: tuple[int, int]
) -> Float32:
    """Return ab with the colours of the hints, on a finer grid.

    Where two hints are less than a cell of that grid apart, the later one counts.

    Args:
        ab: hw2, Lab units, without the hints.
        lightness: HW, 0..100, of the finer grid; see `fit_fine_grid`.
        seeds: at least one.
        size: height and width of the photograph in pixels.

    Returns:
        HW2. Enlarged to the photograph's size as a picture's is, it has exactly the hint's ab
        at the hint's pixel.
    """
    grid = lab.resize(lightness, _fit_side(*size, GRID_SIDE))
    change = _compute_change(lab.resize(ab, grid.shape), grid, seeds)
    result = lab.resize(ab, lightness.shape) + _enlarge_along_edges(change, grid, lightness)
    for seed in seeds:
        rows = _find_cells(seed.y, size[0], lightness.shape[0])
        columns = _find_cells(seed.x, size[1], lightness.shape[1])
        result[rows, columns] = seed.a, seed.b
    return np.asarray(result, np.float32)


def fit_fine_grid(height: int, width: int) -> tuple[int, int]:
    """Return height and width of the finer grid for a photograph of this size."""
    return _fit_side(height, width, FINE_SIDE)


def _fit_side(height: int, width: int, side: int) -> tuple[int, int]:
    """Return height and width, shrunk to at most ``side``."""
    scale = min(1.0, side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def _find_cells(share: float, size: int, cells: int) -> slice:
    """Return the cells that the pixel at this share of a side is interpolated from."""
    pixel = min(int(share * size), size - 1)
    position = min(max((pixel + 0.5) * cells / size - 0.5, 0.0), cells - 1.0)
    return slice(int(position), min(int(position) + 1, cells - 1) + 1)


def _compute_change(ab: Float32, lightness: Float32, seeds: Sequence[Seed]) -> Float32:
    """Compute the change of ab (hw2) on the grid, all arrays of the same height and width."""
    height, width = lightness.shape
    a, b = (np.ascontiguousarray(ab[..., channel]) for channel in (0, 1))
    path = np.empty_like(lightness)
    summed = np.zeros_like(ab)
    total = np.ones_like(lightness)  # the predicted colour's own weight
    for seed in seeds:
        y, x = min(int(seed.y * height), height - 1), min(int(seed.x * width), width - 1)
        _fill_path_lengths(lightness, y, x, np.float32(1 / (PATH_REACH * max(height, width))), path)
        away = path**2 + ((lightness - lightness[y, x]) / LIGHTNESS_REACH) ** 2
        away += ((a - a[y, x]) ** 2 + (b - b[y, x]) ** 2) / np.float32(AB_REACH**2)
        influence = np.exp(-away)
        weight = influence / (1 - influence + np.float32(NEAREST))
        summed[..., 0] += weight * (np.float32(seed.a) - a)
        summed[..., 1] += weight * (np.float32(seed.b) - b)
        total += weight
    return summed / total[..., None]


@compile_loop
def _fill_path_lengths(lightness: Float32, y: int, x: int, step: float, out: Float32) -> None:
    """Fill the length of the shortest path from a cell to every other one.

    Args:
        step: length of a step to the next cell where there is no edge.
    """
    height, width = lightness.shape
    out[:] = np.float32(1e9)
    out[y, x] = np.float32(0)
    for scan in range(SCANS):
        back = -1 if scan % 2 == 0 else 1  # to the cells that this scan has passed
        for i in range(height):
            row = i if back < 0 else height - 1 - i
            for j in range(width):
                column = j if back < 0 else width - 1 - j
                shortest = out[row, column]
                for k in range(4):  # three in the row before, one in this row
                    other_row = row + back if k < 3 else row
                    other_column = column + (k - 1 if k < 3 else back)
                    if not (0 <= other_row < height and 0 <= other_column < width):
                        continue
                    diagonal = np.float32(1.41421356 if k == 0 or k == 2 else 1.0)
                    climb = abs(lightness[row, column] - lightness[other_row, other_column])
                    edge = max(climb - np.float32(EDGE_TOLERANCE), np.float32(0))
                    length = out[other_row, other_column] + step * diagonal
                    shortest = min(shortest, length + edge * np.float32(1 / EDGE_REACH))
                out[row, column] = shortest


def _enlarge_along_edges(change: Float32, lightness: Float32, fine: Float32) -> Float32:
    """Enlarge hw2 to the size of the fine lightness: around every cell linear in L."""
    window = (2 * GUIDE_RADIUS + 1,) * 2

    def mean(values: Float32) -> Float32:
        return np.asarray(cv2.blur(values, window, borderType=cv2.BORDER_REFLECT_101))

    mean_lightness, mean_change = mean(lightness), mean(change)
    variance = mean(lightness**2) - mean_lightness**2
    covariance = mean(lightness[..., None] * change) - mean_lightness[..., None] * mean_change
    slope = covariance / (np.maximum(variance, 0) + GUIDE_EPSILON)[..., None]
    level = mean_change - slope * mean_lightness[..., None]
    # In OpenCV and channel by channel: a quarter of the time of NumPy's broadcasting.
    enlarged = np.asarray(cv2.multiply(lab.resize(mean(slope), fine.shape), cv2.merge([fine] * 2)))
    enlarged += lab.resize(mean(level), fine.shape)
    for channel in (0, 1):
        # A steep slope must not lead beyond the colours that were asked for.
        limits = change[..., channel].min(), change[..., channel].max()
        np.clip(enlarged[..., channel], *limits, out=enlarged[..., channel])
    return enlarged
