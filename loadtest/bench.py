"""What the chain around the model costs, measured in one run on one machine.

    make bench                                   # all parts, some half an hour
    make bench ARGS="--only model --seconds 60"  # one part

model    images a second at saturating load, interleaved over rounds because machines are
         noisy, medians and their ratios, and latency one at a time:
           bare    the ONNX file in ONNX Runtime alone, every core, batch 8; the quicker of
                   all threads in one session and a session on each core
           triton  the same model through the embedded Triton, over gRPC
           http    512 x 512 JPEG in and out through HTTP, HAProxy, Ray Serve and Triton
           grpc    the same through gRPC
chain    decode to encode beside scikit-image, on one thread; then the whole system with a
         stand-in model that answers at once: CPU of all server processes, by stage and by
         process; and the tensors alone, to Triton and back, in messages and in shared memory
batching who puts photographs together for one call: this project, Ray's @serve.batch, Triton
scaling  1, 2 and 4 Tritons whose model takes a fixed time and no CPU; and how many cores
         the chain needs for GPUs of several speeds (with chain)

The load generator shares the cores with what it measures. Results lie in results/.
"""

import argparse
import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime

import batching
import breakdown
import chain
import scaling
from rehue_serve.embedded import EmbeddedTriton
from rehue_serve.endpoints import Endpoints
from rehue_serve.testing.servers import run_server
from rehue_serve.triton import TritonClient
from report import machine
from running import ROOT, photograph, saturate, sender

BATCH = 8
CONCURRENCY = 32  # enough to keep every stage busy
CALLS = 40  # one at a time, for latency
PARTS = ("model", "chain", "batching", "scaling")

Rows = dict[str, dict[str, float]]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", choices=PARTS, nargs="+", default=PARTS)
    parser.add_argument("--seconds", type=float, default=20.0, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=["seed", "rehue"])
    arguments = parser.parse_args()
    seconds, rounds = arguments.seconds, arguments.rounds
    tables: dict[str, Rows] = {}
    if "model" in arguments.only:
        photo = photograph(512, 512)
        with (
            EmbeddedTriton(ROOT / "model_repository") as triton,
            run_server(triton_urls=triton.url) as server,
        ):
            for model in arguments.models:
                tables |= measure(model, photo, triton.url, server.urls, seconds, rounds)
    if "chain" in arguments.only:
        tables["Lab chain, decode to encode, one thread"] = chain.lab_chain(rounds)
        around = chain.around_the_network(seconds)
        tables["Everything but the network"] = around
        tables["Cores of the chain for one GPU"] = scaling.cores_for_gpus(around)
        tables["Stages, CPU ms on one thread"] = breakdown.stages()
        tables["Processes, CPU ms a photograph"] = breakdown.processes(seconds)
        tables["Tensors to Triton and back"] = chain.tensors_to_triton(seconds)
    if "batching" in arguments.only:
        tables |= batching.compare(seconds)
    if "scaling" in arguments.only:
        title = f"Stand-ins of {scaling.BATCH / scaling.SECONDS:.0f} images/s each"
        tables[title] = scaling.scale(seconds, rounds)
    report(tables, "-".join(arguments.only))
    return 0


def measure(
    model: str, photo: bytes, triton_url: str, urls: dict[str, str], seconds: float, rounds: int
) -> dict[str, Rows]:
    """Images a second by what was measured, and latency; medians over the rounds."""
    ways: dict[str, Callable[[], float]] = {
        "bare, one session": lambda: bare(model, seconds, 1),
        "bare, a session a core": lambda: bare(model, seconds, os.cpu_count() or 1),
        "triton": lambda: asyncio.run(through_triton(model, triton_url, seconds)),
        "http": lambda: asyncio.run(through_chain("http", urls["http"], model, photo, seconds)),
        "grpc": lambda: asyncio.run(through_chain("grpc", urls["grpc"], model, photo, seconds)),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, way in ways.items():
            taken[name].append(way())
            print(f"{model} round {number + 1} {name}: {taken[name][-1]:.1f}/s", file=sys.stderr)
    rates = {name: statistics.median(values) for name, values in taken.items()}
    best = max(rate for name, rate in rates.items() if name.startswith("bare"))
    return {
        f"{model}, saturated": {
            name: {"images/s": rate, "over bare": rate / best, "least": min(taken[name]),
                   "most": max(taken[name])}
            for name, rate in rates.items()
        },
        f"{model}, one at a time": asyncio.run(one_at_a_time(model, urls, photo)),
    }  # fmt: skip


def session(model: str, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    path = ROOT / "model_repository" / model / "1" / "model.onnx"
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def batch(network: onnxruntime.InferenceSession, count: int) -> dict[str, np.ndarray]:
    side = network.get_inputs()[0].shape[-1]
    return {
        "lightness": np.random.default_rng(0).integers(0, 256, (count, 1, side, side), np.uint8)
    }


def bare(model: str, seconds: float, sessions: int) -> float:
    """Images a second, batch 8, of so many sessions that share the cores evenly."""
    networks = [session(model, (os.cpu_count() or 1) // sessions) for _ in range(sessions)]
    feed = batch(networks[0], BATCH)
    began = time.perf_counter() + 1

    def run(network: onnxruntime.InferenceSession) -> float:
        network.run(None, feed)
        done, since = 0, time.perf_counter()
        while time.perf_counter() < began + seconds:
            network.run(None, feed)
            done += BATCH
        return done / (time.perf_counter() - since)

    with ThreadPoolExecutor(sessions) as pool:
        return sum(pool.map(run, networks))


async def through_triton(model: str, url: str, seconds: float) -> float:
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


async def through_chain(protocol: str, url: str, model: str, photo: bytes, seconds: float) -> float:
    async with sender(protocol, url, photo, model) as send:
        return (await saturate(send, seconds, CONCURRENCY))[0]


async def one_at_a_time(model: str, urls: dict[str, str], photo: bytes) -> Rows:
    """Medians, the ways taken in turn; the bare model runs alone, batch 1, on every core."""
    network = session(model, os.cpu_count() or 1)
    feed = batch(network, 1)
    taken: dict[str, list[float]] = {"bare": [], **{protocol: [] for protocol in urls}}
    async with (
        sender("http", urls["http"], photo, model) as http,
        sender("grpc", urls["grpc"], photo, model) as grpc,
    ):
        for _ in range(CALLS):
            began = time.perf_counter()
            network.run(None, feed)
            taken["bare"].append(time.perf_counter() - began)
            for protocol, send in (("http", http), ("grpc", grpc)):
                began = time.perf_counter()
                await send()
                taken[protocol].append(time.perf_counter() - began)
    medians = {name: statistics.median(values) * 1000 for name, values in taken.items()}
    return {
        name: {"ms": value, "ms beside bare": value - medians["bare"]}
        for name, value in medians.items()
    }


def report(tables: dict[str, Rows], name: str) -> None:
    """Prints the tables, and writes them to results/ as Markdown and JSON."""
    lines = [f"Machine: {machine()}"]
    for title, rows in tables.items():
        columns = list(next(iter(rows.values())))
        lines += ["", f"| {title} | {' | '.join(columns)} |", "| --- " * (len(columns) + 1) + "|"]
        for row, cells in rows.items():
            lines.append(f"| {row} | {' | '.join(shown(cells[column]) for column in columns)} |")
    text = "\n".join(lines)
    print(text)
    out = ROOT / "results"
    out.mkdir(exist_ok=True)
    (out / f"bench-{name}.md").write_text(text + "\n")
    facts = {"machine": machine(), "tables": tables}
    (out / f"bench-{name}.json").write_text(json.dumps(facts, indent=2))


def shown(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


if __name__ == "__main__":
    sys.exit(main())
