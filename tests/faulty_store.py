"""A proxy in front of an object store that answers with errors, or not at all."""

import http.client
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ERROR = b"<Error><Code>%s</Code><Message>as the test says</Message></Error>"
CODES = {500: b"InternalError", 503: b"SlowDown", 403: b"AccessDenied"}


@dataclass
class FaultyStore:
    """What the proxy does with the next requests.

    Attributes:
        faults: by method, statuses to answer with, one for each request; 0: no answer for
            `hang` seconds.
        always: by method, the status of every request.
    """

    port: int = 0
    faults: dict[str, list[int]] = field(default_factory=dict)
    always: dict[str, int] = field(default_factory=dict)
    hang: float = 3.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def take_fault(self, method: str) -> int | None:
        with self.lock:
            faults = self.faults.get(method)
            return faults.pop(0) if faults else self.always.get(method)


@contextmanager
def run_faulty_store(port: int) -> Iterator[FaultyStore]:
    """Run a proxy for the store at this port of the loopback interface."""
    store = FaultyStore()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = store.take_fault(self.command)
            if fault == 0:
                time.sleep(store.hang)
                self.close_connection = True
            elif fault is not None:
                self.answer(fault, {}, ERROR % CODES[fault])
            else:
                upstream = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                upstream.request(self.command, self.path, body, dict(self.headers))
                response = upstream.getresponse()
                self.answer(response.status, dict(response.headers), response.read())
                upstream.close()

        do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = forward  # noqa: N815  # the base class's names

        def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response_only(status)
            for name, value in headers.items():
                if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            length = headers.get("Content-Length") if self.command == "HEAD" else None
            self.send_header("Content-Length", length or str(len(body)))
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else body)

        def log_message(self, *_: object) -> None:
            """Print nothing."""

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except OSError:  # the client gave up
                self.close_connection = True

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    store.port = server.server_port
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
