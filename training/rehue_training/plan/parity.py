"""Measures how far a plan's colours are from its ONNX file's, on real photographs.

Both get the same prepared lightness. Their ab fields are compared, and so are the pictures that the
server makes of them.
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
    """Distances to the ONNX file's answers, of the worst photograph."""

    ab_mean: float  # Lab units, absolute, over the ab field
    ab_largest: float
    ciede2000: float  # mean over the finished picture

    def list_excesses(self, tolerance: "Parity") -> list[str]:
        """Returns a sentence for each distance that is beyond the tolerance."""
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


# FP16 is up to 0.069, 2.72 and 0.112 away (docs/plans.md: an H200, and a CPU on 250 photographs). A
# difference of about 1 in CIEDE2000 is just visible.
TOLERANCE = Parity(ab_mean=0.1, ab_largest=6.0, ciede2000=0.2)
# INT8 and FP8 cannot come as near. The finished picture decides: half of what is just visible.
QUANTIZED_TOLERANCE = Parity(ab_mean=1.0, ab_largest=25.0, ciede2000=0.5)


def measure_parity(
    plan: Network,
    reference: Network,
    photographs: Sequence[UInt8],
    contract: ModelSpec,
    *,
    batch: int,
) -> Parity:
    """Compares a plan's network with the reference.

    Args:
        photographs: HWC uint8 sRGB.
        batch: photographs of each call; they are repeated to fill the last one.
    """
    lightness = [lab.compute_lightness(photograph) for photograph in photographs]
    fitted = [colorize.prepare_input(plane, contract) for plane in lightness]
    counts = np.stack([prepared for prepared, _ in fitted])
    places = np.arange(-(-len(counts) // batch) * batch) % len(counts)
    made = np.concatenate([plan(counts[rows]) for rows in places.reshape(-1, batch)])
    firsts = range(0, len(counts), batch)
    expected = np.concatenate([reference(counts[first : first + batch]) for first in firsts])
    distances = [
        measure_distance(ab, expected[place], lightness[place], fitted[place][1], contract)
        for ab, place in zip(made, places, strict=True)
    ]
    return Parity(*(float(np.max(column)) for column in zip(*distances, strict=True)))


def prepare_inputs(photographs: Sequence[UInt8], contract: ModelSpec) -> NDArray[Any]:
    """Returns the network's input (N1HW, in counts) for HWC uint8 sRGB photographs."""
    lightness = (lab.compute_lightness(photograph) for photograph in photographs)
    return np.stack([colorize.prepare_input(plane, contract)[0] for plane in lightness])


def measure_distance(
    made: Tensor, expected: Tensor, lightness: Float32, box: Box, contract: ModelSpec
) -> tuple[float, float, float]:
    """Returns one photograph's `Parity`: of two ab fields (2hw), and of the pictures they make."""
    error = np.abs(made.astype(np.float32) - expected.astype(np.float32)) * contract.ab_scale
    pictures = (colorize.compose_rgb(lightness, ab, box, contract, 1.0) for ab in (expected, made))
    return float(error.mean()), float(error.max()), compute_ciede2000(*pictures)


def load_onnx_network(path: Path) -> Network:
    """Loads an ONNX file on this machine's CPU: the reference for every plan."""
    return _open_session(onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"]))


def load_quantized_network(model: bytes) -> Network:
    """Loads a serialized ONNX model with Q/DQ nodes on the CPU, node by node.

    ONNX Runtime's optimiser would replace FP8 nodes by others: ab 13 instead of 0.2 away.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return _open_session(
        onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    )


def _open_session(session: onnxruntime.InferenceSession) -> Network:
    (name,) = (entry.name for entry in session.get_inputs())
    return lambda counts: np.asarray(session.run(None, {name: counts})[0])


def load_photographs(paths: Iterable[Path] = ()) -> list[UInt8]:
    """Loads photographs to compare on, HWC uint8 sRGB; without paths, three of scikit-image's.

    Raises:
        ValueError: naming a file that OpenCV does not read.
    """
    photographs = [_read_photograph(path) for path in paths]
    return photographs or [
        shrink_picture(load()) for load in (data.astronaut, data.chelsea, data.coffee)
    ]


def _read_photograph(path: Path) -> UInt8:
    pixels = cv2.imread(str(path))
    if pixels is None:
        raise ValueError(f"{path} is not a picture that can be read")
    return shrink_picture(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB))


def shrink_picture(pixels: UInt8) -> UInt8:
    """Returns the picture, at most `LONG_SIDE` pixels wide and high."""
    height, width = pixels.shape[:2]
    factor = min(1.0, LONG_SIDE / max(height, width))
    size = (round(width * factor), round(height * factor))
    return np.asarray(cv2.resize(pixels, size, interpolation=cv2.INTER_AREA), np.uint8)
