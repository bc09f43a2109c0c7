"""Bins of the ab plane: the squares of a grid that contain colours of sRGB.

Zhang, Isola and Efros, "Colorful Image Colorization" (2016), section 2: the soft encoding of a
colour, and the annealed mean that decodes it. Their bins are 10 Lab units wide; ours are 16, which
is a third of the work, and the annealed mean interpolates between them.
"""

from functools import cache
from typing import Any

import cv2
import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

from rehue_core.lab import AB_RANGE

BIN_SIDE = 16.0  # of a bin, Lab units
BIN_SIGMA = 8.0  # Lab units, of the Gaussian of the soft encoding
RGB_STEPS = 33  # of each of R, G and B in the search for bins with colours


@cache
def compute_centers() -> NDArray[np.float32]:
    """Return the a and b of each bin's center, Q x 2 float32, Lab units."""
    steps = np.linspace(0, 1, RGB_STEPS, dtype=np.float32)
    rgb = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    ab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)[0, :, 1:]
    return np.asarray(np.unique(np.rint(ab / BIN_SIDE), axis=0) * BIN_SIDE, np.float32)


def soft_encode(ab: Any) -> Any:
    """Encode ab (NHW2, divided by `AB_RANGE`) as weights of the bins (NHWQ, summing to 1)."""
    centers = ops.convert_to_tensor(compute_centers() / AB_RANGE)
    # |x - c|^2 = |x|^2 - 2 x c + |c|^2, which needs no array of Q differences per pixel.
    squares = (
        ops.sum(ops.square(ab), axis=-1, keepdims=True)
        - 2 * ops.matmul(ab, ops.transpose(centers))
        + ops.sum(ops.square(centers), axis=-1)
    )
    return ops.softmax(-squares / (2 * (BIN_SIGMA / AB_RANGE) ** 2), axis=-1)


def add_annealed_mean(model: keras.Model, temperature: float) -> keras.Model:
    """Add the annealed mean to a network: scores (NHWQ) become ab (NHW2, divided by `AB_RANGE`).

    Args:
        temperature: 1 gives the mean of all colours; towards 0 it becomes their mode.
    """
    scaled = layers.Rescaling(1 / temperature, name="annealed")(model.output)
    probabilities = layers.Softmax(axis=-1, dtype="float32", name="classes")(scaled)
    mean = layers.Conv2D(2, 1, dtype="float32", name="annealed_mean")
    annealed = keras.Model(model.inputs, mean(probabilities), name=model.name)
    mean.set_weights([compute_centers()[None, None] / AB_RANGE, np.zeros(2, np.float32)])
    return annealed
