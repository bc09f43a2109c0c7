"""Reads this project's ONNX graphs: weights, convolutions, and what follows what."""

from typing import Any

import onnx
from onnx import numpy_helper


def read_weights(model: onnx.ModelProto) -> dict[str, Any]:
    """Returns the constant tensors by name; a Cast's constant output is its input's values.

    The files store FP16 weights, each with a Cast to FP32 after it.
    """
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    casts = [
        node for node in model.graph.node if node.op_type == "Cast" and node.input[0] in weights
    ]
    return weights | {node.output[0]: weights[node.input[0]] for node in casts}


def find_convolutions(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Returns the network's convolutions.

    The one that turns a softmax over colour classes into ab is not among them.
    """
    decoded = find_outputs_after(nodes, {"Softmax"})
    return [node for node in nodes if node.op_type == "Conv" and node.output[0] not in decoded]


def find_inner_convolutions(nodes: list[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Returns the convolutions with another before and after them, in any of the graph's networks.

    A graph that averages several networks has several first and several last convolutions.
    """
    convolved = find_outputs_after(nodes, {"Conv"})
    every = {node.output[0]: node for node in find_convolutions(nodes)}
    needed: set[str] = set()  # by a convolution
    for node in reversed(nodes):
        if node.output[0] in every or not needed.isdisjoint(node.output):
            needed.update(node.input)
    return [node for name, node in every.items() if node.input[0] in convolved and name in needed]


def find_outputs_after(nodes: list[onnx.NodeProto], operators: set[str]) -> set[str]:
    """Returns the outputs of these operators and of all nodes that depend on them."""
    found: set[str] = set()
    for node in nodes:
        if node.op_type in operators or not found.isdisjoint(node.input):
            found.update(node.output)
    return found


def find_outputs_between_convolutions(nodes: list[onnx.NodeProto]) -> set[str]:
    """Returns the outputs from the first convolution to the last.

    Raises:
        ValueError: the graph has no convolution.
    """
    convolved = {node.output[0] for node in find_convolutions(nodes)}
    if not convolved:
        raise ValueError("the ONNX model has no convolution")
    needed: set[str] = set()  # by a convolution, or its own output
    for node in reversed(nodes):
        if node.output[0] in convolved:
            needed.update([*node.input, *node.output])
        elif not needed.isdisjoint(node.output):
            needed.update(node.input)
    return find_outputs_after(nodes, {"Conv"}) & needed


def replace_nodes_and_weights(
    model: onnx.ModelProto, nodes: list[onnx.NodeProto], weights: list[onnx.TensorProto]
) -> onnx.ModelProto:
    """Returns a copy of the model with these nodes and constant tensors in place of its own."""
    changed = onnx.ModelProto.FromString(model.SerializeToString())
    for field, content in ((changed.graph.node, nodes), (changed.graph.initializer, weights)):
        del field[:]
        field.extend(content)
    return changed
