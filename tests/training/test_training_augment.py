"""Simulated old film: only lightness changes, and stays in its range."""

import numpy as np
import pytest
import skimage.data

from rehue_core import lab
from rehue_training.data import augment, batches

CROP = np.ascontiguousarray(skimage.data.coffee()[100:228, 200:328])


def test_film_is_lightness_of_the_same_size_in_range() -> None:
    for seed in range(40):
        old = augment.simulate_film(CROP, np.random.default_rng(seed))
        assert old.shape == CROP.shape[:2]
        assert old.dtype == np.float32
        assert 0 <= old.min() < old.max() <= 100


def test_the_generator_decides_the_film() -> None:
    first, second, other = (
        augment.simulate_film(CROP, np.random.default_rng(seed)) for seed in (3, 3, 4)
    )
    assert np.array_equal(first, second)
    assert not np.array_equal(first, other)


def test_film_still_shows_the_picture() -> None:
    clean = lab.compute_lightness(CROP).ravel()
    alike = [
        np.corrcoef(augment.simulate_film(CROP, np.random.default_rng(seed)).ravel(), clean)[0, 1]
        for seed in range(40)
    ]
    assert np.median(alike) > 0.9
    assert min(alike) > 0.4


def test_orthochromatic_film_is_blind_to_red() -> None:
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 255
    grays = [augment.apply_emulsion(red, np.random.default_rng(seed))[0, 0] for seed in range(200)]
    share = np.mean([gray == 0 for gray in grays])
    assert 0.15 < share < 0.35
    assert 0.2 < np.mean([gray for gray in grays if gray > 0]) / 255 < 0.45


def test_emulsions_weights_sum_to_one() -> None:
    white = np.full((4, 4, 3), 255, np.uint8)
    for seed in range(20):
        gray = augment.apply_emulsion(white, np.random.default_rng(seed))
        np.testing.assert_allclose(gray, 255, atol=0.01)


@pytest.mark.parametrize(
    "effect", [effect for effect, _ in augment.FLAWS], ids=lambda effect: effect.__name__
)
def test_every_flaw_changes_the_picture_and_keeps_its_shape(effect: augment.Effect) -> None:
    gray = augment.apply_emulsion(CROP, np.random.default_rng(0))
    before = gray.copy()
    flawed = effect(gray, np.random.default_rng(1))
    assert flawed.shape == gray.shape
    assert flawed.dtype == np.float32
    assert np.array_equal(gray, before)  # the input is not modified
    assert np.abs(flawed - gray).mean() > 0.05


def test_fading_lifts_blacks_and_vignettes_darken_corners() -> None:
    ramp = np.tile(np.linspace(0, 255, 64, dtype=np.float32), (64, 1))
    faded = augment.fade(ramp, np.random.default_rng(0))
    assert faded.min() > 0
    assert faded.max() < 255
    even = np.full((64, 64), 200, np.float32)
    shaded = augment.add_vignette(even, np.random.default_rng(0))
    corners = shaded[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert corners.max() < shaded[20:44, 20:44].max()


def test_the_colours_to_learn_are_the_photographs_own() -> None:
    clean = batches.ExampleMaker(64, 32, (1, 1), 0.0)
    old = batches.ExampleMaker(64, 32, (1, 1), 1.0)
    plain, aged = (crops.make_example(CROP, np.random.default_rng(5)) for crops in (clean, old))
    assert np.array_equal(plain[1], aged[1])
    assert not np.array_equal(plain[0], aged[0])
