"""The paper's two figures, and contact sheets of photographs without true colours.

"Image Colorization Using CNN" (Purnomo, 2023) shows the loss over training, and
eleven pairs of "Grayscale Image" and "Colored Image", 800 pixels high and 600 wide,
of photographs resized to the network's square and back.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np

from rehue_core import lab
from rehue_core.lab import Float32, UInt8
from rehue_core.rgb import convert_to_rgb
from rehue_training.data import dataset
from rehue_training.data.files import read_files
from rehue_training.errors import InputError
from rehue_training.evaluation import sheets
from rehue_training.evaluation.colorizer import Colorizer, GrayBaseline
from rehue_training.evaluation.evaluate import Method, save_picture
from rehue_training.learn import checkpoint
from rehue_training.learn.run import CHECKPOINT

mpl.use("Agg")  # files only: no screen is needed
from matplotlib import pyplot as plt

PAIRS = 11
PAIR_HEIGHT, PAIR_WIDTH = 800, 600


def draw_loss(run: Path, out: Path) -> None:
    """Draw the training and validation loss of a run over its steps.

    Raises:
        InputError: the run has not logged a loss yet.
    """
    history = checkpoint.load(run / CHECKPOINT).history
    if not history:
        raise InputError(f"{run} has not logged a loss yet: train for more steps")
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for key, label in (("loss", "training loss"), ("val_loss", "validation loss")):
        points = [(record["step"], record[key]) for record in history if key in record]
        axes.plot(*zip(*points, strict=True), label=label, marker="." if "val" in key else None)
    axes.set(xlabel="step", ylabel="loss", title=f"{run.name}: training and validation loss")
    axes.legend()
    _save_figure(figure, out)


def draw_pairs(paths: Sequence[Path], model: Colorizer, out: Path) -> None:
    """Draw eleven photographs, each gray and colorized, as in the paper."""
    chosen = _select_evenly(list(_read_lightness(paths)), PAIRS)
    figure, grid = plt.subplots(
        len(chosen), 2, figsize=(6, 4.1 * len(chosen)), layout="constrained", squeeze=False
    )
    for row, (_, lightness) in zip(grid, chosen, strict=True):
        titles = ("Grayscale Image", "Colored Image")
        for axes, picture, title in zip(row, make_pair(lightness, model), titles, strict=True):
            axes.imshow(picture)
            axes.set_title(title)
            axes.axis("off")
    _save_figure(figure, out)


def make_pair(lightness: Float32, model: Colorizer) -> tuple[UInt8, UInt8]:
    """Return gray and colorized (800x600x3 uint8), resized to a square on the way."""
    spec = model.spec
    square = cv2.resize(lightness, (spec.width, spec.height), interpolation=cv2.INTER_AREA)
    counts = np.rint(square / spec.lightness_scale).astype(spec.input_type)
    ab = model.predict_ab(counts[None, None])[0].transpose(1, 2, 0) * np.float32(spec.ab_scale)
    colorized = convert_to_rgb(square, np.ascontiguousarray(ab, np.float32))
    gray = GrayBaseline().colorize(square)
    return _resize_for_figure(gray), _resize_for_figure(colorized)


def draw_sheet(
    paths: Sequence[Path], models: Sequence[Colorizer], count: int, out: Path, across: int = 2
) -> None:
    """Draw photographs in gray and colorized by each model, in their own proportions."""
    methods: list[Method] = [GrayBaseline(), *models]
    rows = [
        sheets.Row(name, [method.colorize(lightness) for method in methods])
        for name, lightness in _select_evenly(list(_read_lightness(paths)), count)
    ]
    headings = [method.name for method in methods]
    save_picture(out, sheets.make_sheet(headings, rows, across=across))


def _read_lightness(paths: Sequence[Path]) -> Iterable[tuple[str, Float32]]:
    for name, encoded in read_files(paths, part="test"):
        rgb = dataset.decode(encoded)
        if rgb is not None:
            yield name, lab.compute_lightness(rgb)


def _select_evenly(items: list[Any], count: int) -> list[Any]:
    """Select at most `count` items, evenly spaced."""
    if len(items) <= count:
        return items
    return [items[index * len(items) // count] for index in range(count)]


def _resize_for_figure(rgb: UInt8) -> UInt8:
    size = (PAIR_WIDTH, PAIR_HEIGHT)
    return np.asarray(cv2.resize(rgb, size, interpolation=cv2.INTER_LINEAR), np.uint8)


def _save_figure(figure: Any, out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=80)
    plt.close(figure)
