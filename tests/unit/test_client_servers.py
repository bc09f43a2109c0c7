"""Several servers: those that fail, are slow or overloaded get fewer calls."""

import time

import pytest
from client_calls import BUSY, PHOTO, Colorize, get_url, serve_raw

from rehue_client import (
    Client,
    InvalidImage,
)
from rehue_serve.testing.scripted import (
    Delay,
    Refusal,
    ScriptedServer,
    serve,
)


def test_dropped_connections_go_to_another_server(
    colorize: Colorize, url: str, scripted: ScriptedServer, protocol: str
) -> None:
    with serve_raw(lambda connection: None) as port:
        start = time.monotonic()
        for _ in range(4):
            colorize([f"{protocol}://127.0.0.1:{port}", url])
        assert time.monotonic() - start < 3
    assert len(scripted.requests) == 4


def test_failing_server_is_avoided(scripted: ScriptedServer, protocol: str, url: str) -> None:
    with serve(ScriptedServer(always=lambda image: BUSY)) as failing:
        with Client([get_url(failing, protocol), url]) as client:
            for _ in range(20):
                client.colorize(PHOTO)
        assert len(scripted.requests) == 20
        assert len(failing.requests) <= 2


def test_faster_server_gets_more_of_the_load(
    scripted: ScriptedServer, protocol: str, url: str
) -> None:
    with serve(ScriptedServer(always=lambda image: Delay(0.3))) as slow:
        scripted.always = lambda image: Delay(0.02)
        with Client([get_url(slow, protocol), url]) as client:
            results = list(client.colorize_many([PHOTO] * 40, concurrency=8))
    assert all(result.picture for result in results)
    assert len(scripted.requests) + len(slow.requests) == 40
    # Chance alone would give it a half.
    assert 1 <= len(slow.requests) <= 12


def test_overloaded_server_is_avoided(
    colorize: Colorize, scripted: ScriptedServer, protocol: str, url: str
) -> None:
    with serve(ScriptedServer(always=lambda image: Refusal("OVERLOADED", retry_after=20))) as full:
        start = time.monotonic()
        for _ in range(3):
            colorize([get_url(full, protocol), url])
        assert time.monotonic() - start < 3
    assert len(scripted.requests) == 3


def test_invalid_image_does_not_count_against_the_server(
    colorize: Colorize, url: str, scripted: ScriptedServer
) -> None:
    """An invalid photograph does not cause a cooldown."""
    scripted.script = [Refusal("INVALID_IMAGE")]
    with Client(url) as client:
        with pytest.raises(InvalidImage):
            client.colorize(b"no picture")
        assert client.colorize(PHOTO).data
