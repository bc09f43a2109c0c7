"""Conversion of a Keras network to an ONNX graph, layer by layer.

The graph is written with `onnx.helper` from the layers rather than traced: this
works with any Keras backend, keeps the layers' names, is NCHW throughout, and an
UpSampling2D becomes one Resize. Weights are stored as FP16 and cast to FP32 in
the graph: the file is half as large, and runtimes fold the casts when they load it.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import keras
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

OPSET = 17


@dataclass
class Value:
    """A tensor of the graph: its name, height and width."""

    name: str
    height: int
    width: int


@dataclass
class Graph:
    """The nodes and weights of a graph under construction."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: dict[str, onnx.TensorProto] = field(default_factory=dict)
    prefix: str = ""  # of the nodes' names; a network that is added twice shares its weights
    scope: str = ""  # of the nodes' and the weights' names: one network of several

    def add_node(self, operator: str, inputs: list[str], output: str, **attributes: Any) -> str:
        output = self.scope + self.prefix + output
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def add_constant(self, name: str, value: NDArray[Any] | np.float32) -> str:
        name = self.scope + name
        self.weights[name] = numpy_helper.from_array(np.asarray(value), name)
        return name

    def add_weight(self, name: str, value: NDArray[np.float32]) -> str:
        """Add an FP32 tensor, stored as FP16, unless it exists."""
        full, half = self.scope + name, f"{name}/fp16"
        if self.scope + half not in self.weights:
            stored = self.add_constant(half, value.astype(np.float16))
            cast = helper.make_node("Cast", [stored], [full], name=full, to=TensorProto.FLOAT)
            self.nodes.append(cast)
        return full


def add_network(graph: Graph, model: keras.Model, entry: Value) -> Value:
    """Add a Keras network without nested models, with `entry` as its input.

    Returns:
        The network's output.

    Raises:
        KeyError: a layer's type is not in `LAYERS`.
    """
    values = {id(model.inputs[0]): entry}
    for layer in model.layers:
        if not isinstance(layer, keras.layers.InputLayer):
            sources = layer.input if isinstance(layer.input, list) else [layer.input]
            inputs = [values[id(source)] for source in sources]
            values[id(layer.output)] = LAYERS[type(layer)](graph, layer, inputs)
    return values[id(model.outputs[0])]


def read_weights(model: keras.Model, path: Path, scope: str = "") -> None:
    """Read weights that `add_network` wrote in a scope into a Keras network.

    If the file has another head, the last layer keeps its weights.

    Raises:
        KeyError: the file lacks another layer of the network.
        ValueError: a layer has another shape in the file.
    """
    tensors = {
        tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer
    }
    for layer in model.layers:
        name = scope + layer.name
        head = layer is model.layers[-1] and f"{name}/kernel/fp16" not in tensors
        if layer.weights and not head:
            kernel = tensors[f"{name}/kernel/fp16"]
            depthwise = isinstance(layer, keras.layers.DepthwiseConv2D)
            kernel = kernel.transpose(*((2, 3, 0, 1) if depthwise else (2, 3, 1, 0)))
            bias = tensors[f"{name}/bias/fp16"]
            layer.set_weights([kernel.astype(np.float32), bias.astype(np.float32)])


def _add_conv(graph: Graph, layer: Any, inputs: list[Value]) -> Value:
    kernel, bias = layer.get_weights()
    # Keras: height, width, in, out. ONNX: out, in, height, width.
    return _add_convolution(graph, layer, inputs[0], kernel.transpose(3, 2, 0, 1), bias, groups=1)


def _add_depthwise_conv(graph: Graph, layer: Any, inputs: list[Value]) -> Value:
    kernel, bias = layer.get_weights()
    channels = kernel.shape[2]
    kernel = kernel.transpose(2, 3, 0, 1)  # channel, multiplier (1), height, width
    return _add_convolution(graph, layer, inputs[0], kernel, bias, groups=channels)


def _add_convolution(
    graph: Graph, layer: Any, source: Value, kernel: Any, bias: Any, *, groups: int
) -> Value:
    stride, size = layer.strides[0], kernel.shape[2]
    (top, bottom, height), (left, right, width) = (
        _compute_same_padding(side, size, stride) for side in (source.height, source.width)
    )
    name = graph.add_node(
        "Conv",
        [
            source.name,
            graph.add_weight(f"{layer.name}/kernel", kernel),
            graph.add_weight(f"{layer.name}/bias", bias),
        ],
        f"{layer.name}/conv",
        kernel_shape=[size, size],
        strides=[stride, stride],
        pads=[top, left, bottom, right],
        group=groups,
    )
    return Value(_add_activation(graph, layer, name), height, width)


def _compute_same_padding(side: int, kernel: int, stride: int) -> tuple[int, int, int]:
    """Return the padding before and after, and the output's side, of Keras' "same"."""
    out = -(-side // stride)
    total = max((out - 1) * stride + kernel - side, 0)
    return total // 2, total - total // 2, out


def _add_activation(graph: Graph, layer: Any, name: str) -> str:
    operator = {"linear": None, "relu": "Relu", "tanh": "Tanh"}[layer.activation.__name__]
    return graph.add_node(operator, [name], layer.name) if operator else name


def _add_relu(graph: Graph, layer: Any, inputs: list[Value]) -> Value:
    (source,) = inputs
    if layer.max_value is None:
        name = graph.add_node("Relu", [source.name], layer.name)
    else:
        low = graph.add_constant(f"{layer.name}/low", np.float32(0))
        high = graph.add_constant(f"{layer.name}/high", np.float32(layer.max_value))
        name = graph.add_node("Clip", [source.name, low, high], layer.name)
    return Value(name, source.height, source.width)


def _add_sum(graph: Graph, layer: Any, inputs: list[Value]) -> Value:
    first, second = inputs
    name = graph.add_node("Add", [first.name, second.name], layer.name)
    return Value(name, max(first.height, second.height), max(first.width, second.width))


def _add_upsampling(graph: Graph, layer: Any, inputs: list[Value]) -> Value:
    return add_resize(graph, inputs[0], layer.size[0], layer.name, layer.interpolation)


def add_resize(
    graph: Graph, source: Value, factor: float, name: str, interpolation: str = "bilinear"
) -> Value:
    """Add a resize by a factor; bilinear by 0.5 is the mean of two by two pixels."""
    scales = graph.add_constant(f"{name}/scales", np.array([1, 1, factor, factor], np.float32))
    resized = graph.add_node("Resize", [source.name, "", scales], name, **RESIZE[interpolation])
    return Value(resized, round(source.height * factor), round(source.width * factor))


def _skip_dropout(_graph: Graph, _layer: Any, inputs: list[Value]) -> Value:
    """Dropout does nothing once training is over."""
    return inputs[0]


def _add_softmax(graph: Graph, layer: Any, inputs: list[Value]) -> Value:
    (source,) = inputs
    name = graph.add_node("Softmax", [source.name], layer.name, axis=1)
    return Value(name, source.height, source.width)


def _add_global_pool(graph: Graph, layer: Any, inputs: list[Value]) -> Value:
    return Value(graph.add_node("GlobalAveragePool", [inputs[0].name], layer.name), 1, 1)


def _add_max_pool(graph: Graph, layer: Any, inputs: list[Value]) -> Value:
    (source,), side = inputs, layer.pool_size[0]
    name = graph.add_node(
        "MaxPool", [source.name], layer.name, kernel_shape=[side, side], strides=[side, side]
    )
    return Value(name, source.height // side, source.width // side)


def _add_rescaling(graph: Graph, layer: Any, inputs: list[Value]) -> Value:
    (source,) = inputs
    scale = graph.add_constant(f"{layer.name}/scale", np.float32(layer.scale))
    offset = graph.add_constant(f"{layer.name}/offset", np.float32(layer.offset))
    scaled = graph.add_node("Mul", [source.name, scale], f"{layer.name}/scaled")
    return Value(graph.add_node("Add", [scaled, offset], layer.name), source.height, source.width)


RESIZE: dict[str, dict[str, str]] = {
    "nearest": {
        "mode": "nearest",
        "coordinate_transformation_mode": "asymmetric",
        "nearest_mode": "floor",
    },
    "bilinear": {"mode": "linear", "coordinate_transformation_mode": "half_pixel"},
}

Writer = Callable[[Graph, Any, list[Value]], Value]
LAYERS: dict[type, Writer] = {
    keras.layers.Conv2D: _add_conv,
    keras.layers.DepthwiseConv2D: _add_depthwise_conv,
    keras.layers.ReLU: _add_relu,
    keras.layers.Add: _add_sum,
    keras.layers.UpSampling2D: _add_upsampling,
    keras.layers.GlobalAveragePooling2D: _add_global_pool,
    keras.layers.MaxPooling2D: _add_max_pool,
    keras.layers.Rescaling: _add_rescaling,
    keras.layers.Softmax: _add_softmax,
    keras.layers.Dropout: _skip_dropout,
}
