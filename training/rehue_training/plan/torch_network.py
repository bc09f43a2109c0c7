"""Runs this project's ONNX networks in PyTorch, to measure a GPU without TensorRT.

For measuring, never for serving: it runs the same file that a plan would be built from, FP16
included, one operator after the other. It knows only the operators that `network.graph` writes.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from torch.nn import functional

Attributes = dict[str, Any]


class TorchNetwork:
    """A serialized ONNX model on a device; weights and pictures in channels-last order."""

    def __init__(self, model: bytes, device: str) -> None:
        """Raises: ValueError, naming the unknown operators."""
        graph = onnx.load_model_from_string(model).graph
        self._nodes = [(node, _read_attributes(node)) for node in graph.node]
        unknown = {node.op_type for node, _ in self._nodes} - set(OPERATORS)
        if unknown:
            raise ValueError(f"unknown operators: {', '.join(sorted(unknown))}")
        self.inputs = [entry.name for entry in graph.input]
        self.outputs = [entry.name for entry in graph.output]
        self._device = device
        # These stay on the CPU: reading them from the device would end the capture of a CUDA graph.
        readers = [node for node in graph.node if node.op_type in ("ReduceSum", "Resize")]
        on_cpu = {name for node in readers for name in node.input[1:]}
        self._weights = {
            tensor.name: _load_weight(tensor, "cpu" if tensor.name in on_cpu else device)
            for tensor in graph.initializer
        }

    def __call__(self, *tensors: Any) -> list[Any]:
        """Returns the outputs for inputs on the device, both in the model's order."""
        values = self._weights | dict(zip(self.inputs, tensors, strict=True)) | {"": None}
        for node, attributes in self._nodes:
            operate = OPERATORS[node.op_type]
            values[node.output[0]] = operate([values[name] for name in node.input], attributes)
        return [values[name] for name in self.outputs]

    def run(self, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Returns the outputs for these inputs, by name."""
        inputs = [torch.from_numpy(tensors[name]).to(self._device) for name in self.inputs]
        with torch.inference_mode():
            outputs = [output.cpu().numpy() for output in self(*inputs)]
        return dict(zip(self.outputs, outputs, strict=True))


def _load_weight(tensor: onnx.TensorProto, device: str) -> Any:
    value = torch.from_numpy(np.array(numpy_helper.to_array(tensor)))
    form = torch.channels_last if value.ndim == 4 else torch.contiguous_format
    return value.to(device, memory_format=form)


def _read_attributes(node: onnx.NodeProto) -> Attributes:
    return {entry.name: helper.get_attribute_value(entry) for entry in node.attribute}


def _cast(inputs: list[Any], attributes: Attributes) -> Any:
    dtype = helper.tensor_dtype_to_np_dtype(attributes["to"])
    return inputs[0].to(getattr(torch, dtype.name))


def _conv(inputs: list[Any], attributes: Attributes) -> Any:
    data, kernel, bias = inputs
    top, left, bottom, right = attributes["pads"]
    padding = (top, left)
    if padding != (bottom, right):
        data, padding = functional.pad(data, (left, right, top, bottom)), (0, 0)
    return functional.conv2d(
        data, kernel, bias, attributes["strides"], padding, groups=attributes["group"]
    )


def _average_pool(inputs: list[Any], attributes: Attributes) -> Any:
    padding = attributes["pads"][:2]  # the same on both sides
    return functional.avg_pool2d(
        inputs[0], attributes["kernel_shape"], 1, padding, count_include_pad=False
    )


def _resize(inputs: list[Any], attributes: Attributes) -> Any:
    data, _, scales = inputs
    mode = {b"nearest": "nearest", b"linear": "bilinear"}[attributes["mode"]]
    # As the ONNX files have them: nearest takes the pixel below, linear half-pixel centres.
    aligned = None if mode == "nearest" else False
    factors = tuple(map(float, scales[2:]))
    return functional.interpolate(data, scale_factor=factors, mode=mode, align_corners=aligned)


OPERATORS: dict[str, Callable[[list[Any], Attributes], Any]] = {
    "Add": lambda inputs, _: inputs[0] + inputs[1],
    "AveragePool": _average_pool,
    "Cast": _cast,
    "Clip": lambda inputs, _: torch.clamp(inputs[0], inputs[1], inputs[2]),
    "Conv": _conv,
    "Div": lambda inputs, _: inputs[0] / inputs[1],
    "GlobalAveragePool": lambda inputs, _: inputs[0].mean((2, 3), keepdim=True),
    "MaxPool": lambda inputs, attributes: functional.max_pool2d(
        inputs[0], attributes["kernel_shape"], attributes["strides"]
    ),
    "Mul": lambda inputs, _: inputs[0] * inputs[1],
    "ReduceSum": lambda inputs, _: inputs[0].sum(tuple(inputs[1].tolist()), keepdim=True),
    "Relu": lambda inputs, _: torch.relu(inputs[0]),
    "Resize": _resize,
    "Softmax": lambda inputs, attributes: torch.softmax(inputs[0], attributes["axis"]),
    "Sub": lambda inputs, _: inputs[0] - inputs[1],
    "Tanh": lambda inputs, _: torch.tanh(inputs[0]),
}
