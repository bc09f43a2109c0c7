"""A server that restarts, or does not answer in Rehue's format, as the client sees it."""

import asyncio
import threading
import time
from collections.abc import Callable

import grpc
import pytest

from rehue_client import (
    AsyncClient,
    Client,
    NotServing,
    Overloaded,
    ProtocolError,
    Result,
    Retries,
    Unavailable,
    retries,
)
from rehue_serve.testing.scripted import Delay, ForeignError, ScriptedServer, serve

NOT_FOUND = ForeignError(404, grpc.StatusCode.NOT_FOUND, "Application 'colorizer' not found")
PATIENT = Retries(longest=0.5)
# What gRPC makes of HAProxy's HTTP 404.
PROXY_NOT_FOUND = ForeignError(
    404, grpc.StatusCode.UNIMPLEMENTED, "Received http2 header with status: 404"
)
QUICK = Retries(first=0.01, longest=0.05)
PHOTOS = [b"photo %d" % number for number in range(60)]


def collect_sync(url: str) -> list[Result]:
    with Client(url, retries=PATIENT) as client:
        return list(client.colorize_many(PHOTOS))


def collect_async(url: str) -> list[Result]:
    async def run() -> list[Result]:
        async with AsyncClient(url, retries=PATIENT) as client:
            return [result async for result in client.colorize_many(PHOTOS)]

    return asyncio.run(run())


def run_restarting_server(
    ports: dict[str, int], scripted: ScriptedServer, done: threading.Event, pause: float
) -> None:
    """Run the server; stop it twice, each time for ``pause`` s, then answer 404 for a while."""
    for target in (15, 35):
        with serve(scripted, **ports):
            while len(scripted.requests) < target:
                time.sleep(0.01)
        time.sleep(pause)
        scripted.script = [NOT_FOUND] * 20
    with serve(scripted, **ports):
        done.wait(60)


@pytest.mark.parametrize("collect", [collect_sync, collect_async])
@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_batch_loses_nothing_when_the_server_restarts_twice(
    collect: Callable[[str], list[Result]], protocol: str
) -> None:
    scripted = ScriptedServer(always=None)
    with serve(scripted):
        http, rpc = (int(url.rpartition(":")[2]) for url in (scripted.http_url, scripted.grpc_url))
    done = threading.Event()
    scripted.script = [Delay(0.02)] * 15
    ports = {"http_port": http, "grpc_port": rpc}
    thread = threading.Thread(target=run_restarting_server, args=(ports, scripted, done, 1.5))
    thread.start()
    try:
        results = collect(scripted.http_url if protocol == "http" else scripted.grpc_url)
    finally:
        done.set()
        thread.join()
    assert [result.error for result in results] == [None] * len(PHOTOS)
    assert sorted(result.picture.data for result in results) == sorted(PHOTOS)  # type: ignore[union-attr]


def test_default_number_of_attempts_outlasts_a_start(url: str, scripted: ScriptedServer) -> None:
    """Eight attempts, the former default, were over after ten seconds."""
    scripted.script = [ForeignError(503, grpc.StatusCode.UNAVAILABLE)] * 40
    with Client(url, retries=QUICK) as client:
        assert client.colorize(b"photo").data == b"photo"
        assert client._timeout >= 120  # type: ignore[operator]
    assert Retries().patience >= 120


@pytest.mark.parametrize("not_found", [NOT_FOUND, PROXY_NOT_FOUND], ids=["Ray", "proxy"])
def test_not_found_of_a_starting_server_is_retried(
    url: str, scripted: ScriptedServer, not_found: ForeignError
) -> None:
    scripted.script = [not_found] * 5
    with Client(url, retries=QUICK) as client:
        assert client.colorize(b"photo").data == b"photo"
    assert len(scripted.requests) == 6


def test_wrong_address_is_reported_after_a_while(
    url: str, scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "NOT_SERVING_PATIENCE", 0.5)
    scripted.always = lambda image: NOT_FOUND
    start = time.monotonic()
    with Client(url, retries=QUICK) as client, pytest.raises(ProtocolError) as caught:
        client.colorize(b"photo")
    assert type(caught.value) is NotServing
    assert 0.4 < time.monotonic() - start < 2


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (ForeignError(503, grpc.StatusCode.UNAVAILABLE), Unavailable),
        (ForeignError(429, grpc.StatusCode.RESOURCE_EXHAUSTED), Overloaded),
    ],
    ids=["unavailable", "overloaded"],
)
def test_patience_ends(
    url: str, scripted: ScriptedServer, answer: ForeignError, error: type[Exception]
) -> None:
    scripted.always = lambda image: answer
    patient = Retries(patience=0.6, first=0.05, longest=0.1)
    start = time.monotonic()
    with Client(url, retries=patient) as client, pytest.raises(error):
        client.colorize(b"photo")
    assert 0.4 < time.monotonic() - start < 2
    assert len(scripted.requests) > 3


@pytest.mark.parametrize(
    "options", [{"attempts": 0}, {"patience": -1}, {"patience": float("nan")}, {"first": 9}]
)
def test_invalid_retries_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="needs"):
        Retries(**options)  # type: ignore[arg-type]
