"""Quantizes an ONNX model to INT8 or FP8 with Q/DQ nodes around its large convolutions.

TensorRT takes explicit quantization from the graph: symmetric, weights by output channel,
activations by tensor, scaled to the range seen on real photographs. Quantized are the dense
convolutions with kernels larger than one pixel, except the first and the last of every network in
the graph: they are most of the arithmetic. Depthwise ones are little of it, and quantizing them
loses the colours (docs/plans.md).
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

from rehue_training.plan.onnx_graph import find_inner_convolutions

Counts = NDArray[np.generic]

FP8 = ml_dtypes.float8_e4m3fn
INT8_LARGEST, FP8_LARGEST = 127.0, 448.0
OPSET = 19  # the first whose Q/DQ nodes take FP16
CALIBRATION_BATCH = 4  # photographs of one calibration run


def quantize_int8(model: onnx.ModelProto, counts: Counts) -> onnx.ModelProto:
    """Returns a model of FP32 weights with Q/DQ nodes, calibrated on prepared lightness.

    Args:
        counts: N1HW of the model's input type.

    Raises:
        ValueError: the model has no convolution to quantize.
    """
    chosen = choose_convolutions(model)
    if not chosen:
        raise ValueError("the ONNX model has no dense convolution between its first and its last")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.onnx"
        quantize_static(
            version_converter.convert_version(model, OPSET),
            path,
            _CalibrationPhotographs(model.graph.input[0].name, counts),
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
                # TensorRT fuses what follows a convolution, which quantizes for the next one.
                "OpTypesToExcludeOutputQuantization": ["Conv"],
            },
        )
        return onnx.load(path)


def quantize_fp8(model: onnx.ModelProto, counts: Counts) -> onnx.ModelProto:
    """Returns what `quantize_int8` does, with the same ranges in FP8 (E4M3, up to 448)."""
    made = quantize_int8(model, counts)
    tensors = {tensor.name: tensor for tensor in made.graph.initializer}
    converted: set[str] = set()
    for node in made.graph.node:
        if node.op_type not in ("QuantizeLinear", "DequantizeLinear"):
            continue
        source, scale, zero = node.input
        if source in tensors:
            kernel = numpy_helper.to_array(tensors[source]).astype(np.float32)
            _replace_values(tensors[source], (kernel * (FP8_LARGEST / INT8_LARGEST)).astype(FP8))
        if scale not in converted:  # both nodes of a pair share it
            converted.add(scale)
            finer = numpy_helper.to_array(tensors[scale]) * np.float32(INT8_LARGEST / FP8_LARGEST)
            _replace_values(tensors[scale], finer)
            _replace_values(tensors[zero], np.zeros(tensors[zero].dims, FP8))
    return made


def _replace_values(tensor: onnx.TensorProto, values: Any) -> None:
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(values), tensor.name))


def choose_convolutions(model: onnx.ModelProto) -> list[str]:
    """Returns the names of the convolutions to quantize."""
    inner = find_inner_convolutions(list(model.graph.node))
    return [node.name for node in inner if _is_dense(node)]


def _is_dense(node: onnx.NodeProto) -> bool:
    values = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
    return bool(values.get("group", 1) == 1 and max(values["kernel_shape"]) > 1)


class _CalibrationPhotographs(CalibrationDataReader):  # type: ignore[misc]
    """The calibration photographs as ONNX Runtime reads them, a few at a time."""

    def __init__(self, name: str, counts: Counts) -> None:
        self._name = name
        self._batches: Iterator[Counts] = (
            counts[first : first + CALIBRATION_BATCH]
            for first in range(0, len(counts), CALIBRATION_BATCH)
        )

    def get_next(self) -> dict[str, Counts] | None:
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch}
