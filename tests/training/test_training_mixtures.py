"""`rehue mix`: the means that it measures are what an export of them would give."""

from pathlib import Path

import numpy as np
import pytest
from paths import PHOTOS

from rehue_core import lab
from rehue_training.errors import InputError
from rehue_training.evaluation import metrics, mixtures
from rehue_training.evaluation.colorizer import Colorizer, GrayBaseline
from rehue_training.learn.config import Config, Ensemble, read_config, read_experiment

ROOT = Path(__file__).parents[2]
REPOSITORY = ROOT / "model_repository"
SERVED = REPOSITORY / "rehue" / "1" / "model.onnx"


def read_served_ensemble() -> Ensemble:
    """The default model's config, every member's weights taken from the served file."""
    served = read_experiment(ROOT / "training" / "configs" / "rehue-ensemble.py")
    assert isinstance(served, Ensemble)
    members = [member.model_copy(update={"weights": SERVED}) for member in served.members]
    return served.model_copy(update={"members": tuple(members)})


def read_split() -> Config:
    split = read_config(ROOT / "training" / "configs" / "coarse-lite1.py")
    return split.with_changes(validation=0.4, held_out=("lomiri",))


def measure(ensemble: Ensemble, weights: tuple[float, ...], gain: float) -> mixtures.MixtureResult:
    (result,) = mixtures.measure_mixtures(
        ensemble, [PHOTOS], split=read_split(), mixtures=[weights], gains=[gain], count=4,
        runs=Path(), repository=REPOSITORY,
    )  # fmt: skip
    return result


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def test_the_served_mean_scores_as_the_served_model_does() -> None:
    ensemble = read_served_ensemble()
    weights = tuple(member.weight for member in ensemble.members)
    found = measure(ensemble, weights, ensemble.gain)
    model, gray, errors, vivid = Colorizer(REPOSITORY, "rehue"), [], [], []
    photographs = list(mixtures.load_validation_photographs([PHOTOS], read_split(), 4))
    assert len(photographs) == 4
    for truth in photographs:
        lightness = lab.compute_lightness(truth)
        guess = model.colorize(lightness)
        gray.append(metrics.compute_ciede2000(truth, GrayBaseline().colorize(lightness)))
        errors.append(metrics.compute_ciede2000(truth, guess))
        vivid.append(metrics.compute_colorfulness(guess) / metrics.compute_colorfulness(truth))
    assert found.below_gray == pytest.approx(1 - np.mean(errors) / np.mean(gray), abs=0.01)
    assert found.better == np.mean(np.array(errors) < np.array(gray))
    assert found.colourfulness == pytest.approx(np.mean(vivid), rel=0.15)
    alone = measure(ensemble, (1, 0, 0), ensemble.gain)
    assert abs(alone.below_gray - found.below_gray) > 0.01


def test_a_gain_of_nothing_scores_as_gray() -> None:
    found = measure(read_served_ensemble(), (0, 1, 0), 1e-6)
    assert found.below_gray == pytest.approx(0, abs=0.01)
    assert found.colourfulness < 0.02


def test_weights_must_fit_the_members() -> None:
    for weights in ((1.0,), (0.0, 0.0, 0.0)):
        with pytest.raises(InputError, match="needs a weight for each of 3 members"):
            measure(read_served_ensemble(), weights, 1.0)
