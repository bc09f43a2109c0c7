"""Whether two scans of one photograph get the same colours.

A photograph is colorized as it is, and again as other scans of it: smaller, of another contrast,
turned a little, saved as a poor JPEG. Each answer is brought back to the photograph's own
geometry; the mean CIEDE2000 between the answers is 0 for colours that depend on nothing but the
scene. Lightness is left out of the comparison, since no version changes it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np
from skimage.color import deltaE_ciede2000

from rehue_core import lab
from rehue_core.lab import Float32, UInt8
from rehue_core.rgb import convert_to_rgb

COMPARED_AT = 128  # pixels on the short side: colours are coarse, and this is four times as quick
SMALLER = 0.6
CONTRAST = (0.8, 12.0)  # factor and offset of L
DEGREES = 3.0
JPEG_QUALITY = 60
MARGIN = 0.1  # of each side left out: what a turn moves over the edge

Change = Callable[[Float32], Float32]


class Method(Protocol):
    """Whatever gives a photograph's lightness its colours."""

    def colorize(self, lightness: Float32) -> UInt8: ...


@dataclass(frozen=True)
class Scan:
    """Another scan of a photograph, and the way back to the photograph's geometry."""

    change: Change  # L, HW float32, 0..100
    back: Callable[[Float32], Float32] = lambda ab: ab  # a or b of the answer, HW


def measure_inconsistency(method: Method, lightness: Float32) -> float:
    """Mean CIEDE2000 between the answers to a photograph (L, HW float32) and to its other scans."""
    own = _split_ab(method.colorize(lightness))
    differences = [
        _compare_fields(own, [scan.back(plane) for plane in _split_ab(method.colorize(changed))])
        for scan in SCANS
        for changed in [scan.change(lightness)]
    ]
    return float(np.mean(differences))


def _split_ab(picture: UInt8) -> list[Float32]:
    """a and b (HW float32, Lab units) of a picture (HWC uint8)."""
    full = cv2.cvtColor(picture.astype(np.float32) / np.float32(255), cv2.COLOR_RGB2LAB)
    return [np.ascontiguousarray(full[..., channel]) for channel in (1, 2)]


def _compare_fields(own: list[Float32], other: list[Float32]) -> float:
    height, width = own[0].shape
    scale = min(1.0, COMPARED_AT / min(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    pictures = []
    for planes in (own, other):
        small = [cv2.resize(plane, size, interpolation=cv2.INTER_AREA) for plane in planes]
        pictures.append(np.dstack([np.full_like(small[0], 50), *small]))
    down, across = (round(side * MARGIN) for side in size[::-1])
    inner = slice(down, size[1] - down), slice(across, size[0] - across)
    return float(deltaE_ciede2000(*(picture[inner] for picture in pictures)).mean())


def _shrink_lightness(lightness: Float32) -> Float32:
    height, width = lightness.shape
    size = (max(1, round(width * SMALLER)), max(1, round(height * SMALLER)))
    return np.asarray(cv2.resize(lightness, size, interpolation=cv2.INTER_AREA), np.float32)


def _lower_contrast(lightness: Float32) -> Float32:
    factor, offset = CONTRAST
    return np.clip(lightness * np.float32(factor) + np.float32(offset), 0, 100)


def _make_turn(degrees: float) -> Change:
    def turn(plane: Float32) -> Float32:
        height, width = plane.shape
        matrix = cv2.getRotationMatrix2D((width / 2 - 0.5, height / 2 - 0.5), degrees, 1.0)
        turned = cv2.warpAffine(plane, matrix, (width, height), borderMode=cv2.BORDER_REFLECT_101)
        return np.asarray(turned, np.float32)

    return turn


def _compress_as_jpeg(lightness: Float32) -> Float32:
    gray = convert_to_rgb(lightness, np.zeros((1, 1, 2), np.float32))[..., 0]
    _, encoded = cv2.imencode(".jpg", gray, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
    decoded = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_GRAYSCALE), np.uint8)
    return np.asarray(lab.compute_lightness(decoded), np.float32)


SCANS = (
    Scan(_shrink_lightness),
    Scan(_lower_contrast),
    Scan(_make_turn(DEGREES), _make_turn(-DEGREES)),
    Scan(_compress_as_jpeg),
)
