"""Converts an ONNX file to the precision that its TensorRT plan is built at.

TensorRT 11 takes every tensor's type from the ONNX file (networks are strongly typed), so a
precision is a graph, written here before the build. The network between its first and its last
convolution is converted to FP16. The scaling of the lightness before it stays in FP32, and so does
what turns its output into ab in Lab units: tanh, or softmax and the mean of the classes' colours.
INT8 and FP8 are FP16 with some convolutions quantized (`quantize`). Inputs and outputs keep their
names, types and shapes.

Why not onnxconverter-common: its 1.16 writes a graph that ONNX Runtime refuses, because the Cast
from the UINT8 input keeps its target type (tried on both models), and it converts everything up to
the outputs, so that the ends would have to be listed by name for each model.
"""

from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from rehue_training.plan import quantize
from rehue_training.plan.identity import QUANTIZED, Precision
from rehue_training.plan.onnx_graph import (
    find_outputs_between_convolutions,
    read_weights,
    replace_nodes_and_weights,
)

FP16, FP32 = TensorProto.FLOAT16, TensorProto.FLOAT
SUFFIXES = {FP16: "fp16", FP32: "fp32"}
# Inputs that are FP32 whatever the data's type: Resize's roi and scales (ONNX opset 13).
FP32_INPUTS = {"Resize": (1, 2)}


def hash_converter_code() -> str:
    """Returns a short hash of the code that turns an ONNX file into a plan.

    It is a part of a plan's identity: other code makes another plan.
    """
    names = ("onnx_graph.py", "precision.py", "quantize.py", "tensorrt.py")
    sources = (Path(__file__).with_name(name).read_bytes() for name in names)
    return sha256(b"".join(sources)).hexdigest()[:8]


def convert_precision(
    model: bytes, precision: Precision, calibration: NDArray[np.generic] | None = None
) -> bytes:
    """Converts a serialized ONNX model of this project to another precision.

    Args:
        calibration: for int8 and fp8, prepared lightness of photographs: N1HW of the input's type.

    Raises:
        ValueError: it is not an ONNX model, or has no convolution.
    """
    try:
        proto = decompress_weights(onnx.load_model_from_string(model))
    except DecodeError as error:
        raise ValueError(f"the ONNX file is truncated, or not an ONNX file ({error})") from None
    if precision in QUANTIZED:
        assert calibration is not None
        quantizers = {"int8": quantize.quantize_int8, "fp8": quantize.quantize_fp8}
        proto = quantizers[precision](proto, calibration)
    if precision != "fp32":
        proto = convert_to_fp16(proto)
    return bytes(proto.SerializeToString())


def decompress_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model with FP32 weights in place of FP16 ones with a Cast after each.

    TensorRT's parser would take a Cast's output for a tensor that changes, and make a convolution
    with changing weights of it.
    """
    weights = read_weights(model)
    nodes = [node for node in model.graph.node if node.output[0] not in weights]
    used = {name for node in nodes for name in node.input} & weights.keys()
    tensors = [
        numpy_helper.from_array(_widen_to_fp32(weights[name]), name) for name in sorted(used)
    ]
    return replace_nodes_and_weights(model, nodes, tensors)


def _widen_to_fp32(weight: NDArray[Any]) -> NDArray[Any]:
    return weight.astype(np.float32) if weight.dtype == np.float16 else weight


def convert_to_fp16(model: onnx.ModelProto) -> onnx.ModelProto:
    """Returns the model with FP16 arithmetic from its first convolution to its last.

    Raises:
        ValueError: the model has no convolution.
    """
    weights = read_weights(model)
    nodes = [node for node in model.graph.node if node.output[0] not in weights]
    inner = find_outputs_between_convolutions(nodes)
    types = {entry.name: entry.type.tensor_type.elem_type for entry in model.graph.input}
    converted = _ConvertedGraph(weights, types)
    for node in nodes:
        inside = node.output[0] in inner or _dequantizes_weights(node, weights)
        converted.add_node(node, FP16 if inside else FP32)
    made = replace_nodes_and_weights(model, converted.nodes, [*converted.used.values()])
    del made.graph.value_info[:]  # inferred for the former types
    onnx.checker.check_model(made, full_check=True)
    return made


def _dequantizes_weights(node: onnx.NodeProto, weights: dict[str, Any]) -> bool:
    return node.op_type == "DequantizeLinear" and node.input[0] in weights


@dataclass
class _ConvertedGraph:
    """The converted graph, node by node."""

    weights: dict[str, Any]
    types: dict[str, int]  # of the tensors that are not weights
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    used: dict[str, onnx.TensorProto] = field(default_factory=dict)
    quantized: set[str] = field(default_factory=set)  # names of quantized tensors

    def add_node(self, node: onnx.NodeProto, wanted: int) -> None:
        """Adds a node whose floating-point tensors get the wanted type, unless it is a Cast."""
        node = onnx.NodeProto.FromString(node.SerializeToString())
        if node.op_type == "Cast":
            (wanted,) = (entry.i for entry in node.attribute if entry.name == "to")
        else:
            in_fp32 = FP32_INPUTS.get(node.op_type, ())
            for index, name in enumerate(node.input):
                kind = FP32 if index in in_fp32 else wanted
                node.input[index] = self.convert_tensor(name, kind) if name else name
        self.nodes.append(node)
        if node.op_type == "QuantizeLinear":  # into the type of its zero point
            zero = self.weights[node.input[2]]
            wanted = helper.np_dtype_to_tensor_dtype(zero.dtype)
            self.quantized.update(node.output)
        self.types.update(dict.fromkeys(node.output, wanted))

    def convert_tensor(self, name: str, wanted: int) -> str:
        """Returns the name of this tensor in the wanted type; quantized ones stay as they are.

        A weight is converted here, another tensor by a Cast.
        """
        if self.types.get(name) == wanted or name in self.quantized:
            return name
        if name in self.weights and self.weights[name].dtype not in (np.float16, np.float32):
            self.used[name] = numpy_helper.from_array(self.weights[name], name)
            return name
        converted = f"{name}/{SUFFIXES[wanted]}"
        if name in self.weights:
            value = self.weights[name].astype(helper.tensor_dtype_to_np_dtype(wanted))
            self.used[converted] = numpy_helper.from_array(np.asarray(value), converted)
        elif converted not in self.types:
            cast = helper.make_node("Cast", [name], [converted], name=converted, to=wanted)
            self.nodes.append(cast)
            self.types[converted] = wanted
        return converted
