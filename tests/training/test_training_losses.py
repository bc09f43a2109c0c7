"""Losses against values by hand, scikit-image and Keras; classes of ab; the critic."""

from typing import Any

import keras
import numpy as np
import pytest
import skimage.color
import skimage.data
from numpy.typing import NDArray

from rehue_training.data import batches
from rehue_training.learn import export, losses, perception
from rehue_training.learn.adversary import Adversary
from rehue_training.network import bins, models


@pytest.fixture(scope="module")
def cat() -> NDArray[Any]:
    """1x128x128x3: a photograph's ab divided by 128 and L divided by 100."""
    return batches.make_target(np.ascontiguousarray(skimage.data.chelsea()[:128, :128]), 128)[None]


def test_losses_by_hand() -> None:
    truth = np.zeros((1, 8, 8, 2), np.float32)
    guess = np.full((1, 8, 8, 2), 0.3, np.float32)
    assert float(losses.MeanSquaredError()(truth, guess)[0]) == pytest.approx(0.09)
    # Length of (0.3, 0.4) is 0.5; smoothed by 0.01; the truth is gray, so the weight is 1.
    guess[..., 1] = 0.4
    length = np.sqrt(0.25 + 1e-4) - 0.01
    plain = losses.ColorLoss(chroma=3, coarse=0, vividness=0)
    assert float(plain(truth, guess)[0]) == pytest.approx(length, rel=1e-5)
    # Swapped, the truth is colourful.
    assert float(plain(guess, truth)[0]) == pytest.approx(length * (1 + 3 * length), rel=1e-5)
    vivid = losses.ColorLoss(chroma=0, coarse=0, vividness=1)
    assert float(vivid(truth, guess)[0]) == pytest.approx(2 * length, rel=1e-5)


@pytest.mark.parametrize("spread", [5, 20, 50])
def test_the_perceived_distance_follows_ciede2000(spread: float) -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(0, spread, (64, 8, 8, 2)).astype(np.float32)
    guess = truth + rng.normal(0, spread / 2, truth.shape).astype(np.float32)
    light = np.full((64, 8, 8, 1), 60, np.float32)
    lab = [np.concatenate([light, ab], axis=-1) for ab in (truth, guess)]
    right = skimage.color.deltaE_ciede2000(*lab)
    found = np.asarray(losses.DISTANCES["perceived"](truth / 128, guess / 128)) * 128
    assert np.corrcoef(right.ravel(), found.ravel())[0, 1] > 0.95
    plain = np.asarray(losses.DISTANCES["ab"](truth / 128, guess / 128)) * 128
    assert np.abs(found - right).mean() < np.abs(plain - right).mean() or spread == 5


def test_the_coarse_term_looks_past_texture() -> None:
    truth = np.zeros((1, 8, 8, 2), np.float32)
    checks = np.indices((8, 8)).sum(axis=0) % 2 * 2 - 1.0
    guess = (0.2 * checks[None, ..., None] * np.ones(2)).astype(np.float32)
    fine = float(losses.ColorLoss(chroma=0, coarse=0, vividness=0)(truth, guess)[0])
    both = float(losses.ColorLoss(chroma=0, coarse=1, vividness=0)(truth, guess)[0])
    assert fine > 0.2
    assert both == pytest.approx(fine, abs=1e-5)


def test_hubers_distance_by_hand() -> None:
    truth = np.zeros((1, 1, 2, 2), np.float32)
    guess = np.array([[[[7 / 128, 0], [55 / 128, 0]]]], np.float32)
    near, far = np.asarray(losses.DISTANCES["huber"](truth, guess)).ravel()
    # Lengths are smoothed near zero.
    soft = [
        (np.hypot(length / 128, losses.SMOOTHING) - losses.SMOOTHING) * 128 / 110
        for length in (7, 55)
    ]
    bend = 14 / 110
    assert near == pytest.approx(soft[0] ** 2 / 2 / bend, rel=1e-4)
    assert far == pytest.approx(soft[1] - bend / 2, rel=1e-4)


def test_accuracy_is_keras_own(cat: NDArray[Any]) -> None:
    guess = np.random.default_rng(0).normal(0, 0.2, (*cat.shape[:3], 2)).astype(np.float32)
    metric = keras.metrics.CategoricalAccuracy()
    metric.update_state(cat[..., :2], guess)
    found = float(keras.ops.mean(losses.accuracy(cat, guess)))
    assert found == pytest.approx(float(metric.result()), abs=1e-6)


def test_perception_converts_to_srgb_as_scikit_image_does(cat: NDArray[Any]) -> None:
    made = np.asarray(perception.convert_to_srgb(cat[..., 2:] * 100, cat[..., :2] * 128))
    right = skimage.color.lab2rgb(np.concatenate([cat[..., 2:] * 100, cat[..., :2] * 128], -1))
    np.testing.assert_allclose(made, right, atol=2e-3)


def test_the_perceptual_distance_grows_with_the_error(
    cat: NDArray[Any],
) -> None:
    truth = keras.ops.convert_to_tensor(cat)
    right, pale, wrong = (
        float(perception.compute_distance(truth, cat[..., :2] * factor)[0])
        for factor in (1.0, 0.5, -1.0)
    )
    assert right == pytest.approx(0, abs=1e-6)
    assert 0 < pale < wrong
    loss = losses.ColorLoss(coarse=0, vividness=0, perceptual=2.0)
    plain = losses.ColorLoss(coarse=0, vividness=0)
    guess = cat[..., :2] * np.float32(0.5)
    assert float(loss(truth, guess)[0] - plain(truth, guess)[0]) == pytest.approx(2 * pale, 1e-4)


def test_a_colour_is_encoded_by_the_bins_around_it(cat: NDArray[Any]) -> None:
    found = np.asarray(bins.soft_encode(cat[..., :2]))
    assert found.shape == (1, 128, 128, len(bins.compute_centers()))
    np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-5)
    nearest = bins.compute_centers()[found.argmax(axis=-1)]
    assert np.abs(nearest - cat[..., :2] * 128).max() <= bins.BIN_SIDE / 2 + 1e-3


def test_the_annealed_mean_goes_from_the_mean_to_the_mode() -> None:
    """Three quarters of one bin and a quarter of another, also in the exported graph."""
    model = models.build_rehue_classes(pretrained=False)
    scores = np.full(len(bins.compute_centers()), -30.0, np.float32)
    scores[3], scores[60] = np.log([0.75, 0.25])
    head = model.get_layer("scores")
    head.set_weights([np.zeros(head.kernel.shape, np.float32), scores])
    a, b = bins.compute_centers()[[3, 60]]
    for temperature, share in ((1.0, 0.75), (0.5, 0.9), (0.1, 1.0)):
        whole = bins.add_annealed_mean(model, temperature)
        proto = export.convert_to_onnx(whole, side=64)
        assert export.measure_parity(proto, whole, export.load_sample_lightness(64)).largest < 0.1
        ab = np.asarray(whole(np.zeros((1, 64, 64, 1), np.float32)))[0, 5, 5] * 128
        np.testing.assert_allclose(ab, a * share + b * (1 - share), atol=0.02)


def test_cross_entropy_is_smallest_for_the_truth(cat: NDArray[Any]) -> None:
    loss = losses.ClassificationLoss(chroma=0)
    right = np.log(np.asarray(bins.soft_encode(cat[..., :2])) + 1e-9)
    other = np.roll(right, 50, axis=-1)
    even = np.zeros_like(right)
    ordered = [float(loss(cat, guess)[0]) for guess in (right, even, other)]
    assert ordered[0] < ordered[1] < ordered[2]
    assert ordered[1] == pytest.approx(np.log(len(bins.compute_centers())), rel=1e-4)


def test_the_critic_learns_to_tell_predicted_colours(cat: NDArray[Any]) -> None:
    adversary = Adversary(1)
    gray = np.zeros((1, 128, 128, 2), np.float32)
    for _ in range(60):
        adversary.train_step(cat, gray)
    made, true = (float(adversary.compute_loss(cat, guess)[0]) for guess in (gray, cat[..., :2]))
    assert true < made - 0.2
