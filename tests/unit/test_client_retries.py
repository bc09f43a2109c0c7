"""Retries, their pauses, and the caller's deadline."""

import email.utils
import socket
import threading
import time

import grpc
import pytest
from client_calls import BUSY, Colorize, find_free_port, serve_raw

from rehue_client import (
    DeadlineExceeded,
    Overloaded,
    Retries,
    Unavailable,
)
from rehue_serve.testing.scripted import (
    Delay,
    ForeignError,
    Refusal,
    ScriptedServer,
    serve,
)


@pytest.mark.parametrize("code", ["OVERLOADED", "UNAVAILABLE"])
def test_retry_after_is_respected(
    colorize: Colorize, url: str, scripted: ScriptedServer, code: str
) -> None:
    scripted.script = [Refusal(code, retry_after=1)]
    # gRPC rounds deadlines up on the wire, long ones to whole minutes.
    colorize(url, timeout=8)
    first, second = scripted.requests
    assert 1 <= second.time - first.time < 1.5
    # The server learns what is left of the caller's time, not the whole again.
    assert second.timeout <= first.timeout - 0.9  # type: ignore[operator]


def test_retry_after_as_a_date_is_respected(colorize: Colorize, scripted: ScriptedServer) -> None:
    date = email.utils.formatdate(time.time() + 2, usegmt=True)
    scripted.script = [
        ForeignError(503, grpc.StatusCode.UNAVAILABLE, headers=(("Retry-After", date),)),
    ]
    colorize(scripted.http_url)
    first, second = scripted.requests
    # Dates are of whole seconds.
    assert 0.9 < second.time - first.time < 2.5


def test_no_pause_goes_past_the_deadline(
    colorize: Colorize, url: str, scripted: ScriptedServer
) -> None:
    scripted.script = [Refusal("OVERLOADED", retry_after=30)]
    start = time.monotonic()
    with pytest.raises(Overloaded) as caught:
        colorize(url, timeout=5)
    assert time.monotonic() - start < 1
    assert caught.value.retry_after == 30
    assert len(scripted.requests) == 1


def test_errors_without_details_are_retried(
    colorize: Colorize, url: str, scripted: ScriptedServer
) -> None:
    scripted.script = [BUSY, ForeignError(502, grpc.StatusCode.INTERNAL), None]
    colorize(url)
    assert len(scripted.requests) == 3


def test_attempts_are_limited(colorize: Colorize, url: str, scripted: ScriptedServer) -> None:
    scripted.always = lambda image: BUSY
    with pytest.raises(Unavailable):
        colorize(url, retries=Retries(attempts=3, first=0.01, longest=0.01))
    assert len(scripted.requests) == 3


def test_deadline_holds_when_the_server_is_slow(
    colorize: Colorize, url: str, scripted: ScriptedServer
) -> None:
    scripted.script = [Delay(6)]
    start = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        colorize(url, timeout=1)
    assert time.monotonic() - start < 4
    assert len(scripted.requests) == 1


def test_deadline_holds_when_the_answer_trickles(colorize: Colorize) -> None:
    def trickle(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\n\r\n")
        for _ in range(60):
            connection.sendall(b".")
            time.sleep(0.05)

    with serve_raw(trickle) as port:
        start = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            colorize(f"http://127.0.0.1:{port}", timeout=0.5)
        assert time.monotonic() - start < 1.5


def test_call_waits_for_a_server_that_starts_late(colorize: Colorize, protocol: str) -> None:
    scripted = ScriptedServer()
    ports = {f"{protocol}_port": find_free_port()}
    done = threading.Event()

    def late() -> None:
        time.sleep(0.7)
        with serve(scripted, **ports):
            done.wait(20)

    thread = threading.Thread(target=late)
    thread.start()
    try:
        colorize(f"{protocol}://127.0.0.1:{ports[f'{protocol}_port']}")
    finally:
        done.set()
        thread.join()
    assert len(scripted.requests) == 1
