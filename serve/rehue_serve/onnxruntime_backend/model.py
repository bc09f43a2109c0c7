"""A Triton backend in Python that runs ONNX models on the CPU.

The Triton that comes in a wheel has no native ONNX Runtime backend. A model
whose configuration says ``backend: "onnxruntime"`` loads through this file
instead; in NVIDIA's container the same configuration loads the native one.
Triton imports this module in a process of its own, once for each model
instance; it belongs to no package.
"""

import json
import os
from concurrent.futures import ThreadPoolExecutor
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
        self.threads = int(os.environ.get("REHUE_TRITON_THREADS") or 0) or os.cpu_count() or 1
        # All threads for a few items, which are wanted soon; else each item on one thread:
        # threads that share an item wait for the slowest after every layer, and the cores
        # also decode and colour photographs.
        self.wide = _session(path, self.threads)
        self.narrow = _session(path, 1)
        self.pool = ThreadPoolExecutor(self.threads)
        self.inputs = [item.name for item in self.wide.get_inputs()]
        self.outputs = [item["name"] for item in config["output"]]

    def execute(self, requests: list) -> list:
        """Runs the requests that Triton's dynamic batcher put together as one batch."""
        live = [request for request in requests if not request.is_cancelled()]
        answers = iter(self._run(live) if live else ())
        kept = set(map(id, live))
        return [
            next(answers) if id(request) in kept else pb.InferenceResponse(error=_cancelled())
            for request in requests
        ]

    def _run(self, requests: list) -> list:
        arrays = {
            name: [pb.get_input_tensor_by_name(request, name).as_numpy() for request in requests]
            for name in self.inputs
        }
        sizes = [len(array) for array in arrays[self.inputs[0]]]
        feed = {name: _joined(parts) for name, parts in arrays.items()}
        results = self._outputs(feed)
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

    def _outputs(self, feed: dict) -> list:
        count = len(feed[self.inputs[0]])
        if count < self.threads or self.threads == 1:
            return self.wide.run(self.outputs, feed)
        items = [{name: array[i : i + 1] for name, array in feed.items()} for i in range(count)]
        parts = self.pool.map(lambda item: self.narrow.run(self.outputs, item), items)
        return [np.concatenate(output) for output in zip(*parts, strict=True)]


def _cancelled() -> "pb.TritonError":
    # One each: Triton 2.51 crashes where two answers share an error.
    return pb.TritonError("cancelled", pb.TritonError.CANCELLED)


def _session(path: Path, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # Spinning threads take the cores that decode and colour photographs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.inter_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _joined(parts: list) -> np.ndarray:
    return parts[0] if len(parts) == 1 else np.concatenate(parts)
