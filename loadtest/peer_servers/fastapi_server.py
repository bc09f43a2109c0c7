"""A plain FastAPI server with ONNX Runtime and scikit-image.

    uvicorn loadtest.peer_servers.fastapi_server:app --workers 2 --limit-concurrency 32

As FastAPI's documentation recommends: one process per core, blocking work in plain
functions, which run in a thread pool. As uvicorn's recommends: a concurrency limit, beyond
which it answers 503. ONNX Runtime has one thread per process, because each core has a
process.
"""

from typing import Annotated

import onnxruntime
from fastapi import Body, FastAPI, Response

from loadtest.peer_servers.scikit import MODEL, compose_picture, prepare_input

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])
app = FastAPI()


@app.get("/health")
def check_health() -> str:
    """Answer when the server is ready."""
    return "ok"


@app.post("/v1/colorize")
def colorize(image: Annotated[bytes, Body(media_type="application/octet-stream")]) -> Response:
    """Colorize the photograph of the body."""
    lightness, small = prepare_input(image)
    (ab,) = session.run(None, {"lightness": small[None]})
    return Response(compose_picture(lightness, ab[0]), media_type="image/jpeg")
