"""Variants of inference with one network, measured on the validation photographs.

    python -m rehue_training.evaluation.variants training/configs/rehue.py --data train-*.tar

How a photograph that is not square is fitted into the network's square, whether the mirrored
photograph is run too, how the colours are enlarged, at what input size the network runs, and
whether it runs at one or two scales. "served" is what the server does. Choices are made with
this, never on the test photographs.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import keras
import numpy as np
from rich.progress import track

from rehue_core import colorize, lab
from rehue_core.lab import Float32, UInt8
from rehue_core.rgb import convert_to_rgb
from rehue_training.data import dataset
from rehue_training.evaluation import metrics
from rehue_training.evaluation.colorizer import Colorizer, GrayBaseline
from rehue_training.learn import config, export

Variant = Callable[[Colorizer, Float32], UInt8]

RADIUS = 4  # pixels of ab: the guided filter's window
SCALES = ((192, 1), (224, 1), (256, 1), (288, 1), (256, 2))  # input size, number of scales
EPSILON = 25.0  # L squared: edges fainter than this are smoothed


def colorize_as_served(model: Colorizer, lightness: Float32) -> UInt8:
    """Fit the photograph; fill the rest of the square with its mirror image."""
    return model.colorize(lightness)


def fill_with_mean(model: Colorizer, lightness: Float32) -> UInt8:
    """Fit the photograph; fill the rest of the square with its mean lightness."""
    counts, box = colorize.prepare_input(lightness, model.spec)
    filled = np.full_like(counts, round(float(lightness.mean()) / model.spec.lightness_scale))
    rows, columns = slice(box.top, box.top + box.height), slice(box.left, box.left + box.width)
    filled[:, rows, columns] = counts[:, rows, columns]
    return colorize.compose_rgb(lightness, model.predict_ab(filled[None])[0], box, model.spec, 1.0)


def stretch_to_square(model: Colorizer, lightness: Float32) -> UInt8:
    """Resize the photograph to the square without keeping its proportions."""
    side = (model.spec.width, model.spec.height)
    square = cv2.resize(lightness, side, interpolation=cv2.INTER_AREA)
    counts, box = colorize.prepare_input(square, model.spec)
    return colorize.compose_rgb(lightness, model.predict_ab(counts[None])[0], box, model.spec, 1.0)


def average_with_mirrored(model: Colorizer, lightness: Float32) -> UInt8:
    """Average the colours of the photograph and of the mirrored photograph."""
    counts, box = colorize.prepare_input(lightness, model.spec)
    ab = model.predict_ab(np.stack([counts, counts[..., ::-1]])).astype(np.float32)
    mean = (ab[0] + ab[1][..., ::-1]) / 2
    return colorize.compose_rgb(lightness, mean, box, model.spec, 1.0)


def enlarge_along_edges(model: Colorizer, lightness: Float32) -> UInt8:
    """Enlarge the colours along the photograph's edges.

    He and Sun, "Fast Guided Filter" (2015): at the resolution of ab, ab is a linear function of L
    in each window. Its coefficients are enlarged and applied to L at full resolution.
    """
    counts, box = colorize.prepare_input(lightness, model.spec)
    step = model.spec.width // model.spec.ab_width
    rows = slice(box.top // step, (box.top + box.height) // step)
    columns = slice(box.left // step, (box.left + box.width) // step)
    ab = model.predict_ab(counts[None])[0][:, rows, columns].astype(np.float32)
    ab *= np.float32(model.spec.ab_scale)
    small = cv2.resize(lightness, ab.shape[:0:-1], interpolation=cv2.INTER_AREA)
    planes = [_apply_guided_filter(plane, small, lightness) for plane in ab]
    return convert_to_rgb(lightness, np.dstack(planes))


def _apply_guided_filter(plane: Float32, guide: Float32, full_guide: Float32) -> Float32:
    guide_mean, plane_mean = _average_windows(guide), _average_windows(plane)
    covariance = _average_windows(guide * plane) - guide_mean * plane_mean
    variance = _average_windows(guide * guide) - guide_mean**2
    slope = covariance / (variance + EPSILON)
    offset = plane_mean - slope * guide_mean
    size = full_guide.shape[::-1]
    slope, offset = (cv2.resize(_average_windows(field), size) for field in (slope, offset))
    return np.asarray(slope * full_guide + offset, np.float32)


def _average_windows(values: Float32) -> Float32:
    window = (2 * RADIUS + 1, 2 * RADIUS + 1)
    return np.asarray(cv2.blur(values, window, borderType=cv2.BORDER_REFLECT), np.float32)


def change_scales(model: Colorizer, network: keras.Model, side: int, scales: int) -> Variant:
    """Return a variant with another input size, at one or two scales, without a chroma curve."""
    other = model.with_network(export.convert_to_onnx(network, side=side, looks=scales), side)
    return lambda _, lightness: other.colorize(lightness)


VARIANTS: dict[str, Variant] = {
    "served": colorize_as_served,
    "mean fill": fill_with_mean,
    "stretched": stretch_to_square,
    "mirrored": average_with_mirrored,
    "along edges": enlarge_along_edges,
}


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description="Measure variants of inference with one network.")
    parser.add_argument("config", type=Path)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("--runs", type=Path, default=Path("runs"))
    arguments = parser.parse_args()
    experiment = config.read_config(arguments.config)
    photographs = dataset.load_dataset(
        arguments.data, cache=arguments.runs / "cache", short_side=experiment.short_side
    )
    _, validation = photographs.split(experiment.validation, experiment.held_out)
    model = Colorizer(arguments.repository, experiment.served_name)
    network = export.load_exported_network(experiment, arguments.repository)
    variants = VARIANTS | {
        f"{side}, {('once', 'twice')[scales - 1]}": change_scales(model, network, side, scales)
        for side, scales in SCALES
    }
    with ThreadPoolExecutor() as pool:
        scored = pool.map(
            lambda index: _score_photograph(model, variants, photographs[index]), validation
        )
        rows = np.array(list(track(scored, "measuring", total=len(validation))))
    print_report(rows, list(variants))
    return 0


def _score_photograph(
    model: Colorizer, variants: Mapping[str, Variant], truth: UInt8
) -> list[tuple[float, float]]:
    """Return CIEDE2000 and colourfulness of the gray picture, then of each variant."""
    lightness = lab.compute_lightness(truth)
    pictures = [variant(model, lightness) for variant in variants.values()]
    return [
        (metrics.compute_ciede2000(truth, picture), metrics.compute_colorfulness(picture))
        for picture in (GrayBaseline().colorize(lightness), *pictures)
    ]


def print_report(rows: metrics.Float64, names: list[str]) -> None:
    """Print a table of photographs x (gray, each variant) x (CIEDE2000, colourfulness)."""
    gray, errors = rows[:, 0, 0], rows[:, 1:, 0]
    print(f"{len(rows)} photographs. CIEDE2000, the 95 % interval of its difference to `served`,")
    print("how far it is below gray's, share better than gray, colourfulness")
    for number, name in enumerate(names):
        error = errors[:, number]
        low, high = metrics.bootstrap_interval(error - errors[:, 0])
        print(
            f"{name:11} {error.mean():.3f} ({low:+.3f} to {high:+.3f}) "
            f"{1 - error.mean() / gray.mean():.1%} {(error < gray).mean():.1%} "
            f"{rows[:, number + 1, 1].mean():.1f}"
        )


if __name__ == "__main__":
    sys.exit(main())
