"""A perceptual loss term: the distance of two pictures in an ImageNet classifier's features.

The classifier is EfficientNet-Lite0 (`encoder`), or VGG16 (`vgg`), the usual choice where a GPU
makes it affordable; its weights are fixed.
Johnson, Alahi and Fei-Fei, "Perceptual Losses for Real-Time Style Transfer" (2016). Each layer's
mean distance is divided by the truth's mean activation, so that every layer counts equally.
"""

from functools import cache
from typing import Any, Literal

import keras
from keras import ops

from rehue_core.lab import AB_RANGE
from rehue_training.network import encoder, vgg

Classifier = Literal["lite0", "vgg16"]

# XYZ to linear sRGB (IEC 61966-2-1), D65, as in scikit-image: columns are R, G, B.
XYZ_TO_RGB = (
    (3.24048134, -0.96925495, 0.05564664),
    (-1.53715152, 1.87599, -0.20404134),
    (-0.49853633, 0.04155593, 1.05731107),
)
WHITE = (0.95047, 1.0, 1.08883)
MIN_LINEAR = 1e-4  # of linear light: below it the slope of the root is unbounded


def compute_distance(truth: Any, guess: Any, classifier: Classifier = "lite0") -> Any:
    """Return the perceptual distance per photograph; 0 for identical pictures.

    Args:
        truth: NHW3 float32, ab divided by `AB_RANGE` and L divided by 100.
        guess: NHW2 float32, ab divided by `AB_RANGE`; it is combined with the truth's L.
    """
    network = _load_network(classifier)
    lightness = truth[..., 2:] * 100
    true_features, guessed_features = (
        network(convert_to_srgb(lightness, ab * AB_RANGE) * 2 - 1)
        for ab in (truth[..., :2], guess[..., :2])
    )
    total = 0.0
    for true, guessed in zip(true_features, guessed_features, strict=True):
        scale = ops.mean(ops.abs(true), axis=(1, 2, 3)) + 1e-6
        total = total + ops.mean(ops.abs(true - guessed), axis=(1, 2, 3)) / scale
    return total / len(true_features)


def convert_to_srgb(lightness: Any, ab: Any) -> Any:
    """Convert L (NHW1, 0..100) and ab (NHW2, Lab units) to NHW3 sRGB, 0..1."""
    y = (lightness + 16) / 116
    f = ops.concatenate([y + ab[..., :1] / 500, y, y - ab[..., 1:] / 200], axis=-1)
    xyz = ops.where(f > 6 / 29, ops.power(ops.maximum(f, 0.0), 3), (f - 16 / 116) / 7.787)
    linear = ops.matmul(xyz * ops.convert_to_tensor(WHITE), ops.convert_to_tensor(XYZ_TO_RGB))
    linear = ops.clip(linear, MIN_LINEAR, 1.0)
    root = 1.055 * ops.power(linear, 1 / 2.4) - 0.055
    return ops.where(linear > 0.0031308, root, 12.92 * linear)


@cache
def _load_network(classifier: Classifier) -> keras.Model:
    """Load a network from pictures (NHW3, -1..1) to all of its features but the coarsest."""
    family: Any = vgg if classifier == "vgg16" else encoder
    picture = keras.Input((None, None, 3), name="picture")
    network = keras.Model(picture, family.extract_features(picture)[:-1], name="perception")
    family.load_imagenet_weights(network)
    network.trainable = False
    return network
