"""Training: exact resume, the schedule, configs that are rejected before any work."""

import itertools
import json
from pathlib import Path
from typing import Any

import cv2
import keras
import numpy as np
import onnx
import pytest
import skimage.color
import skimage.data
from numpy.typing import NDArray
from paths import MODELS, ROOT
from photo_trees import write_kaggle_tree
from pydantic import ValidationError

from rehue_core import colorize, lab
from rehue_training.data import batches, dataset
from rehue_training.errors import InputError
from rehue_training.learn import checkpoint, config, export, losses, run, train
from rehue_training.learn.config import Config, Stage
from rehue_training.network import models

CONFIGS = ROOT / "training" / "configs"


def create_tiny_config(**changes: object) -> Config:
    """Four steps of the default network on crops of 32 and 64 pixels."""
    values = {
        "name": "tiny",
        "model": "rehue",
        "stages": (Stage(steps=3, size=32, batch=2), Stage(steps=1, size=64, batch=2)),
        "loss": losses.ColorLoss(),
        "learning_rate": 1e-3,
        "encoder_rate": 0.3,
        "frozen_blocks": 5,
        "weight_decay": 0.01,
        "clip": 1.0,
        "ema": 0.9,
        "film": 0.5,
        "validation": 0.5,
        "validate_on": 2,
        "checkpoint_every": 2,
        "validate_every": 3,
        "log_every": 1,
    }
    return Config(**{**values, **changes})


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve photographs: pieces of skimage's."""
    home = tmp_path_factory.mktemp("photographs")
    for name in ("chelsea", "coffee", "astronaut"):
        bgr = cv2.cvtColor(getattr(skimage.data, name)(), cv2.COLOR_RGB2BGR)
        for i, (down, across) in enumerate(itertools.product((0, 100), (0, 100))):
            piece = bgr[down : down + 200, across : across + 240]
            cv2.imwrite(str(home / f"{name}{'abcd'[i]}.png"), piece)
    return home


def create_small_network() -> keras.Model:
    """A network with the default's kinds of layers, quick to trace."""
    return keras.Sequential(
        [
            keras.Input((None, None, 1)),
            keras.layers.Rescaling(1 / 50, offset=-1.0),
            keras.layers.Conv2D(8, 3, strides=2, padding="same", activation="relu"),
            # It cannot be traced for unknown sizes, so two crop sizes must not ask for that.
            keras.layers.UpSampling2D(2, interpolation="bilinear"),
            keras.layers.Conv2D(2, 3, padding="same", activation="tanh"),
        ]
    )


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


@pytest.mark.parametrize("name", ["rehue", "rehue-free"])
def test_a_run_starts_from_what_was_exported(name: str) -> None:
    """Of the ensemble `rehue`, from its first network: the one without a scope."""
    served = ROOT / "model_repository" / name / "1" / "model.onnx"
    model = run.build_model(create_tiny_config(start=served))
    proto = export.convert_to_onnx(model, side=64)
    found, kept = (
        {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in file.graph.initializer}
        for file in (proto, onnx.load(served))
    )
    ensemble = config.read_experiment(CONFIGS / "rehue-ensemble.py")
    assert isinstance(ensemble, config.Ensemble)
    scopes = tuple(member.scope for member in ensemble.members if member.scope)
    weights = [
        tensor for tensor in kept if tensor.endswith("/fp16") and not tensor.startswith(scopes)
    ]
    assert len(weights) > 100
    assert all(np.array_equal(found[tensor], kept[tensor]) for tensor in weights)


def test_two_scales_train_as_one_network(folder: Path, tmp_path: Path) -> None:
    """The weights are those of one network, and the encoder's share of the rate is kept."""
    experiment = create_tiny_config(
        looks=2, stages=(Stage(steps=1, size=64, batch=2),), validate_on=1
    )
    model = run.build_model(experiment)
    shares = dict(
        zip(
            (variable.path for variable in model.trainable_variables),
            model.optimizer.shares,
            strict=True,
        )
    )
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


def test_a_missing_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValidationError, match="there is no model at"):
        create_tiny_config(start=tmp_path / "model.onnx")


def test_mixed_precision_keeps_weights_and_output_in_fp32() -> None:
    model = run.build_model(create_tiny_config(precision="mixed_bfloat16"))
    assert {layer.compute_dtype for layer in model.layers} == {"bfloat16", "float32"}
    assert {str(weight.dtype) for weight in model.weights} == {"float32"}
    assert model.get_layer("colours").compute_dtype == "float32"
    assert keras.config.dtype_policy().name == "float32", "only this network's"


def test_frozen_blocks_and_the_encoders_share_of_the_rate() -> None:
    model = run.build_model(create_tiny_config())
    learns = {layer.name for layer in model.layers if layer.trainable_variables}
    assert {"stem", "block0_project", "block4_project"}.isdisjoint(learns)
    assert {"block5_project", "block15_project", "decode32_2", "colours"} <= learns
    shares = dict(
        zip(
            (variable.path for variable in model.trainable_variables),
            model.optimizer.shares,
            strict=True,
        )
    )
    assert shares["block5_project/kernel"] == 0.3
    assert shares["colours/kernel"] == 1.0


def test_a_pretrained_layer_takes_a_smaller_step() -> None:
    model = run.build_model(create_tiny_config(frozen_blocks=0, weight_decay=0.0, clip=None))
    before = {variable.path: np.array(variable) for variable in model.trainable_variables}
    model.optimizer.learning_rate = 1e-3
    # Adam's first step is the rate itself, whatever the gradient's size.
    model.optimizer.apply([keras.ops.ones_like(variable) for variable in model.trainable_variables])
    after = {variable.path: np.array(variable) for variable in model.trainable_variables}
    moved = {path: np.abs(after[path] - before[path]) for path in after}
    assert moved["stem/kernel"].max() == pytest.approx(0.3e-3, rel=0.01)
    assert moved["colours/kernel"].max() == pytest.approx(1e-3, rel=0.01)


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


def test_the_example_is_the_papers_preprocessing(folder: Path) -> None:
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


def test_the_rate_rises_then_falls_to_zero() -> None:
    experiment = create_tiny_config(stages=(Stage(steps=6, size=32, batch=1),), warmup=3)
    rates = [run.compute_learning_rate(experiment, step) for step in range(6)]
    assert rates[:3] == pytest.approx([1e-3 / 3, 2e-3 / 3, 1e-3])
    assert rates[3] == pytest.approx(1e-3)
    assert rates[3] > rates[4] > rates[5] > 0
    assert run.compute_learning_rate(create_tiny_config(decay=0.0), 3) == 1e-3


def test_the_rate_is_constant_until_it_falls() -> None:
    experiment = create_tiny_config(
        stages=(Stage(steps=10, size=32, batch=1),), warmup=1, decay=0.4
    )
    rates = [run.compute_learning_rate(experiment, step) for step in range(10)]
    assert rates[:7] == pytest.approx([1e-3] * 7)
    assert rates[6] > rates[7] > rates[8] > rates[9] > 0
    longer = experiment.model_copy(update={"stages": (Stage(steps=20, size=32, batch=1),)})
    assert [run.compute_learning_rate(longer, step) for step in range(6)] == rates[:6], (
        "may go on longer"
    )


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
