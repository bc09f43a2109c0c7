"""From a photograph's lightness to the network's input, and from its output to a picture.

Plain functions over arrays, without I/O, logging or servers.
"""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rehue_core import lab, ycbcr
from rehue_core.edits import Edits, apply_edits
from rehue_core.lab import Lightness
from rehue_core.rgb import convert_to_rgb

Tensor = NDArray[np.generic]  # its dtype is stated by the model's configuration


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
    description: str = ""  # a sentence for those who choose a model


@dataclass(frozen=True)
class Box:
    """Position and size of the photograph inside the network's input, in pixels."""

    top: int
    left: int
    height: int
    width: int


def fit_box(height: int, width: int, spec: ModelSpec, share: float = 1.0) -> Box:
    """Fit a photograph of this size into the network's input, centered and undistorted.

    The sides of the box are multiples of the step between input and output pixels, so
    that the box can be cut exactly out of the output too.

    Args:
        share: of the sides of the largest box.
    """
    scale = share * min(spec.height / height, spec.width / width)
    step_x, step_y = spec.width // spec.ab_width, spec.height // spec.ab_height
    box_height = _round_to_step(height * scale, step_y, spec.height)
    box_width = _round_to_step(width * scale, step_x, spec.width)
    top = (spec.height - box_height) // (2 * step_y) * step_y
    left = (spec.width - box_width) // (2 * step_x) * step_x
    return Box(top, left, box_height, box_width)


def _round_to_step(length: float, step: int, limit: int) -> int:
    return min(limit, max(1, round(length / step)) * step)


def prepare_input(lightness: Lightness, spec: ModelSpec, share: float = 1.0) -> tuple[Tensor, Box]:
    """Compute the network's input for one photograph.

    The photograph keeps its aspect ratio. The rest of the input is filled with the
    photograph's mirror image, which looks to the network like more of the same scene.

    Args:
        lightness: HW float32 or uint16, full resolution; see `rehue_core.lab.Lightness`.
        spec: the model's contract.
        share: see `fit_box`.

    Returns:
        1HW of the input's dtype, where one count is ``lightness_scale``; and the
        photograph's box in it.
    """
    height, width = lightness.shape
    box = fit_box(height, width, spec, share)
    shrinks = box.height < height or box.width < width
    small = cv2.resize(
        lightness,
        (box.width, box.height),
        interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR,
    )
    bottom = spec.height - box.top - box.height
    right = spec.width - box.left - box.width
    scale = lab.get_lightness_unit(lightness.dtype) / spec.lightness_scale
    counts = _scale_to_counts(small, scale, spec.input_type)
    square = cv2.copyMakeBorder(counts, box.top, bottom, box.left, right, cv2.BORDER_REFLECT_101)
    return square[None], box


def _scale_to_counts(lightness: Lightness, scale: float, dtype: np.dtype[np.generic]) -> Tensor:
    if dtype == np.uint8:  # the same as below, in one step and without a temporary array
        return np.asarray(cv2.convertScaleAbs(lightness, alpha=scale))
    values = lightness * np.float32(scale)
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(dtype)  # type: ignore[type-var]
        values = np.clip(np.rint(values, out=values), limits.min, limits.max, out=values)
    return values.astype(dtype)


def compose_rgb(
    lightness: Lightness,
    output: Tensor,
    box: Box,
    spec: ModelSpec,
    strength: float,
    dtype: Any = np.uint8,
    edits: Edits | None = None,
) -> NDArray[Any]:
    """Join the photograph's own lightness with the network's ab into an sRGB picture.

    Args:
        lightness: HW float32 or uint16, full resolution; see `rehue_core.lab.Lightness`.
        output: 2hw of the output's dtype, where one count is ``ab_scale``.
        box: the photograph's box in the input.
        spec: the model's contract.
        strength: scales chroma.
        dtype: of the picture: np.uint8 or np.uint16.
        edits: a person's choices; None or no change at all: the network's colours.

    Returns:
        HWC sRGB, 0..255 or 0..65535.
    """
    ab, scale = choose_ab(lightness, output, box, spec, strength, edits)
    return convert_to_rgb(lightness, ab, strength=scale, dtype=dtype)


def compose_planes(
    lightness: Lightness,
    output: Tensor,
    box: Box,
    spec: ModelSpec,
    strength: float,
    edits: Edits | None = None,
) -> ycbcr.Planes:
    """Join lightness and ab into the planes of a JPEG; see `compose_rgb`."""
    ab, scale = choose_ab(lightness, output, box, spec, strength, edits)
    return ycbcr.convert_to_planes(lightness, ab, strength=scale)


def choose_ab(
    lightness: Lightness,
    output: Tensor,
    box: Box,
    spec: ModelSpec,
    strength: float,
    edits: Edits | None,
) -> tuple[Tensor, float]:
    """Return the ab field of the photograph, hw2, and the size of its counts in Lab units."""
    ab, scale = cut_out_box(output, box, spec), strength * spec.ab_scale
    if not edits:
        return ab, scale
    shaped = np.multiply(ab, np.float32(scale), dtype=np.float32)
    return apply_edits(shaped, lightness, edits), 1.0


def cut_out_box(output: Tensor, box: Box, spec: ModelSpec) -> Tensor:
    """Return the photograph's part of the network's output (2hw), as hw2."""
    step_x, step_y = spec.width // spec.ab_width, spec.height // spec.ab_height
    rows = slice(box.top // step_y, (box.top + box.height) // step_y)
    columns = slice(box.left // step_x, (box.left + box.width) // step_x)
    return np.moveaxis(output[:, rows, columns], 0, -1)
