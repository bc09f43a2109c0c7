"""A capacity worksheet computed from measurements, and a check of one of its predictions.

    make capacity ARGS="--core-price 0.04 --gpu-price 1.50"

Prices are per hour, in any currency. The chain (`rehue serve`: everything but the model)
is measured with a Triton whose network sleeps instead of computing: the CPU time of a
512 x 512 JPEG over gRPC, memory and bytes. The worksheet computes the cores that a GPU of
a given speed needs. Then the chain runs on one core with 1, 2 and 4 such Tritons, each as
a GPU of 0.4 of that core's speed, and the measured throughput and cores in use are
compared with the prediction: the sum of the Tritons' speeds until the core is saturated.
The load generator and the Tritons run on the other cores. Linux with two cores or more.
"""

import argparse
import asyncio
import contextlib
import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from loadtest.chain import MODEL
from loadtest.openloop import OUT
from loadtest.report import describe_machine, to_json
from loadtest.samples import create_photograph
from loadtest.saturation import open_sender, saturate
from loadtest.usage import measure_usage
from rehue_client import Client
from rehue_serve.testing.servers import Server, run_server
from rehue_serve.testing.tritons import run_sleeping_triton

MAX_BATCH = 8
FAST_BATCH_SECONDS = 0.001  # far faster than two cores can feed
IN_FLIGHT = 48  # photographs; fewer than the 64 that a replica accepts
UTILIZATION = 0.8  # share of a core or a GPU that the worksheet plans with
GPU_SPEEDS = (250, 1000, 4000)  # photographs per second, for the worksheet
GPU_SHARE = 0.4  # speed of a stand-in GPU, relative to what one core can feed
WORKER_CORES = 4  # of a Colorizer in the manifests
TENSOR_BYTES = (  # to and from Triton for a photograph
    MODEL.height * MODEL.width * MODEL.input_type.itemsize
    + 2 * MODEL.ab_height * MODEL.ab_width * MODEL.output_type.itemsize
)


@dataclass(frozen=True)
class ChainResult:
    """The chain under load.

    Attributes:
        rate: photographs per second.
        cpu: seconds of the chain's CPU per photograph.
        memory: bytes (PSS) of the chain.
        sent, received: bytes of a photograph and of its picture.
    """

    rate: float
    cpu: float
    memory: int
    sent: int
    received: int


def measure_chain(
    tritons: int, batch_seconds: float, cores: set[int], seconds: float
) -> ChainResult:
    """Measure the chain on these cores with Tritons that sleep so long for a batch."""
    photograph = create_photograph(512, 512, gray=True)
    with contextlib.ExitStack() as stack:
        urls = [stack.enter_context(run_sleeping_triton(batch_seconds)).url for _ in range(tritons)]
        server = stack.enter_context(run_server_on(cores, urls))
        with Client(server.grpc_url) as client:
            received = len(client.colorize(photograph).data)
        rate, cpu = asyncio.run(saturate_chain(server.grpc_url, server.pid, photograph, seconds))
        memory = measure_usage([server.pid]).memory
        return ChainResult(rate, cpu, memory, len(photograph), received)


@contextlib.contextmanager
def run_server_on(cores: set[int], triton_urls: Sequence[str]) -> Iterator[Server]:
    """Run `rehue serve` on these cores."""
    usual = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)  # child processes inherit it
    with run_server(triton_urls=",".join(triton_urls)) as server:
        os.sched_setaffinity(0, usual)
        yield server


async def saturate_chain(
    url: str, pid: int, photograph: bytes, seconds: float
) -> tuple[float, float]:
    """Return photographs per second with IN_FLIGHT in flight, and CPU seconds for each."""
    async with open_sender(url, photograph) as send:
        await saturate(send, 1, IN_FLIGHT)  # warms up
        return await saturate(send, seconds, IN_FLIGHT, lambda: measure_usage([pid]).cpu)


def compute_worksheet(base: ChainResult, prices: tuple[float, float]) -> list[dict[str, float]]:
    """Return what a GPU of each speed needs, and what a million photographs cost.

    Args:
        prices: of a core and of a GPU for an hour.
    """
    core_price, gpu_price = prices
    rows = []
    for speed in GPU_SPEEDS:
        rate = speed * UTILIZATION
        cores = rate * base.cpu / UTILIZATION
        rows.append(
            {
                "gpu_per_second": speed,
                "planned_per_second": rate,
                "chain_cores": cores,
                "workers": math.ceil(cores / WORKER_CORES),
                "memory_gib": math.ceil(cores / WORKER_CORES) * base.memory / 2**30,
                "clients_mb_per_second": rate * (base.sent + base.received) / 1e6,
                "triton_mb_per_second": rate * TENSOR_BYTES / 1e6,
                "cost_per_million": (cores * core_price + gpu_price) / (rate * 3600) * 1e6,
            }
        )
    return rows


def check_prediction(base: ChainResult, cores: set[int], seconds: float) -> list[dict[str, float]]:
    """Compare predicted and measured throughput of the chain on one core with stand-in GPUs."""
    core_speed = 1 / base.cpu  # photographs per second
    speed = GPU_SHARE * core_speed
    rows = []
    for count in (1, 2, 4):
        result = measure_chain(count, MAX_BATCH / speed, cores, seconds)
        predicted = min(count * speed, core_speed)
        rows.append(
            {
                "gpus": count,
                "gpu_per_second": speed,
                "cores_needed": count * speed / core_speed,
                "predicted_per_second": predicted,
                "measured_per_second": result.rate,
                "measured_over_predicted": result.rate / predicted,
                "cores_used": result.rate * result.cpu,
            }
        )
    return rows


def render_table(rows: Sequence[dict[str, float]]) -> str:
    """Return the rows as a Markdown table."""
    headers = [name.replace("_", " ") for name in rows[0]]
    lines = [f"| {' | '.join(headers)} |", "| " + " | ".join(["---"] * len(headers)) + " |"]
    lines += [f"| {' | '.join(f'{value:.4g}' for value in row.values())} |" for row in rows]
    return "\n".join(lines)


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    parser.add_argument("--core-price", type=float, default=0.04, help="of a core for an hour")
    parser.add_argument("--gpu-price", type=float, default=1.50, help="of a GPU for an hour")
    arguments = parser.parse_args()
    first, *others = sorted(os.sched_getaffinity(0))
    if not others:
        parser.error("two cores are needed")
    os.sched_setaffinity(0, others)  # the Tritons inherit it
    base = measure_chain(1, FAST_BATCH_SECONDS, {first}, arguments.seconds)
    worksheet = compute_worksheet(base, (arguments.core_price, arguments.gpu_price))
    checked = check_prediction(base, {first}, arguments.seconds)
    text = f"""Machine: {describe_machine()}; 512 x 512 JPEG over gRPC
Chain: {base.cpu * 1000:.2f} ms CPU per photograph, {1 / base.cpu:.0f}/s per core, \
{base.memory / 2**20:.0f} MiB; on one core it answered {base.rate:.0f}/s. A photograph has
{base.sent} bytes, its picture {base.received}, its tensors {TENSOR_BYTES}.

One GPU (with a utilization of {UTILIZATION:.0%} of GPU and cores; {WORKER_CORES} cores per worker):

{render_table(worksheet)}

The chain on one core with stand-in GPUs:

{render_table(checked)}
"""
    print(text)
    OUT.mkdir(parents=True, exist_ok=True)
    facts = {
        "machine": describe_machine(),
        "chain": asdict(base),
        "worksheet": worksheet,
        "check": checked,
    }
    (OUT / "capacity.json").write_text(to_json(facts))
    (OUT / "capacity.md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
