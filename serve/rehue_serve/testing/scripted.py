"""A server that answers as a script says, over HTTP and gRPC on real ports.

For behaviour that the real server does not show on demand: refuse one request,
answer late, close a connection. Its "pictures" are the photographs, sent back.
"""

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from rehue_client.checks import PROBE
from rehue_client.v1 import rehue_pb2, rehue_pb2_grpc
from rehue_serve import statuses
from rehue_serve.errors import get_reason_name

# By error reason: HTTP status, gRPC status.
STATUSES = {get_reason_name(error): pair for error, pair in statuses.STATUSES.items()}


@dataclass(frozen=True)
class Refusal:
    """An error as Rehue answers it."""

    reason: str
    retry_after: int | None = None


@dataclass(frozen=True)
class ForeignError:
    """An error without Rehue's details, as a proxy answers it."""

    http: int
    grpc: grpc.StatusCode
    text: str = "no healthy upstream"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Delay:
    """A picture after some seconds."""

    seconds: float


@dataclass(frozen=True)
class Request:
    """A request as it was received.

    Attributes:
        timeout: seconds until its deadline; None: it has none.
        time: of its arrival (``time.monotonic``).
    """

    image: bytes
    options: dict[str, Any]
    authorization: str | None
    timeout: float | None
    time: float


CHUNK = 1 << 20  # bytes of a picture in one message

Action = Refusal | ForeignError | Delay | None


@dataclass
class ScriptedServer:
    """What the server answers, and what it received; `serve` starts it.

    Attributes:
        script: an answer for each request in turn; None, and no script: a picture.
        always: chooses the answer from the request's body; replaces the script.
        ready: what the readiness and health checks answer.
        model: name and version of the model in the answers.
        requests: received so far, oldest first.
        probes: requests with the command's test image, which are answered by `probe`
            and counted apart.
        probe: the answer to them.
        most_at_once: most requests in flight at one time.
    """

    script: list[Action] = field(default_factory=list)
    always: Callable[[bytes], Action] | None = None
    ready: bool = True
    model: str = "rehue/1"
    requests: list[Request] = field(default_factory=list)
    probe: Action = None
    probes: list[Request] = field(default_factory=list)
    most_at_once: int = 0
    http_url: str = ""
    grpc_url: str = ""
    _in_flight: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @contextmanager
    def receive(self, request: Request) -> Iterator[Action]:
        """Record a request and yield its answer, a `Delay` already waited for."""
        if request.image == PROBE:
            self.probes.append(request)
            yield self.probe
            return
        with self._lock:
            self.requests.append(request)
            self._in_flight += 1
            self.most_at_once = max(self.most_at_once, self._in_flight)
            action = self.script.pop(0) if self.script else None
        if self.always is not None:
            action = self.always(request.image)
        try:
            if isinstance(action, Delay):
                time.sleep(action.seconds)
                action = None
            yield action
        finally:
            with self._lock:
                self._in_flight -= 1


@contextmanager
def serve(
    scripted: ScriptedServer, *, http_port: int = 0, grpc_port: int = 0
) -> Iterator[ScriptedServer]:
    """Answer on both protocols until the block ends; port 0: any free one."""
    http = _HttpServer(("127.0.0.1", http_port), _HttpHandler)
    http.scripted = scripted
    rpc = grpc.server(ThreadPoolExecutor(32), options=[("grpc.so_reuseport", 0)])
    rehue_pb2_grpc.add_ColorizerServicer_to_server(_Servicer(scripted), rpc)  # type: ignore[no-untyped-call]
    rpc.add_generic_rpc_handlers((_create_health_handler(scripted),))
    port = rpc.add_insecure_port(f"127.0.0.1:{grpc_port}")
    scripted.http_url = f"http://127.0.0.1:{http.server_port}"
    scripted.grpc_url = f"grpc://127.0.0.1:{port}"
    rpc.start()
    thread = threading.Thread(target=http.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield scripted
    finally:
        http.shutdown()
        http.server_close()
        thread.join()
        rpc.stop(None).wait()


def get_media_type(format: str) -> str:
    """Return the media type that the answer claims; ``auto`` is taken for JPEG."""
    return f"image/{'jpeg' if format == 'auto' else format}"


class _HttpServer(ThreadingHTTPServer):
    daemon_threads = True
    scripted: ScriptedServer

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: clients that disconnect are part of the tests."""


class _HttpHandler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _HttpServer

    def do_GET(self) -> None:
        if self.path == "/readyz":
            self._send(200 if self.server.scripted.ready else 503, "text/plain", b"")
        else:
            models = [{"name": "rehue", "version": "1", "state": "READY", "default": True}]
            self._send(200, "application/json", json.dumps({"models": models}).encode())

    def do_POST(self) -> None:
        image = self.rfile.read(int(self.headers["Content-Length"]))
        timeout = self.headers.get("X-Request-Timeout")
        query = parse_qs(urlsplit(self.path).query)
        request = Request(
            image=image,
            options={name: values[0] for name, values in query.items()},
            authorization=self.headers.get("Authorization"),
            timeout=float(timeout) if timeout else None,
            time=time.monotonic(),
        )
        with self.server.scripted.receive(request) as action:
            self._send_answer(action, image, request.options.get("format", "auto"))

    def _send_answer(self, action: Action, image: bytes, format: str) -> None:
        if isinstance(action, Refusal):
            status = STATUSES[action.reason][0]
            problem = {
                "type": f"urn:rehue:problem:{action.reason.lower().replace('_', '-')}",
                "title": "Refused",
                "status": status,
                "detail": "as the script says",
                "request_id": "r-1",
            }
            headers = {"Retry-After": str(action.retry_after)} if action.retry_after else {}
            self._send(status, "application/problem+json", json.dumps(problem).encode(), headers)
        elif isinstance(action, ForeignError):
            self._send(action.http, "text/plain", action.text.encode(), dict(action.headers))
        else:
            timing = "decode;dur=1.5, infer;dur=20"
            headers = {
                "X-Request-Id": "r-1",
                "X-Rehue-Model": self.server.scripted.model,
                "Server-Timing": timing,
            }
            self._send(200, get_media_type(format), image, headers)

    def _send(
        self, status: int, media_type: str, body: bytes, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": media_type, **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


class _Servicer(rehue_pb2_grpc.ColorizerServicer):
    def __init__(self, scripted: ScriptedServer) -> None:
        self._scripted = scripted

    def Colorize(
        self, request: rehue_pb2.ColorizeRequest, context: grpc.ServicerContext
    ) -> rehue_pb2.ColorizeResponse:
        remaining = context.time_remaining()
        metadata = {name: str(value) for name, value in context.invocation_metadata()}
        options = {
            "strength": str(request.strength),
            "format": rehue_pb2.Format.Name(request.format).removeprefix("FORMAT_").lower(),
        }
        if request.model:
            options["model"] = request.model
        for name in ("metadata", "depth", "profile", "mark"):
            if number := getattr(request, name):
                word = getattr(rehue_pb2, name.title()).Name(number)
                options[name] = word.removeprefix(f"{name.upper()}_").lower()
        if request.HasField("quality"):
            options["quality"] = str(request.quality)
        received = Request(
            image=request.image,
            options=options,
            authorization=metadata.get("authorization"),
            # gRPC reports centuries for a call without a deadline.
            timeout=remaining if remaining is not None and remaining < 1e6 else None,
            time=time.monotonic(),
        )
        with self._scripted.receive(received) as action:
            if isinstance(action, Refusal):
                _abort_with_details(context, action)
            elif isinstance(action, ForeignError):
                context.abort(action.grpc, action.text)
            return rehue_pb2.ColorizeResponse(
                id=request.id,
                image=request.image,
                media_type=get_media_type(options["format"]),
                model=self._scripted.model,
                request_id="r-1",
                timings=rehue_pb2.Timings(decode=1.5, infer=20),
            )

    def ListModels(
        self, _request: rehue_pb2.ListModelsRequest, _context: grpc.ServicerContext
    ) -> rehue_pb2.ListModelsResponse:
        model = rehue_pb2.Model(name="rehue", version="1", state="READY", default=True)
        return rehue_pb2.ListModelsResponse(models=[model])

    def ColorizeStream(
        self, requests: Iterator[rehue_pb2.ColorizeRequest], context: grpc.ServicerContext
    ) -> Iterator[rehue_pb2.ColorizeResponse]:
        return (self.Colorize(request, context) for request in requests)

    def ColorizeChunks(
        self, requests: Iterator[rehue_pb2.ColorizeRequest], context: grpc.ServicerContext
    ) -> Iterator[rehue_pb2.ColorizeResponse]:
        request = next(requests)
        request.image += b"".join(chunk.image for chunk in requests)
        answer = self.Colorize(request, context)
        image, answer.image = answer.image, answer.image[:CHUNK]
        yield answer
        for start in range(CHUNK, len(image), CHUNK):
            yield rehue_pb2.ColorizeResponse(image=image[start : start + CHUNK])


def _abort_with_details(context: grpc.ServicerContext, refusal: Refusal) -> None:
    code = STATUSES[refusal.reason][1]
    info = error_details_pb2.ErrorInfo(
        reason=refusal.reason, domain="rehue", metadata={"request_id": "r-1"}
    )
    status = status_pb2.Status(code=code.value[0], message="as the script says")
    details = [info]
    if refusal.retry_after:
        delay = duration_pb2.Duration(seconds=refusal.retry_after)
        details.append(error_details_pb2.RetryInfo(retry_delay=delay))
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        status.details.append(packed)
    context.set_trailing_metadata((("grpc-status-details-bin", status.SerializeToString()),))
    context.abort(code, status.message)


def _create_health_handler(scripted: ScriptedServer) -> grpc.GenericRpcHandler:
    def check(_request: bytes, _context: grpc.ServicerContext) -> bytes:
        return b"\x08\x01" if scripted.ready else b"\x08\x02"

    handler: grpc.RpcMethodHandler[bytes, bytes] = grpc.unary_unary_rpc_method_handler(check)
    return grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler})
