"""Bulk jobs: `rehue batch` beside the bare model, the server, several Tritons and live requests."""

import asyncio
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from loadtest.samples import create_photograph
from loadtest.saturation import open_sender
from loadtest.scaling import BATCH_SECONDS, MAX_BATCH
from loadtest.usage import measure_usage
from rehue_serve.batch import stores
from rehue_serve.batch.manifest import read_records
from rehue_serve.testing.s3 import run_s3
from rehue_serve.testing.servers import run_server
from rehue_serve.testing.tritons import run_sleeping_triton

REHUE = Path(sys.executable).with_name("rehue")
SAMPLE_INTERVAL = 0.5  # seconds between two readings of the CPU time
LEAST_PHOTOGRAPHS = 200  # of a job beside the bare model
COUNTED = (0.15, 0.95)  # of a job's photographs: without its start and its end
LIVE_RATE = 10.0  # requests/s beside a job
LIVE_BATCH_SECONDS = 0.02  # of the stand-in beside them

Rows = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Job:
    """What a finished job took, without its start and its end.

    Attributes:
        rate: photographs/s.
        cpu: seconds of its processes for a photograph.
    """

    rate: float
    cpu: float


def write_archive(folder: Path, count: int) -> Path:
    """Write this many gray JPEGs of 512 x 512 pixels."""
    photograph = create_photograph(512, 512, gray=True)
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number:06}.jpg").write_bytes(photograph)
    return folder


def read_cpu(pid: int) -> float:
    """Return the CPU seconds of a process and its descendants."""
    return measure_usage([pid]).cpu


@contextlib.contextmanager
def start_job(source: object, target: object, *options: str, **environment: str) -> Iterator[int]:
    """Run `rehue batch` until it ends, or until the block does; yields its pid."""
    command = [str(REHUE), "batch", str(source), str(target), *options]
    job = subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    try:
        yield job.pid
    finally:
        job.terminate()
        job.communicate()


def run_job(source: object, target: str, *options: str, **environment: str) -> Job:
    """Run a job to its end and measure it."""
    samples: list[tuple[float, float]] = []  # time, CPU seconds
    command = [str(REHUE), "batch", str(source), target, *options]
    job = subprocess.Popen(
        command, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    while job.poll() is None:
        samples.append((time.time(), measure_usage([job.pid]).cpu))
        time.sleep(SAMPLE_INTERVAL)
    if job.returncode:
        raise RuntimeError(f"the job failed: {job.stdout.read().decode()}")  # type: ignore[union-attr]
    finished = sorted(record.finished.timestamp() for record in read_records(target))  # type: ignore[attr-defined]
    first, last = (int(share * len(finished)) for share in COUNTED)
    began, ended = finished[first], finished[last]
    times, cpu = np.array(samples).T
    used = np.interp(ended, times, cpu) - np.interp(began, times, cpu)
    return Job((last - first) / (ended - began), float(used) / (last - first))


@contextlib.contextmanager
def keep_on_s3(source: Path) -> Iterator[dict[str, str]]:
    """Run an S3-compatible server with the archive in its bucket; yields clients' variables."""
    with run_s3("archive", "pictures") as server:
        os.environ.update(server.environment)  # the results are read from it here
        stores._open_store.cache_clear()  # it remembers the last server
        server.upload(source, "archive")
        yield server.environment


def compare_with_bare(
    model: str, seconds: float, rounds: int, measure_bare: Callable[[str, float], float]
) -> Rows:
    """Compare jobs on the embedded Triton with the bare model; the ways take turns."""
    measured: dict[str, list[float]] = {"bare": [], "local": [], "S3": []}
    with tempfile.TemporaryDirectory() as name:
        count = max(LEAST_PHOTOGRAPHS, round(measure_bare(model, 3) * seconds))
        source = write_archive(Path(name, "source"), count)
        with keep_on_s3(source) as s3:
            for number in range(rounds):
                options = ("--model", model)
                measured["bare"].append(measure_bare(model, seconds))
                measured["local"].append(run_job(source, f"{name}/{number}", *options).rate)
                job = run_job("s3://archive", f"s3://pictures/{number}", *options, **s3)
                measured["S3"].append(job.rate)
    rates = {way: statistics.median(values) for way, values in measured.items()}
    return {
        way: {"images/s": rate, "over bare": rate / rates["bare"]} for way, rate in rates.items()
    }


def compare_with_server(count: int, measure_served: Callable[[str], tuple[float, float]]) -> Rows:
    """Compare the CPU of jobs with the server's, with a network that answers at once.

    Args:
        count: photographs of each job.
        measure_served: takes the Triton's URL; returns images/s and CPU seconds of the server.
    """
    with tempfile.TemporaryDirectory() as name, run_sleeping_triton(0) as triton:
        source = write_archive(Path(name, "source"), count)
        rate, cpu = measure_served(triton.url)
        whole, url = "--no-background", triton.url
        jobs = {"local": run_job(source, f"{name}/local", whole, REHUE_TRITON_URLS=url)}
        with keep_on_s3(source) as s3:
            variables = s3 | {"REHUE_TRITON_URLS": url}
            jobs["S3"] = run_job("s3://archive", "s3://pictures/x", whole, **variables)
    rows = {"HTTP server": (rate, cpu)} | {way: (j.rate, j.cpu) for way, j in jobs.items()}
    return {
        way: {"images/s": rate, "CPU ms": own * 1000, "over the server": own / cpu}
        for way, (rate, own) in rows.items()
    }


def measure_scaling(seconds: float) -> Rows:
    """Return photographs/s of jobs on 1, 2 and 4 stand-in Tritons."""
    rows: Rows = {}
    with contextlib.ExitStack() as stack:
        name = stack.enter_context(tempfile.TemporaryDirectory())
        urls = [stack.enter_context(run_sleeping_triton(BATCH_SECONDS)).url for _ in range(4)]
        for count in (1, 2, 4):
            photographs = round(count * MAX_BATCH / BATCH_SECONDS * seconds)
            source = write_archive(Path(name, f"source{count}"), photographs)
            variables = {"REHUE_TRITON_URLS": ",".join(urls[:count])}
            options = ("--no-background", "--concurrency", "96")
            job = run_job(source, f"{name}/{count}", *options, **variables)
            single = rows["1"]["images/s"] if rows else job.rate
            rows[str(count)] = {
                "images/s": job.rate,
                "over linear": job.rate / count / single,
                "cores at work": job.rate * job.cpu,
            }
    return rows


def measure_beside_live_requests(seconds: float) -> Rows:
    """Return the latency of live requests alone, beside a job, and beside one in the background.

    A request is sent every 100 ms. Server and job use one Triton whose network sleeps.
    """
    rows: Rows = {}
    with (
        tempfile.TemporaryDirectory() as name,
        run_sleeping_triton(LIVE_BATCH_SECONDS) as triton,
        run_server(triton_urls=triton.url) as server,
    ):
        source = write_archive(Path(name, "source"), round(400 * seconds))
        variables = {"REHUE_TRITON_URLS": triton.url}
        for way, options in (("alone", None), ("beside a job", ("--no-background",)),
                             ("beside a job in the background", ("--background",))):  # fmt: skip
            with contextlib.ExitStack() as stack:
                if options is not None:
                    target = f"{name}/{len(rows)}"
                    stack.enter_context(start_job(source, target, *options, **variables))
                    _wait_for_pictures(Path(target))
                latencies = asyncio.run(_send_steadily(server.urls["grpc"], seconds))
            p50, p99 = np.percentile(latencies, [50, 99]) * 1000
            alone = rows["alone"]["p99 ms"] if rows else p99
            rows[way] = {"p50 ms": p50, "p99 ms": p99, "p99 over alone": p99 / alone}
    return rows


def _wait_for_pictures(target: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and len(list(target.glob("*.jpg"))) < 50:
        time.sleep(0.2)


async def _send_steadily(url: str, seconds: float) -> list[float]:
    """Send a request every 1 / LIVE_RATE s; returns their latencies in seconds."""
    latencies: list[float] = []
    photograph = create_photograph(512, 512, gray=True)
    async with open_sender(url, photograph) as send, asyncio.TaskGroup() as group:

        async def send_one() -> None:
            began = time.perf_counter()
            await send()
            latencies.append(time.perf_counter() - began)

        for _ in range(round(seconds * LIVE_RATE)):
            group.create_task(send_one())
            await asyncio.sleep(1 / LIVE_RATE)
    return latencies
