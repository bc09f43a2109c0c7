"""The ab plane in classes: the squares of a grid that hold colours of sRGB.

Zhang, Isola and Efros, "Colorful Image Colorization" (2016), section 2: the share of each class
in a colour, and the annealed mean that makes a colour of the classes' shares. Their squares have
10 Lab units and the annealed mean reaches between them; ours have 16, for a third of the work.
"""

from functools import cache
from typing import Any

import cv2
import keras
import numpy as np
from keras import layers, ops
from numpy.typing import NDArray

BIN_SIDE = 16.0  # of a square, Lab units
BIN_SIGMA = 8.0  # of the Gaussian by which a colour belongs to the squares around it
RGB_STEPS = 33  # of each of R, G and B in the search for squares with colours


@cache
def compute_centers() -> NDArray[np.float32]:
    """Q x 2: a and b of each class's centre, Lab units."""
    steps = np.linspace(0, 1, RGB_STEPS, dtype=np.float32)
    rgb = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    ab = cv2.cvtColor(rgb, cv2.COLOR_RGB2LAB)[0, :, 1:]
    return np.asarray(np.unique(np.rint(ab / BIN_SIDE), axis=0) * BIN_SIDE, np.float32)


def soft_encode(ab: Any) -> Any:
    """NHWQ, summing to 1: how far each class has a part in a colour (NHW2, divided by 128)."""
    places = ops.convert_to_tensor(compute_centers() / 128)
    # |x - c|^2 = |x|^2 - 2 x c + |c|^2, without an array of Q differences for every pixel.
    squares = (
        ops.sum(ops.square(ab), axis=-1, keepdims=True)
        - 2 * ops.matmul(ab, ops.transpose(places))
        + ops.sum(ops.square(places), axis=-1)
    )
    return ops.softmax(-squares / (2 * (BIN_SIGMA / 128) ** 2), axis=-1)


def add_annealed_mean(model: keras.Model, temperature: float) -> keras.Model:
    """The network with its classes' scores (NHWQ) made into ab (NHW2, divided by 128).

    The annealed mean: `temperature` 1 gives the mean of all colours, towards 0 their mode.
    """
    sharper = layers.Rescaling(1 / temperature, name="annealed")(model.output)
    probabilities = layers.Softmax(axis=-1, dtype="float32", name="classes")(sharper)
    mean = layers.Conv2D(2, 1, dtype="float32", name="annealed_mean")
    whole = keras.Model(model.inputs, mean(probabilities), name=model.name)
    mean.set_weights([compute_centers()[None, None] / 128, np.zeros(2, np.float32)])
    return whole
