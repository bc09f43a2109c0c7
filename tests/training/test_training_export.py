"""The ONNX files: parity with Keras, common operators, the contract of the configurations."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
from numpy.typing import NDArray
from paths import MODELS

from rehue_core import spec
from rehue_training.errors import InputError
from rehue_training.evaluation.colorizer import Colorizer
from rehue_training.learn import checkpoint, export, losses, model_folder
from rehue_training.learn import run as training_run
from rehue_training.learn.config import Config, Stage
from rehue_training.network import models
from rehue_training.network.curve import Curve
from rehue_training.network.graph import read_weights

NAMES = ["seed", "rehue", "rehue-free"]
OPERATORS = {
    "Add", "Cast", "Clip", "Conv", "Div", "GlobalAveragePool", "Mul", "ReduceSum", "Relu", "Resize",
    "Tanh",
}  # fmt: skip


@pytest.fixture(scope="module", params=["seed", "rehue"])
def model(request: pytest.FixtureRequest) -> keras.Model:
    """A network with random weights in its last layer, which would start from zero."""
    keras.utils.set_random_seed(0)  # rounding to FP16 depends on the weights
    network = models.MODELS[request.param]()
    rng = np.random.default_rng(0)
    last = [layer for layer in network.layers if isinstance(layer, keras.layers.Conv2D)][-1]
    kernel, bias = last.get_weights()
    last.set_weights([rng.normal(0, 0.01, kernel.shape), rng.normal(0, 0.1, bias.shape)])
    return network


def test_the_file_computes_what_keras_does(model: keras.Model) -> None:
    proto = export.convert_to_onnx(model, side=96)
    found = export.measure_parity(proto, model, export.load_sample_lightness(96))
    # Weights and output are rounded to FP16: a tenth of a Lab unit.
    assert found.mean < 0.1
    assert found.largest < 1.0


def test_with_weights_exact_in_fp16_only_the_output_is_rounded(
    model: keras.Model,
) -> None:
    halves = [weight.astype(np.float16).astype(np.float32) for weight in model.get_weights()]
    model.set_weights(halves)
    found = export.measure_parity(
        export.convert_to_onnx(model, side=96), model, export.load_sample_lightness(96)
    )
    assert found.largest < 0.05


def test_gain_scales_chroma(model: keras.Model) -> None:
    counts = export.load_sample_lightness(64)[:, None]
    plain, strong = (
        run_model(export.convert_to_onnx(model, side=64, curve=Curve(gain)), counts).astype(
            np.float32
        )
        for gain in (1.0, 1.5)
    )
    np.testing.assert_allclose(strong, plain * 1.5, rtol=2e-3, atol=1e-3)


def test_a_curve_lifts_strong_colours_and_lowers_faint_ones(model: keras.Model) -> None:
    curve = Curve(1.6, 0.5, 10)
    ab = np.array([[0.0, 0.1], [6.0, 8.0], [0.0, -1000.0]], np.float32)
    factors = (curve(ab) / np.where(ab == 0, 1, ab)).max(axis=1)
    np.testing.assert_allclose(factors, [0.8, 1.2, 1.6], rtol=1e-3)  # by hand
    proto = export.convert_to_onnx(model, side=96, curve=curve)
    assert (
        export.measure_parity(proto, model, export.load_sample_lightness(96), curve=curve).mean
        < 0.1
    )
    counts = export.load_sample_lightness(96)[:, None]
    plain = run_model(export.convert_to_onnx(model, side=96), counts).astype(np.float32)
    expected = np.moveaxis(curve(np.moveaxis(plain, 1, -1)), -1, 1)
    np.testing.assert_allclose(run_model(proto, counts), expected, rtol=5e-3, atol=5e-3)


def test_operators_are_common_and_weights_fp16(model: keras.Model) -> None:
    proto = export.convert_to_onnx(model, side=64, curve=Curve(1.5, 0.5))
    assert {node.op_type for node in proto.graph.node} <= OPERATORS
    large = [tensor for tensor in proto.graph.initializer if np.prod(tensor.dims) > 8]
    assert large
    assert all(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in large)


@pytest.mark.parametrize("model", ["rehue"], indirect=True)
def test_two_scales_share_weights_and_match_keras(model: keras.Model) -> None:
    once, twice = (export.convert_to_onnx(model, side=128, looks=looks) for looks in (1, 2))
    found = export.measure_parity(
        twice, models.average_two_scales(model), export.load_sample_lightness(128)
    )
    assert found.mean < 0.1
    assert found.largest < 1.0
    assert len(twice.SerializeToString()) < 1.01 * len(once.SerializeToString())
    assert {node.op_type for node in twice.graph.node} <= OPERATORS
    counts = export.load_sample_lightness(128)[:, None]
    assert np.abs(run_model(twice, counts).astype(float) - run_model(once, counts)).mean() > 0.1


def test_the_exported_weights_keep_a_share_of_the_start(tmp_path: Path) -> None:
    """Even if the export replaces the file that the run started from."""
    served = tmp_path / "rehue" / "1" / "model.onnx"
    start = models.build_rehue()
    export.write_model(export.convert_to_onnx(start, side=64), served)
    experiment = Config(
        name="kept", model="rehue", serves="rehue", start=served, keep=0.25, side=64,
        stages=(Stage(steps=1, size=64, batch=1),), loss=losses.ColorLoss(), learning_rate=1e-3,
    )  # fmt: skip
    folder = tmp_path / "runs" / "kept"
    folder.mkdir(parents=True)
    trained = training_run.Run(experiment, folder)
    trained.averaged = [weight + 1 for weight in trained.averaged]
    trained.save()
    for _ in range(2):
        export.export_model(experiment, runs=tmp_path / "runs", repository=tmp_path, force=True)
        found = models.build_rehue()
        read_weights(found, served)
        for before, after in zip(start.get_weights(), found.get_weights(), strict=True):
            np.testing.assert_allclose(after - before, 0.75, atol=0.02)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_the_committed_file_fits_its_configuration(name: str, target: str) -> None:
    contract = spec.read_model_contract(MODELS / name / "configs" / f"{target}.pbtxt")
    session = onnxruntime.InferenceSession(MODELS / name / "1" / "model.onnx")
    (entry,), (result,) = session.get_inputs(), session.get_outputs()
    assert (entry.name, entry.type) == ("lightness", "tensor(uint8)")
    assert (result.name, result.type) == ("ab", "tensor(float16)")
    assert entry.shape[1:] == [1, contract.height, contract.width]
    assert result.shape[1:] == [2, contract.ab_height, contract.ab_width]
    assert contract.lightness_scale == export.LIGHTNESS_SCALE
    assert contract.ab_scale == 1.0
    assert (contract.input_type, contract.output_type) == (np.dtype("uint8"), np.dtype("float16"))


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_file_takes_any_batch_and_treats_each_alone(name: str) -> None:
    path = MODELS / name / "1" / "model.onnx"
    side = spec.read_model_contract(MODELS / name / "configs" / "cpu.pbtxt").height
    counts = export.load_sample_lightness(side)[:, None]
    both = run_model(onnx.load(path), counts)
    alone = run_model(onnx.load(path), counts[1:])
    np.testing.assert_allclose(both[1:].astype(float), alone.astype(float), atol=0.1)


def run_model(proto: onnx.ModelProto, counts: NDArray[Any]) -> NDArray[Any]:
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    return session.run(["ab"], {"lightness": counts})[0]  # type: ignore[no-any-return]


@pytest.fixture
def trained(tmp_path: Path) -> Config:
    """An experiment with a checkpoint in `tmp_path / "runs"`: untrained weights of `seed`."""
    experiment = Config(
        name="mine", model="seed", stages=(Stage(steps=9, size=64, batch=1),),
        loss=losses.MeanSquaredError(), learning_rate=1e-3, side=64,
    )  # fmt: skip
    weights = models.build_seed().get_weights()
    history = [{"step": 6.0, "loss": 0.5, "val_loss": 0.25}]
    for name in ("mine", "seed"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        checkpoint.save(
            tmp_path / "runs" / name / "checkpoint.npz",
            checkpoint.Checkpoint(6, weights, weights, [], history),
        )
    counts = '{"training": 14, "validation": 2}'
    (tmp_path / "runs" / "mine" / "photographs.json").write_text(counts)
    return experiment


def test_an_export_is_a_complete_model(trained: Config, tmp_path: Path) -> None:
    path, parity = export.export_model(trained, runs=tmp_path / "runs", repository=tmp_path)
    assert path == tmp_path / "mine" / "1" / "model.onnx", "named for its run"
    assert parity.mean < 0.1
    for target in ("cpu", "gpu"):
        contract = spec.read_model_contract(tmp_path / "mine" / "configs" / f"{target}.pbtxt")
        assert (contract.name, contract.height, contract.ab_width) == ("mine", 64, 64)
    card = (tmp_path / "mine" / "README.md").read_text()
    for fact in ("# mine", "after 6 of 9 steps", "14 for training, 2 for validation", "0.2500"):
        assert fact in card
    picture = Colorizer(tmp_path, "mine").colorize(np.full((40, 60), 50, np.float32))
    assert picture.shape == (40, 60, 3)
    (tmp_path / "mine" / "README.md").write_text("my own words")
    export.export_model(trained, runs=tmp_path / "runs", repository=tmp_path)
    assert (tmp_path / "mine" / "README.md").read_text() == "my own words"


def test_the_model_of_another_run_is_kept_without_force(trained: Config, tmp_path: Path) -> None:
    for name in ("seed", "mine"):
        (tmp_path / name / "1").mkdir(parents=True)
        shutil.copy(MODELS / "seed" / "1" / "model.onnx", tmp_path / name / "1")
    before = (tmp_path / "seed" / "1" / "model.onnx").read_bytes()
    other = trained.with_changes(serves="seed")
    options: dict[str, Any] = {"runs": tmp_path / "runs", "repository": tmp_path}
    with pytest.raises(InputError, match="holds the model of the run seed: choose another"):
        export.export_model(other, **options)
    assert (tmp_path / "seed" / "1" / "model.onnx").read_bytes() == before
    assert not (tmp_path / "seed" / "configs").exists()
    export.export_model(other, **options, force=True)
    with pytest.raises(InputError, match="holds the model of the run mine"):
        export.export_model(trained.with_changes(name="seed"), **options)
    export.export_model(trained, **options)  # a file without a record is its folder's run's
    export.export_model(other, **options)  # the same run again


def test_configurations_of_another_network_are_kept_without_force(
    trained: Config, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"runs": tmp_path / "runs", "repository": tmp_path}
    export.export_model(trained, **options)
    path = tmp_path / "mine" / "configs" / "cpu.pbtxt"
    path.write_text(path.read_text().replace("max_batch_size: 8", "max_batch_size: 4"))
    export.export_model(trained, **options)
    assert "max_batch_size: 4" in path.read_text(), "a configuration that fits is kept"
    larger = trained.with_changes(side=96)
    with pytest.raises(InputError, match=r"cpu\.pbtxt describes a network of other sizes"):
        export.export_model(larger, **options)
    export.export_model(larger, **options, force=True)
    assert spec.read_model_contract(path).height == 96


def test_without_a_checkpoint_the_export_says_so(trained: Config, tmp_path: Path) -> None:
    absent = trained.with_changes(name="absent")
    with pytest.raises(InputError, match=r"no checkpoint in .*absent: train first"):
        export.export_model(absent, runs=tmp_path / "runs", repository=tmp_path)
    other = trained.with_changes(model="rehue")
    with pytest.raises(InputError, match="is of another network than rehue"):
        export.export_model(other, runs=tmp_path / "runs", repository=tmp_path)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_the_shipped_configurations_are_what_an_export_writes(name: str, target: str) -> None:
    """Whoever changes one changes `learn/triton/` too. The comment on top may differ."""
    shipped = (MODELS / name / "configs" / f"{target}.pbtxt").read_text()
    contract = dataclasses.replace(
        spec.read_model_contract(MODELS / name / "configs" / f"{target}.pbtxt"), max_batch=1
    )
    rendered = model_folder.render_configuration(target, contract, contract.description)
    assert rendered.partition("\nname:")[2] == shipped.partition("\nname:")[2]
