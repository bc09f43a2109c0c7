"""A training run of four steps, for tests."""

import keras
from paths import ROOT

from rehue_training.learn import losses
from rehue_training.learn.config import Config, Stage

CONFIGS = ROOT / "training" / "configs"


def create_tiny_config(**changes: object) -> Config:
    """Four steps of the default network on crops of 32 and 64 pixels."""
    values = {
        "name": "tiny",
        "model": "rehue",
        "stages": (Stage(steps=3, size=32, batch=2), Stage(steps=1, size=64, batch=2)),
        "loss": losses.ColorLoss(),
        "learning_rate": 1e-3,
        "encoder_rate": 0.3,
        "frozen_blocks": 5,
        "weight_decay": 0.01,
        "clip": 1.0,
        "ema": 0.9,
        "film": 0.5,
        "validation": 0.5,
        "validate_on": 2,
        "checkpoint_every": 2,
        "validate_every": 3,
        "log_every": 1,
    }
    return Config(**{**values, **changes})


def read_rate_shares(model: keras.Model) -> dict[str, float]:
    """The share of the learning rate that each trainable variable has, by its path."""
    paths = [variable.path for variable in model.trainable_variables]
    return dict(zip(paths, model.optimizer.shares, strict=True))


def create_small_network() -> keras.Model:
    """A network with the default's kinds of layers, quick to trace."""
    return keras.Sequential(
        [
            keras.Input((None, None, 1)),
            keras.layers.Rescaling(1 / 50, offset=-1.0),
            keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu"),
            # It cannot be traced for unknown sizes, so two crop sizes must not ask for that.
            keras.layers.UpSampling2D(2, interpolation="bilinear"),
            keras.layers.Conv2D(2, 3, padding="same", activation="tanh"),
        ]
    )
