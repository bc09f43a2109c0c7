"""Ways to serve one network, measured on photographs kept off training.

    python -m rehue_training.evaluation.ways training/configs/rehue.py --data train-*.tar

How a photograph that is not square is brought into the network's square, whether its mirror
image is asked too, how the colours are enlarged, at what size the network looks, and whether it
looks once or twice. `served` is what the server does; what is chosen is chosen here, never on the
test photographs.
"""

import argparse
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import keras
import numpy as np
from rich.progress import track

from rehue_core import colorize, lab
from rehue_core.lab import Float32, UInt8
from rehue_training.data import dataset
from rehue_training.evaluation import metrics
from rehue_training.evaluation.colorizer import Colorizer, GrayBaseline
from rehue_training.learn import config, export

Way = Callable[[Colorizer, Float32], UInt8]

RADIUS = 4  # pixels of the colours' grid: a window of the guided filter
LOOKS = ((192, 1), (224, 1), (256, 1), (288, 1), (256, 2))  # side of the input, how often
EPSILON = 25.0  # L squared: edges fainter than this are smoothed over


def served(model: Colorizer, lightness: Float32) -> UInt8:
    """Fitted; the rest of the square is the photograph's mirror image."""
    return model.colorize(lightness)


def mean_fill(model: Colorizer, lightness: Float32) -> UInt8:
    """Fitted; the rest of the square is the photograph's mean lightness."""
    counts, box = colorize.prepare_input(lightness, model.spec)
    filled = np.full_like(counts, round(float(lightness.mean()) / model.spec.lightness_scale))
    rows, columns = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
    filled[:, rows, columns] = counts[:, rows, columns]
    return colorize.compose_rgb(lightness, model.predict_ab(filled[None])[0], box, model.spec, 1.0)


def squashed(model: Colorizer, lightness: Float32) -> UInt8:
    """Squashed to the square."""
    side = (model.spec.width, model.spec.height)
    square = cv2.resize(lightness, side, interpolation=cv2.INTER_AREA)
    counts, box = colorize.prepare_input(square, model.spec)
    return colorize.compose_rgb(lightness, model.predict_ab(counts[None])[0], box, model.spec, 1.0)


def flipped(model: Colorizer, lightness: Float32) -> UInt8:
    """The mean of the colours of the photograph and of its mirror image: twice the network."""
    counts, box = colorize.prepare_input(lightness, model.spec)
    ab = model.predict_ab(np.stack([counts, counts[..., ::-1]])).astype(np.float32)
    mean = (ab[0] + ab[1][..., ::-1]) / 2
    return colorize.compose_rgb(lightness, mean, box, model.spec, 1.0)


def guided(model: Colorizer, lightness: Float32) -> UInt8:
    """Enlarged along the photograph's own edges.

    He and Sun, "Fast Guided Filter" (2015): on the colours' grid ab is a linear function of L in
    each window; its coefficients are enlarged, and meet the lightness at full resolution.
    """
    counts, box = colorize.prepare_input(lightness, model.spec)
    step = model.spec.width // model.spec.ab_width
    rows = slice(box.top // step, (box.top + box.height) // step)
    columns = slice(box.left // step, (box.left + box.width) // step)
    ab = model.predict_ab(counts[None])[0][:, rows, columns].astype(np.float32)
    ab *= np.float32(model.spec.ab_scale)
    small = cv2.resize(lightness, ab.shape[:0:-1], interpolation=cv2.INTER_AREA)
    planes = [_guided(plane, small, lightness) for plane in ab]
    return lab.convert_to_rgb(lightness, np.dstack(planes))


def _guided(plane: Float32, guide: Float32, full: Float32) -> Float32:
    def mean(values: Float32) -> Float32:
        window = (2 * RADIUS + 1, 2 * RADIUS + 1)
        return np.asarray(cv2.blur(values, window, borderType=cv2.BORDER_REFLECT), np.float32)

    of_guide, of_plane = mean(guide), mean(plane)
    slope = (mean(guide * plane) - of_guide * of_plane) / (
        mean(guide * guide) - of_guide**2 + EPSILON
    )
    offset = of_plane - slope * of_guide
    size = full.shape[::-1]
    slope, offset = (cv2.resize(mean(one), size) for one in (slope, offset))
    return np.asarray(slope * full + offset, np.float32)


def looking(model: Colorizer, network: keras.Model, side: int, looks: int) -> Way:
    """The network with another size of input, looking once or twice; no curve on its chroma."""
    other = model.with_network(export.convert_to_onnx(network, side=side, looks=looks), side)

    def way(_: Colorizer, lightness: Float32) -> UInt8:
        return other.colorize(lightness)

    way.__name__ = f"{side}, {('once', 'twice')[looks - 1]}"
    return way


WAYS: tuple[Way, ...] = (served, mean_fill, squashed, flipped, guided)


def main() -> int:
    parser = argparse.ArgumentParser(description="Measures ways to serve one network.")
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    experiment = config.read_config(arguments.config)
    photographs = dataset.load_dataset(
        arguments.data, cache=arguments.runs / "cache", short_side=experiment.short_side
    )
    _, kept = photographs.split(experiment.validation, experiment.held_out)
    model = Colorizer(arguments.repository, experiment.served_name)
    network = export.load_exported_network(experiment, arguments.repository)
    ways = [*WAYS, *(looking(model, network, *look) for look in LOOKS)]
    with ThreadPoolExecutor() as pool:
        made = pool.map(lambda index: _measured(model, ways, photographs[index]), kept)
        rows = np.array(list(track(made, "measuring", total=len(kept))))
    report(rows, ways)
    return 0


def _measured(model: Colorizer, ways: list[Way], truth: UInt8) -> list[tuple[float, float]]:
    """CIEDE2000 and colourfulness of gray, then of each way."""
    lightness = lab.compute_lightness(truth)
    pictures = [GrayBaseline().colorize(lightness), *(way(model, lightness) for way in ways)]
    return [
        (metrics.compute_ciede2000(truth, one), metrics.compute_colorfulness(one))
        for one in pictures
    ]


def report(rows: metrics.Float64, ways: list[Way]) -> None:
    """Prints a table of photographs x (gray, each way) x (CIEDE2000, colourfulness)."""
    gray, errors = rows[:, 0, 0], rows[:, 1:, 0]
    print(f"{len(rows)} photographs. CIEDE2000, the 95 % interval of its difference to `served`,")
    print("how far it is below gray's, better than gray on, colourfulness")
    for number, way in enumerate(ways):
        mine = errors[:, number]
        low, high = metrics.bootstrap_interval(mine - errors[:, 0])
        print(
            f"{way.__name__:11} {mine.mean():.3f} ({low:+.3f} to {high:+.3f}) "
            f"{1 - mine.mean() / gray.mean():.1%} {(mine < gray).mean():.1%} "
            f"{rows[:, number + 1, 1].mean():.1f}"
        )


if __name__ == "__main__":
    sys.exit(main())
