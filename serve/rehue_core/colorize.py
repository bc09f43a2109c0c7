"""From a photograph to the network's input, and from its output to a picture.

Plain functions over arrays; nothing here waits, logs or talks to a server.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from rehue_core import lab
from rehue_core.lab import Lightness, UInt8

Tensor = NDArray[np.generic]  # of whatever type the model's configuration says


@dataclass(frozen=True)
class ModelSpec:
    """A network's contract, as Triton's model configuration states it."""

    name: str
    height: int  # of the input
    width: int
    ab_height: int  # of the output
    ab_width: int
    input_type: np.dtype[np.generic]
    output_type: np.dtype[np.generic]
    lightness_scale: float  # L = input * lightness_scale
    ab_scale: float  # ab = output * ab_scale
    max_batch: int


@dataclass(frozen=True)
class Box:
    """Where the photograph lies in the network's input, in its pixels."""

    top: int
    left: int
    height: int
    width: int


def fit(height: int, width: int, spec: ModelSpec) -> Box:
    """The largest box of the photograph's shape, in the middle of the input.

    Sides are whole steps of the output's grid, so that the colours of the box
    can be cut out of it exactly.
    """
    scale = min(spec.height / height, spec.width / width)
    across, down = spec.width // spec.ab_width, spec.height // spec.ab_height
    tall = _steps(height * scale, down, spec.height)
    wide = _steps(width * scale, across, spec.width)
    top = (spec.height - tall) // (2 * down) * down
    left = (spec.width - wide) // (2 * across) * across
    return Box(top, left, tall, wide)


def _steps(length: float, step: int, limit: int) -> int:
    return min(limit, max(1, round(length / step)) * step)


def prepare(lightness: Lightness, spec: ModelSpec) -> tuple[Tensor, Box]:
    """The network's input for one photograph.

    The photograph keeps its shape; what it leaves free of the square is filled
    with its own mirror image, which the network takes for more of the scene.

    Args:
        lightness: of either type, full resolution.

    Returns:
        1HW of the input's type, in counts of ``lightness_scale``; and the box.
    """
    height, width = lightness.shape
    box = fit(height, width, spec)
    shrinks = box.height < height or box.width < width
    small = cv2.resize(
        lightness,
        (box.width, box.height),
        interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
    )
    below = spec.height - box.top - box.height
    right = spec.width - box.left - box.width
    counts = _counts(small, lab.unit(lightness.dtype) / spec.lightness_scale, spec.input_type)
    square = cv2.copyMakeBorder(counts, box.top, below, box.left, right, cv2.BORDER_REFLECT_101)
    return square[None], box


def _counts(lightness: Lightness, scale: float, dtype: np.dtype[np.generic]) -> Tensor:
    if dtype == np.uint8:  # as below, in one step and without anything in between
        return np.asarray(cv2.convertScaleAbs(lightness, alpha=scale))
    values = lightness * np.float32(scale)
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)  # type: ignore[type-var]
        values = np.clip(np.rint(values, out=values), limits.min, limits.max, out=values)
    return values.astype(dtype)


def finish(
    lightness: Lightness, output: Tensor, box: Box, spec: ModelSpec, strength: float
) -> UInt8:
    """The picture in colour: the photograph's own lightness with the network's ab.

    Args:
        lightness: of either type, full resolution.
        output: 2hw of the output's type, in counts of ``ab_scale``.
        box: where the photograph lay in the input.
        strength: scales chroma.

    Returns:
        HWC uint8 sRGB, 0..255.
    """
    across, down = spec.width // spec.ab_width, spec.height // spec.ab_height
    rows = slice(box.top // down, (box.top + box.height) // down)
    columns = slice(box.left // across, (box.left + box.width) // across)
    ab = np.moveaxis(output[:, rows, columns], 0, -1)
    return lab.to_rgb(lightness, ab, strength=strength * spec.ab_scale)
