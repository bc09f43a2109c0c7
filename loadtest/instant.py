"""A network that takes a fixed time for a batch and no CPU, for Triton's Python backend.

A GPU's manner; with no time at all, everything but the network can be measured.
Triton imports this file as ``model.py``.
"""

import json
import time

import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    """One instance of the model (the name and the methods are Triton's)."""

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        self.seconds = float(config["parameters"]["seconds"]["string_value"])
        self.shape = [int(size) for size in config["output"][0]["dims"]]

    def execute(self, requests: list) -> list:
        """The same colour for every photograph of the batch."""
        if self.seconds:
            time.sleep(self.seconds)
        return [pb.InferenceResponse([self._colours(request)]) for request in requests]

    def _colours(self, request: "pb.InferenceRequest") -> "pb.Tensor":
        count = pb.get_input_tensor_by_name(request, "lightness").shape()[0]
        return pb.Tensor("ab", np.full([count, *self.shape], 20, np.float16))
