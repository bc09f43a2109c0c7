"""Rehue beside other ways to serve the same ONNX file, in one run on one machine.

    make peers                     # the peers' own environment, .venv-peers, and the table
    make peers ARGS="--seconds 20 --rate 5"

Each server runs alone, with 512 x 512 JPEGs in and out and the model `rehue`:

rehue     `rehue serve`, over HTTP
triton    Triton alone; eight client processes do scikit-image's Lab chain
fastapi   plain FastAPI, ONNX Runtime, scikit-image; `peers/fastapi_server.py`
litserve  LitServe with its own batching; `peers/litserve_server.py`

Throughput is with 32 photographs under way; p50 and p99 at one rate of Poisson arrivals
for all; failures at Poisson arrivals of twice the server's own throughput, answers after
10 s being failures. CPU and memory (PSS) are of everything but the load generator, which
shares the cores. "others' CPU" is what processes outside of the comparison took of the
machine meanwhile: with more than a few per cent, measure again.
"""

import argparse
import asyncio
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path

import httpx
import numpy as np
import psutil
from PIL import Image

from openloop import OUT, ROOT, TIMEOUT, Work, arrive
from rehue_serve.embedded import EmbeddedTriton
from report import machine
from samples import squares
from servers import Use, free_port, use, wait_for

PEERS = Path(__file__).with_name("peers")
CONCURRENCY = 32
CLIENTS = 8  # processes of Triton's client: as many as its batches hold
CORES = os.cpu_count() or 1


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
    overload_answered: float  # photographs a second at twice the throughput
    overload_failed: float  # share, 0 to 1
    overload_errors: dict[str, int]
    foreign: float  # share of the machine's CPU that others used meanwhile, 0 to 1
    difference: float  # mean of |its pictures - Rehue's|, of 255


@contextlib.asynccontextmanager
async def rehue() -> AsyncIterator[Work]:
    ports = {name: str(free_port()) for name in ("HTTP", "GRPC", "METRICS")}
    settings = {f"REHUE_{name}_PORT": port for name, port in ports.items()}
    command = [str(Path(sys.executable).with_name("rehue")), "serve"]
    url = f"http://127.0.0.1:{ports['HTTP']}"
    async with started(command, f"{url}/readyz", settings), posts(url) as work:
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
    port = str(free_port())
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
    port = str(free_port())
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
async def started(
    command: Sequence[str], url: str, settings: dict[str, str] | None = None
) -> AsyncIterator[None]:
    """A process group that answers at ``url``, and that is gone afterwards."""
    process = subprocess.Popen(  # noqa: ASYNC220
        command,
        env=os.environ | (settings or {}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        await asyncio.to_thread(wait_for, url, process)
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
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=2 * TIMEOUT, limits=limits) as client:

        async def work(data: bytes) -> bytes:
            given = {"files": {"image": data}} if form else {"content": data}
            headers = {} if form else {"Content-Type": "application/octet-stream"}
            try:
                answer = await client.post("/v1/colorize", headers=headers, **given)
            except httpx.HTTPError as error:
                raise Broken(type(error).__name__) from error
            if answer.status_code != 200:
                kind = Refused if answer.status_code in (429, 503) else Broken
                raise kind(f"HTTP {answer.status_code}")
            return answer.content

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
    name: str, photographs: Sequence[bytes], seconds: float, rate: float, expected: list[bytes]
) -> Row:
    async with SERVERS[name]() as work:
        first = bytes(await work(photographs[0]))  # type: ignore[call-overload]
        if not expected:
            expected.append(first)
        await saturate(work, photographs, 1)  # warms up
        began = busy(), used_here(), time.perf_counter()
        throughput, cpu = await saturate(work, photographs, seconds)
        steady = await arrive(work, photographs, rate, seconds)
        overload = await arrive(work, photographs, 2 * throughput, seconds)
        ours, took = used_here() - began[1], time.perf_counter() - began[2]
        foreign = max(0.0, busy() - began[0] - ours) / (took * CORES)
        memory = children().memory
    return Row(
        name=name,
        throughput=throughput,
        p50_ms=steady.p50,
        p99_ms=steady.p99,
        cpu_ms=cpu,
        memory_mb=memory / 2**20,
        overload_answered=overload.answered,
        overload_failed=overload.failed,
        overload_errors=overload.errors,
        foreign=foreign,
        difference=difference(first, expected[0]),
    )


def difference(one: bytes, other: bytes) -> float:
    a, b = (np.asarray(Image.open(io.BytesIO(data)), float) for data in (one, other))
    return float(np.abs(a - b).mean())


def table(rows: Sequence[Row], rate: float) -> str:
    head = f"photographs/s | p50, p99 at {rate:g}/s, ms | CPU ms each | memory, MiB"
    lines = [
        f"| | {head} | at twice its throughput: answered/s | failed | others' CPU |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {row.name} | {row.throughput:.1f} | {row.p50_ms:.0f}, {row.p99_ms:.0f} "
        f"| {row.cpu_ms:.0f} | {row.memory_mb:.0f} | {row.overload_answered:.1f} "
        f"| {row.overload_failed:.0%} | {row.foreign:.0%} |"
        for row in rows
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    parser.add_argument("--rate", type=float, default=5.0, help="a second, for p50 and p99")
    parser.add_argument("--servers", nargs="+", choices=SERVERS, default=list(SERVERS))
    arguments = parser.parse_args()
    photographs, expected, rows = squares(), list[bytes](), list[Row]()
    for name in arguments.servers:
        run = measure(name, photographs, arguments.seconds, arguments.rate, expected)
        rows.append(asyncio.run(run))
        print(rows[-1], file=sys.stderr)
    text = f"Machine: {machine()}\n\n{table(rows, arguments.rate)}\n"
    print(text)
    OUT.mkdir(parents=True, exist_ok=True)
    facts = {"machine": machine(), **vars(arguments), "rows": [asdict(row) for row in rows]}
    (OUT / "peers.json").write_text(json.dumps(facts, indent=2) + "\n")
    (OUT / "peers.md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
