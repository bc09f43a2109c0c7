"""Training: exact resume, checkpoints, and problems found before any work."""

import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from paths import MODELS, ROOT
from photo_trees import write_kaggle_tree, write_pieces
from pydantic import ValidationError
from tiny_training import create_small_network, create_tiny_config, read_rate_shares

from rehue_training.data import dataset
from rehue_training.errors import InputError
from rehue_training.learn import checkpoint, run, train
from rehue_training.learn.config import Stage
from rehue_training.network import models


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pieces(tmp_path_factory.mktemp("photographs"))


@pytest.mark.parametrize("adversary", [0.0, 0.1])
def test_a_stopped_run_ends_with_the_same_weights(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, adversary: float
) -> None:
    monkeypatch.setitem(models.MODELS, "seed", create_small_network)
    experiment = create_tiny_config(model="seed", adversary=adversary)
    whole = train.train(experiment, [folder], runs=tmp_path / "whole")
    train.train(experiment, [folder], runs=tmp_path / "parts", stop_at=2)
    keras.utils.set_random_seed(99)  # the random state in between does not matter
    parts = train.train(experiment, [folder], runs=tmp_path / "parts")
    assert whole.step == parts.step == 4
    for part in ("weights", "averaged", "optimizer"):
        for first, second in zip(getattr(whole, part), getattr(parts, part), strict=True):
            np.testing.assert_allclose(first, second, rtol=1e-4, atol=1e-6)
    losses_of = [[entry["loss"] for entry in state.history] for state in (whole, parts)]
    np.testing.assert_allclose(losses_of[0], losses_of[1], rtol=1e-4)
    assert [entry["step"] for entry in parts.history] == [1, 2, 3, 4]
    assert list((tmp_path / "whole" / "tiny" / "tensorboard").glob("events*"))


def test_a_run_stops_when_its_minutes_are_over(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(models.MODELS, "seed", create_small_network)
    experiment = create_tiny_config(model="seed")
    assert train.train(experiment, [folder], runs=tmp_path, minutes=0).step == 0
    assert train.train(experiment, [folder], runs=tmp_path, minutes=1).step == 4


def test_two_scales_train_as_one_network(folder: Path, tmp_path: Path) -> None:
    """The weights are those of one network, and the encoder's share of the rate is kept."""
    experiment = create_tiny_config(
        looks=2, stages=(Stage(steps=1, size=64, batch=2),), validate_on=1
    )
    model = run.build_model(experiment)
    shares = read_rate_shares(model)
    assert shares["block5_project/kernel"] == 0.3
    assert shares["colours/kernel"] == 1.0
    served = ROOT / "model_repository" / "rehue" / "1" / "model.onnx"
    once, twice = (
        run.build_model(create_tiny_config(start=served, looks=looks, stages=experiment.stages))
        for looks in (1, 2)
    )
    gray = np.full((1, 64, 64, 1), 50, np.float32)
    gray[:, :, ::3] = 80
    expected = models.average_two_scales(once).predict(gray, verbose=0)
    np.testing.assert_allclose(twice.predict(gray, verbose=0), expected, atol=1e-5)
    assert not np.allclose(once.predict(gray, verbose=0), expected, atol=1e-3)
    before = run.build_model(create_tiny_config()).get_weights()
    after = train.train(experiment, [folder], runs=tmp_path).weights
    assert [weight.shape for weight in after] == [weight.shape for weight in before]
    assert any(not np.array_equal(*pair) for pair in zip(before, after, strict=True))
    with pytest.raises(ValidationError, match="sizes that divide by 64"):
        create_tiny_config(looks=2, stages=(Stage(steps=1, size=96, batch=2),))


def test_a_kill_while_saving_keeps_the_last_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "checkpoint.npz"
    state = checkpoint.Checkpoint(1, [np.ones(3)], [np.ones(3)], [np.ones(2)], [{"step": 1}])
    checkpoint.save(path, state)

    def full(file: object, **_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(path, state)
    monkeypatch.undo()
    assert checkpoint.load(path).step == 1


def test_the_checkpoint_is_plain_numbers(tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.npz"
    checkpoint.save(path, checkpoint.Checkpoint(3, [np.eye(2)], [], [], [{"step": 3, "loss": 0.5}]))
    with np.load(path, allow_pickle=False) as file:
        assert json.loads(str(file["meta"]))["step"] == 3
        assert np.array_equal(file["weights/0"], np.eye(2))


@pytest.mark.parametrize("count", [16, 116])
def test_a_small_tree_trains_validates_and_leaves_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int
) -> None:
    monkeypatch.setitem(models.MODELS, "seed", create_small_network)
    tree = write_kaggle_tree(tmp_path / "kaggle", count)
    experiment = create_tiny_config(
        model="seed", validation=0.03, validate_on=128, validate_every=2
    )
    state = train.train(experiment, [tree], runs=tmp_path / "runs")
    assert state.step == 4
    assert [entry["step"] for entry in state.history if "val_loss" in entry] == [2, 4]
    counts = json.loads((tmp_path / "runs" / "tiny" / "photographs.json").read_text())
    kept = dataset.load_dataset([tree], cache=tmp_path / "runs" / "cache")
    assert counts["training"] + counts["validation"] == len(kept) > count - 4
    assert min(counts.values()) >= 1


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"held_out": ("sunhays",)}, "held_out: no photographs of the source sunhays; there are a"),
        ({"classes": ("A",)}, "classes: pass the table .* --manifest"),
        ({"stages": (Stage(steps=9, size=448, batch=1),)}, "stage 1 has crops of 448 pixels, but"),
    ],
)
def test_problems_are_found_before_the_first_step(
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    changes: dict[str, Any],
    message: str,
) -> None:
    monkeypatch.setattr(run.Run, "__init__", lambda *_: pytest.fail("a network was built"))
    with pytest.raises(InputError, match=message):
        train.train(create_tiny_config(**changes), [folder], runs=tmp_path)


def test_weights_of_another_network_are_an_error(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"start: .*seed.* does not hold the weights"):
        run.build_model(create_tiny_config(start=MODELS / "seed" / "1" / "model.onnx"))
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(InputError, match=r"start: .*broken.onnx does not hold the weights"):
        run.build_model(create_tiny_config(start=tmp_path / "broken.onnx"))
    (tmp_path / "tiny").mkdir()
    state = checkpoint.Checkpoint(1, [np.ones(3)], [np.ones(3)], [], [])
    checkpoint.save(tmp_path / "tiny" / "checkpoint.npz", state)
    with pytest.raises(InputError, match=r"checkpoint.npz is of another network"):
        train.train(create_tiny_config(), [folder], runs=tmp_path)


def test_a_stop_request_ends_the_run_with_a_checkpoint(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(models.MODELS, "seed", create_small_network)
    asked = iter(range(100))
    experiment = create_tiny_config(model="seed")
    state = train.train(experiment, [folder], runs=tmp_path, should_stop=lambda: next(asked) >= 2)
    assert state.step == 2
    assert checkpoint.load(tmp_path / "tiny" / "checkpoint.npz").step == 2
