"""A network's contract as its Triton configuration states it: sizes, types and scales.

The one place that knows the tensors' and the parameters' names. It needs no Ray, so that
training and plan building read a model as serving does.
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


def read(path: Path) -> ModelSpec:
    """The contract in a model's configuration file (`*.pbtxt`).

    Raises:
        ValueError: see `of`; and where the file is not a ModelConfig's text.
    """
    try:
        config = text_format.Parse(path.read_text(), model_config_pb2.ModelConfig())
    except text_format.ParseError as error:
        raise ValueError(f"{path} is no model configuration: {error}") from None
    return of(config)


def of(config: Any) -> ModelSpec:
    """The contract in a ModelConfig.

    Raises:
        ValueError: the model is not one of ours; the message says what is missing.
    """
    input, output = _tensor(config.input, INPUT), _tensor(config.output, OUTPUT)
    (height, width), (ab_height, ab_width) = input.dims[-2:], output.dims[-2:]
    return ModelSpec(
        name=config.name,
        height=height,
        width=width,
        ab_height=ab_height,
        ab_width=ab_width,
        input_type=_dtype(input),
        output_type=_dtype(output),
        lightness_scale=_scale(config, LIGHTNESS_SCALE),
        ab_scale=_scale(config, AB_SCALE),
        max_batch=max(1, config.max_batch_size),
    )


def _tensor(tensors: Iterable[Any], name: str) -> Any:
    found = [one for one in tensors if one.name == name]
    if len(found) != 1 or len(found[0].dims) < 2:
        raise ValueError(f"there is no one tensor {name} of two dimensions or more")
    return found[0]


def _dtype(tensor: Any) -> np.dtype[Any]:
    name = model_config_pb2.DataType.Name(tensor.data_type).removeprefix("TYPE_")
    dtype = np.dtype(triton_to_np_dtype(name) or object)
    if dtype.kind not in "uif":
        raise ValueError(f"the tensor {tensor.name} is of type {name}, which holds no numbers")
    return dtype


def _scale(config: Any, name: str) -> float:
    # A look-up alone would add the missing entry to the configuration.
    if name not in config.parameters:
        raise ValueError(f"there is no parameter {name}")
    return float(config.parameters[name].string_value)
