"""What the networks are trained to keep small.

The truth (NHW3 float32: ab divided by 128, L divided by 100) comes first, then the network's
answer (NHWC float32); what comes out is one number a photograph. Written with `keras.ops`, so
that they run on every backend.
"""

from collections.abc import Callable
from typing import Any, Literal

from keras import ops
from pydantic import BaseModel, ConfigDict, Field

from rehue_training.learn import perception
from rehue_training.network import bins

Loss = Callable[[Any, Any], Any]

# A distance below this (1.3 Lab units) counts as its square: no one sees it.
SMOOTHING = 0.01
COARSE_CELL = 8  # pixels of ab to a cell of the coarse picture


class MeanSquaredError(BaseModel):
    """The paper's loss."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["mean squares"] = "mean squares"

    def __call__(self, truth: Any, guess: Any) -> Any:
        return ops.mean(ops.square(truth[..., :2] - guess), axis=(1, 2, 3))


class ColorLoss(BaseModel):
    """The distance in the ab plane, heavier where the truth is colourful.

    Mean squares are smallest at the mean of all likely colours, a brown; a plain
    distance is smallest at their middle, which keeps to one of them more often.
    Most of a photograph is nearly gray, hence the weight (facts.md's trial had
    1 + 4 chroma / 110); the coarse term looks past texture at the areas' colours,
    and the vividness term punishes a photograph paler, or gaudier, than the truth.
    The perceived distance is CIEDE2000's, less its turn of hue: a wrong tint on
    something gray counts more than the same distance between two vivid colours.
    The perceptual term is how alike both pictures look to `perception`'s classifier.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["colours"] = "colours"
    distance: Literal["ab", "huber", "perceived"] = "ab"
    chroma: float = Field(default=3.0, ge=0)
    coarse: float = Field(default=0.5, ge=0)
    vividness: float = Field(default=0.1, ge=0)
    perceptual: float = Field(default=0.0, ge=0)

    def __call__(self, truth: Any, guess: Any) -> Any:
        loss = self._compute_ab_loss(truth[..., :2], guess)
        if self.perceptual:
            loss = loss + self.perceptual * perception.compute_distance(truth, guess)
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
    """Cross entropy over `bins` of the ab plane, heavier where the truth is colourful.

    Zhang, Isola and Efros, "Colorful Image Colorization" (2016), eq. 2 to 4, with a weight by
    chroma in place of one by how rare a colour is: the rare colours are the colourful ones.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["classes"] = "classes"
    chroma: float = Field(default=3.0, ge=0)

    def __call__(self, truth: Any, guess: Any) -> Any:
        ab = truth[..., :2]
        entropy = -ops.sum(bins.soft_encode(ab) * ops.log_softmax(guess, axis=-1), axis=-1)
        return ops.mean((1 + self.chroma * _compute_chroma(ab)) * entropy, axis=(1, 2))


def accuracy(truth: Any, guess: Any) -> Any:
    """The paper's metric, Keras' "accuracy": where a and b have the same one as the larger."""
    same = ops.equal(ops.argmax(truth[..., :2], axis=-1), ops.argmax(guess, axis=-1))
    return ops.cast(same, "float32")


def _compute_ab_distance(truth: Any, guess: Any) -> Any:
    return _compute_chroma(truth - guess)


def _compute_huber_distance(truth: Any, guess: Any) -> Any:
    """Squares up to 14 Lab units, straight from there on (Huber, 1964), over ab / 110."""
    length = _compute_chroma(truth - guess) * (128 / 110)
    bend = 14 / 110
    straight = bend * (length - bend / 2)
    return ops.where(length < bend, ops.square(length) / 2, straight) / bend


def _compute_perceived_distance(truth: Any, guess: Any) -> Any:
    """CIEDE2000 between colours of one lightness, without its terms T and R_T, over 128.

    Sharma, Wu and Dalal, "The CIEDE2000 Color-Difference Formula" (2005), eq. 4 to 20.
    """
    unit = 128.0
    chroma = (_compute_chroma(truth) + _compute_chroma(guess)) * (unit / 2)
    power = ops.power(chroma / 25, 7)
    stretch = 1 + 0.5 * (1 - ops.sqrt(power / (power + 1) + 1e-6))
    stretch = ops.stack([stretch, ops.ones_like(stretch)], axis=-1)
    truth, guess = truth * stretch, guess * stretch
    first, second = _compute_chroma(truth), _compute_chroma(guess)
    of_chroma = ops.square(first - second)
    # The rest of the squared distance is hue's; rounding may take it below nought.
    of_hue = ops.maximum(ops.sum(ops.square(truth - guess), axis=-1) - of_chroma, 0.0)
    mean = (first + second) * (unit / 2)
    squares = of_chroma / ops.square(1 + 0.045 * mean) + of_hue / ops.square(1 + 0.015 * mean)
    return ops.sqrt(squares + SMOOTHING**2) - SMOOTHING


DISTANCES: dict[str, Callable[[Any, Any], Any]] = {
    "ab": _compute_ab_distance,
    "huber": _compute_huber_distance,
    "perceived": _compute_perceived_distance,
}


def _compute_chroma(ab: Any) -> Any:
    """Length in the ab plane, smooth at nought."""
    return ops.sqrt(ops.sum(ops.square(ab), axis=-1) + SMOOTHING**2) - SMOOTHING


def _compute_mean_chroma(ab: Any) -> Any:
    return ops.mean(_compute_chroma(ab), axis=(1, 2))


def _average_pool(ab: Any) -> Any:
    return ops.average_pool(ab, COARSE_CELL, COARSE_CELL)
