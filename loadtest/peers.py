"""Rehue compared with other servers of the same ONNX file, in one run on one machine.

    make peers                     # the peers' own environment, .venv-peers, and the table
    make peers ARGS="--seconds 20 --rate 5"

Each server runs alone, with 512 x 512 JPEGs in and out and the model `rehue`:

rehue     `rehue serve`, over HTTP
triton    Triton alone; eight client processes do scikit-image's Lab chain
fastapi   plain FastAPI, ONNX Runtime, scikit-image; `peer_servers/fastapi_server.py`
litserve  LitServe with its own batching; `peer_servers/litserve_server.py`

Throughput is measured with 32 photographs in flight; p50 and p99 at one rate of Poisson
arrivals for all. Then follow two overloads of 20 s of Poisson arrivals, in which answers
after 10 s are failures: at twice the server's own throughput, and at twice that of the
first server; between them the server may finish its backlog. CPU and memory (PSS) are of
everything but the load generator, which shares the cores. "others' CPU" is the share of
the machine that processes outside the comparison used: above a few per cent, repeat the
measurement.
"""

import argparse
import asyncio
import contextlib
import io
import itertools
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import psutil
from PIL import Image

from loadtest.arrivals import TIMEOUT, Colorize, RateResult, measure_rate
from loadtest.openloop import OUT
from loadtest.peer_servers.running import CORES, SERVERS, Refused
from loadtest.report import describe_machine, to_json
from loadtest.samples import create_squares
from loadtest.saturation import saturate
from loadtest.usage import Usage, measure_usage

CONCURRENCY = 32
OVERLOAD_SECONDS = 2 * TIMEOUT  # long enough to detect an unbounded queue


@dataclass(frozen=True)
class ServerResult:
    """The measurements of one server; see the head of this file.

    Attributes:
        throughput: photographs per second.
        cpu_ms: per photograph, at full throughput.
        memory_mb: MiB after the overloads.
        twice: offered twice its own throughput.
        same: offered twice the first server's.
        foreign: share of the machine's CPU that other processes used, 0 to 1.
        difference: mean of |its picture - the first server's|, of 255.
    """

    name: str
    throughput: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    memory_mb: float
    twice: RateResult
    same: RateResult
    foreign: float
    difference: float = 0.0


async def measure_throughput(
    colorize: Colorize, photographs: Sequence[bytes], seconds: float
) -> tuple[float, float]:
    """Return photographs per second with CONCURRENCY in flight, and ms of the server's CPU."""
    cycle = itertools.cycle(photographs)
    rate, cpu = await saturate(
        lambda: colorize(next(cycle)),
        seconds,
        CONCURRENCY,
        lambda: measure_children().cpu,
        warm_up=0,
        to_last_answer=True,
        uncounted=(Refused,),
    )
    return rate, cpu * 1000


async def wait_until_recovered(colorize: Colorize, photograph: bytes) -> None:
    """Wait until an answer takes less than a second: some servers finish abandoned requests."""
    deadline = time.perf_counter() + 6 * TIMEOUT
    while time.perf_counter() < deadline:
        with contextlib.suppress(OSError):
            async with asyncio.timeout(1):
                await colorize(photograph)
                return
        await asyncio.sleep(1)


def measure_children() -> Usage:
    """Return the usage of all processes that this one started."""
    return measure_usage(child.pid for child in psutil.Process().children())


def read_own_cpu() -> float:
    """Return the CPU seconds of this process and of all that it started."""
    return measure_children().cpu + time.process_time()


def read_machine_cpu() -> float:
    """Return the CPU seconds of all processes of the machine."""
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - times.iowait - times.guest - times.guest_nice)


async def measure_server(
    name: str,
    photographs: Sequence[bytes],
    seconds: float,
    rate: float,
    first: ServerResult | None,
) -> tuple[ServerResult, bytes]:
    """Return the measurements of a server, and its picture of the first photograph."""
    async with SERVERS[name]() as colorize:
        picture = bytes(await colorize(photographs[0]))  # type: ignore[call-overload]
        await measure_throughput(colorize, photographs, 1)  # warms up
        machine, own, start = read_machine_cpu(), read_own_cpu(), time.perf_counter()
        throughput, cpu = await measure_throughput(colorize, photographs, seconds)
        steady = await measure_rate(colorize, photographs, rate, 2 * seconds)
        twice = await measure_rate(colorize, photographs, 2 * throughput, OVERLOAD_SECONDS)
        await wait_until_recovered(colorize, photographs[0])
        same = twice
        if first:
            offered = first.same.offered
            same = await measure_rate(colorize, photographs, offered, OVERLOAD_SECONDS)
        others = (read_machine_cpu() - machine) - (read_own_cpu() - own)
        foreign = max(0.0, others / CORES / (time.perf_counter() - start))
        memory = measure_children().memory
    result = ServerResult(
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
    return result, picture


def compute_difference(first: bytes, second: bytes) -> float:
    """Return the mean absolute difference of two encoded pictures, of 255."""
    a, b = (np.asarray(Image.open(io.BytesIO(data)), float) for data in (first, second))
    return float(np.abs(a - b).mean())


def render_table(results: Sequence[ServerResult], rate: float) -> str:
    """Return the results as a Markdown table."""
    headers = [
        "",
        "photographs/s",
        f"p50, p99 at {rate:g}/s, ms",
        "CPU ms each",
        "memory, MiB",
        "at twice its own: answered/s, p50, failed",
        f"at {results[0].same.offered:.0f}/s: answered/s, p50, failed",
        "others' CPU",
    ]
    lines = [f"| {' | '.join(headers)} |", "| --- " * len(headers) + "|"]
    lines += [
        f"| {result.name} | {result.throughput:.1f} | {result.p50_ms:.0f}, {result.p99_ms:.0f} "
        f"| {result.cpu_ms:.0f} | {result.memory_mb:.0f} | {format_overload(result.twice)} "
        f"| {format_overload(result.same)} | {result.foreign:.0%} |"
        for result in results
    ]
    return "\n".join(lines)


def format_overload(result: RateResult) -> str:
    """Return answered per second, p50 and the failed share."""
    return f"{result.answered:.1f}, {result.p50 / 1000:.1f} s, {result.failed:.0%}"


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    parser.add_argument("--rate", type=float, default=5.0, help="per second, for p50 and p99")
    parser.add_argument("--servers", nargs="+", choices=SERVERS, default=list(SERVERS))
    arguments = parser.parse_args()
    photographs, results, pictures = create_squares(), list[ServerResult](), list[bytes]()
    for name in arguments.servers:
        first = results[0] if results else None
        result, picture = asyncio.run(
            measure_server(name, photographs, arguments.seconds, arguments.rate, first)
        )
        pictures.append(picture)
        results.append(replace(result, difference=compute_difference(picture, pictures[0])))
        print(results[-1], file=sys.stderr)
    text = f"Machine: {describe_machine()}\n\n{render_table(results, arguments.rate)}\n"
    print(text)
    OUT.mkdir(parents=True, exist_ok=True)
    facts = {
        "machine": describe_machine(),
        **vars(arguments),
        "rows": [asdict(result) for result in results],
    }
    (OUT / "peers.json").write_text(to_json(facts))
    (OUT / "peers.md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
