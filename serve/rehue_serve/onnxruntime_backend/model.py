"""A Triton backend in Python that runs ONNX models on the CPU.

The Triton of the wheel nvidia-pytriton has no native ONNX Runtime backend. Models with
``backend: "onnxruntime"`` load through this file instead; in NVIDIA's container the same
configuration loads the native backend. Triton imports this module in a process of its own for
each model instance; it is not part of a package.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb


class TritonPythonModel:
    """One instance of one model. Triton requires this name and the methods' names."""

    def initialize(self, args: dict[str, str]) -> None:
        config = json.loads(args["model_config"])
        filename = config.get("default_model_filename") or "model.onnx"
        path = Path(args["model_repository"]) / args["model_version"] / filename
        if not path.is_file():
            version = args["model_version"]
            raise pb.TritonModelException(f"{filename} is missing in version {version}")
        self.threads = int(os.environ.get("REHUE_TRITON_THREADS") or 0) or os.cpu_count() or 1
        # A batch smaller than the number of threads runs on all of them, for a short wait. In a
        # larger batch each item runs on one thread: threads that share an item wait for the
        # slowest after every layer, and the cores also decode and colour photographs.
        self.parallel_session = _create_session(path, self.threads)
        self.single_session = _create_session(path, 1)
        self.pool = ThreadPoolExecutor(self.threads)
        self.inputs = [tensor.name for tensor in self.parallel_session.get_inputs()]
        self.outputs = [tensor["name"] for tensor in config["output"]]

    def execute(self, requests: list) -> list:
        """Run the requests that Triton's dynamic batcher collected, as one batch."""
        live = [request for request in requests if not request.is_cancelled()]
        responses = iter(self._run_batch(live) if live else ())
        live_ids = set(map(id, live))
        return [
            next(responses) if id(request) in live_ids else _create_cancelled_response()
            for request in requests
        ]

    def _run_batch(self, requests: list) -> list:
        arrays = {
            name: [pb.get_input_tensor_by_name(request, name).as_numpy() for request in requests]
            for name in self.inputs
        }
        sizes = [len(array) for array in arrays[self.inputs[0]]]
        feed = {name: _concatenate(parts) for name, parts in arrays.items()}
        results = self._infer(feed)
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

    def _infer(self, feed: dict) -> list:
        count = len(feed[self.inputs[0]])
        if count < self.threads or self.threads == 1:
            return self.parallel_session.run(self.outputs, feed)
        items = [{name: array[i : i + 1] for name, array in feed.items()} for i in range(count)]
        parts = self.pool.map(lambda item: self.single_session.run(self.outputs, item), items)
        return [np.concatenate(output) for output in zip(*parts, strict=True)]


def _create_cancelled_response() -> "pb.InferenceResponse":
    # Each with an error of its own: Triton 2.51 crashes if two responses share one.
    return pb.InferenceResponse(error=pb.TritonError("cancelled", pb.TritonError.CANCELLED))


def _create_session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Spinning threads would take the cores that decode and colour photographs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _concatenate(parts: list) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
