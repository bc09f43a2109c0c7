"""What the SDK sends and returns, over both protocols and with both clients."""

import asyncio
import inspect

import pytest
from client_calls import PHOTO, Colorize, find_free_port

from rehue_client import (
    AsyncClient,
    Client,
    InvalidParameter,
    Model,
    SourceError,
)
from rehue_serve.testing.scripted import (
    ScriptedServer,
)


def test_request_and_response_are_complete(
    colorize: Colorize, url: str, scripted: ScriptedServer
) -> None:
    picture = colorize(
        url, model="seed", strength=0.5, format="png", quality=80, metadata="none", depth="8",
        profile="keep", mark="visible", timeout=9, api_key="secret",
    )  # fmt: skip
    [request] = scripted.requests
    assert request.image == PHOTO.read_bytes()
    assert request.options == {
        "model": "seed", "strength": "0.5", "format": "png", "quality": "80", "metadata": "none",
        "depth": "8", "profile": "keep", "mark": "visible",
    }  # fmt: skip
    assert request.authorization == "Bearer secret"
    assert request.timeout == pytest.approx(9, abs=0.5)
    assert (picture.data, picture.media_type) == (PHOTO.read_bytes(), "image/png")
    assert (picture.model, picture.request_id) == ("rehue/1", "r-1")
    assert (picture.timings.decode, picture.timings.infer) == (1.5, 20)
    assert picture.timings.total == 21.5


def test_defaults_are_left_to_the_server(
    colorize: Colorize, url: str, scripted: ScriptedServer
) -> None:
    colorize(url)
    [request] = scripted.requests
    assert {"model", "quality"}.isdisjoint(request.options)
    assert request.authorization is None


def test_each_kind_of_source_is_read(
    colorize: Colorize, url: str, scripted: ScriptedServer
) -> None:
    image = PHOTO.read_bytes()
    with PHOTO.open("rb") as file:
        for source in (image, PHOTO, str(PHOTO), file):
            assert colorize(url, source).data == image


def test_source_that_cannot_be_read(colorize: Colorize, url: str, scripted: ScriptedServer) -> None:
    with pytest.raises(SourceError, match=r"nowhere\.jpg: No such file"):
        colorize(url, "nowhere.jpg")
    assert not scripted.requests


def test_unknown_format_is_not_sent(colorize: Colorize, url: str, scripted: ScriptedServer) -> None:
    with pytest.raises(InvalidParameter, match="'bmp' is not one of auto, jpeg"):
        colorize(url, format="bmp")
    assert not scripted.requests


def test_ready(protocol: str, url: str, scripted: ScriptedServer) -> None:
    async def ready() -> bool:
        async with AsyncClient(url) as client:
            return await client.ready()

    with Client(url) as client:
        assert client.ready()
        assert asyncio.run(ready())
        scripted.ready = False
        assert not client.ready()
        assert not asyncio.run(ready())
    with Client([f"{protocol}://127.0.0.1:{find_free_port()}"]) as client:
        assert not client.ready()


def test_models(url: str) -> None:
    async def models() -> list[Model]:
        async with AsyncClient(url) as client:
            return await client.models()

    with Client(url) as client:
        assert [m.default for m in client.models()] == [True]
        assert [(m.name, m.version, m.state) for m in client.models()] == [("rehue", "1", "READY")]
        assert client.models() == asyncio.run(models())


def test_closed_client_raises(url: str) -> None:
    client = Client(url)
    client.close()
    with pytest.raises(RuntimeError, match="closed"):
        client.colorize(PHOTO)


def test_invalid_address_is_named() -> None:
    for target in (
        "127.0.0.1:9000",
        "ftp://host",
        "grpc://",
        "grpc://host/path",
        "http://u:p@host",
    ):
        with pytest.raises(ValueError, match=target):
            Client(target)


def get_signatures(kind: type) -> dict[str, inspect.Signature]:
    names = {"__init__", *(name for name in dir(kind) if not name.startswith("_"))}
    return {name: inspect.signature(getattr(kind, name)) for name in names}


def test_both_clients_have_the_same_signatures() -> None:
    sync_api, async_api = get_signatures(Client), get_signatures(AsyncClient)
    assert sync_api.keys() == async_api.keys()
    for name in sync_api:
        ours, theirs = sync_api[name].parameters, async_api[name].parameters
        assert list(ours) == list(theirs), name
        for word in ours:
            assert ours[word].kind == theirs[word].kind, (name, word)
            assert ours[word].default == theirs[word].default, (name, word)
            if word != "sources":  # AsyncClient takes asynchronous ones as well
                assert ours[word].annotation == theirs[word].annotation, (name, word)
