"""A capacity worksheet from measured figures, and one of its predictions put to the test.

    python loadtest/capacity.py --core-price 0.04 --gpu-price 1.50

Prices are for an hour, in any currency. The chain (`rehue serve`: everything but the
model) is measured in front of a Triton whose network sleeps instead of working: the CPU
time of a 512 x 512 JPEG over gRPC, memory and bytes. From these follow the cores that one
GPU of a given speed needs. Then the chain is held on one core in front of 1, 2 and 4 such
Tritons, as GPUs of 0.4 of that core's speed, and what comes is set beside what was
predicted: the Tritons' speeds together, until the core is full, and the cores in use. The
load generator and the Tritons have the other cores. Linux with two cores or more.
"""

import argparse
import asyncio
import contextlib
import math
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass

from openloop import OUT, ROOT
from rehue_client import Client
from rehue_core import spec
from rehue_serve.testing.servers import Server, run_server
from rehue_serve.testing.tritons import run_sleeping_triton
from report import as_json, machine
from running import photograph, saturate, sender
from servers import use

BATCH = 8
QUICK = 0.001  # seconds for a batch: far beyond what two cores can feed
UNDER_WAY = 48  # photographs; below the 64 that one replica takes
BUSY = 0.8  # of a core or a GPU that plans may count on
SPEEDS = (250, 1000, 4000)  # photographs a second of a GPU, for the worksheet
SHARE = 0.4  # speed of a stand-in GPU, of what one core feeds
WORKER = 4  # cores that one Colorizer has in the manifests
MODEL = spec.read_model_contract(ROOT / "model_repository/rehue/configs/cpu.pbtxt")
TENSORS = (  # bytes to and from Triton for a photograph
    MODEL.height * MODEL.width * MODEL.input_type.itemsize
    + 2 * MODEL.ab_height * MODEL.ab_width * MODEL.output_type.itemsize
)


@dataclass(frozen=True)
class Measured:
    """The chain under load, on the cores that it was given.

    Attributes:
        rate: photographs a second.
        cpu: seconds of the chain's CPU for a photograph.
        memory: bytes (PSS) of the chain.
        sent, received: bytes of a photograph and of its picture.
    """

    rate: float
    cpu: float
    memory: int
    sent: int
    received: int


def measure(stand_ins: int, batch_seconds: float, cores: set[int], seconds: float) -> Measured:
    """The chain on these cores, in front of so many Tritons that sleep so long for a batch."""
    photo = photograph(512, 512, gray=True)
    with contextlib.ExitStack() as stack:
        urls = [
            stack.enter_context(run_sleeping_triton(batch_seconds)).url for _ in range(stand_ins)
        ]
        server = stack.enter_context(run_server_on(cores, urls))
        with Client(server.grpc_url) as client:
            received = len(client.colorize(photo).data)
        rate, cpu = asyncio.run(load(server.grpc_url, server.pid, photo, seconds))
        return Measured(rate, cpu, use([server.pid]).memory, len(photo), received)


@contextlib.contextmanager
def run_server_on(cores: set[int], triton_urls: Sequence[str]) -> Iterator[Server]:
    """`rehue serve` on these cores."""
    usual = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)  # child processes inherit it
    with run_server(triton_urls=",".join(triton_urls)) as server:
        os.sched_setaffinity(0, usual)
        yield server


async def load(address: str, pid: int, photo: bytes, seconds: float) -> tuple[float, float]:
    """Photographs a second with UNDER_WAY at a time, and CPU seconds for each."""
    async with sender("grpc", address, photo) as send:
        await saturate(send, 1, UNDER_WAY)  # warms up
        return await saturate(send, seconds, UNDER_WAY, lambda: use([pid]).cpu)


def worksheet(base: Measured, prices: tuple[float, float]) -> list[dict[str, float]]:
    """For one GPU of each speed: what has to stand around it, and what a million costs."""
    core_price, gpu_price = prices
    rows = []
    for speed in SPEEDS:
        rate = speed * BUSY
        cores = rate * base.cpu / BUSY
        rows.append(
            {
                "gpu_per_second": speed,
                "planned_per_second": rate,
                "chain_cores": cores,
                "workers": math.ceil(cores / WORKER),
                "memory_gib": math.ceil(cores / WORKER) * base.memory / 2**30,
                "clients_mb_per_second": rate * (base.sent + base.received) / 1e6,
                "triton_mb_per_second": rate * TENSORS / 1e6,
                "cost_per_million": (cores * core_price + gpu_price) / (rate * 3600) * 1e6,
            }
        )
    return rows


def check(base: Measured, cores: set[int], seconds: float) -> list[dict[str, float]]:
    """The chain on one core in front of stand-in GPUs: predicted and measured."""
    core = 1 / base.cpu
    speed = SHARE * core
    rows = []
    for count in (1, 2, 4):
        found = measure(count, BATCH / speed, cores, seconds)
        predicted = min(count * speed, core)
        rows.append(
            {
                "gpus": count,
                "gpu_per_second": speed,
                "cores_needed": count * speed / core,
                "predicted_per_second": predicted,
                "measured_per_second": found.rate,
                "measured_over_predicted": found.rate / predicted,
                "cores_used": found.rate * found.cpu,
            }
        )
    return rows


def table(rows: Sequence[dict[str, float]]) -> str:
    heads = [name.replace("_", " ") for name in rows[0]]
    lines = [f"| {' | '.join(heads)} |", "| " + " | ".join(["---"] * len(heads)) + " |"]
    lines += [f"| {' | '.join(f'{value:.4g}' for value in row.values())} |" for row in rows]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    parser.add_argument("--core-price", type=float, default=0.04, help="of one core for an hour")
    parser.add_argument("--gpu-price", type=float, default=1.50, help="of one GPU for an hour")
    arguments = parser.parse_args()
    first, *others = sorted(os.sched_getaffinity(0))
    if not others:
        parser.error("this needs two cores")
    os.sched_setaffinity(0, others)  # and so the Tritons'
    base = measure(1, QUICK, {first}, arguments.seconds)
    sheet = worksheet(base, (arguments.core_price, arguments.gpu_price))
    checked = check(base, {first}, arguments.seconds)
    text = f"""Machine: {machine()}; 512 x 512 JPEG over gRPC
Chain: {base.cpu * 1000:.2f} ms CPU a photograph, {1 / base.cpu:.0f}/s a core, \
{base.memory / 2**20:.0f} MiB; on one core it answered {base.rate:.0f}/s. Each photograph has
{base.sent} bytes and its picture {base.received}; {TENSORS} go to and from Triton.

One GPU (plans count on {BUSY:.0%} of it and of the cores; a worker has {WORKER}):

{table(sheet)}

The chain on one core before stand-in GPUs:

{table(checked)}
"""
    print(text)
    OUT.mkdir(parents=True, exist_ok=True)
    facts = {"machine": machine(), "chain": asdict(base), "worksheet": sheet, "check": checked}
    (OUT / "capacity.json").write_text(as_json(facts))
    (OUT / "capacity.md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
