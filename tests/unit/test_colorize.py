"""A photograph is fitted into the network's square input, and the answer back to its size."""

import cv2
import numpy as np
import pytest

from rehue_core import colorize
from rehue_core.rgb import convert_to_rgb

SPEC = colorize.ModelSpec(
    name="any",
    height=256,
    width=256,
    ab_height=128,
    ab_width=128,
    input_type=np.dtype(np.uint8),
    output_type=np.dtype(np.float16),
    lightness_scale=100 / 255,
    ab_scale=1.0,
    max_batch=8,
)
SHAPES = [(256, 256), (512, 512), (300, 800), (800, 300), (37, 41), (3000, 200), (1, 9), (5000, 2)]


@pytest.mark.parametrize("shape", SHAPES)
def test_photograph_keeps_its_shape(shape: tuple[int, int]) -> None:
    box = colorize.fit_box(*shape, SPEC)
    assert max(box.height, box.width) == 256
    assert box.top + box.height <= 256
    assert box.left + box.width <= 256
    # The shorter side is within one step of the output's grid of its true length.
    scale = 256 / max(shape)
    assert abs(box.height - shape[0] * scale) <= 2
    assert abs(box.width - shape[1] * scale) <= 2


@pytest.mark.parametrize("shape", SHAPES)
def test_colours_come_back_to_their_places(shape: tuple[int, int]) -> None:
    """A network that answers with the input's own position gives each pixel its own."""
    height, width = shape
    slope = 50 / max(shape)  # of L a pixel, the same both ways
    ramp = (np.add.outer(np.arange(height), np.arange(width)) * slope).astype(np.float32)
    input, box = colorize.prepare_input(ramp, SPEC)
    assert input.shape == (1, 256, 256)
    assert input.dtype == np.uint8
    field = cv2.resize(input[0].astype(np.float32), (128, 128), interpolation=cv2.INTER_AREA)
    output = np.stack([field * (100 / 255) - 50] * 2).astype(np.float16)
    flat = np.full(shape, 60, np.float32)
    got = colorize.compose_rgb(flat, output, box, SPEC, 1.0).astype(int)
    expected = convert_to_rgb(flat, np.dstack([ramp - 50] * 2)).astype(int)
    # A slope is blunted at its ends, by half a step of the grid.
    assert np.abs(got - expected).mean() < 1
    assert np.abs(got - expected).max() < 12


def test_empty_part_of_the_square_is_the_mirrored_photograph() -> None:
    lightness = np.tile(np.linspace(0, 100, 512, dtype=np.float32), (256, 1))
    input, box = colorize.prepare_input(lightness, SPEC)
    assert (box.top, box.height) == (64, 128)
    assert np.array_equal(input[0, 63], input[0, 65])


def test_input_is_lightness_in_counts() -> None:
    input, _ = colorize.prepare_input(np.full((64, 64), 100, np.float32), SPEC)
    assert (input == 255).all()
