"""A network that sleeps instead of computing, for Triton's Python backend.

It uses no CPU, as a network on a GPU, so that on few cores tests and benchmarks load
everything else. Triton imports this file as ``model.py``.
"""

import json
import time
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    """One instance of the model (Triton prescribes the names)."""

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        self.directory = Path(config["parameters"]["directory"]["string_value"])
        self.shape = [int(size) for size in config["output"][0]["dims"]]

    def execute(self, requests: "list[pb.InferenceRequest]") -> "list[pb.InferenceResponse]":
        """Sleep as long as the file ``seconds`` says; fail while ``failing`` exists."""
        time.sleep(float((self.directory / "seconds").read_text()))
        if (self.directory / "failing").exists():
            with (self.directory / "failed").open("ab") as failed:
                failed.write(b"." * len(requests))
            # An error object for each: Triton 2.51 crashes if two responses share one.
            return [
                pb.InferenceResponse(error=pb.TritonError("CUDA out of memory")) for _ in requests
            ]
        return [pb.InferenceResponse([self._create_output(request)]) for request in requests]

    def _create_output(self, request: "pb.InferenceRequest") -> "pb.Tensor":
        count = pb.get_input_tensor_by_name(request, "lightness").shape()[0]
        return pb.Tensor("ab", np.full([count, *self.shape], 20, np.float16))
