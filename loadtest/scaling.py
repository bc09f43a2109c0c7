"""How the chain keeps up with more GPUs: Triton stand-ins that take a fixed time and no CPU."""

import asyncio
import contextlib
import functools
import statistics

import servers
from chain import load
from rehue_serve.testing.servers import run_server
from rehue_serve.testing.tritons import run_sleeping_triton
from running import photograph

SECONDS = 0.25  # for a batch of up to 8: 32 photographs a second each, 128 of four
BATCH = 8
COUNTS = (1, 2, 4)
WAITING = 3 * BATCH  # photographs under way for each: two calls full, one gathering
GPU_SPEEDS = (100, 250, 500, 1000, 2000)  # photographs a second


def scale(seconds: float, rounds: int) -> dict[str, dict[str, float]]:
    """Photographs a second over 1, 2 and 4 stand-ins, and over what they could do."""
    photo = photograph(512, 512)
    rows: dict[str, dict[str, float]] = {}
    with contextlib.ExitStack() as stack:
        urls = [stack.enter_context(run_sleeping_triton(SECONDS)).url for _ in range(max(COUNTS))]
        for count in COUNTS:
            with run_server(triton_urls=",".join(urls[:count]), max_requests="256") as server:
                use = functools.partial(_cpu, server.pid)
                for protocol, url in server.urls.items():
                    under_way = WAITING * count
                    taken = [
                        asyncio.run(load(protocol, url, photo, seconds, under_way, use))
                        for _ in range(rounds)
                    ]
                    rate, cpu = map(statistics.median, zip(*taken, strict=True))
                    one = rows[f"1 {protocol}"]["images/s"] if count > 1 else rate
                    rows[f"{count} {protocol}"] = {
                        "images/s": rate,
                        "over all that they can": rate / (count * BATCH / SECONDS),
                        "over linear": rate / count / one,
                        "cores of the chain at work": rate * cpu,
                    }
    return rows


def _cpu(pid: int) -> float:
    return servers.use([pid]).cpu


def cores_for_gpus(around: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Cores for the chain that keep one GPU of each speed busy, by the CPU of a photograph."""
    return {
        f"{speed} images/s": {
            size: speed * row["CPU ms"] / 1000
            for size, row in around.items()
            if size.endswith("gray http")
        }
        for speed in GPU_SPEEDS
    }
