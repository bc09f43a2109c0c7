"""A Triton backend in Python that runs ONNX models on the CPU.

The Triton that comes in a wheel has no native ONNX Runtime backend. A model
whose configuration says ``backend: "onnxruntime"`` loads through this file
instead; in NVIDIA's container the same configuration loads the native one.
Triton imports this module in a process of its own, once for each model
instance; it belongs to no package.
"""

import json
import os
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb


class TritonPythonModel:
    """One instance of one model (the name and the methods are Triton's)."""

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        filename = config.get("default_model_filename") or "model.onnx"
        path = Path(args["model_repository"]) / args["model_version"] / filename
        if not path.is_file():
            version = args["model_version"]
            raise pb.TritonModelException(f"{filename} is missing in version {version}")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ.get("REHUE_TRITON_THREADS") or 0)
        # Spinning threads take the cores that decode and colour photographs.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.inter_op.allow_spinning", "0")
        self.session = onnxruntime.InferenceSession(
            path, options, providers=["CPUExecutionProvider"]
        )
        self.inputs = [item.name for item in self.session.get_inputs()]
        self.outputs = [item["name"] for item in config["output"]]

    def execute(self, requests: list) -> list:
        """Runs the requests that Triton's dynamic batcher put together as one batch."""
        live = [request for request in requests if not request.is_cancelled()]
        answers = iter(self._run(live) if live else ())
        cancelled = pb.TritonError("cancelled", pb.TritonError.CANCELLED)
        kept = set(map(id, live))
        return [
            next(answers) if id(request) in kept else pb.InferenceResponse(error=cancelled)
            for request in requests
        ]

    def _run(self, requests: list) -> list:
        arrays = {
            name: [pb.get_input_tensor_by_name(request, name).as_numpy() for request in requests]
            for name in self.inputs
        }
        sizes = [len(array) for array in arrays[self.inputs[0]]]
        feed = {name: _joined(parts) for name, parts in arrays.items()}
        results = self.session.run(self.outputs, feed)
        ends = np.cumsum(sizes)
        return [
            pb.InferenceResponse(
                [
                    pb.Tensor(name, np.ascontiguousarray(result[end - size : end]))
                    for name, result in zip(self.outputs, results, strict=True)
                ]
            )
            for size, end in zip(sizes, ends, strict=True)
        ]


def _joined(parts: list) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
