"""Start each of the compared servers, and send photographs to it."""

import asyncio
import contextlib
import os
import signal
import subprocess
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import aiohttp
import psutil

from loadtest.arrivals import TIMEOUT, Colorize
from loadtest.peer_servers import triton_client
from loadtest.samples import ROOT
from loadtest.usage import list_process_tree
from rehue_serve import processes
from rehue_serve.embedded import EmbeddedTriton
from rehue_serve.ports import claim_free_ports
from rehue_serve.testing.servers import STOP_TIMEOUT, run_server, wait_for_answer

CLIENTS = 8  # processes of Triton's client: its maximum batch
CORES = os.cpu_count() or 1


class Refused(OSError):
    """The server refused a photograph because it is overloaded."""


class Failed(OSError):
    """Any other answer that is not a picture, or none."""


@contextlib.asynccontextmanager
async def run_rehue() -> AsyncIterator[Colorize]:
    """Start `rehue serve` over HTTP and yield a function that colorizes a photograph."""
    with run_server() as server:
        async with open_http_client(server.http_url) as colorize:
            yield colorize


@contextlib.asynccontextmanager
async def run_triton() -> AsyncIterator[Colorize]:
    """Start Triton and processes of its client; yield a function that colorizes."""
    loop = asyncio.get_running_loop()
    with (
        EmbeddedTriton(ROOT / "model_repository", models=("rehue",)) as server,
        ProcessPoolExecutor(CLIENTS, get_context("spawn")) as pool,
    ):
        yield lambda data: loop.run_in_executor(pool, triton_client.colorize, server.url, data)


@contextlib.asynccontextmanager
async def run_fastapi() -> AsyncIterator[Colorize]:
    """Start the FastAPI server and yield a function that colorizes a photograph."""
    (port,) = map(str, claim_free_ports(1))
    command = [
        *(find_command("uvicorn"), "loadtest.peer_servers.fastapi_server:app", "--port", port),
        *("--workers", str(CORES), "--limit-concurrency", str(64 // CORES)),
        *("--log-level", "error"),
    ]
    url = f"http://127.0.0.1:{port}"
    async with run_process(command, f"{url}/health"), open_http_client(url) as colorize:
        yield colorize


@contextlib.asynccontextmanager
async def run_litserve() -> AsyncIterator[Colorize]:
    """Start the LitServe server and yield a function that colorizes a photograph."""
    (port,) = map(str, claim_free_ports(1))
    command = [find_command("python"), "-m", "loadtest.peer_servers.litserve_server", port]
    url = f"http://127.0.0.1:{port}"
    async with (
        run_process(command, f"{url}/health"),
        open_http_client(url, form=True) as colorize,
    ):
        yield colorize


SERVERS: dict[str, Callable[[], contextlib.AbstractAsyncContextManager[Colorize]]] = {
    "rehue": run_rehue,
    "triton": run_triton,
    "fastapi": run_fastapi,
    "litserve": run_litserve,
}


def find_command(command: str) -> str:
    """Return the path of a command in the peers' environment."""
    return str(ROOT / ".venv-peers" / "bin" / command)


@contextlib.asynccontextmanager
async def run_process(command: Sequence[str], url: str) -> AsyncIterator[None]:
    """Start a command, wait until ``url`` answers, and end all its processes after the block."""
    process = subprocess.Popen(  # noqa: ASYNC220
        processes.bind_to_parent(command),
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        await asyncio.to_thread(wait_for_answer, url, process)
        yield
    finally:
        tree = list_process_tree([process.pid])
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(process.wait, STOP_TIMEOUT)
        for remaining in tree:
            with contextlib.suppress(psutil.NoSuchProcess):
                remaining.kill()
        process.wait()


@contextlib.asynccontextmanager
async def open_http_client(url: str, *, form: bool = False) -> AsyncIterator[Colorize]:
    """Yield a function that posts a photograph, as the body or as field ``image`` of a form."""
    async with aiohttp.ClientSession(
        url,
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(2 * TIMEOUT),
    ) as session:

        async def colorize(data: bytes) -> bytes:
            body: bytes | aiohttp.FormData = data
            if form:
                body = aiohttp.FormData()
                body.add_field("image", data, filename="photograph.jpg")
            headers = {} if form else {"Content-Type": "application/octet-stream"}
            try:
                async with session.post("/v1/colorize", data=body, headers=headers) as response:
                    picture = await response.read()
            except aiohttp.ClientError as error:
                raise Failed(type(error).__name__) from error
            if response.status != 200:
                kind = Refused if response.status in (429, 503) else Failed
                raise kind(f"HTTP {response.status}")
            return picture

        yield colorize
