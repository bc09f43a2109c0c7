"""What a network costs by its graph: arithmetic and memory traffic of one photograph.

Counted from the ONNX file's own shapes, for comparing with what a GPU can do at best:
a multiplication and an addition are two operations, as on data sheets.
"""

from dataclasses import dataclass
from math import prod

import onnx
from onnx import helper, shape_inference

# Read and written where an operator stands alone; a compiler joins the others to them.
JOINED = {"Add", "Cast", "Clip", "DequantizeLinear", "Div", "Mul", "QuantizeLinear", "Relu", "Tanh"}


@dataclass(frozen=True)
class Cost:
    """Of a batch: fixed part and part a photograph."""

    operations: int  # of the convolutions, a photograph
    traffic: int  # bytes of tensors read and written, a photograph
    weights: int  # bytes of weights, once a batch

    def bytes_of(self, batch: int) -> int:
        return self.weights + batch * self.traffic

    def shortest(self, batch: int, *, operations_rate: float, bytes_rate: float) -> float:
        """Seconds that no GPU of these rates (a second) can do a batch in less than."""
        return max(batch * self.operations / operations_rate, self.bytes_of(batch) / bytes_rate)


def of(model: bytes) -> Cost:
    """The cost of a serialized ONNX model of this project.

    Traffic counts every convolution's, resize's and pooling's tensors once, and none of
    the pointwise operators', which compilers join to them.
    """
    graph = shape_inference.infer_shapes(onnx.load_model_from_string(model)).graph
    weights = {one.name: one for one in graph.initializer}
    shapes = {one.name: _shape(one) for one in [*graph.input, *graph.value_info, *graph.output]} | {
        name: tuple(one.dims) for name, one in weights.items()
    }
    sizes = {one.name: _size(one) for one in [*graph.input, *graph.value_info, *graph.output]}
    # What is quantized is read as it lies in memory.
    quantized = {
        one.output[0]: one.input[0] for one in graph.node if one.op_type == "DequantizeLinear"
    }
    operations = sum(_operations(node, shapes) for node in graph.node)
    moved = [
        name
        for node in graph.node
        if node.op_type not in JOINED
        for name in [*(quantized.get(one, one) for one in node.input), *node.output]
        if name in sizes and name not in weights
    ]
    ends = [one.name for one in [*graph.input, *graph.output]]
    return Cost(
        operations=operations,
        traffic=sum(prod(shapes[name]) * sizes[name] for name in [*moved, *ends]),
        weights=sum(prod(one.dims) * _width(one.data_type) for one in weights.values()),
    )


def _operations(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    if node.op_type != "Conv":
        return 0
    kernel = shapes[node.input[1]]  # out, in to a group, height, width
    return 2 * prod(shapes[node.output[0]]) * prod(kernel[1:])


def _shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """The shape for one photograph: the batch has a name and no value."""
    return tuple(one.dim_value or 1 for one in value.type.tensor_type.shape.dim)


def _size(value: onnx.ValueInfoProto) -> int:
    return _width(value.type.tensor_type.elem_type)


def _width(kind: int) -> int:
    return int(helper.tensor_dtype_to_np_dtype(kind).itemsize)
