"""A LitServe server with its own batching: ONNX Runtime, scikit-image around it.

    python litserve_server.py PORT

As LitServe's documentation advises ("Speed up serving"): batches of 8 with a short
wait, and several workers on the device, here one a core with one thread of ONNX Runtime.
"""

import sys
from typing import Any

import litserve
import numpy as np
import onnxruntime
from fastapi import Request, Response
from numpy.typing import NDArray
from scikit import CORES, MODEL, after, before

Prepared = tuple[NDArray[np.float64], NDArray[np.uint8]]


class Colorizer(litserve.LitAPI):
    def setup(self, device: str) -> None:  # noqa: ARG002 (LitServe's own)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            MODEL, options, providers=["CPUExecutionProvider"]
        )

    def decode_request(self, request: Request) -> Prepared:
        return before(request["image"].file.read())

    def batch(self, inputs: list[Prepared]) -> list[Prepared]:
        return inputs

    def predict(self, batch: list[Prepared]) -> list[Any]:
        stacked = np.stack([small for _, small in batch])
        (ab,) = self.session.run(None, {"lightness": stacked})
        return [(lightness, one) for (lightness, _), one in zip(batch, ab, strict=True)]

    def unbatch(self, output: list[Any]) -> list[Any]:
        return output

    def encode_response(self, output: Any) -> Response:
        return Response(after(*output), media_type="image/jpeg")


if __name__ == "__main__":
    api = Colorizer(max_batch_size=8, batch_timeout=0.01, api_path="/v1/colorize")
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=CORES)
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False)
