"""A collector of OpenTelemetry traces: OTLP over HTTP, kept in memory."""

import binascii
import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass(frozen=True)
class Span:
    """A span; ids in hex, as in a traceparent."""

    service: str
    name: str
    trace: str
    id: str
    parent: str
    kind: int
    attributes: dict[str, Any]
    links: tuple[str, ...]  # ids of the spans linked to
    failed: bool


class Collector:
    """The spans received so far."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.spans: list[Span] = []

    def wait(self, enough: Callable[[list[Span]], bool], timeout: float = 60) -> list[Span]:
        """Return the spans once ``enough`` is true, or at the timeout.

        Exporters send them every few seconds.
        """
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline and not enough(list(self.spans)):
            time.sleep(0.1)
        return list(self.spans)


@contextmanager
def run_collector() -> Iterator[Collector]:
    """Run a collector on a free port."""
    collector = Collector("")

    class Receiver(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            kind = self.headers["Content-Type"].partition(";")[0]
            read = _parse_json if kind == "application/json" else _parse_proto
            # As a list: two threads that extend a list from generators lose items.
            collector.spans.extend(list(read(body)))
            self.send_response(200)
            self.send_header("Content-Type", kind)
            answer = b"{}" if kind == "application/json" else b""
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Receiver)
    collector.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _parse_proto(body: bytes) -> Iterator[Span]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        service = {a.key: a.value.string_value for a in resource.resource.attributes}
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    service=service["service.name"],
                    name=span.name,
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    kind=span.kind,
                    attributes={
                        a.key: getattr(a.value, str(a.value.WhichOneof("value")))
                        for a in span.attributes
                    },
                    links=tuple(link.span_id.hex() for link in span.links),
                    failed=span.status.code == 2,
                )


def _parse_json(body: bytes) -> Iterator[Span]:
    """Parse what Triton's exporter sends: JSON, with ids in hex."""
    for resource in json.loads(body)["resourceSpans"]:
        service = {
            a["key"]: a["value"].get("stringValue") for a in resource["resource"]["attributes"]
        }
        for scope in resource["scopeSpans"]:
            for span in scope["spans"]:
                yield Span(
                    service=service["service.name"],
                    name=span["name"],
                    trace=_convert_to_hex(span["traceId"]),
                    id=_convert_to_hex(span["spanId"]),
                    parent=_convert_to_hex(span.get("parentSpanId", "")),
                    kind=span["kind"],
                    attributes={
                        a["key"]: next(iter(a["value"].values()))
                        for a in span.get("attributes", [])
                    },
                    links=(),
                    failed=False,
                )


def _convert_to_hex(id: str) -> str:
    return id if len(id) in (0, 16, 32) else binascii.a2b_base64(id).hex()
