"""Metrics of a colorized photograph: distance to the truth, and colourfulness.

Pictures are HWC uint8 sRGB, 0..255, the truth first. Distances to the truth reward
caution: a photograph left gray does well in PSNR. So colourfulness is measured too,
and the share of photographs that are better than gray.
"""

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from rehue_core.lab import UInt8

Float64 = NDArray[np.float64]

RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Scores:
    """The scores of one photograph."""

    psnr: float  # dB, over RGB
    ssim: float
    ciede2000: float  # mean over the pixels
    colourfulness: float
    colourfulness_distance: float  # to the truth's, absolute
    better_than_gray: float  # 1 where CIEDE2000 is below the gray picture's

    def to_dict(self) -> dict[str, float]:
        return asdict(self)


def compute_scores(truth: UInt8, guess: UInt8, *, gray_error: float) -> Scores:
    """Compute every metric of one photograph; `gray_error` is CIEDE2000 of the gray picture."""
    vivid = compute_colorfulness(guess)
    error = compute_ciede2000(truth, guess)
    return Scores(
        psnr=float(peak_signal_noise_ratio(truth, guess)),
        ssim=float(structural_similarity(truth, guess, channel_axis=2)),
        ciede2000=error,
        colourfulness=vivid,
        colourfulness_distance=abs(vivid - compute_colorfulness(truth)),
        better_than_gray=float(error < gray_error),
    )


def compute_ciede2000(truth: UInt8, guess: UInt8) -> float:
    """Return the mean CIEDE2000 difference; about 1 is just visible."""
    return float(deltaE_ciede2000(rgb2lab(truth), rgb2lab(guess)).mean())


def compute_colorfulness(rgb: UInt8) -> float:
    """Return Hasler and Suesstrunk's M3 (2003): 0 is gray, 33 moderate, 59 quite colourful."""
    red, green, blue = np.moveaxis(rgb.astype(np.float64), -1, 0)
    red_green, yellow_blue = red - green, 0.5 * (red + green) - blue
    spread = np.hypot(red_green.std(), yellow_blue.std())
    return float(spread + 0.3 * np.hypot(red_green.mean(), yellow_blue.mean()))


def compute_frechet_distance(truth: Float64, guess: Float64) -> float:
    """Return the Fréchet distance between two sets of features, each N x D.

    The trace of the root of the covariances' product equals the sum of the singular
    values of the product of the centered sets, an N x N matrix. This is exact, and fast
    for N below D. The distance is biased upwards for small N: compare only equal N.
    """
    first, second = (_center_features(features) for features in (truth, guess))
    offset = truth.mean(axis=0) - guess.mean(axis=0)
    root = np.linalg.svd(first @ second.T, compute_uv=False).sum()
    return float(offset @ offset + (first**2).sum() + (second**2).sum() - 2 * root)


def _center_features(features: Float64) -> Float64:
    return np.asarray((features - features.mean(axis=0)) / np.sqrt(len(features) - 1))


def bootstrap_interval(values: Float64, *, seed: int = 0) -> tuple[float, float]:
    """Return the bootstrap confidence interval of the mean (percentiles, 95 %)."""
    rng = np.random.default_rng(seed)
    picks = rng.integers(len(values), size=(RESAMPLES, len(values)))
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(values[picks].mean(axis=1), [tail, 100 - tail])
    return float(low), float(high)
