"""Rehue beside other ways to serve the same ONNX file, in one run on one machine.

    make peers                     # the peers' own environment, .venv-peers, and the table
    make peers ARGS="--seconds 20 --rate 5"

Each server runs alone, with 512 x 512 JPEGs in and out and the model `rehue`:

rehue     `rehue serve`, over HTTP
triton    Triton alone; eight client processes do scikit-image's Lab chain
fastapi   plain FastAPI, ONNX Runtime, scikit-image; `peers/fastapi_server.py`
litserve  LitServe with its own batching; `peers/litserve_server.py`

Throughput is with 32 photographs under way; p50 and p99 at one rate of Poisson arrivals
for all. Then two overloads of 20 s of Poisson arrivals, answers after 10 s being failures:
at twice the server's own throughput, and at twice that of the first server, the same for
all; before the second it may finish what is left of the first. CPU and memory (PSS) are
of everything but the load generator, which shares the cores. "others' CPU" is what
processes outside of the comparison took of the machine meanwhile: with more than a few
per cent, measure again.
"""

import argparse
import asyncio
import contextlib
import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import aiohttp
import numpy as np
import psutil
from PIL import Image

from openloop import OUT, ROOT, TIMEOUT, Cell, Work, arrive
from rehue_serve import processes
from rehue_serve.embedded import EmbeddedTriton
from rehue_serve.ports import claim_free_ports
from rehue_serve.testing.servers import run_server, wait_for_answer
from report import as_json, machine
from samples import squares
from servers import Use, use

PEERS = Path(__file__).with_name("peers")
CONCURRENCY = 32
CLIENTS = 8  # processes of Triton's client: as many as its batches hold
CORES = os.cpu_count() or 1
OVERLOAD = 2 * TIMEOUT  # seconds: long enough for a queue without a limit to show itself


class Refused(OSError):
    """The server said that it has too much to do."""


class Broken(OSError):
    """Any other answer, or none."""


@dataclass(frozen=True)
class Row:
    """One server's figures; see the top of this file."""

    name: str
    throughput: float  # photographs a second
    p50_ms: float
    p99_ms: float
    cpu_ms: float  # for a photograph, at full throughput
    memory_mb: float  # after the overload
    twice: Cell  # offered twice its own throughput
    same: Cell  # offered twice the first server's
    foreign: float  # share of the machine's CPU that others used meanwhile, 0 to 1
    difference: float = 0.0  # mean of |its picture - the first server's|, of 255


@contextlib.asynccontextmanager
async def rehue() -> AsyncIterator[Work]:
    with run_server() as server:
        async with posts(server.http_url) as work:
            yield work


@contextlib.asynccontextmanager
async def triton() -> AsyncIterator[Work]:
    sys.path.insert(0, str(PEERS))
    from triton_client import colorize  # type: ignore[import-not-found]

    loop = asyncio.get_running_loop()
    with (
        EmbeddedTriton(ROOT / "model_repository", models=("rehue",)) as server,
        ProcessPoolExecutor(CLIENTS, get_context("spawn")) as pool,
    ):
        yield lambda data: loop.run_in_executor(pool, colorize, server.url, data)


@contextlib.asynccontextmanager
async def fastapi() -> AsyncIterator[Work]:
    (port,) = map(str, claim_free_ports(1))
    command = [
        *(environment("uvicorn"), "fastapi_server:app", "--app-dir", str(PEERS), "--port", port),
        *("--workers", str(CORES), "--limit-concurrency", str(64 // CORES)),
        *("--log-level", "error"),
    ]
    url = f"http://127.0.0.1:{port}"
    async with started(command, f"{url}/health"), posts(url) as work:
        yield work


@contextlib.asynccontextmanager
async def litserve() -> AsyncIterator[Work]:
    (port,) = map(str, claim_free_ports(1))
    command = [environment("python"), str(PEERS / "litserve_server.py"), port]
    url = f"http://127.0.0.1:{port}"
    async with started(command, f"{url}/health"), posts(url, form=True) as work:
        yield work


SERVERS: dict[str, Callable[[], contextlib.AbstractAsyncContextManager[Work]]] = {
    "rehue": rehue,
    "triton": triton,
    "fastapi": fastapi,
    "litserve": litserve,
}


def environment(command: str) -> str:
    return str(ROOT / ".venv-peers" / "bin" / command)


@contextlib.asynccontextmanager
async def started(command: Sequence[str], url: str) -> AsyncIterator[None]:
    """A process group that answers at ``url``, and that is gone afterwards."""
    process = subprocess.Popen(  # noqa: ASYNC220
        processes.bind_to_parent(command),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        await asyncio.to_thread(wait_for_answer, url, process)
        yield
    finally:
        left = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(process.wait, 60)
        for one in [*left, psutil.Process(process.pid)] if process.poll() is None else left:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.kill()
        process.wait()


@contextlib.asynccontextmanager
async def posts(url: str, *, form: bool = False) -> AsyncIterator[Work]:
    """Photographs as a request's body, or as the field ``image`` of a form."""
    async with aiohttp.ClientSession(
        url,
        connector=aiohttp.TCPConnector(limit=0),
        timeout=aiohttp.ClientTimeout(2 * TIMEOUT),
    ) as session:

        async def work(data: bytes) -> bytes:
            given: bytes | aiohttp.FormData = data
            if form:
                given = aiohttp.FormData()
                given.add_field("image", data, filename="photograph.jpg")
            headers = {} if form else {"Content-Type": "application/octet-stream"}
            try:
                async with session.post("/v1/colorize", data=given, headers=headers) as answer:
                    picture = await answer.read()
            except aiohttp.ClientError as error:
                raise Broken(type(error).__name__) from error
            if answer.status != 200:
                kind = Refused if answer.status in (429, 503) else Broken
                raise kind(f"HTTP {answer.status}")
            return picture

        yield work


async def saturate(work: Work, photographs: Sequence[bytes], seconds: float) -> tuple[float, float]:
    """Photographs a second with CONCURRENCY under way, and ms of the servers' CPU for each."""
    done = 0

    async def worker(number: int, end: float) -> None:
        nonlocal done
        while time.perf_counter() < end:
            with contextlib.suppress(Refused):
                await work(photographs[number % len(photographs)])
                done += 1

    began, cpu = time.perf_counter(), children().cpu
    # To the last answer: a server that shares its cores among all answers in waves.
    await asyncio.gather(*(worker(number, began + seconds) for number in range(CONCURRENCY)))
    took, cpu = time.perf_counter() - began, children().cpu - cpu
    return done / took, cpu * 1000 / max(1, done)


async def recovered(work: Work, photograph: bytes) -> None:
    """Until an answer takes less than a second: some still work on what nobody waits for."""
    until = time.perf_counter() + 6 * TIMEOUT
    while time.perf_counter() < until:
        with contextlib.suppress(OSError):
            async with asyncio.timeout(1):
                await work(photograph)
                return
        await asyncio.sleep(1)


def children() -> Use:
    """What everything that this process started uses."""
    return use(one.pid for one in psutil.Process().children())


def used_here() -> float:
    """Seconds of CPU of this process and everything that it started."""
    return children().cpu + time.process_time()


def busy() -> float:
    """Seconds that the machine's cores have worked, for anybody."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


async def measure(
    name: str, photographs: Sequence[bytes], seconds: float, rate: float, first: Row | None
) -> tuple[Row, bytes]:
    """One server's figures, and its picture of the first photograph."""
    async with SERVERS[name]() as work:
        picture = bytes(await work(photographs[0]))  # type: ignore[call-overload]
        await saturate(work, photographs, 1)  # warms up
        began = busy(), used_here(), time.perf_counter()
        throughput, cpu = await saturate(work, photographs, seconds)
        steady = await arrive(work, photographs, rate, 2 * seconds)
        twice = await arrive(work, photographs, 2 * throughput, OVERLOAD)
        await recovered(work, photographs[0])
        same = await arrive(work, photographs, first.same.offered, OVERLOAD) if first else twice
        others = (busy() - began[0]) - (used_here() - began[1])
        foreign = max(0.0, others / CORES / (time.perf_counter() - began[2]))
        memory = children().memory
    row = Row(
        name=name,
        throughput=throughput,
        p50_ms=steady.p50,
        p99_ms=steady.p99,
        cpu_ms=cpu,
        memory_mb=memory / 2**20,
        twice=twice,
        same=same,
        foreign=foreign,
    )
    return row, picture


def difference(one: bytes, other: bytes) -> float:
    a, b = (np.asarray(Image.open(io.BytesIO(data)), float) for data in (one, other))
    return float(np.abs(a - b).mean())


def table(rows: Sequence[Row], rate: float) -> str:
    heads = [
        "",
        "photographs/s",
        f"p50, p99 at {rate:g}/s, ms",
        "CPU ms each",
        "memory, MiB",
        "at twice its own: answered/s, p50, failed",
        f"at {rows[0].same.offered:.0f}/s: answered/s, p50, failed",
        "others' CPU",
    ]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    lines += [
        f"| {row.name} | {row.throughput:.1f} | {row.p50_ms:.0f}, {row.p99_ms:.0f} "
        f"| {row.cpu_ms:.0f} | {row.memory_mb:.0f} | {overloaded(row.twice)} "
        f"| {overloaded(row.same)} | {row.foreign:.0%} |"
        for row in rows
    ]
    return "\n".join(lines)


def overloaded(cell: Cell) -> str:
    return f"{cell.answered:.1f}, {cell.p50 / 1000:.1f} s, {cell.failed:.0%}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    parser.add_argument("--rate", type=float, default=5.0, help="a second, for p50 and p99")
    parser.add_argument("--servers", nargs="+", choices=SERVERS, default=list(SERVERS))
    arguments = parser.parse_args()
    photographs, rows, pictures = squares(), list[Row](), list[bytes]()
    for name in arguments.servers:
        first = rows[0] if rows else None
        run = measure(name, photographs, arguments.seconds, arguments.rate, first)
        row, picture = asyncio.run(run)
        pictures.append(picture)
        rows.append(replace(row, difference=difference(picture, pictures[0])))
        print(rows[-1], file=sys.stderr)
    text = f"Machine: {machine()}\n\n{table(rows, arguments.rate)}\n"
    print(text)
    OUT.mkdir(parents=True, exist_ok=True)
    facts = {"machine": machine(), **vars(arguments), "rows": [asdict(row) for row in rows]}
    (OUT / "peers.json").write_text(as_json(facts))
    (OUT / "peers.md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
