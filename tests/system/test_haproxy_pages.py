"""What clients get from HAProxy itself: problems, and what its start refuses."""

import contextlib
import json
import socket
import threading
import time
from http.client import HTTPResponse
from pathlib import Path

import grpc
import httpx
import psutil
import pytest
from proxied import Proxied, run_haproxy

from rehue_serve import errors, haproxy, haproxy_pages
from rehue_serve.http_errors import get_problem_type
from rehue_serve.ports import claim_free_ports


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


@pytest.mark.parametrize(
    ("request_line", "headers", "status"),
    [
        (b"GET /v1?a=%s HTTP/1.1" % (b"b" * 20_000), b"", 414),
        (b"GET /v1 HTTP/1.1", b"Cookie: %s\r\n" % (b"b" * 20_000), 431),
        (b"FOO /v1 HTTP/1.1", b"", 400),  # uvicorn answers this in plain text
        (b"GET v1 HTTP/1.1", b"", 400),
    ],
    ids=["target", "headers", "method", "path"],
)
def test_requests_that_the_application_never_sees_get_a_problem(
    proxied: Proxied, request_line: bytes, headers: bytes, status: int
) -> None:
    with socket.create_connection(("127.0.0.1", proxied.port), timeout=10) as connection:
        connection.sendall(request_line + b"\r\nHost: x\r\n" + headers + b"\r\n")
        answer = HTTPResponse(connection)
        answer.begin()
        problem = json.loads(answer.read())
    assert answer.status == problem["status"] == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["title"]
    assert str(haproxy.MAX_HEAD // 1000) in problem["detail"] or status == 400


@pytest.mark.xfail(strict=True, reason="HAProxy has no error files for these before version 3.3")
@pytest.mark.parametrize(
    "request_bytes",
    [b"nothing of HTTP\r\n\r\n", b"GET / HTTP/1.1\r\nX: %s\r\n\r\n" % (b"x" * 40_000)],
    ids=["bytes", "headers"],
)
def test_what_haproxy_cannot_parse_gets_a_problem(proxied: Proxied, request_bytes: bytes) -> None:
    """When this passes, `docs/faults.md` has a limitation less."""
    with socket.create_connection(("127.0.0.1", proxied.port), timeout=10) as connection:
        connection.sendall(request_bytes)
        answer = HTTPResponse(connection)
        answer.begin()
    assert answer.headers["content-type"] == "application/problem+json"


def test_hundreds_of_headers_pass(proxied: Proxied) -> None:
    headers = {f"x-{number}": "y" for number in range(500)}
    assert httpx.get(f"http://127.0.0.1:{proxied.port}/v1", headers=headers).text == "/v1 "


def test_titles_and_types_are_the_applications() -> None:
    known = {
        get_problem_type(kind): kind.title
        for kind in (
            errors.Unavailable,
            errors.Internal,
            errors.DeadlineExceeded,
            errors.Overloaded,
        )
    }
    pages = haproxy_pages.ERROR_PAGES.values()
    used = {f"urn:rehue:problem:{page.kind}": page.title for page in pages if ":" not in page.kind}
    assert used == known


def test_haproxy_listens_on_its_own_address_alone(proxied: Proxied) -> None:
    """Its statistics too, which Ray offers to every network."""
    listening = [
        connection.laddr.ip
        for connection in proxied.process.net_connections()
        if connection.status == psutil.CONN_LISTEN
    ]
    assert listening == ["127.0.0.1"] * 4


def test_configuration_of_another_ray_is_refused(tmp_path: Path) -> None:
    pages = haproxy_pages.write_error_pages(tmp_path)
    known = f"global\n    {haproxy.BUFFER[0]}\ndefaults\n    mode http\n"
    with pytest.raises(haproxy.UnknownConfiguration, match="frontend http_frontend"):
        haproxy.adapt_configuration(known, pages)
