"""The SDK against scripted servers, over both protocols and with both clients."""

import asyncio
import contextlib
import email.utils
import inspect
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from rehue_client import (
    AsyncClient,
    Client,
    DeadlineExceeded,
    ImageTooLarge,
    InvalidImage,
    InvalidParameter,
    Model,
    NotServing,
    Overloaded,
    Picture,
    ProtocolError,
    RehueError,
    Retries,
    SourceError,
    Unauthenticated,
    Unavailable,
    errors,
)
from rehue_serve.testing.scripted import (
    STATUSES,
    Delay,
    ForeignError,
    Refusal,
    ScriptedServer,
    serve,
)

PHOTO = Path(__file__).parents[1] / "photos" / "skimage_coffee.jpg"
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


def test_request_and_response_are_complete(
    colorize: Colorize, url: str, scripted: ScriptedServer
) -> None:
    picture = colorize(
        url, model="seed", strength=0.5, format="png", quality=80, timeout=9, api_key="secret"
    )
    [request] = scripted.requests
    assert request.image == PHOTO.read_bytes()
    assert request.options == {"model": "seed", "strength": "0.5", "format": "png", "quality": "80"}
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


@pytest.mark.parametrize("code", STATUSES)
def test_each_reason_has_its_error(
    colorize: Colorize, url: str, scripted: ScriptedServer, code: str
) -> None:
    scripted.script = [Refusal(code)]
    with pytest.raises(RehueError) as caught:
        colorize(url, retries=Retries(attempts=1))
    assert type(caught.value) is errors.ERRORS_BY_REASON[code]
    assert str(caught.value) == "as the script says"
    assert caught.value.request_id == "r-1"


@pytest.mark.parametrize("code", sorted(set(STATUSES) - {"OVERLOADED", "UNAVAILABLE"}))
def test_final_errors_are_not_retried(
    colorize: Colorize, url: str, scripted: ScriptedServer, code: str
) -> None:
    scripted.script = [Refusal(code)]
    with pytest.raises(RehueError):
        colorize(url)
    assert len(scripted.requests) == 1


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


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (ForeignError(401, grpc.StatusCode.PERMISSION_DENIED), Unauthenticated),
        (ForeignError(429, grpc.StatusCode.RESOURCE_EXHAUSTED), Overloaded),
        (ForeignError(408, grpc.StatusCode.ABORTED), Unavailable),
        (ForeignError(500, grpc.StatusCode.UNKNOWN), Unavailable),
        (ForeignError(404, grpc.StatusCode.NOT_FOUND), NotServing),
        (ForeignError(504, grpc.StatusCode.DEADLINE_EXCEEDED), DeadlineExceeded),
        (ForeignError(418, grpc.StatusCode.DATA_LOSS), ProtocolError),
    ],
    ids=lambda value: str(getattr(value, "http", "")),
)
def test_status_alone_has_its_error(
    colorize: Colorize,
    url: str,
    scripted: ScriptedServer,
    answer: ForeignError,
    error: type[RehueError],
) -> None:
    scripted.script = [answer]
    with pytest.raises(RehueError) as caught:
        colorize(url, retries=Retries(attempts=1))
    assert type(caught.value) is error


def test_message_over_the_servers_limit_is_too_large(
    colorize: Colorize, url: str, scripted: ScriptedServer
) -> None:
    text = "SERVER: Received message larger than max (9 vs. 4)"
    scripted.script = [ForeignError(413, grpc.StatusCode.RESOURCE_EXHAUSTED, text)]
    with pytest.raises(ImageTooLarge):
        colorize(url)
    assert len(scripted.requests) == 1


def test_foreign_server_is_a_protocol_error(
    colorize: Colorize, url: str, scripted: ScriptedServer
) -> None:
    scripted.script = [ForeignError(405, grpc.StatusCode.UNIMPLEMENTED, "what?")]
    with pytest.raises(ProtocolError):
        colorize(url)
    assert len(scripted.requests) == 1


def test_answer_that_is_not_an_image_is_a_protocol_error(
    colorize: Colorize, scripted: ScriptedServer
) -> None:
    scripted.script = [ForeignError(200, grpc.StatusCode.OK, "<html>")]
    with pytest.raises(ProtocolError, match="text/plain instead of an image"):
        colorize(scripted.http_url)


def test_deadline_holds_when_the_server_is_slow(
    colorize: Colorize, url: str, scripted: ScriptedServer
) -> None:
    scripted.script = [Delay(6)]
    start = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        colorize(url, timeout=0.4)
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


def test_refused_connection_is_unavailable(colorize: Colorize, protocol: str) -> None:
    quick = Retries(attempts=2, first=0.01, longest=0.01)
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1"):
        colorize(f"{protocol}://127.0.0.1:{find_free_port()}", retries=quick)


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


def test_invalid_image_does_not_count_against_the_server(
    colorize: Colorize, url: str, scripted: ScriptedServer
) -> None:
    """An invalid photograph does not cause a cooldown."""
    scripted.script = [Refusal("INVALID_IMAGE")]
    with Client(url) as client:
        with pytest.raises(InvalidImage):
            client.colorize(b"no picture")
        assert client.colorize(PHOTO).data


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
