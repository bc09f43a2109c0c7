"""A Triton whose answers a test chooses: health over HTTP, Infer over gRPC, on real ports.

As a command it stands for a tritonserver whose answers come two calls late.
"""

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime
from google.protobuf import text_format
from numpy.typing import NDArray
from paths import MODELS
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

Answer = Callable[[NDArray[Any]], NDArray[Any]]  # N1HW lightness in counts to N2hw ab


def load_network(path: Path) -> Answer:
    """Returns the network of an ONNX file, which computes each photograph only once."""
    session = onnxruntime.InferenceSession(path)
    answers: dict[bytes, NDArray[Any]] = {}

    def infer(photograph: NDArray[Any]) -> NDArray[Any]:
        key = photograph.tobytes()
        if key not in answers:
            answers[key] = session.run(["ab"], {"lightness": photograph[None]})[0][0]
        return answers[key]

    return lambda counts: np.stack([infer(photograph) for photograph in counts])


def answer_late(network: Answer, calls: int) -> Answer:
    """Each answer is that of an earlier call, once there is one."""
    made: list[NDArray[Any]] = []

    def answer(counts: NDArray[Any]) -> NDArray[Any]:
        made.append(network(counts))
        return made[-1 - calls] if len(made) > calls else made[-1]

    return answer


def answer_from_wrong_graphs(network: Answer, instances: int) -> Answer:
    """Answer as tensorrt_backend does with CUDA graphs and an output copy stream (docs/plans.md).

    A graph belongs to an event set (of 3) and reads and writes the buffer (of 2) that it was
    captured on; inputs are copied to, and answers taken from, another one half of the time.
    """
    inputs: list[list[NDArray[Any] | None]] = [[None, None] for _ in range(instances)]
    outputs: list[list[NDArray[Any] | None]] = [[None, None] for _ in range(instances)]
    executions = 0

    def answer(counts: NDArray[Any]) -> NDArray[Any]:
        nonlocal executions
        instance, k = executions % instances, executions // instances
        executions += 1
        captured = (k % 3) % 2
        inputs[instance][k % 2] = counts
        read = inputs[instance][captured]
        outputs[instance][captured] = None if read is None else network(read)
        found = outputs[instance][k % 2]
        right = network(counts)
        return right if found is None or found.shape != right.shape else found

    return answer


@dataclass
class ScriptedTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]
    """Triton's ModelConfig, ModelReady and ModelInfer; `answer` turns lightness into ab."""

    answer: Answer
    batches: list[int] = field(default_factory=list)
    url: str = ""

    def ModelConfig(self, request: service_pb2.ModelConfigRequest, context: object) -> object:
        text = (MODELS / request.name / "configs" / "gpu.pbtxt").read_text()
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
        return service_pb2.ModelConfigResponse(config=config)

    def ModelReady(self, request: service_pb2.ModelReadyRequest, context: object) -> object:
        return service_pb2.ModelReadyResponse(ready=True)

    def RepositoryIndex(
        self, request: service_pb2.RepositoryIndexRequest, context: object
    ) -> object:
        model = service_pb2.RepositoryIndexResponse.ModelIndex(
            name="rehue", version="1", state="READY"
        )
        return service_pb2.RepositoryIndexResponse(models=[model])

    def ModelInfer(self, request: service_pb2.ModelInferRequest, context: object) -> object:
        shape = tuple(request.inputs[0].shape)
        self.batches.append(shape[0])
        counts = np.frombuffer(request.raw_input_contents[0], np.uint8).reshape(shape)
        ab = self.answer(counts)
        output = service_pb2.ModelInferResponse.InferOutputTensor(
            name="ab", datatype="FP16", shape=ab.shape
        )
        return service_pb2.ModelInferResponse(
            model_name=request.model_name,
            model_version="1",
            outputs=[output],
            raw_output_contents=[ab.tobytes()],
        )


@contextmanager
def serve(answer: Answer, port: int = 0) -> Iterator[ScriptedTriton]:
    scripted = ScriptedTriton(answer)
    server = grpc.server(ThreadPoolExecutor(1), options=[("grpc.max_receive_message_length", -1)])
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(scripted, server)
    scripted.url = f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    server.start()
    try:
        yield scripted
    finally:
        server.stop(None).wait()


class _Healthy(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


def main() -> None:
    options = dict(word[2:].split("=") for word in sys.argv[1:] if "=" in word)
    (path,) = Path(options["model-repository"]).glob("*/1/model.onnx")
    health = HTTPServer(("127.0.0.1", int(options["http-port"])), _Healthy)
    threading.Thread(target=health.serve_forever, daemon=True).start()
    with serve(answer_late(load_network(path), 2), int(options["grpc-port"])):
        threading.Event().wait()


if __name__ == "__main__":
    main()
