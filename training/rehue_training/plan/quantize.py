"""INT8 and FP8 for a plan: Q/DQ nodes around the convolutions where the arithmetic is.

TensorRT takes explicit quantization from the graph: symmetric, weights by output channel,
activations by tensor, scaled to the range seen on real photographs. Quantized are the dense
convolutions over more than one pixel, but for the first and the last: they are most of the
arithmetic. Depthwise ones carry little of it and lose the colours (docs/plans.md).
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper, version_converter
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from rehue_training.plan import precision

Counts = NDArray[np.generic]

FP8 = ml_dtypes.float8_e4m3fn
INT8, LARGEST = 127.0, 448.0  # the largest numbers of both
OPSET = 19  # the first whose Q/DQ nodes take FP16
BATCH = 4  # photographs of one calibration run


def int8(model: onnx.ModelProto, counts: Counts) -> onnx.ModelProto:
    """A model of FP32 weights with Q/DQ nodes, calibrated on prepared lightness.

    Args:
        counts: N1HW of the model's input type.

    Raises:
        ValueError: the model has no convolution to quantize.
    """
    chosen = convolutions(model)
    if not chosen:
        raise ValueError("the ONNX model has no dense convolution between its first and its last")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        quantize_static(
            version_converter.convert_version(model, OPSET),
            path,
            _Photographs(model.graph.input[0].name, counts),
            quant_format=QuantFormat.QDQ,
            op_types_to_quantize=["Conv"],
            nodes_to_quantize=chosen,
            per_channel=True,
            activation_type=QuantType.QInt8,
            weight_type=QuantType.QInt8,
            extra_options={
                "ActivationSymmetric": True,
                "WeightSymmetric": True,
                "QuantizeBias": False,
                # What follows a convolution joins it, and quantizes for the next one itself.
                "OpTypesToExcludeOutputQuantization": ["Conv"],
            },
        )
        return onnx.load(path)


def fp8(model: onnx.ModelProto, counts: Counts) -> onnx.ModelProto:
    """As `int8`, with the same ranges in FP8 (E4M3), whose largest number is 448."""
    made = int8(model, counts)
    held = {one.name: one for one in made.graph.initializer}
    changed: set[str] = set()
    for node in made.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        given, scale, zero = node.input
        if given in held:
            kernel = numpy_helper.to_array(held[given]).astype(np.float32) * (LARGEST / INT8)
            _set(held[given], kernel.astype(FP8))
        if scale not in changed:  # both nodes of a pair name the same
            changed.add(scale)
            finer = numpy_helper.to_array(held[scale]) * np.float32(INT8 / LARGEST)
            _set(held[scale], finer)
            _set(held[zero], np.zeros(held[zero].dims, FP8))
    return made


def _set(tensor: onnx.TensorProto, value: Any) -> None:
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(value), tensor.name))


def convolutions(model: onnx.ModelProto) -> list[str]:
    """The names of those that are quantized."""
    every = precision.convolutions(list(model.graph.node))
    ends = {every[0].input[1], every[-1].input[1]} if every else set()  # of every look
    return [node.name for node in every if node.input[1] not in ends and _dense(node)]


def _dense(node: onnx.NodeProto) -> bool:
    values = {one.name: onnx.helper.get_attribute_value(one) for one in node.attribute}
    return bool(values.get("group", 1) == 1 and max(values["kernel_shape"]) > 1)


class _Photographs(CalibrationDataReader):  # type: ignore[misc]
    """The calibration's photographs, some a run."""

    def __init__(self, name: str, counts: Counts) -> None:
        self._runs: Iterator[Counts] = (
            counts[first : first + BATCH] for first in range(0, len(counts), BATCH)
        )
        self._name = name

    def get_next(self) -> dict[str, Counts] | None:
        run = next(self._runs, None)
        return None if run is None else {self._name: run}
