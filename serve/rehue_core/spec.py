"""Read a model's contract from its Triton configuration: sizes, dtypes and scales.

Only this module knows the names of the tensors and parameters. It does not import Ray,
so that training and plan building read a model exactly as serving does.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2
from tritonclient.utils import triton_to_np_dtype

from rehue_core.colorize import ModelSpec

INPUT, OUTPUT = "lightness", "ab"
LIGHTNESS_SCALE, AB_SCALE = "lightness_scale", "ab_scale"  # parameters
DESCRIPTION = "description"  # optional


def read_model_contract(path: Path) -> ModelSpec:
    """Read the contract from a model's configuration file (`*.pbtxt`).

    Raises:
        ValueError: the file is not a ModelConfig in text format, or see
            `parse_model_contract`.
    """
    try:
        config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise ValueError(f"{path} is not a model configuration: {error}") from None
    return parse_model_contract(config)


def parse_model_contract(config: Any) -> ModelSpec:
    """Extract the contract from a ModelConfig.

    Raises:
        ValueError: the model does not keep Rehue's contract; the message says what is
            missing.
    """
    input, output = _find_tensor(config.input, INPUT), _find_tensor(config.output, OUTPUT)
    (height, width), (ab_height, ab_width) = input.dims[-2:], output.dims[-2:]
    return ModelSpec(
        name=config.name,
        height=height,
        width=width,
        ab_height=ab_height,
        ab_width=ab_width,
        input_type=_get_dtype(input),
        output_type=_get_dtype(output),
        lightness_scale=_get_scale(config, LIGHTNESS_SCALE),
        ab_scale=_get_scale(config, AB_SCALE),
        max_batch=max(1, config.max_batch_size),
        description=_get_parameter(config, DESCRIPTION) or "",
    )


def _find_tensor(tensors: Iterable[Any], name: str) -> Any:
    matches = [tensor for tensor in tensors if tensor.name == name]
    if len(matches) != 1 or len(matches[0].dims) < 2:
        raise ValueError(f"there must be exactly one tensor {name}, of two or more dimensions")
    return matches[0]


def _get_dtype(tensor: Any) -> np.dtype[Any]:
    name = model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_")
    dtype = np.dtype(triton_to_np_dtype(name) or object)
    if dtype.kind not in "uif":
        raise ValueError(f"the tensor {tensor.name} has the type {name}, which is not numeric")
    return dtype


def _get_scale(config: Any, name: str) -> float:
    value = _get_parameter(config, name)
    if value is None:
        raise ValueError(f"the parameter {name} is missing")
    return float(value)


def _get_parameter(config: Any, name: str) -> str | None:
    # Indexing a protobuf map adds the missing entry to the configuration.
    return str(config.parameters[name].string_value) if name in config.parameters else None
