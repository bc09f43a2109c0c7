"""The cost of the chain around the model, measured in one run on one machine.

    make bench                                   # all parts, about half an hour
    make bench ARGS="--only model --seconds 60"  # one part

model    images per second at saturating load, and the latency of one photograph at a time;
         medians over rounds in which the ways take turns, because machines are noisy:
           bare    the ONNX file in ONNX Runtime alone, all cores, batch 8: one session, or
                   a session per core; ratios refer to the faster of the two
           triton  the same model through the embedded Triton, over gRPC
           http    512 x 512 JPEG in and out through HTTP, HAProxy, Ray Serve and Triton
           grpc    the same through gRPC
chain    decode to encode compared with scikit-image, on one thread; then the whole system
         with a model that answers at once: CPU of all server processes, and by stage; and
         the tensors alone, to Triton and back, in messages and in shared memory
batching in Rehue, in Ray's @serve.batch, in Triton
archives jobs of `rehue batch`, on local folders and S3: photographs per second over the bare
         model's, CPU beside the server's, on 1, 2 and 4 Tritons, and live requests beside one
large    memory and CPU time of photographs of 50 and 200 megapixels, without the network
edits    a click and candidates beside a first colorization, one at a time
scaling  1, 2 and 4 Tritons whose model takes a fixed time and no CPU; and the cores that
         the chain needs for GPUs of several speeds (with chain)
versions CPU and memory by process; beside other commits and settings with `--beside`

The load generator shares the cores with the servers. Results are written to results/.
"""

import argparse
import asyncio
import functools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from loadtest import archives, batching, breakdown, chain, editing, large, scaling, versions
from loadtest.report import describe_machine
from loadtest.samples import ROOT, create_photograph
from loadtest.saturation import Send, open_sender, saturate
from rehue_serve.embedded import EmbeddedTriton
from rehue_serve.endpoints import Endpoints
from rehue_serve.testing.servers import run_server
from rehue_serve.triton import TritonClient

MAX_BATCH = 8
CONCURRENCY = 32  # photographs in flight: enough to keep every stage busy
SINGLE_CALLS = 40  # one at a time, for latency
PARTS = ("model", "chain", "large", "batching", "archives", "edits", "scaling", "versions")

Rows = dict[str, dict[str, float]]


def main() -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--seconds", type=float, default=20.0, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=["seed", "rehue"])
    parser.add_argument(
        "--beside",
        nargs="+",
        default=[],
        metavar="VERSION",
        help="for the part versions: work trees of other commits, settings as VARIABLE=VALUE",
    )
    arguments = parser.parse_args()
    seconds, rounds = arguments.seconds, arguments.rounds
    tables: dict[str, Rows] = {}
    if "model" in arguments.only:
        photograph = create_photograph(512, 512)
        with (
            EmbeddedTriton(ROOT / "model_repository") as triton,
            run_server(triton_urls=triton.url) as server,
        ):
            for model in arguments.models:
                tables |= measure_model(model, photograph, triton.url, server.urls, seconds, rounds)
    if "chain" in arguments.only:
        tables["Lab chain, decode to encode, one thread"] = chain.compare_chains(rounds)
        served = chain.measure_served_chain(seconds)
        tables["Everything but the network"] = served
        tables["Cores of the chain for one GPU"] = scaling.compute_cores_for_gpus(served)
        tables["Stages, CPU ms on one thread"] = breakdown.measure_stages()
        tables["Tensors to Triton and back"] = chain.measure_tensor_transport(seconds)
    if "large" in arguments.only:
        tables["Large photographs"] = large.measure_large()
    if "batching" in arguments.only:
        tables |= batching.compare_batching(seconds)
    if "archives" in arguments.only:
        tables |= measure_archives(arguments.models, seconds, rounds)
    if "edits" in arguments.only:
        network = open_session(chain.MODEL.name, 1)
        run = functools.partial(network.run, None, create_batch(network, 1))
        tables["An edit by stage, CPU ms on one thread"] = editing.measure_stages(10 * rounds, run)
        with run_server() as server:
            tables["An edit, one at a time"] = editing.measure_edits(server.http_url, 10 * rounds)
    if "scaling" in arguments.only:
        title = f"Stand-ins of {scaling.MAX_BATCH / scaling.BATCH_SECONDS:.0f} images/s each"
        tables[title] = scaling.measure_scaling(seconds, rounds)
    if "versions" in arguments.only:
        tables |= versions.compare_versions(arguments.beside, seconds, rounds)
    write_tables(tables, "-".join(arguments.only))
    return 0


def measure_archives(models: list[str], seconds: float, rounds: int) -> dict[str, Rows]:
    """Return the tables of bulk jobs."""
    cores = os.cpu_count() or 1

    def measure_bare(model: str, seconds: float) -> float:
        return max(saturate_bare_model(model, seconds, sessions) for sessions in (1, cores))

    def measure_served(triton_url: str) -> tuple[float, float]:
        photograph = create_photograph(512, 512, gray=True)
        with run_server(triton_urls=triton_url) as server:
            read_cpu = functools.partial(archives.read_cpu, server.pid)
            return asyncio.run(
                chain.saturate_url(server.urls["http"], photograph, seconds, 16, read_cpu)
            )

    tables = {
        f"A job with {model}": archives.compare_with_bare(model, seconds, rounds, measure_bare)
        for model in models
    }
    tables["A job's CPU, the network aside"] = archives.compare_with_server(
        round(100 * seconds), measure_served
    )
    tables["A job on stand-ins"] = archives.measure_scaling(seconds)
    tables["Live requests beside a job"] = archives.measure_beside_live_requests(seconds)
    return tables


def measure_model(
    model: str,
    photograph: bytes,
    triton_url: str,
    urls: dict[str, str],
    seconds: float,
    rounds: int,
) -> dict[str, Rows]:
    """Return throughput and latency of a model by way, medians over the rounds."""
    cores = os.cpu_count() or 1
    ways: dict[str, Callable[[], float]] = {
        "bare, one session": lambda: saturate_bare_model(model, seconds, 1),
        "bare, a session a core": lambda: saturate_bare_model(model, seconds, cores),
        "triton": lambda: asyncio.run(saturate_triton(model, triton_url, seconds)),
        "http": lambda: asyncio.run(saturate_chain(urls["http"], model, photograph, seconds)),
        "grpc": lambda: asyncio.run(saturate_chain(urls["grpc"], model, photograph, seconds)),
    }
    measured: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, measure in ways.items():
            rate = measure()
            measured[name].append(rate)
            print(f"{model} round {number + 1} {name}: {rate:.1f}/s", file=sys.stderr)
    rates = {name: statistics.median(values) for name, values in measured.items()}
    best = max(rate for name, rate in rates.items() if name.startswith("bare"))
    return {
        f"{model}, saturated": {
            name: {"images/s": rate, "over bare": rate / best, "least": min(measured[name]),
                   "most": max(measured[name])}
            for name, rate in rates.items()
        },
        f"{model}, one at a time": asyncio.run(measure_latency(model, urls, photograph)),
    }  # fmt: skip


def open_session(model: str, threads: int) -> onnxruntime.InferenceSession:
    """Open the model in ONNX Runtime, on the CPU, with that many threads."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    path = ROOT / "model_repository" / model / "1" / "model.onnx"
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def create_batch(network: onnxruntime.InferenceSession, count: int) -> dict[str, NDArray[Any]]:
    """Return a random input for the network."""
    side = network.get_inputs()[0].shape[-1]
    return {
        "lightness": np.random.default_rng(0).integers(0, 256, (count, 1, side, side), np.uint8)
    }


def saturate_bare_model(model: str, seconds: float, sessions: int) -> float:
    """Return the images per second, batch 8, of sessions that share the cores evenly."""
    networks = [open_session(model, (os.cpu_count() or 1) // sessions) for _ in range(sessions)]
    feed = create_batch(networks[0], MAX_BATCH)
    start = time.perf_counter() + 1

    def run(network: onnxruntime.InferenceSession) -> float:
        network.run(None, feed)
        done, own_start = 0, time.perf_counter()
        while not done or time.perf_counter() < start + seconds:  # one at least, to divide by
            network.run(None, feed)
            done += MAX_BATCH
        return done / (time.perf_counter() - own_start)

    with ThreadPoolExecutor(sessions) as pool:
        return sum(pool.map(run, networks))


async def saturate_triton(model: str, url: str, seconds: float) -> float:
    """Return the images per second through Triton alone."""
    triton = TritonClient(Endpoints([url], model=model, limit=2), default_model=model)
    await triton.start()
    spec = await triton.models.get_spec(model)
    loop = asyncio.get_running_loop()
    input = np.random.default_rng(0).integers(0, 256, (1, spec.height, spec.width), np.uint8)

    async def send() -> None:
        await triton.infer(spec, input, loop.time() + 60)

    rate, _ = await saturate(send, seconds, CONCURRENCY)
    await triton.close()
    return rate


async def saturate_chain(url: str, model: str, photograph: bytes, seconds: float) -> float:
    """Return the images per second through the whole chain."""
    rate, _ = await chain.saturate_url(url, photograph, seconds, CONCURRENCY, model=model)
    return rate


async def measure_latency(model: str, urls: dict[str, str], photograph: bytes) -> Rows:
    """Return the median latency of single photographs by way; the ways take turns.

    The bare model runs with batch 1 on all cores.
    """
    network = open_session(model, os.cpu_count() or 1)
    feed = create_batch(network, 1)

    async def run_network() -> None:
        network.run(None, feed)

    async with (
        open_sender(urls["http"], photograph, model) as http,
        open_sender(urls["grpc"], photograph, model) as grpc,
    ):
        ways: dict[str, Send] = {"bare": run_network, "http": http, "grpc": grpc}
        latencies: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(SINGLE_CALLS):
            for name, send in ways.items():
                start = time.perf_counter()
                await send()
                latencies[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) * 1000 for name, values in latencies.items()}
    return {
        name: {"ms": value, "ms beside bare": value - medians["bare"]}
        for name, value in medians.items()
    }


def write_tables(tables: dict[str, Rows], name: str) -> None:
    """Print the tables and write them to results/ as Markdown and JSON."""
    lines = [f"Machine: {describe_machine()}"]
    for title, rows in tables.items():
        columns = list(next(iter(rows.values())))
        lines += ["", f"| {title} | {' | '.join(columns)} |", "| --- " * (len(columns) + 1) + "|"]
        for row, cells in rows.items():
            lines.append(
                f"| {row} | {' | '.join(format_figure(cells[column]) for column in columns)} |"
            )
    text = "\n".join(lines)
    print(text)
    out = ROOT / "results"
    out.mkdir(exist_ok=True)
    (out / f"bench-{name}.md").write_text(text + "\n")
    facts = {"machine": describe_machine(), "tables": tables}
    (out / f"bench-{name}.json").write_text(json.dumps(facts, indent=2))


def format_figure(value: float) -> str:
    """Return a figure with two or one decimals."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


if __name__ == "__main__":
    sys.exit(main())
