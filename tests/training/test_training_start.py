"""The network and the optimizer at the start of a run, and the learning rate's schedule."""

import keras
import numpy as np
import onnx
import pytest
from paths import ROOT
from tiny_training import CONFIGS, create_tiny_config, read_rate_shares

from rehue_training.learn import config, export, run
from rehue_training.learn.config import Stage


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
    shares = read_rate_shares(model)
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
