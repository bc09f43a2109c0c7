"""The ONNX file that a TensorRT plan is built from, at the precision asked for.

TensorRT 11 takes every tensor's type from the ONNX (networks are strongly typed),
so a precision is a graph, written here ahead of the build. The network between its
first and its last convolution is turned into FP16; the scaling of the lightness
before it, and what makes ab in Lab units of its output (tanh; or softmax and the mean of
the classes' colours), stay in FP32. INT8 is the same with some convolutions quantized
(`quantize`), and so is FP8. Inputs and outputs keep their names, types and shapes.
"""

from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

Precision = Literal["fp16", "fp32", "int8", "fp8"]
QUANTIZED: tuple[Precision, ...] = ("int8", "fp8")
PRECISIONS: tuple[Precision, ...] = get_args(Precision)

HALF, SINGLE = TensorProto.FLOAT16, TensorProto.FLOAT
SUFFIX = {HALF: "fp16", SINGLE: "fp32"}
# Inputs that are FP32 whatever the data's type: Resize's roi and scales (ONNX opset 13).
SINGLE_INPUTS = {"Resize": (1, 2)}


def code() -> str:
    """A short name for the code that makes plans of graphs: other code, another plan."""
    names = ("precision.py", "quantize.py", "tensorrt.py")
    sources = map(Path(__file__).with_name, names)
    return sha256(b"".join(one.read_bytes() for one in sources)).hexdigest()[:8]


def at(model: bytes, precision: Precision, calibration: NDArray[np.generic] | None = None) -> bytes:
    """A serialized ONNX model of this project, at another precision.

    Args:
        calibration: for int8 and fp8, prepared lightness of photographs, N1HW of the input's type.

    Raises:
        ValueError: it is not an ONNX model, or has no convolution.
    """
    try:
        proto = single(onnx.load_model_from_string(model))
    except DecodeError as error:
        raise ValueError(f"the ONNX file is cut short or is none ({error})") from None
    if precision in QUANTIZED:
        from rehue_training.plan import quantize

        assert calibration is not None
        proto = {"int8": quantize.int8, "fp8": quantize.fp8}[precision](proto, calibration)
    return bytes((proto if precision == "fp32" else half(proto)).SerializeToString())


def single(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with its weights in FP32, in place of FP16 ones behind a Cast each.

    A Cast is a tensor to TensorRT's parser, which makes a convolution of changing weights of it.
    """
    weights = _weights(model)
    plain = onnx.ModelProto.FromString(model.SerializeToString())
    nodes = [node for node in plain.graph.node if node.output[0] not in weights]
    used = {name for node in nodes for name in node.input} & weights.keys()
    tensors = [numpy_helper.from_array(_single(weights[name]), name) for name in sorted(used)]
    for kept, made in ((plain.graph.node, nodes), (plain.graph.initializer, tensors)):
        del kept[:]
        kept.extend(made)
    return plain


def _single(weight: NDArray[Any]) -> NDArray[Any]:
    return weight.astype(np.float32) if weight.dtype == np.float16 else weight


def half(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with FP16 arithmetic from its first convolution to its last.

    Raises:
        ValueError: the model has no convolution.
    """
    weights = _weights(model)
    nodes = [node for node in model.graph.node if node.output[0] not in weights]
    inner = _between_convolutions(nodes)
    graph = _Graph(weights, {one.name: one.type.tensor_type.elem_type for one in model.graph.input})
    for node in nodes:
        inside = node.output[0] in inner or _dequantizes(node, weights)
        graph.add(node, HALF if inside else SINGLE)
    halved = onnx.ModelProto.FromString(model.SerializeToString())
    for kept, made in ((halved.graph.node, graph.nodes), (halved.graph.initializer, graph.used)):
        del kept[:]
        kept.extend(made.values() if isinstance(made, dict) else made)
    del halved.graph.value_info[:]  # what was inferred of the other types
    onnx.checker.check_model(halved, full_check=True)
    return halved


def _weights(model: onnx.ModelProto) -> dict[str, Any]:
    """The weights by the name that the arithmetic knows them by: behind their Cast."""
    held = {one.name: numpy_helper.to_array(one) for one in model.graph.initializer}
    casts = [node for node in model.graph.node if node.op_type == "Cast" and node.input[0] in held]
    return held | {node.output[0]: held[node.input[0]] for node in casts}


def convolutions(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Those of the network: not the one that makes the classes' colours of a softmax."""
    decoded = _from(nodes, {"Softmax"})
    return [node for node in nodes if node.op_type == "Conv" and node.output[0] not in decoded]


def _between_convolutions(nodes: list[onnx.NodeProto]) -> set[str]:
    """The outputs that have a convolution in or before them, and in or behind them."""
    inside = {node.output[0] for node in convolutions(nodes)}
    if not inside:
        raise ValueError("the ONNX model has no convolution")
    before: set[str] = set()
    for node in reversed(nodes):
        if node.output[0] in inside or not before.isdisjoint(node.output):
            before.update([*node.input, *(node.output if node.output[0] in inside else ())])
    return _from(nodes, {"Conv"}) & before


def _from(nodes: list[onnx.NodeProto], operators: set[str]) -> set[str]:
    """The outputs of these operators, and all that comes of them."""
    found: set[str] = set()
    for node in nodes:
        if node.op_type in operators or not found.isdisjoint(node.input):
            found.update(node.output)
    return found


def _dequantizes(node: onnx.NodeProto, weights: dict[str, Any]) -> bool:
    """Whether a node gives a quantized convolution its weights."""
    return node.op_type == "DequantizeLinear" and node.input[0] in weights


@dataclass
class _Graph:
    """The new graph as it gathers."""

    weights: dict[str, Any]
    types: dict[str, int]  # of the tensors that are not weights
    nodes: list[onnx.NodeProto] = field(default_factory=list)
    used: dict[str, onnx.TensorProto] = field(default_factory=dict)
    quantized: set[str] = field(default_factory=set)  # quantized tensors

    def add(self, node: onnx.NodeProto, wanted: int) -> None:
        """Adds a node; but for a Cast's, its floating-point tensors get the wanted type."""
        node = onnx.NodeProto.FromString(node.SerializeToString())
        if node.op_type == "Cast":
            (wanted,) = (one.i for one in node.attribute if one.name == "to")
        else:
            single = SINGLE_INPUTS.get(node.op_type, ())
            for index, name in enumerate(node.input):
                kind = SINGLE if index in single else wanted
                node.input[index] = self.typed(name, kind) if name else name
        self.nodes.append(node)
        if node.op_type == "QuantizeLinear":  # into the type of its zero point
            zero = self.weights[node.input[2]]
            wanted = helper.np_dtype_to_tensor_dtype(zero.dtype)
            self.quantized.update(node.output)
        self.types.update(dict.fromkeys(node.output, wanted))

    def typed(self, name: str, wanted: int) -> str:
        """The name of this tensor in the wanted type; a weight is converted, not cast.

        What is quantized stays as it is.
        """
        if self.types.get(name) == wanted or name in self.quantized:
            return name
        if name in self.weights and self.weights[name].dtype not in (np.float16, np.float32):
            self.used[name] = numpy_helper.from_array(self.weights[name], name)
            return name
        there = f"{name}/{SUFFIX[wanted]}"
        if name in self.weights:
            value = self.weights[name].astype(helper.tensor_dtype_to_np_dtype(wanted))
            self.used[there] = numpy_helper.from_array(np.asarray(value), there)
        elif there not in self.types:
            self.nodes.append(helper.make_node("Cast", [name], [there], name=there, to=wanted))
            self.types[there] = wanted
        return there
