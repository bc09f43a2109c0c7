"""How alike two pictures look to an ImageNet classifier: a term for losses.

The classifier is EfficientNet-Lite0 as `encoder` reads it, on colour pictures, never trained.
Johnson, Alahi and Fei-Fei, "Perceptual Losses for Real-Time Style Transfer" (2016); here each
tap's mean distance stands over the truth's mean activation, so that every tap counts alike.
"""

from functools import cache
from typing import Any

import keras
from keras import ops

from rehue_training.network.encoder import extract_features, load_imagenet_weights

# sRGB (IEC 61966-2-1) of XYZ, D65, as scikit-image has it: columns give R, G, B.
RGB_OF_XYZ = (
    (3.24048134, -0.96925495, 0.05564664),
    (-1.53715152, 1.87599, -0.20404134),
    (-0.49853633, 0.04155593, 1.05731107),
)
WHITE = (0.95047, 1.0, 1.08883)
MIN_LINEAR = 1e-4  # of linear light: below it the root's slope has no bound


def compute_distance(truth: Any, guess: Any) -> Any:
    """A number a photograph, 0 for the same picture.

    Args:
        truth: NHW3 float32, ab divided by 128 and L divided by 100.
        guess: NHW2 float32, ab divided by 128; the truth's L goes with it.
    """
    network = _load_network()
    lightness = truth[..., 2:] * 100
    wanted, made = (
        network(convert_to_srgb(lightness, ab * 128) * 2 - 1)
        for ab in (truth[..., :2], guess[..., :2])
    )
    total = 0.0
    for one, other in zip(wanted, made, strict=True):
        scale = ops.mean(ops.abs(one), axis=(1, 2, 3)) + 1e-6
        total = total + ops.mean(ops.abs(one - other), axis=(1, 2, 3)) / scale
    return total / len(wanted)


def convert_to_srgb(lightness: Any, ab: Any) -> Any:
    """NHW3 sRGB, 0..1, of L (NHW1, 0..100) and ab (NHW2, Lab units)."""
    y = (lightness + 16) / 116
    f = ops.concatenate([y + ab[..., :1] / 500, y, y - ab[..., 1:] / 200], axis=-1)
    xyz = ops.where(f > 6 / 29, ops.power(ops.maximum(f, 0.0), 3), (f - 16 / 116) / 7.787)
    linear = ops.matmul(xyz * ops.convert_to_tensor(WHITE), ops.convert_to_tensor(RGB_OF_XYZ))
    linear = ops.clip(linear, MIN_LINEAR, 1.0)
    root = 1.055 * ops.power(linear, 1 / 2.4) - 0.055
    return ops.where(linear > 0.0031308, root, 12.92 * linear)


@cache
def _load_network() -> keras.Model:
    """Pictures (NHW3, -1..1) to the encoder's taps but the coarsest."""
    picture = keras.Input((None, None, 3), name="picture")
    network = keras.Model(picture, extract_features(picture)[:-1], name="perception")
    load_imagenet_weights(network)
    network.trainable = False
    return network
