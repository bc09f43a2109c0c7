"""The ONNX files: parity with Keras, common operators, the contract of the configurations."""

from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import pytest

from rehue_core import spec
from rehue_training.learn import export, losses
from rehue_training.learn import run as training_run
from rehue_training.learn.config import Config, Stage
from rehue_training.network import models
from rehue_training.network.curve import Curve
from rehue_training.network.graph import read_weights

REPOSITORY = Path(__file__).parents[2] / "model_repository"
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
        run(export.convert_to_onnx(model, side=64, curve=Curve(gain)), counts).astype(np.float32)
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
    plain = run(export.convert_to_onnx(model, side=96), counts).astype(np.float32)
    expected = np.moveaxis(curve(np.moveaxis(plain, 1, -1)), -1, 1)
    np.testing.assert_allclose(run(proto, counts), expected, rtol=5e-3, atol=5e-3)


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
    assert np.abs(run(twice, counts).astype(float) - run(once, counts)).mean() > 0.1


def test_the_exported_weights_keep_a_share_of_the_start(tmp_path: Path) -> None:
    """Even if the export replaces the file that the run started from."""
    served = tmp_path / "rehue" / "1" / "model.onnx"
    start = models.build_rehue()
    export.write_model(export.convert_to_onnx(start, side=64), served)
    experiment = Config(
        name="kept", model="rehue", start=served, keep=0.25, side=64,
        stages=(Stage(steps=1, size=64, batch=1),), loss=losses.ColorLoss(), learning_rate=1e-3,
    )  # fmt: skip
    folder = tmp_path / "runs" / "kept"
    folder.mkdir(parents=True)
    trained = training_run.Run(experiment, folder)
    trained.averaged = [weight + 1 for weight in trained.averaged]
    trained.save()
    for _ in range(2):
        export.export_model(experiment, runs=tmp_path / "runs", repository=tmp_path)
        found = models.build_rehue()
        read_weights(found, served)
        for before, after in zip(start.get_weights(), found.get_weights(), strict=True):
            np.testing.assert_allclose(after - before, 0.75, atol=0.02)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_the_committed_file_fits_its_configuration(name: str, target: str) -> None:
    contract = spec.read_model_contract(REPOSITORY / name / "configs" / f"{target}.pbtxt")
    session = onnxruntime.InferenceSession(REPOSITORY / name / "1" / "model.onnx")
    (entry,), (result,) = session.get_inputs(), session.get_outputs()
    assert (entry.name, entry.type) == ("lightness", "tensor(uint8)")
    assert (result.name, result.type) == ("ab", "tensor(float16)")
    assert entry.shape[1:] == [1, contract.height, contract.width]
    assert result.shape[1:] == [2, contract.ab_height, contract.ab_width]
    assert contract.lightness_scale == export.LIGHTNESS_SCALE
    assert contract.ab_scale == 1.0
    assert (contract.input_type, contract.output_type) == (np.uint8, np.float16)


@pytest.mark.parametrize("name", NAMES)
def test_the_committed_file_takes_any_batch_and_treats_each_alone(name: str) -> None:
    path = REPOSITORY / name / "1" / "model.onnx"
    side = spec.read_model_contract(REPOSITORY / name / "configs" / "cpu.pbtxt").height
    counts = export.load_sample_lightness(side)[:, None]
    both = run(onnx.load(path), counts)
    alone = run(onnx.load(path), counts[1:])
    np.testing.assert_allclose(both[1:].astype(float), alone.astype(float), atol=0.1)


def run(proto: onnx.ModelProto, counts: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    return session.run(["ab"], {"lightness": counts})[0]
