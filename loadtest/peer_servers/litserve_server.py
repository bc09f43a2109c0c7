"""A LitServe server with its own batching, ONNX Runtime and scikit-image.

    python -m loadtest.peer_servers.litserve_server PORT

As LitServe's documentation recommends ("Speed up serving"): batches of 8 with a short
wait, and several workers per device, here one per core with one ONNX Runtime thread each.
"""

import sys
from typing import Any

import litserve
import numpy as np
import onnxruntime
from fastapi import Request, Response
from numpy.typing import NDArray

from loadtest.peer_servers.scikit import CORES, MODEL, compose_picture, prepare_input

Prepared = tuple[NDArray[np.float64], NDArray[np.uint8]]


class Colorizer(litserve.LitAPI):  # type: ignore[misc]
    """Colorizes the photographs of forms, in batches."""

    def setup(self, device: str) -> None:  # noqa: ARG002 (LitServe prescribes it)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            MODEL, options, providers=["CPUExecutionProvider"]
        )

    def decode_request(self, request: Request) -> Prepared:
        return prepare_input(request["image"].file.read())

    def batch(self, inputs: list[Prepared]) -> list[Prepared]:
        return inputs

    def predict(self, batch: list[Prepared]) -> list[Any]:
        stacked = np.stack([small for _, small in batch])
        (ab,) = self.session.run(None, {"lightness": stacked})
        return [(lightness, output) for (lightness, _), output in zip(batch, ab, strict=True)]

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output

    def encode_response(self, output: Any) -> Response:
        return Response(compose_picture(*output), media_type="image/jpeg")


if __name__ == "__main__":
    api = Colorizer(max_batch_size=8, batch_timeout=0.01, api_path="/v1/colorize")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=CORES)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
