"""What candidates at other look sizes bring beside those of cast and strength.

    python -m rehue_training.evaluation.looks --data test-2.tar --limit 100

The looks are those that are served (`rehue_core.looks`), and one from twice as far, which is not.
"""

import argparse
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.progress import track

from rehue_core import colorize, lab
from rehue_core.candidates import NAMES, VISIBLE, choose_candidates
from rehue_core.edits import FARTHER, NEARER, WHOLE, Edits
from rehue_core.lab import Float32
from rehue_core.looks import compute_field, prepare_look
from rehue_training.evaluation.colorizer import Colorizer
from rehue_training.evaluation.evaluate import load_photographs
from rehue_training.evaluation.guided import FEW_CANDIDATES, Scene, make_scene

FARTHEST = 0.5  # size of the photograph in the input, of the served size


def compute_look(scene: Scene, model: Colorizer, name: str) -> Float32:
    """Return ab (hw2, Lab units) of a look."""
    inputs = prepare_look(scene.lightness, model.spec, name)
    outputs = model.predict_ab(np.stack(inputs))
    return compute_field(outputs, scene.lightness.shape, model.spec, name)


def look_from_farthest(scene: Scene, model: Colorizer) -> Float32:
    """Return ab (hw2, Lab units) with the photograph at half of the size."""
    counts, box = colorize.prepare_input(scene.lightness, model.spec, FARTHEST)
    field = colorize.cut_out_box(model.predict_ab(counts[None])[0], box, model.spec)
    return np.multiply(field, np.float32(model.spec.ab_scale), dtype=np.float32)


def measure_photograph(scene: Scene, model: Colorizer) -> dict[str, float]:
    """Return CIEDE2000 by choice, and the mean distance in ab of each look from the whole."""
    found = choose_candidates({WHOLE: scene.ab}, scene.lightness, 1.0, Edits())
    casts = [float(scene.measure(c.edits, c.strength).mean()) for c in found]
    looks = {NAMES[name]: compute_look(scene, model, name) for name in (FARTHER, NEARER)}
    errors = {name: float(scene.compare(ab).mean()) for name, ab in looks.items()}
    looks["from twice as far"] = look_from_farthest(scene, model)
    few = casts[:FEW_CANDIDATES]
    row = {
        "gray": float(scene.compare(np.zeros_like(scene.ab)).mean()),
        "as is": casts[0],
        **errors,
        "from twice as far": float(scene.compare(looks["from twice as far"]).mean()),
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
