"""What the benchmarks run and what they send: servers, stand-ins, photographs, load."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import aiohttp
import cv2
import grpc
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

from rehue_client.v1 import rehue_pb2, rehue_pb2_grpc
from rehue_serve import processes
from rehue_serve.embedded import EmbeddedTriton
from rehue_serve.ports import claim_free_ports
from servers import wait_for

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


@contextlib.contextmanager
def stand_in(seconds: float, *, batcher: str | None = "") -> Iterator[EmbeddedTriton]:
    """A real Triton whose model ``rehue`` takes so long for a batch of up to 8, and no CPU.

    ``batcher``: the configuration's ``dynamic_batching``; None: every call runs by itself.
    """
    with tempfile.TemporaryDirectory() as directory:
        text = (ROOT / "model_repository/rehue/configs/cpu.pbtxt").read_text()
        config = text_format.Parse(text, model_config_pb2.ModelConfig())
        config.backend, config.default_model_filename = "python", "model.py"
        config.parameters["seconds"].string_value = str(seconds)
        del config.model_warmup[:]
        config.ClearField("dynamic_batching")
        if batcher is not None:
            text_format.Parse(batcher, config.dynamic_batching)
            config.dynamic_batching.SetInParent()
        version = Path(directory) / "rehue" / "1"
        version.mkdir(parents=True)
        shutil.copy(Path(__file__).with_name("instant.py"), version / "model.py")
        (version.parent / "config.pbtxt").write_text(text_format.MessageToString(config))
        with EmbeddedTriton(Path(directory)) as triton:
            yield triton


@contextlib.contextmanager
def served(triton_urls: Sequence[str], **settings: str) -> Iterator[tuple[int, dict[str, str]]]:
    """``rehue serve`` on free ports, on Tritons that run already: its pid, and its addresses."""
    http, rpc, metrics = claim_free_ports(3)
    environment = os.environ | {
        "REHUE_HTTP_PORT": str(http),
        "REHUE_GRPC_PORT": str(rpc),
        "REHUE_METRICS_PORT": str(metrics),
        "REHUE_TRITON_URLS": ",".join(triton_urls),
        **settings,
    }
    rehue = Path(sys.executable).parent / "rehue"
    process = subprocess.Popen(
        processes.bind_to_parent([rehue, "serve"]),
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,  # a line a photograph
    )
    try:
        wait_for(f"http://127.0.0.1:{http}/readyz", process)
        yield process.pid, {"http": f"http://127.0.0.1:{http}", "grpc": f"127.0.0.1:{rpc}"}
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


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
        async with grpc.aio.insecure_channel(url, options=options) as channel:
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
