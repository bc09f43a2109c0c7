"""Squares: fitted once, as the server fits them; windows with colours where the lightness is."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from paths import PHOTOS

from rehue_core import colorize, lab
from rehue_training.data import augment, squares
from rehue_training.data.batches import Batches
from rehue_training.learn import losses, train
from rehue_training.learn.config import Config, Stage

NAMES = ["sklearn_china.jpg", "skimage_coffee.jpg", "mpl_grace_hopper.jpg"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("photographs")
    for name in NAMES:
        shutil.copy(PHOTOS / name, home)
    return home


@pytest.fixture(scope="module")
def fitted(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> squares.Squares:
    return squares.load_squares([folder], cache=tmp_path_factory.mktemp("squares"))


def test_a_square_is_what_the_server_gives_the_network() -> None:
    rgb = cv2.cvtColor(cv2.imread(str(PHOTOS / "sklearn_china.jpg")), cv2.COLOR_BGR2RGB)
    square = squares.fit_square(rgb, "china")
    kinds = np.dtype(np.uint8), np.dtype(np.float16)
    spec = colorize.ModelSpec("", 160, 160, 40, 40, *kinds, squares.LIGHTNESS_SCALE, 1.0, 1)
    served, _ = colorize.prepare_input(lab.compute_lightness(rgb), spec)
    difference = np.abs(square.lightness[0].astype(int) - served[0])
    assert difference.mean() < 1  # the server shrinks L, this the picture
    again = squares.fit_square(rgb, "china")
    assert np.array_equal(again.lightness, square.lightness)
    assert not np.array_equal(square.lightness[1], square.lightness[0])  # old film
    other = squares.fit_square(rgb, "another name")
    assert not np.array_equal(other.lightness[1], square.lightness[1])


def test_colours_are_the_photographs_own() -> None:
    flat = np.full((90, 120, 3), (200, 40, 60), np.uint8)
    square = squares.fit_square(flat, "red")
    expected = cv2.cvtColor(flat[:1, :1].astype(np.float32) / 255, cv2.COLOR_RGB2LAB)[0, 0, 1:]
    assert square.ab.shape == (40, 40, 2)
    np.testing.assert_allclose(square.ab.reshape(-1, 2), np.tile(expected, (1600, 1)), atol=0.51)


def test_the_cache_is_read_again_and_a_part_of_it_is_not(folder: Path, tmp_path: Path) -> None:
    first = squares.load_squares([folder], cache=tmp_path)
    (home,) = tmp_path.iterdir()
    written = (home / "lightness.u8").stat().st_mtime_ns
    second = squares.load_squares([folder], cache=tmp_path)
    assert (home / "lightness.u8").stat().st_mtime_ns == written
    assert first.names == second.names == sorted(NAMES)
    home.rename(home.with_suffix(".new"))  # as a kill leaves it
    third = squares.load_squares([folder], cache=tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [""]
    np.testing.assert_array_equal(third[2].lightness, first[2].lightness)


def test_a_changed_folder_is_fitted_again(folder: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    shutil.copytree(folder, tree / "deep")
    assert len(squares.load_squares([tree], cache=tmp_path / "cache")) == len(NAMES)
    shutil.copy(PHOTOS / "skimage_rocket.jpg", tree / "deep" / "new.jpg")
    assert len(squares.load_squares([tree], cache=tmp_path / "cache")) == len(NAMES) + 1


def test_no_photographs_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="no usable photographs"):
        squares.load_squares([tmp_path / "empty"], cache=tmp_path / "cache")


def test_photographs_of_several_folders_are_found_by_number(folder: Path, tmp_path: Path) -> None:
    alone = [tmp_path / name for name in NAMES]
    for path in alone:
        path.mkdir()
        shutil.copy(folder / path.name, path)
    several = squares.load_squares(alone, cache=tmp_path / "cache")
    together = squares.load_squares([folder], cache=tmp_path / "cache")
    assert several.names == NAMES
    for index, name in enumerate(several.names):
        expected = together[together.names.index(name)]
        np.testing.assert_array_equal(several[index].ab, expected.ab)


def test_a_window_has_the_colours_of_its_own_place() -> None:
    """Where a picture is bright it is red, in every window and every mirror image."""
    rgb = np.full((160, 160, 3), 30, np.uint8)
    rgb[40:100, 20:90] = (255, 120, 110)
    square = squares.fit_square(rgb, "patch")
    maker = squares.SquareMaker(128, 16, (0.5, 1.0), 0.0, 0.3)
    rng = np.random.default_rng(3)
    shown = set()
    for _ in range(20):
        lightness, ab = maker.make_example(square, rng)
        assert (lightness.shape, ab.shape) == ((128, 128, 1), (16, 16, 2))
        small = cv2.resize(lightness[..., 0], (16, 16), interpolation=cv2.INTER_AREA)
        assert np.corrcoef(small.ravel(), ab[..., 0].ravel())[0, 1] > 0.97
        shown.add(round(float(small.mean()), 2))
    assert len(shown) > 5


def test_old_film_is_shown_as_often_as_asked(fitted: squares.Squares) -> None:
    square = fitted[0]
    plain, film = (squares.SquareMaker(160, 20, (1.0, 1.0), chance, 1.0) for chance in (0.0, 1.0))
    for maker, plane in ((plain, 0), (film, 1)):
        lightness, _ = maker.make_example(square, np.random.default_rng(1))
        counts = np.rint(lightness[..., 0] / squares.LIGHTNESS_SCALE).astype(int)
        expected = square.lightness[plane].astype(int)
        assert min(np.abs(counts - item).max() for item in (expected, expected[:, ::-1])) == 0


def test_other_scans_keep_colours_where_the_lightness_is(fitted: squares.Squares) -> None:
    """A bright red patch stays red and bright whatever the scan; scans differ from each other."""
    rgb = np.full((160, 160, 3), 30, np.uint8)
    rgb[40:100, 20:90] = (255, 120, 110)
    square = squares.fit_square(rgb, "patch")
    rng = np.random.default_rng(5)
    shown = []
    for _ in range(20):
        lightness, ab = augment.rescan(square.lightness[0], square.ab, rng)
        assert lightness.dtype == np.uint8
        assert ab.dtype == np.int8
        small = cv2.resize(lightness, (40, 40), interpolation=cv2.INTER_AREA)
        assert np.corrcoef(small.ravel(), ab[..., 0].ravel())[0, 1] > 0.97
        shown.append(lightness)
    assert len({plane.tobytes() for plane in shown}) > 15
    turned = squares.SquareMaker(160, 40, (1.0, 1.0), 0.0, 1.0, 1.0)
    plain = squares.SquareMaker(160, 40, (1.0, 1.0), 0.0, 1.0, 0.0)
    first, second = (
        maker.make_example(fitted[0], np.random.default_rng(1))[0] for maker in (turned, plain)
    )
    assert not np.array_equal(first, second)


def test_batches_of_squares_depend_on_seed_and_step(fitted: squares.Squares) -> None:
    maker = squares.SquareMaker(64, 8, (0.6, 1.0), 0.3, 0.5)
    batch, two = (Batches(fitted, [0, 1, 2], 7).make_batch(maker, 2, 4, 8) for _ in range(2))
    np.testing.assert_array_equal(batch[0], two[0])
    np.testing.assert_array_equal(batch[1], two[1])


def test_a_coarse_network_learns_from_squares(folder: Path, tmp_path: Path) -> None:
    plan = Config(
        name="tiny", model="rehue-coarse", side=64, validation=0.4, validate_on=1, log_every=1,
        stages=(Stage(steps=2, size=64, batch=2, crop=(0.7, 1.0), whole=0.5),), film=0.5,
        loss=losses.ColorLoss(), learning_rate=1e-3, frozen_blocks=16,
    )  # fmt: skip
    done = train.train(plan, [folder], runs=tmp_path)
    assert done.step == 2
    assert all(np.isfinite(record["loss"]) for record in done.history)
    assert (tmp_path / "squares").is_dir()
