"""What the benchmarks run and what they send: servers, stand-ins, photographs, load."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import aiohttp
import cv2
import grpc

from rehue_client.v1 import rehue_pb2, rehue_pb2_grpc

ROOT = Path(__file__).parents[1]
Send = Callable[[], Awaitable[None]]  # one photograph, there and back


def photograph(width: int, height: int, *, gray: bool = False) -> bytes:
    """A JPEG of quality 90 of that size."""
    kind = cv2.IMREAD_GRAYSCALE if gray else cv2.IMREAD_COLOR
    pixels = cv2.imread(str(ROOT / "tests/photos/skimage_astronaut.jpg"), kind)
    shrinks = max(width, height) <= 512
    pixels = cv2.resize(
        pixels, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    )
    return bytes(cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes())


@contextlib.asynccontextmanager
async def sender(protocol: str, url: str, photo: bytes, model: str = "") -> AsyncIterator[Send]:
    """Sends one photograph again and again, over the plainest client, which costs the least.

    Anything but a picture in answer raises.
    """
    if protocol == "http":
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

            async def send() -> None:
                async with session.post(
                    f"{url}/v1/colorize?model={model}",
                    data=photo,
                    headers={"Content-Type": "image/jpeg"},
                    raise_for_status=True,
                ) as answer:
                    await answer.read()

            yield send
    else:
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        async with grpc.aio.insecure_channel(
            url.removeprefix("grpc://"), options=options
        ) as channel:
            stub = rehue_pb2_grpc.ColorizerStub(channel)  # type: ignore[no-untyped-call]
            request = rehue_pb2.ColorizeRequest(image=photo, model=model)

            async def send() -> None:
                await stub.Colorize(request)

            yield send


async def saturate(
    send: Send, seconds: float, concurrency: int, use: Callable[[], float] = lambda: 0.0
) -> tuple[float, float]:
    """Photographs a second, so many at a time, and how much ``use`` grew for each.

    The first second is not counted.
    """
    done = 0

    async def worker(end: float) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await send()
            done += 1

    began = time.perf_counter()
    running = [asyncio.create_task(worker(began + 1 + seconds)) for _ in range(concurrency)]
    await asyncio.sleep(1)
    counted, used, since = done, use(), time.perf_counter()
    await asyncio.sleep(seconds)
    count, used = done - counted, use() - used
    rate = count / (time.perf_counter() - since)
    await asyncio.gather(*running)
    return rate, used / max(1, count)
