"""How the network looks at a photograph: its inputs, and what is joined of its outputs."""

from typing import Any

import numpy as np
import pytest

from rehue_core import lab
from rehue_core.colorize import ModelSpec
from rehue_core.edits import LOOKS, NEARER
from rehue_core.looks import MOST_PARTS, RUNS, compute_field, list_parts, prepare_look

SPEC = ModelSpec(
    "model", 64, 64, 16, 16, np.dtype(np.float32), np.dtype(np.float32), 1.0, 1.0, max_batch=8
)
SHAPES = [(40, 60), (60, 40), (50, 50), (30, 300), (400, 20), (1, 65_000), (3, 2), (1, 1)]


def copy_lightness(inputs: list[Any]) -> Any:
    """A network whose a and b are the lightness that it sees."""
    cells = [input[0].reshape(16, 4, 16, 4).mean(axis=(1, 3)) for input in inputs]
    return np.stack([np.stack([cell, cell]) for cell in cells])


@pytest.mark.parametrize("look", LOOKS)
@pytest.mark.parametrize("shape", SHAPES)
def test_each_look_puts_the_colours_where_they_belong(look: str, shape: tuple[int, int]) -> None:
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]].astype(np.float32)
    lightness = 20 + 50 * (x + 0.5) / shape[1] + 25 * (y + 0.5) / shape[0]
    inputs = prepare_look(lightness, SPEC, look)
    assert 1 <= len(inputs) <= RUNS[look]
    field = compute_field(copy_lightness(inputs), shape, SPEC, look)
    expected = lab.resize(lightness, field.shape)
    assert np.abs(field[..., 0] - expected).max() < 6
    assert np.abs(field[..., 0] - expected).mean() < 1.5


@pytest.mark.parametrize("shape", SHAPES)
def test_parts_cover_the_photograph_and_overlap(shape: tuple[int, int]) -> None:
    parts = list_parts(shape, NEARER)
    assert len(parts) <= MOST_PARTS
    seen = np.zeros(shape, int)
    sizes = set()
    for rows, columns in parts:
        seen[rows, columns] += 1
        sizes.add(seen[rows, columns].shape)
    assert seen.min() == 1
    assert len(sizes) == 1
    if len(parts) > 1:
        assert (seen > 1).mean() > 0.1


def test_nearer_sees_more_of_each_part() -> None:
    """Details of a wide photograph that the whole look loses."""
    lightness = np.tile(np.array([[20, 20, 80, 80]], np.float32), (64, 48))  # stripes of two pixels
    contrast = {look: np.ptp(prepare_look(lightness, SPEC, look)[0][0, 20:40]) for look in LOOKS}
    assert contrast["nearer"] > 2 * contrast["whole"] >= 2 * contrast["farther"]
