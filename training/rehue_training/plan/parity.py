"""How far a plan's colours are from its ONNX file's, on real photographs.

Both get the same prepared lightness; their ab fields are compared, and so are the
pictures that the serving side makes of them.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from skimage import data

from rehue_core import colorize, lab
from rehue_core.colorize import Box, ModelSpec, Tensor
from rehue_core.lab import Float32, UInt8
from rehue_training.evaluation.metrics import compute_ciede2000

Network = Callable[[NDArray[Any]], NDArray[Any]]  # N1HW lightness in counts to N2hw ab

LONG_SIDE = 512  # pixels of a compared photograph: CIEDE2000 is slow


@dataclass(frozen=True)
class Parity:
    """Distances to the ONNX file's answers; the worst photograph's."""

    ab_mean: float  # Lab units, absolute, over the ab field
    ab_largest: float
    ciede2000: float  # mean over the finished picture

    def exceeds(self, tolerance: "Parity") -> list[str]:
        """What lies beyond the tolerance, each as a sentence."""
        limits = asdict(tolerance)
        return [
            f"{name} is {value:.4g}, at most {limits[name]:.4g} is allowed"
            for name, value in asdict(self).items()
            if not value <= limits[name]  # a NaN is beyond every limit
        ]

    def __str__(self) -> str:
        return (
            f"ab {self.ab_mean:.4f} in the mean and {self.ab_largest:.3f} at most, "
            f"CIEDE2000 {self.ciede2000:.4f} (worst photograph)"
        )


# FP16 is up to 0.069, 2.72 and 0.112 away (docs/plans.md: an H200, and a CPU on 250 photographs); a
# difference of about 1 in CIEDE2000 is just visible.
TOLERANCE = Parity(ab_mean=0.1, ab_largest=6.0, ciede2000=0.2)
# INT8 and FP8 cannot come as near. What decides is the finished picture: half of what is
# just visible.
QUANTIZED = Parity(ab_mean=1.0, ab_largest=25.0, ciede2000=0.5)


def measure(
    plan: Network, reference: Network, photographs: Sequence[UInt8], spec: ModelSpec, *, batch: int
) -> Parity:
    """Compares on HWC uint8 sRGB photographs, in calls of `batch` (repeated to fill them)."""
    lightness = [lab.compute_lightness(one) for one in photographs]
    fitted = [colorize.prepare_input(one, spec) for one in lightness]
    counts = np.stack([one for one, _ in fitted])
    places = np.arange(-(-len(counts) // batch) * batch) % len(counts)
    made = np.concatenate([plan(counts[one]) for one in places.reshape(-1, batch)])
    firsts = range(0, len(counts), batch)
    true = np.concatenate([reference(counts[first : first + batch]) for first in firsts])
    found = [
        distance(one, true[place], lightness[place], fitted[place][1], spec)
        for one, place in zip(made, places, strict=True)
    ]
    return Parity(*(float(np.max(column)) for column in zip(*found, strict=True)))


def prepared(photographs: Sequence[UInt8], spec: ModelSpec) -> NDArray[Any]:
    """The network's input (N1HW, in counts) for HWC uint8 sRGB photographs."""
    return np.stack(
        [colorize.prepare_input(lab.compute_lightness(one), spec)[0] for one in photographs]
    )


def distance(
    made: Tensor, true: Tensor, lightness: Float32, box: Box, spec: ModelSpec
) -> tuple[float, float, float]:
    """One photograph's `Parity`: of two ab fields (2hw), and the pictures they make."""
    error = np.abs(made.astype(np.float32) - true.astype(np.float32)) * spec.ab_scale
    pictures = (colorize.compose_rgb(lightness, one, box, spec, 1.0) for one in (true, made))
    return float(error.mean()), float(error.max()), compute_ciede2000(*pictures)


def onnx_network(path: Path) -> Network:
    """The ONNX file on this machine's CPU: what every plan is held against."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (name,) = (one.name for one in session.get_inputs())
    return lambda counts: np.asarray(session.run(None, {name: counts})[0])


def quantized_network(model: bytes) -> Network:
    """A serialized ONNX model with Q/DQ nodes, on the CPU, node by node.

    ONNX Runtime's optimiser makes something else of FP8 nodes: ab 13 instead of 0.2 away.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (name,) = (one.name for one in session.get_inputs())
    return lambda counts: np.asarray(session.run(None, {name: counts})[0])


def photographs(paths: Iterable[Path] = ()) -> list[UInt8]:
    """Photographs to compare on, HWC uint8 sRGB: those given, else three of scikit-image's.

    Raises:
        ValueError: naming a file that OpenCV does not read.
    """
    read = [_read(path) for path in paths]
    return read or [shrunk(one()) for one in (data.astronaut, data.chelsea, data.coffee)]


def _read(path: Path) -> UInt8:
    pixels = cv2.imread(str(path))
    if pixels is None:
        raise ValueError(f"{path} is not a picture that can be read")
    return shrunk(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))


def shrunk(pixels: UInt8) -> UInt8:
    """At most `LONG_SIDE` pixels wide and high."""
    height, width = pixels.shape[:2]
    factor = min(1.0, LONG_SIDE / max(height, width))
    size = (round(width * factor), round(height * factor))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
