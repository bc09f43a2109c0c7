"""Palettes: the main colours of a picture, and their transfer to an ab field.

The transfer follows the idea of Reinhard et al., "Color Transfer between Images" (2001), with
swatches instead of global statistics: a place takes the colours of the palette that are near its
own lightness and predicted colour.
"""

import numpy as np

from rehue_core import lab
from rehue_core.lab import Float32, UInt8

MAIN_COLORS = 8  # of a reference picture
ROUNDS = 20  # of k-means; it rarely changes after ten
# Distances in Lab units at which a colour of the palette has lost most of its influence. A
# prediction is paler than the truth, so ab counts less than it would between two photographs.
LIGHTNESS_REACH = 12.0
AB_REACH = 30.0
OWN_WEIGHT = 0.05  # of the place's own colour, which stays where nothing in the palette fits
LIGHTNESS_WEIGHT = 0.5  # of L against ab in k-means: "of its ab", but shadows apart from lights


def extract_palette(pixels: UInt8) -> Float32:
    """Return the main colours of a picture, the most frequent first.

    Lloyd's k-means in Lab, started from the colours farthest apart (Gonzalez, 1985), so that the
    same picture always gives the same palette.

    Args:
        pixels: HW3 sRGB, 0..255; some thousand are enough.

    Returns:
        Up to `MAIN_COLORS` x 3, L, a and b.
    """
    points = lab.convert_to_lab(pixels).reshape(-1, 3)
    scale = np.array([LIGHTNESS_WEIGHT, 1, 1], np.float32)
    centers = _find_far_points(points * scale, MAIN_COLORS)
    for _ in range(ROUNDS):
        nearest = _measure_distances(points * scale, centers).argmin(axis=1)
        used = np.unique(nearest)
        centers = np.stack([(points[nearest == k] * scale).mean(axis=0) for k in used])
    nearest = _measure_distances(points * scale, centers).argmin(axis=1)
    counts = np.bincount(nearest, minlength=len(centers))
    order = np.argsort(-counts, kind="stable")
    return np.asarray((centers / scale)[order], np.float32)


def _find_far_points(points: Float32, count: int) -> Float32:
    """Return the point nearest to the mean, and those farthest from all found before."""
    start = ((points - points.mean(axis=0)) ** 2).sum(axis=1).argmin()
    found = [points[start]]
    distances = ((points - found[0]) ** 2).sum(axis=1)
    while len(found) < count and distances.max() > 1:
        found.append(points[distances.argmax()])
        distances = np.minimum(distances, ((points - found[-1]) ** 2).sum(axis=1))
    return np.stack(found)


def _measure_distances(points: Float32, centers: Float32) -> Float32:
    """Return squared distances, points x centers."""
    return np.asarray(((points[:, None] - centers[None]) ** 2).sum(axis=2))


def apply_palette(ab: Float32, lightness: Float32, palette: Float32, strength: float) -> Float32:
    """Return ab drawn to the colours of a palette, where they fit.

    Args:
        ab: hw2, Lab units.
        lightness: hw, 0..100, of the same size.
        palette: N3, L, a and b.
        strength: 0 leaves ab as it is, 1 draws it all the way.
    """
    summed = OWN_WEIGHT * ab
    total = np.full(lightness.shape, OWN_WEIGHT, np.float32)
    for color in palette:
        away = ((lightness - color[0]) / LIGHTNESS_REACH) ** 2
        away += ((ab - color[1:]) ** 2).sum(axis=2) / np.float32(AB_REACH**2)
        weight = np.exp(-away)
        summed += weight[..., None] * color[1:]
        total += weight
    return np.asarray(ab + np.float32(strength) * (summed / total[..., None] - ab), np.float32)
