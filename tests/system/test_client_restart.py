"""A batch under which the whole server restarts twice loses nothing."""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import httpx
import pytest

from rehue_client import Client, Result
from rehue_serve.testing.servers import Server, start_server
from rehue_serve.testing.tritons import SleepingTriton

RESTARTS = 2


def start_on_ports(ports: dict[str, int], triton: SleepingTriton, log: Path) -> Server:
    settings = {f"{name}_port": str(port) for name, port in ports.items()}
    server = start_server(log, triton_urls=triton.url, **settings)  # type: ignore[arg-type]
    server.ports.update(ports)
    return server


def feed(photo: bytes, done: threading.Event) -> Iterator[tuple[int, bytes]]:
    """Yield photographs, some fifty a second, until ``done``, and some more."""
    number = 0
    end = float("inf")
    while time.monotonic() < end:
        yield number, photo
        number += 1
        time.sleep(0.02)
        if done.is_set() and end == float("inf"):
            end = time.monotonic() + 2


def look(server: Server) -> set[str]:
    """Return what a client without retries gets: HTTP's status and type, gRPC's status."""
    seen = set()
    with contextlib.suppress(httpx.TransportError):
        answer = httpx.get(f"{server.http_url}/readyz", timeout=5)
        retry = " Retry-After" if "retry-after" in answer.headers else ""
        seen.add(f"{answer.status_code} {answer.headers['content-type']}{retry}")
    with grpc.insecure_channel(server.grpc_url.removeprefix("grpc://")) as channel:
        try:
            channel.unary_unary("/grpc.health.v1.Health/Check", bytes, bytes)(b"", timeout=5)
        except grpc.RpcError as error:
            seen.add(error.code().name)
    return seen


@pytest.mark.timeout(600)
def test_batch_loses_nothing_when_the_server_restarts_twice(
    sleepers: list[SleepingTriton], photo: bytes, tmp_path: Path
) -> None:
    server = start_server(tmp_path / "log", triton_urls=sleepers[0].url)
    ports = server.ports
    seen: set[str] = set()
    done = threading.Event()
    results: dict[str, list[Result]] = {"http": [], "grpc": []}

    def colorize(protocol: str) -> None:
        with Client(server.urls[protocol]) as client:
            results[protocol] += client.colorize_many(feed(photo, done))

    threads = [threading.Thread(target=colorize, args=(protocol,)) for protocol in results]
    try:
        for thread in threads:
            thread.start()  # before the server is ready, as in a script that starts both
        server.wait_until_ready(lambda: seen.update(look(server)))
        for _ in range(RESTARTS):
            time.sleep(2)
            server.stop()
            server = start_on_ports(ports, sleepers[0], tmp_path / "log")
            server.wait_until_ready()
    finally:
        done.set()
        for thread in threads:
            thread.join()
        server.stop()
    # While it starts nothing is final: no 404 and no NOT_FOUND.
    assert seen - {"200 text/plain; charset=utf-8", "DEADLINE_EXCEEDED"} <= {
        "503 application/problem+json Retry-After",
        "UNAVAILABLE",
    }
    for protocol, outcomes in results.items():
        assert {str(result.error) for result in outcomes if result.error} == set(), protocol
        assert sorted(result.key for result in outcomes) == list(range(len(outcomes)))
        assert len(outcomes) > 50
        print(protocol, len(outcomes), "photographs over", RESTARTS, "restarts, none lost")
