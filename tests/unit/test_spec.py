"""The contract of a model, read from its Triton configuration."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import text_format
from paths import MODELS
from tritonclient.grpc import model_config_pb2

from rehue_core import spec


def write_config(name: str = "rehue") -> model_config_pb2.ModelConfig:
    text = (MODELS / name / "configs" / "cpu.pbtxt").read_text()
    return text_format.Parse(text, model_config_pb2.ModelConfig())


def test_the_contract_is_what_the_file_says() -> None:
    found = spec.read_model_contract(MODELS / "rehue" / "configs" / "cpu.pbtxt")
    assert (found.name, found.max_batch) == ("rehue", 8)
    assert (found.height, found.width, found.ab_height, found.ab_width) == (256, 256, 128, 128)
    assert (found.input_type, found.output_type) == (np.dtype("uint8"), np.dtype("float16"))
    assert (found.lightness_scale, found.ab_scale) == (100 / 255, 1.0)


def test_a_model_that_batches_nothing_takes_one_at_a_time() -> None:
    whole = write_config()
    whole.max_batch_size = 0
    assert spec.parse_model_contract(whole).max_batch == 1


@pytest.mark.parametrize(
    ("field", "name"),
    [("input", "lightness"), ("output", "ab")],
)
def test_a_model_without_a_tensor_is_not_ours(field: str, name: str) -> None:
    other = write_config()
    getattr(other, field)[0].name = "pixels"
    with pytest.raises(ValueError, match=f"exactly one tensor {name}"):
        spec.parse_model_contract(other)


@pytest.mark.parametrize("name", ["lightness_scale", "ab_scale"])
def test_a_model_without_a_scale_is_not_ours(name: str) -> None:
    other = write_config()
    del other.parameters[name]
    for _ in range(2):  # looking must not add what is missing
        with pytest.raises(ValueError, match=f"the parameter {name} is missing"):
            spec.parse_model_contract(other)


@pytest.mark.parametrize("kind", ["TYPE_STRING", "TYPE_INVALID", "TYPE_BOOL"])
def test_a_tensor_must_hold_numbers(kind: str) -> None:
    other = write_config()
    other.input[0].data_type = model_config_pb2.DataType.Value(kind)
    with pytest.raises(ValueError, match="not numeric"):
        spec.parse_model_contract(other)


def test_invalid_configuration_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "config.pbtxt"
    path.write_text("no configuration")
    with pytest.raises(ValueError, match=r"config\.pbtxt is not a model configuration"):
        spec.read_model_contract(path)


def test_reading_a_contract_needs_neither_ray_nor_tensorflow() -> None:
    code = (
        "import sys, rehue_core.spec, rehue_training.plan.plans\n"
        "sys.exit(' '.join({'ray', 'tensorflow', 'keras'} & set(sys.modules)) or None)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
