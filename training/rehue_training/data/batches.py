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
from rehue_training.data.dataset import Dataset, parse_source

UInt8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Batch = tuple[Float32, Float32]

PREFETCHED_BATCHES = 2  # batches that wait, beside those being made
TARGET_SCALE = np.array([AB_RANGE, AB_RANGE, 100.0], np.float32)  # of a, b and L
MAX_SAMPLING_WEIGHT = 4.0  # times the mean that one photograph may be seen


@dataclass(frozen=True)
class ExampleMaker:
    """How a photograph becomes an example."""

    input_size: int  # pixels, square
    target_size: int  # pixels of the network's output, square
    crop_range: tuple[float, float]  # smallest and largest side, as a share of the short side
    film_probability: float  # of simulating old film
    whole_probability: float = 0.0  # of the whole photograph, fitted, instead of a crop

    def make_example(self, rgb: UInt8, rng: np.random.Generator) -> Batch:
        """L (HW1 float32, 0..100) and `truth` (hw3 float32) of a random crop."""
        whole = self.whole_probability > 0 and rng.random() < self.whole_probability
        crop = self._fit_whole(rgb) if whole else self._crop_randomly(rgb, rng)
        if rng.random() < 0.5:
            crop = np.ascontiguousarray(crop[:, ::-1])
        old = rng.random() < self.film_probability
        lightness = augment.simulate_film(crop, rng) if old else lab.compute_lightness(crop)
        return lightness[..., None], make_target(crop, self.target_size)

    def _fit_whole(self, rgb: UInt8) -> UInt8:
        """The whole photograph and its mirror image around it; see `colorize.prepare_input`."""
        box = colorize.fit_box(rgb.shape[0], rgb.shape[1], self._spec)
        small = resize(rgb, box.width, box.height)
        below, right = (
            self.input_size - box.top - box.height,
            self.input_size - box.left - box.width,
        )
        edges = (box.top, below, box.left, right)
        return np.asarray(cv2.copyMakeBorder(small, *edges, cv2.BORDER_REFLECT_101), np.uint8)

    @cached_property
    def _spec(self) -> colorize.ModelSpec:
        size, target = (self.input_size, self.input_size), (self.target_size, self.target_size)
        counts = np.dtype(np.uint8), np.dtype(np.float16)
        return colorize.ModelSpec("", *size, *target, *counts, 1.0, 1.0, 1)

    def make_center_example(self, rgb: UInt8) -> Batch:
        """The same of the greatest square in the middle, unchanged: to validate."""
        side = min(rgb.shape[:2])
        top, left = (rgb.shape[0] - side) // 2, (rgb.shape[1] - side) // 2
        crop = resize(rgb[top : top + side, left : left + side], self.input_size, self.input_size)
        return lab.compute_lightness(crop)[..., None], make_target(crop, self.target_size)

    def _crop_randomly(self, rgb: UInt8, rng: np.random.Generator) -> UInt8:
        height, width = rgb.shape[:2]
        side = round(min(height, width) * rng.uniform(*self.crop_range))
        top = int(rng.integers(height - side + 1))
        left = int(rng.integers(width - side + 1))
        return resize(rgb[top : top + side, left : left + side], self.input_size, self.input_size)


def resize(rgb: UInt8, width: int, height: int) -> UInt8:
    """A picture (HWC uint8) at so many pixels."""
    how = cv2.INTER_AREA if rgb.shape[0] > height else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(rgb, (width, height), interpolation=how), np.uint8)


def make_target(rgb: UInt8, size: int) -> Float32:
    """ab divided by 128 and L divided by 100 (hw3 float32) of a square picture (HWC uint8).

    The colours are what is predicted; the lightness is for losses that look at the picture.
    """
    full = cv2.cvtColor(rgb.astype(np.float32) / np.float32(255), cv2.COLOR_RGB2LAB)
    if full.shape[0] != size:
        full = cv2.resize(full, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(full[..., (1, 2, 0)] / TARGET_SCALE, np.float32)


@dataclass(frozen=True)
class Batches:
    """The endless, seeded order of examples."""

    dataset: Dataset
    indices: list[int]
    seed: int
    balance: float = 0.0  # 0: every photograph alike; 1: every source alike

    def make_batch(self, crops: ExampleMaker, size: int, step: int, start: int) -> Batch:
        """The batch of `step`, whose first example is number `start` of the run.

        Every epoch has an order of its own, in which each photograph is seen once, or as
        often as the balance between the sources asks.
        """
        rng = np.random.default_rng((self.seed, step))
        examples = [
            crops.make_example(self.dataset[self._get_index(start + i)], rng) for i in range(size)
        ]
        return stack_examples(examples)

    def _get_index(self, number: int) -> int:
        epoch, place = divmod(number, len(self.indices))
        return self.indices[int(self._get_order(epoch)[place])]

    def _get_order(self, epoch: int) -> NDArray[np.int64]:
        """Kept for the epochs at hand; several threads may ask at once."""
        found = self._order_cache.get(epoch)
        if found is None:
            found = draw_epoch_order(self._weights, (self.seed, epoch, len(self.indices)))
            self._order_cache[epoch] = found
            self._order_cache.pop(epoch - 2, None)
        return found

    @cached_property
    def _weights(self) -> Float64:
        return compute_sampling_weights(
            [parse_source(self.dataset.names[index]) for index in self.indices], self.balance
        )

    @cached_property
    def _order_cache(self) -> dict[int, NDArray[np.int64]]:
        return {}


def compute_sampling_weights(sources: list[str], balance: float) -> Float64:
    """How often a photograph of each source is seen in an epoch, 1 in the mean.

    In proportion to the size of its source to the power of `-balance`, and at most
    `MAX_SAMPLING_WEIGHT` times before the mean is made 1, so that no photograph is learnt by heart.
    """
    sizes = Counter(sources)
    weights = np.array([sizes[source] ** -balance for source in sources])
    weights = np.minimum(weights / weights.mean(), MAX_SAMPLING_WEIGHT)
    return np.asarray(weights / weights.mean(), np.float64)


def draw_epoch_order(shares: Float64, seed: tuple[int, ...]) -> NDArray[np.int64]:
    """An epoch's order of as many numbers as there are shares.

    Systematic sampling: each number comes as often as its share says, rounded down
    or up; with shares of 1 that is a permutation.
    """
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(shares))
    edges = np.cumsum(shares[shuffled])
    picks = np.searchsorted(edges, np.arange(len(shares)) + rng.random(), side="right")
    return rng.permutation(shuffled[np.minimum(picks, len(shares) - 1)])


def stack_examples(examples: list[Batch]) -> Batch:
    """NHWC float32 lightness and truth of several examples."""
    lightness, truths = zip(*examples, strict=True)
    return np.stack(lightness), np.stack(truths)


@dataclass(frozen=True)
class TrainingStep:
    """One step of a run."""

    step: int
    start: int  # number of its first example
    size: int  # examples
    crops: ExampleMaker


def prefetch(
    batches: Batches, plan: Iterator[TrainingStep]
) -> Iterator[tuple[TrainingStep, Batch]]:
    """The planned batches in order, made in threads while the device works."""
    threads = max(1, (os.cpu_count() or 1) // 2)
    with ThreadPoolExecutor(threads, thread_name_prefix="batches") as pool:
        waiting = []
        for item in plan:
            made = pool.submit(batches.make_batch, item.crops, item.size, item.step, item.start)
            waiting.append((item, made))
            if len(waiting) > threads + PREFETCHED_BATCHES:
                ready, future = waiting.pop(0)
                yield ready, future.result()
        for ready, future in waiting:
            yield ready, future.result()
