"""Callers who do not read their answers: their memory is limited, and others are served."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc
import pytest
import uvicorn
from serving import serve_grpc, start_service
from starlette.types import ASGIApp, Receive, Scope, Send

from rehue_client.v1 import rehue_pb2
from rehue_client.v1.rehue_pb2_grpc import ColorizerStub
from rehue_core.edits import Edits
from rehue_serve import http, uploads
from rehue_serve.answers import PictureResponse
from rehue_serve.candidates import Candidate, Candidates
from rehue_serve.pipeline import Colorized
from rehue_serve.ports import claim_free_ports
from rehue_serve.rpc_server import STREAM_WINDOW
from rehue_serve.service import Service
from rehue_serve.settings import Settings
from rehue_serve.stages import STAGES
from rehue_serve.uploads import Uploads

LARGE = 50_000_000  # bytes, more than all buffers on their way
PICTURE = Colorized(bytes(LARGE), "image/png", "rehue/1", dict.fromkeys(STAGES, 0.0))


@contextlib.asynccontextmanager
async def serve_pictures(limits: Uploads) -> AsyncIterator[int]:
    """Answer every request with a large picture."""

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await PictureResponse(PICTURE, limits)(scope, receive, send)

    async with serve_application(application) as port:
        yield port


@contextlib.asynccontextmanager
async def serve_application(application: ASGIApp) -> AsyncIterator[int]:
    """Serve by the server that Ray's replicas use; yields the port."""
    server = uvicorn.Server(uvicorn.Config(application, port=0, lifespan="off", log_config=None))
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    try:
        yield server.servers[0].sockets[0].getsockname()[1]
    finally:
        server.should_exit = server.force_exit = True
        await serving


class Request:
    """A request for a picture, of which nothing is read before `count_bytes`."""

    async def send(self, port: int, target: str = "GET /") -> "Request":
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        headers = "Host: x\r\nConnection: close\r\nContent-Length: 1"
        self._writer.write(f"{target} HTTP/1.1\r\n{headers}\r\n\r\n1".encode())
        return self

    async def count_bytes(self) -> int:
        """Read what there is, to the end of the connection; return its length."""
        count = 0
        with contextlib.suppress(ConnectionError), contextlib.closing(self._writer):
            while part := await self._reader.read(1 << 20):
                count += len(part)
        return count


async def test_a_caller_who_does_not_read_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MAX_PAUSE", 3)
    limits = Uploads(Settings())
    async with serve_pictures(limits) as port, asyncio.timeout(30):
        stalled = await Request().send(port)
        assert await (await Request().send(port)).count_bytes() > LARGE
        while limits.in_progress:
            await asyncio.sleep(0.05)
        assert 0 < await stalled.count_bytes() < LARGE


async def test_a_caller_who_does_not_read_versions_is_cut_off(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(uploads, "MAX_PAUSE", 3)
    version = Candidate("as asked", 1.0, Edits(), bytes(LARGE))

    async def propose(*_: object) -> Candidates:
        return Candidates([version], "rehue/1", dict.fromkeys(STAGES, 0.0))

    (nothing,) = claim_free_ports(1)
    async with start_service(f"127.0.0.1:{nothing}") as service, asyncio.timeout(30):
        monkeypatch.setattr(service.pipeline, "propose", propose)
        async with serve_application(http.build_http_app(service)) as port:
            stalled = await Request().send(port, "POST /v1/candidates")
            assert await (await Request().send(port, "POST /v1/candidates")).count_bytes() > LARGE
            while service.uploads.in_progress:
                await asyncio.sleep(0.05)
            assert 0 < await stalled.count_bytes() < LARGE


async def test_an_answer_that_is_not_read_gives_its_memory_to_others() -> None:
    limits = Uploads(Settings(upload_memory=2 * LARGE))
    async with serve_pictures(limits) as port, asyncio.timeout(60):
        stalled = [await Request().send(port) for _ in range(2)]
        await asyncio.sleep(1)
        assert limits.in_progress == 2
        assert await (await Request().send(port)).count_bytes() > LARGE
        ends = [await request.count_bytes() for request in stalled]
    assert sorted(end > LARGE for end in ends) == [False, True]


@contextlib.asynccontextmanager
async def serve_large_pictures(
    monkeypatch: pytest.MonkeyPatch, size: int, **settings: object
) -> AsyncIterator[tuple[Service, ColorizerStub, list[int]]]:
    """The service over gRPC with a pipeline that answers at once, without a Triton.

    Yields:
        Service and client, and a list that grows with each photograph.
    """
    colorized: list[int] = []

    async def colorize(*_: object) -> Colorized:
        colorized.append(size)
        return Colorized(bytes(size), "image/png", "rehue/1", dict.fromkeys(STAGES, 0.0))

    (port,) = claim_free_ports(1)
    async with start_service(f"127.0.0.1:{port}", **settings) as service:
        monkeypatch.setattr(service.pipeline, "colorize", colorize)
        async with serve_grpc(service) as stub:
            yield service, stub, colorized


REQUEST = rehue_pb2.ColorizeRequest(image=bytes(100_000))


async def test_a_stream_whose_answers_are_not_read_sends_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = 4 * STREAM_WINDOW
    async with serve_large_pictures(monkeypatch, 1_000_000) as (service, stub, colorized):
        call = stub.ColorizeStream(iter([REQUEST] * count))
        before = -1
        while len(colorized) > before:  # until no more is taken for a while
            before = len(colorized)
            await asyncio.sleep(2)
        # What gRPC's own buffers hold counts as sent.
        assert STREAM_WINDOW <= len(colorized) < 2 * STREAM_WINDOW
        assert service.receiving.unread
        assert sum([1 async for _ in call]) == count
        assert not service.receiving.unread


async def test_calls_are_refused_while_too_many_answers_are_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with serve_large_pictures(monkeypatch, 1000, upload_memory=1_000_000) as (
        service,
        stub,
        _,
    ):
        with (
            service.receiving.send(1_000_000),
            pytest.raises(grpc.aio.AioRpcError, match="waiting to be read") as caught,
        ):
            await stub.Colorize(REQUEST)
        assert caught.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert len((await stub.Colorize(REQUEST)).image) == 1000
        assert not service.receiving.unread
