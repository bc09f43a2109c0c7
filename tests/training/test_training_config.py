"""Experiments: values that are refused, and the shipped configurations."""

from pathlib import Path

import pytest
from paths import MODELS, ROOT
from pydantic import ValidationError
from tiny_training import CONFIGS, create_tiny_config

from rehue_training.errors import InputError
from rehue_training.learn import config
from rehue_training.learn.config import Stage


def test_a_missing_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="there is no model at"):
        create_tiny_config(start=tmp_path / "model.onnx")


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"learning_rate": -1}, "learning_rate"),
        ({"learnin_rate": 1e-3}, "learnin_rate"),
        ({"model": "resnet"}, "model"),
        ({"stages": ()}, "stages"),
        ({"film": 1.5}, "film"),
        ({"warmup": 4}, "warmup"),
        ({"loss": {"kind": "hinge"}}, "loss"),
        ({"loss": {"kind": "classes"}}, "does not fit"),
        ({"model": "rehue-classes"}, "does not fit"),
        ({"name": "No Spaces"}, "name"),
    ],
)
def test_a_bad_value_is_named(changes: dict[str, object], name: str) -> None:
    with pytest.raises(ValidationError, match=name):
        create_tiny_config(**changes)


def test_crops_must_rise_and_sizes_divide() -> None:
    with pytest.raises(ValidationError, match="crop"):
        Stage(steps=1, size=32, batch=1, crop=(0.9, 0.5))
    with pytest.raises(ValidationError, match="multiple of 32"):
        Stage(steps=1, size=100, batch=1)


def test_a_file_without_a_config_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "bare.py"
    path.write_text("settings = {}\n")
    with pytest.raises(ValueError, match="must set `config`"):
        config.read_config(path)


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_every_experiment_is_valid_and_documented(path: Path) -> None:
    experiment = config.read_experiment(path)
    if isinstance(experiment, config.Ensemble):
        trained = [config.read_config(member.experiment) for member in experiment.members]
    else:
        trained = [experiment]
    assert all(member.steps > 0 for member in trained)
    head = path.read_text().split('"""')[1]
    for word in ("Source", "Hardware", "Duration", "Score", "Command"):
        assert f"{word}:" in head


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("from rehue import nothing\n", "ModuleNotFoundError: No module named 'rehue'"),
        ("config = 1 +\n", "SyntaxError"),
        (None, "there is no experiment at"),
    ],
)
def test_a_file_that_fails_is_one_sentence(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "mine.py"
    if text:
        path.write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        config.read_config(path)
    assert "\n" not in str(caught.value)


def test_values_that_are_not_allowed_are_named_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    path = tmp_path / "mine.py"
    text = (CONFIGS / "yours.py").read_text()
    path.write_text(text.replace("ema=0.998", "ema=1").replace("film=0.35", "flim=0.35"))
    with pytest.raises(InputError, match=r"ema: Input should be .* \(it is 1\); flim: ") as caught:
        config.read_config(path)
    assert "\n" not in str(caught.value)
    path.write_text(text.replace("size=192", "size=100"))
    with pytest.raises(InputError, match=r"size: .* multiple of 32 \(it is 100\)$"):
        config.read_config(path)


def test_a_run_derived_from_one_that_keeps_a_share_must_state_its_own() -> None:
    """Silently inherited, the share made an exported network half the one it started from."""
    base = create_tiny_config(start=MODELS / "rehue" / "1" / "model.onnx", keep=0.5)
    with pytest.raises(ValueError, match=r"keeps 0\.5 .* say what other keeps"):
        base.with_changes(name="other")
    assert base.with_changes(name="other", keep=0.0).keep == 0
    assert base.with_changes(seed=3).keep == 0.5


@pytest.mark.parametrize(
    ("name", "model"),
    [
        *((name, "rehue") for name in ("rehue", "rehue-first", "rehue-second", "rehue-third")),
        *((path.stem, "rehue") for path in CONFIGS.glob("try-*.py")),
        ("rehue-free", "rehue-free"), ("rehue-large", "rehue-large"), ("seed", "seed"),
        ("yours", "yours"),
    ],
)  # fmt: skip
def test_the_shipped_experiments_export_where_they_did(name: str, model: str) -> None:
    assert config.read_config(CONFIGS / f"{name}.py").served_name == model
