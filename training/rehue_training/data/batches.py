"""Batches of training examples. A batch is a pure function of the seed and the step.

So a run that was stopped continues with exactly the batches that it would have
seen, and a checkpoint holds nothing of the pipeline.
"""

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from rehue_core import colorize, lab
from rehue_core.lab import AB_RANGE
from rehue_training.data import augment
from rehue_training.data.dataset import parse_source

UInt8 = NDArray[np.uint8]
Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Batch = tuple[Float32, Float32]

PREFETCHED_BATCHES = 2  # finished batches kept waiting, beside those in progress
TARGET_SCALE = np.array([AB_RANGE, AB_RANGE, 100.0], np.float32)  # of a, b and L
MAX_SAMPLING_WEIGHT = 4.0  # how often a photograph may be seen, relative to the mean


@dataclass(frozen=True)
class ExampleMaker:
    """Makes training examples from photographs."""

    input_size: int  # pixels, square
    target_size: int  # pixels of the network's output, square
    crop_range: tuple[float, float]  # smallest and largest side, as a share of the short side
    film_probability: float  # of simulating old film
    whole_probability: float = 0.0  # of the whole photograph, fitted, instead of a crop

    def make_example(self, rgb: UInt8, rng: np.random.Generator) -> Batch:
        """Return L (HW1 float32, 0..100) and the target (hw3 float32) of a random crop.

        `make_target` describes the target. Half of the examples are mirrored.
        """
        whole = self.whole_probability > 0 and rng.random() < self.whole_probability
        crop = self.fit_whole(rgb) if whole else self._crop_randomly(rgb, rng)
        if rng.random() < 0.5:
            crop = np.ascontiguousarray(crop[:, ::-1])
        old = rng.random() < self.film_probability
        lightness = augment.simulate_film(crop, rng) if old else lab.compute_lightness(crop)
        return lightness[..., None], make_target(crop, self.target_size)

    def make_center_example(self, rgb: UInt8) -> Batch:
        """Return L and target of the largest centered square, unchanged, for validation."""
        side = min(rgb.shape[:2])
        top, left = (rgb.shape[0] - side) // 2, (rgb.shape[1] - side) // 2
        square = rgb[top : top + side, left : left + side]
        crop = resize_picture(square, self.input_size, self.input_size)
        return lab.compute_lightness(crop)[..., None], make_target(crop, self.target_size)

    def fit_whole(self, rgb: UInt8) -> UInt8:
        """Fit the whole photograph into the input, as `colorize.prepare_input` does."""
        box = colorize.fit_box(rgb.shape[0], rgb.shape[1], self._spec)
        small = resize_picture(rgb, box.width, box.height)
        below = self.input_size - box.top - box.height
        right = self.input_size - box.left - box.width
        edges = (box.top, below, box.left, right)
        return np.asarray(cv2.copyMakeBorder(small, *edges, cv2.BORDER_REFLECT_101), np.uint8)

    @cached_property
    def _spec(self) -> colorize.ModelSpec:
        size = (self.input_size, self.input_size)
        target = (self.target_size, self.target_size)
        dtypes = np.dtype(np.uint8), np.dtype(np.float16)
        return colorize.ModelSpec("", *size, *target, *dtypes, 1.0, 1.0, 1)

    def _crop_randomly(self, rgb: UInt8, rng: np.random.Generator) -> UInt8:
        height, width = rgb.shape[:2]
        side = round(min(height, width) * rng.uniform(*self.crop_range))
        top = int(rng.integers(height - side + 1))
        left = int(rng.integers(width - side + 1))
        crop = rgb[top : top + side, left : left + side]
        return resize_picture(crop, self.input_size, self.input_size)


def resize_picture(rgb: UInt8, width: int, height: int) -> UInt8:
    """Resize a picture (HWC uint8)."""
    interpolation = cv2.INTER_AREA if rgb.shape[0] > height else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(rgb, (width, height), interpolation=interpolation), np.uint8)


def make_target(rgb: UInt8, size: int) -> Float32:
    """Return the target of a square picture (HWC uint8).

    Returns:
        hw3 float32 with `size` rows and columns: ab divided by `AB_RANGE`, then L
        divided by 100. The network predicts ab; L is for losses that compare pictures.
    """
    full = cv2.cvtColor(rgb.astype(np.float32) / np.float32(255), cv2.COLOR_RGB2LAB)
    if full.shape[0] != size:
        full = cv2.resize(full, (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(full[..., (1, 2, 0)] / TARGET_SCALE, np.float32)


@dataclass(frozen=True)
class Batches:
    """An endless, seeded sequence of examples."""

    dataset: Any  # a `Dataset`, or `Squares` for a `SquareMaker`
    indices: list[int]
    seed: int
    balance: float = 0.0  # 0: every photograph equally often; 1: every source equally often

    def make_batch(self, maker: ExampleMaker, size: int, step: int, first_example: int) -> Batch:
        """Return the batch of `step`.

        Each epoch has its own order, in which every photograph is seen once, or as
        often as the balance between the sources asks.

        Args:
            first_example: number of the batch's first example, counted over the whole run.
        """
        rng = np.random.default_rng((self.seed, step))
        indices = (self._get_index(first_example + offset) for offset in range(size))
        examples = [maker.make_example(self.dataset[index], rng) for index in indices]
        return stack_examples(examples)

    def _get_index(self, example: int) -> int:
        epoch, position = divmod(example, len(self.indices))
        return self.indices[int(self._get_order(epoch)[position])]

    def _get_order(self, epoch: int) -> NDArray[np.int64]:
        """Return the epoch's order. Recent ones are cached; several threads may call this."""
        order = self._order_cache.get(epoch)
        if order is None:
            order = draw_epoch_order(self._weights, (self.seed, epoch, len(self.indices)))
            self._order_cache[epoch] = order
            self._order_cache.pop(epoch - 2, None)
        return order

    @cached_property
    def _weights(self) -> Float64:
        sources = [parse_source(self.dataset.names[index]) for index in self.indices]
        return compute_sampling_weights(sources, self.balance)

    @cached_property
    def _order_cache(self) -> dict[int, NDArray[np.int64]]:
        return {}


def compute_sampling_weights(sources: list[str], balance: float) -> Float64:
    """Return how often a photograph of each source is seen in an epoch; the mean is 1.

    The weight is the size of the source to the power of `-balance`. It is capped at
    `MAX_SAMPLING_WEIGHT` times the mean, so that the network does not memorize the
    photographs of a small source.
    """
    sizes = Counter(sources)
    weights = np.array([sizes[source] ** -balance for source in sources])
    weights = np.minimum(weights / weights.mean(), MAX_SAMPLING_WEIGHT)
    return np.asarray(weights / weights.mean(), np.float64)


def draw_epoch_order(weights: Float64, seed: tuple[int, ...]) -> NDArray[np.int64]:
    """Draw an epoch's order: as many indices as there are weights.

    Systematic sampling: each index comes as often as its weight, rounded down or up.
    With weights of 1 the order is a permutation.
    """
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(weights))
    edges = np.cumsum(weights[shuffled])
    picks = np.searchsorted(edges, np.arange(len(weights)) + rng.random(), side="right")
    return rng.permutation(shuffled[np.minimum(picks, len(weights) - 1)])


def stack_examples(examples: list[Batch]) -> Batch:
    """Stack examples into NHWC float32 lightness and targets."""
    lightness, targets = zip(*examples, strict=True)
    return np.stack(lightness), np.stack(targets)


@dataclass(frozen=True)
class TrainingStep:
    """One scheduled step of a run."""

    number: int
    first_example: int  # number of its first example in the run
    batch_size: int
    maker: ExampleMaker


def prefetch(
    batches: Batches, steps: Iterator[TrainingStep]
) -> Iterator[tuple[TrainingStep, Batch]]:
    """Yield each step with its batch, in order. Threads make batches ahead of the device."""
    threads = max(1, (os.cpu_count() or 1) // 2)
    with ThreadPoolExecutor(threads, thread_name_prefix="batches") as pool:
        pending = []
        for step in steps:
            future = pool.submit(
                batches.make_batch, step.maker, step.batch_size, step.number, step.first_example
            )
            pending.append((step, future))
            if len(pending) > threads + PREFETCHED_BATCHES:
                ready, future = pending.pop(0)
                yield ready, future.result()
        for ready, future in pending:
            yield ready, future.result()
