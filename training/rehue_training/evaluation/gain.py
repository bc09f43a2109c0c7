"""Choice of the curve for an exported network's chroma, on the validation photographs.

An uncertain network predicts paler colours than the truth. The curve of its chroma
(`curve.Curve`) trades distance to the truth against colourfulness. It is chosen here, written
into the config as `gain`, `pale` and `bend`, and becomes part of the exported file. The test
photographs are not used. `mixtures` does the same for ensembles.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.progress import track

from rehue_core import colorize, lab
from rehue_training.data import dataset
from rehue_training.evaluation import metrics
from rehue_training.evaluation.colorizer import Colorizer, GrayBaseline
from rehue_training.learn import export
from rehue_training.learn.config import Config
from rehue_training.network.curve import Curve

CURVES = (
    *map(Curve, (1.0, 1.1, 1.2, 1.3, 1.4)),
    Curve(1.4, 0.5, 12),
    Curve(1.5, 0.3, 15),
    Curve(1.6, 0.3, 15),
    Curve(1.6, 0.5, 18),
    Curve(1.72, 0.3, 15),
    Curve(1.8, 0.3, 15),
    Curve(1.85, 0.3, 22),
)


@dataclass(frozen=True)
class CurveResult:
    """The scores of one curve over the validation photographs."""

    curve: Curve
    below_gray: float  # how far CIEDE2000 is below that of the gray pictures, as a share
    better: float  # share of the photographs that are better than gray
    colourfulness: float  # mean, over the truth's

    def __str__(self) -> str:
        return (
            f"{self.curve}: CIEDE2000 {self.below_gray:.1%} below gray, better than gray "
            f"on {self.better:.1%}, colourfulness {self.colourfulness:.3f} of the truth's"
        )


def measure_curves(
    config: Config,
    paths: Sequence[Path],
    *,
    runs: Path,
    repository: Path,
    manifest: Path | None = None,
) -> list[CurveResult]:
    """Measure each of `CURVES` with the exported model's weights."""
    photographs = dataset.load_dataset(paths, cache=runs / "cache", short_side=config.short_side)
    if config.classes:
        photographs = photographs.select_classes(config.classes, manifest)
    _, validation = photographs.split(config.validation, config.held_out)
    model = load_without_curve(config, repository)
    with ThreadPoolExecutor() as pool:
        scored = pool.map(lambda index: _score_photograph(photographs[index], model), validation)
        rows = np.array(list(track(scored, "measuring", total=len(validation))))
    return [_summarize_curve(curve, rows[:, number]) for number, curve in enumerate(CURVES)]


def load_without_curve(config: Config, repository: Path) -> Colorizer:
    """Load the exported model without its curve."""
    network = export.load_exported_network(config, repository)
    proto = export.convert_to_onnx(network, side=config.side, looks=config.looks)
    return Colorizer(repository, config.served_name).with_network(proto, config.side)


def _score_photograph(truth: lab.UInt8, model: Colorizer) -> list[tuple[float, ...]]:
    """Return CIEDE2000 of gray and guess, colourfulness of truth and guess, for each curve."""
    lightness = lab.compute_lightness(truth)
    gray = metrics.compute_ciede2000(truth, GrayBaseline().colorize(lightness))
    vivid = metrics.compute_colorfulness(truth)
    counts, box = colorize.prepare_input(lightness, model.spec)
    ab = np.moveaxis(model.predict_ab(counts[None])[0], 0, -1).astype(np.float32)
    rows: list[tuple[float, ...]] = []
    for curve in CURVES:
        bent = np.moveaxis(curve(ab), -1, 0)
        guess = colorize.compose_rgb(lightness, bent, box, model.spec, 1.0)
        rows.append(
            (
                gray,
                metrics.compute_ciede2000(truth, guess),
                vivid,
                metrics.compute_colorfulness(guess),
            )
        )
    return rows


def _summarize_curve(curve: Curve, rows: metrics.Float64) -> CurveResult:
    gray, error, truth, vivid = rows.T
    return CurveResult(
        curve=curve,
        below_gray=float(1 - error.mean() / gray.mean()),
        better=float((error < gray).mean()),
        colourfulness=float(vivid.mean() / truth.mean()),
    )
