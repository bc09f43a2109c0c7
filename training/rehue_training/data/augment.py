"""Make today's photographs look old, or like another scan of the same photograph.

The colours to predict stay those of the photograph. The lightness that the
network sees is what an old camera, an old print or a bad scan would have left.
cv2 and NumPy; about a millisecond for a crop of 128 pixels.
"""

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rehue_core import lab

UInt8 = NDArray[np.uint8]
Int8 = NDArray[np.int8]
Float32 = NDArray[np.float32]
Effect = Callable[[Float32, np.random.Generator], Float32]


def simulate_film(rgb: UInt8, rng: np.random.Generator) -> Float32:
    """Return the L (HW float32, 0..100) that an old photograph of this scene would have.

    The emulsion's channel weights always differ from the eye's. Every other flaw
    is applied with its probability in `FLAWS`.

    Args:
        rgb: HWC uint8 sRGB, 0..255.
        rng: decides every random choice.
    """
    gray = apply_emulsion(rgb, rng)
    for effect, probability in FLAWS:
        if rng.random() < probability:
            gray = effect(gray, rng)
    counts = np.clip(gray + 0.5, 0, 255).astype(np.uint8)
    if rng.random() < JPEG_PROBABILITY:
        counts = compress_jpeg(counts, rng)
    return lab.compute_lightness(counts)


def apply_emulsion(rgb: UInt8, rng: np.random.Generator) -> Float32:
    """Return gray (HW float32, 0..255) as black-and-white film records colours.

    Orthochromatic film (up to the 1920s) records blue and green only.
    Panchromatic film records all three channels, with its own weights.
    """
    if rng.random() < 0.25:
        blue = rng.uniform(0.3, 0.8)
        weights = np.array([0.0, 1 - blue, blue])
    else:
        weights = rng.dirichlet((6.0, 10.0, 3.0))
    return np.asarray(rgb @ weights.astype(np.float32), np.float32)


def change_contrast(gray: Float32, rng: np.random.Generator) -> Float32:
    """Make the tonal range narrower or wider than black to white."""
    return (gray - 128) * np.float32(rng.uniform(0.55, 1.2)) + np.float32(
        128 + rng.uniform(-20, 20)
    )


def change_gamma(gray: Float32, rng: np.random.Generator) -> Float32:
    """Apply the tone curve of another paper or scanner."""
    power = np.float32(np.exp(rng.uniform(-0.4, 0.4)))
    return np.asarray(255 * (np.clip(gray, 0, 255) / np.float32(255)) ** power, np.float32)


def fade(gray: Float32, rng: np.random.Generator) -> Float32:
    """Lift blacks to gray and lower whites, as in a faded print."""
    black, white = rng.uniform(0, 60), rng.uniform(200, 255)
    return np.asarray(gray * np.float32((white - black) / 255) + np.float32(black), np.float32)


def add_vignette(gray: Float32, rng: np.random.Generator) -> Float32:
    """Darken the corners, as a lens does; the centre may be off the middle."""
    height, width = gray.shape
    down = (np.linspace(-1, 1, height, dtype=np.float32) - np.float32(rng.uniform(-0.3, 0.3))) ** 2
    across = (np.linspace(-1, 1, width, dtype=np.float32) - np.float32(rng.uniform(-0.3, 0.3))) ** 2
    shade = 1 - np.float32(rng.uniform(0.05, 0.3)) * (down[:, None] + across[None, :])
    return np.asarray(gray * np.clip(shade, 0, 1), np.float32)


def blur(gray: Float32, rng: np.random.Generator) -> Float32:
    """Blur as an old lens, or a print slightly out of focus."""
    return np.asarray(cv2.GaussianBlur(gray, (0, 0), rng.uniform(0.4, 1.3)), np.float32)


def add_grain(gray: Float32, rng: np.random.Generator) -> Float32:
    """Add silver grain: slightly blurred noise, strongest in the middle tones."""
    noise = rng.standard_normal(gray.shape, np.float32)
    if rng.random() < 0.5:
        noise = np.asarray(cv2.GaussianBlur(noise, (0, 0), 0.7), np.float32) * np.float32(2.0)
    middle = 1 - np.abs(np.clip(gray, 0, 255) / 255 - np.float32(0.5))
    return np.asarray(gray + noise * middle * np.float32(rng.uniform(2, 14)), np.float32)


def add_scratches(gray: Float32, rng: np.random.Generator) -> Float32:
    """Draw a few thin bright or dark lines, mostly vertical, and specks of dust."""
    out = gray.copy()
    height, width = gray.shape
    for _ in range(rng.integers(1, 5)):
        top, left = int(rng.integers(height)), int(rng.integers(width))
        bottom, right = top + int(rng.integers(height)), left + int(rng.integers(-6, 7))
        cv2.line(out, (left, top), (right, bottom), float(rng.choice([20, 235])), 1, cv2.LINE_AA)
    for _ in range(rng.integers(0, 8)):
        center = (int(rng.integers(width)), int(rng.integers(height)))
        cv2.circle(out, center, int(rng.integers(1, 2)), float(rng.choice([20, 235])), -1)
    return out


def compress_jpeg(counts: UInt8, rng: np.random.Generator) -> UInt8:
    """Save a picture (HW uint8) at low JPEG quality, for its blocks and ringing."""
    quality = [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(30, 90))]
    _, encoded = cv2.imencode(".jpg", counts, quality)
    return np.asarray(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE), np.uint8)


def rescan(lightness: UInt8, ab: Int8, rng: np.random.Generator) -> tuple[UInt8, Int8]:
    """Return another scan of a photograph: other contrast, a little turned, blurred, as a JPEG.

    Colours should not depend on any of it; `evaluation.consistency` measures whether they do.

    Args:
        lightness: HW uint8, L in counts of 100/255.
        ab: hw2 int8, Lab units, of the same scene at a lower resolution. It is turned too.
    """
    if rng.random() < 0.5:
        degrees = rng.uniform(-MAX_TURN, MAX_TURN)
        lightness, ab = (np.asarray(_turn(plane, degrees)) for plane in (lightness, ab))
    gray = lightness.astype(np.float32)
    if rng.random() < 0.5:
        gray = change_contrast(gray, rng)
    if rng.random() < 0.3:
        gray = change_gamma(gray, rng)
    if rng.random() < 0.4:
        gray = blur(gray, rng)
    counts = np.clip(gray + 0.5, 0, 255).astype(np.uint8)
    return (compress_jpeg(counts, rng) if rng.random() < 0.4 else counts), ab


def _turn(plane: NDArray[Any], degrees: float) -> NDArray[Any]:
    """Turn a plane (HW or HWC) about its middle; its mirror image fills the corners."""
    height, width = plane.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2 - 0.5, height / 2 - 0.5), degrees, 1.0)
    kind = np.float32 if plane.dtype == np.int8 else plane.dtype  # cv2 has no kernel for int8
    turned = cv2.warpAffine(
        plane.astype(kind), matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101
    )
    return np.asarray(np.rint(turned).astype(plane.dtype))


MAX_TURN = 4.0  # degrees
JPEG_PROBABILITY = 0.3
FLAWS: tuple[tuple[Effect, float], ...] = (
    (change_contrast, 0.4),
    (change_gamma, 0.3),
    (add_vignette, 0.2),
    (fade, 0.3),
    (blur, 0.2),
    (add_scratches, 0.05),
    (add_grain, 0.4),
)
