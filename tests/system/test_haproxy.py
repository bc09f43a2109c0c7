"""HAProxy as `rehue-haproxy` starts it: nobody's bytes reach another, errors are problems.

Real HAProxy with the configuration that Ray writes, before the HTTP server that Ray's replicas
run. Its application answers early, or says what it received.
"""

import contextlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest
from http2 import Http2Connection
from ray.serve._private import haproxy as ray_haproxy
from ray.serve.config import HTTPOptions, gRPCOptions

from rehue_serve import errors, haproxy
from rehue_serve.ports import claim_free_ports
from rehue_serve.testing.servers import Server

COMMAND = Path(sys.executable).with_name("rehue-haproxy")
EARLY = (401, 413, 429, 503)
SMUGGLED = b"POST /smuggled HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n" * 200


async def application(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Answers /early/STATUS before it reads the body, and everything else with body and path."""
    if scope["type"] != "http":
        return
    status, body, more = 200, b"", True
    if scope["path"].startswith("/early/"):
        status, more = int(scope["path"].removeprefix("/early/")), False
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    if scope["path"] != "/healthz":
        print(scope["path"], flush=True)
    await send({"type": "http.response.start", "status": status, "headers": []})
    await send({"type": "http.response.body", "body": scope["path"].encode() + b" " + body})


@dataclass
class Proxied:
    """HAProxy and the application behind it."""

    process: psutil.Process
    port: int
    grpc_port: int
    log: Path  # a line for each request that the application saw

    def read_paths(self) -> set[str]:
        return {line for line in self.log.read_text().splitlines() if line.startswith("/")}

    def post(self, body: bytes) -> bytes:
        """Posts as any other client: on a connection of its own."""
        return httpx.post(f"http://127.0.0.1:{self.port}/other", content=body, timeout=5).content


def write_configuration(
    directory: Path, *, servers: list[int], application: bool = True, fallback_port: int = 9
) -> tuple[Path, int, int]:
    """Has Ray write HAProxy's configuration; returns it and the ports of HTTP and gRPC."""
    http, rpc, stats, metrics = claim_free_ports(4)
    config = ray_haproxy.HAProxyConfig(
        http_options=HTTPOptions(host="127.0.0.1", port=http),
        grpc_options=gRPCOptions(port=rpc, grpc_servicer_functions=["some.function"]),
        socket_path=str(directory / "admin.sock"),
        metrics_socket_path=str(directory / "metrics.sock"),
        server_state_base=str(directory),
        server_state_file=str(directory / "server-state"),
        stats_port=stats,
        metrics_port=metrics,
        has_received_routes=True,
        is_head=True,
        http_health_check_path="/healthz",
    )
    path = directory / "haproxy.cfg"
    api = ray_haproxy.HAProxyApi(cfg=config, config_file_path=str(path))
    if application:
        replicas = [
            ray_haproxy.ServerConfig(name=f"s{port}", host="127.0.0.1", port=port)
            for port in servers
        ]
        fallback = ray_haproxy.ServerConfig(name="proxy", host="127.0.0.1", port=fallback_port)
        backends = {
            name: ray_haproxy.BackendConfig(
                name=name,
                path_prefix="/",
                app_name="rehue",
                protocol=protocol,
                servers=replicas,
                fallback_server=fallback,
            )
            for name, protocol in zip(
                haproxy.BACKENDS,
                (ray_haproxy.RequestProtocol.HTTP, ray_haproxy.RequestProtocol.GRPC),
                strict=True,
            )
        }
        api.set_backend_configs(backends)
    api._generate_config_file_internal()
    return path, http, rpc


@contextlib.contextmanager
def run_haproxy(
    directory: Path, *, servers: list[int], application: bool = True, fallback_port: int = 9
) -> Iterator[Proxied]:
    path, http, rpc = write_configuration(
        directory, servers=servers, application=application, fallback_port=fallback_port
    )
    with (directory / "haproxy.log").open("wb") as log:
        environment = os.environ | {"RAY_SERVE_HAPROXY_BINARY_PATH": str(COMMAND)}
        process = subprocess.Popen(
            [COMMAND, "-db", "-f", path], env=environment, stdout=log, stderr=log
        )
    try:
        wait_for_port(http)
        yield Proxied(psutil.Process(process.pid), http, rpc, directory / "log")
    finally:
        process.terminate()
        process.wait(10)


def wait_for_port(port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    directory = tmp_path_factory.mktemp("haproxy")
    (port,) = claim_free_ports(1)
    command = [sys.executable, "-m", "uvicorn", f"{Path(__file__).stem}:application"]
    with (directory / "log").open("wb") as log:
        server = subprocess.Popen(
            [*command, "--port", str(port), "--log-level", "warning"],
            cwd=Path(__file__).parent,
            env={"PYTHONPATH": ":".join(sys.path)},
            stdout=log,
            stderr=log,
        )
    try:
        wait_for_port(port)
        with run_haproxy(directory, servers=[port]) as running:
            yield running
    finally:
        server.terminate()
        server.wait(10)


def upload_http2(port: int, path: str, ending: str, **headers: str) -> int | None:
    """Declares 40 MB, sends another request's bytes as body, and ends after the answer."""
    with contextlib.closing(Http2Connection(port)) as connection:
        connection.send_headers(
            {":method": "POST", ":path": path, ":scheme": "http", ":authority": "x"}
            | {"content-length": "40000000"}
            | headers
        )
        connection.send_data(SMUGGLED)
        status = connection.read_status()
        with contextlib.suppress(ConnectionError):
            if ending == "end":  # as `curl --http2-prior-knowledge --data-binary @40MB`
                connection.send_data(b"", end=True)
            elif ending == "reset":
                connection.reset()
        return status


@pytest.mark.parametrize("ending", ["end", "reset", "close"])
@pytest.mark.parametrize("status", EARLY)
def test_refused_http2_upload_does_not_affect_others(
    proxied: Proxied, status: int, ending: str
) -> None:
    for number in range(4):
        assert upload_http2(proxied.port, f"/early/{status}", ending) == status
        for _ in range(3):
            assert proxied.post(b"%d" % number) == b"/other %d" % number
    assert "/smuggled" not in proxied.read_paths()


def upload_http1(port: int, path: str, headers: bytes, body: bytes) -> bytes:
    """Sends the beginning of a body and closes; returns the status line if there is one soon."""
    with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        connection.sendall(
            b"POST %s HTTP/1.1\r\nHost: x\r\n%s\r\n" % (path.encode(), headers) + body
        )
        with contextlib.suppress(ConnectionError, TimeoutError):
            return connection.recv(1 << 16).split(b"\r\n")[0]
    return b""


CHUNK = b"%x\r\n%s\r\n" % (len(SMUGGLED), SMUGGLED)
LENGTH, CHUNKED = b"Content-Length: 40000000\r\n", b"Transfer-Encoding: chunked\r\n"
UPLOADS = {
    "length": (LENGTH, SMUGGLED),
    "chunked": (CHUNKED, CHUNK),
    "both": (LENGTH + CHUNKED, CHUNK),
    "both, length first counted": (b"Content-Length: 5\r\n" + CHUNKED, CHUNK),
    "two lengths": (b"Content-Length: 5\r\n" + LENGTH, SMUGGLED),
    "chunked in another spelling": (LENGTH + b"Transfer-Encoding: xchunked\r\n", SMUGGLED),
}


@pytest.mark.parametrize("name", UPLOADS)
@pytest.mark.parametrize("path", [*(f"/early/{status}" for status in EARLY), "/read"])
def test_aborted_http1_upload_does_not_affect_others(
    proxied: Proxied, path: str, name: str
) -> None:
    headers, body = UPLOADS[name]
    for number in range(2):
        upload_http1(proxied.port, path, headers, body)
        assert proxied.post(b"%d" % number) == b"/other %d" % number
    assert "/smuggled" not in proxied.read_paths()


@pytest.mark.parametrize(
    "headers",
    [{"content-length": "5"}, {"transfer-encoding": "chunked"}, {"content-length": "5, 40000000"}],
    ids=str,
)
def test_body_over_http2_is_as_long_as_its_headers_say(
    proxied: Proxied, headers: dict[str, str]
) -> None:
    assert upload_http2(proxied.port, "/read", "end", **headers) in (None, 400)
    assert proxied.post(b"other") == b"/other other"
    assert "/smuggled" not in proxied.read_paths()


def test_haproxy_is_idle_after_uploads_that_were_refused(proxied: Proxied) -> None:
    """With the server connection reused, HAProxy 2.8.25 span on one core afterwards."""
    for status in EARLY:
        upload_http2(proxied.port, f"/early/{status}", "end")
    time.sleep(0.5)
    assert use_of(proxied.process, 3.0) < 0.05


def use_of(process: psutil.Process, seconds: float) -> float:
    """The share of one core that a process uses."""
    before = sum(process.cpu_times()[:2])
    time.sleep(seconds)
    return (sum(process.cpu_times()[:2]) - before) / seconds


def test_slow_headers_are_cut_off(proxied: Proxied) -> None:
    with socket.create_connection(("127.0.0.1", proxied.port), timeout=60) as connection:
        connection.sendall(b"POST /other HTTP/1.1\r\n")
        began = time.monotonic()
        answer = connection.recv(1 << 16)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - began < 2 * haproxy.REQUEST_TIMEOUT


@pytest.mark.parametrize("state", ["no application", "no replica", "replica is down"])
def test_until_the_application_is_there_clients_are_told_to_retry(
    tmp_path: Path, proxied: Proxied, state: str
) -> None:
    with run_haproxy(
        tmp_path,
        servers=claim_free_ports(1) if state == "replica is down" else [],
        application=state != "no application",
        fallback_port=proxied.port,  # as Ray's own proxy, which is never asked
    ) as running:
        url = f"http://127.0.0.1:{running.port}"
        time.sleep(1)  # a replica counts as up until its first checks have failed
        for path in ("/readyz", "/v1/colorize"):
            answer = httpx.get(url + path)
            assert answer.status_code == 503
            assert answer.headers["content-type"] == "application/problem+json"
            assert int(answer.headers["retry-after"]) >= 1
            assert answer.json()["type"] == "urn:rehue:problem:unavailable"
        with grpc.insecure_channel(f"127.0.0.1:{running.grpc_port}") as channel:
            call = channel.unary_unary("/rehue.v1.Colorizer/Colorize", bytes, bytes)
            with pytest.raises(grpc.RpcError) as caught:
                call(b"", timeout=10)
        assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


def test_replica_that_ends_during_a_request_is_a_503(tmp_path: Path) -> None:
    def accept_once(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                with connection:
                    ended = b"POST" in connection.recv(1 << 16)
                    if not ended:  # a health check
                        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept_once, args=(listener,), daemon=True).start()
        with run_haproxy(tmp_path, servers=[listener.getsockname()[1]]) as running:
            answer = httpx.post(f"http://127.0.0.1:{running.port}/v1/colorize", content=b"x")
        listener.shutdown(socket.SHUT_RDWR)
    assert answer.status_code == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["title"] == errors.Unavailable.title


def test_titles_and_types_are_the_applications() -> None:
    known = {
        f"urn:rehue:problem:{errors.get_reason_name(kind).lower().replace('_', '-')}": kind.title
        for kind in (errors.Unavailable, errors.Internal, errors.DeadlineExceeded)
    }
    used = {f"urn:rehue:problem:{page.kind}": page.title for page in haproxy.ERROR_PAGES.values()}
    assert used == known


def test_configuration_of_another_ray_is_refused() -> None:
    with pytest.raises(haproxy.UnknownConfiguration, match="frontend http_frontend"):
        haproxy.adapt_configuration("global\ndefaults\n    mode http\n", {})


def test_server_answers_others_while_uploads_are_refused(server: Server) -> None:
    """The same on the whole system: `REHUE_MAX_BYTES` refuses these uploads at their headers."""
    page = httpx.get(server.http_url).content
    (process,) = [
        child
        for child in psutil.Process(server.pid).children(recursive=True)
        if child.name() == "haproxy"
    ]
    for _ in range(8):
        assert upload_http2(server.ports["http"], "/v1/colorize", "end") == 413
        for _ in range(3):
            assert httpx.get(server.http_url, timeout=5).content == page
    time.sleep(0.5)
    assert use_of(process, 3.0) < 0.05
