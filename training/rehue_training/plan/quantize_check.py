"""What INT8 and FP8 do to the colours, measured without a GPU: Q/DQ nodes in ONNX Runtime.

Prints the table of docs/plans.md.

    python -m rehue_training.plan.quantize_check --calibration PHOTOGRAPHS/train-0.tar \
        --data PHOTOGRAPHS/test.tar

Distances to the ONNX file are those that decide on a plan (`parity`); CIEDE2000 to the truth
says whether the photographs are any worse for it. Nothing here is tuned on the result.
"""

import argparse
import sys
from dataclasses import astuple
from itertools import islice
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track

from rehue_core import colorize, lab
from rehue_core.lab import UInt8
from rehue_training.evaluation import metrics
from rehue_training.evaluation.colorizer import Colorizer
from rehue_training.evaluation.evaluate import load_photographs
from rehue_training.plan import parity, precision
from rehue_training.plan.parity import Network
from rehue_training.plan.plans import ONNX

TABLE = """
| | ab, mean | ab, largest | CIEDE2000 to the ONNX file | to the truth; FP32's (95 % interval) |
| --- | --- | --- | --- | --- |"""


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description="Measures what INT8 and FP8 do to the colours.")
    parser.add_argument("--calibration", type=Path, nargs="+", required=True)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--calibrate-on", type=int, default=64, help="photographs")
    parser.add_argument("--count", type=int, default=100, help="photographs to measure on")
    parser.add_argument("--repository", type=Path, default=Path("model_repository"))
    parser.add_argument("models", nargs="*", default=["rehue", "seed"])
    arguments = parser.parse_args()
    scaled = _some(arguments.calibration, arguments.calibrate_on)
    measured = _some(arguments.data, arguments.count)
    print(f"calibrated on {len(scaled)} photographs, measured on {len(measured)} others", TABLE)
    for name in arguments.models:
        model = Colorizer(arguments.repository, name)
        content = (arguments.repository / name / "1" / ONNX).read_bytes()
        for kind in precision.QUANTIZED:
            made = precision.at(content, kind, parity.prepared(scaled, model.spec))
            print(_row(kind, model, parity.quantized_network(made), measured), flush=True)
    return 0


def _some(paths: list[Path], count: int) -> list[UInt8]:
    return [parity.shrunk(one) for _, one in islice(load_photographs(paths), count)]


def _row(kind: str, model: Colorizer, quantized: Network, measured: list[UInt8]) -> str:
    found = np.array(
        [
            [
                *astuple(parity.measure(quantized, model.predict_ab, [one], model.spec, batch=1)),
                _error(one, quantized, model),
                _error(one, model.predict_ab, model),
            ]
            for one in track(measured, f"{model.name} {kind}", console=Console(stderr=True))
        ]
    )
    distances = " | ".join(
        f"{column.mean():.3f} (worst {column.max():.3f})" for column in found.T[:3]
    )
    low, high = metrics.bootstrap_interval(found[:, 3] - found[:, 4])
    truths = f"{found[:, 3].mean():.3f}; {found[:, 4].mean():.3f} ({low:+.3f} to {high:+.3f})"
    return f"| `{model.name}` {kind.upper()} | {distances} | {truths} |"


def _error(truth: UInt8, network: Network, model: Colorizer) -> float:
    lightness = lab.compute_lightness(truth)
    counts, box = colorize.prepare_input(lightness, model.spec)
    guess = colorize.compose_rgb(lightness, network(counts[None])[0], box, model.spec, 1.0)
    return metrics.compute_ciede2000(truth, guess)


if __name__ == "__main__":
    sys.exit(main())
