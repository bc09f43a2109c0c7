"""What the chain around the model costs, measured in one run on one machine.

    make bench                      # both models, a few minutes
    make bench ARGS="--seconds 20 --models seed"

Four figures for each model, at saturating load, interleaved over rounds because
machines are noisy, with the median of each and the ratios of the medians:

bare    the ONNX file in ONNX Runtime alone, batch 8, every core
triton  the same model through the embedded Triton, over gRPC, batch 8
http    512 x 512 JPEG in and out through HTTP, HAProxy, Ray Serve and Triton
grpc    the same through gRPC

The load generator shares the cores with what it measures.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import onnxruntime

from rehue_client import AsyncClient
from rehue_serve.embedded import EmbeddedTriton, free_ports
from rehue_serve.endpoints import Endpoints
from rehue_serve.triton import Triton

ROOT = Path(__file__).parents[1]
BATCH = 8
CONCURRENCY = 32  # enough to keep every stage busy


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=6.0, help="of one measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--models", nargs="+", default=["seed", "rehue"])
    parser.add_argument("--photo", type=Path, default=ROOT / "tests/photos/skimage_astronaut.jpg")
    arguments = parser.parse_args()
    photo = photograph(arguments.photo)
    with EmbeddedTriton(ROOT / "model_repository") as triton, served(triton.url) as urls:
        results = {
            model: measure(model, photo, triton.url, urls, arguments.seconds, arguments.rounds)
            for model in arguments.models
        }
    report(results)
    return 0


def photograph(path: Path) -> bytes:
    """A 512 x 512 JPEG, quality 90."""
    pixels = cv2.resize(cv2.imread(str(path)), (512, 512), interpolation=cv2.INTER_AREA)
    return cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


@contextlib.contextmanager
def served(triton_url: str) -> Iterator[dict[str, str]]:
    """``rehue serve`` on free ports, on a Triton that runs already."""
    http, grpc, metrics = free_ports(3)
    environment = os.environ | {
        "REHUE_HTTP_PORT": str(http),
        "REHUE_GRPC_PORT": str(grpc),
        "REHUE_METRICS_PORT": str(metrics),
        "REHUE_TRITON_URLS": triton_url,
    }
    rehue = Path(sys.executable).parent / "rehue"
    process = subprocess.Popen([rehue, "serve"], env=environment, stdout=subprocess.DEVNULL)
    try:
        while not answers(f"http://127.0.0.1:{http}/readyz"):
            if process.poll() is not None:
                raise SystemExit("rehue serve did not start; run it alone to see why")
            time.sleep(0.5)
        yield {"http": f"http://127.0.0.1:{http}", "grpc": f"grpc://127.0.0.1:{grpc}"}
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:  # noqa: S310
            return bool(answer.status == 200)
    except OSError:
        return False


def measure(
    model: str, photo: bytes, triton_url: str, urls: dict[str, str], seconds: float, rounds: int
) -> dict[str, object]:
    """Images a second, by what was measured; medians over the rounds."""
    ways: dict[str, Callable[[], float]] = {
        "bare": lambda: bare(model, seconds),
        "triton": lambda: asyncio.run(through_triton(model, triton_url, seconds)),
        "http": lambda: asyncio.run(through_chain(model, urls["http"], photo, seconds)),
        "grpc": lambda: asyncio.run(through_chain(model, urls["grpc"], photo, seconds)),
    }
    taken: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        for name, way in ways.items():
            taken[name].append(way())
            print(f"{model} round {number + 1} {name}: {taken[name][-1]:.1f}/s", file=sys.stderr)
    rates = {name: statistics.median(values) for name, values in taken.items()}
    latency = asyncio.run(one_at_a_time(model, urls, photo))
    return {
        "images_per_second": rates,
        "over_bare": {name: rates[name] / rates["bare"] for name in rates},
        "rounds": taken,
        "latency_ms_at_concurrency_1": latency,
    }


def bare(model: str, seconds: float) -> float:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    path = ROOT / "model_repository" / model / "1" / "model.onnx"
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    side = session.get_inputs()[0].shape[-1]
    batch = np.random.default_rng(0).integers(0, 256, (BATCH, 1, side, side), np.uint8)
    session.run(None, {"lightness": batch})
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        session.run(None, {"lightness": batch})
        done += BATCH
    return done / (time.perf_counter() - began)


async def saturate(work: Callable[[], Awaitable[object]], seconds: float) -> float:
    """Calls a second of ``work``, CONCURRENCY at a time; the first second is not counted."""
    done = 0

    async def worker(end: float) -> None:
        nonlocal done
        while time.perf_counter() < end:
            await work()
            done += 1

    began = time.perf_counter()
    running = [asyncio.create_task(worker(began + 1 + seconds)) for _ in range(CONCURRENCY)]
    await asyncio.sleep(1)
    counted, since = done, time.perf_counter()
    await asyncio.sleep(seconds)
    rate = (done - counted) / (time.perf_counter() - since)
    await asyncio.gather(*running)
    return rate


async def through_triton(model: str, url: str, seconds: float) -> float:
    triton = Triton(Endpoints([url], model=model, limit=2), default_model=model)
    await triton.start()
    spec = await triton.spec(model)
    loop = asyncio.get_running_loop()
    input = np.random.default_rng(0).integers(0, 256, (1, spec.height, spec.width), np.uint8)
    rate = await saturate(lambda: triton.infer(spec, input, loop.time() + 60), seconds)
    await triton.close()
    return rate


async def through_chain(model: str, url: str, photo: bytes, seconds: float) -> float:
    async with AsyncClient(url) as client:
        return await saturate(lambda: client.colorize(photo, model=model), seconds)


async def one_at_a_time(model: str, urls: dict[str, str], photo: bytes) -> dict[str, float]:
    """Medians of 40 calls, and of the server's own stages within them."""
    medians = {}
    for name, url in urls.items():
        async with AsyncClient(url) as client:
            whole, infer = [], []
            for _ in range(40):
                began = time.perf_counter()
                picture = await client.colorize(photo, model=model)
                whole.append((time.perf_counter() - began) * 1000)
                infer.append(picture.timings.infer)
        medians[name] = statistics.median(whole)
        medians[f"{name}_beside_infer"] = statistics.median(
            a - b for a, b in zip(whole, infer, strict=True)
        )
    return medians


def report(results: dict[str, dict[str, object]]) -> None:
    """Prints a table, and writes it with all rounds to results/."""
    machine = f"{os.cpu_count()} cores, {processor()}, Python {platform.python_version()}"
    lines = [
        f"Machine: {machine}",
        "",
        "| Model | bare/s | Triton/s | HTTP/s | gRPC/s | Triton/bare | HTTP/bare | gRPC/bare |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for model, result in results.items():
        rates, ratios = result["images_per_second"], result["over_bare"]
        assert isinstance(rates, dict)
        assert isinstance(ratios, dict)
        cells = [f"{rates[way]:.1f}" for way in rates]
        cells += [f"{ratios[way]:.2f}" for way in ("triton", "http", "grpc")]
        lines.append(f"| {model} | {' | '.join(cells)} |")
    for model, result in results.items():
        latency = result["latency_ms_at_concurrency_1"]
        assert isinstance(latency, dict)
        lines.append("")
        lines.append(
            f"{model}, one at a time: "
            + ", ".join(f"{name} {value:.1f} ms" for name, value in latency.items())
        )
    text = "\n".join(lines)
    print(text)
    out = ROOT / "results"
    out.mkdir(exist_ok=True)
    (out / "bench.md").write_text(text + "\n")
    (out / "bench.json").write_text(json.dumps({"machine": machine, "models": results}, indent=2))


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


if __name__ == "__main__":
    sys.exit(main())
