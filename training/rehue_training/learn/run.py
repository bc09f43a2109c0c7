"""A run: the network and its optimizer, and how one step changes them.

Keras' own `train_on_batch` does the step, so that the same code runs on
TensorFlow, JAX and PyTorch.
"""

import math
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np

from rehue_training.data import batches
from rehue_training.learn import checkpoint, losses
from rehue_training.learn.adversary import Adversary
from rehue_training.learn.checkpoint import Arrays, Checkpoint, Record
from rehue_training.learn.config import Config
from rehue_training.network.encoder import get_block_number
from rehue_training.network.graph import read_weights
from rehue_training.network.models import MODELS, average_two_scales

CHECKPOINT = "checkpoint.npz"
START = "start.onnx"  # a copy: the export may replace what the run started from
AVERAGE_EVERY = 10  # steps; the decay is raised to this power


# The backend's own AdamW: PyTorch's changes all variables in a few launches, not each in a dozen.
AdamW: Any = type(keras.optimizers.AdamW())


class LayerwiseAdamW(AdamW):  # type: ignore[misc]
    """AdamW whose pretrained layers learn at a share of the rate."""

    def __init__(self, config: Config, shares: list[float]) -> None:
        super().__init__(
            config.learning_rate, weight_decay=config.weight_decay, global_clipnorm=config.clip
        )
        self.shares = shares  # of the rate, in the order of the trainable variables

    def _backend_update_step(self, gradients: Any, variables: Any, learning_rate: Any) -> None:
        """One update for all variables of a share: what is done for each costs launches."""
        of = [self.shares[self._get_variable_index(variable)] for variable in variables]
        for share in sorted(set(of)):
            some = [index for index, other in enumerate(of) if other == share]
            super()._backend_update_step(
                [gradients[index] for index in some],
                [variables[index] for index in some],
                learning_rate * share,
            )


def build_model(config: Config, adversary: Adversary | None = None) -> keras.Model:
    """The config's network, compiled, with its starting weights."""
    keras.utils.set_random_seed(config.seed)
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy(config.precision)
    try:
        look = MODELS[config.model]()
        model = average_two_scales(look) if config.looks == 2 else look
    finally:
        keras.config.set_dtype_policy(policy)
    if config.start:
        read_weights(look, config.start)
    freeze_blocks(look, config.frozen_blocks)
    shares = [
        1.0 if get_block_number(layer) is None else config.encoder_rate
        for layer in look.layers
        for _ in layer.trainable_variables
    ]
    loss = config.loss if adversary is None else _add_adversarial_term(config, adversary)
    metrics = [] if config.model == "rehue-classes" else [losses.accuracy]
    model.compile(optimizer=LayerwiseAdamW(config, shares), loss=loss, metrics=metrics)
    model.optimizer.build(model.trainable_variables)
    return model


def _add_adversarial_term(config: Config, adversary: Adversary) -> losses.Loss:
    """The config's loss with the critic's verdict beside it."""

    def loss(truth: Any, guess: Any) -> Any:
        return config.loss(truth, guess) + config.adversary * adversary.compute_loss(truth, guess)

    return loss


def freeze_blocks(model: keras.Model, blocks: int) -> None:
    """Stops the encoder's first `blocks` blocks, and its stem, from learning."""
    for layer in model.layers:
        block = get_block_number(layer)
        layer.trainable = blocks == 0 or block is None or block > blocks


def compute_learning_rate(config: Config, step: int) -> float:
    """A straight rise over the warm-up, then level, then half a cosine down to nothing."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    start = max(config.warmup, config.steps - round(config.decay * config.steps))
    if step < start:
        return config.learning_rate
    done = (step - start) / (config.steps - start)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * done))


class Run:
    """A run in its folder: the model, and what the checkpoint keeps of it."""

    def __init__(self, config: Config, folder: Path) -> None:
        self.config, self.path = config, folder / CHECKPOINT
        self.adversary = Adversary(config.seed) if config.adversary else None
        if config.start and not self.path.is_file():
            shutil.copy(config.start, folder / START)
        self.model = build_model(config, self.adversary)
        self.step = 0
        self.size = 0  # of the crops that the model's functions were traced for
        self.averaged: Arrays = self.model.get_weights()
        self.history: list[Record] = []
        if self.path.is_file():
            self._restore(checkpoint.load(self.path))

    def _restore(self, state: Checkpoint) -> None:
        self.step, self.averaged, self.history = state.step, state.averaged, state.history
        self.model.set_weights(state.weights)
        for variable, value in zip(self._optimizer_variables, state.optimizer, strict=True):
            variable.assign(value)

    @property
    def _optimizer_variables(self) -> list[Any]:
        """What learning needs beside the weights."""
        critic = self.adversary.variables if self.adversary else []
        return [*self.model.optimizer.variables, *critic]

    def save(self) -> None:
        optimizer = [keras.ops.convert_to_numpy(value) for value in self._optimizer_variables]
        weights = self.model.get_weights()
        state = Checkpoint(self.step, weights, self.averaged, optimizer, self.history)
        checkpoint.save(self.path, state)

    def train_step(self, planned: batches.TrainingStep, batch: batches.Batch) -> Record:
        """One step; the loss and accuracy since the last log."""
        self._retrace_functions(planned.crops.input_size)
        self.model.optimizer.learning_rate = compute_learning_rate(self.config, planned.step)
        if self.adversary:
            lightness, truth = batch
            self.adversary.train_step(truth, self.model.predict_on_batch(lightness))
        result = self.model.train_on_batch(*batch, return_dict=True)
        self.step = planned.step + 1
        if self.step % AVERAGE_EVERY == 0 or self.step == self.config.steps:
            self._update_average()
        return {name: float(value) for name, value in result.items()}

    def _retrace_functions(self, size: int) -> None:
        """New functions for a new size: a bilinear UpSampling2D cannot be traced
        for sizes left open, which is what TensorFlow tries when it sees a second one."""
        if size != self.size:
            self.model.make_train_function(force=True)
            self.model.make_test_function(force=True)
            self.model.make_predict_function(force=True)
            self.size = size

    def _update_average(self) -> None:
        """Moves the average towards the weights; early on nearly all of the way."""
        seen = self.step / AVERAGE_EVERY
        keep = np.float32(min(self.config.ema**AVERAGE_EVERY, seen / (10 + seen)))
        if self.config.ema == 0:
            keep = np.float32(0)
        weights = self.model.get_weights()
        pairs = zip(self.averaged, weights, strict=True)
        self.averaged = [old * keep + new * (1 - keep) for old, new in pairs]

    def add_record(self, record: Record) -> None:
        """Puts a record into the history; the next loss is the mean from here on."""
        self.history.append({"step": self.step, **record})
        self.model.reset_metrics()

    def validate(self, batch: batches.Batch, size: int) -> Record:
        """Loss and accuracy of the averaged weights on photographs kept aside."""
        weights = self.model.get_weights()
        self.model.set_weights(self.averaged)
        result = self.model.evaluate(*batch, batch_size=size, verbose=0, return_dict=True)
        self.model.set_weights(weights)
        return {f"val_{name}": float(value) for name, value in result.items()}
