"""What the networks are trained to keep small.

Arguments are NHWC float32 ab divided by 128, truth first; the answer is one
number a photograph. Written with `keras.ops`, so that they run on every backend.
"""

from collections.abc import Callable
from typing import Any, Literal

from keras import ops
from pydantic import BaseModel, ConfigDict, Field

Loss = Callable[[Any, Any], Any]

# A distance below this (1.3 Lab units) counts as its square: no one sees it.
SOFT = 0.01
POOL = 8  # pixels of ab to a cell of the coarse picture


class MeanSquares(BaseModel):
    """The paper's loss."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["mean squares"] = "mean squares"

    def __call__(self, truth: Any, guess: Any) -> Any:
        return ops.mean(ops.square(truth - guess), axis=(1, 2, 3))


class Colours(BaseModel):
    """The distance in the ab plane, heavier where the truth is colourful.

    Mean squares are smallest at the mean of all likely colours, a brown; a plain
    distance is smallest at their middle, which keeps to one of them more often.
    Most of a photograph is nearly gray, hence the weight (facts.md's trial had
    1 + 4 chroma / 110); the coarse term looks past texture at the areas' colours,
    and the vividness term punishes a photograph paler, or gaudier, than the truth.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    kind: Literal["colours"] = "colours"
    chroma: float = Field(default=3.0, ge=0)
    coarse: float = Field(default=0.5, ge=0)
    vividness: float = Field(default=0.1, ge=0)

    def __call__(self, truth: Any, guess: Any) -> Any:
        fine = self._distance(truth, guess)
        coarse = self._distance(_pooled(truth), _pooled(guess))
        vivid = ops.abs(_mean_chroma(truth) - _mean_chroma(guess))
        return fine + self.coarse * coarse + self.vividness * vivid

    def _distance(self, truth: Any, guess: Any) -> Any:
        weight = 1 + self.chroma * _length(truth)
        return ops.mean(weight * _length(truth - guess), axis=(1, 2))


def _length(ab: Any) -> Any:
    """Length in the ab plane, smooth at nought."""
    return ops.sqrt(ops.sum(ops.square(ab), axis=-1) + SOFT**2) - SOFT


def _mean_chroma(ab: Any) -> Any:
    return ops.mean(_length(ab), axis=(1, 2))


def _pooled(ab: Any) -> Any:
    return ops.average_pool(ab, POOL, POOL)
