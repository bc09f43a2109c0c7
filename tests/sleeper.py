"""A network that sleeps instead of working, for Triton's Python backend: a GPU's manner.

It uses no CPU, so that tests of faults and of overload on few cores load the
chain and not the model. Triton imports this file as ``model.py``.
"""

import json
import time
from pathlib import Path

import numpy as np
import triton_python_backend_utils as pb


class TritonPythonModel:
    """One instance of the model (the name and the methods are Triton's)."""

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        given = {key: value["string_value"] for key, value in config["parameters"].items()}
        self.directory = Path(given["directory"])
        self.shape = [int(size) for size in config["output"][0]["dims"]]

    def execute(self, requests: list) -> list:
        """Each batch takes as long as ``seconds`` says; errors while ``broken`` is there."""
        time.sleep(float((self.directory / "seconds").read_text()))
        if (self.directory / "broken").exists():
            with (self.directory / "erred").open("ab") as erred:
                erred.write(b"." * len(requests))
            # One error each: Triton 2.51 crashes where two answers share one.
            return [
                pb.InferenceResponse(error=pb.TritonError("CUDA out of memory")) for _ in requests
            ]
        return [pb.InferenceResponse([self._colours(request)]) for request in requests]

    def _colours(self, request: "pb.InferenceRequest") -> "pb.Tensor":
        count = pb.get_input_tensor_by_name(request, "lightness").shape()[0]
        return pb.Tensor("ab", np.full([count, *self.shape], 20, np.float16))
