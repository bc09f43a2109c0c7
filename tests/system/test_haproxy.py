"""Clients behind HAProxy: none gets another's bytes, and a slow one stops no other."""

import contextlib
import socket
import time
from pathlib import Path

import grpc
import httpx
import psutil
import pytest
from early_answers import EARLY, SMUGGLED, upload_http1
from http2 import Http2Connection, upload_http2
from proxied import Proxied, measure_use, read_grpc_stalled, run_haproxy

from rehue_serve import haproxy
from rehue_serve.testing.servers import Server


@pytest.mark.parametrize("ending", ["end", "reset", "close"])
@pytest.mark.parametrize("status", EARLY)
def test_refused_http2_upload_does_not_affect_others(
    proxied: Proxied, status: int, ending: str
) -> None:
    for number in range(4):
        assert upload_http2(proxied.port, f"/early/{status}", SMUGGLED, ending) == status
        for _ in range(3):
            assert proxied.post(b"%d" % number) == b"/other %d" % number
    assert "/smuggled" not in proxied.read_paths()


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
    assert upload_http2(proxied.port, "/read", SMUGGLED, **headers) in (None, 400)
    assert proxied.post(b"other") == b"/other other"
    assert "/smuggled" not in proxied.read_paths()


def test_haproxy_is_idle_after_uploads_that_were_refused(proxied: Proxied) -> None:
    """With the server connection reused, HAProxy 2.8.25 span on one core afterwards."""
    for status in EARLY:
        upload_http2(proxied.port, f"/early/{status}", SMUGGLED)
    time.sleep(0.5)
    assert measure_use(proxied.process, 3.0) < 0.05


# The beginning of headers; over HTTP/2 of a frame that promises 16,000 bytes.
SLOW_HEADERS = {
    "http/1.1": b"POST /other HTTP/1.1\r\n",
    "http/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    + bytes.fromhex("000000 04 00 00000000  003e80 01 04 00000001"),
}


@pytest.mark.parametrize("protocol", SLOW_HEADERS)
def test_slow_headers_are_cut_off(proxied: Proxied, protocol: str) -> None:
    with socket.create_connection(("127.0.0.1", proxied.port), timeout=60) as connection:
        connection.sendall(SLOW_HEADERS[protocol])
        began = time.monotonic()
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert time.monotonic() - began < 2 * haproxy.REQUEST_TIMEOUT
    assert answer.startswith(b"HTTP/1.1 408 ") or protocol == "http/2"


@pytest.mark.parametrize("ending", ["end", "reset", "close"])
def test_refused_grpc_call_does_not_affect_others(proxied: Proxied, ending: str) -> None:
    """Refused before its message is received, as for a wrong key."""
    for number in range(4):
        with contextlib.closing(Http2Connection(proxied.grpc_port)) as connection:
            connection.send_headers(
                {":method": "POST", ":path": "/early", ":scheme": "http", ":authority": "x"}
                | {"content-type": "application/grpc", "te": "trailers"}
            )
            connection.send_data((40_000_000).to_bytes(5) + SMUGGLED)
            assert connection.read_status() == 200  # gRPC's own status is in the trailers
            with contextlib.suppress(ConnectionError):
                if ending == "end":
                    connection.send_data(b"", end=True)
                elif ending == "reset":
                    connection.reset()
            for _ in range(3):
                assert proxied.call(b"%d" % number) == b"%d" % number
    with pytest.raises(grpc.RpcError, match="no key"):
        proxied.call(b"", "/early")


def test_grpc_clients_that_do_not_read_stop_nobody(proxied: Proxied) -> None:
    """Four of them stopped every other call while all shared a connection to the replica."""
    with contextlib.ExitStack() as stack:
        for _ in range(8):
            stalled = read_grpc_stalled(proxied.grpc_port, "/large")
            stack.enter_context(contextlib.closing(stalled))
        time.sleep(0.5)
        for number in range(6):
            assert proxied.call(b"%d" % number) == b"%d" % number


def test_clients_that_do_not_read_are_cut_off(
    tmp_path: Path, http_port: int, grpc_port: int
) -> None:
    """Waiting for an answer that takes long is no pause."""
    with (
        run_haproxy(tmp_path, servers=[http_port], grpc_servers=[grpc_port], pause=1) as running,
        socket.create_connection(("127.0.0.1", running.port), timeout=20) as connection,
        contextlib.closing(read_grpc_stalled(running.grpc_port, "/large")) as stalled,
    ):
        connection.sendall(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        assert httpx.get(f"http://127.0.0.1:{running.port}/slow", timeout=20).content == b"/slow "
        received = 0
        while part := connection.recv(1 << 20):
            received += len(part)
        assert 0 < received < 30_000_000
        assert stalled.read_status() == 200
        assert stalled.read_status() is None  # reset


def test_server_answers_others_while_uploads_are_refused(server: Server) -> None:
    """The same on the whole system: `REHUE_MAX_BYTES` refuses these uploads at their headers."""
    page = httpx.get(server.http_url).content
    found = psutil.Process(server.pid).children(recursive=True)
    # After a reload the process before may still end its connections.
    haproxies = [child for child in found if child.name() == "haproxy"]
    process = max(haproxies, key=psutil.Process.create_time)
    for _ in range(8):
        assert upload_http2(server.ports["http"], "/v1/colorize", SMUGGLED) == 413
        for _ in range(3):
            assert httpx.get(server.http_url, timeout=5).content == page
    time.sleep(0.5)
    assert measure_use(process, 3.0) < 0.05
