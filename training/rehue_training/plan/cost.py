"""What a network costs by its graph: arithmetic and memory traffic for each photograph.

Counted from the ONNX file's own shapes, to compare with what a GPU can do at best. A multiplication
and an addition are two operations, as on data sheets.
"""

from dataclasses import dataclass
from math import prod

import onnx
from onnx import helper, shape_inference

# Compilers fuse these into the operators around them: they read and write no memory of their own.
FUSED = {"Add", "Cast", "Clip", "DequantizeLinear", "Div", "Mul", "QuantizeLinear", "Relu", "Tanh"}


@dataclass(frozen=True)
class Cost:
    """The cost of a batch: a fixed part, and a part for each photograph."""

    operations: int  # of the convolutions, for each photograph
    traffic: int  # bytes of tensors read and written, for each photograph
    weights: int  # bytes of weights, once a batch

    def count_bytes(self, batch: int) -> int:
        """Returns the bytes that a batch reads and writes."""
        return self.weights + batch * self.traffic

    def compute_bound(self, batch: int, *, operations_rate: float, bytes_rate: float) -> float:
        """Returns the least seconds that a GPU of these rates (per second) needs for a batch."""
        return max(batch * self.operations / operations_rate, self.count_bytes(batch) / bytes_rate)


def estimate_cost(model: bytes) -> Cost:
    """Estimates the cost of a serialized ONNX model of this project.

    Traffic counts the tensors of every convolution, resize and pooling once, and none of the
    pointwise operators, which compilers fuse into them.
    """
    graph = shape_inference.infer_shapes(onnx.load_model_from_string(model)).graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    tensors = [*graph.input, *graph.value_info, *graph.output]
    sizes = {tensor.name: _get_item_size(tensor.type.tensor_type.elem_type) for tensor in tensors}
    shapes = {tensor.name: _read_shape(tensor) for tensor in tensors}
    shapes |= {name: tuple(tensor.dims) for name, tensor in weights.items()}
    # A quantized tensor is read as it lies in memory.
    quantized = {
        node.output[0]: node.input[0] for node in graph.node if node.op_type == "DequantizeLinear"
    }
    moved = [
        name
        for node in graph.node
        if node.op_type not in FUSED
        for name in [*(quantized.get(source, source) for source in node.input), *node.output]
        if name in sizes and name not in weights
    ]
    ends = [entry.name for entry in [*graph.input, *graph.output]]
    return Cost(
        operations=sum(_count_operations(node, shapes) for node in graph.node),
        traffic=sum(prod(shapes[name]) * sizes[name] for name in [*moved, *ends]),
        weights=sum(
            prod(tensor.dims) * _get_item_size(tensor.data_type) for tensor in weights.values()
        ),
    )


def _count_operations(node: onnx.NodeProto, shapes: dict[str, tuple[int, ...]]) -> int:
    if node.op_type != "Conv":
        return 0
    kernel = shapes[node.input[1]]  # outputs, inputs of a group, height, width
    return 2 * prod(shapes[node.output[0]]) * prod(kernel[1:])


def _read_shape(value: onnx.ValueInfoProto) -> tuple[int, ...]:
    """Returns the shape for one photograph: the batch has a name and no value."""
    return tuple(dim.dim_value or 1 for dim in value.type.tensor_type.shape.dim)


def _get_item_size(kind: int) -> int:
    return int(helper.tensor_dtype_to_np_dtype(kind).itemsize)
