"""The networks: `seed`, the paper's CNN, `rehue`, the default, and its relatives.

The input is L as NHWC float32, 0..100; the output is ab as NHWC float32 divided by
`rehue_core.lab.AB_RANGE`, or for `rehue-classes` a score for each bin of `bins`. All networks
are fully convolutional: they train on crops of any size that divides by 32, and are
exported at the size at which they are served.
"""

from collections.abc import Callable
from typing import Any

import keras
from keras import layers

from rehue_training.network import bins, vgg
from rehue_training.network.encoder import ENCODERS, extract_features, load_imagenet_weights

# Channels of rehue's decoder at 1/16, 1/8, 1/4 and 1/2 of the input's size.
DECODER_CHANNELS = (160, 96, 64, 32)
LARGE_CHANNELS = (320, 192, 128, 64)  # of rehue-large's


def build_seed() -> keras.Model:
    """Build the CNN of "Image Colorization Using CNN" (Purnomo, 2023), layer by layer.

    6,219,410 parameters. The output has the size of the input.
    """
    convolutions = [_make_seed_conv(channels, stride) for channels, stride in SEED_ENCODER]
    return keras.Sequential(
        [
            keras.Input((None, None, 1), name="lightness"),
            *convolutions,
            layers.UpSampling2D(2),
            _make_seed_conv(64),
            layers.UpSampling2D(2),
            _make_seed_conv(32),
            _make_seed_conv(16),
            layers.Conv2D(2, 3, padding="same", activation="tanh", dtype="float32"),
            layers.UpSampling2D(2),
        ],
        name="seed",
    )


SEED_ENCODER = (
    (64, 2),
    (128, 1),
    (128, 2),
    (256, 1),
    (256, 2),
    (512, 1),
    (512, 1),
    (256, 1),
    (128, 1),
)


def _make_seed_conv(channels: int, stride: int = 1) -> keras.Layer:
    return layers.Conv2D(channels, 3, strides=stride, padding="same", activation="relu")


def build_rehue(*, pretrained: bool = True) -> keras.Model:
    """Build EfficientNet-Lite0 with a light U-Net decoder; the output has half the input's size.

    The decoder adds the encoder's finer features rather than concatenating them, which
    halves the work of the next convolution. At its deepest point the mean over the whole
    picture is added, so that every position knows the scene.
    """
    return _build_u_net(_make_head(2, activation="tanh", name="colours"), pretrained=pretrained)


def build_rehue_classes(*, pretrained: bool = True) -> keras.Model:
    """Build `rehue` with a score per bin as its output; see `bins.add_annealed_mean`."""
    return _build_u_net(
        _make_head(len(bins.compute_centers()), name="scores"), pretrained=pretrained
    )


def _build_u_net(head: keras.Layer, *, pretrained: bool) -> keras.Model:
    lightness = keras.Input((None, None, 1), name="lightness")
    gray = layers.Rescaling(1 / 50, offset=-1.0, name="gray")(lightness)
    *skips, deepest = extract_features(gray)
    x = _add_context(deepest, DECODER_CHANNELS[0])
    for channels, skip in zip(DECODER_CHANNELS, reversed(skips), strict=True):
        x = _add_decoder_block(x, skip, channels)
    model = keras.Model(lightness, head(x), name="rehue")
    if pretrained:
        load_imagenet_weights(model)
    return model


def build_rehue_coarse(encoder: str = "lite0") -> keras.Model:
    """An encoder and the first two steps of `rehue`'s decoder; ab at an eighth of the input's size.

    Small enough to be trained in an hour or two and to be averaged with others (`ensemble`). Its
    layers have the names of `rehue`'s, so that it can start from those weights.
    """
    lightness = keras.Input((None, None, 1), name="lightness")
    gray = layers.Rescaling(1 / 50, offset=-1.0, name="gray")(lightness)
    *skips, deepest = extract_features(gray, ENCODERS[encoder])
    x = _add_context(layers.Dropout(0.1, name="drop_deepest")(deepest), DECODER_CHANNELS[0])
    for channels, skip in zip(DECODER_CHANNELS[:2], reversed(skips[-2:]), strict=True):
        x = _add_decoder_block(x, skip, channels)
    x = layers.Dropout(0.1, name="drop_decoded")(x)
    head = _make_head(2, activation="tanh", name="coarse_colours")
    model = keras.Model(lightness, head(x), name=f"rehue_{encoder}")
    load_imagenet_weights(model, ENCODERS[encoder])
    return model


def build_rehue_large() -> keras.Model:
    """Build VGG16 with a U-Net decoder, for a GPU; the output has half the input's size.

    22 million parameters. Every convolution is dense, so a GPU's matrix units are busy;
    EfficientNet's depthwise layers leave them idle.
    """
    lightness = keras.Input((None, None, 1), name="lightness")
    gray = layers.Rescaling(1 / 50, offset=-1.0, name="gray")(lightness)
    _, *skips = vgg.extract_features(gray)
    x = layers.MaxPooling2D(2, name="deepest_pool")(skips[-1])
    for index in (1, 2):
        x = _make_conv(512, f"deepest_{index}")(x)
    x = _add_context(layers.Dropout(0.1, name="drop_deepest")(x), LARGE_CHANNELS[0])
    for channels, skip in zip(LARGE_CHANNELS, reversed(skips), strict=True):
        x = _add_decoder_block(x, skip, channels)
    model = keras.Model(lightness, _make_head(2, activation="tanh", name="colours")(x))
    vgg.load_imagenet_weights(model)
    return model


def _make_head(channels: int, **options: Any) -> keras.Layer:
    # Zero weights: training starts from gray, not from saturated noise. FP32 in every policy.
    return layers.Conv2D(
        channels, 3, padding="same", kernel_initializer="zeros", dtype="float32", **options
    )


def _add_context(x: Any, channels: int) -> Any:
    """Add the mean over the whole picture to the deepest features."""
    local = layers.Conv2D(channels, 1, name="context_local")(x)
    scene = layers.GlobalAveragePooling2D(keepdims=True, name="context_pool")(x)
    scene = layers.Conv2D(channels, 1, name="context_scene")(scene)
    x = layers.Add(name="context_add")([local, scene])
    return layers.ReLU(name="context_relu")(x)


def _add_decoder_block(x: Any, skip: Any, channels: int) -> Any:
    """Double the resolution: reduce channels, enlarge, add the encoder's features, convolve."""
    name = f"decode{channels}"
    if x.shape[-1] != channels:
        x = layers.Conv2D(channels, 1, name=f"{name}_narrow")(x)
    x = layers.UpSampling2D(2, interpolation="bilinear", name=f"{name}_double")(x)
    skip = layers.Conv2D(channels, 1, name=f"{name}_skip")(skip)
    x = layers.Add(name=f"{name}_add")([x, skip])
    x = layers.ReLU(name=f"{name}_relu")(x)
    for index in (1, 2):
        x = _make_conv(channels, f"{name}_{index}")(x)
    return x


def _make_conv(channels: int, name: str) -> keras.Layer:
    return layers.Conv2D(channels, 3, padding="same", activation="relu", name=name)


def average_two_scales(network: keras.Model) -> keras.Model:
    """Average a network's outputs for the picture and for the picture at half its size.

    Both use the same weights. At half the size the same layers see twice as much of the scene
    around each position, so that output knows better what something is, and the full-size one
    where it ends.
    """
    lightness = keras.Input((None, None, 1), name="lightness")
    small = network(layers.AveragePooling2D(2, name="half")(lightness))
    small = layers.UpSampling2D(2, interpolation="bilinear", dtype="float32", name="back")(small)
    mean = layers.Average(dtype="float32", name="mean")([network(lightness), small])
    return keras.Model(lightness, mean, name=f"{network.name}_twice")


# Size of a network's output relative to its input.
OUTPUT_SCALE = {
    "seed": 1.0,
    "rehue": 0.5,
    "rehue-classes": 0.5,
    "rehue-coarse": 0.125,
    "rehue-large": 0.5,
}
MODELS: dict[str, Callable[..., keras.Model]] = {
    "seed": build_seed,
    "rehue": build_rehue,
    "rehue-classes": build_rehue_classes,
    "rehue-coarse": build_rehue_coarse,
    "rehue-large": build_rehue_large,
}
