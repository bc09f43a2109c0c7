"""Batches and examples: their order, their weights, their preprocessing."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.color
import skimage.data
from numpy.typing import NDArray
from photo_trees import write_pieces

from rehue_core import colorize, lab
from rehue_training.data import batches, dataset


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pieces(tmp_path_factory.mktemp("photographs"))


def test_batches_depend_on_nothing_but_seed_and_step(folder: Path, tmp_path: Path) -> None:
    photographs = dataset.load_dataset([folder], cache=tmp_path)
    maker = batches.ExampleMaker(48, 24, (0.5, 1.0), 0.5)
    indices = list(range(len(photographs)))
    source = batches.Batches(photographs, indices, 7)
    source.make_batch(maker, 4, 0, 0)
    late = source.make_batch(maker, 4, 5, 20)
    fresh = batches.Batches(photographs, indices, 7).make_batch(maker, 4, 5, 20)
    other = batches.Batches(photographs, indices, 8).make_batch(maker, 4, 5, 20)
    assert all(np.array_equal(a, b) for a, b in zip(late, fresh, strict=True))
    assert not np.array_equal(late[0], other[0])
    assert late[0].shape == (4, 48, 48, 1)
    assert late[1].shape == (4, 24, 24, 3)


def test_every_photograph_comes_once_an_epoch(folder: Path, tmp_path: Path) -> None:
    photographs = dataset.load_dataset([folder], cache=tmp_path)
    count = len(photographs)
    source = batches.Batches(photographs, list(range(count)), 1)
    epoch = [source._get_index(number) for number in range(2 * count)]
    assert sorted(epoch[:count]) == sorted(epoch[count:]) == list(range(count))
    assert epoch[:count] != epoch[count:]


def test_balance_shows_small_sources_more_often() -> None:
    sources = ["big"] * 900 + ["small"] * 99 + ["lone"]
    even = batches.compute_sampling_weights(sources, 0.0)
    assert np.array_equal(even, np.ones(1000))
    half = batches.compute_sampling_weights(sources, 0.5)
    assert half.mean() == pytest.approx(1)
    assert half[900] / half[0] == pytest.approx((900 / 99) ** 0.5)
    assert half[999] / half[0] < 900**0.5, "a single photograph is not memorized"
    drawn = np.bincount(batches.draw_epoch_order(half, (1, 2)), minlength=1000)
    assert drawn.sum() == 1000
    assert np.abs(drawn - half).max() < 1, "as often as its share, rounded down or up"
    assert np.array_equal(
        batches.draw_epoch_order(half, (1, 2)), batches.draw_epoch_order(half, (1, 2))
    )


def test_the_example_is_the_papers_preprocessing() -> None:
    from skimage.color import rgb2lab

    rgb = skimage.data.coffee()[:224, :224]
    lightness, ab = batches.ExampleMaker(224, 224, (1, 1), 0.0).make_center_example(rgb)
    truth = rgb2lab(rgb)
    np.testing.assert_allclose(lightness[..., 0], truth[..., 0], atol=0.02)
    np.testing.assert_allclose(ab[..., :2], truth[..., 1:] / 128, atol=0.5 / 128)
    np.testing.assert_allclose(ab[..., 2], truth[..., 0] / 100, atol=0.5 / 100)


@pytest.mark.parametrize("shape", [(100, 160), (160, 100), (90, 90)])
def test_entire_photograph_is_fitted_as_the_server_does(
    shape: tuple[int, int],
) -> None:
    rgb = np.ascontiguousarray(skimage.data.coffee()[: shape[0], : shape[1]])
    maker = batches.ExampleMaker(64, 32, (1, 1), 0.0, whole_probability=1.0)
    seeded = (maker.make_example(rgb, np.random.default_rng(seed)) for seed in range(20))
    lightness, ab = next(example for example in seeded if not _is_flipped(example, rgb))
    served, _ = colorize.prepare_input(lab.compute_lightness(rgb), maker._spec)
    difference = np.abs(lightness[..., 0] - served[0])  # counts of one L; resized before or after
    assert difference.mean() < 1
    truth = batches.make_target(np.ascontiguousarray(maker.fit_whole(rgb)), 32)
    np.testing.assert_array_equal(ab, truth)


def _is_flipped(example: batches.Batch, rgb: NDArray[Any]) -> bool:
    left, right = (half.mean() for half in np.array_split(example[0][..., 0], 2, axis=1))
    dark, light = (half.mean() for half in np.array_split(lab.compute_lightness(rgb), 2, axis=1))
    return bool((left - right) * (dark - light) < 0)
