"""The ONNX files: parity with Keras, plain operators, the contract of the configs."""

from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import pytest

from rehue_serve import spec
from rehue_training import export, models

REPOSITORY = Path(__file__).parents[1] / "model_repository"
OPERATORS = {
    "Add", "Cast", "Clip", "Conv", "GlobalAveragePool", "Mul", "Relu", "Resize", "Tanh",
}  # fmt: skip


@pytest.fixture(scope="module", params=["seed", "rehue"])
def model(request: pytest.FixtureRequest) -> keras.Model:
    """A network with noise for the weights that start at nought, so that all of it counts."""
    network = models.MODELS[request.param]()
    rng = np.random.default_rng(0)
    last = [one for one in network.layers if isinstance(one, keras.layers.Conv2D)][-1]
    kernel, bias = last.get_weights()
    last.set_weights([rng.normal(0, 0.01, kernel.shape), rng.normal(0, 0.1, bias.shape)])
    return network


def test_the_file_computes_what_keras_does(model: keras.Model) -> None:
    proto = export.to_onnx(model, side=96)
    found = export.parity(proto, model, export.sample(96))
    # Weights rounded to FP16, and so is the answer: a tenth of a Lab unit.
    assert found.mean < 0.1
    assert found.largest < 1.0


def test_with_weights_that_fp16_holds_only_the_answers_rounding_is_left(
    model: keras.Model,
) -> None:
    halves = [weight.astype(np.float16).astype(np.float32) for weight in model.get_weights()]
    model.set_weights(halves)
    found = export.parity(export.to_onnx(model, side=96), model, export.sample(96))
    assert found.largest < 0.05


def test_the_gain_scales_chroma(model: keras.Model) -> None:
    counts = export.sample(64)[:, None]
    plain, strong = (
        run(export.to_onnx(model, side=64, gain=gain), counts).astype(np.float32)
        for gain in (1.0, 1.5)
    )
    np.testing.assert_allclose(strong, plain * 1.5, rtol=2e-3, atol=1e-3)


def test_operators_are_plain_and_weights_fp16(model: keras.Model) -> None:
    proto = export.to_onnx(model, side=64)
    assert {node.op_type for node in proto.graph.node} <= OPERATORS
    large = [one for one in proto.graph.initializer if np.prod(one.dims) > 8]
    assert large
    assert all(one.data_type == onnx.TensorProto.FLOAT16 for one in large)


@pytest.mark.parametrize("name", ["seed", "rehue"])
@pytest.mark.parametrize("target", ["cpu", "gpu"])
def test_the_committed_file_fits_its_configuration(name: str, target: str) -> None:
    contract = spec.read(REPOSITORY / name / "configs" / f"{target}.pbtxt")
    session = onnxruntime.InferenceSession(REPOSITORY / name / "1" / "model.onnx")
    (entry,), (result,) = session.get_inputs(), session.get_outputs()
    assert (entry.name, entry.type) == ("lightness", "tensor(uint8)")
    assert (result.name, result.type) == ("ab", "tensor(float16)")
    assert entry.shape[1:] == [1, contract.height, contract.width]
    assert result.shape[1:] == [2, contract.ab_height, contract.ab_width]
    assert contract.lightness_scale == export.LIGHTNESS_SCALE
    assert contract.ab_scale == 1.0
    assert (contract.input_type, contract.output_type) == (np.uint8, np.float16)


@pytest.mark.parametrize("name", ["seed", "rehue"])
def test_the_committed_file_takes_any_batch_and_answers_each_alone(name: str) -> None:
    path = REPOSITORY / name / "1" / "model.onnx"
    side = spec.read(REPOSITORY / name / "configs" / "cpu.pbtxt").height
    counts = export.sample(side)[:, None]
    both = run(onnx.load(path), counts)
    alone = run(onnx.load(path), counts[1:])
    np.testing.assert_allclose(both[1:].astype(float), alone.astype(float), atol=0.1)


def run(proto: onnx.ModelProto, counts: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(proto.SerializeToString())
    return session.run(["ab"], {"lightness": counts})[0]
