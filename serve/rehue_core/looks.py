"""How a network looks at a photograph: whole, from farther, or from nearer, part by part.

The input has a fixed size. From farther the photograph fills a smaller box of it; from nearer
overlapping parts along the photograph's long side fill it one after another, and are blended.
"""

from collections.abc import Sequence

import numpy as np

from rehue_core.colorize import Box, ModelSpec, Tensor, cut_out_box, fit_box, prepare_input
from rehue_core.edits import FARTHER, NEARER, WHOLE
from rehue_core.lab import Float32, Lightness

MOST_PARTS = 4
RUNS = {WHOLE: 1, FARTHER: 1, NEARER: MOST_PARTS}  # of the network, at most
_SHARES = {WHOLE: 1.0, FARTHER: 0.75}  # of the largest box that fits
_STEP = 0.75  # of a part's length from one part to the next: a quarter overlaps

Slices = tuple[slice, slice]  # rows and columns


def list_parts(shape: tuple[int, ...], look: str) -> list[Slices]:
    """List the parts that are looked at, all of one size, in their order along the long side."""
    height, width = shape
    if look != NEARER:
        return [(slice(height), slice(width))]
    side, length = sorted((height, width))
    # A panorama's parts are longer than square, so that there are not more of them.
    part = max(side, -(-length * 4 // 13))  # 1 + 3 * _STEP = 13 / 4
    count = min(MOST_PARTS, 1 + int(np.ceil((length - part) / (_STEP * part))))
    starts = np.linspace(0, length - part, count).round().astype(int).tolist()
    along = [slice(start, start + part) for start in starts]
    across = slice(side)
    return [(across, place) if width >= height else (place, across) for place in along]


def prepare_look(lightness: Lightness, spec: ModelSpec, look: str) -> list[Tensor]:
    """Compute the inputs of one look; see `rehue_core.colorize.prepare_input`."""
    share = _SHARES.get(look, 1.0)
    return [
        prepare_input(lightness[part], spec, share)[0] for part in list_parts(lightness.shape, look)
    ]


def join_look(
    outputs: Tensor, shape: tuple[int, ...], spec: ModelSpec, look: str
) -> tuple[Tensor, Box]:
    """Join the outputs of one look.

    Args:
        outputs: N2hw, of the inputs of `prepare_look`.
        shape: height and width of the photograph.

    Returns:
        What `rehue_core.colorize.cut_out_box` takes: 2hw, and the photograph's box.
    """
    height, width = shape
    if look != NEARER:
        return outputs[0], fit_box(height, width, spec, _SHARES[look])
    rows, columns = list_parts(shape, look)[0]  # it begins at 0
    box = fit_box(rows.stop, columns.stop, spec)
    fields = [cut_out_box(output, box, spec).astype(np.float32) for output in outputs]
    joined = _blend(fields, (height, width), (rows.stop, columns.stop))
    step_y, step_x = spec.height // spec.ab_height, spec.width // spec.ab_width
    whole = Box(0, 0, joined.shape[0] * step_y, joined.shape[1] * step_x)
    return np.moveaxis(joined, -1, 0), whole


def compute_field(outputs: Tensor, shape: tuple[int, ...], spec: ModelSpec, look: str) -> Float32:
    """Return the ab field of one look, hw2, Lab units; see `join_look`."""
    output, box = join_look(outputs, shape, spec, look)
    field = cut_out_box(output, box, spec)
    return np.multiply(field, np.float32(spec.ab_scale), dtype=np.float32)


def _blend(fields: Sequence[Float32], shape: tuple[int, int], part: tuple[int, int]) -> Float32:
    """Blend the fields (hw2) of overlapping parts, each strongest at its middle."""
    axis = int(shape[1] >= shape[0])
    cells = fields[0].shape[axis]
    length = round(cells * shape[axis] / part[axis])
    ramp = np.bartlett(cells + 2)[1:-1].astype(np.float32)
    upright = [np.swapaxes(field, 0, axis) for field in fields]
    summed = np.zeros((length, *upright[0].shape[1:]), np.float32)
    weights = np.zeros(length, np.float32)
    starts = np.linspace(0, length - cells, len(fields)).round().astype(int).tolist()
    for field, start in zip(upright, starts, strict=True):
        summed[start : start + cells] += field * ramp[:, None, None]
        weights[start : start + cells] += ramp
    return np.ascontiguousarray(np.swapaxes(summed / weights[:, None, None], 0, axis))
