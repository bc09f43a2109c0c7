"""What candidates at other look sizes would bring beside those of cast and strength.

    python -m rehue_training.evaluation.looks --data test-2.tar --limit 100

The network's input has a fixed size, so another look is the photograph fitted into a part of it
(from farther away: fewer pixels of it, more of its mirror image), or overlapping squares of it
that fill the input (from nearer). Each look is one or more further runs of the network.
"""

import argparse
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from rich.progress import track

from rehue_core import colorize, lab
from rehue_core.candidates import VISIBLE, choose_candidates
from rehue_core.edits import Edits
from rehue_core.lab import Float32
from rehue_training.evaluation.colorizer import Colorizer
from rehue_training.evaluation.evaluate import load_photographs
from rehue_training.evaluation.guided import FEW_CANDIDATES, Scene, make_scene

FARTHER = (0.75, 0.5)  # size of the photograph in the input, of the served size


def look_from_farther(scene: Scene, model: Colorizer, share: float) -> Float32:
    """Return ab (hw2, Lab units) with the photograph fitted into a part of the input."""
    spec = model.spec
    height, width = scene.lightness.shape
    scale = share * min(spec.height / height, spec.width / width)
    step = spec.height // spec.ab_height
    box_height, box_width = (max(1, round(side * scale / step)) * step for side in (height, width))
    top, left = ((spec.height - box_height) // 2, (spec.width - box_width) // 2)
    top, left = top // step * step, left // step * step
    small = cv2.resize(scene.lightness, (box_width, box_height), interpolation=cv2.INTER_AREA)
    square = cv2.copyMakeBorder(
        cv2.convertScaleAbs(small, alpha=1 / spec.lightness_scale),
        top, spec.height - box_height - top, left, spec.width - box_width - left,
        cv2.BORDER_REFLECT_101,
    )  # fmt: skip
    box = colorize.Box(top, left, box_height, box_width)
    return _predict(square, box, model)


def look_from_nearer(scene: Scene, model: Colorizer) -> Float32:
    """Return ab (hw2, Lab units) of squares along the long side, blended where they overlap."""
    spec, lightness = model.spec, scene.lightness
    is_upright = lightness.shape[0] > lightness.shape[1]
    wide = lightness.T if is_upright else lightness
    side, length = wide.shape
    whole = colorize.Box(0, 0, spec.height, spec.width)
    cells = spec.ab_height
    columns = round(cells * length / side)
    summed, weights = np.zeros((cells, columns, 2), np.float32), np.zeros(columns, np.float32)
    ramp = np.bartlett(cells + 2)[1:-1].astype(np.float32)
    count = 1 + -(-(length - side) // side)
    for share in np.linspace(0, 1, count):
        start, first = round(share * (length - side)), round(share * (columns - cells))
        square = np.ascontiguousarray(wide[:, start : start + side])
        square = cv2.resize(square, (spec.width, spec.height), interpolation=cv2.INTER_AREA)
        counts = cv2.convertScaleAbs(square, alpha=1 / spec.lightness_scale)
        field = _predict(counts.T if is_upright else counts, whole, model)
        field = np.swapaxes(field, 0, 1) if is_upright else field
        summed[:, first : first + cells] += field * ramp[:, None]
        weights[first : first + cells] += ramp
    field = summed / weights[:, None]
    return np.ascontiguousarray(np.swapaxes(field, 0, 1) if is_upright else field)


def _predict(counts: lab.UInt8, box: colorize.Box, model: Colorizer) -> Float32:
    output = model.predict_ab(np.ascontiguousarray(counts)[None, None])[0]
    field = colorize.cut_out_box(output, box, model.spec).astype(np.float32)
    return np.asarray(field * np.float32(model.spec.ab_scale), np.float32)


def measure_photograph(scene: Scene, model: Colorizer) -> dict[str, float]:
    """Return CIEDE2000 by choice, and the mean distance in ab of each look from the served one."""
    found = choose_candidates(scene.ab, scene.lightness, 1.0, Edits())
    casts = [float(scene.measure(c.edits, c.strength).mean()) for c in found]
    looks = {f"at {share:g} of the size": look_from_farther(scene, model, share)
             for share in FARTHER}  # fmt: skip
    looks["squares"] = look_from_nearer(scene, model)
    errors = {name: float(scene.compare(ab).mean()) for name, ab in looks.items()}
    few = casts[:FEW_CANDIDATES]
    row = {
        "gray": float(scene.compare(np.zeros_like(scene.ab)).mean()),
        "as is": casts[0],
        **errors,
    }
    row |= {
        "best of as is and the looks": min(casts[0], *errors.values()),
        "best of three casts": min(few),
        "best of all casts": min(casts),
        "best of all casts and the looks": min(*casts, *errors.values()),
    }
    for name, ab in looks.items():
        served = lab.resize(scene.ab, ab.shape)
        row[f"distance {name}"] = float(np.linalg.norm(ab - served, axis=-1).mean())
    return row


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--limit", type=int, default=100, help="photographs that are measured")
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--model", default="rehue")
    arguments = parser.parse_args()
    model = Colorizer(arguments.repository, arguments.model)
    photographs = itertools.islice(load_photographs(arguments.data), arguments.limit)
    rows = [
        measure_photograph(make_scene(truth, model), model)
        for _, truth in track(photographs, "measuring", total=arguments.limit)
    ]
    print("\n".join(describe(rows)))
    return 0


def describe(rows: list[dict[str, float]]) -> Iterator[str]:
    """Yield the lines of the report."""
    gray = np.mean([row["gray"] for row in rows])
    yield f"{len(rows)} photographs; CIEDE2000 of gray {gray:.2f}"
    for name in rows[0]:
        values = np.array([row[name] for row in rows])
        if name.startswith("distance "):
            visible = (values >= VISIBLE).mean()
            yield f"{name}: {values.mean():.2f} in ab, {visible:.0%} of them visible"
        elif name != "gray":
            yield f"{name}: {1 - values.mean() / gray:.1%} below gray"


if __name__ == "__main__":
    sys.exit(main())
