"""Batches of crops. A batch is a pure function of the seed and the step.

So a run that was killed goes on with exactly the batches it would have seen,
and nothing about the pipeline has to be saved.
"""

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from rehue_core import colorize, lab
from rehue_core.lab import AB_RANGE
from rehue_training.data import augment
from rehue_training.data.dataset import Photographs, source

UInt8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Batch = tuple[Float32, Float32]

AHEAD = 2  # batches that wait, beside those being made
UNITS = np.array([AB_RANGE, AB_RANGE, 100.0], np.float32)  # of a, b and L
MOST = 4.0  # times the mean that one photograph may be seen


@dataclass(frozen=True)
class Crops:
    """How a photograph becomes an example."""

    size: int  # of the network's input, pixels, square
    target: int  # of its output
    share: tuple[float, float]  # least and greatest side, of the photograph's short side
    film: float  # chance of an old photograph's lightness
    whole: float = 0.0  # chance of the whole photograph, fitted, instead of a crop

    def example(self, rgb: UInt8, rng: np.random.Generator) -> Batch:
        """L (HW1 float32, 0..100) and `truth` (hw3 float32) of a random crop."""
        whole = self.whole > 0 and rng.random() < self.whole
        crop = self._fitted(rgb) if whole else self._crop(rgb, rng)
        if rng.random() < 0.5:
            crop = np.ascontiguousarray(crop[:, ::-1])
        old = rng.random() < self.film
        lightness = augment.film(crop, rng) if old else lab.compute_lightness(crop)
        return lightness[..., None], truth(crop, self.target)

    def _fitted(self, rgb: UInt8) -> UInt8:
        """The whole photograph and its mirror image around it; see `colorize.prepare_input`."""
        box = colorize.fit_box(rgb.shape[0], rgb.shape[1], self._spec)
        small = resized(rgb, box.width, box.height)
        below, right = self.size - box.top - box.height, self.size - box.left - box.width
        edges = (box.top, below, box.left, right)
        return np.asarray(cv2.copyMakeBorder(small, *edges, cv2.BORDER_REFLECT_101), np.uint8)

    @cached_property
    def _spec(self) -> colorize.ModelSpec:
        size, target = (self.size, self.size), (self.target, self.target)
        counts = np.dtype(np.uint8), np.dtype(np.float16)
        return colorize.ModelSpec("", *size, *target, *counts, 1.0, 1.0, 1)

    def middle(self, rgb: UInt8) -> Batch:
        """The same of the greatest square in the middle, unchanged: to validate."""
        side = min(rgb.shape[:2])
        top, left = (rgb.shape[0] - side) // 2, (rgb.shape[1] - side) // 2
        crop = resized(rgb[top : top + side, left : left + side], self.size, self.size)
        return lab.compute_lightness(crop)[..., None], truth(crop, self.target)

    def _crop(self, rgb: UInt8, rng: np.random.Generator) -> UInt8:
        height, width = rgb.shape[:2]
        side = round(min(height, width) * rng.uniform(*self.share))
        top = int(rng.integers(height - side + 1))
        left = int(rng.integers(width - side + 1))
        return resized(rgb[top : top + side, left : left + side], self.size, self.size)


def resized(rgb: UInt8, width: int, height: int) -> UInt8:
    """A picture (HWC uint8) at so many pixels."""
    how = cv2.INTER_AREA if rgb.shape[0] > height else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(rgb, (width, height), interpolation=how), np.uint8)


def truth(rgb: UInt8, size: int) -> Float32:
    """ab divided by 128 and L divided by 100 (hw3 float32) of a square picture (HWC uint8).

    The colours are what is predicted; the lightness is for losses that look at the picture.
    """
    full = cv2.cvtColor(rgb.astype(np.float32) / np.float32(255), cv2.COLOR_RGB2LAB)
    if full.shape[0] != size:
        full = cv2.resize(full, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(full[..., (1, 2, 0)] / UNITS, np.float32)


@dataclass(frozen=True)
class Batches:
    """The endless, seeded order of examples."""

    photographs: Photographs
    indices: list[int]
    seed: int
    balance: float = 0.0  # 0: every photograph alike; 1: every source alike

    def batch(self, crops: Crops, size: int, step: int, start: int) -> Batch:
        """The batch of `step`, whose first example is number `start` of the run.

        Every epoch has an order of its own, in which each photograph is seen once, or as
        often as the balance between the sources asks.
        """
        rng = np.random.default_rng((self.seed, step))
        examples = [crops.example(self.photographs[self._at(start + i)], rng) for i in range(size)]
        return stack(examples)

    def _at(self, number: int) -> int:
        epoch, place = divmod(number, len(self.indices))
        return self.indices[int(self._order(epoch)[place])]

    def _order(self, epoch: int) -> NDArray[np.int64]:
        """Kept for the epochs at hand; several threads may ask at once."""
        found = self._orders.get(epoch)
        if found is None:
            found = order(self._shares, (self.seed, epoch, len(self.indices)))
            self._orders[epoch] = found
            self._orders.pop(epoch - 2, None)
        return found

    @cached_property
    def _shares(self) -> Float64:
        return shares(
            [source(self.photographs.names[index]) for index in self.indices], self.balance
        )

    @cached_property
    def _orders(self) -> dict[int, NDArray[np.int64]]:
        return {}


def shares(sources: list[str], balance: float) -> Float64:
    """How often a photograph of each source is seen in an epoch, 1 in the mean.

    In proportion to the size of its source to the power of `-balance`, and at most
    `MOST` times before the mean is made 1, so that no photograph is learnt by heart.
    """
    sizes = Counter(sources)
    weights = np.array([sizes[source] ** -balance for source in sources])
    weights = np.minimum(weights / weights.mean(), MOST)
    return np.asarray(weights / weights.mean(), np.float64)


def order(shares: Float64, seed: tuple[int, ...]) -> NDArray[np.int64]:
    """An epoch's order of as many numbers as there are shares.

    Systematic sampling: each number comes as often as its share says, rounded down
    or up; with shares of 1 that is a permutation.
    """
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(shares))
    edges = np.cumsum(shares[shuffled])
    picks = np.searchsorted(edges, np.arange(len(shares)) + rng.random(), side="right")
    return rng.permutation(shuffled[np.minimum(picks, len(shares) - 1)])


def stack(examples: list[Batch]) -> Batch:
    """NHWC float32 lightness and truth of several examples."""
    lightness, truths = zip(*examples, strict=True)
    return np.stack(lightness), np.stack(truths)


@dataclass(frozen=True)
class Planned:
    """One step of a run."""

    step: int
    start: int  # number of its first example
    size: int  # examples
    crops: Crops


def ahead(batches: Batches, plan: Iterator[Planned]) -> Iterator[tuple[Planned, Batch]]:
    """The planned batches in order, made in threads while the device works."""
    threads = max(1, (os.cpu_count() or 1) // 2)
    with ThreadPoolExecutor(threads, thread_name_prefix="batches") as pool:
        waiting = []
        for item in plan:
            made = pool.submit(batches.batch, item.crops, item.size, item.step, item.start)
            waiting.append((item, made))
            if len(waiting) > threads + AHEAD:
                ready, future = waiting.pop(0)
                yield ready, future.result()
        for ready, future in waiting:
            yield ready, future.result()
