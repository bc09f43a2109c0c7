"""How the SDK is configured: timeout, event loops, environment, key and proxy."""

import asyncio
import math
import threading

import pytest
from paths import PHOTOS

from rehue_client import AsyncClient, Client
from rehue_serve.testing.scripted import ScriptedServer

PHOTO = PHOTOS / "skimage_coffee.jpg"
DATA = PHOTO.read_bytes()


@pytest.mark.parametrize("protocol", ["http", "grpc"])
@pytest.mark.parametrize("timeout", [math.inf, 1e12, None])
def test_infinite_timeout_is_no_limit(
    scripted: ScriptedServer, protocol: str, timeout: float | None
) -> None:
    url = scripted.http_url if protocol == "http" else scripted.grpc_url
    with Client(url, timeout=timeout) as client:
        assert client.colorize(PHOTO, timeout=timeout).data == DATA
        assert client.ready(timeout=math.inf)
    assert scripted.requests[0].timeout is None
    with pytest.raises(ValueError, match="NaN"):
        Client(url, timeout=math.nan)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_one_async_client_works_in_several_event_loops(
    scripted: ScriptedServer, protocol: str
) -> None:
    client = AsyncClient(scripted.http_url if protocol == "http" else scripted.grpc_url)

    async def colorize() -> bytes:
        return (await client.colorize(PHOTO)).data

    for _ in range(4):
        assert asyncio.run(colorize()) == DATA
    answers: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: answers.append(asyncio.run(colorize()))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [DATA] * 4
    assert len(client._transports) <= 4  # those of closed loops are dropped

    async def close() -> None:
        await colorize()
        await client.close()

    asyncio.run(close())


def test_environment_names_server_and_key(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REHUE_SERVER", f" {scripted.http_url}, ")
    monkeypatch.setenv("REHUE_API_KEY", "secret\n")
    with Client() as client:
        client.colorize(PHOTO)
    assert scripted.requests[0].authorization == "Bearer secret"
    with Client(scripted.grpc_url, api_key="other") as client:
        client.colorize(PHOTO)
    assert scripted.requests[1].authorization == "Bearer other"


@pytest.mark.parametrize("key", ["two\nlines", "schl\u00fcssel", "tab\there"])
def test_key_that_headers_cannot_carry_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="single line"):
        Client("grpc://127.0.0.1:9", api_key=key)


PROXIES = ["http_proxy", "HTTP_PROXY", "https_proxy", "all_proxy", "grpc_proxy"]


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_proxy_is_bypassed_for_this_machine(
    scripted: ScriptedServer, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in PROXIES:
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    url = scripted.http_url if protocol == "http" else scripted.grpc_url
    with Client(url, timeout=5) as client:
        assert client.colorize(PHOTO).data == DATA
    with Client(url.replace("127.0.0.1", "localhost"), timeout=5) as client:
        assert client.colorize(PHOTO).data == DATA


def test_socks_proxy_without_its_package_is_a_sentence(
    scripted: ScriptedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:9")
    with Client(scripted.http_url) as client:  # this machine: no proxy
        assert client.colorize(PHOTO).data == DATA
    with (
        Client("http://photos.example") as client,
        pytest.raises(
            ValueError, match=r"http://photos.example:80 \(through the proxy in all_proxy"
        ),
    ):
        client.colorize(PHOTO)


@pytest.mark.parametrize("protocol", ["http", "grpc"])
def test_error_names_the_proxy_without_its_password(
    protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("http_proxy", "http://user:password@127.0.0.1:9")
    with (
        Client(f"{protocol}://photos.example:80", timeout=1.5) as client,
        pytest.raises(Exception, match="through the proxy in http_proxy") as caught,
    ):
        client.colorize(PHOTO)
    assert "password" not in str(caught.value)
