"""How throughput scales with GPUs, which Tritons with a sleeping network stand in for."""

import asyncio
import contextlib
import statistics

from loadtest.chain import saturate_url
from loadtest.samples import create_photograph
from loadtest.usage import measure_usage
from rehue_serve.testing.servers import run_server
from rehue_serve.testing.tritons import run_sleeping_triton

BATCH_SECONDS = 0.25  # for up to 8: 32 photographs per second each, 128 for four
MAX_BATCH = 8
COUNTS = (1, 2, 4)
IN_FLIGHT = 3 * MAX_BATCH  # photographs per Triton: two full calls, and a third being filled
GPU_SPEEDS = (100, 250, 500, 1000, 2000)  # photographs per second


def measure_scaling(seconds: float, rounds: int) -> dict[str, dict[str, float]]:
    """Return photographs per second with 1, 2 and 4 Tritons, also relative to their sum."""
    photograph = create_photograph(512, 512)
    rows: dict[str, dict[str, float]] = {}
    with contextlib.ExitStack() as stack:
        urls = [
            stack.enter_context(run_sleeping_triton(BATCH_SECONDS)).url for _ in range(max(COUNTS))
        ]
        for count in COUNTS:
            with run_server(triton_urls=",".join(urls[:count]), max_requests="256") as server:
                pids = [server.pid]
                for protocol, url in server.urls.items():
                    results = [
                        asyncio.run(
                            saturate_url(
                                url,
                                photograph,
                                seconds,
                                IN_FLIGHT * count,
                                lambda pids=pids: measure_usage(pids).cpu,  # type: ignore[misc]
                            )
                        )
                        for _ in range(rounds)
                    ]
                    rate, cpu = map(statistics.median, zip(*results, strict=True))
                    single = rows[f"1 {protocol}"]["images/s"] if count > 1 else rate
                    rows[f"{count} {protocol}"] = {
                        "images/s": rate,
                        "over all that they can": rate / (count * MAX_BATCH / BATCH_SECONDS),
                        "over linear": rate / count / single,
                        "cores of the chain at work": rate * cpu,
                    }
    return rows


def compute_cores_for_gpus(chain: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    """Return the cores of the chain that keep a GPU of each speed busy.

    Args:
        chain: of `loadtest.chain.measure_served_chain`.
    """
    return {
        f"{speed} images/s": {
            size: speed * row["CPU ms"] / 1000
            for size, row in chain.items()
            if size.endswith("gray http")
        }
        for speed in GPU_SPEEDS
    }
