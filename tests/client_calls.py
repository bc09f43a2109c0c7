"""Call a scripted server with both clients, over both protocols."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest
from paths import PHOTOS

from rehue_client import (
    AsyncClient,
    Client,
    Picture,
)
from rehue_serve.testing.scripted import (
    ForeignError,
    ScriptedServer,
    serve,
)

PHOTO = PHOTOS / "skimage_coffee.jpg"
BUSY = ForeignError(503, grpc.StatusCode.UNAVAILABLE)
Colorize = Callable[..., Picture]


def colorize_sync(targets: str | list[str], source: Any = PHOTO, **options: Any) -> Picture:
    client_options: dict[str, Any] = {
        k: options.pop(k) for k in ("api_key", "retries") if k in options
    }
    with Client(targets, **client_options) as client:
        return client.colorize(source, **options)


def colorize_async(targets: str | list[str], source: Any = PHOTO, **options: Any) -> Picture:
    client_options: dict[str, Any] = {
        k: options.pop(k) for k in ("api_key", "retries") if k in options
    }

    async def run() -> Picture:
        async with AsyncClient(targets, **client_options) as client:
            return await client.colorize(source, **options)

    return asyncio.run(run())


@pytest.fixture(params=[colorize_sync, colorize_async])
def colorize(request: pytest.FixtureRequest) -> Colorize:
    param: Colorize = request.param
    return param


@pytest.fixture(params=["http", "grpc"])
def protocol(request: pytest.FixtureRequest) -> str:
    param: str = request.param
    return param


@pytest.fixture
def scripted() -> Iterator[ScriptedServer]:
    with serve(ScriptedServer()) as server:
        yield server


@pytest.fixture
def url(scripted: ScriptedServer, protocol: str) -> str:
    return get_url(scripted, protocol)


def get_url(scripted: ScriptedServer, protocol: str) -> str:
    return scripted.http_url if protocol == "http" else scripted.grpc_url


def find_free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]  # type: ignore[no-any-return]


@contextlib.contextmanager
def serve_raw(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """Listen on a port, and call ``answer`` with each connection after its first byte."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        # Until the listener is closed. Clients that hang up are ignored.
        while listener.fileno() != -1:
            with contextlib.suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.recv(1)
                    answer(connection)

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()
