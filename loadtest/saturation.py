"""Saturating load: a fixed number of photographs in flight, each replaced when it is answered."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable

import aiohttp
import grpc

from rehue_client.v1 import rehue_pb2, rehue_pb2_grpc

Send = Callable[[], Awaitable[object]]  # sends one photograph and waits for its answer

UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]


@contextlib.asynccontextmanager
async def open_sender(url: str, photograph: bytes, model: str = "") -> AsyncIterator[Send]:
    """Yield a function that sends one photograph, with the client that uses the least CPU.

    Args:
        url: ``http://host:port`` or ``grpc://host:port``.
        model: name of the model; empty: the server's default.

    The function raises for any answer but a picture.
    """
    scheme, _, address = url.partition("://")
    opener = _open_http_sender(url, photograph, model)
    if scheme == "grpc":
        opener = _open_grpc_sender(address, photograph, model)
    async with opener as send:
        yield send


@contextlib.asynccontextmanager
async def _open_http_sender(url: str, photograph: bytes, model: str) -> AsyncIterator[Send]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def send() -> None:
            async with session.post(
                f"{url}/v1/colorize?model={model}",
                data=photograph,
                headers={"Content-Type": "image/jpeg"},
                raise_for_status=True,
            ) as response:
                await response.read()

        yield send


@contextlib.asynccontextmanager
async def _open_grpc_sender(address: str, photograph: bytes, model: str) -> AsyncIterator[Send]:
    async with grpc.aio.insecure_channel(address, options=UNLIMITED) as channel:
        stub = rehue_pb2_grpc.ColorizerStub(channel)  # type: ignore[no-untyped-call]
        request = rehue_pb2.ColorizeRequest(image=photograph, model=model)

        async def send() -> None:
            await stub.Colorize(request)

        yield send


async def saturate(
    send: Send,
    seconds: float,
    concurrency: int,
    read_usage: Callable[[], float] = lambda: 0.0,
    *,
    warm_up: float = 1.0,
    to_last_answer: bool = False,
    uncounted: tuple[type[Exception], ...] = (),
) -> tuple[float, float]:
    """Keep ``concurrency`` photographs in flight and count the answers.

    Args:
        read_usage: a growing number, for example the CPU seconds of a process.
        warm_up: seconds of load before counting starts.
        to_last_answer: count until the last answer and not for ``seconds`` only: a server
            that shares its cores among all requests answers in waves.
        uncounted: exceptions of ``send`` after which a worker goes on.

    Returns:
        Photographs per second, and the growth of ``read_usage()`` per photograph.
    """
    answered = 0

    async def work(end: float) -> None:
        nonlocal answered
        while time.perf_counter() < end:
            with contextlib.suppress(*uncounted):
                await send()
                answered += 1

    end = time.perf_counter() + warm_up + seconds
    workers = asyncio.gather(*(work(end) for _ in range(concurrency)))
    await asyncio.sleep(warm_up)
    before, usage, start = answered, read_usage(), time.perf_counter()
    await (workers if to_last_answer else asyncio.sleep(seconds))
    count, usage = answered - before, read_usage() - usage
    rate = count / (time.perf_counter() - start)
    await workers
    return rate, usage / max(1, count)
