"""A critic that learns to tell true colours from predicted ones, for a short finish.

Least squares (Mao et al., "Least Squares Generative Adversarial Networks", 2017) over patches
(Isola et al., "Image-to-Image Translation with Conditional Adversarial Networks", 2017). The
critic also sees the lightness, and scores each patch of about 30 pixels of ab separately. Before
each step of the network it learns from the network's output for the same batch.
"""

from typing import Any

import keras
import numpy as np
from keras import layers, ops

CHANNELS = (32, 64, 128)
LEARNING_RATE = 2e-4


class Adversary:
    """The critic, its optimizer, and the adversarial term of the network's loss."""

    def __init__(self, seed: int) -> None:
        initializer = keras.initializers.RandomNormal(0.0, 0.02, seed=seed)
        x = picture = keras.Input((None, None, 3), name="critic_picture")
        for channels in CHANNELS:
            x = layers.Conv2D(channels, 4, 2, padding="same", kernel_initializer=initializer)(x)
            x = layers.LeakyReLU(0.2)(x)
        truth = layers.Conv2D(1, 3, padding="same", kernel_initializer=initializer, name="truth")(x)
        self.critic = keras.Model(picture, truth, name="critic")
        optimizer = keras.optimizers.Adam(LEARNING_RATE, beta_1=0.5, global_clipnorm=1.0)
        self.critic.compile(optimizer=optimizer, loss="mse", jit_compile=False)
        optimizer.build(self.critic.trainable_variables)

    @property
    def variables(self) -> list[Any]:
        """The variables that a checkpoint saves."""
        return [*self.critic.variables, *self.critic.optimizer.variables]

    def train_step(self, truth: Any, guess: Any) -> None:
        """Train the critic on a batch: true pictures (NHW3) are 1, guesses (NHW2) 0."""
        guessed = np.concatenate([np.asarray(guess, np.float32), truth[..., 2:]], axis=-1)
        shape = self.critic.compute_output_shape(truth.shape)
        labels = np.concatenate([np.ones(shape), np.zeros(shape)]).astype(np.float32)
        self.critic.train_on_batch(np.concatenate([truth, guessed]), labels)

    def compute_loss(self, truth: Any, guess: Any) -> Any:
        """Return how far from true the critic rates the guesses, per photograph."""
        picture = ops.concatenate([ops.cast(guess, "float32"), truth[..., 2:]], axis=-1)
        return ops.mean(ops.square(self.critic(picture) - 1), axis=(1, 2, 3))
