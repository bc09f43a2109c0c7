"""How a photograph that is not square had best be brought into the network's square.

    python -m rehue_training.fitting --data PHOTOGRAPHS/test.tar

Measured on the photographs at least 1.3 times as long as wide, or as wide as
long. `mirror` is what the server does; nothing here is tuned on the result.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from rich.progress import track

from rehue_serve import colorize, lab
from rehue_serve.lab import Float32, UInt8
from rehue_training import metrics
from rehue_training.colorizer import Colorizer
from rehue_training.evaluate import photographs

LONG = 1.3

Way = Callable[[Colorizer, Float32], UInt8]


def mirror(model: Colorizer, lightness: Float32) -> UInt8:
    """Fitted; the rest of the square is the photograph's mirror image."""
    return model.picture(lightness)


def constant(model: Colorizer, lightness: Float32) -> UInt8:
    """Fitted; the rest of the square is the photograph's mean lightness."""
    counts, box = colorize.prepare(lightness, model.spec)
    filled = np.full_like(counts, round(float(lightness.mean()) / model.spec.lightness_scale))
    rows, columns = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
    filled[:, rows, columns] = counts[:, rows, columns]
    return colorize.finish(lightness, model.colours(filled[None])[0], box, model.spec, 1.0)


def squash(model: Colorizer, lightness: Float32) -> UInt8:
    """Squashed to the square."""
    side = (model.spec.width, model.spec.height)
    square = cv2.resize(lightness, side, interpolation=cv2.INTER_AREA)
    counts, box = colorize.prepare(square, model.spec)
    return colorize.finish(lightness, model.colours(counts[None])[0], box, model.spec, 1.0)


WAYS: tuple[Way, ...] = (mirror, constant, squash)


def main() -> int:
    parser = argparse.ArgumentParser(description="Measures ways to fit photographs.")
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--model", default="rehue")
    arguments = parser.parse_args()
    model = Colorizer(arguments.repository, arguments.model)
    long = [one for _, one in photographs(arguments.data) if one.shape[1] > LONG * one.shape[0]
            or one.shape[0] > LONG * one.shape[1]]  # fmt: skip
    errors = np.array([_errors(model, truth) for truth in track(long, "measuring")])
    print(f"{len(long)} photographs; mean CIEDE2000 (95 % bootstrap interval of the difference)")
    for number, way in enumerate(WAYS):
        low, high = metrics.interval(errors[:, number] - errors[:, 0])
        print(f"{way.__name__:9} {errors[:, number].mean():.3f} ({low:+.3f} to {high:+.3f})")
    return 0


def _errors(model: Colorizer, truth: UInt8) -> list[float]:
    lightness = lab.lightness(truth)
    return [metrics.ciede2000(truth, way(model, lightness)) for way in WAYS]


if __name__ == "__main__":
    sys.exit(main())
