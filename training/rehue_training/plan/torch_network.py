"""This project's ONNX networks in PyTorch: what a GPU without TensorRT can do with them.

A stand-in for measuring, never for serving: it runs the very file that a plan would be
built from, FP16 and all, one operator after the other. It knows the operators that
`graph` writes and no others.
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
    """A serialized ONNX model, on a device; weights and pictures in channels-last order."""

    def __init__(self, model: bytes, device: str) -> None:
        """Raises: ValueError, naming the operators that are not known."""
        graph = onnx.load_model_from_string(model).graph
        self._nodes = [(one, _attributes(one)) for one in graph.node]
        unknown = {node.op_type for node, _ in self._nodes} - set(OPERATORS)
        if unknown:
            raise ValueError(f"unknown operators: {', '.join(sorted(unknown))}")
        self.inputs = [one.name for one in graph.input]
        self.outputs = [one.name for one in graph.output]
        self._device = device
        # Not on the device: reading them there would end the capture of a CUDA graph.
        reading = [node for node in graph.node if node.op_type in ("ReduceSum", "Resize")]
        read = {name for node in reading for name in node.input[1:]}
        self._weights = {
            one.name: _weight(one, "cpu" if one.name in read else device)
            for one in graph.initializer
        }

    def __call__(self, *tensors: Any) -> list[Any]:
        """The outputs for inputs on the device, both in the model's order."""
        values = self._weights | dict(zip(self.inputs, tensors, strict=True)) | {"": None}
        for node, attributes in self._nodes:
            operate = OPERATORS[node.op_type]
            values[node.output[0]] = operate([values[one] for one in node.input], attributes)
        return [values[name] for name in self.outputs]

    def run(self, tensors: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """The outputs for these inputs, by name."""
        given = [torch.from_numpy(tensors[name]).to(self._device) for name in self.inputs]
        with torch.inference_mode():
            made = self(*given)
        return dict(zip(self.outputs, (one.cpu().numpy() for one in made), strict=True))


def _weight(tensor: onnx.TensorProto, device: str) -> Any:
    value = torch.from_numpy(np.array(numpy_helper.to_array(tensor)))
    form = torch.channels_last if value.ndim == 4 else torch.contiguous_format
    return value.to(device, memory_format=form)


def _attributes(node: onnx.NodeProto) -> Attributes:
    return {one.name: helper.get_attribute_value(one) for one in node.attribute}


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


def _resize(inputs: list[Any], attributes: Attributes) -> Any:
    data, _, scales = inputs
    mode = {b"nearest": "nearest", b"linear": "bilinear"}[attributes["mode"]]
    # Both as ONNX writes them here: nearest takes the pixel below, linear half-pixel centres.
    aligned = None if mode == "nearest" else False
    factors = tuple(float(one) for one in scales[2:])
    return functional.interpolate(data, scale_factor=factors, mode=mode, align_corners=aligned)


OPERATORS: dict[str, Callable[[list[Any], Attributes], Any]] = {
    "Add": lambda inputs, _: inputs[0] + inputs[1],
    "Cast": _cast,
    "Clip": lambda inputs, _: torch.clamp(inputs[0], inputs[1], inputs[2]),
    "Conv": _conv,
    "Div": lambda inputs, _: inputs[0] / inputs[1],
    "GlobalAveragePool": lambda inputs, _: inputs[0].mean((2, 3), keepdim=True),
    "Mul": lambda inputs, _: inputs[0] * inputs[1],
    "ReduceSum": lambda inputs, _: inputs[0].sum(tuple(inputs[1].tolist()), keepdim=True),
    "Relu": lambda inputs, _: torch.relu(inputs[0]),
    "Resize": _resize,
    "Softmax": lambda inputs, attributes: torch.softmax(inputs[0], attributes["axis"]),
    "Tanh": lambda inputs, _: torch.tanh(inputs[0]),
}
