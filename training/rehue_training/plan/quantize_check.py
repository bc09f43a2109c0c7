"""Measures what INT8 and FP8 do to the colours without a GPU: Q/DQ nodes in ONNX Runtime.

Prints the table of docs/plans.md.

    python -m rehue_training.plan.quantize_check --calibration PHOTOGRAPHS/train-0.tar \
        --data PHOTOGRAPHS/test.tar

Distances to the ONNX file are those that decide on a plan (`parity`); CIEDE2000 to the original
photograph says whether the result is any worse for it. Nothing here is tuned on the result.
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
from rehue_training.plan.identity import QUANTIZED
from rehue_training.plan.parity import Network
from rehue_training.plan.served_model import load_served_model

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
    calibration = _load_some(arguments.calibration, arguments.calibrate_on)
    photographs = _load_some(arguments.data, arguments.count)
    print(f"calibrated on {len(calibration)} photographs, measured on {len(photographs)} others")
    print(TABLE)
    for name in arguments.models:
        model = Colorizer(arguments.repository, name)
        content = load_served_model(arguments.repository / name).onnx_path.read_bytes()
        counts = parity.prepare_inputs(calibration, model.spec)
        for kind in QUANTIZED:
            converted = precision.convert_precision(content, kind, counts)
            network = parity.load_quantized_network(converted)
            print(_format_row(kind, model, network, photographs), flush=True)
    return 0


def _load_some(paths: list[Path], count: int) -> list[UInt8]:
    return [
        parity.shrink_picture(photograph)
        for _, photograph in islice(load_photographs(paths), count)
    ]


def _format_row(kind: str, model: Colorizer, quantized: Network, photographs: list[UInt8]) -> str:
    console = Console(stderr=True)
    measured = np.array(
        [
            _measure_photograph(photograph, quantized, model)
            for photograph in track(photographs, f"{model.name} {kind}", console=console)
        ]
    )
    distances = " | ".join(
        f"{column.mean():.3f} (worst {column.max():.3f})" for column in measured.T[:3]
    )
    errors, fp32_errors = measured[:, 3], measured[:, 4]
    low, high = metrics.bootstrap_interval(errors - fp32_errors)
    truths = f"{errors.mean():.3f}; {fp32_errors.mean():.3f} ({low:+.3f} to {high:+.3f})"
    return f"| `{model.name}` {kind.upper()} | {distances} | {truths} |"


def _measure_photograph(
    photograph: UInt8, quantized: Network, model: Colorizer
) -> tuple[float, ...]:
    """Returns the three distances to the ONNX file, and the errors of both networks."""
    found = parity.measure_parity(quantized, model.predict_ab, [photograph], model.spec, batch=1)
    errors = (
        _measure_error(photograph, network, model) for network in (quantized, model.predict_ab)
    )
    return (*astuple(found), *errors)


def _measure_error(truth: UInt8, network: Network, model: Colorizer) -> float:
    """Returns the mean CIEDE2000 of a colorized photograph to the original."""
    lightness = lab.compute_lightness(truth)
    counts, box = colorize.prepare_input(lightness, model.spec)
    guess = colorize.compose_rgb(lightness, network(counts[None])[0], box, model.spec, 1.0)
    return metrics.compute_ciede2000(truth, guess)


if __name__ == "__main__":
    sys.exit(main())
