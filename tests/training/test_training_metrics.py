"""Metrics against values computed by hand and other implementations."""

import os
import pickle
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import scipy.linalg
import skimage.data
from numpy.typing import NDArray
from skimage.color import lab2rgb
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from rehue_core import lab
from rehue_training.evaluation import lpips, metrics
from rehue_training.evaluation.colorizer import GrayBaseline


def create_flat_image(red: int, green: int, blue: int) -> NDArray[Any]:
    return np.full((16, 16, 3), (red, green, blue), np.uint8)


def test_colourfulness_by_hand() -> None:
    # One colour: no spread; rg = 200 - 100 = 100, yb = 150 - 50 = 100.
    assert metrics.compute_colorfulness(create_flat_image(200, 100, 50)) == pytest.approx(
        0.3 * np.hypot(100, 100)
    )
    # Half red, half cyan: rg is 255 and -255, yb 127.5 and -127.5; means are 0.
    halves = np.concatenate([create_flat_image(255, 0, 0), create_flat_image(0, 255, 255)])
    assert metrics.compute_colorfulness(halves) == pytest.approx(np.hypot(255, 127.5))
    assert metrics.compute_colorfulness(create_flat_image(90, 90, 90)) == 0


def test_ciede2000_of_a_published_pair() -> None:
    # Pair 25 of Sharma, Wu and Dalal's test data (2005) has a difference of 1.2644;
    # 8-bit sRGB moves both of its colours by a little.
    pair = np.array([[[60.2574, -34.0099, 36.2677], [60.4626, -34.1751, 39.4387]]])
    rgb = np.rint(lab2rgb(pair) * 255).astype(np.uint8)
    first, second = np.broadcast_to(rgb[:, :1], (8, 8, 3)), np.broadcast_to(rgb[:, 1:], (8, 8, 3))
    assert metrics.compute_ciede2000(first, second) == pytest.approx(1.2644, abs=0.25)


def test_scores_of_the_truth_and_of_gray() -> None:
    truth = skimage.data.coffee()[::4, ::4]
    gray = GrayBaseline().colorize(lab.compute_lightness(truth))
    error = metrics.compute_ciede2000(truth, gray)
    best, worst = (
        metrics.compute_scores(truth, guess, gray_error=error) for guess in (truth, gray)
    )
    assert (best.ciede2000, best.ssim, best.colourfulness_distance) == (0, 1, 0)
    assert (best.better_than_gray, worst.better_than_gray) == (1, 0)
    assert worst.colourfulness < 1 < worst.colourfulness_distance
    assert worst.psnr == peak_signal_noise_ratio(truth, gray)
    assert worst.ssim == structural_similarity(truth, gray, channel_axis=2)


def test_gray_keeps_the_lightness() -> None:
    truth = skimage.data.chelsea()
    lightness = lab.compute_lightness(truth)
    assert np.abs(lab.compute_lightness(GrayBaseline().colorize(lightness)) - lightness).max() < 0.3


def test_frechet_against_its_definition() -> None:
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(60, 5)) @ rng.normal(size=(5, 5))
    guess = rng.normal(size=(60, 5)) @ rng.normal(size=(5, 5)) + 1
    first, second = np.cov(truth.T), np.cov(guess.T)
    root = scipy.linalg.sqrtm(first @ second).real
    offset = truth.mean(axis=0) - guess.mean(axis=0)
    expected = offset @ offset + np.trace(first + second - 2 * root)
    assert metrics.compute_frechet_distance(truth, guess) == pytest.approx(expected)  # type: ignore[arg-type]
    assert metrics.compute_frechet_distance(truth, truth) == pytest.approx(0, abs=1e-9)


def test_the_interval_is_the_means() -> None:
    values = np.random.default_rng(1).normal(10, 2, 400)
    low, high = metrics.bootstrap_interval(values)
    # Of a mean of 400 with deviation 2: 1.96 * 2 / 20 to each side.
    half = 1.96 * values.std() / 20
    assert (low, high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.03)
    assert metrics.bootstrap_interval(values) == (low, high)


def test_ciede2000_sees_a_cast_that_lightness_hides() -> None:
    truth = skimage.data.astronaut()[::8, ::8]
    blue = cv2.cvtColor(truth, cv2.COLOR_RGB2BGR)
    assert metrics.compute_ciede2000(truth, blue) > 5


def test_lpips_matches_pytorch_with_the_authors_weights() -> None:
    perceived = lpips.load_metric()
    assert perceived, "make installs its weights: requirements/lpips.lock"
    truth = skimage.data.coffee()[:256, :320]
    gray = GrayBaseline().colorize(lab.compute_lightness(truth))
    mirrored = np.ascontiguousarray(truth[:, ::-1])
    # Computed once with torch 2.13 and the v0.1 weights of the package `lpips`.
    right = [0.0, 0.352984, 0.695062]
    assert perceived(truth, [truth, gray, mirrored]) == pytest.approx(right, abs=1e-4)


def test_a_malicious_weights_file_runs_no_code(tmp_path: Path) -> None:
    (tmp_path / "alexnet.ckpt").write_bytes(pickle.dumps(os.system))
    with pytest.raises(pickle.UnpicklingError, match="is not allowed"):
        lpips.Lpips(tmp_path / "alexnet.ckpt")
