"""A plain FastAPI server: ONNX Runtime in the process, scikit-image around it.

    uvicorn fastapi_server:app --workers 2 --limit-concurrency 32

As FastAPI's documentation advises: a process for each core, blocking work in plain
functions, which run in a pool of threads; and, as uvicorn's, a limit of concurrency,
beyond which it answers 503. One thread of ONNX Runtime a process, because there is a
process a core.
"""

from typing import Annotated

import onnxruntime
from fastapi import Body, FastAPI, Response
from scikit import MODEL, after, before

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(MODEL, options, providers=["CPUExecutionProvider"])
app = FastAPI()


@app.get("/health")
def health() -> str:
    return "ok"


@app.post("/v1/colorize")
def colorize(image: Annotated[bytes, Body(media_type="application/octet-stream")]) -> Response:
    lightness, small = before(image)
    (ab,) = session.run(None, {"lightness": small[None]})
    return Response(after(lightness, ab[0]), media_type="image/jpeg")
