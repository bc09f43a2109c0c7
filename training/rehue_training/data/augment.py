"""Making today's photographs look like old ones: only L is changed.

The colours to predict stay those of the photograph; the lightness that the
network sees is what an old camera, an old print or a bad scan would have left.
Plain cv2 and NumPy: about a millisecond for a crop of 128 pixels.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

from rehue_core import lab

UInt8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]
Effect = Callable[[Float32, np.random.Generator], Float32]


def simulate_film(rgb: UInt8, rng: np.random.Generator) -> Float32:
    """L (HW float32, 0..100) of a picture (HWC uint8) as an old photograph's.

    The emulsion always differs from the eye's weights; every other flaw comes
    with the chance beside it in `FLAWS`.
    """
    gray = apply_emulsion(rgb, rng)
    for effect, chance in FLAWS:
        if rng.random() < chance:
            gray = effect(gray, rng)
    counts = np.clip(gray + 0.5, 0, 255).astype(np.uint8)
    if rng.random() < JPEG_CHANCE:
        counts = compress_jpeg(counts, rng)
    return lab.compute_lightness(counts)


def apply_emulsion(rgb: UInt8, rng: np.random.Generator) -> Float32:
    """Gray (HW float32, 0..255) as black-and-white film sees colours.

    Orthochromatic film (to the 1920s) is blind to red: blue and green only.
    Panchromatic film sees all three, in weights of its own.
    """
    if rng.random() < 0.25:
        blue = rng.uniform(0.3, 0.8)
        weights = np.array([0.0, 1 - blue, blue])
    else:
        weights = rng.dirichlet((6.0, 10.0, 3.0))
    return np.asarray(rgb @ weights.astype(np.float32), np.float32)


def change_contrast(gray: Float32, rng: np.random.Generator) -> Float32:
    """A range that fills less, or more, than black to white."""
    return (gray - 128) * np.float32(rng.uniform(0.55, 1.2)) + np.float32(
        128 + rng.uniform(-20, 20)
    )


def change_gamma(gray: Float32, rng: np.random.Generator) -> Float32:
    """Another paper's or another scanner's curve."""
    power = np.float32(np.exp(rng.uniform(-0.4, 0.4)))
    return np.asarray(255 * (np.clip(gray, 0, 255) / np.float32(255)) ** power, np.float32)


def fade(gray: Float32, rng: np.random.Generator) -> Float32:
    """Blacks that have gone gray and whites that have yellowed."""
    black, white = rng.uniform(0, 60), rng.uniform(200, 255)
    return np.asarray(gray * np.float32((white - black) / 255) + np.float32(black), np.float32)


def add_vignette(gray: Float32, rng: np.random.Generator) -> Float32:
    """Corners darkened by the lens, around a centre that need not be the middle."""
    height, width = gray.shape
    down = (np.linspace(-1, 1, height, dtype=np.float32) - np.float32(rng.uniform(-0.3, 0.3))) ** 2
    across = (np.linspace(-1, 1, width, dtype=np.float32) - np.float32(rng.uniform(-0.3, 0.3))) ** 2
    shade = 1 - np.float32(rng.uniform(0.05, 0.3)) * (down[:, None] + across[None, :])
    return np.asarray(gray * np.clip(shade, 0, 1), np.float32)


def blur(gray: Float32, rng: np.random.Generator) -> Float32:
    """An old lens, or a print not quite in focus."""
    return np.asarray(cv2.GaussianBlur(gray, (0, 0), rng.uniform(0.4, 1.3)), np.float32)


def add_grain(gray: Float32, rng: np.random.Generator) -> Float32:
    """Silver grain: noise with a little size to it, strongest in the middle tones."""
    noise = rng.standard_normal(gray.shape, np.float32)
    if rng.random() < 0.5:
        noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), 0.7), np.float32) * np.float32(2.0)
    middle = 1 - np.abs(np.clip(gray, 0, 255) / 255 - np.float32(0.5))
    return np.asarray(gray + noise * middle * np.float32(rng.uniform(2, 14)), np.float32)


def add_scratches(gray: Float32, rng: np.random.Generator) -> Float32:
    """A few thin bright or dark lines, mostly upright, and specks of dust."""
    out = gray.copy()
    height, width = gray.shape
    for _ in range(rng.integers(1, 5)):
        top, left = int(rng.integers(height)), int(rng.integers(width))
        bottom, right = top + int(rng.integers(height)), left + int(rng.integers(-6, 7))
        cv2.line(out, (left, top), (right, bottom), float(rng.choice([20, 235])), 1, cv2.LINE_AA)
    for _ in range(rng.integers(0, 8)):
        at = (int(rng.integers(width)), int(rng.integers(height)))
        cv2.circle(out, at, int(rng.integers(1, 2)), float(rng.choice([20, 235])), -1)
    return out


def compress_jpeg(counts: UInt8, rng: np.random.Generator) -> UInt8:
    """Blocks and ringing of a picture (HW uint8) saved with too low a quality."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 90))]
    _, encoded = cv2.imencode(".jpg", counts, quality)
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE), np.uint8)


JPEG_CHANCE = 0.3
FLAWS: tuple[tuple[Effect, float], ...] = (
    (change_contrast, 0.4),
    (change_gamma, 0.3),
    (add_vignette, 0.2),
    (fade, 0.3),
    (blur, 0.2),
    (add_scratches, 0.05),
    (add_grain, 0.4),
)
