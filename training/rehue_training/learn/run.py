"""A run: the network, its optimizer, and one training step.

The step is Keras' `train_on_batch`, so the same code runs on TensorFlow, JAX and
PyTorch.
"""

import math
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
from google.protobuf.message import DecodeError

from rehue_training.data import batches
from rehue_training.errors import InputError
from rehue_training.learn import checkpoint, losses
from rehue_training.learn.adversary import Adversary
from rehue_training.learn.checkpoint import Arrays, Checkpoint, Record
from rehue_training.learn.config import Config
from rehue_training.network.encoder import get_block_number
from rehue_training.network.graph import read_weights
from rehue_training.network.models import MODELS, average_two_scales

CHECKPOINT = "checkpoint.npz"
PHOTOGRAPHS = "photographs.json"  # their number, for the exported model's card
START = "start.onnx"  # a copy: an export may replace the file that the run started from
AVERAGE_EVERY = 10  # steps; the decay is raised to this power


# The backend's own AdamW. PyTorch's updates all variables in a few kernel launches instead of a
# dozen per variable.
AdamW: Any = type(keras.optimizers.AdamW())


class LayerwiseAdamW(AdamW):  # type: ignore[misc]
    """AdamW with a lower learning rate for pretrained layers."""

    def __init__(self, config: Config, shares: list[float]) -> None:
        super().__init__(
            config.learning_rate, weight_decay=config.weight_decay, global_clipnorm=config.clip
        )
        self.shares = shares  # of the learning rate, in the order of the trainable variables

    def _backend_update_step(self, gradients: Any, variables: Any, learning_rate: Any) -> None:
        """Update all variables with the same share at once: each update costs kernel launches."""
        shares = [self.shares[self._get_variable_index(variable)] for variable in variables]
        for share in sorted(set(shares)):
            indices = [index for index, other in enumerate(shares) if other == share]
            super()._backend_update_step(
                [gradients[index] for index in indices],
                [variables[index] for index in indices],
                learning_rate * share,
            )


def build_model(config: Config, adversary: Adversary | None = None) -> keras.Model:
    """Build the config's network, compiled, with its starting weights."""
    keras.utils.set_random_seed(config.seed)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.precision)
    try:
        network = build_network(config)
        model = average_two_scales(network) if config.looks == 2 else network
    finally:
        keras.config.set_dtype_policy(policy)
    if config.start:
        _read_start(network, config.start, config.start_scope)
    freeze_blocks(network, config.frozen_blocks)
    shares = [
        1.0 if get_block_number(layer) is None else config.encoder_rate
        for layer in network.layers
        for _ in layer.trainable_variables
    ]
    loss = config.loss if adversary is None else _add_adversarial_term(config, adversary)
    metrics = [] if config.model == "rehue-classes" else [losses.accuracy]
    model.compile(optimizer=LayerwiseAdamW(config, shares), loss=loss, metrics=metrics)
    model.optimizer.build(model.trainable_variables)
    return model


def build_network(config: Config) -> keras.Model:
    """The config's network that looks once, with ImageNet's encoder under a new decoder."""
    if config.model == "rehue-coarse":
        return MODELS[config.model](config.encoder)
    return MODELS[config.model]()


def _read_start(network: keras.Model, path: Path, scope: str) -> None:
    try:
        read_weights(network, path, scope)
    except (KeyError, ValueError, DecodeError) as error:
        raise InputError(f"start: {path} does not hold the weights of this model") from error


def _add_adversarial_term(config: Config, adversary: Adversary) -> losses.Loss:
    """Return the config's loss plus the critic's term."""

    def loss(truth: Any, guess: Any) -> Any:
        return config.loss(truth, guess) + config.adversary * adversary.compute_loss(truth, guess)

    return loss


def freeze_blocks(model: keras.Model, blocks: int) -> None:
    """Freeze the encoder's stem and first `blocks` blocks."""
    for layer in model.layers:
        block = get_block_number(layer)
        layer.trainable = blocks == 0 or block is None or block > blocks


def compute_learning_rate(config: Config, step: int) -> float:
    """Return the step's learning rate: linear warm-up, constant, then half a cosine to zero."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    start = max(config.warmup, config.steps - round(config.decay * config.steps))
    if step < start:
        return config.learning_rate
    done = (step - start) / (config.steps - start)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


class Run:
    """A run in its folder: the model and the state that a checkpoint saves."""

    def __init__(self, config: Config, folder: Path) -> None:
        self.config, self.path = config, folder / CHECKPOINT
        self.adversary = Adversary(config.seed) if config.adversary else None
        if config.start and not self.path.is_file():
            shutil.copy(config.start, folder / START)
        self.model = build_model(config, self.adversary)
        self.step = 0
        self.input_size = 0  # that the model's functions were traced for
        self.averaged: Arrays = self.model.get_weights()
        self.history: list[Record] = []
        if self.path.is_file():
            self._restore(checkpoint.load(self.path))

    def _restore(self, state: Checkpoint) -> None:
        self.step, self.averaged, self.history = state.step, state.averaged, state.history
        try:
            self.model.set_weights(state.weights)
            for variable, value in zip(self._optimizer_variables, state.optimizer, strict=True):
                variable.assign(value)
        except ValueError as error:
            raise InputError(
                f"{self.path} is of another network or optimizer than the experiment's: choose "
                "another `name`, or delete that folder to start again"
            ) from error

    @property
    def _optimizer_variables(self) -> list[Any]:
        """The variables that training needs besides the weights."""
        critic = self.adversary.variables if self.adversary else []
        return [*self.model.optimizer.variables, *critic]

    def save(self) -> None:
        optimizer = [keras.ops.convert_to_numpy(value) for value in self._optimizer_variables]
        weights = self.model.get_weights()
        state = Checkpoint(self.step, weights, self.averaged, optimizer, self.history)
        checkpoint.save(self.path, state)

    def train_step(self, step: batches.TrainingStep, batch: batches.Batch) -> Record:
        """Train one step; return the loss and accuracy since the last log."""
        self._retrace_functions(step.maker.input_size)
        self.model.optimizer.learning_rate = compute_learning_rate(self.config, step.number)
        if self.adversary:
            lightness, truth = batch
            self.adversary.train_step(truth, self.model.predict_on_batch(lightness))
        result = self.model.train_on_batch(*batch, return_dict=True)
        self.step = step.number + 1
        if self.step % AVERAGE_EVERY == 0 or self.step == self.config.steps:
            self._update_average()
        return {name: float(value) for name, value in result.items()}

    def _retrace_functions(self, size: int) -> None:
        """Make new functions for a new input size.

        When TensorFlow sees a second size it traces for unknown sizes, and a bilinear
        UpSampling2D cannot be traced for those.
        """
        if size != self.input_size:
            self.model.make_train_function(force=True)
            self.model.make_test_function(force=True)
            self.model.make_predict_function(force=True)
            self.input_size = size

    def _update_average(self) -> None:
        """Move the average towards the weights; the first updates move it most of the way."""
        seen = self.step / AVERAGE_EVERY
        keep = np.float32(min(self.config.ema**AVERAGE_EVERY, seen / (10 + seen)))
        if self.config.ema == 0:
            keep = np.float32(0)
        weights = self.model.get_weights()
        pairs = zip(self.averaged, weights, strict=True)
        self.averaged = [old * keep + new * (1 - keep) for old, new in pairs]

    def add_record(self, record: Record) -> None:
        """Add a record to the history and restart the mean loss."""
        self.history.append({"step": self.step, **record})
        self.model.reset_metrics()

    def validate(self, batch: batches.Batch, size: int) -> Record:
        """Return loss and accuracy of the averaged weights on the validation batch."""
        weights = self.model.get_weights()
        self.model.set_weights(self.averaged)
        result = self.model.evaluate(*batch, batch_size=size, verbose=0, return_dict=True)
        self.model.set_weights(weights)
        return {f"val_{name}": float(value) for name, value in result.items()}
