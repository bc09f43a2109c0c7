"""Loss functions.

Each takes the truth (NHW3 float32: ab divided by `AB_RANGE`, L divided by 100) and the network's
output (NHWC float32), and returns one number per photograph. They use `keras.ops`, so they run on
every backend.
"""

from collections.abc import Callable
from typing import Any, Literal

from keras import ops
from pydantic import BaseModel, ConfigDict, Field

from rehue_core.lab import AB_RANGE
from rehue_training.learn import perception
from rehue_training.network import bins

Loss = Callable[[Any, Any], Any]

# Distances below this (1.3 Lab units) count as their square: they are invisible.
SMOOTHING = 0.01
COARSE_CELL = 8  # pixels of ab per cell of the coarse term


class MeanSquaredError(BaseModel):
    """The mean squared error of ab: the paper's loss."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["mean squares"] = "mean squares"

    def __call__(self, truth: Any, guess: Any) -> Any:
        return ops.mean(ops.square(truth[..., :2] - guess), axis=(1, 2, 3))


class ColorLoss(BaseModel):
    """The distance in the ab plane, weighted by the truth's chroma.

    The mean squared error is smallest at the mean of all likely colours, a brown. The
    distance itself is smallest at their median, which is more often one of them.

    Attributes:
        distance: "ab" is Euclidean, "huber" Huber's. "perceived" is CIEDE2000 without
            its rotation term: a wrong tint on something gray counts more than the same
            distance between two vivid colours.
        chroma: the weight of a pixel is 1 plus this times its true chroma. Without it
            the nearly gray pixels, most of a photograph, decide the loss.
        coarse: weight of the same distance over cells of 8 pixels, which ignores texture.
        vividness: weight of the difference in mean chroma, against results that are
            paler or more colourful than the truth.
        perceptual: weight of `perception.compute_distance`.
        perceived_by: the classifier whose features it compares.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["colours"] = "colours"
    distance: Literal["ab", "huber", "perceived"] = "ab"
    chroma: float = Field(default=3.0, ge=0)
    coarse: float = Field(default=0.5, ge=0)
    vividness: float = Field(default=0.1, ge=0)
    perceptual: float = Field(default=0.0, ge=0)
    perceived_by: perception.Classifier = "lite0"

    def __call__(self, truth: Any, guess: Any) -> Any:
        loss = self._compute_ab_loss(truth[..., :2], guess)
        if self.perceptual:
            loss = loss + self.perceptual * perception.compute_distance(
                truth, guess, self.perceived_by
            )
        return loss

    def _compute_ab_loss(self, truth: Any, guess: Any) -> Any:
        fine = self._compute_weighted_distance(truth, guess)
        coarse = self._compute_weighted_distance(_average_pool(truth), _average_pool(guess))
        vivid = ops.abs(_compute_mean_chroma(truth) - _compute_mean_chroma(guess))
        return fine + self.coarse * coarse + self.vividness * vivid

    def _compute_weighted_distance(self, truth: Any, guess: Any) -> Any:
        weight = 1 + self.chroma * _compute_chroma(truth)
        between = DISTANCES[self.distance]
        return ops.mean(weight * between(truth, guess), axis=(1, 2))


class ClassificationLoss(BaseModel):
    """Cross entropy over the `bins` of the ab plane, weighted by the truth's chroma.

    Zhang, Isola and Efros, "Colorful Image Colorization" (2016), eq. 2 to 4. They weight by the
    rarity of a colour; chroma serves as well, because rare colours are the colourful ones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["classes"] = "classes"
    chroma: float = Field(default=3.0, ge=0)

    def __call__(self, truth: Any, guess: Any) -> Any:
        ab = truth[..., :2]
        entropy = -ops.sum(bins.soft_encode(ab) * ops.log_softmax(guess, axis=-1), axis=-1)
        return ops.mean((1 + self.chroma * _compute_chroma(ab)) * entropy, axis=(1, 2))


def accuracy(truth: Any, guess: Any) -> Any:
    """The paper's metric, Keras' "accuracy": whether a or b is the larger in both.

    Keras names the metric in the logs after this function.
    """
    same = ops.equal(ops.argmax(truth[..., :2], axis=-1), ops.argmax(guess, axis=-1))
    return ops.cast(same, "float32")


def _compute_ab_distance(truth: Any, guess: Any) -> Any:
    return _compute_chroma(truth - guess)


def _compute_huber_distance(truth: Any, guess: Any) -> Any:
    """Quadratic up to 14 Lab units, linear beyond (Huber, 1964), of ab / 110."""
    length = _compute_chroma(truth - guess) * (AB_RANGE / 110)
    delta = 14 / 110
    linear = delta * (length - delta / 2)
    return ops.where(length < delta, ops.square(length) / 2, linear) / delta


def _compute_perceived_distance(truth: Any, guess: Any) -> Any:
    """CIEDE2000 of colours of equal lightness, without its terms T and R_T, over `AB_RANGE`.

    Sharma, Wu and Dalal, "The CIEDE2000 Color-Difference Formula" (2005), eq. 4 to 20.
    """
    chroma = (_compute_chroma(truth) + _compute_chroma(guess)) * (AB_RANGE / 2)
    power = ops.power(chroma / 25, 7)
    scale_a = 1 + 0.5 * (1 - ops.sqrt(power / (power + 1) + 1e-6))
    scale = ops.stack([scale_a, ops.ones_like(scale_a)], axis=-1)
    truth, guess = truth * scale, guess * scale
    first, second = _compute_chroma(truth), _compute_chroma(guess)
    chroma_squared = ops.square(first - second)
    # The rest of the squared distance is hue; rounding may take it below zero.
    hue_squared = ops.maximum(ops.sum(ops.square(truth - guess), axis=-1) - chroma_squared, 0.0)
    mean = (first + second) * (AB_RANGE / 2)
    chroma_term = chroma_squared / ops.square(1 + 0.045 * mean)
    hue_term = hue_squared / ops.square(1 + 0.015 * mean)
    return ops.sqrt(chroma_term + hue_term + SMOOTHING**2) - SMOOTHING


DISTANCES: dict[str, Callable[[Any, Any], Any]] = {
    "ab": _compute_ab_distance,
    "huber": _compute_huber_distance,
    "perceived": _compute_perceived_distance,
}


def _compute_chroma(ab: Any) -> Any:
    """Return the length in the ab plane, smooth at zero."""
    return ops.sqrt(ops.sum(ops.square(ab), axis=-1) + SMOOTHING**2) - SMOOTHING


def _compute_mean_chroma(ab: Any) -> Any:
    return ops.mean(_compute_chroma(ab), axis=(1, 2))


def _average_pool(ab: Any) -> Any:
    return ops.average_pool(ab, COARSE_CELL, COARSE_CELL)
