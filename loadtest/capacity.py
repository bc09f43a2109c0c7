"""A capacity worksheet from measured figures, and one of its predictions put to the test.

    python loadtest/capacity.py --core-price 0.04 --gpu-price 1.50

Prices are for an hour, in any currency. The chain (`rehue serve`: everything but the
model) is measured in front of a Triton whose network sleeps instead of working: the CPU
time of a 512 x 512 JPEG over gRPC, memory and bytes. From these follow the cores that one
GPU of a given speed needs. Then the chain is held on one core in front of 1, 2 and 4 such
Tritons, as GPUs of 0.4 of that core's speed, and what comes is set beside what was
predicted: the Tritons' speeds together, until the core is full. The load generator and
the Tritons have the other cores. Linux with two cores or more.
"""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from openloop import OUT, client
from rehue_serve.embedded import EmbeddedTriton
from report import machine
from running import stand_in
from samples import squares
from servers import Use, free_port, use, wait_for

BATCH = 8
QUICK = 0.001  # seconds for a batch: far beyond what two cores can feed
UNDER_WAY = 48  # photographs; below the 64 that one replica takes
BUSY = 0.8  # of a core or a GPU that plans may count on
SPEEDS = (250, 1000, 4000)  # photographs a second of a GPU, for the worksheet
SHARE = 0.4  # speed of a stand-in GPU, of what one core feeds
TENSORS = 256 * 256 + 2 * 128 * 128 * 2  # bytes to and from Triton for a photograph


@dataclass(frozen=True)
class Measured:
    """One load on the chain for some seconds.

    Attributes:
        rate: photographs a second.
        cpu: seconds of the chain's CPU for a photograph, and `triton_cpu` of the stand-ins'.
        memory: bytes (PSS) of the chain.
    """

    rate: float
    cpu: float
    triton_cpu: float
    memory: int


@contextlib.contextmanager
def standins(count: int, seconds: float) -> Iterator[list[EmbeddedTriton]]:
    """Tritons with `rehue`'s contract whose network sleeps so long for a batch."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(stand_in(seconds)) for _ in range(count)]


@contextlib.contextmanager
def chain(tritons: Sequence[EmbeddedTriton], cores: Sequence[int]) -> Iterator[tuple[str, int]]:
    """`rehue serve` on these cores: its gRPC address and its process."""
    http, grpc, metrics = (free_port() for _ in range(3))
    settings = {
        "REHUE_HTTP_PORT": str(http),
        "REHUE_GRPC_PORT": str(grpc),
        "REHUE_METRICS_PORT": str(metrics),
        "REHUE_TRITON_URLS": ",".join(triton.url for triton in tritons),
    }
    process = subprocess.Popen(
        [Path(sys.executable).with_name("rehue"), "serve"],
        env=os.environ | settings,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    psutil.Process(process.pid).cpu_affinity(list(cores))  # and so of all that it starts
    try:
        wait_for(f"http://127.0.0.1:{http}/readyz", process)
        yield f"grpc://127.0.0.1:{grpc}", process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


async def load(url: str, pid: int, tritons: Sequence[EmbeddedTriton], seconds: float) -> Measured:
    """UNDER_WAY photographs at a time; the first two seconds are not counted."""
    photographs, done = squares(), 0

    def used() -> tuple[Use, Use]:
        return use([pid]), use([triton.pid for triton in tritons])

    async with client(url) as work:

        async def worker(number: int, end: float) -> None:
            nonlocal done
            while time.perf_counter() < end:
                await work(photographs[number % len(photographs)])
                done += 1

        end = time.perf_counter() + 2 + seconds
        running = [asyncio.create_task(worker(number, end)) for number in range(UNDER_WAY)]
        await asyncio.sleep(2)
        counted, since, before = done, time.perf_counter(), used()
        await asyncio.sleep(seconds)
        counted, took, after = done - counted, time.perf_counter() - since, used()
        await asyncio.gather(*running)
    chain_cpu, triton_cpu = (b.cpu - a.cpu for a, b in zip(before, after, strict=True))
    return Measured(
        counted / took, chain_cpu / counted, triton_cpu / counted, memory=after[0].memory
    )


def worksheet(base: Measured, prices: tuple[float, float]) -> list[dict[str, float]]:
    """For one GPU of each speed: what has to stand around it, and what a million costs."""
    core_price, gpu_price = prices
    photographs = squares()
    size = sum(map(len, photographs)) / len(photographs)
    rows = []
    for speed in SPEEDS:
        rate = speed * BUSY
        cores = rate * base.cpu / BUSY
        rows.append(
            {
                "gpu_per_second": speed,
                "planned_per_second": rate,
                "chain_cores": cores,
                "clients_mb_per_second": rate * size * 2 / 1e6,
                "triton_mb_per_second": rate * TENSORS / 1e6,
                "cost_per_million": (cores * core_price + gpu_price) / (rate * 3600) * 1e6,
            }
        )
    return rows


def check(base: Measured, seconds: float) -> list[dict[str, float]]:
    """The chain on one core in front of stand-in GPUs: predicted and measured."""
    core = 1 / base.cpu
    speed = SHARE * core
    rows = []
    for count in (1, 2, 4):
        with standins(count, BATCH / speed) as tritons, chain(tritons, [0]) as (url, pid):
            found = asyncio.run(load(url, pid, tritons, seconds))
        predicted = min(count * speed, core)
        rows.append(
            {
                "gpus": count,
                "gpu_per_second": speed,
                "cores_needed": count * speed / core,
                "predicted_per_second": predicted,
                "measured_per_second": found.rate,
                "measured_over_predicted": found.rate / predicted,
            }
        )
    return rows


def table(rows: Sequence[dict[str, float]]) -> str:
    heads = [name.replace("_", " ") for name in rows[0]]
    lines = [f"| {' | '.join(heads)} |", "| " + " | ".join(["---"] * len(heads)) + " |"]
    lines += [f"| {' | '.join(f'{value:.3g}' for value in row.values())} |" for row in rows]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=15.0, help="of each measurement")
    parser.add_argument("--core-price", type=float, default=0.04, help="of one core for an hour")
    parser.add_argument("--gpu-price", type=float, default=1.50, help="of one GPU for an hour")
    arguments = parser.parse_args()
    cores = psutil.Process().cpu_affinity()
    if len(cores) < 2:
        parser.error("this needs two cores")
    psutil.Process().cpu_affinity(cores[1:])  # and so the Tritons'
    with standins(1, QUICK) as tritons, chain(tritons, cores[:1]) as (url, pid):
        base = asyncio.run(load(url, pid, tritons, arguments.seconds))
    sheet = worksheet(base, (arguments.core_price, arguments.gpu_price))
    checked = check(base, arguments.seconds)
    text = f"""Machine: {machine()}; 512 x 512 JPEG over gRPC
Chain: {base.cpu * 1000:.2f} ms CPU a photograph, {1 / base.cpu:.0f}/s a core, \
{base.memory / 2**20:.0f} MiB; on one core it answered {base.rate:.0f}/s.

One GPU (plans count on {BUSY:.0%} of it and of the cores):

{table(sheet)}

The chain on one core before stand-in GPUs:

{table(checked)}
"""
    print(text)
    OUT.mkdir(parents=True, exist_ok=True)
    facts = {"machine": machine(), "chain": asdict(base), "worksheet": sheet, "check": checked}
    (OUT / "capacity.json").write_text(json.dumps(facts, indent=2) + "\n")
    (OUT / "capacity.md").write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
